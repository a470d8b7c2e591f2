//! The overrides of a flag or an experiment for some environments, and the values that result in one
//! environment.

use serde::{Deserialize, Serialize};

use super::{Experiment, Flag, FlagRule, TargetingRule};
use crate::bucket::BasisPoints;
use crate::key::Key;

/// The default environment of events, and the only one whose events count, unless an experiment names others.
pub const PRODUCTION: &str = "production";

/// The overrides of an experiment for one environment. A field that is left out has the experiment's own value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentOverride {
    /// `false`: no unit is exposed in this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<BasisPoints>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targeting: Option<Vec<TargetingRule>>,
}

/// The overrides of a flag for one environment. A field that is left out has the flag's own value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagOverride {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<FlagRule>>,
}

/// The values of an experiment in one environment, overrides applied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExperimentInEnvironment<'a> {
    pub enabled: bool,
    pub rollout: BasisPoints,
    pub targeting: &'a [TargetingRule],
}

/// The values of a flag in one environment, overrides applied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlagInEnvironment<'a> {
    pub enabled: bool,
    pub rules: &'a [FlagRule],
}

impl Experiment {
    pub fn in_environment(&self, environment: &str) -> ExperimentInEnvironment<'_> {
        let overrides = self.environments.get(environment);
        ExperimentInEnvironment {
            enabled: overrides.and_then(|overrides| overrides.enabled).unwrap_or(true),
            rollout: overrides.and_then(|overrides| overrides.rollout).unwrap_or(self.rollout),
            targeting: overrides
                .and_then(|overrides| overrides.targeting.as_deref())
                .unwrap_or(&self.targeting),
        }
    }
}

impl Flag {
    pub fn in_environment(&self, environment: &str) -> FlagInEnvironment<'_> {
        let overrides = self.environments.get(environment);
        FlagInEnvironment {
            enabled: overrides.and_then(|overrides| overrides.enabled).unwrap_or(self.enabled),
            rules: overrides.and_then(|overrides| overrides.rules.as_deref()).unwrap_or(&self.rules),
        }
    }
}

/// The counted environments of an experiment that names none.
pub(super) fn counted_by_default() -> Vec<Key> {
    vec![Key::new(PRODUCTION).expect("`production` is a key")]
}

pub(super) fn is_counted_by_default(environments: &[Key]) -> bool {
    matches!(environments, [only] if only.as_str() == PRODUCTION)
}
