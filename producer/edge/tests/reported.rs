//! The events that clients report to the real service on a real Kafka.

use std::collections::BTreeSet;

use schemas::{Micros, avro};
use serde_json::{Value, json};

use crate::edge_fixture::{Answer, CLIENT_TOKEN, DEFINITIONS, Fixture};

#[test]
fn reported_events_are_judged_one_by_one_and_keep_their_time() {
    let fixture = Fixture::new("track");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let bulk = edge.bulk(r#"{"targetingKey": "u1", "age": 20}"#, &[]).json();
    assert_eq!(bulk["metadata"]["trackPath"], "/ofrep/v1/track");
    let flag = bulk["flags"].as_array().unwrap().iter().find(|flag| flag["key"] == "checkout").unwrap();
    let id = |number: u32| format!("019c1360-2c7b-7000-8000-{number:012}");
    let batch = json!({"events": [
        {"event_id": id(1), "type": "exposure", "key": "checkout", "variant": flag["variant"],
         "metadata": flag["metadata"], "targetingKey": "u1", "context": {"age": 20, "account": "a9", "e-mail": "x@y"},
         "ts": "2026-01-31T12:00:00.123Z"},
        {"event_id": id(2), "type": "conversion", "key": "purchase", "targetingKey": "u1", "value": 19.99,
         "metadata": {"browser": "firefox", "first": true, "items": 3}, "context": {"account": "a9"}},
        {"event_id": "0191e3a0-0000-4000-8000-000000000003", "type": "conversion", "key": "purchase", "targetingKey": "u1"},
        {"event_id": id(4), "type": "conversion", "key": "no key", "targetingKey": "u1"},
        {"event_id": id(5), "type": "conversion", "key": "purchase"},
        {"event_id": id(6), "type": "exposure", "key": "checkout", "targetingKey": "u1", "metadata": {}},
        {"event_id": "nonsense", "type": "conversion", "key": "purchase", "targetingKey": "u1"},
        {"type": "conversion"},
        7,
        {"event_id": id(10), "type": "exposure", "key": "checkout", "variant": "neither",
         "metadata": flag["metadata"], "targetingKey": "u1", "context": {"age": 20}},
        {"event_id": id(11), "type": "conversion", "key": "purchase", "targetingKey": "u1", "ts": 1_769_860_800},
    ]});
    let answer = edge.post("/ofrep/v1/track", &batch.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = answer.json()["events"].as_array().unwrap().clone();
    let statuses: Vec<&str> = events.iter().map(|event| event["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, [&["accepted"; 2][..], &["refused"; 9]].concat());
    assert_eq!((&events[0]["event_id"], &events[8]["event_id"]), (&json!(id(1)), &Value::Null));
    for (index, error) in [
        (2, "ts is missing, and event_id is no UUID of version 7"),
        (3, "key: `no key` is not 1 to 64 of the characters"),
        (4, "TARGETING_KEY_MISSING"),
        (5, "metadata.variant is missing"),
        (6, "event_id is no UUID"),
        (9, "variant is `neither`, metadata.variant is `"),
        (
            10,
            "ts: 1769860800 is read as milliseconds since 1970: 1970-01-21T11:37:40.800000Z is before the year 2000",
        ),
    ] {
        assert!(events[index]["error"].as_str().unwrap().starts_with(error), "{}", events[index]);
    }
    // The one exposure that was accepted is a read of what came in bulk.
    let counts = edge.private("/counts").json();
    let counts = counts["counts"].as_array().unwrap();
    let of_checkout: Vec<_> = counts
        .iter()
        .filter(|row| row["flag"] == "checkout")
        .map(|row| (&row["variant"], &row["single"], &row["bulk"], &row["reported"]))
        .collect();
    assert_eq!(of_checkout, [(&flag["variant"], &json!(0), &json!(1), &json!(1))]);
    // Accepted means that it is there already.
    let exposures = fixture.stored("exposures");
    let exposure = avro::decode_exposure(&exposures[0]).unwrap();
    assert_eq!(exposure.created_at.to_string(), "2026-01-31T12:00:00.123000Z");
    assert_eq!(
        (&*exposure.rule, &*exposure.environment, &*exposure.sender.service),
        ("adults", "production", "shop")
    );
    assert_eq!(exposure.other_ids.get("account"), Some("a9"));
    assert_eq!(exposure.attributes.iter().collect::<Vec<_>>(), [("age", "20")]);
    let conversions = fixture.stored("conversions");
    let conversion = avro::decode_conversion(&conversions[0]).unwrap();
    assert_eq!(conversion.value.unwrap().millionths(), 19_990_000);
    assert_eq!(conversion.created_at.millis(), 0x019c_1360_2c7b);
    assert_eq!(
        conversion.metadata.iter().collect::<Vec<_>>(),
        [("browser", "firefox"), ("first", "true"), ("items", "3")]
    );
    // Sent again through another edge, an event has the same bytes.
    let other = fixture.edge(&[]);
    assert_eq!(other.post("/ofrep/v1/track", &batch.to_string()).status, 200);
    assert_eq!(fixture.stored("exposures"), [&exposures[..], &exposures[..]].concat());
    assert_eq!(fixture.stored("conversions"), [&conversions[..], &conversions[..]].concat());
}

/// An edge may be behind the definitions, so an experiment that it does not have is no reason to refuse.
#[test]
fn an_event_of_an_experiment_that_is_not_here_is_accepted_with_a_warning() {
    let fixture = Fixture::new("unknown");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let id = |number: u32| format!("019c1360-2c7b-7000-8000-{number:012}");
    let metadata = json!({"variant": "a", "unit_type": "user", "phase": 1, "definition_version": 1, "configuration_version": 1});
    let batch = json!({"events": [
        {"event_id": id(1), "type": "exposure", "key": "chekout", "metadata": metadata, "targetingKey": "u1"},
        {"event_id": id(2), "type": "conversion", "key": "purchase", "experiment": "chekout", "targetingKey": "u1"},
        {"event_id": id(3), "type": "conversion", "key": "purchase", "experiment": "checkout", "targetingKey": "u1"},
        {"event_id": id(4), "type": "conversion", "key": "purchase", "targetingKey": "u1"},
    ]});
    let answer = edge.post("/ofrep/v1/track", &batch.to_string()).json();
    let version = edge.metric("splitstream_edge_configuration_version");
    let warning = format!(
        "no experiment `chekout` is known to this token here, at configuration version {version}: if there is none, the event \
         counts nowhere; check the key"
    );
    let answers = answer["events"].as_array().unwrap();
    assert!(answers.iter().all(|of| of["status"] == "accepted"), "{answer}");
    let warnings: Vec<&Value> = answers.iter().map(|of| &of["warning"]).collect();
    assert_eq!(warnings, [&json!(warning), &json!(warning), &Value::Null, &Value::Null]);
    let counted = |kind: &str| {
        edge.metric(&format!("splitstream_edge_tracked_without_experiment_total{{type=\"{kind}\""))
    };
    assert_eq!((counted("exposure"), counted("conversion")), (1.0, 1.0));

    // A client key could tell hidden keys from unknown ones. Behind the client's configuration neither is refused.
    let report = |configuration_version: u64| {
        let metadata = json!({"variant": "control", "unit_type": "user", "phase": 1, "definition_version": 1,
                              "configuration_version": configuration_version});
        let event = |number: u32, key: &str| json!({"event_id": id(number), "type": "exposure", "key": key, "metadata": metadata, "targetingKey": "u1"});
        let batch = json!({"events": [event(5, "checkout"), event(6, "nothing")]}).to_string();
        edge.post_with("/ofrep/v1/track", &batch, &[("x-api-key", CLIENT_TOKEN)])
    };
    let statuses = |answer: &Answer| -> Vec<Value> {
        answer.json()["events"].as_array().unwrap().iter().map(|of| of["status"].clone()).collect()
    };
    let refused = report(1);
    assert_eq!((refused.status, refused.header("retry-after")), (200, None));
    assert_eq!(statuses(&refused), ["refused", "refused"]);
    let behind = report(1_000_000);
    assert_eq!((behind.status, behind.header("retry-after")), (503, Some("1")));
    assert_eq!(statuses(&behind), ["retry", "retry"]);
}

/// A value counts in the window in which it was evaluated, if it was read in it.
#[test]
fn a_switchback_is_reported_with_its_window_and_a_login_as_an_alias() {
    let fixture = Fixture::new("windows");
    fixture.apply(
        "{ kind: metric, key: purchase, event: purchase, type: conversion }
---
{ kind: experiment, key: weekly, state: running, unit_type: region, client_safe: true, control: a, metrics: { primary: purchase },
  switchback: { window_seconds: 604800 }, variants: [{ key: a, weight: 50% }, { key: b, weight: 50% }] }",
    );
    let edge = fixture.edge(&[]);
    let page = [("x-api-key", CLIENT_TOKEN)];
    let bulk = edge.bulk(r#"{"targetingKey": "u1", "region": "eu"}"#, &page).json();
    let flag = &bulk["flags"][0];
    let start = flag["metadata"]["window_start"].as_u64().unwrap();
    assert_eq!(start % 604_800, 0);
    let id = |number: u32| format!("019c1360-2c7b-7000-8000-{number:012}");
    let at = |seconds: u64| Micros::new(seconds as i64 * 1_000_000).unwrap().to_string();
    let exposure = |number: u32, region: &str, seconds: u64| {
        json!({"event_id": id(number), "type": "exposure", "key": "weekly", "variant": flag["variant"], "ts": at(seconds),
               "metadata": flag["metadata"], "targetingKey": "u1", "context": {"region": region}})
    };
    let mut windowless = exposure(9, "eu", start);
    windowless["metadata"].as_object_mut().unwrap().remove("window_start");
    let alias = |number: u32, from: (&str, &str), to: (&str, &str)| {
        let unit = |(unit_type, unit_id): (&str, &str)| json!({"unit_type": unit_type, "unit_id": unit_id});
        json!({"event_id": id(number), "type": "alias", "from": unit(from), "to": unit(to)})
    };
    let batch = json!({"events": [
        exposure(1, "eu", start),
        exposure(2, &"r".repeat(250), start),
        alias(3, ("user", "visitor-7"), ("user", "u1")),
        alias(4, ("device", "d1"), ("user", "u1")),
        alias(5, ("user", "u1"), ("region", "eu")),
        alias(6, ("user", "u1"), ("user", "u1")),
        {"event_id": id(7), "type": "alias", "from": {"unit_type": "user", "unit_id": "u2"}},
        {"event_id": id(7), "type": "alias", "from": ["user", "u2"], "to": ["user", "u1"]},
        {"event_id": id(7), "type": "alias", "from": {"unit_type": "user"}, "to": {}},
        exposure(9, "eu", start - 1),
        windowless,
    ]});
    let answer = edge.post_with("/ofrep/v1/track", &batch.to_string(), &page).json();
    let events = answer["events"].as_array().unwrap();
    for (index, error) in [
        (0, None),
        (1, Some("the region cannot be the cluster of a switchback: it has 250 bytes")),
        (2, None),
        (3, None),
        (4, Some("to.unit_type is `region`: a client key may report aliases to a user alone")),
        (5, Some("from and to are the same unit: an alias joins two ids")),
        (6, Some("missing field `to`")),
        (7, Some("from: a unit is an object, not a list")),
        (8, Some("from: missing field `unit_id`")),
        (9, Some(&format!("metadata.window_start is {start}, and the event's time is not in that window"))),
        (10, Some("metadata.window_start is missing")),
    ] {
        let event = &events[index];
        match error {
            None => assert_eq!(event["status"], "accepted", "{event}"),
            Some(error) => assert!(event["error"].as_str().unwrap().starts_with(error), "{event}"),
        }
    }
    let exposures = fixture.stored("exposures");
    let exposure = avro::decode_exposure(&exposures[0]).unwrap();
    assert_eq!((exposures.len(), &*exposure.unit_id), (1, &*format!("eu\0{start}")));
    let carried: BTreeSet<_> = exposure.other_ids.iter().collect();
    assert_eq!(carried, [("region", "eu"), ("user", "u1")].into());
    // A server may join whatever it knows.
    let joined = json!({"events": [alias(8, ("region", "eu"), ("region", "europe"))]});
    assert_eq!(edge.post("/ofrep/v1/track", &joined.to_string()).json()["events"][0]["status"], "accepted");
    let aliases = fixture.stored("aliases");
    let aliases: Vec<_> = aliases.iter().map(|alias| avro::decode_alias(alias).unwrap()).collect();
    let mut joined: Vec<_> = aliases.iter().map(|alias| (&*alias.from.unit_id, &*alias.to.unit_id)).collect();
    joined.sort_unstable();
    assert_eq!(joined, [("d1", "u1"), ("eu", "europe"), ("visitor-7", "u1")]);
    assert!(aliases.iter().all(|alias| alias.created_at.millis() == 0x019c_1360_2c7b));
}
