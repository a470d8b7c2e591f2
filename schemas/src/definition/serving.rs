//! What flags and experiments say in the same words about who is served what, and when: schedules, ramps, lists of
//! units, and the variant that a finished experiment serves.

use serde::{Deserialize, Serialize};

use super::{Assignment, Experiment, Problem, State, all_buckets};
use crate::bucket::BasisPoints;
use crate::key::Key;
use crate::time::Micros;

/// The most steps of a ramp, and the most lists that one definition may allow or deny.
pub(super) const STEPS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<crate::time::Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<crate::time::Micros>,
}

/// From this time on, until the next step's, the share of the units is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RampStep {
    pub from: Micros,
    pub rollout: BasisPoints,
}

/// The members of a list see this variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    pub list: Key,
    pub variant: Key,
}

/// What a finished experiment serves: a variant, to all or to those targeted, and to a share of them. Outside the
/// share, a unit keeps the variant if the experiment gave it to that unit, and otherwise sees the control. A cluster of a
/// switchback had each variant, and keeps none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    pub variant: Key,
    #[serde(default)]
    pub to: ServeTo,
    #[serde(default = "all_buckets")]
    pub rollout: BasisPoints,
    /// Instead of `rollout`: the share by time; nobody before the first step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ramp: Vec<RampStep>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServeTo {
    #[default]
    All,
    /// The units that a targeting rule of the experiment matches.
    Targeted,
}

/// Checks a ramp beside the constant share that it stands for.
pub(super) fn check_ramp(field: &str, rollout: BasisPoints, ramp: &[RampStep], problems: &mut Vec<Problem>) {
    if ramp.is_empty() {
        return;
    }
    let field = format!("{field}ramp");
    if rollout != BasisPoints::ALL {
        problems.push(Problem::new(&field, "has the shares itself; leave `rollout` out"));
    }
    if ramp.len() > STEPS_MAX {
        problems.push(Problem::new(&field, format!("{} steps is more than {STEPS_MAX}", ramp.len())));
    }
    for (index, pair) in ramp.windows(2).enumerate() {
        if pair[1].from <= pair[0].from {
            problems.push(Problem::new(
                format!("{field}[{}].from", index + 1),
                format!("{} is not after the step before, {}", pair[1].from, pair[0].from),
            ));
        }
    }
}

/// Checks that a schedule ends after it starts.
pub(super) fn check_schedule(field: &str, schedule: Option<&Schedule>, problems: &mut Vec<Problem>) {
    if let Some(Schedule { start: Some(start), end: Some(end) }) = schedule
        && end <= start
    {
        problems.push(Problem::new(format!("{field}.end"), format!("{end} is not after the start, {start}")));
    }
}

/// Checks the lists whose members see a variant, and those whose members see none.
pub(super) fn check_lists(allow: &[Allowed], deny: &[Key], variants: &[&Key], problems: &mut Vec<Problem>) {
    for (field, count) in [("allow", allow.len()), ("deny", deny.len())] {
        if count > STEPS_MAX {
            problems.push(Problem::new(field, format!("{count} lists is more than {STEPS_MAX}")));
        }
    }
    for (index, allowed) in allow.iter().enumerate() {
        if !variants.contains(&&allowed.variant) {
            problems.push(Problem::new(
                format!("allow[{index}].variant"),
                format!("`{}` is not one of the variants", allowed.variant),
            ));
        }
    }
}

/// Checks what a finished experiment serves.
pub(super) fn check_serve(experiment: &Experiment, variants: &[&Key], problems: &mut Vec<Problem>) {
    let Some(serve) = &experiment.serve else { return };
    if matches!(experiment.state, State::Draft | State::Running) {
        problems.push(Problem::new(
            "serve",
            format!(
                "is for a stopped or archived experiment, and this one is {}; stop it in the same change",
                experiment.state.as_str()
            ),
        ));
    }
    if experiment.assignment == Assignment::External {
        problems.push(Problem::new("serve", "another system decides what an external experiment serves"));
    }
    if !variants.contains(&&serve.variant) {
        let known: Vec<&str> = variants.iter().map(|variant| variant.as_str()).collect();
        problems.push(Problem::new(
            "serve.variant",
            format!("`{}` is not one of the variants: {}", serve.variant, known.join(", ")),
        ));
    }
    if serve.to == ServeTo::Targeted && experiment.targeting.is_empty() {
        problems.push(Problem::new("serve.to", "the experiment has no targeting; use `all`"));
    }
    check_ramp("serve.", serve.rollout, &serve.ramp, problems);
}
