//! Units and outcomes by variant and phase, counted by ClickHouse at a cut. One query serves every kind of
//! metric that is computed, and agrees with the view `experiment_events`: the first exposure of each unit,
//! conversions not before it, each event once. The units of a switchback are its windows.

use clickhouse::Row;
use schemas::Micros;
use schemas::definition::Switchback;
use serde::Deserialize;

use crate::cut::{Cut, ends};
use crate::database::Database;
use crate::look::{Sums, ValueSums};

/// What to count.
pub struct Question<'a> {
    pub experiment: &'a str,
    pub event: &'a str,
    /// The environments whose events count.
    pub environments: &'a [&'a str],
    /// The conversion window in hours; none if it has no end.
    pub window_hours: Option<u32>,
    /// The type of the experiment's units; of a switchback that of the clusters.
    pub unit_type: &'a str,
    /// How time is cut into windows, if it is a switchback.
    pub switchback: Option<Switchback>,
}

/// The counts, and the query that produced them with its values in it, so that anybody can run it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub counts: Vec<Counts>,
    pub sql: String,
}

/// The units of one variant in one phase, both taken from the first exposure.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Counts {
    pub variant: String,
    pub phase: u32,
    /// The time at which the first of the exposures came into the table, in milliseconds since 1970; it
    /// determines when they expire.
    pub ingested_since_ms: i64,
    pub units: u64,
    /// Units ever forced into a variant; not in `units`.
    pub units_forced: u64,
    /// The units of `units_forced` whose first exposure was not forced.
    pub units_forced_later: u64,
    /// The units of `units` that were exposed to another variant later.
    pub units_in_several_variants: u64,
    /// All exposures of the units, also of forced ones.
    pub exposures_of_units: u64,
    /// Those of them that the consumer has marked as mismatched: the configuration version that they name gives
    /// their unit another variant.
    pub exposures_mismatched: u64,
    /// Units that a mismatched exposure counts, since it is their first one, or takes out, since it is a forced one. A later one
    /// moves no number.
    pub units_mismatched: u64,
    /// Units with at least one event.
    pub conversions: u64,
    /// The number of events of a unit, and its square, each summed over the units.
    pub events: String,
    pub events_squared: String,
    /// The total value of a unit's events in millionths, and its square, each summed over the units.
    pub total: String,
    pub total_squared: String,
}

const SQL: &str = include_str!("counts.sql");

const MICROSECONDS_PER_HOUR: u64 = 3_600_000_000;

/// Counts at the cut, without events created after `as_of`.
pub async fn count(
    database: &Database,
    question: &Question<'_>,
    cut: &Cut,
    as_of: Micros,
) -> anyhow::Result<Answer> {
    let (exposures, conversions) = (ends(&cut.exposures), ends(&cut.conversions));
    let query = database
        .query(SQL)
        .bind(question.experiment)
        .bind(question.event)
        .bind(question.environments)
        .bind(question.window_hours.map_or(0, |hours| u64::from(hours) * MICROSECONDS_PER_HOUR))
        .bind(question.unit_type)
        .bind(question.switchback.map_or(0, |of| of.window_seconds))
        .bind(question.switchback.map_or(0, |of| of.burn_in_seconds))
        .bind(as_of.get())
        .bind(exposures.epochs)
        .bind(exposures.next_offsets)
        .bind(conversions.epochs)
        .bind(conversions.next_offsets);
    let sql = query.sql_display().to_string();
    let doing = format!("counting `{}` in {}", question.event, question.experiment);
    Ok(Answer { counts: database.rows(&doing, query).await?, sql })
}

/// Events created after the as-of time, by a clock ahead of ours. They are left out for now.
const LATER_SQL: &str = "
SELECT sum(later) AS events, minOrNull(first) AS first_at FROM
(
    SELECT count() AS later, minOrNull(toUnixTimestamp64Micro(created_at)) AS first FROM exposures
    WHERE experiment = ? AND has(?, environment) AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
    UNION ALL
    SELECT count() AS later, minOrNull(toUnixTimestamp64Micro(created_at)) AS first FROM conversions
    WHERE name IN ? AND experiment IN ('', ?) AND has(?, environment) AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
)";

/// Events whose time is still in the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Later {
    pub events: u64,
    /// The time of the first of them, in microseconds since 1970; none without events.
    pub first_at: Option<i64>,
}

/// Counts the events of an experiment that carry a time after `as_of`.
pub async fn count_later(
    database: &Database,
    experiment: &str,
    events: &[&str],
    environments: &[&str],
    as_of: Micros,
) -> anyhow::Result<Later> {
    let query = database
        .query(LATER_SQL)
        .bind(experiment)
        .bind(environments)
        .bind(as_of.get())
        .bind(events)
        .bind(experiment)
        .bind(environments)
        .bind(as_of.get());
    let doing = format!("looking for events from the future in {experiment}");
    Ok(database.rows::<Later>(&doing, query).await?.into_iter().next().unwrap_or_default())
}

/// The value of a unit that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The number of its events.
    Events,
    /// The sum of their values.
    Total,
}

impl Value {
    /// Returns the number of decimal places.
    pub fn decimals(self) -> u32 {
        match self {
            Value::Events => 0,
            Value::Total => 6,
        }
    }
}

impl Counts {
    /// Returns the sums over the units that are compared.
    pub fn sums(&self, value: Option<Value>) -> Sums {
        let values = value.map(|value| {
            let (sum, sum_of_squares) = match value {
                Value::Events => (&self.events, &self.events_squared),
                Value::Total => (&self.total, &self.total_squared),
            };
            let (sum, sum_of_squares) = (sum.clone(), sum_of_squares.clone());
            ValueSums { sum, sum_of_squares, decimals: value.decimals() }
        });
        Sums { units: self.units, conversions: self.conversions, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: &str, total_squared: &str) -> Counts {
        Counts {
            variant: "a".into(),
            phase: 1,
            ingested_since_ms: 0,
            units: 4,
            units_forced: 0,
            units_forced_later: 0,
            units_in_several_variants: 0,
            exposures_of_units: 4,
            exposures_mismatched: 0,
            units_mismatched: 0,
            conversions: 2,
            events: "3".into(),
            events_squared: "5".into(),
            total: total.into(),
            total_squared: total_squared.into(),
        }
    }

    #[test]
    fn moments_come_from_exact_sums() {
        // Two units with 1 and 2 events, worth 10.5 and 20, and two without.
        let counts = counts("30500000", "510250000000000");
        let moments = |value| {
            let sums = counts.sums(Some(value));
            sums.moments(sums.values.as_ref().unwrap()).unwrap()
        };
        let events = moments(Value::Events);
        assert_eq!((events.mean(), events.variance()), (0.75, Some(11.0 / 12.0)));
        let total = moments(Value::Total);
        assert_eq!((total.mean(), total.variance()), (7.625, Some(92.5625)));
    }

    #[test]
    fn sums_beyond_the_arithmetic_are_named() {
        let sums = counts("1", &"9".repeat(40)).sums(Some(Value::Total));
        let refused = sums.moments(sums.values.as_ref().unwrap()).unwrap_err();
        assert_eq!(refused, format!("the sums (1, {}) are beyond 128 bits", "9".repeat(40)));
    }
}
