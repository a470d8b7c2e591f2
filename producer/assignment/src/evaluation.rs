//! Evaluates an experiment for a unit: the result is a variant, or the first reason why there is none.

use std::collections::BTreeMap;
use std::fmt;

use schemas::definition::{Assignment, Definitions, Experiment, State, Variant};
use schemas::{Bucket, Buckets, Key};

use crate::hash::Salts;
use crate::targeting::holds;

/// The known attributes of a unit, by name.
pub type Attributes = BTreeMap<String, serde_json::Value>;

/// The environment in which a unit is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment<'a>(pub &'a str);

impl Environment<'static> {
    pub const PRODUCTION: Environment<'static> = Environment(schemas::definition::PRODUCTION);
}

/// The result of an evaluation. It has the buckets even if the unit takes no part, so that a person can see
/// why.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    pub environment: Environment<'a>,
    pub buckets: Buckets,
    /// The targeting rule that matched the unit; `None` if the experiment has no targeting.
    pub rule: Option<&'a Key>,
    pub outcome: Result<&'a Variant, NotExposed>,
}

/// The reasons why a unit takes no part, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExposed {
    NotRunning(State),
    /// Another system assigns the units.
    External,
    /// The experiment is disabled in this environment.
    Disabled,
    NotTargeted,
    OutsideSlots,
    OutsideRollout,
    /// The bucket belongs to no variant, for example after an arm was dropped.
    BucketUnowned,
}

/// Evaluates `experiment`, one of `definitions`, for `unit_id` (1 to 256 bytes).
pub fn evaluate<'a>(
    definitions: &Definitions,
    experiment: &'a Experiment,
    environment: Environment<'a>,
    unit_id: &str,
    attributes: &Attributes,
) -> Evaluation<'a> {
    let buckets = Salts::of(definitions, experiment).buckets(unit_id);
    let not_exposed = |reason| Evaluation { environment, buckets, rule: None, outcome: Err(reason) };
    let settings = experiment.in_environment(environment.0);

    if experiment.state != State::Running {
        return not_exposed(NotExposed::NotRunning(experiment.state));
    }
    if experiment.assignment == Assignment::External {
        return not_exposed(NotExposed::External);
    }
    if !settings.enabled {
        return not_exposed(NotExposed::Disabled);
    }
    let rule = settings.targeting.iter().find(|rule| holds(&rule.when, attributes));
    if rule.is_none() && !settings.targeting.is_empty() {
        return not_exposed(NotExposed::NotTargeted);
    }
    let rule = rule.map(|rule| &rule.key);
    let outcome = variant_for_buckets(experiment, environment, buckets);
    Evaluation { environment, buckets, rule, outcome }
}

/// Returns the variant for the three buckets of a unit. Anybody can compute it again from an exposure and its
/// definition.
pub fn variant_for_buckets<'a>(
    experiment: &'a Experiment,
    environment: Environment<'_>,
    buckets: Buckets,
) -> Result<&'a Variant, NotExposed> {
    let settings = experiment.in_environment(environment.0);
    if !settings.enabled {
        return Err(NotExposed::Disabled);
    }
    let inside = |ranges: &[schemas::BucketRange], bucket: u32| {
        Bucket::new(bucket).is_some_and(|bucket| ranges.iter().any(|range| range.contains(bucket)))
    };
    if experiment.layer.is_some() && !inside(&experiment.slot_ranges, buckets.slot) {
        return Err(NotExposed::OutsideSlots);
    }
    if buckets.rollout >= settings.rollout.buckets() {
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
