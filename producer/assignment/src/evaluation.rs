//! The answer for one key and one unit: what is served, why, and what an exposure of it must say.

use std::fmt;
use std::sync::Arc;

use schemas::definition::{Accepted, Definition, Experiment, State, Variant, Version};
use schemas::switchback::NotACluster;
use schemas::{Bucket, Buckets, Key, Reason as ExposureReason};
use serde_json::Value as Json;

/// The environment in which a unit is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment<'a>(pub &'a str);

impl Environment<'static> {
    pub const PRODUCTION: Environment<'static> = Environment(schemas::definition::PRODUCTION);
}

/// The answer of a flag or an experiment. There is always a variant and a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation<'s> {
    pub key: &'s Key,
    pub definition_version: Version,
    pub variant: &'s Key,
    /// The variant's value; the key of an experiment's variant that has none.
    pub value: &'s Json,
    pub reason: Reason,
    /// The rule that matched, if one did.
    pub rule: Option<&'s Key>,
    /// Of an experiment. A flag that waits for an experiment does not expose the unit to it.
    pub experiment: Option<ExperimentEvaluation<'s>>,
    /// The unit's sides of the holdouts that were asked: of the whole, and of the experiment's layer.
    pub(crate) holdouts: [Option<HoldoutSide<'s>>; 2],
}

/// The side of a holdout on which a unit is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HoldoutSide<'s> {
    pub(crate) evaluation: &'s HoldoutEvaluation,
    pub(crate) slot: Bucket,
    /// The index of the variant of this side.
    pub(crate) variant: u32,
}

/// What the sides of one holdout have in common.
#[derive(Debug, PartialEq)]
pub(crate) struct HoldoutEvaluation {
    pub(crate) accepted: Arc<Accepted>,
    pub(crate) versions: Versions,
    /// The indexes of the variants of the units that are held out, and of all others.
    pub(crate) held: u32,
    pub(crate) others: u32,
}

impl<'s> Evaluation<'s> {
    /// What the unit is exposed to when it reads the value: its side of each holdout that covers the experiment, and the
    /// experiment if it takes part. The outcome of each is `Ok`.
    pub fn exposures(&self) -> impl Iterator<Item = ExperimentEvaluation<'s>> + use<'s> {
        let experiment = self.experiment.filter(|experiment| experiment.outcome.is_ok());
        let sides = self.holdouts.into_iter().flatten().map(HoldoutSide::exposure);
        sides.chain(experiment)
    }
}

impl<'s> HoldoutSide<'s> {
    pub(crate) fn is_held_out(&self) -> bool {
        self.variant == self.evaluation.held
    }

    fn exposure(self) -> ExperimentEvaluation<'s> {
        let HoldoutEvaluation { accepted, versions, .. } = self.evaluation;
        let Definition::Experiment(experiment) = &accepted.definition else {
            unreachable!("a {} is no holdout", accepted.definition.kind())
        };
        let slot = self.slot.get();
        ExperimentEvaluation {
            experiment,
            versions,
            rule: None,
            outcome: Ok(Exposed {
                variant: &experiment.variants[self.variant as usize],
                // Its slot decided, on either side; so both count alike.
                reason: ExposureReason::Split,
                buckets: Some(Buckets { slot, rollout: slot, variant: slot }),
                window_start_s: None,
            }),
        }
    }
}

/// Why a value is served, by the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing about the unit matters: a flag without rules, one that is switched off, or a finished experiment that
    /// serves one variant to everybody.
    Static,
    /// A rule matched that serves one variant to everybody, or the unit is on a list of `allow`.
    TargetingMatch,
    /// A bucket decided.
    Split,
    /// There are rules and none served the unit, or it takes no part in the experiment.
    Default,
}

/// What is known of a unit's part in an experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExperimentEvaluation<'s> {
    pub experiment: &'s Experiment,
    pub versions: &'s Versions,
    /// The targeting rule that matched; none if the experiment has no targeting.
    pub rule: Option<&'s Key>,
    /// `Ok`: the unit is exposed when it reads the value.
    pub outcome: Result<Exposed<'s>, NotExposed>,
}

/// What an exposure says of the definitions that were evaluated.
#[derive(Debug, PartialEq)]
pub struct Versions {
    pub definition_version: Version,
    pub configuration_version: Version,
    pub environment: Arc<str>,
}

/// What an exposure says of the assignment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exposed<'s> {
    pub variant: &'s Variant,
    pub reason: ExposureReason,
    /// `None` if no bucket decided, for a unit that is on a list of `allow`.
    pub buckets: Option<Buckets>,
    /// Of a switchback: the start of the window that the unit is of, in seconds since 1970. The id of the context is the
    /// cluster's.
    pub window_start_s: Option<u64>,
}

/// The reason why a unit takes no part, in the order in which the reasons are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExposed {
    NotRunning(State),
    /// Another system assigns.
    External,
    /// Disabled in this environment.
    Disabled,
    BeforeStart,
    AfterEnd,
    /// A holdout covers the experiment and holds the unit out.
    HeldOut,
    /// The unit is on a list of `deny`.
    Denied,
    NotTargeted,
    OutsideSlots,
    OutsideRollout,
    /// The bucket belongs to no variant, as after an arm was dropped.
    BucketUnowned,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("there is no flag or experiment `{0}`")]
    NotFound(String),
    #[error(
        "the context has no text that is the id of the {unit_type}: it is {}the attribute `{unit_type}`",
        or_targeting_key(*.is_default)
    )]
    NoUnit { unit_type: Key, is_default: bool },
    #[error("the id of the {unit_type} has {bytes} bytes; it must have 1 to 256")]
    UnitId { unit_type: Key, bytes: usize },
    #[error("the {unit_type} cannot be the cluster of a switchback: {why}")]
    Cluster { unit_type: Key, why: NotACluster },
}

fn or_targeting_key(is_default: bool) -> &'static str {
    if is_default { "the targetingKey, or " } else { "" }
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Static => "STATIC",
            Reason::TargetingMatch => "TARGETING_MATCH",
            Reason::Split => "SPLIT",
            Reason::Default => "DEFAULT",
        }
    }
}

impl fmt::Display for NotExposed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotExposed::NotRunning(state) => {
                write!(formatter, "the experiment is {}, not running", state.as_str())
            }
            NotExposed::External => formatter.write_str("the experiment's assignment is made elsewhere"),
            NotExposed::Disabled => formatter.write_str("the experiment is disabled in this environment"),
            NotExposed::BeforeStart => formatter.write_str("the experiment has not started yet"),
            NotExposed::AfterEnd => formatter.write_str("the experiment has ended"),
            NotExposed::HeldOut => formatter.write_str("the unit is held out"),
            NotExposed::Denied => formatter.write_str("the unit is on a list that is denied"),
            NotExposed::NotTargeted => formatter.write_str("no targeting rule matches the unit's attributes"),
            NotExposed::OutsideSlots => {
                formatter.write_str("the unit's slot of the layer is not this experiment's")
            }
            NotExposed::OutsideRollout => formatter.write_str("the unit is outside the rollout"),
            NotExposed::BucketUnowned => formatter.write_str("the unit's bucket belongs to no variant"),
        }
    }
}
