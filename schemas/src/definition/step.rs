//! Checks how a definition differs from the version before it: what has to stay, and what a change of who sees what
//! opens. Every problem is listed with its field.

use serde_json::Value;

use super::check::{Problem, check_first, check_open};
use super::holdout::check_holdout_step;
use super::refusal::{instead_of_step, why_unchanged};
use super::{BasisPoints, Definition, Experiment, Key, Metrics, Rule, State};
use crate::bucket::BucketRange;

/// Returns every problem of the change from `previous` to `new`.
pub fn check_step(
    rule: Rule,
    previous: Option<&Definition>,
    lists: ListsSince,
    new: &Definition,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Definition::Metric(metric) = new
        && rule >= Rule::Five
    {
        metric.check_since_rule_5(&mut problems);
    }
    match (previous, new) {
        (None, Definition::Experiment(experiment)) => check_first(experiment, &mut problems),
        (None, _) => {}
        (Some(Definition::Experiment(old)), Definition::Experiment(new)) => {
            check_experiment_step(rule, old, lists, new, &mut problems);
        }
        (Some(Definition::Flag(old)), Definition::Flag(new)) => {
            unchanged("salt", old.salt() == new.salt(), &mut problems);
            unchanged("unit_type", old.unit_type == new.unit_type, &mut problems);
            unchanged("value_type", old.value_type == new.value_type, &mut problems);
        }
        (Some(Definition::Layer(old)), Definition::Layer(new)) => {
            unchanged("salt", old.salt() == new.salt(), &mut problems);
        }
        (Some(Definition::Metric(old)), Definition::Metric(new)) => {
            unchanged("type", old.metric_type() == new.metric_type(), &mut problems);
        }
        (Some(Definition::List(old)), Definition::List(new)) => {
            unchanged("unit_type", old.unit_type == new.unit_type, &mut problems);
            unchanged("salt", old.salt() == new.salt(), &mut problems);
        }
        (Some(Definition::Settings(_)), Definition::Settings(_)) => {}
        (Some(old), new) => problems.push(Problem::new(
            "kind",
            format!(
                "`{}` is taken: its kind is {} and cannot become {}; use another key",
                new.key(),
                old.kind(),
                new.kind()
            ),
        )),
    }
    problems
}

/// A draft may change, except for the salt. Once the experiment has run, the settings that its analysis
/// depends on must stay, and a change of the allocation opens the next phase.
fn check_experiment_step(
    rule: Rule,
    old: &Experiment,
    lists: ListsSince,
    new: &Experiment,
    problems: &mut Vec<Problem>,
) {
    let allowed: &[State] = match old.state {
        State::Draft => &[State::Draft, State::Running, State::Archived],
        State::Running => &[State::Running, State::Stopped],
        State::Stopped => &[State::Stopped, State::Running, State::Archived],
        // What it serves may change for as long as its key is asked for.
        State::Archived if rule >= Rule::Three => &[State::Archived],
        State::Archived => &[],
    };
    if !allowed.contains(&new.state) {
        problems.push(Problem::new(
            "state",
            format!(
                "{} cannot become {}; {}",
                old.state.as_str(),
                new.state.as_str(),
                instead_of_step(old.state, new.state)
            ),
        ));
    }
    unchanged("salt", old.salt() == new.salt(), problems);
    if old.state == State::Archived {
        let kept = Experiment { serve: old.serve.clone(), ..new.clone() };
        if new.state == State::Archived && rule >= Rule::Three && kept != *old {
            problems.push(Problem::new(
                ".",
                "of an archived experiment only `serve` can change; clone it under another key",
            ));
        }
        return;
    }
    if old.state == State::Draft {
        check_open(new, problems);
        return;
    }
    unchanged("assignment", old.assignment == new.assignment, problems);
    unchanged("unit_type", old.unit_type == new.unit_type, problems);
    unchanged("layer", old.layer == new.layer, problems);
    unchanged("holdout", old.holdout == new.holdout, problems);
    unchanged("switchback", old.switchback == new.switchback, problems);
    if old.holdout {
        check_holdout_step(old, new, problems);
    }
    unchanged("control", old.control == new.control, problems);
    match rule {
        Rule::One => unchanged("metrics", old.metrics == new.metrics, problems),
        Rule::Two | Rule::Three | Rule::Four | Rule::Five => {
            check_metrics_step(&old.metrics, &new.metrics, problems);
        }
    }
    unchanged("plan", old.plan == new.plan, problems);
    unchanged("counted_environments", old.counted_environments == new.counted_environments, problems);
    check_excluded_step(old, new, problems);
    // Earlier rules did not look at lists.
    let lists = if rule >= Rule::Four { lists } else { ListsSince::Unchanged };
    let opens = opens_phase(old, lists, new);
    let expected = old.phase().saturating_add(u32::from(opens));
    if new.phase() != expected {
        let why = if opens {
            "a change of who sees what opens the next phase"
        } else {
            "nothing opens a new phase"
        };
        let what =
            format!("{} instead of {expected}: {why}; leave `phase` out, and it is counted", new.phase());
        problems.push(Problem::new("phase", what));
    }
    for (index, variant) in new.variants.iter().enumerate() {
        for other in old.variants.iter().filter(|other| other.key != variant.key) {
            let taken =
                variant.ranges.iter().find(|range| other.ranges.iter().any(|owned| owned.overlaps(**range)));
            if let Some(range) = taken {
                problems.push(Problem::new(
                    format!("variants[{index}].ranges"),
                    format!(
                        "{range} holds buckets of `{}`; free them in one change and take them in another",
                        other.key
                    ),
                ));
            }
        }
    }
}

/// Metrics may be added after the start, but never removed: an owner who could drop a metric once it looks
/// bad would find what they wish to find. A guardrail that is added may bring its margin; the margin of one that
/// was there stays, for the same reason.
fn check_metrics_step(old: &Metrics, new: &Metrics, problems: &mut Vec<Problem>) {
    unchanged("metrics.primary", old.primary == new.primary, problems);
    for (role, old, new) in
        [("secondary", &old.secondary, &new.secondary), ("guardrails", &old.guardrails, &new.guardrails)]
    {
        for key in old.iter().filter(|key| !new.contains(key)) {
            problems.push(Problem::new(
                format!("metrics.{role}"),
                format!(
                    "`{key}` cannot be taken out any more, for its results may have been seen; clone the experiment \
                     without it"
                ),
            ));
        }
    }
    for key in old.guardrails.iter().filter(|key| new.guardrails.contains(key)) {
        let same = old.margins.get(key) == new.margins.get(key);
        unchanged(&format!("metrics.margins.{key}"), same, problems);
    }
}

/// An excluded phase stays excluded: if the owner could switch phases on and off by their numbers, they could
/// choose the result.
fn check_excluded_step(old: &Experiment, new: &Experiment, problems: &mut Vec<Problem>) {
    for gone in old.excluded_phases.iter().filter(|excluded| !new.excluded_phases.contains(excluded)) {
        problems.push(Problem::new(
            "excluded_phases",
            format!(
                "phase {} was excluded for a reason, and stays so in these words; leave `excluded_phases` as it was, or \
                 clone the experiment",
                gone.phase
            ),
        ));
    }
    for (index, excluded) in new.excluded_phases.iter().enumerate() {
        if old.excluded_phases.contains(excluded) {
            continue;
        }
        if !new.has_looks() {
            problems.push(Problem::new(
                format!("excluded_phases[{index}]"),
                "phases are excluded while the experiment runs or is stopped; do it in a change of its own before",
            ));
        }
        if excluded.phase > old.phase() {
            problems.push(Problem::new(
                format!("excluded_phases[{index}].phase"),
                format!(
                    "there is no phase {} yet; the last is {}: exclude a phase once it has begun",
                    excluded.phase,
                    old.phase()
                ),
            ));
        }
    }
}

/// Whether the members of a list that an experiment names have changed since its phase began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListsSince {
    Unchanged,
    Changed,
}

/// Returns whether the change of an experiment that is no draft any more opens its next phase: the units see something
/// else, other units take part, or it runs again.
pub fn opens_phase(old: &Experiment, lists: ListsSince, new: &Experiment) -> bool {
    let runs_again = old.state == State::Stopped && new.state == State::Running;
    let has_other_members =
        lists == ListsSince::Changed && old.state == State::Running && new.state == State::Running;
    allocation_differs(old, new) || runs_again || has_other_members
}

/// Returns whether any unit whose events count may see another variant or value than before.
fn allocation_differs(old: &Experiment, new: &Experiment) -> bool {
    fn shown(experiment: &Experiment) -> Vec<(&Key, BasisPoints, &[BucketRange], Option<&Value>)> {
        experiment
            .variants
            .iter()
            .map(|variant| (&variant.key, variant.weight, variant.ranges.as_slice(), variant.value.as_ref()))
            .collect()
    }
    let mut counted = old.counted_environments.iter().chain(&new.counted_environments);
    shown(old) != shown(new)
        || old.slots != new.slots
        || old.slot_ranges != new.slot_ranges
        || old.allow != new.allow
        || old.deny != new.deny
        || counted.any(|counted| old.in_environment(counted.as_str()) != new.in_environment(counted.as_str()))
}

fn unchanged(field: &str, same: bool, problems: &mut Vec<Problem>) {
    if !same {
        let why = why_unchanged(field);
        problems.push(Problem::new(
            field,
            format!("cannot change any more, for {why}; clone it under another key"),
        ));
    }
}
