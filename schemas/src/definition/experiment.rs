//! An experiment: a flag with a control, metrics and a plan. What it serves to a unit is decided in the package
//! `assignment`, what its events say in the aggregator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Allowed, Condition, ExperimentOverride, Schedule, Serve, Switchback, all_buckets, default_unit_type,
    environments, is_false,
};
use crate::bucket::{BasisPoints, BucketRange};
use crate::key::Key;

/// A flag with a control, metrics and a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub hypothesis: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub state: State,
    /// The phase, from 1. Each change of the allocation after the start opens the next phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
    #[serde(default)]
    pub assignment: Assignment,
    #[serde(default = "default_unit_type")]
    pub unit_type: Key,
    /// Part of the hash; the default is the key. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Key>,
    /// Experiments in one layer never share a unit. Without a layer, it overlaps with all other experiments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Key>,
    /// Its share of the layer.
    #[serde(default = "all_buckets")]
    pub slots: BasisPoints,
    /// The layer's buckets allocated for the share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slot_ranges: Vec<BucketRange>,
    /// The share of the units in its slots that take part.
    #[serde(default = "all_buckets")]
    pub rollout: BasisPoints,
    /// Which units may take part; all units if left out. The first rule that matches is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targeting: Vec<TargetingRule>,
    pub variants: Vec<Variant>,
    /// The variant that the others are compared with.
    pub control: Key,
    pub metrics: Metrics,
    #[serde(default)]
    pub plan: Plan,
    /// Overrides for some environments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<Key, ExperimentOverride>,
    /// The environments whose events count, at least one. Events of other environments are stored but never
    /// counted.
    #[serde(
        default = "environments::counted_by_default",
        skip_serializing_if = "environments::is_counted_by_default"
    )]
    pub counted_environments: Vec<Key>,
    /// Whether a client key may see it, such as that of a web page.
    #[serde(default, skip_serializing_if = "is_false")]
    pub client_safe: bool,
    /// Units that see a variant whatever targeting and buckets say. Their exposures are `forced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allowed>,
    /// Lists of units that never take part. They are asked before `allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Key>,
    /// What a stopped or archived experiment serves; the control if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// Whether it is a holdout: the units of its control take no part in the experiments that start while it
    /// runs, those of its layer or, without a layer, all with its unit type.
    #[serde(default, skip_serializing_if = "is_false")]
    pub holdout: bool,
    /// If set, it is a switchback: `unit_type` is that of the cluster, whose slot and rollout decide whether it takes part,
    /// and a unit is a cluster in one window, which gets a variant of its own. It cannot change once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchback: Option<Switchback>,
    /// Phases that the owner excluded from the analysis. An excluded phase stays excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_phases: Vec<ExcludedPhase>,
}

/// A phase whose units are not analyzed, for example after an SRM alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExcludedPhase {
    pub phase: u32,
    /// 1 to 1,024 bytes.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Draft,
    Running,
    Stopped,
    Archived,
}

/// Who decides which variant a unit sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assignment {
    /// The hash contract. Every exposure can be verified.
    #[default]
    Hashed,
    /// Another system, for example for imported data.
    External,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetingRule {
    pub key: Key,
    pub when: Condition,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub key: Key,
    pub weight: BasisPoints,
    /// The buckets allocated for the weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<BucketRange>,
    /// The value that the evaluation returns in addition to the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The metric that decides.
    pub primary: Key,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary: Vec<Key>,
    /// Metrics that must not be harmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<Key>,
    /// The relative harm to a guardrail that is tolerated, in (0, 1), by its key; 0.01 is one percent. A guardrail
    /// without a margin tolerates none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<Key, f64>,
}

/// How the result will be judged. It is fixed before the first unit is exposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The two-sided error rate, in (0, 0.5].
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// In [0.5, 1).
    #[serde(default = "default_power")]
    pub power: f64,
    /// The smallest relative effect worth finding, above 0; 0.1 is ten percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mde_relative: Option<f64>,
    /// The number of units in all arms together at which the final analysis is due; of a switchback these are windows. If
    /// left out, no horizon is planned and the decision depends on the always-valid interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon_units: Option<u64>,
    #[serde(default)]
    pub method: Method,
    /// The smallest relative effect worth shipping, at least 0. Below it, statistical significance alone does
    /// not lead to shipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub practical_lift_relative: Option<f64>,
    /// When units take part: from the start on, and before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The days before a unit's first exposure from which its covariate is taken, 1 to 90: the same value of the unit,
    /// by the same metric. For conversions, counts and means. `None`: there is no covariate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariate_days: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Group sequential if a horizon is planned, always valid otherwise.
    #[default]
    Auto,
    AlwaysValid,
    GroupSequential,
    FixedHorizon,
}

impl Metrics {
    /// Iterates over all metrics, each with the path of its field in the experiment.
    pub fn fields(&self) -> impl Iterator<Item = (String, &Key)> {
        let of = |role: &'static str, keys| {
            let keys: &Vec<Key> = keys;
            keys.iter().enumerate().map(move |(index, key)| (format!("metrics.{role}[{index}]"), key))
        };
        std::iter::once(("metrics.primary".to_owned(), &self.primary))
            .chain(of("secondary", &self.secondary))
            .chain(of("guardrails", &self.guardrails))
    }

    pub fn names(&self, key: &Key) -> bool {
        self.fields().any(|(_, named)| named == key)
    }
}

impl Experiment {
    /// Returns whether somebody may have looked at its results: it runs, or has run and may run again.
    pub fn has_looks(&self) -> bool {
        matches!(self.state, State::Running | State::Stopped)
    }

    /// The lists that decide what units see whose events count.
    pub(super) fn lists_that_count(&self) -> Vec<&Key> {
        let mut lists: Vec<&Key> = self.allow.iter().map(|allowed| &allowed.list).collect();
        lists.extend(&self.deny);
        for environment in &self.counted_environments {
            let targeting = self.in_environment(environment.as_str()).targeting;
            lists.extend(targeting.iter().flat_map(|rule| rule.when.lists()));
        }
        lists
    }

    /// The slots that it owns: in its layer or, for a holdout without a layer, of the whole. An experiment owns
    /// none if it is in no layer, and before it has run.
    pub fn owned_slots(&self) -> &[BucketRange] {
        if !self.has_looks() {
            return &[];
        }
        if !self.holdout {
            return &self.slot_ranges;
        }
        self.variants
            .iter()
            .find(|variant| variant.key == self.control)
            .map_or(&[], |control| control.ranges.as_slice())
    }

    /// Returns whether both take slots of the same space: of one layer, or of the whole.
    pub fn shares_slots_with(&self, other: &Experiment) -> bool {
        match (&self.layer, &other.layer) {
            (Some(own), Some(other)) => own == other,
            (None, None) => self.holdout && other.holdout,
            _ => false,
        }
    }

    /// Returns the text that the input of this experiment's hash begins with.
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }

    pub fn phase(&self) -> u32 {
        self.phase.unwrap_or(1)
    }
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            alpha: default_alpha(),
            power: default_power(),
            mde_relative: None,
            horizon_units: None,
            method: Method::default(),
            practical_lift_relative: None,
            schedule: None,
            covariate_days: None,
        }
    }
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Draft => "draft",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Archived => "archived",
        }
    }
}

fn default_alpha() -> f64 {
    0.05
}

fn default_power() -> f64 {
    0.8
}
