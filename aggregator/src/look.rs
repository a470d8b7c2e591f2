//! The record of a look at an experiment in the log of looks, and its meaning for the next look. All
//! statistical state is here: no document is ever read for it. Pure; [`crate::look_log`] keeps the looks in order.

use std::collections::BTreeSet;

use schemas::definition::{Metric, MetricType, Version};
use schemas::{Micros, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stats::group_sequential::{Boundary, Design, Spending};
use stats::phases::{self, Stratum};
use stats::quantile::ArmQuantile;
use stats::{
    Alpha, Alternative, Arm, ExactPairSums, ExactSums, Moments, Pair, PairMoments, TreatmentShare, cuped,
    ratio,
};

use crate::cut::Cut;
use crate::document::{BoundaryLook, MetricResult, Role};

/// One look at one experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// The analysis that took the look.
    pub analysis_id: Uuid,
    pub definition_version: Version,
    /// RFC 3339.
    pub as_of: String,
    pub cut: Cut,
    /// The part of the plan's alpha that earlier boundaries spent and this look does not continue.
    pub alpha_spent_before: f64,
    /// Phases whose units did not count.
    pub phases_left_out: BTreeSet<u32>,
    /// Phases whose sample ratio had alarmed by then. An alarm stays.
    pub sample_ratio_alarms: BTreeSet<u32>,
    /// When the first of the counted exposures will be dropped from the table; none if never. Nothing is
    /// counted from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_until: Option<Micros>,
    /// The caps that this look froze.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<FrozenCap>,
    /// The comparisons of the primary metric and the guardrails: the control against each treatment.
    pub comparisons: Vec<Comparison>,
}

/// The cap of a winsorized metric. It never moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenCap {
    pub metric: String,
    /// The fields of the metric's definition that decide what is measured: another metric has another cap.
    pub measures: Map<String, Value>,
    /// A whole number of events or millionths; as text, because it can be larger than JSON numbers.
    pub cap: String,
}

/// Returns the fields of a metric's definition that decide the values of its units.
pub fn fields_that_measure(metric: &Metric) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(metric) else {
        unreachable!("a metric is written as an object")
    };
    fields.retain(|name, _| !["key", "owner", "description", "direction"].contains(&name.as_str()));
    fields
}

/// One comparison, as the look saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub of: Identity,
    pub treatment: String,
    /// The look of the plan's boundary, if one was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<BoundaryLook>,
    /// The always-valid p-value up to and including this look, if it is smaller than at all looks before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The same for "it got worse", for a guardrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm_p_value: Option<f64>,
    pub phases: Vec<PhaseSums>,
}

/// The identity of a sequence of looks; a new description of the metric does not start another sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub metric: String,
    pub role: Role,
    #[serde(rename = "type")]
    pub metric_type: Option<MetricType>,
    pub event: Option<String>,
    pub window_hours: Option<u32>,
    /// As in the document, and the margin of a guardrail.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    pub control: String,
}

/// Two arms' units that were first exposed in one phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseSums {
    pub phase: u32,
    /// The weight in basis points; 0 for an arm that got no units then.
    pub weight_control: u32,
    pub weight_treatment: u32,
    pub control: Sums,
    pub treatment: Sums,
}

/// The counts of an arm's units that are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    pub units: u64,
    /// Units with at least one event.
    pub conversions: u64,
    /// The values of a mean; none for a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueSums>,
    /// The quantile of a quantile metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<QuantileValues>,
}

/// A quantile over the units of an arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileValues {
    /// None while there are too few units beyond it.
    pub estimate: Option<QuantileEstimate>,
}

/// The quantile and both ends of its 95 % interval (Woodruff 1952), in millionths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileEstimate {
    pub lower: String,
    pub value: String,
    pub upper: String,
}

/// Exact whole numbers as text, because they can be larger than JSON numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueSums {
    /// The value and its square, each summed over the units.
    pub sum: String,
    pub sum_of_squares: String,
    /// The decimal places of a value; its square has twice as many.
    pub decimals: u32,
    /// The denominators of a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denominator: Option<SecondSums>,
    /// The same value from the time before the exposure, where effects are adjusted by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariate: Option<SecondSums>,
}

/// A second value of each unit, beside the one that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondSums {
    /// The value and its square, each summed over the units.
    pub sum: String,
    pub sum_of_squares: String,
    /// The product of both values of a unit, summed over the units.
    pub sum_of_products: String,
    pub decimals: u32,
}

impl Look {
    /// Returns the first look of an experiment that is older than the log: the alpha that its looks had spent
    /// by then.
    pub fn carried_over(
        analysis_id: Uuid,
        definition_version: Version,
        as_of: Micros,
        cut: Cut,
        alpha_spent_before: f64,
    ) -> Look {
        Look {
            analysis_id,
            definition_version,
            as_of: as_of.to_string(),
            cut,
            alpha_spent_before,
            phases_left_out: BTreeSet::new(),
            sample_ratio_alarms: BTreeSet::new(),
            complete_until: None,
            caps: Vec::new(),
            comparisons: Vec::new(),
        }
    }
}

impl Identity {
    pub fn of(metric: &MetricResult, control: &str) -> Identity {
        let mut options = metric.options.clone();
        // Another margin is another question about harm.
        options.extend(metric.margin.map(|margin| ("margin".to_owned(), margin.into())));
        Identity {
            metric: metric.key.clone(),
            role: metric.role,
            metric_type: metric.metric_type,
            event: metric.event.clone(),
            window_hours: metric.window_hours,
            options,
            control: control.to_owned(),
        }
    }
}

impl Sums {
    pub fn arm(&self) -> Result<Arm, String> {
        let counts = stats::Counts { units: self.units, conversions: self.conversions };
        Arm::new(counts).map_err(|invalid| invalid.to_string())
    }

    /// Returns the moments of what is compared; none for a rate. Those of a ratio are of its linearized values, and those of a
    /// quantile have its standard error. A ratio without two units, or whose denominators add up to 0, and a quantile of too
    /// few units have moments of no units.
    pub fn moments(&self) -> Result<Option<Moments>, String> {
        let invalid = |invalid: stats::Invalid| invalid.to_string();
        if let Some(quantile) = &self.quantile {
            let Some(estimate) = &quantile.estimate else { return Ok(Some(Moments::EMPTY)) };
            let arm = estimate.arm()?;
            let variance = arm.standard_error().powi(2) * self.units as f64;
            return Moments::from_variance(self.units, arm.estimate(), variance).map(Some).map_err(invalid);
        }
        let Some(values) = &self.values else { return Ok(None) };
        let exact = values.exact(self.units)?;
        let Some(denominator) = &values.denominator else {
            return Moments::from_exact(exact).map(Some).map_err(invalid);
        };
        let pair = denominator.beside(values, self.units)?;
        // The numerator is the first of a ratio's values.
        let arms = ratio::linearized(Pair { control: pair, treatment: pair });
        Ok(Some(arms.map_or(Moments::EMPTY, |arms| arms.control)))
    }

    /// Returns the sums of both together.
    pub fn and(&self, other: &Sums) -> Result<Sums, String> {
        let values = match (&self.values, &other.values) {
            (Some(one), Some(other)) => Some(one.and(other)?),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Ok(Sums {
            units: self.units + other.units,
            conversions: self.conversions + other.conversions,
            values,
            // Quantiles are not added up: their phases are never merged.
            quantile: None,
        })
    }
}

impl ValueSums {
    fn exact(&self, count: u64) -> Result<ExactSums, String> {
        let ValueSums { sum, sum_of_squares, decimals, .. } = self;
        let too_large = |_| self.too_large();
        Ok(ExactSums {
            count,
            sum: sum.parse().map_err(too_large)?,
            sum_of_squares: sum_of_squares.parse().map_err(too_large)?,
            decimals: *decimals,
        })
    }

    fn and(&self, other: &ValueSums) -> Result<ValueSums, String> {
        let (one, two) = (self.exact(0)?, other.exact(0)?);
        let sum = one.sum.checked_add(two.sum).ok_or_else(|| self.too_large())?;
        let squares = one.sum_of_squares.checked_add(two.sum_of_squares).ok_or_else(|| self.too_large())?;
        let denominator = match (&self.denominator, &other.denominator) {
            (Some(one), Some(other)) => Some(one.and(other)?),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let covariate = match (&self.covariate, &other.covariate) {
            (Some(one), Some(other)) => Some(one.and(other)?),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let (sum, sum_of_squares) = (sum.to_string(), squares.to_string());
        Ok(ValueSums { sum, sum_of_squares, decimals: self.decimals, denominator, covariate })
    }

    fn too_large(&self) -> String {
        format!("the sums ({}, {}) are beyond 128 bits", self.sum, self.sum_of_squares)
    }

    fn is_zero(&self) -> bool {
        self.sum == "0" && self.sum_of_squares == "0"
    }
}

impl QuantileEstimate {
    fn arm(&self) -> Result<ArmQuantile, String> {
        let millionths = |text: &str| -> Result<f64, String> {
            let whole: i128 = text.parse().map_err(|_| format!("the quantile {text} is beyond 128 bits"))?;
            Ok(whole as f64 / 1e6)
        };
        let (lower, value, upper) =
            (millionths(&self.lower)?, millionths(&self.value)?, millionths(&self.upper)?);
        ArmQuantile::new(lower, value, upper).map_err(|invalid| invalid.to_string())
    }
}

impl SecondSums {
    /// The moments of both values: those of a ratio with the numerator first, those of a covariate with the covariate first.
    fn beside(&self, values: &ValueSums, units: u64) -> Result<PairMoments, String> {
        let sum_of_products = self.sum_of_products.parse().map_err(|_| self.too_large())?;
        let (own, other) = (self.exact(units)?, values.exact(units)?);
        let (x, y) = if values.denominator.is_some() { (other, own) } else { (own, other) };
        PairMoments::from_exact(ExactPairSums { x, y, sum_of_products })
            .map_err(|invalid| invalid.to_string())
    }

    fn exact(&self, count: u64) -> Result<ExactSums, String> {
        let SecondSums { sum, sum_of_squares, decimals, .. } = self;
        let sums = (sum.parse(), sum_of_squares.parse());
        let (Ok(sum), Ok(sum_of_squares)) = sums else { return Err(self.too_large()) };
        Ok(ExactSums { count, sum, sum_of_squares, decimals: *decimals })
    }

    fn and(&self, other: &SecondSums) -> Result<SecondSums, String> {
        let add = |one: &str, two: &str| -> Result<String, String> {
            let sum = match (one.parse::<i128>(), two.parse::<i128>()) {
                (Ok(one), Ok(two)) => one.checked_add(two),
                _ => None,
            };
            sum.map(|sum| sum.to_string()).ok_or_else(|| self.too_large())
        };
        Ok(SecondSums {
            sum: add(&self.sum, &other.sum)?,
            sum_of_squares: add(&self.sum_of_squares, &other.sum_of_squares)?,
            sum_of_products: add(&self.sum_of_products, &other.sum_of_products)?,
            decimals: self.decimals,
        })
    }

    fn too_large(&self) -> String {
        let SecondSums { sum, sum_of_squares, sum_of_products, .. } = self;
        format!(
            "the sums of the denominators ({sum}, {sum_of_squares}, {sum_of_products}) are beyond 128 bits"
        )
    }
}

impl PhaseSums {
    fn has_the_split_of(&self, other: &PhaseSums) -> bool {
        let cross = |a: u32, b: u32| u64::from(a) * u64::from(b);
        cross(self.weight_control, other.weight_treatment)
            == cross(self.weight_treatment, other.weight_control)
    }

    /// Returns the treatment's planned share of both arms' units; none where only one arm was planned to get
    /// any.
    pub fn treatment_share(&self) -> Option<TreatmentShare> {
        let all = f64::from(self.weight_control) + f64::from(self.weight_treatment);
        TreatmentShare::new(f64::from(self.weight_treatment) / all).ok()
    }

    fn and(&self, later: &PhaseSums) -> Result<PhaseSums, String> {
        Ok(PhaseSums {
            control: self.control.and(&later.control)?,
            treatment: self.treatment.and(&later.treatment)?,
            ..self.clone()
        })
    }

    /// Returns whether all values are 0 although units have events.
    fn has_no_values(&self) -> bool {
        let none = |sums: &Sums| sums.values.as_ref().is_some_and(ValueSums::is_zero);
        none(&self.control) && none(&self.treatment)
    }

    /// Returns both arms' moments of what is compared; none for a rate. Where there is a covariate, its part of the values is
    /// taken out (CUPED), unless an arm has too few units for that.
    pub fn moments(&self) -> Result<Option<Pair<Moments>>, String> {
        let (Some(control), Some(treatment)) = (self.control.moments()?, self.treatment.moments()?) else {
            return Ok(None);
        };
        let plain = Pair { control, treatment };
        let Some(pair) = self.with_covariate()? else { return Ok(Some(plain)) };
        Ok(Some(cuped::adjust(pair).map_or(plain, |adjusted| adjusted.arms)))
    }

    fn with_covariate(&self) -> Result<Option<Pair<PairMoments>>, String> {
        let of = |sums: &Sums| {
            let values = sums.values.as_ref()?;
            Some(values.covariate.as_ref()?.beside(values, sums.units))
        };
        let (Some(control), Some(treatment)) = (of(&self.control), of(&self.treatment)) else {
            return Ok(None);
        };
        Ok(Some(Pair { control: control?, treatment: treatment? }))
    }

    /// The same sums without the covariate.
    pub fn unadjusted(&self) -> PhaseSums {
        let mut plain = self.clone();
        for sums in [&mut plain.control, &mut plain.treatment] {
            if let Some(values) = &mut sums.values {
                values.covariate = None;
            }
        }
        plain
    }

    /// `counting`: whether the units with events are counted too.
    fn stratum(&self, share: TreatmentShare, counting: bool) -> Result<Stratum, String> {
        let arms = Pair { control: self.control.arm()?, treatment: self.treatment.arm()? };
        let Some(moments) = self.moments()? else { return Ok(Stratum::of_rates(share, arms)) };
        let stratum = Stratum::of_means(share, moments);
        // All units of a quantile have events.
        let counting = counting && self.control.quantile.is_none();
        Ok(if counting { stratum.counting(arms) } else { stratum })
    }
}

/// Returns the phases that count, with consecutive phases of the same split merged, except those of a quantile. A phase in
/// which one of the arms was planned to get no units compares nothing and is left out.
pub fn splits(phases: &[PhaseSums], left_out: &BTreeSet<u32>) -> Result<Vec<PhaseSums>, String> {
    let mut splits: Vec<PhaseSums> = Vec::new();
    let compared = |of: &&PhaseSums| !left_out.contains(&of.phase) && of.treatment_share().is_some();
    for phase in phases.iter().filter(compared) {
        match splits.last_mut() {
            Some(last) if last.has_the_split_of(phase) && phase.control.quantile.is_none() => {
                *last = last.and(phase)?;
            }
            _ => splits.push(phase.clone()),
        }
    }
    Ok(splits)
}

/// Returns the splits as strata for the statistics. Where all values are 0, the number of units with events
/// carries no information about the values and is left out.
pub fn strata(splits: &[PhaseSums]) -> Result<Vec<Stratum>, String> {
    let events: u64 = splits.iter().map(|of| of.control.conversions + of.treatment.conversions).sum();
    let counting = events == 0 || !splits.iter().all(PhaseSums::has_no_values);
    let share = |of: &PhaseSums| of.treatment_share().ok_or("a split without a share".to_owned());
    splits.iter().map(|of| of.stratum(share(of)?, counting)).collect()
}

/// The looks at an experiment so far, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct EarlierLooks<'a>(pub &'a [Look]);

impl<'a> EarlierLooks<'a> {
    /// Returns the looks at one comparison, each with the phases that were left out of it.
    pub fn sequence(self, of: &Identity, treatment: &str) -> Vec<(&'a Comparison, &'a BTreeSet<u32>)> {
        let looks = self.0.iter().flat_map(|look| {
            let own = look.comparisons.iter().find(|at| at.of == *of && at.treatment == treatment);
            own.map(|comparison| (comparison, &look.phases_left_out))
        });
        looks.collect()
    }

    /// The cap of a winsorized metric, if a look has frozen it.
    pub fn cap(self, metric: &Metric) -> Option<i128> {
        let measures = fields_that_measure(metric);
        let mut caps = self.0.iter().flat_map(|look| &look.caps);
        let own = caps.find(|of| of.metric == metric.key.as_str() && of.measures == measures);
        own.and_then(|of| of.cap.parse().ok())
    }

    /// Phases whose sample ratio has alarmed.
    pub fn alarms(self) -> BTreeSet<u32> {
        self.0.last().map(|look| look.sample_ratio_alarms.clone()).unwrap_or_default()
    }

    /// Returns the part of the plan's `alpha` that is not available for looks at `of`: it was spent by looks
    /// before the control, or what the metric counts, was changed. A new sequence has the conditional error of
    /// the one before at its last look (Mueller & Schaefer 2001, Biometrics 57(3)), and never more than that
    /// sequence left unspent, because the change may depend on what was seen.
    pub fn alpha_spent_before(self, of: &Identity, alpha: f64) -> f64 {
        let Some(last) = self.last_primary() else { return self.alpha_carried_over() };
        if last.comparisons.iter().any(|at| at.of == *of) {
            return last.alpha_spent_before;
        }
        let own = last.comparisons.iter().filter(|at| at.of.role == Role::Primary);
        let part = (alpha - last.alpha_spent_before) / own.clone().count() as f64;
        let (mut spent, mut error) = (last.alpha_spent_before, 0.0);
        for at in own {
            let sequence = self.sequence(&at.of, &at.treatment);
            let planned: Vec<BoundaryLook> = sequence.iter().filter_map(|(look, _)| look.planned).collect();
            spent += planned.last().map_or(0.0, |look| look.alpha_spent);
            error += conditional_error(&planned, part);
        }
        alpha - error.min(alpha - spent).max(0.0)
    }

    /// Returns the part of the plan's alpha that was spent before the first look at a primary metric.
    pub fn alpha_carried_over(self) -> f64 {
        self.0.iter().map(|look| look.alpha_spent_before).fold(0.0, f64::max)
    }

    /// Returns when the first of the counted exposures will be dropped, as recorded by the last look.
    pub fn complete_until(self) -> Option<Micros> {
        self.0.last().and_then(|look| look.complete_until)
    }

    fn last_primary(self) -> Option<&'a Look> {
        self.0.iter().rfind(|look| look.comparisons.iter().any(|at| at.of.role == Role::Primary))
    }
}

/// The boundary of a plan: O'Brien-Fleming spending, two-sided. Its looks and its conditional error rest on the same one.
pub(crate) fn planned_boundary(alpha: Alpha) -> Boundary {
    Boundary::new(Design { alpha, alternative: Alternative::TwoSided, spending: Spending::OBrienFleming })
}

/// Returns the conditional error of a boundary with this part of alpha after these looks; all of it before the
/// first look.
fn conditional_error(looks: &[BoundaryLook], part: f64) -> f64 {
    let Ok(alpha) = Alpha::new(part) else { return 0.0 };
    let Some(last) = looks.last() else { return part };
    if last.is_final || looks.iter().any(|look| look.crossed) {
        return 0.0;
    }
    let mut boundary = planned_boundary(alpha);
    for look in looks.iter().filter(|look| look.fraction > 0.0) {
        if boundary.look_having_spent(look.fraction, look.alpha_spent.min(part)).is_err() {
            return 0.0;
        }
    }
    phases::conditional_error(&boundary, last.z)
}
