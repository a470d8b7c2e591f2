//! Holdouts: experiments whose control takes no part in other experiments, so that all of them together can be
//! judged. A unit's side follows from its slot alone, of the layer or of the whole.

use super::{Assignment, Experiment, Problem, State};
use crate::bucket::BasisPoints;

/// The salt of the holdouts that cover all layers. No key has a `/`, so no layer has this salt.
pub const WHOLE_SALT: &str = "/holdout";

/// Checks that nothing but the slot decides on which side of a holdout a unit is.
pub(super) fn check_holdout(holdout: &Experiment, problems: &mut Vec<Problem>) {
    let mut refuse = |field: &str, what: &str| problems.push(Problem::new(field, what));
    if holdout.assignment == Assignment::External {
        refuse("assignment", "a holdout is hashed");
    }
    if holdout.variants.len() != 2 {
        refuse(
            "variants",
            "a holdout has two: the control, whose units are held out, and one for all others",
        );
    }
    for (field, is_set) in [
        ("targeting", !holdout.targeting.is_empty()),
        ("allow", !holdout.allow.is_empty()),
        ("deny", !holdout.deny.is_empty()),
        ("serve", holdout.serve.is_some()),
        ("switchback", holdout.switchback.is_some()),
        ("rollout", holdout.rollout != BasisPoints::ALL),
        ("slots", holdout.slots != BasisPoints::ALL),
        ("slot_ranges", !holdout.slot_ranges.is_empty()),
        ("plan.schedule", holdout.plan.schedule.is_some()),
    ] {
        if is_set {
            refuse(
                field,
                "the slot alone decides who is held out: the weight of the control; leave this out",
            );
        }
    }
    let overrides = holdout.environments.values();
    if overrides.into_iter().any(|of| of.rollout.is_some() || of.targeting.is_some()) {
        refuse("environments", "a holdout can only be disabled in an environment");
    }
}

/// Checks that nobody changes sides while a holdout runs, and that it runs once: the experiments that started after
/// its end have exposed the units that it held out.
pub(super) fn check_holdout_step(old: &Experiment, new: &Experiment, problems: &mut Vec<Problem>) {
    if old.variants != new.variants {
        problems.push(Problem::new("variants", "the units of a holdout stay; stop it and define another"));
    }
    if old.environments != new.environments {
        problems
            .push(Problem::new("environments", "the units of a holdout stay; stop it and define another"));
    }
    if old.state == State::Stopped && new.state == State::Running {
        problems.push(Problem::new("state", "a holdout runs once; define another"));
    }
}
