//! What of a unit is compared, for each kind of metric, and how the sums of the counting become those of a look.

use counting::sums;
use schemas::definition::{Experiment, Metric, MetricKind, RatioTerm};
use serde_json::{Map, Value};
use stats::Side;
use stats::quantile::{self, ArmQuantile, Level};

use crate::look::{QuantileEstimate, QuantileValues, SecondSums, Sums, ValueSums, fields_that_measure};

/// The decimal places of values in millionths.
const MILLIONTHS: u32 = 6;

/// Returns the fields that decide what is measured, but for those that a document names on their own.
pub(super) fn options(metric: &Metric) -> Map<String, Value> {
    let mut fields = fields_that_measure(metric);
    fields.retain(|name, _| !["type", "event", "window_hours"].contains(&name.as_str()));
    fields
}

/// The quantity of a unit that is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// Whether it has what the metric asks for: the event, a day on which it came back, all steps.
    Rate,
    /// A value of the unit, with so many decimal places, adjusted by the same value from before its exposure or not.
    Mean { decimals: u32, adjusted: bool },
    /// One value of the unit over another, both summed over the units.
    Ratio { numerator_decimals: u32, denominator_decimals: u32 },
    /// A quantile of the units' values.
    Quantile(Level),
}

impl Measure {
    pub(super) fn of(metric: &Metric, experiment: &Experiment) -> Result<Measure, String> {
        let decimals = |term: RatioTerm| match term {
            RatioTerm::Events => 0,
            RatioTerm::Total => MILLIONTHS,
        };
        let adjusted = experiment.plan.covariate_days.is_some();
        Ok(match &metric.kind {
            MetricKind::Conversion if adjusted => Measure::Mean { decimals: 0, adjusted },
            MetricKind::Conversion | MetricKind::Retention { .. } | MetricKind::Funnel { .. } => {
                Measure::Rate
            }
            MetricKind::Count { .. } => Measure::Mean { decimals: 0, adjusted },
            MetricKind::Mean { .. } => Measure::Mean { decimals: MILLIONTHS, adjusted },
            MetricKind::Ratio { numerator, denominator, .. } => Measure::Ratio {
                numerator_decimals: decimals(*numerator),
                denominator_decimals: decimals(*denominator),
            },
            MetricKind::Quantile { quantile, .. } => {
                Measure::Quantile(Level::new(*quantile).map_err(|invalid| invalid.to_string())?)
            }
        })
    }

    pub(super) fn sums(self, sums: &sums::Sums) -> Sums {
        let second = |decimals| SecondSums {
            sum: sums.x.to_string(),
            sum_of_squares: sums.xx.to_string(),
            sum_of_products: sums.xy.to_string(),
            decimals,
        };
        let values = |decimals, denominator, covariate| ValueSums {
            sum: sums.y.to_string(),
            sum_of_squares: sums.yy.to_string(),
            decimals,
            denominator,
            covariate,
        };
        let plain = Sums { units: sums.units, conversions: sums.with_event, values: None, quantile: None };
        match self {
            Measure::Rate => plain,
            Measure::Mean { decimals, adjusted } => {
                let covariate = adjusted.then(|| second(decimals));
                Sums { values: Some(values(decimals, None, covariate)), ..plain }
            }
            Measure::Ratio { numerator_decimals, denominator_decimals } => {
                let denominator = Some(second(denominator_decimals));
                Sums { values: Some(values(numerator_decimals, denominator, None)), ..plain }
            }
            Measure::Quantile(level) => {
                Sums { quantile: Some(QuantileValues { estimate: estimate(level, sums) }), ..plain }
            }
        }
    }
}

/// None while there are too few units beyond the quantile.
fn estimate(level: Level, sums: &sums::Sums) -> Option<QuantileEstimate> {
    // Which arm it is matters only to the text, which is not used.
    let error = quantile::share_error(Side::Control, level, sums.units).ok()?;
    let levels = quantile::levels(level, error).ok()?;
    let values: Vec<(i128, u64)> = sums.values.iter().collect();
    // By their positions, which are exact doubles, so that the values stay exact.
    let positions: Vec<(f64, u64)> =
        values.iter().enumerate().map(|(position, (_, units))| (position as f64, *units)).collect();
    let found = ArmQuantile::of_counts(&positions, levels).ok()?;
    let value = |position: f64| values.get(position as usize).map(|(value, _)| value.to_string());
    let interval = found.interval();
    Some(QuantileEstimate {
        lower: value(interval.lower)?,
        value: value(found.estimate())?,
        upper: value(interval.upper)?,
    })
}
