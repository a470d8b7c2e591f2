//! The program keeps numbers exactly: the values of conversions in a replayed file, and the values of a flag
//! from a file to the log, exported and applied again.

use std::collections::BTreeMap;

use schemas::avro;

use crate::kafka_fixture::KafkaFixture;

fn conversion(number: u32, value: &str) -> String {
    format!(
        r#"{{"type":"conversion","event_id":"0191e3a0-0001-7000-8000-{number:012}","name":"rep","unit_type":"user","unit_id":"c","value":{value},"created_at":"2026-11-29T00:00:00Z"}}"#
    )
}

/// Values were once converted to a double: 123456789012.123456 was stored as 123456789012.123460.
#[test]
fn a_value_given_as_a_number_is_stored_by_its_digits() {
    let fixture = KafkaFixture::new("values");
    let values = [
        ("0.000001", Some("0.000001")),
        ("9999999999.123456", Some("9999999999.123456")),
        ("123456789012.123456", Some("123456789012.123456")),
        ("8589934592.000001", Some("8589934592.000001")),
        ("123456789012.1234567", None),
        ("999999999999.999999", Some("999999999999.999999")),
        ("\"0.000001\"", Some("0.000001")),
        ("1e-6", Some("0.000001")),
        ("1E+3", Some("1000.000000")),
        ("1e-7", None),
        ("-0.5", Some("-0.500000")),
    ];
    let lines: Vec<String> =
        values.iter().zip(1..).map(|((value, _), number)| conversion(number, value)).collect();
    let file = fixture.file("events.jsonl", &lines.join("\n"));
    let replayed = fixture.producer(&["replay", file.to_str().unwrap()]);
    assert_eq!(replayed.code, 4, "{replayed:?}");
    let errors: Vec<&str> = replayed.err.lines().collect();
    let refusal = "is not a decimal with at most 12 digits before and 6 after the point";
    assert!(errors[0].starts_with(&format!("line 5: `123456789012.1234567` {refusal}")), "{errors:?}");
    assert!(errors[1].starts_with(&format!("line 10: `1e-7` {refusal}")), "{errors:?}");

    let mut stored = BTreeMap::new();
    for message in fixture.stored("conversions") {
        let read = avro::decode_conversion(&message.value).unwrap();
        stored.insert(read.event_id.as_u128() & 0xffff, read.value.unwrap().to_string());
    }
    let expected: BTreeMap<u128, String> = values
        .iter()
        .zip(1_u32..)
        .filter_map(|((_, stored), number)| {
            Some((u128::from_str_radix(&number.to_string(), 16).unwrap(), (*stored)?.to_owned()))
        })
        .collect();
    assert_eq!(stored, expected);
}

const FLAG: &str = r#"{
 "kind": "flag", "key": "dbl", "value_type": "number", "default_variant": "v0",
 "variants": [
  {"key": "v0", "value": 9163.453718085519},
  {"key": "v1", "value": 3.0135910076946248e-09},
  {"key": "v2", "value": 0.00040815105497451397},
  {"key": "v3", "value": 9007199254740993}
 ]
}"#;

/// Every apply once made a new version, and every export changed the values further.
#[test]
fn a_flag_is_unchanged_however_often_it_is_applied_and_exported() {
    let fixture = KafkaFixture::new("flag-numbers");
    let applied = fixture.apply("flag.json", FLAG, &[]);
    assert_eq!((applied.code, applied.out.as_str()), (0, "flag dbl: accepted, version 1\n"));
    let unchanged = (0, "flag dbl: unchanged, version 1\n".to_owned());
    let again = fixture.apply("flag.json", FLAG, &[]);
    assert_eq!((again.code, again.out), unchanged);
    let yaml = "\
kind: flag
key: dbl
value_type: number
default_variant: v0
variants:
- {key: v0, value: 9163.453718085519}
- {key: v1, value: 3.0135910076946248e-09}
- {key: v2, value: 0.00040815105497451397}
- {key: v3, value: 9007199254740993}
";
    let again = fixture.apply("flag.yaml", yaml, &[]);
    assert_eq!((again.code, again.out), unchanged);

    let exported = fixture.producer(&["definitions", "--json"]);
    for value in ["9163.453718085519", "3.0135910076946248e-9", "0.00040815105497451397", "9007199254740993"]
    {
        assert!(
            exported.out.contains(&format!(r#""value":{value}}}"#)),
            "{value} is not in {}",
            exported.out
        );
    }
    let again = fixture.apply("exported.json", &exported.out, &[]);
    assert_eq!((again.code, again.out), unchanged);
}

const ACCOUNTS: &str = "\
{ kind: metric, key: m1, event: m1, type: conversion }
---
kind: experiment
key: bigint
state: running
control: a
variants:
  - {key: a, weight: 5000}
  - {key: b, weight: 5000}
metrics: {primary: m1}
targeting:
  - key: r1
    when: {attribute: account, equals: 9007199254740993}
  - key: r2
    when: {attribute: account, above: 18446744073709551614}
";

/// 2^53 and 2^53 + 1 share a double.
#[test]
fn targeting_by_account_matches_exactly_the_account_that_is_named() {
    let fixture = KafkaFixture::new("accounts");
    fixture.accept("experiment.yaml", ACCOUNTS);
    let assign = |account: &str| {
        let assigned = fixture.producer(&[
            "assign",
            "bigint",
            "u1",
            "--attribute",
            &format!("account={account}"),
            "--json",
        ]);
        let document: serde_json::Value = serde_json::from_str(&assigned.out).unwrap();
        document["rule"].as_str().map(str::to_owned)
    };
    assert_eq!(assign("9007199254740993").as_deref(), Some("r1"));
    assert_eq!(assign("9007199254740992"), None);
    assert_eq!(assign("\"9007199254740993\""), None);
    assert_eq!(assign("18446744073709551615").as_deref(), Some("r2"));
    assert_eq!(assign("18446744073709551614"), None);
    let refused =
        fixture.producer(&["assign", "bigint", "u1", "--attribute", "account=18446744073709551616"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused
            .err
            .contains("18446744073709551616 is too large for a number; if it is a name, put it in quotes"),
        "{}",
        refused.err
    );
    // Numbers are stored as they were written, so applying the file again changes nothing.
    let again = fixture.apply("experiment.yaml", ACCOUNTS, &[]);
    assert_eq!(again.out, "metric m1: unchanged, version 1\nexperiment bigint: unchanged, version 2\n");
}
