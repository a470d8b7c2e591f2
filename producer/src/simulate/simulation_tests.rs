//! What a simulation sends and counts, and what it refuses.

use std::collections::HashSet;

use schemas::{Uuid, avro};
use sdk::attributes::AttributeNames;

use super::*;
use crate::samples;

const FILE: &str = r#"
{kind: metric, key: signup, event: signup, type: conversion}
---
{kind: experiment, key: checkout, state: STATE, assignment: ASSIGNMENT, control: control, rollout: 9000,
 variants: [{key: control, weight: 5000}, {key: treatment, weight: 5000}], metrics: {primary: signup}}
"#;

pub(super) fn definitions(state: &str, assignment: &str) -> Definitions {
    samples::definitions(&FILE.replace("STATE", state).replace("ASSIGNMENT", assignment))
}

pub(super) fn plan() -> Plan {
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
    let mut sent: Vec<Sent> = Vec::new();
    while let Some(at) = simulation.next_at() {
        sent.extend(simulation.next_moment());
        // Whoever stops between two moments has counted what was sent, and nothing else.
        assert_eq!(simulation.tally().sent(), sent.len() as u64, "at {at}");
    }
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
fn a_unit_is_exposed_to_each_holdout_that_covers_the_experiment_and_converts_as_what_it_is_served() {
    let (first, second) = FILE.split_once("---").unwrap();
    let holdout = "{kind: experiment, key: all, holdout: true, state: running, control: held, metrics: {primary: \
                       signup}, variants: [{key: held, weight: 1000}, {key: rest, weight: 9000}]}";
    let file = format!("{first}---\n{holdout}\n---{second}");
    let definitions = samples::definitions(&file.replace("STATE", "running").replace("ASSIGNMENT", "hashed"));
    let rates = plan().rates.into_keys().map(|key| (key, 1.0)).collect();
    let (sent, tally) = run(&definitions, Plan { rates, ..plan() });
    let (held, rest) = (tally.holdouts["all"]["held"], tally.holdouts["all"]["rest"]);
    assert_eq!((held, rest), (957, 9_043));
    assert_eq!(tally.not_exposed["the unit is held out"], held);
    assert_eq!((tally.exposures, tally.conversions), (10_000 + tally.exposed, 10_000));
    assert_eq!(tally.variants.iter().map(|arm| arm.conversions).sum::<u64>(), tally.exposed);
    let ids: HashSet<Uuid> = sent.iter().map(|sent| sent.event.event_id()).collect();
    assert_eq!((ids.len() as u64, sent.len() as u64), (tally.distinct(), tally.sent()));
    // Each unit is exposed first to the holdout, at one time, and again with both.
    let exposed: Vec<(&str, bool)> = sent
        .iter()
        .filter_map(|sent| match &sent.event {
            Event::Exposure(exposure) => Some((exposure.experiment.as_ref(), sent.repeated)),
            _ => None,
        })
        .collect();
    assert!(
        exposed
            .iter()
            .enumerate()
            .all(|(index, (key, repeated))| { *key == "all" || exposed[index - 1] == ("all", *repeated) })
    );
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
    let scheduled =
        samples::definitions(&FILE.replace("STATE", "running").replace("ASSIGNMENT", "hashed").replace(
            "rollout: 9000",
            "plan: {schedule: {start: 2026-01-01T00:00:11Z, end: 2026-01-02T00:00:00Z}}",
        ));
    assert_eq!(
        refusal(&scheduled, plan()),
        "experiment `checkout` takes units from 2026-01-01T00:00:11.000000Z until 2026-01-02T00:00:00.000000Z, and \
             those of the simulation arrive from 2026-01-01T00:00:00.000000Z to 2026-01-01T00:00:10.003999Z: nobody \
             would be exposed; choose another `--start`, or another schedule"
    );
    // The units that arrive from the start on take part.
    let (_, tally) = run(&scheduled, Plan { units: 20_000, ..plan() });
    assert_eq!(tally.not_exposed["the experiment has not started yet"], 10_995);
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
