//! Simulates traffic with known true rates from a seed. Units arrive one after the other, are assigned like
//! real units, and some convert a little later. The same plan and definitions give the same events, byte for
//! byte and in the same order. What one unit does depends only on the seed and its number.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use assignment::{Context, DEFAULT_UNIT_TYPE, Environment, ExperimentEvaluation, Lists, Snapshot, evaluate};
use schemas::definition::{Assignment, Definitions, Experiment, State};
use schemas::{Decimal6, Event, Key, Micros, Unit};
use serde::Serialize;
use uuid::Builder;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use sdk::attributes::{AttributeFilter, AttributeNames};
use sdk::event::{self, EventStamp};

mod mix;
mod random;

pub use mix::Mix;

use mix::Profiles;
use random::Random;

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The prefix of every unit id, and part of every event id.
    pub batch_id: Key,
    pub units: u64,
    /// The true conversion rate of each variant, in [0, 1].
    pub rates: BTreeMap<String, f64>,
    /// The name of the conversion event.
    pub event: Key,
    /// The lowest and the highest value of a conversion; values are drawn in whole hundredths.
    pub value: Option<(Decimal6, Decimal6)>,
    /// The share of events that are sent a second time, in [0, 1].
    pub duplicates: f64,
    pub mix: Mix,
    /// The attributes that exposures carry in addition to the ones that they always carry.
    pub attributes: AttributeNames,
    /// The arrival of the first unit.
    pub start: Micros,
    /// Nanoseconds between two arrivals.
    pub step_nanos: u64,
    /// The longest time from a unit's arrival to its conversion, and from an event to its repetition, in
    /// microseconds.
    pub delay_micros_max: u64,
}

/// The reason why a plan cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "experiment `{0}` is external: its assignment is made elsewhere, there is nothing to simulate it by"
    )]
    External(Key),
    #[error(
        "experiment `{0}` is a switchback: its units are clusters that come again in every window, and a simulated unit comes \
         once"
    )]
    Switchback(Key),
    #[error("experiment `{key}` is {}, not running: nobody would be exposed", state.as_str())]
    NotRunning { key: Key, state: State },
    #[error("variant `{0}` has no rate; give one for each variant")]
    NoRate(Key),
    #[error("`{variant}` is no variant of `{key}`; it has {}", known.join(", "))]
    NoVariant { variant: String, key: Key, known: Vec<String> },
    #[error("the rate {rate} of `{variant}` is not in [0, 1]")]
    Rate { variant: String, rate: f64 },
    #[error("the share of duplicates, {0}, is not in [0, 1]")]
    Duplicates(f64),
    #[error("the last event would happen after the year 2261; use fewer units or an earlier start")]
    TooLate,
}

/// An iterator over the traffic, in the order in which it is to be sent.
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

/// The exact counts of what has been sent so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The number of units that arrived.
    pub units: u64,
    pub exposed: u64,
    /// The number of units that take no part, by reason.
    pub not_exposed: BTreeMap<String, u64>,
    pub variants: Vec<VariantTally>,
    pub exposures: u64,
    pub conversions: u64,
    /// The number of events sent a second time; the counts above exclude them.
    pub duplicates: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VariantTally {
    pub key: String,
    pub units: u64,
    pub conversions: u64,
}

impl Tally {
    /// The number of events with different ids.
    pub fn distinct(&self) -> u64 {
        self.exposures + self.conversions
    }

    /// The number of messages, duplicates included.
    pub fn sent(&self) -> u64 {
        self.distinct() + self.duplicates
    }
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
    variant: usize,
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
        let population = xxh3_64_with_seed(plan.batch_id.as_str().as_bytes(), plan.seed);
        let behaviour = xxh3_64_with_seed(experiment.key.as_str().as_bytes(), population);
        let variants = experiment.variants.iter().map(|variant| variant.key.to_string());
        let tally = Tally {
            variants: variants.map(|key| VariantTally { key, units: 0, conversions: 0 }).collect(),
            ..Tally::default()
        };
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
            tally,
        })
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lets the next unit arrive and schedules what it will do later. Returns its exposure, or `None` if it
    /// takes no part.
    fn arrive(&mut self) -> Option<Sent<'a>> {
        let unit = self.arrived;
        self.arrived += 1;
        self.tally.units += 1;
        let at = self.arrival(unit);
        let profile = self.profiles.draw(&mut Random::new(unit_seed(self.population, unit)));
        let unit_id = self.unit_id(unit);
        let known = self.profiles.get(profile);
        let stamp = self.stamp(unit, EventKind::Exposure, at);
        let evaluated = self.evaluate(&unit_id, &known.attributes, stamp.created_at);
        let made = event::exposure(stamp, unit_id, &evaluated, known.selected.clone());
        let exposure = match made {
            Ok(exposure) => exposure,
            Err(reason) => {
                *self.tally.not_exposed.entry(reason.to_string()).or_default() += 1;
                return None;
            }
        };
        let variants = &self.experiment.variants;
        let variant = variants.iter().position(|variant| variant.key.as_str() == exposure.variant);
        let variant = variant.expect("an evaluation names a variant of its experiment");
        self.tally.exposed += 1;
        self.tally.variants[variant].units += 1;

        // Every unit makes the same draws in the same order, so that a changed rate changes nothing else.
        let mut random = Random::new(unit_seed(self.behaviour, unit));
        let converts = random.unit() < self.rates[variant];
        let conversion_at = at + random.below(self.plan.delay_micros_max);
        let exposure_repeats = random.unit() < self.plan.duplicates;
        let exposure_again_at = at + self.repetition_delay(&mut random);
        let conversion_repeats = random.unit() < self.plan.duplicates;
        let conversion_again_at = conversion_at + self.repetition_delay(&mut random);

        let due =
            DueEvent { at, happened: at, unit, kind: EventKind::Exposure, repeated: true, profile, variant };
        if exposure_repeats {
            self.due.push(Reverse(DueEvent { at: exposure_again_at, ..due }));
        }
        let due = DueEvent { happened: conversion_at, kind: EventKind::Conversion, ..due };
        if converts {
            self.due.push(Reverse(DueEvent { at: conversion_at, repeated: false, ..due }));
        }
        if converts && conversion_repeats {
            self.due.push(Reverse(DueEvent { at: conversion_again_at, ..due }));
        }
        let at = self.time_at(at);
        Some(self.add_to_tally(Sent { at, event: Event::Exposure(exposure), repeated: false }))
    }

    fn evaluate(
        &self,
        unit_id: &str,
        attributes: &[(&str, assignment::Value<'_>)],
        now: Micros,
    ) -> ExperimentEvaluation<'a> {
        let key = self.experiment.key.as_str();
        let evaluation = match self.experiment.unit_type.as_str() {
            DEFAULT_UNIT_TYPE => {
                evaluate(self.snapshot, key, &Context { targeting_key: Some(unit_id), attributes }, now)
            }
            unit_type => {
                let mut attributes = attributes.to_vec();
                attributes.insert(0, (unit_type, assignment::Value::Text(unit_id)));
                evaluate(self.snapshot, key, &Context { targeting_key: None, attributes: &attributes }, now)
            }
        };
        let evaluation = evaluation.expect("the experiment is in the snapshot, and the unit in the context");
        evaluation.experiment.expect("an experiment was evaluated")
    }

    /// Draws the delay of a repetition: half of them follow at once, the others some time later.
    fn repetition_delay(&self, random: &mut Random) -> u64 {
        let at_once = random.bits() & 1 == 0;
        let later = random.below(self.plan.delay_micros_max);
        if at_once { 0 } else { later }
    }

    fn make_event(&mut self, due: DueEvent) -> Sent<'a> {
        let stamp = self.stamp(due.unit, due.kind, due.happened);
        let unit_id = self.unit_id(due.unit);
        let known = self.profiles.get(due.profile);
        let event = match due.kind {
            EventKind::Exposure => {
                let evaluated = self.evaluate(&unit_id, &known.attributes, stamp.created_at);
                let exposure = event::exposure(stamp, unit_id, &evaluated, known.selected.clone());
                Event::Exposure(exposure.expect("a unit that was exposed once is exposed again"))
            }
            EventKind::Conversion => {
                if !due.repeated {
                    self.tally.variants[due.variant].conversions += 1;
                }
                let unit_type = self.experiment.unit_type.as_str().into();
                let unit = Unit { unit_type, unit_id: unit_id.into() };
                let mut conversion = event::conversion(stamp, self.plan.event.to_string(), unit);
                conversion.metadata = known.pairs.clone();
                conversion.value = self.value(due.unit);
                Event::Conversion(conversion)
            }
        };
        self.add_to_tally(Sent { at: self.time_at(due.at), event, repeated: due.repeated })
    }

    fn add_to_tally(&mut self, sent: Sent<'a>) -> Sent<'a> {
        match (&sent.event, sent.repeated) {
            (_, true) => self.tally.duplicates += 1,
            (Event::Exposure(_), false) => self.tally.exposures += 1,
            (_, false) => self.tally.conversions += 1,
        }
        sent
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

    /// Returns a stamp whose id is a UUIDv8 made from the seed, the batch, the experiment, the unit and the
    /// kind of event.
    fn stamp(&self, unit: u64, kind: EventKind, happened: u64) -> EventStamp {
        let mut identity = [0; 17];
        identity[..8].copy_from_slice(&self.behaviour.to_le_bytes());
        identity[8..16].copy_from_slice(&unit.to_le_bytes());
        identity[16] = kind as u8;
        let event_id = Builder::from_custom_bytes(xxh3_128(&identity).to_be_bytes()).into_uuid();
        EventStamp { event_id, created_at: self.time_at(happened) }
    }

    fn time_at(&self, micros_after_start: u64) -> Micros {
        let micros = self.plan.start.get() + micros_after_start as i64;
        Micros::new(micros).expect("a plan that ends after 2261 is not made")
    }
}

impl<'a> Iterator for Simulation<'a> {
    type Item = Sent<'a>;

    fn next(&mut self) -> Option<Sent<'a>> {
        loop {
            let arrival = (self.arrived < self.plan.units).then(|| self.arrival(self.arrived));
            let due = self.due.peek().map(|Reverse(due)| due.at);
            match (arrival, due) {
                (Some(arrival), Some(due)) if due > arrival => {}
                (Some(_), None) => {}
                (None, None) => return None,
                (_, Some(_)) => {
                    let Reverse(due) = self.due.pop().expect("it was peeked at");
                    return Some(self.make_event(due));
                }
            }
            if let Some(sent) = self.arrive() {
                return Some(sent);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use schemas::{Uuid, avro};

    use super::*;
    use crate::samples;

    const FILE: &str = r#"
{kind: metric, key: signup, event: signup, type: conversion}
---
{kind: experiment, key: checkout, state: STATE, assignment: ASSIGNMENT, control: control, rollout: 9000,
 variants: [{key: control, weight: 5000}, {key: treatment, weight: 5000}], metrics: {primary: signup}}
"#;

    fn definitions(state: &str, assignment: &str) -> Definitions {
        samples::definitions(&FILE.replace("STATE", state).replace("ASSIGNMENT", assignment))
    }

    fn plan() -> Plan {
        Plan {
            seed: 42,
            batch_id: Key::new("sim").unwrap(),
            units: 10_000,
            rates: BTreeMap::from([("control".to_owned(), 0.05), ("treatment".to_owned(), 0.5)]),
            event: Key::new("signup").unwrap(),
            value: Some((Decimal6::parse("5").unwrap(), Decimal6::parse("5.02").unwrap())),
            duplicates: 0.1,
            mix: Mix::Default,
            attributes: AttributeNames::default(),
            start: Micros::parse("2026-01-01T00:00:00Z").unwrap(),
            step_nanos: 1_000_500,
            delay_micros_max: 5_000_000,
        }
    }

    fn run(definitions: &Definitions, plan: Plan) -> (Vec<Sent<'_>>, Tally) {
        let (_, experiment) = definitions.experiment("checkout").unwrap();
        let snapshot = Box::leak(Box::new(snapshot(definitions)));
        let mut simulation = Simulation::new(snapshot, experiment, plan).unwrap();
        let sent: Vec<Sent> = simulation.by_ref().collect();
        (sent, simulation.tally().clone())
    }

    #[test]
    fn a_seed_gives_these_counts() {
        let definitions = definitions("running", "hashed");
        let (sent, tally) = run(&definitions, plan());
        assert_eq!(tally.units, 10_000);
        assert_eq!(tally.sent(), sent.len() as u64);
        let arm = |key: &str, units, conversions| VariantTally { key: key.to_owned(), units, conversions };
        assert_eq!(tally.variants, [arm("control", 4_562, 233), arm("treatment", 4_480, 2_240)]);
        assert_eq!((tally.exposed, tally.conversions, tally.duplicates), (9_042, 2_473, 1_147));
    }

    #[test]
    fn the_same_plan_is_the_same_bytes_and_a_repetition_too() {
        let definitions = definitions("running", "hashed");
        let bytes =
            |sent: &[Sent]| -> Vec<Vec<u8>> { sent.iter().map(|sent| avro::encode(&sent.event)).collect() };
        let (first, tally) = run(&definitions, plan());
        let (second, _) = run(&definitions, plan());
        assert_eq!(bytes(&first), bytes(&second));

        let distinct: HashSet<Vec<u8>> = bytes(&first).into_iter().collect();
        let ids: HashSet<Uuid> = first.iter().map(|sent| sent.event.event_id()).collect();
        assert_eq!(distinct.len() as u64, tally.distinct());
        assert_eq!(ids.len() as u64, tally.distinct());
        let repeated = first.iter().filter(|sent| sent.repeated).count() as u64;
        assert_eq!(repeated, tally.duplicates);
    }

    #[test]
    fn events_come_in_the_order_in_which_they_are_due() {
        let definitions = definitions("running", "hashed");
        let (sent, _) = run(&definitions, plan());
        assert!(sent.windows(2).all(|pair| pair[0].at <= pair[1].at));
        for Sent { at, event, repeated } in &sent {
            assert_eq!(event.check(), Ok(()));
            assert!(*at >= event.created_at());
            assert!(*repeated || *at == event.created_at());
        }
    }

    #[test]
    fn a_rate_changes_no_event_of_other_variants() {
        let definitions = definitions("running", "hashed");
        let of_control = |plan: Plan| -> HashSet<Vec<u8>> {
            let (sent, _) = run(&definitions, plan);
            let exposed: HashSet<String> = sent
                .iter()
                .filter_map(|sent| match &sent.event {
                    Event::Exposure(exposure) if exposure.variant == "control" => {
                        Some(exposure.unit_id.to_string())
                    }
                    _ => None,
                })
                .collect();
            sent.iter()
                .filter(|sent| exposed.contains(sent.event.partition_key()))
                .map(|sent| avro::encode(&sent.event))
                .collect()
        };
        let mut other = plan();
        other.rates.insert("treatment".to_owned(), 0.9);
        assert_eq!(of_control(plan()), of_control(other));
    }

    #[test]
    fn the_value_of_a_conversion_is_in_range_and_in_whole_hundredths() {
        let definitions = definitions("running", "hashed");
        let (sent, _) = run(&definitions, plan());
        let values: HashSet<String> = sent
            .iter()
            .filter_map(|sent| match &sent.event {
                Event::Conversion(conversion) => Some(conversion.value.unwrap().to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(values, ["5.000000", "5.010000", "5.020000"].map(String::from).into());
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        let running = definitions("running", "hashed");
        let refusal = |definitions: &Definitions, plan: Plan| {
            let (_, experiment) = definitions.experiment("checkout").unwrap();
            Simulation::new(&snapshot(definitions), experiment, plan).err().unwrap().to_string()
        };
        assert_eq!(
            refusal(&definitions("running", "external"), plan()),
            "experiment `checkout` is external: its assignment is made elsewhere, there is nothing to simulate it by"
        );
        assert_eq!(
            refusal(&definitions("draft", "hashed"), plan()),
            "experiment `checkout` is draft, not running: nobody would be exposed"
        );
        let surge = FILE
            .replace("STATE", "running")
            .replace("assignment: ASSIGNMENT", "switchback: {window_seconds: 60}");
        assert_eq!(
            refusal(&samples::definitions(&surge), plan()),
            "experiment `checkout` is a switchback: its units are clusters that come again in every window, and a simulated \
             unit comes once"
        );
        let with = |name: &str, rate: f64| {
            let mut plan = plan();
            plan.rates.insert(name.to_owned(), rate);
            plan
        };
        assert_eq!(
            refusal(&running, with("blue", 0.1)),
            "`blue` is no variant of `checkout`; it has control, treatment"
        );
        assert_eq!(refusal(&running, with("control", 1.5)), "the rate 1.5 of `control` is not in [0, 1]");
        let mut without = plan();
        without.rates.remove("treatment");
        assert_eq!(refusal(&running, without), "variant `treatment` has no rate; give one for each variant");
        assert_eq!(
            refusal(&running, Plan { duplicates: -0.1, ..plan() }),
            "the share of duplicates, -0.1, is not in [0, 1]"
        );
        assert_eq!(
            refusal(&running, Plan { start: Micros::MAX, ..plan() }),
            "the last event would happen after the year 2261; use fewer units or an earlier start"
        );
    }
}
