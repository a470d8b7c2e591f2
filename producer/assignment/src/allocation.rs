//! Turns weights into ranges of buckets. People write weights; ranges are stored and evaluated. An owner that
//! grows takes buckets that nobody owns; one that shrinks or is dropped frees some. No bucket passes from one
//! owner to another in a single step, so no unit moves from one variant to another.

use schemas::bucket::{difference, merge_adjacent};
use schemas::definition::{
    Assignment, Condition, Definition, Definitions, Experiment, Flag, FlagRule, Problem, State, opens_phase,
};
use schemas::{BucketRange, Key, Micros};

use crate::targeting::condition_problem;

/// Fills in everything that a file may leave out: salt, phase, ranges, slots. The result depends only on the
/// definitions so far, the written one and, where slots cool down, on `now`. Fields that are written are kept
/// unchanged.
///
/// # Errors
/// If a share needs buckets that others own or that cool down, or a condition can never be evaluated.
pub fn resolve(definitions: &Definitions, now: Micros, written: Definition) -> Result<Definition, Problem> {
    let previous = definitions.current_of(&written).map(|accepted| &accepted.definition);
    match written {
        Definition::Experiment(experiment) => {
            let previous = match previous {
                Some(Definition::Experiment(previous)) => Some(previous),
                _ => None,
            };
            resolve_experiment(definitions, now, previous, experiment).map(Definition::Experiment)
        }
        Definition::Flag(flag) => {
            let previous = match previous {
                Some(Definition::Flag(previous)) => Some(previous),
                _ => None,
            };
            resolve_flag(previous, flag).map(Definition::Flag)
        }
        Definition::Layer(mut layer) => {
            if layer.salt.is_none() {
                layer.salt = match previous {
                    Some(Definition::Layer(previous)) => Some(previous.salt().clone()),
                    _ => Some(layer.key.clone()),
                };
            }
            Ok(Definition::Layer(layer))
        }
        Definition::List(mut list) => {
            if list.salt.is_none() {
                list.salt = match previous {
                    Some(Definition::List(previous)) => Some(previous.salt().clone()),
                    _ => Some(list.key.clone()),
                };
            }
            Ok(Definition::List(list))
        }
        other @ (Definition::Metric(_) | Definition::Settings(_)) => Ok(other),
    }
}

fn resolve_experiment(
    definitions: &Definitions,
    now: Micros,
    previous: Option<&Experiment>,
    mut experiment: Experiment,
) -> Result<Experiment, Problem> {
    if experiment.salt.is_none() {
        experiment.salt = Some(previous.map_or(&experiment.key, |previous| previous.salt()).clone());
    }
    // Excluded phases cannot be restored, so a file need not repeat them.
    if let Some(previous) = previous
        && experiment.excluded_phases.is_empty()
    {
        experiment.excluded_phases = previous.excluded_phases.clone();
    }
    // A draft has exposed no unit, so no unit has to keep its variant.
    let settled = previous.filter(|previous| previous.state != State::Draft);
    let no_ranges = experiment.variants.iter().all(|variant| variant.ranges.is_empty());
    if experiment.holdout && no_ranges {
        allocate_holdout(definitions, now, settled, &mut experiment)?;
    } else if experiment.assignment == Assignment::Hashed && no_ranges {
        let owned: Vec<Owned> = settled
            .iter()
            .flat_map(|previous| &previous.variants)
            .map(|variant| Owned { by: variant.key.clone(), ranges: variant.ranges.clone() })
            .collect();
        let wanted: Vec<Wanted> = experiment
            .variants
            .iter()
            .map(|variant| Wanted { by: variant.key.clone(), buckets: variant.weight.buckets() })
            .collect();
        let ranges = allocate(&owned, &wanted).map_err(|problem| in_field("variants", problem))?;
        for (variant, ranges) in experiment.variants.iter_mut().zip(ranges) {
            variant.ranges = ranges;
        }
    }
    if experiment.layer.is_some()
        && !experiment.holdout
        && experiment.slot_ranges.is_empty()
        && matches!(experiment.state, State::Running | State::Stopped)
    {
        let wanted = Wanted { by: experiment.key.clone(), buckets: experiment.slots.buckets() };
        experiment.slot_ranges = allocate_slots(definitions, now, settled, &experiment, wanted)
            .map_err(|problem| in_field("slots", problem))?;
    }
    for (index, rule) in experiment.targeting.iter().enumerate() {
        check_condition(&format!("targeting[{index}].when"), &rule.when)?;
    }
    for (environment, settings) in &experiment.environments {
        for (index, rule) in settings.targeting.iter().flatten().enumerate() {
            check_condition(&format!("environments.{environment}.targeting[{index}].when"), &rule.when)?;
        }
    }
    if experiment.phase.is_none() {
        experiment.phase = Some(match settled {
            None => 1,
            Some(previous) => {
                let lists = definitions.lists_since(&experiment.key);
                previous.phase() + u32::from(opens_phase(previous, lists, &experiment))
            }
        });
    }
    Ok(experiment)
}

/// Gives the control of a holdout the slots of its weight, and everything else to the other variant.
fn allocate_holdout(
    definitions: &Definitions,
    now: Micros,
    settled: Option<&Experiment>,
    holdout: &mut Experiment,
) -> Result<(), Problem> {
    if let Some(settled) = settled {
        // Its units stay; a change of the weights is refused by the rule.
        for variant in &mut holdout.variants {
            let before = settled.variants.iter().find(|before| before.key == variant.key);
            variant.ranges = before.map_or_else(Vec::new, |before| before.ranges.clone());
        }
        return Ok(());
    }
    let Some(control) = holdout.variants.iter().position(|variant| variant.key == holdout.control) else {
        return Ok(());
    };
    let wanted = Wanted { by: holdout.key.clone(), buckets: holdout.variants[control].weight.buckets() };
    let held = allocate_slots(definitions, now, None, holdout, wanted)
        .map_err(|problem| in_field("variants", problem))?;
    for (index, variant) in holdout.variants.iter_mut().enumerate() {
        variant.ranges = if index == control { held.clone() } else { difference(&[BucketRange::ALL], &held) };
    }
    Ok(())
}

/// Returns the slots for an experiment that runs in a layer, or for a holdout.
fn allocate_slots(
    definitions: &Definitions,
    now: Micros,
    settled: Option<&Experiment>,
    experiment: &Experiment,
    wanted: Wanted,
) -> Result<Vec<BucketRange>, String> {
    let mut owned: Vec<Owned> = definitions
        .slot_owners(experiment)
        .map(|other| Owned { by: other.key.clone(), ranges: other.owned_slots().to_vec() })
        .collect();
    if let Some(previous) = settled {
        owned.push(Owned { by: previous.key.clone(), ranges: previous.owned_slots().to_vec() });
    }
    let taken: Vec<BucketRange> = owned.iter().flat_map(|owner| owner.ranges.iter().copied()).collect();
    for (by, ranges, _) in definitions.cooling_slots(experiment, now) {
        // Slots that somebody has taken again, before the layer's time was set, are listed once.
        owned.push(Owned { by: by.clone(), ranges: difference(ranges, &taken) });
    }
    let mut ranges = allocate(&owned, &[wanted]).map_err(|problem| {
        let cooling = definitions.cooling_slots(experiment, now).map(|(_, _, until)| until).min();
        match cooling {
            Some(until) => format!("{problem}; some cool down, the first until {until}"),
            None => problem,
        }
    })?;
    Ok(ranges.remove(0))
}

fn resolve_flag(previous: Option<&Flag>, mut flag: Flag) -> Result<Flag, Problem> {
    if flag.salt.is_none() {
        flag.salt = Some(previous.map_or(&flag.key, |previous| previous.salt()).clone());
    }
    let before = previous.map_or(&[][..], |previous| &previous.rules);
    resolve_rules("rules", before, &mut flag.rules)?;
    for (environment, settings) in &mut flag.environments {
        // The rules that applied there so far, whether or not they were written for that environment.
        let before = previous.map_or(&[][..], |previous| previous.in_environment(environment.as_str()).rules);
        if let Some(rules) = &mut settings.rules {
            resolve_rules(&format!("environments.{environment}.rules"), before, rules)?;
        }
    }
    Ok(flag)
}

fn resolve_rules(field: &str, before: &[FlagRule], rules: &mut [FlagRule]) -> Result<(), Problem> {
    for (index, rule) in rules.iter_mut().enumerate() {
        if let Some(when) = &rule.when {
            check_condition(&format!("{field}[{index}].when"), when)?;
        }
        if rule.split.iter().any(|share| !share.ranges.is_empty()) {
            continue;
        }
        let before = before.iter().find(|before| before.key == rule.key);
        let owned: Vec<Owned> = before
            .iter()
            .flat_map(|rule| &rule.split)
            .map(|share| Owned { by: share.variant.clone(), ranges: share.ranges.clone() })
            .collect();
        let wanted: Vec<Wanted> = rule
            .split
            .iter()
            .map(|share| Wanted { by: share.variant.clone(), buckets: share.weight.buckets() })
            .collect();
        let ranges = allocate(&owned, &wanted)
            .map_err(|problem| in_field(&format!("{field}[{index}].split"), problem))?;
        for (share, ranges) in rule.split.iter_mut().zip(ranges) {
            share.ranges = ranges;
        }
    }
    Ok(())
}

/// The ranges of one owner before the step.
struct Owned {
    by: Key,
    ranges: Vec<BucketRange>,
}

/// The number of buckets that one owner is to have after the step.
struct Wanted {
    by: Key,
    buckets: u32,
}

/// Returns the ranges for each of `wanted`, in the same order. An owner keeps its lowest buckets. Further ones
/// are the lowest buckets that nobody owned before the step.
fn allocate(owned: &[Owned], wanted: &[Wanted]) -> Result<Vec<Vec<BucketRange>>, String> {
    let mut free = difference(
        &[BucketRange::ALL],
        &owned.iter().flat_map(|owner| owner.ranges.iter().copied()).collect::<Vec<_>>(),
    );
    let mut allocated = Vec::with_capacity(wanted.len());
    for Wanted { by, buckets } in wanted {
        let kept =
            owned.iter().find(|owner| owner.by == *by).map(|owner| owner.ranges.clone()).unwrap_or_default();
        let mut ranges = Vec::new();
        let mut lacking = *buckets;
        move_lowest(&mut kept.clone(), &mut lacking, &mut ranges);
        let before = lacking;
        move_lowest(&mut free, &mut lacking, &mut ranges);
        if lacking > 0 {
            return Err(format!(
                "`{by}` needs {before} more buckets and {} are free; shrink others in one change, grow it in the next",
                before - lacking
            ));
        }
        allocated.push(merge_adjacent(ranges));
    }
    Ok(allocated)
}

/// Moves the lowest buckets of `from` to `to` until none is lacking or none is left.
fn move_lowest(from: &mut Vec<BucketRange>, lacking: &mut u32, to: &mut Vec<BucketRange>) {
    from.sort();
    let mut rest = Vec::new();
    for range in from.drain(..) {
        let width = range.width().min(*lacking);
        *lacking -= width;
        let middle = range.lo() + width;
        to.extend(BucketRange::new(range.lo(), middle));
        rest.extend(BucketRange::new(middle, range.hi()));
    }
    *from = rest;
}

fn check_condition(field: &str, when: &Condition) -> Result<(), Problem> {
    condition_problem(when).map_or(Ok(()), |what| Err(Problem::new(field, what)))
}

fn in_field(field: &str, what: String) -> Problem {
    Problem::new(field, what)
}
