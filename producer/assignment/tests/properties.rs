//! The properties of assignment: it is uniform and independent between experiments, and no exposed unit moves
//! when a share is raised, an arm is dropped or another experiment leaves the layer.

use std::collections::BTreeMap;

use assignment::{Context, Environment, Lists, NotExposed, Snapshot, evaluate, resolve};
use proptest::prelude::*;
use schemas::definition::{Definition, Definitions, Experiment, Kind, State};
use schemas::{Micros, Uuid};

fn metric() -> Definition {
    let json = serde_json::json!({"key": "signup", "event": "signup", "type": "conversion"});
    Definition::from_json(Kind::Metric, json).unwrap()
}

fn experiment(key: &str, weights: &[u32]) -> Experiment {
    let variants: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| serde_json::json!({"key": format!("v{index}"), "weight": weight}))
        .collect();
    let json = serde_json::json!({
        "key": key, "state": "running", "variants": variants, "control": "v0", "metrics": {"primary": "signup"},
    });
    match Definition::from_json(Kind::Experiment, json).unwrap() {
        Definition::Experiment(experiment) => experiment,
        other => panic!("{other:?}"),
    }
}

/// A log with a single writer.
struct TestLog {
    definitions: Definitions,
}

impl TestLog {
    fn new() -> TestLog {
        let mut log = TestLog { definitions: Definitions::default() };
        log.apply(metric()).unwrap();
        log
    }

    fn apply(&mut self, written: Definition) -> Result<(), String> {
        let definition =
            resolve(&self.definitions, Micros::EPOCH, written).map_err(|problem| problem.to_string())?;
        let change = self.definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
        let offset = self.definitions.next_offset();
        let verdict = self.definitions.apply(offset, Micros::EPOCH, &change).expect("the rule is known");
        verdict.map(drop).map_err(|refusal| refusal.to_string())
    }

    fn put(&mut self, experiment: Experiment) -> Result<(), String> {
        self.apply(Definition::Experiment(experiment))
    }

    fn snapshot(&self, environment: &str) -> Snapshot {
        Snapshot::compile(&self.definitions, &Lists::default(), Environment(environment))
    }

    fn variants(&self, experiment: &str, units: u32) -> Vec<Result<String, NotExposed>> {
        let snapshot = self.snapshot("production");
        (0..units).map(|unit| outcome(&snapshot, experiment, &format!("unit-{unit}"))).collect()
    }
}

/// The variant in which the unit takes part. One that takes no part is served the control all the same.
fn outcome(snapshot: &Snapshot, experiment: &str, unit_id: &str) -> Result<String, NotExposed> {
    let context = Context { targeting_key: Some(unit_id), attributes: &[] };
    let evaluation = evaluate(snapshot, experiment, &context, Micros::EPOCH).unwrap();
    let evaluated = evaluation.experiment.unwrap();
    match evaluated.outcome {
        Ok(exposed) => assert_eq!(exposed.variant.key, *evaluation.variant),
        Err(_) => assert_eq!(evaluated.experiment.control, *evaluation.variant),
    }
    evaluated.outcome.map(|exposed| exposed.variant.key.to_string())
}

fn counts(variants: &[Result<String, NotExposed>]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for variant in variants.iter().flatten() {
        *counts.entry(variant.clone()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn shares_are_those_of_the_weights() {
    let mut log = TestLog::new();
    log.put(experiment("checkout", &[5_000, 3_000, 2_000])).unwrap();
    let counts = counts(&log.variants("checkout", 100_000));
    let expected = [("v0", 50_000.0), ("v1", 30_000.0), ("v2", 20_000.0)];
    let chi_square: f64 =
        expected.iter().map(|(key, expected)| (f64::from(counts[*key]) - expected).powi(2) / expected).sum();
    // Two degrees of freedom: chi-square is above 13.8 once in a thousand. The units are fixed, so it never
    // varies.
    assert!(chi_square < 13.8, "chi-square {chi_square}: {counts:?}");
}

#[test]
fn a_thousand_equal_buckets_are_equally_full() {
    let mut full = vec![0_u32; 1_000];
    for unit in 0..1_000_000 {
        let bucket =
            schemas::Bucket::of_hash(assignment::Seed::of("checkout/variant").hash(&format!("unit-{unit}")));
        full[bucket.get() as usize / 1_000] += 1;
    }
    let chi_square: f64 = full.iter().map(|&count| (f64::from(count) - 1_000.0).powi(2) / 1_000.0).sum();
    // 999 degrees of freedom: mean 999, standard deviation 44.7; the bounds are four deviations away.
    assert!((820.0..1_178.0).contains(&chi_square), "chi-square {chi_square}");
}

#[test]
fn two_experiments_are_independent() {
    let mut log = TestLog::new();
    log.put(experiment("one", &[5_000, 5_000])).unwrap();
    log.put(experiment("two", &[5_000, 5_000])).unwrap();
    let (one, two) = (log.variants("one", 100_000), log.variants("two", 100_000));
    let mut cells = BTreeMap::new();
    for pair in one.iter().zip(&two) {
        *cells.entry((pair.0.clone().unwrap(), pair.1.clone().unwrap())).or_insert(0_u32) += 1;
    }
    assert_eq!(cells.len(), 4);
    let chi_square: f64 = cells.values().map(|&count| (f64::from(count) - 25_000.0).powi(2) / 25_000.0).sum();
    // Three degrees of freedom: chi-square is above 16.3 once in a thousand.
    assert!(chi_square < 16.3, "chi-square {chi_square}: {cells:?}");
}

#[test]
fn experiments_in_one_layer_never_share_a_unit() {
    let mut log = TestLog::new();
    let layer = serde_json::json!({"key": "pricing"});
    log.apply(Definition::from_json(Kind::Layer, layer).unwrap()).unwrap();
    for (key, slots) in [("one", 3_000), ("two", 5_000)] {
        let mut experiment = experiment(key, &[5_000, 5_000]);
        experiment.layer = Some(schemas::Key::new("pricing").unwrap());
        experiment.slots = schemas::BasisPoints::new(slots).unwrap();
        log.put(experiment).unwrap();
    }
    let (one, two) = (log.variants("one", 20_000), log.variants("two", 20_000));
    let both = one.iter().zip(&two).filter(|pair| pair.0.is_ok() && pair.1.is_ok()).count();
    assert_eq!(both, 0);
    let (in_one, in_two) = (one.iter().flatten().count(), two.iter().flatten().count());
    assert!((5_740..6_260).contains(&in_one), "{in_one} of 20000 in 30 %");
    assert!((9_717..10_283).contains(&in_two), "{in_two} of 20000 in 50 %");

    let mut third = experiment("three", &[5_000, 5_000]);
    third.layer = Some(schemas::Key::new("pricing").unwrap());
    third.slots = schemas::BasisPoints::new(2_001).unwrap();
    assert_eq!(
        log.put(third).unwrap_err(),
        "slots: `three` needs 200100 more buckets and 200000 are free; shrink others in one change, grow it in the next"
    );
}

#[test]
fn a_bucket_never_changes_its_owner_in_one_step() {
    let mut log = TestLog::new();
    log.put(experiment("checkout", &[5_000, 5_000])).unwrap();
    assert_eq!(
        log.put(experiment("checkout", &[9_000, 1_000])).unwrap_err(),
        "variants: `v0` needs 400000 more buckets and 0 are free; shrink others in one change, grow it in the next"
    );
    log.put(experiment("checkout", &[5_000, 1_000])).unwrap();
    let before = log.variants("checkout", 10_000);
    log.put(experiment("checkout", &[9_000, 1_000])).unwrap();
    for (unit, (before, after)) in before.iter().zip(log.variants("checkout", 10_000)).enumerate() {
        match before {
            Ok(variant) => assert_eq!(Ok(variant.clone()), after, "unit-{unit}"),
            Err(reason) => assert_eq!((*reason, after), (NotExposed::BucketUnowned, Ok("v0".to_owned()))),
        }
    }
    let (_, experiment) = log.definitions.experiment("checkout").unwrap();
    assert_eq!((experiment.phase(), experiment.state), (3, State::Running));
}

/// The weights of two to five arms that leave some buckets without an owner.
fn arms() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0_u32..=1_500, 2..=5)
}

proptest! {
    #[test]
    fn raising_a_share_moves_nobody_already_in(weights in arms(), raised in 0_usize..5, by in 1_u32..=2_000) {
        let mut log = TestLog::new();
        // A new experiment must own all buckets: shrink it to the weights, then raise one.
        let mut whole = vec![0; weights.len()];
        whole[0] = 10_000;
        log.put(experiment("checkout", &whole)).unwrap();
        log.put(experiment("checkout", &vec![0; weights.len()])).unwrap();
        log.put(experiment("checkout", &weights)).unwrap();
        let before = log.variants("checkout", 500);
        let mut after = weights.clone();
        let raised = raised % weights.len();
        after[raised] += by;
        log.put(experiment("checkout", &after)).unwrap();
        let raised = format!("v{raised}");
        for (before, after) in before.into_iter().zip(log.variants("checkout", 500)) {
            match before {
                Ok(variant) => prop_assert_eq!(Ok(variant), after),
                Err(reason) => prop_assert!(after == Err(reason) || after.as_ref() == Ok(&raised)),
            }
        }
    }

    #[test]
    fn dropping_an_arm_moves_nobody_else(weights in arms()) {
        let mut log = TestLog::new();
        let mut first = weights.clone();
        first[0] += 10_000 - weights.iter().sum::<u32>();
        log.put(experiment("checkout", &first)).unwrap();
        let before = log.variants("checkout", 500);
        let mut dropped = experiment("checkout", &first);
        if dropped.variants.len() > 2 {
            dropped.variants.pop();
        } else {
            dropped.variants[1].weight = schemas::BasisPoints::new(0).unwrap();
        }
        let gone = format!("v{}", weights.len() - 1);
        log.put(dropped).unwrap();
        for (before, after) in before.into_iter().zip(log.variants("checkout", 500)) {
            if before == Ok(gone.clone()) {
                prop_assert_eq!(after, Err(NotExposed::BucketUnowned));
            } else {
                prop_assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn raising_the_rollout_moves_nobody_already_in(from in 0_u32..=10_000, by in 0_u32..=10_000) {
        let to = (from + by).min(10_000);
        let mut log = TestLog::new();
        let with = |rollout| Experiment {
            rollout: schemas::BasisPoints::new(rollout).unwrap(),
            ..experiment("checkout", &[5_000, 5_000])
        };
        log.put(with(from)).unwrap();
        let before = log.variants("checkout", 500);
        log.put(with(to)).unwrap();
        for (before, after) in before.into_iter().zip(log.variants("checkout", 500)) {
            prop_assert!(before.is_err() || before == after);
        }
    }
}

#[test]
fn each_environment_has_its_own_part_of_the_units() {
    let mut log = TestLog::new();
    let mut split = experiment("checkout", &[5_000, 5_000]);
    let parse = |json: serde_json::Value| serde_json::from_value(json).unwrap();
    split.rollout = schemas::BasisPoints::new(1_000).unwrap();
    split.environments = parse(serde_json::json!({
        "staging": {"rollout": 10_000}, "canary": {"enabled": false},
        "internal": {"targeting": [{"key": "staff", "when": {"attribute": "staff", "equals": true}}]},
    }));
    log.put(split).unwrap();
    let snapshots =
        ["production", "staging", "canary", "internal", "elsewhere"].map(|name| log.snapshot(name));
    let outcome = |environment: &str, unit: u32| {
        let snapshot = snapshots.iter().find(|snapshot| snapshot.environment().0 == environment).unwrap();
        outcome(snapshot, "checkout", &format!("unit-{unit}"))
    };
    let mut in_production = 0;
    for unit in 0..1_000 {
        let staging = outcome("staging", unit);
        assert!(staging.is_ok(), "{staging:?}");
        // A unit that is in production too sees the same variant there.
        match outcome("production", unit) {
            Ok(variant) => {
                in_production += 1;
                assert_eq!(Ok(variant), staging);
            }
            Err(reason) => assert_eq!(reason, NotExposed::OutsideRollout),
        }
        // An environment without settings of its own is like production.
        assert_eq!(outcome("elsewhere", unit), outcome("production", unit));
        assert_eq!(outcome("canary", unit), Err(NotExposed::Disabled));
        assert_eq!(outcome("internal", unit), Err(NotExposed::NotTargeted));
    }
    // About a tenth of a thousand units; they are fixed, so this never varies.
    assert_eq!(in_production, 96);
}
