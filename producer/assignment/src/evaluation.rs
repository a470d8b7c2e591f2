//! From an experiment and a unit to a variant, or to the first reason why there is none.

use std::collections::BTreeMap;
use std::fmt;

use schemas::definition::{Assignment, Definitions, Experiment, State, Variant};
use schemas::{Bucket, Buckets, Key};

use crate::hash::Salts;
use crate::targeting::holds;

/// What is known of a unit, by name.
pub type Attributes = BTreeMap<String, serde_json::Value>;

/// Where a unit is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment<'a>(pub &'a str);

impl Environment<'static> {
    pub const PRODUCTION: Environment<'static> = Environment(schemas::definition::PRODUCTION);
}

/// What came of an evaluation. The buckets are there whether or not the unit takes part, so that a person
/// can see why.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    pub environment: Environment<'a>,
    pub buckets: Buckets,
    /// The targeting rule that let the unit in; `None` where the experiment has no targeting.
    pub rule: Option<&'a Key>,
    pub outcome: Result<&'a Variant, NotExposed>,
}

/// Why a unit takes no part, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExposed {
    NotRunning(State),
    /// Somebody else assigns.
    External,
    /// In this environment.
    Disabled,
    NotTargeted,
    OutsideSlots,
    OutsideRollout,
    /// The bucket belongs to no variant, as after an arm was dropped.
    BucketUnowned,
}

/// The variant of `unit_id` (1 to 256 bytes) in `experiment`, which is one of `definitions`.
pub fn evaluate<'a>(
    definitions: &Definitions,
    experiment: &'a Experiment,
    environment: Environment<'a>,
    unit_id: &str,
    attributes: &Attributes,
) -> Evaluation<'a> {
    let buckets = Salts::of(definitions, experiment).buckets(unit_id);
    let not = |reason| Evaluation { environment, buckets, rule: None, outcome: Err(reason) };
    let there = experiment.in_environment(environment.0);

    if experiment.state != State::Running {
        return not(NotExposed::NotRunning(experiment.state));
    }
    if experiment.assignment == Assignment::External {
        return not(NotExposed::External);
    }
    if !there.enabled {
        return not(NotExposed::Disabled);
    }
    let rule = there.targeting.iter().find(|rule| holds(&rule.when, attributes));
    if rule.is_none() && !there.targeting.is_empty() {
        return not(NotExposed::NotTargeted);
    }
    let rule = rule.map(|rule| &rule.key);
    let outcome = variant_for_buckets(experiment, environment, buckets);
    Evaluation { environment, buckets, rule, outcome }
}

/// From three buckets to a variant: what anybody can compute again from an exposure and its definition.
pub fn variant_for_buckets<'a>(
    experiment: &'a Experiment,
    environment: Environment<'_>,
    buckets: Buckets,
) -> Result<&'a Variant, NotExposed> {
    let there = experiment.in_environment(environment.0);
    if !there.enabled {
        return Err(NotExposed::Disabled);
    }
    let inside = |ranges: &[schemas::BucketRange], bucket: u32| {
        Bucket::new(bucket).is_some_and(|bucket| ranges.iter().any(|range| range.contains(bucket)))
    };
    if experiment.layer.is_some() && !inside(&experiment.slot_ranges, buckets.slot) {
        return Err(NotExposed::OutsideSlots);
    }
    if buckets.rollout >= there.rollout.buckets() {
        return Err(NotExposed::OutsideRollout);
    }
    experiment
        .variants
        .iter()
        .find(|variant| inside(&variant.ranges, buckets.variant))
        .ok_or(NotExposed::BucketUnowned)
}

impl fmt::Display for NotExposed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotExposed::NotRunning(state) => {
                write!(formatter, "the experiment is {}, not running", state.as_str())
            }
            NotExposed::External => formatter.write_str("the experiment's assignment is made elsewhere"),
            NotExposed::Disabled => formatter.write_str("the experiment is disabled in this environment"),
            NotExposed::NotTargeted => formatter.write_str("no targeting rule matches the unit's attributes"),
            NotExposed::OutsideSlots => {
                formatter.write_str("the unit's slot of the layer is not this experiment's")
            }
            NotExposed::OutsideRollout => formatter.write_str("the unit is outside the rollout"),
            NotExposed::BucketUnowned => formatter.write_str("the unit's bucket belongs to no variant"),
        }
    }
}
