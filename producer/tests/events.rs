//! Events on a real Kafka: they are replayed from a file or simulated, and read back by a client that is not
//! ours.

use std::collections::BTreeMap;
use std::io::Write;

use schemas::event::STANDARD_ATTRIBUTES;
use schemas::{Reason, avro};

use crate::kafka_fixture::{KafkaFixture, StoredMessage};

const CAMPAIGN: &str = "\
{ kind: metric, key: click, event: click, type: conversion }
---
{ kind: experiment, key: campaign, assignment: external, state: running, control: a, metrics: { primary: click },
  variants: [{ key: a, weight: 5000 }, { key: b, weight: 5000 }] }
";

const CHECKOUT: &str = "\
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
{ kind: experiment, key: checkout, state: running, control: control, metrics: { primary: purchase },
  variants: [{ key: control, weight: 5000 }, { key: treatment, weight: 5000 }] }
";

fn exposure(number: u32, more: &str) -> String {
    format!(
        r#"{{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-{number:012}", "experiment": "campaign", "variant": "a", "unit_type": "user", "unit_id": "u{number}", "created_at": "2019-11-24T00:00:17.004101Z"{more}}}"#
    )
}

#[test]
fn a_replayed_file_keeps_its_ids_and_times_and_a_second_replay_is_the_same_bytes() {
    let fixture = KafkaFixture::new("replay");
    fixture.accept("campaign.yaml", CAMPAIGN);
    let conversion = r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-00000000000c", "name": "click", "unit_type": "user", "unit_id": "u1", "value": "12.5", "created_at": "2019-11-24T00:01:00Z"}"#;
    let file = fixture.file("events.jsonl", &format!("{}\n\n{conversion}\n", exposure(1, "")));
    for _ in 0..2 {
        let replayed = fixture.producer(&["replay", file.to_str().unwrap(), "--json"]);
        assert_eq!(replayed.code, 0, "{replayed:?}");
        let mut summary: serde_json::Value = serde_json::from_str(&replayed.out).unwrap();
        summary.as_object_mut().unwrap().remove("seconds");
        let expected = r#"{"exposures": 1, "conversions": 1, "aliases": 0, "delivered": 2, "bad_lines": 0}"#;
        assert_eq!(summary, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }
    let stored = fixture.stored("exposures");
    let [first, second] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!((&first.key, &first.value), (&"u1".to_owned(), &second.value));
    assert_eq!(first.partition, second.partition);
    let read = avro::decode_exposure(&first.value).unwrap();
    assert_eq!(read.event_id.to_string(), "0191e3a0-0000-7000-8000-000000000001");
    assert_eq!(read.created_at.to_string(), "2019-11-24T00:00:17.004101Z");
    assert_eq!((read.definition_version, read.configuration_version), (2, 2));
    assert_eq!((read.phase, read.buckets, read.reason), (1, None, Reason::Split));
    let conversions = fixture.stored("conversions");
    let read = avro::decode_conversion(&conversions[0].value).unwrap();
    assert_eq!((read.name.as_ref(), read.value.unwrap().millionths()), ("click", 12_500_000));
    // A unit has the same partition number in every topic.
    assert_eq!(conversions[0].partition, first.partition);
}

#[test]
fn bad_lines_are_named_and_their_neighbours_are_sent() {
    let fixture = KafkaFixture::new("badlines");
    fixture.accept("campaign.yaml", CAMPAIGN);
    let lines = [
        exposure(1, ""),
        "{".to_owned(),
        exposure(2, r#", "colour": "red""#),
        exposure(3, "").replace(r#""variant": "a""#, r#""variant": "c""#),
        exposure(4, ""),
    ];
    let path = fixture.file("events.jsonl.gz", "");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines.join("\n").as_bytes()).unwrap();
    std::fs::write(&path, packed.finish().unwrap()).unwrap();
    let replayed = fixture.producer(&["replay", path.to_str().unwrap()]);
    assert_eq!(replayed.code, 4);
    assert!(
        replayed.out.starts_with("2 exposures, 0 conversions, 0 aliases: 2 delivered in "),
        "{}",
        replayed.out
    );
    let errors: Vec<&str> = replayed.err.lines().collect();
    assert_eq!(errors[0], "line 2: EOF while parsing an object at line 1 column 1");
    assert!(errors[1].starts_with("line 3: unknown field `colour`, expected one of "), "{}", errors[1]);
    assert_eq!(errors[2], "line 4: variant: `c` is none of `campaign`'s: a, b");
    let mut keys: Vec<String> = fixture.stored("exposures").into_iter().map(|stored| stored.key).collect();
    keys.sort();
    assert_eq!(keys, ["u1", "u4"]);
}

/// Windows tools write such files; the first event was once left out.
#[test]
fn a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_an_event() {
    let fixture = KafkaFixture::new("mark");
    let definitions = format!("\u{feff}{}", CAMPAIGN.replace('\n', "\r\n"));
    fixture.accept("campaign.yaml", &definitions);
    let lines =
        format!("\u{feff}{}\r\n\r\n{}\r\n \t\r\n{}", exposure(1, ""), exposure(2, ""), exposure(3, ""));
    let file = fixture.file("events.jsonl", &lines);
    let replayed = fixture.producer(&["replay", file.to_str().unwrap()]);
    assert_eq!((replayed.code, replayed.err.as_str()), (0, ""), "{replayed:?}");
    assert!(
        replayed.out.starts_with("3 exposures, 0 conversions, 0 aliases: 3 delivered in "),
        "{replayed:?}"
    );
}

#[test]
fn a_file_in_another_encoding_is_refused_as_a_whole() {
    let fixture = KafkaFixture::new("encoding");
    fixture.accept("campaign.yaml", CAMPAIGN);
    let utf16 =
        |text: &str| format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let why =
        "the text is UTF-16LE, not UTF-8; save it as UTF-8, or convert it with `iconv -f UTF-16LE -t UTF-8`";

    let events = fixture.file("events.jsonl", "");
    std::fs::write(&events, utf16(&exposure(1, ""))).unwrap();
    let replayed = fixture.producer(&["replay", events.to_str().unwrap()]);
    let expected = format!("error: invalid input: reading {}: {why}\n", events.display());
    assert_eq!((replayed.code, replayed.err), (4, expected));

    let definitions = fixture.file("utf16.yaml", "");
    std::fs::write(&definitions, utf16(CAMPAIGN)).unwrap();
    let apply = |path: &std::path::Path| {
        fixture.producer(&["apply", path.to_str().unwrap(), "--author", "ann", "--reason", "because"])
    };
    let refused = apply(&definitions);
    assert_eq!(
        (refused.code, refused.err),
        (4, format!("error: invalid input: {}: {why}\n", definitions.display()))
    );

    std::fs::write(&definitions, b"kind: layer\nkey: a\nowner: caf\xe9\n").unwrap();
    let refused = apply(&definitions);
    let why = "line 3 is not UTF-8: byte 0xe9 is no part of a character; save the text as UTF-8";
    assert_eq!(
        (refused.code, refused.err),
        (4, format!("error: invalid input: {}: {why}\n", definitions.display()))
    );
}

/// An id has 1 to 256 bytes, whichever way it comes in.
#[test]
fn a_unit_without_an_id_is_no_unit() {
    let fixture = KafkaFixture::new("nobody");
    fixture.accept("checkout.yaml", CHECKOUT);
    let assigned = fixture.producer(&["assign", "checkout", ""]);
    assert_eq!(assigned.code, 2);
    assert!(assigned.err.contains("0 bytes is not in 1 to 256"), "{}", assigned.err);

    let conversion = |number: u32, ids: &str| {
        format!(
            r#"{{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-{number:012}", "name": "purchase", "unit_type": "user", {ids}, "created_at": "2019-11-24T00:01:00Z"}}"#
        )
    };
    let alias = r#"{"type": "alias", "event_id": "0191e3a0-0000-7000-8000-000000000009", "from": {"unit_type": "device", "unit_id": "d"}, "to": {"unit_type": "user", "unit_id": ""}, "created_at": "2019-11-24T00:01:00Z"}"#;
    let lines = [
        conversion(1, r#""unit_id": """#),
        conversion(2, &format!(r#""unit_id": "{}""#, "u".repeat(257))),
        conversion(3, r#""unit_id": "u", "other_ids": {"device": ""}"#),
        alias.to_owned(),
        alias.replace(r#""unit_id": "d""#, r#""unit_id": """#),
        conversion(6, r#""unit_id": null"#),
        conversion(7, r#""unit_id": 7"#),
        conversion(8, &format!(r#""unit_id": "{}""#, "u".repeat(256))),
    ];
    let file = fixture.file("events.jsonl", &lines.join("\n"));
    let replayed = fixture.producer(&["replay", file.to_str().unwrap()]);
    assert_eq!(replayed.code, 4);
    let errors: Vec<&str> = replayed.err.lines().collect();
    assert_eq!(
        errors[..5],
        [
            "line 1: unit_id: 0 bytes is not in 1 to 256",
            "line 2: unit_id: 257 bytes is not in 1 to 256",
            "line 3: other_ids: 0 bytes is not in 1 to 256",
            "line 4: to.unit_id: 0 bytes is not in 1 to 256",
            "line 5: from.unit_id: 0 bytes is not in 1 to 256",
        ]
    );
    assert!(errors[5].starts_with("line 6: invalid type: null, expected a string"), "{}", errors[5]);
    assert!(errors[6].starts_with("line 7: invalid type: integer `7`, expected a string"), "{}", errors[6]);
    let keys: Vec<String> = fixture.stored("conversions").into_iter().map(|stored| stored.key).collect();
    assert_eq!(keys, ["u".repeat(256)]);
}

#[test]
fn a_simulation_sends_what_it_reports_and_the_same_seed_sends_the_same_again() {
    let fixture = KafkaFixture::new("simulate");
    fixture.accept("checkout.yaml", CHECKOUT);
    let ids = fixture.file("ids", "");
    let arguments = [
        "simulate",
        "--experiment",
        "checkout",
        "--units",
        "5000",
        "--rates",
        "control=0.05,treatment=0.5",
        "--event",
        "purchase",
        "--seed",
        "7",
        "--duplicates",
        "0.1",
        "--start",
        "2026-01-31T12:00:00Z",
        "--json",
        "--ids",
        ids.to_str().unwrap(),
    ];
    let simulated = fixture.producer(&arguments);
    assert_eq!(simulated.code, 0, "{simulated:?}");
    let summary: serde_json::Value = serde_json::from_str(&simulated.out).unwrap();
    let number = |field: &str| usize::try_from(summary[field].as_u64().unwrap()).unwrap();
    assert_eq!((number("exposed"), number("delivered")), (5_000, number("sent")));
    assert_eq!(number("sent"), number("distinct_events") + number("duplicates"));

    let (exposures, conversions) = (fixture.stored("exposures"), fixture.stored("conversions"));
    assert_eq!(exposures.len() + conversions.len(), number("sent"));
    let arms = &summary["variants"];
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    let first_copies = distinct(&exposures);
    assert_eq!((number("definition_version"), number("configuration_version")), (2, 2));
    for value in &first_copies {
        let exposure = avro::decode_exposure(value).unwrap();
        assert_eq!((exposure.definition_version, exposure.configuration_version), (2, 2));
        assert_eq!(exposure.reason, Reason::Split);
        let names: Vec<&str> = exposure.attributes.iter().map(|(name, _)| name).collect();
        assert_eq!(names, STANDARD_ATTRIBUTES);
        *counted.entry(exposure.variant.into_owned()).or_default() += 1;
    }
    assert_eq!(counted["control"], arms[0]["units"].as_u64().unwrap());
    assert_eq!(counted["treatment"], arms[1]["units"].as_u64().unwrap());
    let converted = distinct(&conversions).len() as u64;
    let conversions_of = |arm: usize| arms[arm]["conversions"].as_u64().unwrap();
    assert_eq!(converted, conversions_of(0) + conversions_of(1));
    let listed = std::fs::read_to_string(&ids).unwrap();
    assert_eq!(listed.lines().count(), number("distinct_events"));
    // A copy is in the same partition as its original, so that the consumer of the partition can recognize it.
    let mut partitions: BTreeMap<&str, i32> = BTreeMap::new();
    for stored in &exposures {
        assert_eq!(*partitions.entry(&stored.key).or_insert(stored.partition), stored.partition);
    }

    assert_eq!(fixture.producer(&arguments).code, 0);
    let twice = fixture.stored("exposures");
    assert_eq!(twice.len(), 2 * exposures.len());
    assert_eq!(distinct(&twice), first_copies);
}

/// The distinct messages, sorted.
fn distinct(stored: &[StoredMessage]) -> Vec<&[u8]> {
    let mut values: Vec<&[u8]> = stored.iter().map(|stored| stored.value.as_slice()).collect();
    values.sort();
    values.dedup();
    values
}

#[test]
fn what_cannot_be_simulated_is_refused_with_the_reason() {
    let fixture = KafkaFixture::new("refuse");
    fixture.accept("campaign.yaml", CAMPAIGN);
    let simulate = |experiment: &str| {
        let arguments = ["--units", "1", "--rates", "a=0.1,b=0.1", "--event", "click", "--seed", "1"];
        fixture.producer(&[&["simulate", "--experiment", experiment], &arguments[..]].concat())
    };
    let refused = simulate("campaign");
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (
            3,
            "error: refused: experiment `campaign` is external: its assignment is made elsewhere, there is nothing \
             to simulate it by\n"
        )
    );
    assert_eq!(simulate("nothing").code, 3);
    assert_eq!(fixture.stored("exposures"), []);
}
