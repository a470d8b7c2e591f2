//! Units and outcomes per variant, counted by ClickHouse at a cut. One query serves every kind of metric
//! that is computed, and says the same as the view `experiment_events`: first exposure of each unit,
//! conversions not before it, each event once.

use clickhouse::Row;
use schemas::Micros;
use serde::Deserialize;
use stats::{ExactSums, Moments};

use crate::cut::{Cut, ends};
use crate::database::Database;

/// What to count.
pub struct Question<'a> {
    pub experiment: &'a str,
    pub event: &'a str,
    /// Units first exposed in an earlier phase are counted apart.
    pub since_phase: u32,
    /// None: no end.
    pub window_hours: Option<u32>,
}

/// The answer, and the query that gave it, ready to be run again by anybody.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub variants: Vec<Counts>,
    pub sql: String,
}

/// One variant's units, by what their first exposure says.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Counts {
    pub variant: String,
    pub units: u64,
    /// Of `units`: those that were exposed to another variant later.
    pub units_in_several_variants: u64,
    /// Not in `units`: first exposed while the variants had other shares.
    pub units_of_earlier_phases: u64,
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
) -> anyhow::Result<Counted> {
    let (exposures, conversions) = (ends(&cut.exposures), ends(&cut.conversions));
    let query = database
        .query(SQL)
        .bind(question.experiment)
        .bind(question.event)
        .bind(question.since_phase)
        .bind(question.window_hours.map_or(0, |hours| u64::from(hours) * MICROSECONDS_PER_HOUR))
        .bind(as_of.get())
        .bind(exposures.epochs)
        .bind(exposures.next_offsets)
        .bind(conversions.epochs)
        .bind(conversions.next_offsets);
    let sql = query.sql_display().to_string();
    let doing = format!("counting `{}` in {}", question.event, question.experiment);
    Ok(Counted { variants: database.rows(&doing, query).await?, sql })
}

/// Made after the as-of time, by a clock ahead of ours, and therefore left out for now.
const LATER_SQL: &str = "
SELECT sum(later) FROM
(
    SELECT count() AS later FROM exposures
    WHERE experiment = ? AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
    UNION ALL
    SELECT count() AS later FROM conversions
    WHERE name IN ? AND experiment IN ('', ?) AND created_at > fromUnixTimestamp64Micro(toInt64(?), 'UTC')
)";

/// How many events of an experiment carry a time after `as_of`.
pub async fn count_later(
    database: &Database,
    experiment: &str,
    events: &[&str],
    as_of: Micros,
) -> anyhow::Result<u64> {
    let query = database
        .query(LATER_SQL)
        .bind(experiment)
        .bind(as_of.get())
        .bind(events)
        .bind(experiment)
        .bind(as_of.get());
    let doing = format!("looking for events from the future in {experiment}");
    Ok(database.rows::<u64>(&doing, query).await?.into_iter().sum())
}

/// Which value of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// How many events it has.
    Events,
    /// What their values add up to.
    Total,
}

impl Counts {
    /// The moments of a value over the units; an error says what is wrong with the sums.
    pub fn moments(&self, value: Value) -> Result<Moments, String> {
        let (sum, squares, decimals) = match value {
            Value::Events => (&self.events, &self.events_squared, 0),
            Value::Total => (&self.total, &self.total_squared, 6),
        };
        let too_large = || format!("the sums of `{}` ({sum}, {squares}) are beyond 128 bits", self.variant);
        let sums = ExactSums {
            count: self.units,
            sum: sum.parse().map_err(|_| too_large())?,
            sum_of_squares: squares.parse().map_err(|_| too_large())?,
            decimals,
        };
        Moments::from_exact(sums).map_err(|invalid| invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: &str, total_squared: &str) -> Counts {
        Counts {
            variant: "a".into(),
            units: 4,
            units_in_several_variants: 0,
            units_of_earlier_phases: 0,
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
        let events = counts.moments(Value::Events).unwrap();
        assert_eq!((events.mean(), events.variance()), (0.75, Some(11.0 / 12.0)));
        let total = counts.moments(Value::Total).unwrap();
        assert_eq!((total.mean(), total.variance()), (7.625, Some(92.5625)));
    }

    #[test]
    fn sums_beyond_the_arithmetic_are_named() {
        let refused = counts("1", &"9".repeat(40)).moments(Value::Total).unwrap_err();
        assert_eq!(refused, format!("the sums of `a` (1, {}) are beyond 128 bits", "9".repeat(40)));
    }
}
