//! The rules of the definitions log beside each other: what a record of rule 1 says stays what it was, and which
//! rule a writer's change needs.

mod change_log;

use change_log::*;
use schemas::definition::{Change, Definition, Definitions, Kind, Rule};
use serde_json::{Value, json};

/// Records as builds that knew rule 1 alone wrote them, with the verdicts that those builds gave.
const RULE_1: &str = include_str!("definitions/rule_1.jsonl");

#[test]
fn records_of_rule_1_are_read_and_judged_as_when_they_were_written() {
    let mut definitions = Definitions::default();
    for (offset, line) in (0..).zip(RULE_1.lines()) {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let verdict = record.as_object_mut().unwrap().remove("verdict").unwrap();
        let change: Change = serde_json::from_value(record).unwrap();
        assert_eq!(change.rule_version, 1);
        let judged = match definitions.apply(offset, &change).unwrap() {
            Ok(accepted) => {
                // What a writer wrote through its types is written again to the byte.
                if change.key != "by-hand" {
                    assert_eq!(accepted.definition.to_json(), change.definition);
                }
                json!({"accepted": accepted.version})
            }
            Err(refusal) => json!({"refused": refusal.to_string()}),
        };
        assert_eq!(judged, verdict, "{line}");
    }
    assert_eq!(definitions.next_offset(), 37);
    assert_eq!(definitions.version(), 36);
}

/// The rule that a writer names in a change to this definition.
fn rule_for(log: &Log, kind: &str, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::parse(kind).unwrap(), definition).unwrap())
}

#[test]
fn what_rule_1_can_say_is_proposed_by_it() {
    let log = Log::with_experiment("running");
    for (kind, definition) in [
        ("experiment", experiment(json!({"state": "stopped"}))),
        ("experiment", experiment(json!({"rollout": 5_000, "phase": 2}))),
        ("experiment", experiment(json!({"key": "new"}))),
        ("flag", flag(json!({}))),
        ("layer", json!({"key": "l", "owner": "ann"})),
        ("metric", json!({"key": "new", "event": "buy", "type": "count"})),
    ] {
        assert_eq!(rule_for(&log, kind, definition.clone()), Rule::One, "{definition}");
    }
}
