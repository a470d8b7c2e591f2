//! The public test cases of GrowthBook's SDKs, put through the import.

use producer::import::Format;
use schemas::Micros;
use schemas::definition::{Definition, State};
use serde_json::{Value, json};

use crate::common::{Unit, World, assert_shares, same};

/// The conditions that cannot be expressed, by the names of their cases.
const LOST_CONDITIONS: [&str; 19] = [
    "$elemMatch - pass - flat arrays",
    "$elemMatch - fail - flat arrays",
    "$type object - pass",
    "$type object - fail",
    "$type array - pass",
    "$type array - fail",
    "unknown operator - pass",
    "$regex invalid - pass",
    "$regex invalid - fail",
    "$size number - pass",
    "$size number - fail small",
    "$size number - fail large",
    "$size number - fail not array",
    "$size nested - pass",
    "$size nested - fail equal",
    "$size nested - fail less than",
    "$elemMatch nested - pass",
    "$elemMatch nested - fail",
    "$elemMatch nested - fail not array",
];

/// The conditions that hold for other units, each named as changed.
const CHANGED_CONDITIONS: [&str; 5] = [
    "version a.b.c.d.e.f > 1.2.3",
    "version 1-2-3 == 1.2.3",
    "version 1-2-3 == 1-2.3+build99",
    "version 1-2-3 == v1.2.3",
    "version 1.2.3.4 == 1.2.3-4",
];

/// The features whose value is another, and why.
const CHANGED_FEATURES: [(&str, &str); 5] = [
    ("defaults when empty", NULL),
    ("ignores empty rules", NULL),
    ("Prerequisite flag off, block dependent flag", NULL),
    ("Prerequisite flag missing, block dependent flag", NULL),
    (
        "Prerequisite cycle detected, break",
        "the flag is imported switched off, with its default instead of null",
    ),
];
const NULL: &str = "serves an empty value in place of null, which no client of OpenFeature can read";

fn fixture() -> Value {
    serde_json::from_str(include_str!("growthbook.json")).unwrap()
}

fn world(case: &Value, features: &Value) -> World {
    let groups = case.get("saved_groups").cloned().unwrap_or_else(|| json!({}));
    World::of(Format::Growthbook, &json!({ "features": features, "savedGroups": groups }))
}

/// The attribute `id` is the targeting key here.
fn unit(case: &Value) -> Unit {
    let attributes = case["attributes"].as_object().cloned().unwrap_or_default();
    let targeting_key = match attributes.get("id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    Unit { targeting_key, attributes }
}

fn now() -> Micros {
    Micros::parse("2026-01-01T00:00:00Z").unwrap()
}

#[test]
fn every_public_condition_is_kept_or_named() {
    let (mut kept, mut changed, mut lost) = (0, Vec::new(), Vec::new());
    for case in fixture()["conditions"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let rule = json!({"condition": case["condition"], "force": true});
        let world = world(case, &json!({"f": {"defaultValue": false, "rules": [rule]}}));
        if world.has_lost("features.f") {
            lost.push(name.to_owned());
            continue;
        }
        let served = world.ask("f", &unit(case), now()).unwrap();
        if served.value == case["holds"] {
            kept += 1;
        } else {
            assert!(world.names("features.f"), "{name}: {case}\n{}", world.imported.file());
            changed.push(name.to_owned());
        }
    }
    assert_eq!(lost, LOST_CONDITIONS);
    assert_eq!(changed, CHANGED_CONDITIONS);
    assert_eq!((kept, changed.len(), lost.len()), (182, 5, 19));
}

#[test]
fn every_public_feature_is_kept_or_named() {
    let (mut kept, mut hashed, mut absent, mut changed) = (0, 0, 0, Vec::new());
    for case in fixture()["features"].as_array().unwrap() {
        let (name, feature) = (case["name"].as_str().unwrap(), case["feature"].as_str().unwrap());
        let world = world(case, &case["features"]);
        let Some(served) = world.ask(feature, &unit(case), now()) else {
            assert_eq!(case["value"], Value::Null, "{name}");
            absent += 1;
            continue;
        };
        if same(&served.value, &case["value"]) {
            kept += 1;
        } else if case["hashed"] == json!(true) {
            assert!(world.names(&format!("features.{feature}")), "{name}: {served:?}");
            hashed += 1;
        } else {
            assert!(
                world.names(&format!("features.{feature}")),
                "{name}: {served:?} {}",
                world.imported.file()
            );
            changed.push(name.to_owned());
        }
    }
    let expected: Vec<String> = CHANGED_FEATURES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(changed, expected);
    assert_eq!((kept, hashed, absent, changed.len()), (25, 9, 1, 5));
}

#[test]
fn a_share_of_the_units_gets_a_forced_value() {
    let rules = json!([{"force": "new", "coverage": 0.3}, {"force": "newer", "coverage": 0.5}]);
    let world = World::of(Format::Growthbook, &json!({"f": {"defaultValue": "old", "rules": rules}}));
    let shares = world.distribution("f", &Unit::default(), "targetingKey", now());
    assert_shares("f", &shares, &[("new", 0.3), ("newer", 0.35), ("old", 0.35)]);
    // A unit without an id is outside of every share.
    assert_eq!(world.ask("f", &Unit::default(), now()).unwrap().variant, "old");
}

#[test]
fn an_experiment_becomes_a_draft_with_its_weights_in_its_namespace() {
    let rule = json!({
        "key": "price-test", "variations": [10, 12, 14], "weights": [0.5, 0.25, 0.25], "coverage": 0.8,
        "hashAttribute": "company", "namespace": ["prices", 0.2, 0.6], "condition": {"country": "DE"},
        "meta": [{"key": "control"}, {"key": "more", "name": "Twenty percent more"}, {"key": "most"}],
    });
    let source = json!({"features": {"price": {"defaultValue": 10, "rules": [rule]}}});
    let world = World::of(Format::Growthbook, &source);
    let (_, experiment) = world.definitions.experiment("price").unwrap();
    assert_eq!((experiment.state, experiment.unit_type.as_str()), (State::Draft, "company"));
    assert_eq!(experiment.rollout.get(), 8_000);
    assert_eq!((experiment.layer.as_ref().unwrap().as_str(), experiment.slots.get()), ("prices", 4_000));
    assert_eq!(experiment.slot_ranges[0].to_string(), "[200000, 600000)");
    let variants: Vec<(&str, u32)> =
        experiment.variants.iter().map(|variant| (variant.key.as_str(), variant.weight.get())).collect();
    assert_eq!(variants, [("control", 5_000), ("more", 2_500), ("most", 2_500)]);
    assert_eq!(experiment.variants[1].description, "Twenty percent more");
    let told: Vec<&str> = world.imported.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "the experiment is a draft: units are hashed otherwise here, so that its data would mix two assignments",
            "the source does not name the metric that decides, so it is `to-be-named`",
            "is tracked as `price-test` in GrowthBook, and as `price` here",
        ]
    );
    // Until it is started, it serves what its control serves.
    assert_eq!(world.ask("price", &Unit::default(), now()).unwrap().value, json!(10));
}

#[test]
fn an_experiment_among_other_rules_is_a_draft_beside_a_flag_that_serves_its_control() {
    let rules = json!([
        {"condition": {"beta": true}, "force": "new"},
        {"key": "button", "variations": ["old", "new"]},
    ]);
    let world = World::of(Format::Growthbook, &json!({"button": {"defaultValue": "none", "rules": rules}}));
    assert!(world.has_lost("features.button.rules[1]"));
    let drafts: Vec<&str> = world
        .definitions
        .iter()
        .filter(|accepted| matches!(accepted.definition, Definition::Experiment(_)))
        .map(|accepted| accepted.definition.key().as_str())
        .collect();
    assert_eq!(drafts, ["button-experiment"]);
    let beta =
        Unit { targeting_key: None, attributes: [("beta".to_owned(), json!(true))].into_iter().collect() };
    let known = Unit { targeting_key: Some("u1".to_owned()), ..Unit::default() };
    for (unit, value) in [(&beta, "new"), (&known, "old"), (&Unit::default(), "none")] {
        assert_eq!(world.ask("button", unit, now()).unwrap().value, json!(value));
    }
}

#[test]
fn an_unknown_restriction_switches_the_flag_off() {
    let rules = json!([{"force": true, "onlyOnTuesdays": true}]);
    let world = World::of(Format::Growthbook, &json!({"f": {"defaultValue": false, "rules": rules}}));
    assert!(world.has_lost("features.f.rules[0].onlyOnTuesdays"));
    assert_eq!(world.document("f")["enabled"], json!(false));
}
