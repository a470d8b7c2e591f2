//! What a flag or an experiment says otherwise in some environments, and what therefore holds in one.

use serde::{Deserialize, Serialize};

use super::{Experiment, Flag, FlagRule, TargetingRule};
use crate::bucket::BasisPoints;
use crate::key::Key;

/// Where units are met unless something else is said, and whose events count unless an experiment names others.
pub const PRODUCTION: &str = "production";

/// What an experiment says otherwise in one environment; what is left out is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentOverride {
    /// `false` exposes nobody there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<BasisPoints>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targeting: Option<Vec<TargetingRule>>,
}

/// What a flag says otherwise in one environment; what is left out is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagOverride {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<FlagRule>>,
}

/// What holds of an experiment in one environment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExperimentThere<'a> {
    pub enabled: bool,
    pub rollout: BasisPoints,
    pub targeting: &'a [TargetingRule],
}

/// What holds of a flag in one environment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlagThere<'a> {
    pub enabled: bool,
    pub rules: &'a [FlagRule],
}

impl Experiment {
    pub fn in_environment(&self, environment: &str) -> ExperimentThere<'_> {
        let says = self.environments.get(environment);
        ExperimentThere {
            enabled: says.and_then(|says| says.enabled).unwrap_or(true),
            rollout: says.and_then(|says| says.rollout).unwrap_or(self.rollout),
            targeting: says.and_then(|says| says.targeting.as_deref()).unwrap_or(&self.targeting),
        }
    }
}

impl Flag {
    pub fn in_environment(&self, environment: &str) -> FlagThere<'_> {
        let says = self.environments.get(environment);
        FlagThere {
            enabled: says.and_then(|says| says.enabled).unwrap_or(self.enabled),
            rules: says.and_then(|says| says.rules.as_deref()).unwrap_or(&self.rules),
        }
    }
}

/// Of an experiment that names none.
pub(super) fn counted_by_default() -> Vec<Key> {
    vec![Key::new(PRODUCTION).expect("`production` is a key")]
}

pub(super) fn is_counted_by_default(environments: &[Key]) -> bool {
    matches!(environments, [only] if only.as_str() == PRODUCTION)
}
