//! The steps of an evaluation, for whoever wants to see why. The evaluation itself reports them, so that the explanation
//! cannot differ from what was served; where nobody looks, they cost nothing. The three buckets of an experiment are not
//! reported: they follow from its definition.

use schemas::definition::Switchback;
use schemas::{Key, Micros, SwitchbackUnit};

use crate::evaluation::NotExposed;

/// One step, in the order in which an evaluation takes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'s> {
    /// The flag is archived, or switched off in this environment: its default is served.
    SwitchedOff { archived: bool },
    /// A holdout that covers the experiment, and the side of the unit, which its slot decides.
    Holdout { key: &'s Key, slot: u32, held_out: bool },
    /// A list whose members take no part, and whether the unit is one.
    Denied { list: &'s Key, member: bool },
    /// A list whose members see a variant, and whether the unit is one.
    Allowed { list: &'s Key, variant: &'s Key, member: bool },
    /// The experiment is over and serves this variant, to a share of the units below this bucket.
    Serves { variant: &'s Key, below: u32 },
    /// What a finished experiment serves is for the units that its targeting matches, and whether the unit is one.
    OnlyTargeted { targeted: bool },
    /// Another flag or experiment that must serve one of the variants.
    Prerequisite { key: &'s Key, served: &'s Key, met: bool },
    /// The flag's prerequisites are too deep or too many to be followed.
    TooManyPrerequisites,
    /// A rule, and whether it matches the unit at that time: its schedule has begun and not ended, and its condition
    /// holds.
    Rule { key: &'s Key, holds: bool },
    /// The unit's bucket by one of the salts of a flag's rule, and whether it is inside the rollout, or owned by a variant.
    Bucket { of: BucketOf, hash: u64, bucket: u32, inside: bool },
    /// The experiment takes no units, whoever they are.
    Closed(NotExposed),
    /// The experiment is a switchback: the window that it is in, and the id of the cluster's unit in this window.
    Window { start: Micros, window_seconds: u32, unit_id: String },
}

impl Step<'_> {
    /// The window in which `unit` is at `now`, which is inside of it.
    pub fn window(switchback: Switchback, unit: SwitchbackUnit<'_>, now: Micros) -> Self {
        Step::Window {
            start: switchback.window_start(now),
            window_seconds: switchback.window_seconds,
            unit_id: unit.id().as_str().to_owned(),
        }
    }
}

/// What a bucket decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketOf {
    Rollout,
    Variant,
}

/// Takes the steps of an evaluation.
pub trait Trace<'s> {
    fn step(&mut self, step: impl FnOnce() -> Step<'s>);
}

/// Nobody looks.
impl<'s> Trace<'s> for () {
    #[inline(always)]
    fn step(&mut self, _step: impl FnOnce() -> Step<'s>) {}
}

impl<'s> Trace<'s> for Vec<Step<'s>> {
    fn step(&mut self, step: impl FnOnce() -> Step<'s>) {
        self.push(step());
    }
}
