//! Clients without code of the platform: confluent-kafka and fastavro decode the messages in Kafka from the
//! schema files alone, clickhouse-connect compares them with the tables, and queries written for PostgreSQL
//! run on the view.

use std::path::Path;
use std::process::Command;

use fetch::Cache;
use schemas::Event;
use tests::Platform;
use tests::traffic::{DEFINITIONS, Traffic, replay};

/// Events with every field filled, and texts that need escaping.
const CHOSEN: [&str; 4] = [
    r#"{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-00000000000a", "experiment": "banner",
        "variant": "b", "unit_type": "user", "unit_id": "日本 \"u\" \\ \n", "other_ids": {"device": "d'1"},
        "phase": 3, "definition_version": 9, "configuration_version": 1099511627776, "buckets": {"slot": 0, "rollout": 999999, "variant": 5},
        "rule": "eu", "attributes": {"region": "EU", "plan": "pro", "x": "ü"}, "environment": "staging",
        "sender": {"service": "s", "instance": "i", "library_version": "1.2.3"},
        "created_at": "2026-01-02T03:04:05.678901Z"}"#,
    r#"{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-00000000000d", "experiment": "banner",
        "variant": "a", "unit_type": "user", "unit_id": "tester", "definition_version": 9,
        "configuration_version": 12, "reason": "forced", "created_at": "2026-01-02T03:04:05Z"}"#,
    r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-00000000000b", "name": "refund",
        "unit_type": "user", "unit_id": "u-1", "experiment": "banner", "value": "-123456789012.345678",
        "metadata": {"browser": "firefox", "note": ""}, "created_at": "2026-01-02T03:04:06Z"}"#,
    r#"{"type": "alias", "event_id": "0191e3a0-0000-7000-8000-00000000000c",
        "from": {"unit_type": "device", "unit_id": "d-1"}, "to": {"unit_type": "user", "unit_id": "u-1"},
        "created_at": "2026-01-02T03:04:07Z"}"#,
];

/// Count the rows whose keys differ from those that ClickHouse computes.
const WRONG_KEYS: [&str; 3] = [
    "SELECT count() FROM exposures WHERE unit_key != xxh3(concat(unit_type, char(0), unit_id)) OR carried_keys != \
     arrayMap((type, id) -> xxh3(concat(type, char(0), id)), mapKeys(other_ids), mapValues(other_ids))",
    "SELECT count() FROM conversions WHERE unit_key != xxh3(concat(unit_type, char(0), unit_id)) OR carried_keys != \
     arrayMap((type, id) -> xxh3(concat(type, char(0), id)), mapKeys(other_ids), mapValues(other_ids))",
    "SELECT count() FROM aliases WHERE from_unit_key != xxh3(concat(from_unit_type, char(0), from_unit_id)) \
     OR to_unit_key != xxh3(concat(to_unit_type, char(0), to_unit_id))",
];

#[test]
fn foreign_clients_read_and_write_with_the_schema_files_alone() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = Cache::open().unwrap().python(&here.join("clients/python/requirements.txt")).unwrap();
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let events: Vec<Event> = CHOSEN.iter().map(|json| serde_json::from_str(json).unwrap()).collect();
    replay(&platform, &events).unwrap();
    let traffic = Traffic { name: "foreign".to_owned(), seed: 1, units: 3_000, duplicates: 0.1 };
    traffic.send(&platform).unwrap();
    let _consumer = platform.consumer(&[]).unwrap();
    platform.every_event_once().unwrap();
    for sql in WRONG_KEYS {
        assert_eq!(platform.clickhouse().number(sql, &[]).unwrap(), 0, "{sql}");
    }

    let url = platform.stack().clickhouse_url();
    let (host, port) = url.trim_start_matches("http://").split_once(':').unwrap();
    let output = Command::new(python)
        .arg(here.join("clients/python/client.py"))
        .args([platform.brokers(), host, port])
        .arg(here.join("../schemas/avro"))
        .output()
        .unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(printed.trim_end(), "foreign clients: all checks passed", "{errors}");
    platform.every_event_once().unwrap();
}
