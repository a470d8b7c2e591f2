//! The ledger of slots: who owns which slots of a layer or of the whole, which of them cool down, and which holdouts
//! cover an experiment. All of it follows from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Accepted, Definitions, Version};
use crate::bucket::{BucketRange, difference};
use crate::definition::check::COOLDOWN_HOURS_MAX;
use crate::definition::{Definition, Experiment, Key, Problem, State};
use crate::time::Micros;

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// What the ledger remembers beside the definitions that are current.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// The version with which each experiment first ran.
    started: BTreeMap<Key, Version>,
    given_up: Vec<GivenUp>,
    holdouts: Vec<HoldoutSpan>,
}

/// Slots of a layer that an experiment gave up.
#[derive(Clone, Debug)]
struct GivenUp {
    layer: Key,
    by: Key,
    ranges: Vec<BucketRange>,
    at: Micros,
}

/// A holdout and the configuration versions in which it ran. While it runs, nothing that decides about a unit
/// changes, and once stopped it does not run again.
#[derive(Clone, Debug)]
pub struct HoldoutSpan {
    /// Its first running version.
    pub accepted: Arc<Accepted>,
    /// The version that stopped it.
    pub until: Option<Version>,
}

impl HoldoutSpan {
    pub fn holdout(&self) -> &Experiment {
        match &self.accepted.definition {
            Definition::Experiment(holdout) => holdout,
            other => unreachable!("a {} is no holdout", other.kind()),
        }
    }

    /// Returns whether the holdout ran in this version of the whole configuration.
    pub fn ran_in(&self, configuration_version: Version) -> bool {
        self.accepted.version <= configuration_version
            && self.until.is_none_or(|until| configuration_version < until)
    }
}

impl Slots {
    /// Notes an accepted change, appended to the log at `at`.
    pub(super) fn note(&mut self, at: Micros, previous: Option<&Accepted>, accepted: &Arc<Accepted>) {
        let Definition::Experiment(new) = &accepted.definition else { return };
        if new.state == State::Running && !self.started.contains_key(&new.key) {
            self.started.insert(new.key.clone(), accepted.version);
            if new.holdout {
                self.holdouts.push(HoldoutSpan { accepted: accepted.clone(), until: None });
            }
        }
        if new.holdout && new.state != State::Running {
            let running = self.holdouts.iter_mut().filter(|span| span.until.is_none());
            for span in running.filter(|span| span.holdout().key == new.key) {
                span.until = Some(accepted.version);
            }
        }
        let Some(Accepted { definition: Definition::Experiment(old), .. }) = previous else { return };
        let ranges = difference(old.owned_slots(), new.owned_slots());
        if let Some(layer) = old.layer.clone().filter(|_| !ranges.is_empty()) {
            let longest = i64::from(COOLDOWN_HOURS_MAX) * MICROS_PER_HOUR;
            self.given_up.retain(|given_up| at.get() - given_up.at.get() < longest);
            self.given_up.push(GivenUp { layer, by: old.key.clone(), ranges, at });
        }
    }
}

impl Definitions {
    /// The experiments that own slots of the same space as `experiment`: of its layer or, if it is a holdout
    /// without a layer, of the whole.
    pub fn slot_owners<'a>(&'a self, experiment: &'a Experiment) -> impl Iterator<Item = &'a Experiment> {
        self.experiments().filter(move |other| {
            other.key != experiment.key && other.has_looks() && other.shares_slots_with(experiment)
        })
    }

    /// The slots of the experiment's layer that others gave up and that cool down at `now`: who gave them up, which,
    /// and until when.
    pub fn cooling_slots<'a>(
        &'a self,
        experiment: &'a Experiment,
        now: Micros,
    ) -> impl Iterator<Item = (&'a Key, &'a [BucketRange], Micros)> {
        let layer = experiment.layer.as_ref();
        let hours = layer.and_then(|layer| self.layer(layer)).map_or(0, |layer| layer.cooldown_hours);
        let given_up = self
            .slots
            .given_up
            .iter()
            .filter(move |given_up| Some(&given_up.layer) == layer && given_up.by != experiment.key);
        let until =
            move |at: Micros| Micros::new(at.get() + i64::from(hours) * MICROS_PER_HOUR).unwrap_or(at);
        given_up
            .map(move |given_up| (&given_up.by, given_up.ranges.as_slice(), until(given_up.at)))
            .filter(move |(_, _, until)| now < *until)
    }

    /// Every holdout that covers the experiment in some version of the configuration, those of the whole first:
    /// one of its unit type and, if it has a layer, of its layer, that began to run before the experiment did.
    pub fn holdouts_over<'a>(&'a self, experiment: &'a Experiment) -> impl Iterator<Item = &'a HoldoutSpan> {
        let started = self.slots.started.get(&experiment.key).copied();
        let covers = move |span: &HoldoutSpan| {
            let holdout = span.holdout();
            !experiment.holdout
                && holdout.unit_type == experiment.unit_type
                && started.is_none_or(|started| span.accepted.version < started)
        };
        let of = |layer: Option<&'a Key>| {
            self.slots.holdouts.iter().filter(move |span| span.holdout().layer.as_ref() == layer)
        };
        let of_layer = experiment.layer.as_ref().map(|layer| of(Some(layer)));
        of(None).chain(of_layer.into_iter().flatten()).filter(move |span| covers(span))
    }

    /// Checks the slots that the experiment takes of its layer, or of the whole: they must be free, and have cooled
    /// down.
    pub(super) fn check_slots(
        &self,
        at: Micros,
        previous: Option<&Experiment>,
        experiment: &Experiment,
        problems: &mut Vec<Problem>,
    ) {
        if let Some(layer) = &experiment.layer
            && self.layer(layer).is_none()
        {
            problems.push(Problem::new("layer", format!("there is no layer `{layer}`; define it first")));
            return;
        }
        if !experiment.has_looks() {
            return;
        }
        let (field, left_out) = match experiment.holdout {
            true => ("variants", "the ranges"),
            false => ("slot_ranges", "`slot_ranges`"),
        };
        let owned = experiment.owned_slots();
        if experiment.layer.is_some() && owned.is_empty() {
            problems.push(Problem::new(
                field,
                "an experiment that runs in a layer owns slots of it; they are allocated when it is applied",
            ));
        }
        for other in self.slot_owners(experiment) {
            let theirs = other.owned_slots();
            if let Some(range) = owned.iter().find(|range| theirs.iter().any(|of| of.overlaps(**range))) {
                problems.push(Problem::new(
                    field,
                    format!(
                        "{range} holds slots of `{}`; apply it again without {left_out} to take free ones, or \
                         archive that one first",
                        other.key
                    ),
                ));
            }
            if experiment.holdout
                && other.holdout
                && experiment.state == State::Running
                && other.state == State::Running
                && experiment.unit_type == other.unit_type
            {
                problems.push(Problem::new(
                    "state",
                    format!("`{}` already holds units out here; stop it before another runs", other.key),
                ));
            }
        }
        let taken = difference(owned, previous.map_or(&[], |previous| previous.owned_slots()));
        for (by, cooling, until) in self.cooling_slots(experiment, at) {
            if let Some(range) = taken.iter().find(|range| cooling.iter().any(|of| of.overlaps(**range))) {
                problems.push(Problem::new(
                    field,
                    format!("{range} holds slots that `{by}` gave up and that cool down until {until}"),
                ));
            }
        }
    }
}
