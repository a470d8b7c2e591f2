//! A log of definitions with records of other producers' transactions, such as those of a mirror with
//! exactly-once sources. The last offset may be a marker or an aborted record, which no reader gets: every
//! command once waited for it until it gave up.

use definitions::DefinitionLog;
use definitions::history::Content;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::avro;
use schemas::definition::{Change, RULE_VERSION};

use crate::kafka_fixture::{KafkaFixture, Transaction};

const CHECKOUT: &str = "\
kind: metric
key: purchase
event: purchase
type: conversion
---
kind: experiment
key: checkout
state: running
variants: [{ key: control, weight: 5000 }, { key: treatment, weight: 5000 }]
control: control
metrics: { primary: purchase }
";

const LISTED: &str = "experiment checkout: version 2, running, phase 1\nmetric purchase: version 1\n";

const CONVERSION: &str = r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-00000000000c", "name": "purchase", "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-31T00:01:00Z"}
"#;

fn layer(key: &str) -> String {
    format!("kind: layer\nkey: {key}\n")
}

/// Runs every command that reads the log and checks its output.
fn every_command_works(fixture: &KafkaFixture, listed: &str) {
    let definitions = fixture.producer(&["definitions"]);
    assert_eq!((definitions.code, definitions.out.as_str(), definitions.err.as_str()), (0, listed, ""));
    let assigned = fixture.producer(&["assign", "checkout", "u1"]);
    assert_eq!((assigned.code, assigned.out.as_str()), (0, "treatment\n"));
    let events = fixture.file("events.jsonl", CONVERSION);
    let replayed = fixture.producer(&["replay", events.to_str().unwrap()]);
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let simulated = fixture.producer(&[
        "simulate",
        "--experiment",
        "checkout",
        "--units",
        "10",
        "--rates",
        "control=0,treatment=0",
        "--event",
        "purchase",
        "--seed",
        "1",
    ]);
    assert_eq!(simulated.code, 0, "{simulated:?}");
    let rehearsed = fixture.apply("layer.yaml", &layer("rehearsed"), &["--dry-run"]);
    assert_eq!((rehearsed.code, rehearsed.out.as_str()), (0, "layer rehearsed: would be accepted\n"));
}

#[test]
fn an_aborted_transaction_at_the_end_is_skipped() {
    let fixture = KafkaFixture::new("aborted");
    fixture.accept("checkout.yaml", CHECKOUT);
    // The record takes offset 2, the marker offset 3.
    Transaction::open(&fixture, "definitions", b"not for anybody").abort();
    every_command_works(&fixture, LISTED);

    // Later changes are based on the current version, whatever offsets come between.
    let applied = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!((applied.code, applied.out.as_str()), (0, "layer first: accepted, version 5\n"));
    let stopped = fixture.apply("checkout.yaml", &CHECKOUT.replace("running", "stopped"), &[]);
    assert_eq!(
        (stopped.code, stopped.out.as_str()),
        (
            0,
            "metric purchase: unchanged, version 1\nexperiment checkout: accepted, version 6\n    state: \"running\" \
             -> \"stopped\"\n"
        )
    );
    let again = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!(again.out, "layer first: unchanged, version 5\n");
    let log = fixture.producer(&["definitions", "log", "--json"]);
    let log: Vec<serde_json::Value> = serde_json::from_str(&log.out).unwrap();
    let seen: Vec<(u64, &str, u64)> = log
        .iter()
        .map(|entry| {
            let number = |field: &str| entry[field].as_u64().unwrap();
            (number("offset"), entry["verdict"].as_str().unwrap(), number("based_on"))
        })
        .collect();
    assert_eq!(seen, [(0, "accepted", 0), (1, "accepted", 0), (4, "accepted", 0), (5, "accepted", 2)]);
}

#[test]
fn a_committed_transaction_at_the_end_is_judged_like_any_record() {
    let fixture = KafkaFixture::new("committed");
    fixture.accept("checkout.yaml", CHECKOUT);
    let transaction = Transaction::open(&fixture, "definitions", b"no change");
    transaction.write(b"");
    let change = Change {
        change_id: schemas::Uuid::from_u128(7),
        rule_version: RULE_VERSION,
        kind: "layer".to_owned(),
        key: "mirrored".to_owned(),
        based_on: 0,
        definition: r#"{"key":"mirrored"}"#.to_owned(),
        author: "a mirror".to_owned(),
        reason: "a copy".to_owned(),
    };
    transaction.write(&avro::encode_change(&change));
    transaction.write(&avro::encode_change(&Change { based_on: 2, ..change }));
    transaction.commit();

    let log = fixture.producer(&["definitions", "log", "--json"]);
    assert_eq!(
        (log.code, log.err.as_str()),
        (0, "warning: 2 records of the definitions log are no changes; skipped\n")
    );
    let log: Vec<serde_json::Value> = serde_json::from_str(&log.out).unwrap();
    let verdicts: Vec<&str> = log.iter().map(|entry| entry["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["accepted", "accepted", "undecodable", "undecodable", "accepted", "refused"]);
    let definitions = fixture.producer(&["definitions"]);
    assert_eq!(
        definitions.out,
        "experiment checkout: version 2, running, phase 1\nlayer mirrored: version 5\nmetric purchase: version 1\n"
    );
    // The marker of the transaction has offset 6.
    let applied = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!(applied.out, "layer first: accepted, version 8\n");
}

#[test]
fn a_log_of_nothing_but_aborted_records_is_empty() {
    let fixture = KafkaFixture::new("onlyaborted");
    for _ in 0..3 {
        Transaction::open(&fixture, "definitions", b"not for anybody").abort();
    }
    let definitions = fixture.producer(&["definitions"]);
    assert_eq!((definitions.code, definitions.out.as_str(), definitions.err.as_str()), (0, "", ""));
    let applied = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!((applied.code, applied.out.as_str()), (0, "layer first: accepted, version 7\n"));
}

#[test]
fn an_open_transaction_ends_what_can_be_read_and_holds_a_change_back() {
    let fixture = KafkaFixture::new("open");
    fixture.accept("checkout.yaml", CHECKOUT);
    let transaction = Transaction::open(&fixture, "definitions", b"perhaps");
    every_command_works(&fixture, LISTED);

    let held = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!((held.code, held.out.as_str()), (5, ""));
    let (before, after) =
        held.err.split_once("the change ").and_then(|(_, rest)| rest.split_once(' ')).unwrap();
    assert_eq!(before.parse::<schemas::Uuid>().unwrap().get_version_num(), 7);
    assert!(
        after.starts_with(
            "of `first` is written to topic open.definitions at offset 3, behind a transaction of another producer \
             that has been open since offset 2: nobody can read it before that ends, and it did not within 10 s."
        ),
        "{after}"
    );
    // The same file once more is safe.
    assert_eq!(fixture.apply("layer.yaml", &layer("first"), &[]).code, 5);
    every_command_works(&fixture, LISTED);

    transaction.abort();
    let log = fixture.producer(&["definitions", "log"]);
    let verdicts: Vec<&str> = log.out.lines().filter(|line| line.contains(" layer first, ")).collect();
    assert_eq!(verdicts.len(), 2, "{log:?}");
    assert!(verdicts[0].contains(" accepted ") && verdicts[1].contains(" refused "), "{log:?}");
    let again = fixture.apply("layer.yaml", &layer("first"), &[]);
    assert_eq!((again.code, again.out.as_str()), (0, "layer first: unchanged, version 4\n"));
}

/// One reader reads on several times: the report of an earlier end must not count for a later one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_on_after_every_kind_of_end() {
    let fixture = KafkaFixture::new("goeson");
    let mut log = DefinitionLog::open(&fixture.kafka()).await.unwrap();
    for round in 0..5 {
        let transaction = Transaction::open(&fixture, "definitions", format!("round {round}").as_bytes());
        if round % 2 == 0 {
            transaction.commit()
        } else {
            transaction.abort()
        }
        fixture.accept("layer.yaml", &layer(&format!("layer-{round}")));
        log.catch_up().await.unwrap();
        let read = log.history().entries().len();
        log.catch_up().await.unwrap();
        assert_eq!(log.history().entries().len(), read);
    }
    let entries = log.history().entries().iter();
    let seen: Vec<(u64, bool)> =
        entries.map(|entry| (entry.offset, matches!(entry.content, Content::Judged(_)))).collect();
    // Each round has three offsets: the record, its marker, and the layer.
    assert_eq!(
        seen,
        [(0, false), (2, true), (5, true), (6, false), (8, true), (11, true), (12, false), (14, true)]
    );
    assert_eq!(log.definitions().version(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_lost_its_beginning_is_not_read() {
    let fixture = KafkaFixture::new("cut");
    fixture.accept("checkout.yaml", CHECKOUT);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", fixture.stack().brokers()).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("cut.definitions", 0, Offset::Offset(1)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    for args in [&["definitions"][..], &["assign", "checkout", "u1"]] {
        let refused = fixture.producer(args);
        assert_eq!(
            (refused.code, refused.err.as_str()),
            (
                1,
                "error: topic cut.definitions begins at offset 1: older records were deleted; its retention.ms and \
                 retention.bytes must be -1, and the topic must be restored from a copy\n"
            )
        );
    }
}
