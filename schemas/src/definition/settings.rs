//! The settings of the whole platform, as one definition: how long the tables keep events. From the plan and
//! the metrics of an experiment follows whether that is long enough for it.

use serde::{Deserialize, Serialize};

use super::{Experiment, Metric, Problem, Schedule};
use crate::key::Key;

/// The key of the only definition of this kind.
pub const SETTINGS_KEY: &str = "platform";

/// The longest retention in days. 0 days is longer: events are kept forever.
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

/// The days that the tables keep events after their ingestion, up to [`RETENTION_DAYS_MAX`]; 0: forever.
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
    /// Returns the days with the names of the tables.
    pub fn tables(self) -> [(&'static str, u32); 3] {
        [("exposures", self.exposures), ("conversions", self.conversions), ("aliases", self.aliases)]
    }

    /// Returns the tables that keep events for fewer days than an experiment needs, each with its days and those
    /// that are needed.
    pub(super) fn too_short_for(self, needed: DaysNeeded) -> impl Iterator<Item = (&'static str, u32, u64)> {
        let of_conversions = needed.from_start + u64::from(needed.covariate);
        [("exposures", self.exposures, needed.from_start), ("conversions", self.conversions, of_conversions)]
            .into_iter()
            .filter(|(_, days, needed)| *days > 0 && u64::from(*days) < *needed)
    }
}

/// The days for which an experiment needs its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DaysNeeded {
    /// From the day of the planned start to the last event that counts.
    pub from_start: u64,
    /// The days before the start from which the covariate is taken; conversions alone have one.
    pub covariate: u32,
}

impl DaysNeeded {
    /// Writes which days of a table they are: `from its start to its end ...`.
    pub fn span(self, table: &str) -> String {
        let before = match (table, self.covariate) {
            ("conversions", 1..) => format!("the {} days of its covariate before ", self.covariate),
            _ => String::new(),
        };
        format!("from {before}its start to its end and through the longest window of its metrics")
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

/// Returns the days for which an experiment needs its events, those from the day (UTC) of the planned start to the
/// last event that counts rounded up to whole days: the tables delete the events ingested on one day together,
/// when that many days have passed since the day began. `None` if no start or no end is planned. A metric without
/// a window counts up to the end.
pub(super) fn days_needed<'a>(
    experiment: &Experiment,
    metrics: impl Iterator<Item = &'a Metric>,
) -> Option<DaysNeeded> {
    let Some(Schedule { start: Some(start), end: Some(end) }) = experiment.plan.schedule else { return None };
    let first_day = start.get() - start.get().rem_euclid(MICROS_PER_DAY);
    let window = metrics.filter_map(window_hours).max().unwrap_or(0) * MICROS_PER_HOUR;
    let needed = (end.get() - first_day + window).max(0);
    Some(DaysNeeded {
        from_start: needed.unsigned_abs().div_ceil(MICROS_PER_DAY.unsigned_abs()),
        covariate: experiment.plan.covariate_days.unwrap_or(0),
    })
}

/// Returns the hours after a unit's first exposure until its last event that counts; `None` if there is no limit.
fn window_hours(metric: &Metric) -> Option<i64> {
    let days = metric.retention_days().map(|(_, last)| (i64::from(last) + 1) * HOURS_PER_DAY);
    let window =
        metric.window_hours().map(|window| i64::from(metric.delay_hours.unwrap_or(0)) + i64::from(window));
    days.or(window)
}
