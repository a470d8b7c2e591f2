//! A log of definitions in memory, and definitions to put on it, small enough to be read beside a test.

// Each test binary uses its part.
#![allow(dead_code)]

use schemas::Uuid;
use schemas::definition::{Change, Definitions, Version};
use serde_json::{Value, json};

/// A reader of the log, and its end.
#[derive(Clone, Default)]
pub struct Log {
    pub read: Definitions,
    pub offset: u64,
}

impl Log {
    /// The next record. Its version, or why it has none.
    pub fn take(&mut self, change: &Change) -> Result<Version, String> {
        let judged = self.read.judge(change).expect("a rule that is known");
        let verdict = self.read.apply(self.offset, change).expect("a rule that is known");
        assert_eq!(judged, verdict.clone().map(|accepted| accepted.definition.clone()));
        self.offset += 1;
        verdict.map(|accepted| accepted.version).map_err(|refusal| refusal.to_string())
    }

    /// A definition based on what holds.
    pub fn propose(&mut self, kind: &str, definition: Value) -> Result<Version, String> {
        let change = self.change(kind, definition);
        self.take(&change)
    }

    /// By rule 1, which says most of them.
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

    /// By this rule.
    pub fn propose_by(
        &mut self,
        rule_version: u32,
        kind: &str,
        definition: Value,
    ) -> Result<Version, String> {
        let change = Change { rule_version, ..self.change(kind, definition) };
        self.take(&change)
    }

    /// One in which the metrics `m` and `n` and the layers `l` and `k` are defined, at the versions 1 to 4.
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

    /// With the experiment `e` brought to this state.
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

/// `base` with the fields of `fields`; null takes one away.
pub fn with(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => base.as_object_mut().unwrap().remove(name),
            value => base.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    base
}

/// The experiment `e`, running, in its first phase, split in half, with these fields instead.
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

/// `a` from the start to `end`, `b` from `start` to the end.
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
