//! Units and outcomes per variant and phase, counted by ClickHouse at a cut. One query serves every kind of metric
//! that is computed, and agrees with the view `experiment_events`: first exposure of each unit,
//! conversions not before it, each event once.

use clickhouse::Row;
use schemas::Micros;
use serde::Deserialize;

use crate::cut::{Cut, ends};
use crate::database::Database;
use crate::look::{Sums, ValueSums};

/// What to count.
pub struct Question<'a> {
    pub experiment: &'a str,
    pub event: &'a str,
    /// Those whose events count.
    pub environments: &'a [&'a str],
    /// None: no end.
    pub window_hours: Option<u32>,
}

/// The answer, and the query that gave it with its values in it, so that anybody can run it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub counts: Vec<Counts>,
    pub sql: String,
}

/// The units of one variant in one phase, by what their first exposure says.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Counts {
    pub variant: String,
    pub phase: u32,
    /// When the first of the exposures came into the table, in milliseconds since 1970: they expire by that.
    pub ingested_since_ms: i64,
    pub units: u64,
    /// Not in `units`: ever forced into a variant.
    pub units_forced: u64,
    /// Of `units_forced`: those that were not forced at first.
    pub units_forced_later: u64,
    /// Of `units`: those that were exposed to another variant later.
    pub units_in_several_variants: u64,
    /// Units with at least one event.
    pub conversions: u64,
    /// Over the units: the number of their events, and its square.
    pub events: String,
    pub events_squared: String,
    /// Over the units: the sum of their events' values in millionths, and its square.
    pub total: String,
    pub total_squared: String,
}

const SQL: &str = include_str!("counts.sql");

const MICROSECONDS_PER_HOUR: u64 = 3_600_000_000;

/// Counts at the cut, leaving out what was made after `as_of`.
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
        .bind(as_of.get())
        .bind(exposures.epochs)
        .bind(exposures.next_offsets)
        .bind(conversions.epochs)
        .bind(conversions.next_offsets);
    let sql = query.sql_display().to_string();
    let doing = format!("counting `{}` in {}", question.event, question.experiment);
    Ok(Answer { counts: database.rows(&doing, query).await?, sql })
}

/// Made after the as-of time, by a clock ahead of ours, and therefore left out for now.
const LATER_SQL: &str = "
SELECT sum(later) AS events, minOrNull(first) AS first_at FROM
(
    SELECT count() AS later, minOrNull(toUnixTimestamp64Micro(created_at)) AS first FROM exposures
    WHERE experiment = ? AND has(?, environment) AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
    UNION ALL
    SELECT count() AS later, minOrNull(toUnixTimestamp64Micro(created_at)) AS first FROM conversions
    WHERE name IN ? AND experiment IN ('', ?) AND has(?, environment) AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
)";

/// Events whose time is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Later {
    pub events: u64,
    /// Microseconds since 1970, of the first of them; none without events.
    pub first_at: Option<i64>,
}

/// The events of an experiment that carry a time after `as_of`.
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

/// Which value of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// How many events it has.
    Events,
    /// What their values add up to.
    Total,
}

impl Value {
    /// Digits behind the point.
    pub fn decimals(self) -> u32 {
        match self {
            Value::Events => 0,
            Value::Total => 6,
        }
    }
}

impl Counts {
    /// What is compared of the units.
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
