//! The public specification of Unleash's clients, put through the import.

use producer::import::Format;
use schemas::Micros;
use serde_json::{Map, Value, json};

use crate::common::{Unit, World, assert_shares, same};

/// The cases that are not kept: specification, feature, expected answer, and why.
const NOT_KEPT: [(&str, &str, &str, &str); 1] = [(
    "10-flexible-rollout-strategy",
    "Feature.flexibleRollout.10",
    "true",
    "the session is hashed where there is no user, and a flag hashes one kind of unit here",
)];

fn specifications() -> Vec<Value> {
    serde_json::from_str(include_str!("unleash.json")).unwrap()
}

fn world(specification: &Value) -> World {
    let segments = specification.get("segments").cloned().unwrap_or_else(|| json!([]));
    World::of(Format::Unleash, &json!({ "features": specification["features"], "segments": segments }))
}

fn world_of(name: &str) -> World {
    let found = specifications().into_iter().find(|specification| specification["name"] == name);
    world(&found.unwrap_or_else(|| panic!("there is no {name}")))
}

fn unit(case: &Value) -> Unit {
    Unit {
        targeting_key: case["targeting_key"].as_str().map(str::to_owned),
        attributes: case["context"].as_object().cloned().unwrap_or_default(),
    }
}

fn now(case: &Value) -> Micros {
    Micros::parse(case["now"].as_str().unwrap_or("2026-01-01T00:00:00Z")).unwrap()
}

/// The key that the import gives to the feature: its name, or the name with other characters.
fn key_of(feature: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    feature.chars().map(|character| if fits(character) { character } else { '-' }).collect()
}

/// Whether the feature is on, the name of its variant and its payload as a text.
fn answer(world: &World, case: &Value, unit: &Unit) -> (bool, String, Option<String>) {
    let Some(served) = world.ask(&key_of(case["feature"].as_str().unwrap()), unit, now(case)) else {
        return (false, "disabled".to_owned(), None);
    };
    match served.variant.as_str() {
        "off" | "disabled" => (false, "disabled".to_owned(), None),
        "on" | "enabled" => (true, "disabled".to_owned(), None),
        variant => {
            let payload = served.value.as_str().map_or_else(|| served.value.to_string(), str::to_owned);
            (true, variant.to_owned(), Some(payload))
        }
    }
}

fn is_as_expected(case: &Value, (on, variant, payload): &(bool, String, Option<String>)) -> bool {
    if let Some(expected) = case["on"].as_bool() {
        return *on == expected;
    }
    let payload_is_same = match (case["payload"].as_str(), payload) {
        (Some(expected), Some(payload)) => {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text));
            same(&parsed(expected), &parsed(payload))
        }
        (Some(_), None) => false,
        (None, _) => true,
    };
    case["variant"] == **variant && payload_is_same
}

/// Whether other units than the one of the case get another answer: then the hash decides, and the answer of one unit says
/// nothing.
fn depends_on_the_hash(world: &World, case: &Value) -> bool {
    let first = answer(world, case, &unit(case));
    ["targetingKey", "sessionId", "customField", "clientId"].into_iter().any(|hashed| {
        (0..100).any(|number| {
            let mut other = unit(case);
            let id = format!("unit-{number}");
            match hashed {
                "targetingKey" if other.targeting_key.is_some() => other.targeting_key = Some(id),
                name if other.attributes.contains_key(name) => {
                    other.attributes.insert(name.to_owned(), json!(id));
                }
                _ => return false,
            }
            answer(world, case, &other) != first
        })
    })
}

#[test]
fn every_public_case_is_kept_or_named() {
    let (mut kept, mut hashed, mut not_kept) = (0, 0, Vec::new());
    for specification in specifications() {
        let world = world(&specification);
        let name = specification["name"].as_str().unwrap();
        for case in specification["cases"].as_array().unwrap() {
            let answered = answer(&world, case, &unit(case));
            let feature = case["feature"].as_str().unwrap();
            if case["hashed"] == json!(true) && depends_on_the_hash(&world, case) {
                hashed += 1;
            } else if is_as_expected(case, &answered) {
                kept += 1;
            } else {
                assert!(world.names(&format!("features.{feature}")), "{name}: {case} is {answered:?}");
                let expected = case.get("on").or(case.get("variant")).unwrap();
                not_kept.push((name.to_owned(), feature.to_owned(), expected.to_string()));
            }
        }
    }
    let expected: Vec<(String, String, String)> = NOT_KEPT
        .iter()
        .map(|(name, feature, answer, _)| ((*name).to_owned(), (*feature).to_owned(), (*answer).to_owned()))
        .collect();
    assert_eq!(not_kept, expected);
    assert_eq!((kept, hashed, not_kept.len()), (242, 32, 1));
}

#[test]
fn weights_and_rollouts_are_kept_where_a_hash_decides() {
    let key = "targetingKey";
    for (specification, feature, hashed, expected) in [
        (
            "12-custom-stickiness",
            "Feature.flexible.rollout.custom.stickiness_50",
            "customField",
            &[("off", 0.5), ("on", 0.5)][..],
        ),
        (
            "12-custom-stickiness",
            "Feature.flexible.rollout.custom.stickiness_100",
            "customField",
            &[("blue", 0.25), ("green", 0.25), ("red", 0.25), ("yellow", 0.25)],
        ),
        (
            "16-strategy-variants",
            "Feature.strategy.multiple.variants",
            key,
            &[("variantNameA", 0.5), ("variantNameB", 0.5)],
        ),
    ] {
        let world = world_of(specification);
        let now = now(&Value::Null);
        assert_shares(feature, &world.distribution(feature, &Unit::default(), hashed, now), expected);
    }
}

/// A unit outside of the rollout of the first strategy is tried with the second, whose hash is another.
#[test]
fn strategies_are_tried_one_after_the_other() {
    let half = |group: &str| json!({"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "userId", "groupId": group}});
    let feature = json!({"name": "f", "enabled": true, "strategies": [half("a"), half("b")]});
    let world = World::of(Format::Unleash, &json!({ "features": [feature] }));
    let shares = world.distribution("f", &Unit::default(), "targetingKey", now(&Value::Null));
    assert_shares("f", &shares, &[("off", 0.25), ("on", 0.75)]);
}

#[test]
fn a_parent_that_is_on_by_chance_is_a_prerequisite() {
    let half = json!({"name": "gradualRolloutUserId", "parameters": {"percentage": 50, "groupId": "p"}});
    let features = json!([
        {"name": "parent", "enabled": true, "strategies": [half]},
        {"name": "child", "enabled": true, "strategies": [{"name": "default"}], "dependencies": [{"feature": "parent"}]},
        {"name": "other", "enabled": true, "strategies": [{"name": "default"}], "dependencies": [{"feature": "parent", "enabled": false}]},
    ]);
    let world = World::of(Format::Unleash, &json!({ "features": features }));
    for number in 0..200 {
        let unit = Unit { targeting_key: Some(format!("unit-{number}")), attributes: Map::new() };
        let [parent, child, other] =
            ["parent", "child", "other"].map(|key| world.ask(key, &unit, now(&Value::Null)).unwrap().value);
        assert_eq!((&child, other.as_bool()), (&parent, parent.as_bool().map(|on| !on)), "unit-{number}");
    }
}

#[test]
fn an_override_gives_a_variant_whatever_the_hash() {
    let variants = json!([
        {"name": "a", "weight": 500, "payload": {"type": "json", "value": "{\"size\": 1}"}},
        {"name": "b", "weight": 500, "payload": {"type": "json", "value": "{\"size\": 2}"},
         "overrides": [{"contextName": "userId", "values": ["u1", "u2"]}]},
    ]);
    let feature =
        json!({"name": "f", "enabled": true, "strategies": [{"name": "default"}], "variants": variants});
    let world = World::of(Format::Unleash, &json!({ "features": [feature] }));
    for id in ["u1", "u2"] {
        let unit = Unit { targeting_key: Some(id.to_owned()), attributes: Map::new() };
        assert_eq!(world.ask("f", &unit, now(&Value::Null)).unwrap().value, json!({"size": 2}));
    }
    let shares = world.distribution("f", &Unit::default(), "targetingKey", now(&Value::Null));
    assert_shares("f", &shares, &[("a", 0.5), ("b", 0.5)]);
    // Without a user Unleash draws by chance; here it is the first variant, and the finding says so.
    assert_eq!(world.ask("f", &Unit::default(), now(&Value::Null)).unwrap().variant, "a");
    assert!(world.names("features.f.strategies[0]"));
}

#[test]
fn a_strategy_of_ones_own_switches_the_flag_off() {
    let strategies = json!([{"name": "default"}, {"name": "onTuesdays", "parameters": {}}]);
    let feature = json!({"name": "f", "enabled": true, "strategies": strategies});
    let world = World::of(Format::Unleash, &json!({ "features": [feature] }));
    assert!(world.has_lost("features.f.strategies[1]"));
    let served = world.ask("f", &Unit::default(), now(&Value::Null)).unwrap();
    assert_eq!((served.value, &world.document("f")["enabled"]), (json!(false), &json!(false)));
}

/// An export names segments without their constraints, and lists strategies beside the features.
#[test]
fn an_export_is_read_as_well() {
    let source = json!({
        "features": [{"name": "a", "type": "release"}, {"name": "b"}],
        "featureStrategies": [
            {"featureName": "a", "name": "userWithId", "parameters": {"userIds": "u1, u2"}, "segments": [], "sortOrder": 0},
            {"featureName": "b", "name": "default", "parameters": {}, "segments": [7]},
        ],
        "featureEnvironments": [
            {"featureName": "a", "environment": "production", "enabled": true},
            {"featureName": "b", "environment": "production", "enabled": true},
        ],
        "segments": [{"id": 7, "name": "staff"}],
    });
    let world = World::of(Format::Unleash, &source);
    for (id, on) in [("u1", true), ("u2", true), ("u3", false)] {
        let unit = Unit { targeting_key: Some(id.to_owned()), attributes: Map::new() };
        assert_eq!(world.ask("a", &unit, now(&Value::Null)).unwrap().value, json!(on), "{id}");
    }
    assert!(world.has_lost("features.b.strategies[0].segments[0]") && !world.has_lost("features.a"));
}
