//! The steps of an evaluation, for whoever wants to see why. The evaluation itself reports them, so that the explanation of
//! a flag cannot differ from what was served; where nobody looks, they cost nothing. Of an experiment only targeting and a
//! closed state are reported: its three buckets follow from its definition.

use schemas::Key;

use crate::evaluation::NotExposed;

/// One step, in the order in which an evaluation takes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'s> {
    /// The flag is archived, or switched off in this environment: its default is served.
    SwitchedOff { archived: bool },
    /// Another flag or experiment that must serve one of the variants.
    Prerequisite { key: &'s Key, served: &'s Key, met: bool },
    /// The flag's prerequisites are too deep or too many to be followed.
    TooManyPrerequisites,
    /// A rule and whether its condition holds for the unit.
    Rule { key: &'s Key, holds: bool },
    /// The unit's bucket by one of the salts of a flag's rule, and whether it is inside the rollout, or owned by a variant.
    Bucket { of: BucketOf, hash: u64, bucket: u32, inside: bool },
    /// The experiment takes no units, whoever they are.
    Closed(NotExposed),
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
