//! What the whole platform must agree on, as one definition: how long the tables keep events. Whether an experiment
//! gets by with that follows from its plan and its metrics.

use serde::{Deserialize, Serialize};

use super::{Experiment, Metric, Problem, Schedule};
use crate::key::Key;

/// The key of the one definition of its kind.
pub const SETTINGS_KEY: &str = "platform";

/// The longest time that events are kept for, in days; 0 is longer: for ever.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const HOURS_PER_DAY: i64 = 24;
const MICROS_PER_DAY: i64 = HOURS_PER_DAY * MICROS_PER_HOUR;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub retention_days: RetentionDays,
}

/// Days that the tables keep events after their ingestion, up to [`RETENTION_DAYS_MAX`]; 0: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionDays {
    #[serde(default)]
    pub exposures: u32,
    #[serde(default)]
    pub conversions: u32,
    #[serde(default)]
    pub aliases: u32,
}

impl RetentionDays {
    /// By the name of the table.
    pub fn tables(self) -> [(&'static str, u32); 3] {
        [("exposures", self.exposures), ("conversions", self.conversions), ("aliases", self.aliases)]
    }

    /// Those that an experiment is computed from.
    fn analyzed(self) -> [(&'static str, u32); 2] {
        [("exposures", self.exposures), ("conversions", self.conversions)]
    }

    /// The tables that keep events for fewer days than an experiment needs, with their days.
    pub(super) fn too_short_for(self, needed: u64) -> impl Iterator<Item = (&'static str, u32)> {
        self.analyzed().into_iter().filter(move |(_, days)| *days > 0 && u64::from(*days) < needed)
    }
}

impl Settings {
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.key.as_str() != SETTINGS_KEY {
            problems
                .push(Problem::new("key", format!("there is one definition of settings, `{SETTINGS_KEY}`")));
        }
        for (table, days) in self.retention_days.tables() {
            if days > RETENTION_DAYS_MAX {
                problems.push(Problem::new(
                    format!("retention_days.{table}"),
                    format!("{days} is not in 0 to {RETENTION_DAYS_MAX}"),
                ));
            }
        }
        problems
    }
}

/// Days from the one (UTC) in which an experiment is planned to start to the last event that counts, begun ones whole:
/// the tables let go of what was ingested in one day together, when so many have passed since it began. `None` where no
/// start or no end is planned. A metric without a window counts up to the end.
pub(super) fn days_needed<'a>(
    experiment: &Experiment,
    metrics: impl Iterator<Item = &'a Metric>,
) -> Option<u64> {
    let Some(Schedule { start: Some(start), end: Some(end) }) = experiment.plan.schedule else { return None };
    let first_day = start.get() - start.get().rem_euclid(MICROS_PER_DAY);
    let window = metrics.filter_map(window_hours).max().unwrap_or(0) * MICROS_PER_HOUR;
    let needed = (end.get() - first_day + window).max(0);
    Some(needed.unsigned_abs().div_ceil(MICROS_PER_DAY.unsigned_abs()))
}

/// Hours after a unit's first exposure in which its events count, if that has an end.
fn window_hours(metric: &Metric) -> Option<i64> {
    let days = metric.retention_days().map(|(_, last)| (i64::from(last) + 1) * HOURS_PER_DAY);
    days.or(metric.window_hours().map(i64::from))
}
