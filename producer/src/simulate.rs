//! Simulates traffic with known true rates from a seed. Units arrive one after the other, are assigned like
//! real units, and some convert a little later. The same plan and definitions give the same events, byte for
//! byte and in the same order. What one unit does depends only on the seed, its number and the variant that it is
//! served. [`EdgeTraffic`] is the same traffic where an edge assigns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use assignment::{Environment, Evaluation, Lists, Snapshot, evaluate};
use schemas::definition::{Assignment, Definitions, Experiment, State};
use schemas::{Decimal6, Event, Key, Micros, Unit};
use uuid::Builder;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

use sdk::attributes::AttributeFilter;
use sdk::event::{self, EventStamp};

use crate::unit_context::UnitContext;

mod edge_traffic;
mod mix;
mod plan;
mod random;
#[cfg(test)]
mod simulation_tests;
mod tally;

pub use edge_traffic::{Asked, EdgeAnswer, EdgeTraffic, Request, Tracked, UnknownVariant, evaluation_body};
pub use mix::Mix;
pub use plan::{Plan, PlanError};
pub use tally::{Tally, VariantTally};

use mix::Profiles;
use random::Random;

/// The traffic, one moment after the other, in the order in which it is to be sent.
pub struct Simulation<'a> {
    plan: Plan,
    snapshot: &'a Snapshot,
    experiment: &'a Experiment,
    /// The conversion rate of each variant, in the experiment's order.
    rates: Vec<f64>,
    profiles: Profiles,
    /// The seed of the attributes of units.
    population: u64,
    /// The seed of what units do in this experiment.
    behaviour: u64,
    arrived: u64,
    due: BinaryHeap<Reverse<DueEvent>>,
    /// The events of one moment: exposures to the experiment and to holdouts.
    ready: Vec<Sent<'a>>,
    tally: Tally,
}

/// An event to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent<'a> {
    /// The time to send it; later than the event's own time if it is repeated.
    pub at: Micros,
    pub event: Event<'a>,
    /// Whether the same event was sent before.
    pub repeated: bool,
}

/// An event that is to be sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DueEvent {
    /// The time to send it, in microseconds after the start.
    at: u64,
    /// The event's own time, in microseconds after the start.
    happened: u64,
    unit: u64,
    kind: EventKind,
    repeated: bool,
    profile: usize,
    /// The variant that the unit is served, by whose rate it converts.
    variant: usize,
    /// Whether the unit takes part in the experiment; of others only holdouts count the conversions.
    takes_part: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EventKind {
    Exposure = 1,
    Conversion = 2,
}

/// Compiles the definitions for the environment of simulated traffic.
pub fn snapshot(definitions: &Definitions) -> Snapshot {
    Snapshot::compile(definitions, &Lists::default(), Environment::PRODUCTION)
}

impl<'a> Simulation<'a> {
    /// `experiment` is one of `snapshot`, which [`snapshot`] compiles.
    pub fn new(
        snapshot: &'a Snapshot,
        experiment: &'a Experiment,
        plan: Plan,
    ) -> Result<Simulation<'a>, PlanError> {
        let key = || experiment.key.clone();
        if experiment.assignment == Assignment::External {
            return Err(PlanError::External(key()));
        }
        if experiment.switchback.is_some() {
            return Err(PlanError::Switchback(key()));
        }
        if experiment.state != State::Running {
            return Err(PlanError::NotRunning { key: key(), state: experiment.state });
        }
        if !(0.0..=1.0).contains(&plan.duplicates) {
            return Err(PlanError::Duplicates(plan.duplicates));
        }
        let rates = rates(experiment, &plan.rates)?;
        let last = plan
            .units
            .checked_mul(plan.step_nanos)
            .and_then(|arrival| (arrival / 1_000).checked_add(plan.delay_micros_max.checked_mul(2)?))
            .and_then(|after| i64::try_from(after).ok()?.checked_add(plan.start.get()));
        if last.is_none_or(|last| Micros::new(last).is_err()) {
            return Err(PlanError::TooLate);
        }
        refuse_closed(experiment, &plan)?;
        let population = xxh3_64_with_seed(plan.batch_id.as_str().as_bytes(), plan.seed);
        let behaviour = xxh3_64_with_seed(experiment.key.as_str().as_bytes(), population);
        let tally = Tally::of(experiment.variants.iter().map(|variant| variant.key.to_string()));
        Ok(Simulation {
            profiles: Profiles::of(plan.mix, &AttributeFilter::of(experiment, &plan.attributes)),
            plan,
            snapshot,
            experiment,
            rates,
            population,
            behaviour,
            arrived: 0,
            due: BinaryHeap::new(),
            ready: Vec::new(),
            tally,
        })
    }

    /// The counts of the moments that have happened.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// When something happens next; `None` after the end.
    pub fn next_at(&self) -> Option<Micros> {
        let due = self.due.peek().map(|Reverse(due)| due.at);
        self.next_arrival().into_iter().chain(due).min().map(|at| self.time_at(at))
    }

    /// Lets happen what is next: a unit arrives, or does something later. Returns the events of this moment, all of which are
    /// counted; there is none if the unit is exposed to nothing.
    pub fn next_moment(&mut self) -> impl Iterator<Item = Sent<'a>> {
        let due = self.due.peek().map(|Reverse(due)| due.at);
        if self.next_arrival().is_some_and(|arrival| due.is_none_or(|due| due > arrival)) {
            self.arrive();
        } else if let Some(Reverse(due)) = self.due.pop() {
            self.happen(due);
        }
        self.ready.drain(..)
    }

    /// The arrival of the next unit, in microseconds after the start.
    fn next_arrival(&self) -> Option<u64> {
        (self.arrived < self.plan.units).then(|| self.arrival(self.arrived))
    }

    /// Lets the next unit arrive: it is exposed to what its evaluation says, and does something later.
    fn arrive(&mut self) {
        let (unit, profile) = self.next_unit();
        let at = self.arrival(unit);
        let unit_id = self.unit_id(unit);
        let evaluation = self.evaluate(&unit_id, profile, self.time_at(at));
        let outcome = evaluation.experiment.expect("an experiment was evaluated").outcome;
        let variant = self.variant(evaluation.variant.as_str());
        let variant = variant.expect("an evaluation names a variant of its experiment");
        self.count_unit(variant, outcome.map(drop).map_err(|reason| reason.to_string()));
        let kind = EventKind::Exposure;
        let takes_part = outcome.is_ok();
        let due = DueEvent { at, happened: at, unit, kind, repeated: false, profile, variant, takes_part };
        self.expose(due, &evaluation);
        if evaluation.exposures().next().is_some() {
            self.schedule(due);
        }
    }

    /// The number and the profile of the unit that arrives next.
    fn next_unit(&mut self) -> (u64, usize) {
        let unit = self.arrived;
        self.arrived += 1;
        self.tally.units += 1;
        (unit, self.profiles.draw(&mut Random::new(unit_seed(self.population, unit))))
    }

    fn variant(&self, key: &str) -> Option<usize> {
        self.experiment.variants.iter().position(|variant| variant.key.as_str() == key)
    }

    fn count_unit(&mut self, variant: usize, takes_part: Result<(), String>) {
        match takes_part {
            Ok(()) => {
                self.tally.exposed += 1;
                self.tally.variants[variant].units += 1;
            }
            Err(reason) => *self.tally.not_exposed.entry(reason).or_default() += 1,
        }
    }

    /// Schedules what a unit does after `exposed`.
    fn schedule(&mut self, exposed: DueEvent) {
        // Every unit makes the same draws in the same order, so that a changed rate changes nothing else.
        let mut random = Random::new(unit_seed(self.behaviour, exposed.unit));
        let at = exposed.at;
        let converts = random.unit() < self.rates[exposed.variant];
        let conversion_at = at + random.below(self.plan.delay_micros_max);
        let exposure_repeats = random.unit() < self.plan.duplicates;
        let exposure_again_at = at + self.repetition_delay(&mut random);
        let conversion_repeats = random.unit() < self.plan.duplicates;
        let conversion_again_at = conversion_at + self.repetition_delay(&mut random);

        if exposure_repeats {
            self.due.push(Reverse(DueEvent { at: exposure_again_at, repeated: true, ..exposed }));
        }
        let conversion = DueEvent {
            at: conversion_at,
            happened: conversion_at,
            kind: EventKind::Conversion,
            repeated: false,
            ..exposed
        };
        if converts {
            self.due.push(Reverse(conversion));
        }
        if converts && conversion_repeats {
            self.due.push(Reverse(DueEvent { at: conversion_again_at, repeated: true, ..conversion }));
        }
    }

    fn evaluate(&self, unit_id: &str, profile: usize, now: Micros) -> Evaluation<'a> {
        let unit_type = self.experiment.unit_type.as_str();
        let context = UnitContext::new(unit_type, unit_id, &self.profiles.get(profile).attributes);
        let evaluation = evaluate(self.snapshot, self.experiment.key.as_str(), &context.get(), now);
        evaluation.expect("the experiment is in the snapshot, and the unit in the context")
    }

    /// Draws the delay of a repetition: half of them follow at once, the others some time later.
    fn repetition_delay(&self, random: &mut Random) -> u64 {
        let at_once = random.bits() & 1 == 0;
        let later = random.below(self.plan.delay_micros_max);
        if at_once { 0 } else { later }
    }

    /// Lets happen what is due.
    fn happen(&mut self, due: DueEvent) {
        let unit_id = self.unit_id(due.unit);
        match due.kind {
            EventKind::Exposure => {
                let evaluation = self.evaluate(&unit_id, due.profile, self.time_at(due.happened));
                self.expose(due, &evaluation);
            }
            EventKind::Conversion => {
                if !due.repeated {
                    self.count_conversion(due);
                }
                let stamp = self.stamp(due, &self.experiment.key);
                let unit_type = self.experiment.unit_type.as_str().into();
                let unit = Unit { unit_type, unit_id: unit_id.into() };
                let mut conversion = event::conversion(stamp, self.plan.event.to_string(), unit);
                conversion.metadata = self.profiles.get(due.profile).pairs.clone();
                conversion.value = self.value(due.unit);
                self.send(due, Event::Conversion(conversion));
            }
        }
    }

    /// Sends every exposure of the evaluation.
    fn expose(&mut self, due: DueEvent, evaluation: &Evaluation<'a>) {
        for part in evaluation.exposures() {
            let key = &part.experiment.key;
            // Those of a holdout are the same: every attribute of the mix is one that all exposures carry.
            let attributes = self.profiles.get(due.profile).selected.clone();
            let exposure = event::exposure(self.stamp(due, key), self.unit_id(due.unit), &part, attributes);
            let exposure = exposure.expect("an evaluation's exposures take part");
            if !due.repeated && *key != self.experiment.key {
                self.tally.add_side(key.as_str(), &exposure.variant);
            }
            self.send(due, Event::Exposure(exposure));
        }
    }

    fn count_conversion(&mut self, due: DueEvent) {
        self.tally.conversions += 1;
        if due.takes_part {
            self.tally.variants[due.variant].conversions += 1;
        }
    }

    fn send(&mut self, due: DueEvent, event: Event<'a>) {
        match (due.kind, due.repeated) {
            (_, true) => self.tally.duplicates += 1,
            (EventKind::Exposure, false) => self.tally.exposures += 1,
            (EventKind::Conversion, false) => {}
        }
        self.ready.push(Sent { at: self.time_at(due.at), event, repeated: due.repeated });
    }

    fn value(&self, unit: u64) -> Option<Decimal6> {
        const HUNDREDTH: i64 = 10_000;
        let (least, most) = self.plan.value?;
        let hundredths = (most.millionths() - least.millionths()).max(0).unsigned_abs() / HUNDREDTH as u64;
        let mut random = Random::new(unit_seed(self.behaviour.rotate_left(32), unit));
        let above = random.below(hundredths + 1) as i64 * HUNDREDTH;
        Some(
            Decimal6::from_millionths(least.millionths() + above)
                .expect("a value between two decimals is a decimal"),
        )
    }

    /// The arrival of a unit, in microseconds after the start.
    fn arrival(&self, unit: u64) -> u64 {
        unit * self.plan.step_nanos / 1_000
    }

    fn unit_id(&self, unit: u64) -> String {
        format!("{}-{:06}", self.plan.batch_id, unit + 1)
    }

    /// Returns a stamp whose id is a UUIDv8 made from the seed, the batch, the experiment, the unit, the kind of event
    /// and, of an exposure to a holdout, the holdout.
    fn stamp(&self, due: DueEvent, exposed_to: &Key) -> EventStamp {
        let digest = self.digest(due, exposed_to).to_be_bytes();
        EventStamp {
            event_id: Builder::from_custom_bytes(digest).into_uuid(),
            created_at: self.time_at(due.happened),
        }
    }

    fn digest(&self, due: DueEvent, exposed_to: &Key) -> u128 {
        let mut identity = [0; 17];
        identity[..8].copy_from_slice(&self.behaviour.to_le_bytes());
        identity[8..16].copy_from_slice(&due.unit.to_le_bytes());
        identity[16] = due.kind as u8;
        let own = *exposed_to == self.experiment.key;
        xxh3_128_with_seed(&identity, if own { 0 } else { xxh3_64(exposed_to.as_str().as_bytes()) })
    }

    fn time_at(&self, micros_after_start: u64) -> Micros {
        let micros = self.plan.start.get() + micros_after_start as i64;
        Micros::new(micros).expect("a plan that ends after 2261 is not made")
    }
}

/// Refuses a plan whose units all arrive while the experiment takes none. A plan of which some do is simulated, and its
/// tally says why the others take no part.
fn refuse_closed(experiment: &Experiment, plan: &Plan) -> Result<(), PlanError> {
    if !experiment.in_environment(Environment::PRODUCTION.0).enabled {
        return Err(PlanError::NotEnabled(experiment.key.clone()));
    }
    let Some(schedule) = &experiment.plan.schedule else { return Ok(()) };
    let last = plan.units.saturating_sub(1) * plan.step_nanos / 1_000;
    let to = Micros::new(plan.start.get() + last as i64).expect("a plan that ends after 2261 is not made");
    let outside =
        schedule.start.is_some_and(|start| to < start) || schedule.end.is_some_and(|end| plan.start >= end);
    if outside {
        let (key, schedule) = (experiment.key.clone(), schedule.clone());
        return Err(PlanError::OutsideSchedule { key, schedule, from: plan.start, to });
    }
    Ok(())
}

fn rates(experiment: &Experiment, given: &BTreeMap<String, f64>) -> Result<Vec<f64>, PlanError> {
    let variants = &experiment.variants;
    for (variant, rate) in given {
        if !variants.iter().any(|known| known.key.as_str() == variant) {
            let known = variants.iter().map(|variant| variant.key.to_string()).collect();
            return Err(PlanError::NoVariant {
                variant: variant.clone(),
                key: experiment.key.clone(),
                known,
            });
        }
        if !(0.0..=1.0).contains(rate) {
            return Err(PlanError::Rate { variant: variant.clone(), rate: *rate });
        }
    }
    let rate = |variant: &schemas::definition::Variant| {
        given.get(variant.key.as_str()).copied().ok_or_else(|| PlanError::NoRate(variant.key.clone()))
    };
    variants.iter().map(rate).collect()
}

/// Returns a seed for the unit's own sequence, unrelated to those of other units.
fn unit_seed(seed: u64, unit: u64) -> u64 {
    xxh3_64_with_seed(&unit.to_le_bytes(), seed)
}
