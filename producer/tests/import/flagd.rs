//! The public test cases of flagd's evaluators, put through the import.

use producer::import::Format;
use schemas::Micros;
use serde_json::{Map, Value, json};

use crate::common::{Unit, World, assert_shares, same};

/// The cases that are not kept: the flag, the expected answer (null for the default of the caller), and why.
const NOT_KEPT: [(&str, &str, &str); 11] = [
    ("no-default-flag-null-targeting-variant", "\"CEO\"", "a flag without a default variant is left out"),
    ("disabled-boolean-flag", "null", "a flag that is switched off serves its default variant"),
    ("disabled-string-flag", "null", "a flag that is switched off serves its default variant"),
    ("disabled-integer-flag", "null", "a flag that is switched off serves its default variant"),
    ("disabled-float-flag", "null", "a flag that is switched off serves its default variant"),
    ("disabled-object-flag", "null", "a flag that is switched off serves its default variant"),
    ("ref-to-nonexistent-evaluator-flag", "null", "an error of evaluation"),
    ("semver-v-prefix-flag", "\"match\"", "a capital V begins no version"),
    ("timestamp-flag", "-1", "the time is compared with an attribute"),
    ("timestamp-flag", "1", "the time is compared with an attribute"),
    ("error-targeting-flag", "null", "an error of evaluation"),
];

/// The flag, whose cases name it as changed or lost, and its error of evaluation is not served.
const ALSO_NOT_KEPT: (&str, &str) = ("missing-variant-targeting-flag", "null");

fn fixture() -> Value {
    serde_json::from_str(include_str!("flagd.json")).unwrap()
}

fn world(fixture: &Value) -> World {
    let flags: Map<String, Value> = fixture["flags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| (flag["name"].as_str().unwrap().to_owned(), flag["definition"].clone()))
        .collect();
    World::of(Format::Flagd, &json!({ "flags": flags, "$evaluators": fixture["evaluators"] }))
}

fn unit(case: &Value) -> Unit {
    Unit {
        targeting_key: case["targeting_key"].as_str().map(str::to_owned),
        attributes: case["context"].as_object().cloned().unwrap_or_default(),
    }
}

fn now() -> Micros {
    Micros::parse("2026-01-01T00:00:00Z").unwrap()
}

#[test]
fn every_public_case_is_kept_or_named() {
    let fixture = fixture();
    let world = world(&fixture);
    let (mut kept, mut hashed, mut not_kept) = (0, 0, Vec::new());
    for flag in fixture["flags"].as_array().unwrap() {
        let name = flag["name"].as_str().unwrap();
        for case in flag["cases"].as_array().unwrap() {
            let served = world.ask(name, &unit(case), now());
            if case["hashed"] == json!(true) {
                // Another unit has this value: which one depends on the hash.
                let values: Vec<&Value> =
                    flag["definition"]["variants"].as_object().unwrap().values().collect();
                assert!(served.is_some_and(|served| values.contains(&&served.value)), "{name}: {case}");
                hashed += 1;
                continue;
            }
            let expected = case.get("value");
            let is_same = match (&served, expected) {
                (None, None) => true,
                (Some(served), Some(expected)) => same(&served.value, expected),
                _ => false,
            };
            if is_same {
                kept += 1;
            } else {
                let path = format!("flags.{name}");
                assert!(world.names(&path), "{name} serves {served:?} for {case}, and no finding says so");
                not_kept.push((name.to_owned(), expected.unwrap_or(&Value::Null).to_string()));
            }
        }
    }
    let mut expected: Vec<(String, String)> =
        NOT_KEPT.iter().map(|(flag, value, _)| ((*flag).to_owned(), (*value).to_owned())).collect();
    expected.push((ALSO_NOT_KEPT.0.to_owned(), ALSO_NOT_KEPT.1.to_owned()));
    assert_eq!(not_kept, expected);
    assert_eq!((kept, hashed, not_kept.len()), (85, 32, 12));
}

#[test]
fn weights_are_kept_where_a_hash_decides() {
    let fixture = fixture();
    let world = world(&fixture);
    let quarters = |names: [&'static str; 4]| names.map(|name| (name, 0.25));
    let suits = quarters(["clubs", "diamonds", "hearts", "spades"]);
    let tier = |tier: &str| Unit {
        attributes: Map::from_iter([("tier".to_owned(), json!(tier))]),
        ..Unit::default()
    };
    let color = |color: &str| Unit {
        attributes: Map::from_iter([("color".to_owned(), json!(color))]),
        ..Unit::default()
    };
    let none = Unit::default();
    let key = "targetingKey";
    for (flag, unit, hashed, expected) in [
        ("fractional-flag", &none, "user.name", &suits[..]),
        ("fractional-flag-shorthand", &none, key, &[("heads", 0.5), ("tails", 0.5)]),
        ("fractional-flag-A-shared-seed", &none, "user.name", &suits),
        ("fractional-hash-edge-flag", &none, key, &[("lower", 0.5), ("upper", 0.5)]),
        ("fractional-nested-if-flag", &tier("premium"), key, &[("premium", 0.5), ("standard", 0.5)]),
        ("fractional-nested-if-flag", &tier("basic"), key, &[("standard", 1.0)]),
        ("fractional-nested-var-flag", &color("green"), key, &[("green", 0.5), ("blue", 0.5)]),
        ("fractional-nested-var-flag", &color("yellow"), key, &[("fallback", 0.5), ("blue", 0.5)]),
        ("fractional-nested-weight-flag", &tier("premium"), key, &[("red", 0.9091), ("blue", 0.0909)]),
        ("fractional-nested-weight-flag", &tier("basic"), key, &[("blue", 1.0)]),
    ] {
        assert_shares(flag, &world.distribution(flag, unit, hashed, now()), expected);
    }
}

/// Two flags of flagd that hash with the same text give every unit the same bucket.
#[test]
fn flags_with_a_shared_seed_divide_units_alike() {
    let world = world(&fixture());
    for number in 0..1_000 {
        let user = json!({ "name": format!("unit-{number}") });
        let unit = Unit { attributes: Map::from_iter([("user".to_owned(), user)]), ..Unit::default() };
        let variants = ["fractional-flag-A-shared-seed", "fractional-flag-B-shared-seed"]
            .map(|flag| world.ask(flag, &unit, now()).unwrap().variant);
        assert_eq!(variants[0], variants[1], "unit-{number}");
    }
}

fn one(flag: Value) -> World {
    World::of(Format::Flagd, &json!({ "flags": { "f": flag } }))
}

/// The seconds of `$flagd.timestamp` become a schedule: this flag is on from 12:00:01 on, and before 13:00:00.
#[test]
fn a_span_of_time_becomes_a_schedule() {
    let noon = 1_767_268_800;
    let world = one(json!({
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"and": [
            {">": [{"var": "$flagd.timestamp"}, noon]},
            {"<": [{"var": "$flagd.timestamp"}, noon + 3_600]},
        ]}, "on"]},
    }));
    assert!(!world.imported.is_lossy());
    for (time, on) in [
        ("2026-01-01T12:00:00.999999Z", false),
        ("2026-01-01T12:00:01Z", true),
        ("2026-01-01T12:59:59.999999Z", true),
        ("2026-01-01T13:00:00Z", false),
    ] {
        let served = world.ask("f", &Unit::default(), Micros::parse(time).unwrap()).unwrap();
        assert_eq!(served.value, json!(on), "{time}");
    }
}

#[test]
fn case_can_be_ignored_in_ascii() {
    let world = one(json!({
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"ends_with": [{"lower": [{"var": "email"}]}, "@example.com"]}, "on"]},
    }));
    for (email, on) in [("A@EXAMPLE.com", true), ("a@example.com", true), ("a@example.org", false)] {
        let attributes = Map::from_iter([("email".to_owned(), json!(email))]);
        let served = world.ask("f", &Unit { targeting_key: None, attributes }, now()).unwrap();
        assert_eq!(served.value, json!(on), "{email}");
    }
}

#[test]
fn names_that_are_no_keys_are_renamed_and_told() {
    let flag =
        json!({"state": "ENABLED", "variants": {"an on": true, "an/on": false}, "defaultVariant": "an on"});
    let source = json!({"flags": {"new banner": flag, "new/banner": flag, "new-banner": flag}});
    let world = World::of(Format::Flagd, &source);
    for key in ["new-banner", "new-banner-2", "new-banner-3"] {
        let served = world.ask(key, &Unit::default(), now()).unwrap();
        assert_eq!((served.variant.as_str(), served.value), ("an-on", json!(true)), "{key}");
    }
    let told: Vec<String> = world.imported.findings.iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|told| told.contains("flags.new/banner: the flag is called `new-banner-3` here")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|told| told.contains("the variant `an/on` is called `an-on-2` here")),
        "{told:?}"
    );
}
