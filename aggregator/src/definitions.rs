//! The definitions that analyses use, read from the mirror of the log: the current version of each experiment
//! and metric, and how each phase of an experiment split its units.

use std::collections::BTreeMap;

use clickhouse::Row;
use schemas::definition::{Definition, Experiment, Kind, Metric, State, Version};
use serde::Deserialize;

use crate::database::Database;

/// All experiments and metrics, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    pub experiments: BTreeMap<String, Defined<Experiment>>,
    pub metrics: BTreeMap<String, Defined<Metric>>,
    /// Days after their ingestion for which exposures are kept; 0 for ever.
    pub exposures_kept_days: u32,
    /// One sentence for each row of the mirror that this build cannot read.
    pub unreadable: Vec<String>,
}

/// The current version of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Defined<T> {
    pub version: Version,
    pub definition: T,
    /// The log's time of the change, in milliseconds since 1970.
    pub changed_at_ms: i64,
    /// The phases in order, each with its split; none for a metric. Units of different splits are never pooled:
    /// a difference between the times would look like one between the variants.
    pub phases: Vec<Phase>,
}

/// A current or former phase of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// From 1.
    pub number: u32,
    /// The weight in basis points of each variant that gets any units.
    pub weights: BTreeMap<String, u32>,
}

const SQL: &str = "
SELECT kind, version, definition, toUnixTimestamp64Milli(changed_at) AS changed_at_ms
FROM definition_log
WHERE accepted AND kind IN (?, ?, ?)
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

/// Reads the current state of the mirror.
pub async fn read(database: &Database) -> anyhow::Result<Definitions> {
    let query = database.query(SQL);
    let query = [Kind::Experiment, Kind::Metric, Kind::Settings]
        .into_iter()
        .fold(query, |query, kind| query.bind(kind.as_str()));
    Ok(fold(database.rows("reading the definitions", query).await?))
}

/// Folds accepted changes, in the order of their versions, into the current state.
pub fn fold(changes: Vec<Change>) -> Definitions {
    let mut definitions = Definitions::default();
    for change in changes {
        match parse(&change) {
            Ok(Definition::Experiment(experiment)) => {
                let key = experiment.key.as_str().to_owned();
                let before = definitions.experiments.get(&key);
                let phases = phases(before, &experiment);
                definitions.experiments.insert(key, change.defines(experiment, phases));
            }
            Ok(Definition::Metric(metric)) => {
                let key = metric.key.as_str().to_owned();
                definitions.metrics.insert(key, change.defines(metric, Vec::new()));
            }
            Ok(Definition::Settings(settings)) => {
                definitions.exposures_kept_days = settings.retention_days.exposures;
            }
            Ok(_) => {}
            Err(why) => definitions
                .unreadable
                .push(format!("version {} of the definitions cannot be read: {why}", change.version)),
        }
    }
    definitions
}

impl Definitions {
    /// Returns the longest time after its first exposure in which a unit's value changes, over the metrics of an experiment
    /// that have a window; in milliseconds.
    pub fn longest_window_ms(&self, experiment: &Experiment) -> i64 {
        let metrics = experiment.metrics.fields().filter_map(|(_, key)| self.metrics.get(key.as_str()));
        let hours = metrics.filter_map(|of| of.definition.final_after_hours()).max().unwrap_or(0);
        // Windows are closed by the hour.
        i64::try_from((hours + 1) * 3_600_000).unwrap_or(i64::MAX)
    }
}

impl Change {
    fn defines<T>(&self, definition: T, phases: Vec<Phase>) -> Defined<T> {
        Defined { version: self.version, definition, changed_at_ms: self.changed_at_ms, phases }
    }
}

impl Defined<Experiment> {
    /// Returns whether the schedule analyzes it: while it runs, and for some time after its last unit's longest window
    /// once it was stopped.
    pub fn is_followed(&self, now_ms: i64, follow_stopped_ms: i64, longest_window_ms: i64) -> bool {
        match self.definition.state {
            State::Running => true,
            // Its last unit may have been exposed when it was stopped.
            State::Stopped => {
                now_ms - self.changed_at_ms <= longest_window_ms.saturating_add(follow_stopped_ms)
            }
            State::Draft | State::Archived => false,
        }
    }
}

fn parse(change: &Change) -> Result<Definition, String> {
    let kind = Kind::parse(&change.kind).ok_or_else(|| format!("`{}` is no kind", change.kind))?;
    let value = serde_json::from_str(&change.definition).map_err(|error| error.to_string())?;
    Definition::from_json(kind, value).map_err(|problem| problem.to_string())
}

/// Returns the phases after this change. A draft exposes nobody, so it has only the phase that it will begin
/// with. Where another system splits the units, their exposures name the phase all the same.
fn phases(before: Option<&Defined<Experiment>>, now: &Experiment) -> Vec<Phase> {
    let number = now.phase();
    let before = before.filter(|before| before.definition.state != State::Draft);
    let earlier = before.map_or(&[][..], |before| &before.phases);
    let mut phases: Vec<Phase> = earlier.iter().filter(|phase| phase.number < number).cloned().collect();
    phases.push(Phase { number, weights: weights(now) });
    phases
}

/// Returns the weights of the variants that get any units.
fn weights(experiment: &Experiment) -> BTreeMap<String, u32> {
    let weights =
        experiment.variants.iter().map(|variant| (variant.key.as_str().to_owned(), variant.weight.get()));
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

    /// Returns the number of each phase with the weight of `a`.
    fn phases(changes: Vec<Change>) -> Vec<(u32, u32)> {
        let definitions = fold(changes);
        assert_eq!(definitions.unreadable, Vec::<String>::new());
        let phases = &definitions.experiments["e"].phases;
        phases.iter().map(|phase| (phase.number, phase.weights["a"])).collect()
    }

    #[test]
    fn every_phase_keeps_its_split() {
        let shift = vec![
            change(1, "running", 1, (9_000, 1_000), 1_000),
            change(2, "running", 2, (9_000, 1_000), 10_000),
            change(3, "running", 3, (5_000, 5_000), 10_000),
            change(4, "stopped", 3, (5_000, 5_000), 10_000),
            change(5, "running", 4, (5_000, 5_000), 10_000),
        ];
        assert_eq!(phases(shift), [(1, 9_000), (2, 9_000), (3, 5_000), (4, 5_000)]);
    }

    /// All units of an external experiment were tested against the weights of the last phase.
    #[test]
    fn an_external_experiment_has_phases_too() {
        let external = |version, phase, weights| {
            let mut change = change(version, "running", phase, weights, 10_000);
            change.definition =
                change.definition.replace("{\"key\": \"e\"", "{\"assignment\": \"external\", \"key\": \"e\"");
            change
        };
        let again = vec![external(1, 1, (5_000, 5_000)), external(2, 2, (6_000, 4_000))];
        assert_eq!(phases(again), [(1, 5_000), (2, 6_000)]);
    }

    #[test]
    fn a_draft_may_change_its_split_without_consequence() {
        let redraft = vec![
            change(1, "draft", 1, (9_000, 1_000), 10_000),
            change(2, "running", 1, (5_000, 5_000), 10_000),
        ];
        assert_eq!(phases(redraft), [(1, 5_000)]);
    }

    #[test]
    fn a_stopped_experiment_is_followed_for_a_while() {
        let mut stopped = fold(vec![change(1_000, "stopped", 1, (5_000, 5_000), 10_000)]);
        let stopped = stopped.experiments.remove("e").unwrap();
        assert!(stopped.is_followed(1_500, 500, 0));
        assert!(!stopped.is_followed(1_501, 500, 0));
        // Longer where a metric's window is open until then.
        assert!(stopped.is_followed(1_700, 500, 200));
        assert!(!stopped.is_followed(1_701, 500, 200));
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
