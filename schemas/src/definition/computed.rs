//! Finds the metrics that this version does not compute, where a definition defines or names them, so that the
//! author of a change knows it before waiting for a verdict. It does not know counts or verdicts.

use std::fmt;

use super::{Definition, Definitions, Key};

/// A metric that is stored but not computed, and the place where a definition defines or names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotComputed {
    /// The field of an experiment that names it, such as `metrics.guardrails[0]`; `None` in its own definition.
    pub named_in: Option<String>,
    pub metric: Key,
    /// What metrics of its kind are called, in the plural.
    pub what: &'static str,
}

impl Definitions {
    /// Lists the metrics that `definition` defines or names and that are not computed. Metrics that an
    /// experiment names are looked up in the current definitions.
    pub fn not_computed(&self, definition: &Definition) -> Vec<NotComputed> {
        match definition {
            Definition::Metric(metric) => {
                let what = metric.unit_value().err();
                what.map(|what| NotComputed { named_in: None, metric: metric.key.clone(), what })
                    .into_iter()
                    .collect()
            }
            Definition::Experiment(experiment) => {
                let named = experiment.metrics.fields();
                named
                    .filter_map(|(field, key)| {
                        let what = self.metric(key)?.unit_value().err()?;
                        Some(NotComputed { named_in: Some(field), metric: key.clone(), what })
                    })
                    .collect()
            }
            Definition::Flag(_) | Definition::Layer(_) | Definition::List(_) | Definition::Settings(_) => {
                Vec::new()
            }
        }
    }
}

impl fmt::Display for NotComputed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotComputed { named_in, metric, what } = self;
        let Some(field) = named_in else {
            return write!(
                formatter,
                "this version does not compute {what}: `{metric}` is kept and has no numbers"
            );
        };
        let follows = if field.starts_with("metrics.primary") {
            "there will be no verdict"
        } else if field.starts_with("metrics.guardrails") {
            "nothing ships while it is a guardrail"
        } else {
            "it has no numbers"
        };
        write!(formatter, "{field}: this version does not compute {what} like `{metric}`, so {follows}")
    }
}
