//! The ledger of slots under long random sequences of edits: nobody outside an edit moves, nobody inside it passes from one
//! variant to another, and no unit is in two experiments of a layer, or in one that it is held out of.

use std::collections::BTreeMap;

use assignment::{Context, Environment, Lists, NotExposed, Snapshot, evaluate, resolve};
use proptest::prelude::*;
use schemas::definition::{Definition, Definitions, Kind};
use schemas::{Micros, Uuid};
use serde_json::{Value, json};

const UNITS: u32 = 400;
const HOUR: i64 = 3_600_000_000;

/// A log with one writer, and its clock.
struct Log {
    definitions: Definitions,
    now: Micros,
    /// What was last accepted of each experiment, as a file would say it.
    files: BTreeMap<String, Value>,
}

impl Log {
    fn new(cooldown_hours: u32) -> Log {
        let now = Micros::new(1_767_225_600_000_000).unwrap();
        let mut log = Log { definitions: Definitions::default(), now, files: BTreeMap::new() };
        log.propose(Kind::Metric, json!({"key": "signup", "event": "signup", "type": "conversion"})).unwrap();
        for layer in ["one", "two"] {
            log.propose(Kind::Layer, json!({"key": layer, "cooldown_hours": cooldown_hours})).unwrap();
        }
        log
    }

    fn propose(&mut self, kind: Kind, json: Value) -> Result<(), String> {
        let written = Definition::from_json(kind, json.clone()).map_err(|problem| problem.to_string())?;
        let definition =
            resolve(&self.definitions, self.now, written).map_err(|problem| problem.to_string())?;
        let change = self.definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
        let offset = self.definitions.next_offset();
        let verdict = self.definitions.apply(offset, self.now, &change).expect("the rule is known");
        verdict.map_err(|refusal| refusal.to_string())?;
        if kind == Kind::Experiment {
            self.files.insert(definition.key().to_string(), json);
        }
        Ok(())
    }

    fn pass(&mut self, hours: i64) {
        self.now = Micros::new(self.now.get() + hours * HOUR).unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::compile(&self.definitions, &Lists::default(), Environment::PRODUCTION)
    }

    /// The variant of each unit in each experiment that runs.
    fn seen(&self, units: u32) -> Seen {
        let snapshot = self.snapshot();
        let running = self.files.iter().filter(|(_, file)| file["state"] == json!("running"));
        running
            .map(|(key, _)| {
                let all = (0..units).map(|unit| outcome(&snapshot, key, &format!("unit-{unit}")));
                (key.clone(), all.collect())
            })
            .collect()
    }
}

type Seen = BTreeMap<String, Vec<Result<String, NotExposed>>>;

fn outcome(snapshot: &Snapshot, key: &str, unit_id: &str) -> Result<String, NotExposed> {
    let context = Context { targeting_key: Some(unit_id), attributes: &[] };
    let evaluation = evaluate(snapshot, key, &context, Micros::EPOCH).unwrap();
    evaluation.experiment.unwrap().outcome.map(|exposed| exposed.variant.key.to_string())
}

/// An edit of one of six experiments, three of them in each layer, or of a holdout.
#[derive(Clone, Debug)]
enum Edit {
    /// Starts it with this share of its layer, or changes the share.
    Slots {
        experiment: usize,
        slots: u32,
    },
    Weights {
        experiment: usize,
        weights: [u32; 3],
    },
    /// Drops its last arm.
    DropArm {
        experiment: usize,
    },
    Rollout {
        experiment: usize,
        rollout: u32,
    },
    State {
        experiment: usize,
        state: &'static str,
    },
    /// Starts or stops a holdout of the first layer, or of the whole.
    HoldOut {
        of_layer: bool,
        share: u32,
    },
    Release {
        of_layer: bool,
    },
    Pass {
        hours: i64,
    },
}

fn edit() -> impl Strategy<Value = Edit> {
    let experiment = 0..6_usize;
    let weights = prop::sample::select(vec![
        [4_000, 3_000, 3_000],
        [4_000, 3_000, 1_000],
        [1_000, 3_000, 3_000],
        [5_000, 3_000, 1_000],
        [0, 5_000, 0],
    ]);
    let state = prop::sample::select(vec!["stopped", "running", "archived"]);
    prop_oneof![
        4 => (experiment.clone(), 100_u32..5_000).prop_map(|(experiment, slots)| Edit::Slots { experiment, slots }),
        2 => (experiment.clone(), weights).prop_map(|(experiment, weights)| Edit::Weights { experiment, weights }),
        1 => experiment.clone().prop_map(|experiment| Edit::DropArm { experiment }),
        1 => (experiment.clone(), 0_u32..=10_000)
            .prop_map(|(experiment, rollout)| Edit::Rollout { experiment, rollout }),
        2 => (experiment, state).prop_map(|(experiment, state)| Edit::State { experiment, state }),
        1 => (any::<bool>(), 100_u32..2_000).prop_map(|(of_layer, share)| Edit::HoldOut { of_layer, share }),
        1 => any::<bool>().prop_map(|of_layer| Edit::Release { of_layer }),
        2 => (1_i64..30).prop_map(|hours| Edit::Pass { hours }),
    ]
}

/// Writes the file of the edit. Archived experiments come back under a new key, as people do it.
fn file(log: &Log, edit: &Edit) -> Option<(String, Value)> {
    let of = |experiment: usize| {
        let layer = if experiment < 3 { "one" } else { "two" };
        let named = |generation: usize| format!("e{experiment}-{generation}");
        let over = |key: &String| log.files.get(key).is_some_and(|file| file["state"] == json!("archived"));
        let key = (0..).map(named).find(|key| !over(key)).unwrap();
        let new = json!({
            "key": key, "state": "running", "layer": layer, "slots": 1_000, "control": "a",
            "variants": [
                {"key": "a", "weight": 4_000}, {"key": "b", "weight": 3_000}, {"key": "c", "weight": 3_000},
            ],
            "metrics": {"primary": "signup"},
        });
        log.files.get(&key).cloned().unwrap_or(new)
    };
    let mut file = match edit {
        Edit::Slots { experiment, .. }
        | Edit::Weights { experiment, .. }
        | Edit::DropArm { experiment }
        | Edit::Rollout { experiment, .. }
        | Edit::State { experiment, .. } => of(*experiment),
        Edit::HoldOut { of_layer, share } => {
            let name = if *of_layer { "layer" } else { "whole" };
            let key =
                (0..).map(|n| format!("h-{name}-{n}")).find(|key| !log.files.contains_key(key)).unwrap();
            let mut holdout = json!({
                "key": key, "state": "running", "holdout": true, "control": "held", "metrics": {"primary": "signup"},
                "variants": [{"key": "held", "weight": share}, {"key": "others", "weight": 10_000 - share}],
            });
            if *of_layer {
                holdout["layer"] = json!("one");
            }
            holdout
        }
        Edit::Release { of_layer } => {
            let runs = |file: &&Value| {
                file.get("holdout").is_some()
                    && file["state"] == json!("running")
                    && file.get("layer").is_some() == *of_layer
            };
            log.files.values().find(runs)?.clone()
        }
        Edit::Pass { .. } => return None,
    };
    match edit {
        Edit::Slots { slots, .. } => file["slots"] = json!(slots),
        Edit::Weights { weights, .. } => {
            for (variant, weight) in file["variants"].as_array_mut().unwrap().iter_mut().zip(weights) {
                variant["weight"] = json!(weight);
            }
        }
        Edit::DropArm { .. } => {
            let variants = file["variants"].as_array_mut().unwrap();
            if variants.len() > 2 {
                variants.pop();
            }
        }
        Edit::Rollout { rollout, .. } => file["rollout"] = json!(rollout),
        Edit::State { state, .. } => file["state"] = json!(state),
        Edit::Release { .. } => file["state"] = json!("stopped"),
        Edit::HoldOut { .. } | Edit::Pass { .. } => {}
    }
    Some((file["key"].as_str().unwrap().to_owned(), file))
}

fn check_step(edited: &str, before: &Seen, after: &Seen) -> Result<(), TestCaseError> {
    for (key, after) in after {
        let Some(before) = before.get(key) else { continue };
        for (unit, (before, after)) in before.iter().zip(after).enumerate() {
            match (before, after) {
                (Ok(before), Ok(after)) => prop_assert_eq!(before, after, "unit-{} in {}", unit, key),
                _ if key == edited => {}
                // Whoever a holdout held out comes in once it is over; nobody else is touched by it.
                (Err(NotExposed::HeldOut), _) if edited.starts_with("h-") => {}
                _ => prop_assert_eq!(before, after, "unit-{} in {}, which nobody edited", unit, key),
            }
        }
    }
    Ok(())
}

fn check_exclusion(log: &Log, seen: &Seen) -> Result<(), TestCaseError> {
    for layer in ["one", "two"] {
        let inside = |key: &str| {
            let file = &log.files[key];
            file["layer"] == json!(layer) && file.get("holdout").is_none()
        };
        for unit in 0..UNITS as usize {
            let of: Vec<&str> = seen
                .iter()
                .filter(|(key, variants)| inside(key) && variants[unit].is_ok())
                .map(|(key, _)| key.as_str())
                .collect();
            prop_assert!(of.len() <= 1, "unit-{} is in {:?} of layer {}", unit, of, layer);
            let held = seen
                .iter()
                .filter(|(key, _)| key.starts_with("h-layer"))
                .any(|(_, variants)| variants[unit].as_deref() == Ok("held"));
            prop_assert!(
                !held || layer == "two" || of.is_empty(),
                "unit-{} is held out and in {:?}",
                unit,
                of
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_outside_an_edit_moves(
        edits in prop::collection::vec(edit(), 150..200),
        cooldown_hours in prop::sample::select(vec![0_u32, 24]),
    ) {
        let mut log = Log::new(cooldown_hours);
        let mut before = log.seen(UNITS);
        let mut accepted = 0;
        for edit in &edits {
            if let Edit::Pass { hours } = edit {
                log.pass(*hours);
                continue;
            }
            let Some((key, file)) = file(&log, edit) else { continue };
            // A refused edit changes nothing, which the next comparison would show.
            accepted += usize::from(log.propose(Kind::Experiment, file).is_ok());
            let after = log.seen(UNITS);
            check_step(&key, &before, &after)?;
            check_exclusion(&log, &after)?;
            before = after;
        }
        prop_assert!(accepted >= 20, "only {} of {} edits were accepted", accepted, edits.len());
    }
}

fn layered(key: &str, layer: &str, slots: u32) -> Value {
    json!({
        "key": key, "state": "running", "layer": layer, "slots": slots, "control": "a",
        "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}], "metrics": {"primary": "signup"},
    })
}

#[test]
fn a_million_units_are_exclusive_in_a_layer_and_independent_across_layers() {
    let mut log = Log::new(0);
    for (key, layer, slots) in [("x", "one", 5_000), ("y", "one", 5_000), ("z", "two", 5_000)] {
        log.propose(Kind::Experiment, layered(key, layer, slots)).unwrap();
    }
    let snapshot = log.snapshot();
    // In the layer `one`: x, y or neither; in the layer `two`: a, b or not in z.
    let mut cells = [[0_u32; 3]; 3];
    for unit in 0..1_000_000 {
        let unit_id = format!("unit-{unit}");
        let [x, y, z] = ["x", "y", "z"].map(|key| outcome(&snapshot, key, &unit_id));
        assert!(x.is_err() || y.is_err(), "{unit_id} is in both");
        let one = if x.is_ok() { 0 } else { 1 + usize::from(y.is_err()) };
        let two = match z.as_deref() {
            Ok("a") => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        cells[one][two] += 1;
    }
    // All slots of `one` are owned.
    assert_eq!(cells[2], [0; 3]);
    let expected = [125_000.0, 125_000.0, 250_000.0];
    let chi_square: f64 = [cells[0], cells[1]]
        .iter()
        .flat_map(|row| row.iter().zip(expected))
        .map(|(&count, expected)| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    // Five degrees of freedom: above 20.5 once in a thousand. The units are fixed, so it never varies.
    assert!(chi_square < 20.5, "chi-square {chi_square}: {cells:?}");
}

#[test]
fn a_slot_is_independent_of_the_rollout_and_of_the_variant() {
    let mut log = Log::new(0);
    let mut half = layered("x", "one", 5_000);
    half["rollout"] = json!(5_000);
    log.propose(Kind::Experiment, half).unwrap();
    let snapshot = log.snapshot();
    let mut counts = BTreeMap::new();
    for unit in 0..1_000_000 {
        let key = match outcome(&snapshot, "x", &format!("unit-{unit}")) {
            Ok(variant) => variant,
            Err(why) => format!("{why:?}"),
        };
        *counts.entry(key).or_insert(0_u32) += 1;
    }
    let expected =
        [("OutsideSlots", 500_000.0), ("OutsideRollout", 250_000.0), ("a", 125_000.0), ("b", 125_000.0)];
    let chi_square: f64 =
        expected.iter().map(|(key, expected)| (f64::from(counts[*key]) - expected).powi(2) / expected).sum();
    // Three degrees of freedom: above 16.3 once in a thousand.
    assert!(chi_square < 16.3, "chi-square {chi_square}: {counts:?}");
}

#[test]
fn freed_slots_cool_down() {
    let mut log = Log::new(24);
    log.propose(Kind::Experiment, layered("x", "one", 8_000)).unwrap();
    log.propose(Kind::Experiment, layered("x", "one", 2_000)).unwrap();
    // 6,000 basis points cool down, 2,000 are free.
    let refused = log.propose(Kind::Experiment, layered("y", "one", 3_000)).unwrap_err();
    assert_eq!(
        refused,
        "slots: `y` needs 300000 more buckets and 200000 are free; shrink others in one change, grow it in the next; \
         some cool down, the first until 2026-01-02T00:00:00.000000Z"
    );
    // Ranges that somebody writes by hand are refused by the rule.
    let mut by_hand = layered("y", "one", 1_000);
    by_hand["slot_ranges"] = json!([[300_000, 400_000]]);
    assert_eq!(
        log.propose(Kind::Experiment, by_hand.clone()).unwrap_err(),
        "slot_ranges: [300000, 400000) holds slots that `x` gave up and that cool down until 2026-01-02T00:00:00.000000Z"
    );
    // The experiment that gave them up may take them again.
    log.pass(1);
    log.propose(Kind::Experiment, layered("x", "one", 3_000)).unwrap();
    log.propose(Kind::Experiment, layered("x", "one", 2_000)).unwrap();
    log.pass(23);
    // What was given up an hour later still cools down.
    by_hand["slot_ranges"] = json!([[200_000, 300_000]]);
    assert_eq!(
        log.propose(Kind::Experiment, by_hand.clone()).unwrap_err(),
        "slot_ranges: [200000, 300000) holds slots that `x` gave up and that cool down until 2026-01-02T01:00:00.000000Z"
    );
    log.pass(1);
    log.propose(Kind::Experiment, by_hand).unwrap();
    log.propose(Kind::Experiment, layered("z", "one", 7_000)).unwrap();
}

fn holdout(key: &str, layer: Option<&str>, share: u32) -> Value {
    let mut holdout = json!({
        "key": key, "state": "running", "holdout": true, "control": "held", "metrics": {"primary": "signup"},
        "variants": [{"key": "held", "weight": share}, {"key": "others", "weight": 10_000 - share}],
    });
    if let Some(layer) = layer {
        holdout["layer"] = json!(layer);
    }
    holdout
}

#[test]
fn a_holdout_covers_what_starts_after_it() {
    let mut log = Log::new(0);
    log.propose(Kind::Experiment, layered("before", "one", 2_000)).unwrap();
    log.propose(Kind::Experiment, holdout("q1", None, 1_000)).unwrap();
    log.propose(Kind::Experiment, layered("after", "one", 8_000)).unwrap();
    let seen = log.seen(10_000);
    let held = |key: &str| seen[key].iter().filter(|outcome| **outcome == Err(NotExposed::HeldOut)).count();
    let in_holdout = seen["q1"].iter().filter(|outcome| outcome.as_deref() == Ok("held")).count();
    assert_eq!((held("before"), held("after")), (0, in_holdout));
    assert!((900..1_100).contains(&in_holdout), "{in_holdout} of 10000 in 10 %");
    // A second holdout of the same units waits for the first, and then takes others.
    let second = holdout("q2", None, 1_000);
    assert_eq!(
        log.propose(Kind::Experiment, second.clone()).unwrap_err(),
        "state: `q1` already holds units out here; stop it before another runs"
    );
    let mut over = holdout("q1", None, 1_000);
    over["state"] = json!("stopped");
    log.propose(Kind::Experiment, over.clone()).unwrap();
    log.propose(Kind::Experiment, second).unwrap();
    let again = log.seen(10_000);
    for (unit, side) in again["q2"].iter().enumerate() {
        assert!(side.as_deref() != Ok("held") || seen["q1"][unit].as_deref() == Ok("others"), "unit-{unit}");
    }
    over["state"] = json!("running");
    let refused = log.propose(Kind::Experiment, over).unwrap_err();
    assert!(refused.starts_with("state: a holdout runs once; define another"), "{refused}");
}

#[test]
fn reading_what_a_holdout_covers_exposes_the_side_of_the_unit() {
    let mut log = Log::new(0);
    log.propose(Kind::Experiment, holdout("whole", None, 2_000)).unwrap();
    log.propose(Kind::Experiment, holdout("layer", Some("one"), 2_000)).unwrap();
    log.propose(Kind::Experiment, layered("x", "one", 8_000)).unwrap();
    let snapshot = log.snapshot();
    let mut shapes = BTreeMap::new();
    for unit in 0..1_000 {
        let unit_id = format!("unit-{unit}");
        let context = Context { targeting_key: Some(&unit_id), attributes: &[] };
        let evaluation = evaluate(&snapshot, "x", &context, Micros::EPOCH).unwrap();
        let exposures: Vec<String> = evaluation
            .exposures()
            .map(|exposure| {
                let exposed = exposure.outcome.unwrap();
                format!("{}={} {}", exposure.experiment.key, exposed.variant.key, exposed.reason.as_str())
            })
            .collect();
        *shapes.entry(exposures.join(", ")).or_insert(0) += 1;
    }
    let kinds: Vec<&str> = shapes.keys().map(String::as_str).collect();
    assert_eq!(
        kinds,
        [
            "whole=held split, layer=held split",
            "whole=held split, layer=others split",
            "whole=others split, layer=held split",
            "whole=others split, layer=others split, x=a split",
            "whole=others split, layer=others split, x=b split",
        ]
    );
}
