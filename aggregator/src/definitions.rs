//! The definitions that analyses go by, read from the mirror of the log: what holds now of each experiment
//! and metric, and since which phase an experiment splits its units as it does now.

use std::collections::BTreeMap;

use clickhouse::Row;
use schemas::definition::{Assignment, Definition, Experiment, Kind, Metric, State, Version};
use serde::Deserialize;

use crate::database::Database;

/// Every experiment and metric, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    pub experiments: BTreeMap<String, Defined<Experiment>>,
    pub metrics: BTreeMap<String, Defined<Metric>>,
    /// One sentence for each row of the mirror that this build cannot read.
    pub unreadable: Vec<String>,
}

/// The current version of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Defined<T> {
    pub version: Version,
    pub definition: T,
    /// The log's clock, in milliseconds since 1970.
    pub changed_at_ms: i64,
    /// The first phase from which on the weights of the variants have been what they are; 1 for a metric.
    /// Units of earlier phases were split otherwise: put together with the later ones, a difference between
    /// the times would look like one between the variants.
    pub split_since_phase: u32,
}

const SQL: &str = "
SELECT kind, version, definition, toUnixTimestamp64Milli(changed_at) AS changed_at_ms
FROM definition_log
WHERE accepted AND kind IN (?, ?)
ORDER BY version
LIMIT 1 BY version";

/// An accepted change, as the mirror has it.
#[derive(Clone, Debug, Row, Deserialize)]
pub struct Change {
    pub kind: String,
    pub version: Version,
    /// JSON.
    pub definition: String,
    pub changed_at_ms: i64,
}

/// What the mirror holds now.
pub async fn read(database: &Database) -> anyhow::Result<Definitions> {
    let query = database.query(SQL).bind(Kind::Experiment.as_str()).bind(Kind::Metric.as_str());
    Ok(fold(database.rows("reading the definitions", query).await?))
}

/// The state after accepted changes, in the order of their versions.
pub fn fold(changes: Vec<Change>) -> Definitions {
    let mut definitions = Definitions::default();
    for change in changes {
        match parse(&change) {
            Ok(Definition::Experiment(experiment)) => {
                let key = experiment.key.as_str().to_owned();
                let before = definitions.experiments.get(&key);
                let split_since_phase = split_since_phase(before, &experiment);
                definitions.experiments.insert(key, change.defines(experiment, split_since_phase));
            }
            Ok(Definition::Metric(metric)) => {
                let key = metric.key.as_str().to_owned();
                definitions.metrics.insert(key, change.defines(metric, 1));
            }
            Ok(_) => {}
            Err(why) => definitions
                .unreadable
                .push(format!("version {} of the definitions cannot be read: {why}", change.version)),
        }
    }
    definitions
}

impl Change {
    fn defines<T>(&self, definition: T, split_since_phase: u32) -> Defined<T> {
        Defined { version: self.version, definition, changed_at_ms: self.changed_at_ms, split_since_phase }
    }
}

impl Defined<Experiment> {
    /// Whether the schedule analyzes it: while it runs, and for some time after it was stopped.
    pub fn is_followed(&self, now_ms: i64, follow_stopped_ms: i64) -> bool {
        match self.definition.state {
            State::Running => true,
            State::Stopped => now_ms - self.changed_at_ms <= follow_stopped_ms,
            State::Draft | State::Archived => false,
        }
    }
}

fn parse(change: &Change) -> Result<Definition, String> {
    let kind = Kind::parse(&change.kind).ok_or_else(|| format!("`{}` is no kind", change.kind))?;
    let value = serde_json::from_str(&change.definition).map_err(|error| error.to_string())?;
    Definition::from_json(kind, value).map_err(|problem| problem.to_string())
}

fn split_since_phase(before: Option<&Defined<Experiment>>, now: &Experiment) -> u32 {
    match before {
        // Somebody else splits the units and numbers no phases of ours.
        _ if now.assignment == Assignment::External => 1,
        Some(before) if weights(&before.definition) == weights(now) => before.split_since_phase,
        // Before it runs nobody is exposed, so no phase has another split.
        Some(before) if before.definition.state != State::Draft => now.phase(),
        _ => 1,
    }
}

/// The shares of the variants that get any units.
fn weights(experiment: &Experiment) -> BTreeMap<&str, u32> {
    let weights = experiment.variants.iter().map(|variant| (variant.key.as_str(), variant.weight.get()));
    weights.filter(|(_, weight)| *weight > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u64, state: &str, phase: u32, weights: (u32, u32), rollout: u32) -> Change {
        let definition = format!(
            r#"{{"key": "e", "state": "{state}", "phase": {phase}, "rollout": {rollout}, "control": "a",
                "variants": [{{"key": "a", "weight": {}}}, {{"key": "b", "weight": {}}}],
                "metrics": {{"primary": "m"}}}}"#,
            weights.0, weights.1
        );
        Change { kind: "experiment".into(), version, definition, changed_at_ms: version as i64 }
    }

    fn since(changes: Vec<Change>) -> u32 {
        let definitions = fold(changes);
        assert_eq!(definitions.unreadable, Vec::<String>::new());
        definitions.experiments["e"].split_since_phase
    }

    #[test]
    fn a_ramp_of_the_rollout_keeps_the_units_so_far() {
        let even = (5_000, 5_000);
        let ramp = vec![
            change(1, "draft", 1, even, 1_000),
            change(2, "running", 1, even, 1_000),
            change(3, "running", 2, even, 10_000),
        ];
        assert_eq!(since(ramp), 1);
    }

    #[test]
    fn a_change_of_the_split_starts_anew() {
        let shift = vec![
            change(1, "running", 1, (9_000, 1_000), 10_000),
            change(2, "running", 2, (5_000, 5_000), 10_000),
            change(3, "stopped", 2, (5_000, 5_000), 10_000),
            change(4, "running", 3, (5_000, 5_000), 10_000),
        ];
        assert_eq!(since(shift), 2);
    }

    #[test]
    fn a_draft_may_change_its_split_without_consequence() {
        let redraft = vec![
            change(1, "draft", 1, (9_000, 1_000), 10_000),
            change(2, "running", 1, (5_000, 5_000), 10_000),
        ];
        assert_eq!(since(redraft), 1);
    }

    #[test]
    fn a_stopped_experiment_is_followed_for_a_while() {
        let mut stopped = fold(vec![change(1_000, "stopped", 1, (5_000, 5_000), 10_000)]);
        let stopped = stopped.experiments.remove("e").unwrap();
        assert!(stopped.is_followed(1_500, 500));
        assert!(!stopped.is_followed(1_501, 500));
    }

    #[test]
    fn what_a_later_build_wrote_is_named_and_the_rest_is_read() {
        let mut later = change(2, "running", 1, (5_000, 5_000), 10_000);
        later.definition = later.definition.replace("\"control\"", "\"colour\": 1, \"control\"");
        let definitions = fold(vec![change(1, "running", 1, (5_000, 5_000), 10_000), later]);
        assert_eq!(definitions.experiments["e"].version, 1);
        assert_eq!(definitions.unreadable.len(), 1);
        assert!(
            definitions.unreadable[0].starts_with("version 2 of the definitions cannot be read: "),
            "{}",
            definitions.unreadable[0]
        );
    }
}
