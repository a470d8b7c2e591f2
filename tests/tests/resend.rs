//! A batch that was sent through one edge and is sent again through another, long after: each event is in ClickHouse once.
//! The consumer's memory of ids goes by the time of the event, which is part of its bytes. So an event whose time lies two
//! days back stands, when it is sent again, for one that was sent in its time and is two days old: it is older than the
//! memory, and ClickHouse is asked. What else changes with time changes here too: the consumer has been restarted, and
//! the definitions have moved on.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::Uuid;
use serde_json::{Value, json};
use tests::edge_load::DEFINITIONS;
use tests::edges::{EdgeClient, EdgePlace};
use tests::oracle::{row_count, wait_for_rows};
use tests::traffic::ago;
use tests::{ClickHouse, Platform};

/// How long before now the batches of events were made: the memory of ids goes back 24 hours.
const AGES_S: [u64; 5] = [0, 60, 3_600, 2 * 86_400, 30 * 86_400];
const EVENTS: u64 = 50;

const DEVICES: &str = "\
---
kind: flag
key: by-device
value_type: boolean
unit_type: device
variants: [{ key: a, value: true }]
default_variant: a
";
const ACCOUNTS: &str = "\
kind: flag
key: by-account
value_type: boolean
unit_type: account
variants: [{ key: a, value: true }]
default_variant: a
";

#[test]
fn a_batch_that_is_sent_again_through_another_edge_is_stored_once_whatever_its_age() {
    let platform = Platform::up().unwrap();
    platform.apply(&format!("{DEFINITIONS}{DEVICES}")).unwrap();
    let consumer = platform.consumer(&[]).unwrap();
    let places = ["one", "another"].map(|name| EdgePlace::new(&platform, name).unwrap());
    let _edges = places.each_ref().map(|place| place.start(&platform, &[]).unwrap());
    let [one, another] = places.each_ref().map(EdgePlace::client);

    let batches: Vec<String> = AGES_S.iter().map(|age| batch(&one, *age)).collect();
    for batch in &batches {
        assert_eq!(statuses(&one, batch), BTreeMap::from([("accepted".to_owned(), 3 * EVENTS)]));
    }
    let rows = AGES_S.len() as u64 * 3 * EVENTS;
    wait_for_rows(&platform.clickhouse(), rows).unwrap();
    let before = stored(&platform.clickhouse());

    // Sent again while the consumer remembers, and once it has only what it reads from ClickHouse.
    for is_restarted in [false, true] {
        if is_restarted {
            consumer.kill().unwrap();
            consumer.start().unwrap();
        }
        for batch in &batches {
            assert_eq!(statuses(&another, batch), BTreeMap::from([("accepted".to_owned(), 3 * EVENTS)]));
        }
        let agreement = platform.every_event_once().unwrap();
        assert_eq!(agreement.rows, rows);
        assert_unchanged(&platform.clickhouse(), &before);
    }

    // A type of unit comes into use of which some events have an id too. They keep their unit, or they would go to another
    // partition, where nobody remembers them.
    platform.apply(ACCOUNTS).unwrap();
    let context = json!({ "targetingKey": "u", "account": "a" });
    let in_use = || Ok(another.evaluate("by-account", &context)?.status == 200);
    tests::platform::wait_until("the new flag", Duration::from_secs(30), Duration::from_millis(20), in_use)
        .unwrap();
    for batch in &batches {
        let expected = [("accepted".to_owned(), 2 * EVENTS), ("refused".to_owned(), EVENTS)];
        assert_eq!(statuses(&another, batch), BTreeMap::from(expected));
    }
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.rows, row_count(&platform.clickhouse()).unwrap()), (rows, rows));
    assert_unchanged(&platform.clickhouse(), &before);
}

/// Exposures that are reported, conversions of users, and conversions of devices that have an account, all so old.
fn batch(edge: &EdgeClient, age_s: u64) -> String {
    let at = ago(Duration::from_secs(age_s));
    let id = |index: u64| Uuid::from_u64_pair((at.millis() as u64) << 16 | 0x7000, 1 << 63 | index);
    let mut events = Vec::new();
    for number in 0..EVENTS {
        let user = format!("user-{age_s}-{number}");
        let context = json!({ "targetingKey": user });
        let flags =
            edge.post("/ofrep/v1/evaluate/flags", &json!({ "context": context }).to_string()).unwrap();
        let flags = flags.body["flags"].as_array().unwrap().clone();
        let flag = flags.into_iter().find(|flag| flag["key"] == "checkout").unwrap();
        let event = |index: u64, more: Value| {
            let mut event = json!({ "event_id": id(3 * number + index) });
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        events.push(event(
            0,
            json!({ "type": "exposure", "key": "checkout", "variant": flag["variant"], "targetingKey": user,
                    "metadata": flag["metadata"] }),
        ));
        events.push(event(1, json!({ "type": "conversion", "key": "purchase", "targetingKey": user })));
        let device =
            json!({ "device": format!("device-{age_s}-{number}"), "account": format!("account-{number}") });
        events.push(event(2, json!({ "type": "conversion", "key": "purchase", "context": device })));
    }
    json!({ "events": events }).to_string()
}

/// Sends the batch and counts the answers by status.
fn statuses(edge: &EdgeClient, batch: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for answer in edge.track(batch).unwrap() {
        *found.entry(answer.status).or_insert(0) += 1;
    }
    found
}

/// Id, unit and time of every event, in order.
fn stored(clickhouse: &ClickHouse) -> Vec<String> {
    let sql = "SELECT event_id, unit_type, unit_id, created_at FROM exposures UNION ALL \
               SELECT event_id, unit_type, unit_id, created_at FROM conversions";
    let mut rows: Vec<String> = clickhouse.text(sql, &[]).unwrap().lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// That the rows are those of the first sending, with one line for each difference.
fn assert_unchanged(clickhouse: &ClickHouse, before: &[String]) {
    let now = stored(clickhouse);
    let other: Vec<&String> = now.iter().filter(|row| !before.contains(row)).take(5).collect();
    assert!(now == before, "{} rows, {} before; others are {other:#?}", now.len(), before.len());
}
