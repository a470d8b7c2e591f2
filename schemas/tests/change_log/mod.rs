//! A log of definitions in memory, and small definitions to propose on it.

// Each test binary uses only a part of this.
#![allow(dead_code)]

use schemas::definition::{Change, Definitions, Version};
use schemas::{Micros, Uuid};
use serde_json::{Value, json};

/// A reader of the log, and the offset of the next record.
#[derive(Clone, Default)]
pub struct Log {
    pub read: Definitions,
    pub offset: u64,
}

impl Log {
    /// Applies the next record. Returns its version, or why it was refused.
    pub fn take(&mut self, change: &Change) -> Result<Version, String> {
        let judged = self.read.judge(Micros::EPOCH, change).expect("a rule that is known");
        let verdict = self.read.apply(self.offset, Micros::EPOCH, change).expect("a rule that is known");
        assert_eq!(judged, verdict.clone().map(|accepted| accepted.definition.clone()));
        self.offset += 1;
        verdict.map(|accepted| accepted.version).map_err(|refusal| refusal.to_string())
    }

    /// Proposes a definition based on the current version, under rule 1.
    pub fn propose(&mut self, kind: &str, definition: Value) -> Result<Version, String> {
        let change = self.change(kind, definition);
        self.take(&change)
    }

    /// Returns a change based on the current version, under rule 1, which most tests use.
    pub fn change(&self, kind: &str, definition: Value) -> Change {
        let key = definition["key"].as_str().unwrap().to_owned();
        let space = |kind: &str| if kind == "flag" { "experiment" } else { kind }.to_owned();
        let based_on = self
            .read
            .iter()
            .find(|accepted| {
                accepted.definition.key().as_str() == key
                    && space(accepted.definition.kind().as_str()) == space(kind)
            })
            .map_or(0, |accepted| accepted.version);
        Change {
            change_id: Uuid::from_u128(u128::from(self.offset)),
            rule_version: 1,
            kind: kind.to_owned(),
            key,
            based_on,
            definition: definition.to_string(),
            author: "ann".to_owned(),
            reason: "because".to_owned(),
        }
    }

    /// Proposes a definition based on the current version, under this rule.
    pub fn propose_by(
        &mut self,
        rule_version: u32,
        kind: &str,
        definition: Value,
    ) -> Result<Version, String> {
        let change = Change { rule_version, ..self.change(kind, definition) };
        self.take(&change)
    }

    /// Returns a log with the metrics `m` and `n` and the layers `l` and `k`, at the versions 1 to 4.
    pub fn furnished() -> Log {
        let mut log = Log::default();
        for (kind, key) in [("metric", "m"), ("metric", "n"), ("layer", "l"), ("layer", "k")] {
            let definition = match kind {
                "metric" => json!({"key": key, "event": "buy", "type": "conversion"}),
                _ => json!({"key": key}),
            };
            log.propose(kind, definition).unwrap();
        }
        log
    }

    /// Returns a furnished log with the experiment `e` in this state.
    pub fn with_experiment(state: &str) -> Log {
        let mut log = Log::furnished();
        let way: &[&str] = match state {
            "draft" => &["draft"],
            "running" => &["running"],
            "stopped" => &["running", "stopped"],
            "archived" => &["draft", "archived"],
            other => panic!("{other}"),
        };
        for state in way {
            log.propose("experiment", experiment(json!({"state": state}))).unwrap();
        }
        log
    }

    #[track_caller]
    pub fn check(&mut self, kind: &str, definition: Value, expected: Result<(), &str>) {
        let verdict = self.propose(kind, definition.clone()).map(|_| ());
        assert_eq!(verdict, expected.map_err(str::to_owned), "{definition}");
    }
}

/// Returns `base` with the fields of `fields`; a null removes a field.
pub fn with(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => base.as_object_mut().unwrap().remove(name),
            value => base.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    base
}

/// Returns the experiment `e`, running, in its first phase, split in halves, with these fields replaced.
pub fn experiment(fields: Value) -> Value {
    let base = json!({
        "key": "e",
        "state": "running",
        "phase": 1,
        "variants": halves(500_000, 500_000),
        "control": "a",
        "metrics": {"primary": "m"},
    });
    with(base, fields)
}

/// Returns the variants `a`, from bucket 0 to `end`, and `b`, from `start` to the last bucket.
pub fn halves(end: u32, start: u32) -> Value {
    json!([variant("a", &[[0, end]]), variant("b", &[[start, 1_000_000]])])
}

pub fn variant(key: &str, ranges: &[[u32; 2]]) -> Value {
    let buckets: u32 = ranges.iter().map(|[lo, hi]| hi - lo).sum();
    json!({"key": key, "weight": buckets / 100, "ranges": ranges})
}

pub fn flag(fields: Value) -> Value {
    let base = json!({
        "key": "f",
        "value_type": "boolean",
        "variants": [{"key": "on", "value": true}, {"key": "off", "value": false}],
        "default_variant": "off",
    });
    with(base, fields)
}
