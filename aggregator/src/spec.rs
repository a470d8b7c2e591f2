//! From definitions to what is counted: the names and numbers of the package `counting`.

use std::collections::BTreeSet;

use counting::kind::{self, Cap, Kind, Of, Span, Term};
use counting::micros::{DAY, HOUR, Micros};
use counting::names::{Name, Names};
use counting::spec::{ExperimentSpec, MetricSpec, Switchback};
use schemas::definition::{EventFilter, Experiment, Limit, Metric, MetricKind, PerUnit, RatioTerm};

/// The events that metrics read: each name with each filter once.
#[derive(Clone, Debug, Default)]
pub struct Series {
    names: Names,
    series: Vec<(String, EventFilter)>,
}

impl Series {
    /// Returns the number of the events of this name that pass the filter.
    pub fn add(&mut self, event: &str, filter: &EventFilter) -> Name {
        let filter_text = serde_json::to_string(filter).expect("a filter is JSON");
        let name = self.names.add(&format!("{event} {filter_text}"));
        if name.index() == self.series.len() {
            self.series.push((event.to_owned(), filter.clone()));
        }
        name
    }

    /// The series that an event of this name, with this metadata and value, belongs to.
    pub fn of_event<'a>(
        &self,
        event: &str,
        metadata: impl Fn(&str) -> Option<&'a str>,
        value_millionths: Option<i64>,
    ) -> Vec<Name> {
        let belongs = |(name, filter): &&(String, EventFilter)| {
            name == event && filter.passes(&metadata, value_millionths)
        };
        let all = self.series.iter().enumerate().filter(|(_, of)| belongs(of));
        all.map(|(index, _)| self.names.nth(index)).collect()
    }
}

/// Compiles an experiment with its metrics, each with its frozen cap if it has one.
pub fn experiment<'a>(
    names: &mut Names,
    series: &mut Series,
    definition: &Experiment,
    metrics: impl Iterator<Item = (&'a Metric, Option<i128>)>,
) -> ExperimentSpec {
    let environments: BTreeSet<Name> =
        definition.counted_environments.iter().map(|key| names.add(key.as_str())).collect();
    let seconds = |seconds: u32| Micros::from(seconds) * 1_000_000;
    ExperimentSpec {
        name: names.add(definition.key.as_str()),
        environments: environments.into_iter().collect(),
        switchback: definition.switchback.map(|of| Switchback {
            window: seconds(of.window_seconds),
            burn_in: seconds(of.burn_in_seconds),
        }),
        metrics: metrics
            .map(|(metric, cap)| self::metric(series, metric, definition.plan.covariate_days, cap))
            .collect(),
    }
}

fn metric(
    series: &mut Series,
    metric: &Metric,
    covariate_days: Option<u32>,
    cap: Option<i128>,
) -> MetricSpec {
    let own = series.add(metric.event.as_str(), &metric.filter);
    let delay = metric.delay_hours.map_or(0, |hours| Micros::from(hours) * HOUR);
    let window = metric.window_hours.map(|hours| Micros::from(hours) * HOUR);
    let span = Span { delay, end: window.map(|window| delay + window) };
    let kind = match &metric.kind {
        MetricKind::Conversion => Kind::Conversion(kind::Conversion { series: own, span }),
        MetricKind::Count { limit } => {
            // A number of events is whole, so a cap between two numbers cuts at the lower one.
            Kind::Count(kind::Count { series: own, span, cap: cap_of(*limit, cap, 1_000_000) })
        }
        MetricKind::Mean { limit } => {
            Kind::Mean(kind::Mean { series: own, span, cap: cap_of(*limit, cap, 1) })
        }
        MetricKind::Ratio { numerator, denominator, denominator_event, denominator_filter } => {
            let of = |term: RatioTerm| match term {
                RatioTerm::Events => Of::Events,
                RatioTerm::Total => Of::Total,
            };
            let second = series.add(denominator_event.as_str(), denominator_filter);
            Kind::Ratio(kind::Ratio {
                numerator: Term { series: own, of: of(*numerator) },
                denominator: Term { series: second, of: of(*denominator) },
                span,
            })
        }
        MetricKind::Retention { days: (first, last) } => {
            Kind::Retention(kind::Retention { series: own, first: *first, last: *last, window })
        }
        MetricKind::Quantile { per_unit, .. } => Kind::Quantile(kind::Quantile {
            series: own,
            span,
            per_unit: match per_unit {
                PerUnit::Total => kind::PerUnit::Total,
                PerUnit::Mean => kind::PerUnit::Mean,
                PerUnit::Largest => kind::PerUnit::Largest,
                PerUnit::First => kind::PerUnit::First,
            },
        }),
        MetricKind::Funnel { then_events } => {
            let then = then_events.iter().map(|event| series.add(event.as_str(), &metric.filter));
            Kind::Funnel(kind::Funnel { steps: std::iter::once(own).chain(then).collect(), delay, window })
        }
    };
    let has_covariate = matches!(kind, Kind::Conversion(_) | Kind::Count(_) | Kind::Mean(_));
    let covariate = covariate_days.filter(|_| has_covariate).map(|days| Micros::from(days) * DAY);
    MetricSpec { identity: metric.key.as_str().into(), kind, covariate }
}

fn cap_of(limit: Option<Limit>, frozen: Option<i128>, millionths_per_unit: i128) -> Cap {
    match (limit, frozen) {
        (None, _) => Cap::None,
        (Some(Limit::Value(cap)), _) => Cap::At(i128::from(cap.millionths()) / millionths_per_unit),
        (Some(Limit::Quantile(_)), Some(cap)) => Cap::At(cap),
        (Some(Limit::Quantile(_)), None) => Cap::NotYet,
    }
}
