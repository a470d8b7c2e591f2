//! Units and values by variant and phase, counted by ClickHouse at a cut. One query serves every kind of metric, and
//! agrees with the view `experiment_events`: the first exposure of each unit, conversions not before it, each event once. The
//! units of a switchback are its windows.
//!
//! The package `counting` computes the same from rows in memory; tests compare the two.

use anyhow::Context;
use clickhouse::Row;
use counting::read::{MetricCounts, UnitCounts};
use counting::sums::{Sums, Values};
use schemas::Micros;
use schemas::definition::{Experiment, Metric};
use serde::Deserialize;

use crate::cut::Cut;
use crate::database::Database;

mod expressions;
mod sql;

/// What to count.
pub struct Question<'a> {
    pub experiment: &'a Experiment,
    /// None if the metric is not defined: then only units are counted.
    pub metric: Option<&'a Metric>,
    /// The cap of a metric that is winsorized at a quantile, once it is frozen: events or millionths.
    pub cap: Option<i128>,
}

/// The counts, and the query that produced them with its values in it, so that anybody can run it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// In the order of variant and phase.
    pub units: Vec<UnitCounts>,
    /// When the first of the exposures came into the table, in milliseconds since 1970; it determines when they expire.
    pub ingested_since_ms: Option<i64>,
    /// In the order of variant and phase. If the metric is not defined, no unit has an event.
    pub metric: Vec<MetricCounts>,
    pub sql: String,
}

/// The units of one variant in one phase, those with an open window apart.
#[derive(Clone, Debug, Row, Deserialize)]
struct Counted {
    variant: String,
    phase: u32,
    is_matured: bool,
    ingested_since_ms: i64,
    units: u64,
    units_forced: u64,
    units_forced_later: u64,
    units_in_several_variants: u64,
    exposures_of_units: u64,
    exposures_mismatched: u64,
    units_mismatched: u64,
    units_with_value: u64,
    units_with_event: u64,
    y: String,
    x: String,
    yy: String,
    xx: String,
    xy: String,
    units_by_step: Vec<u64>,
    single_values: Vec<(String, u64)>,
}

/// Counts at the cut, without events created after `as_of`.
///
/// # Errors
/// If ClickHouse fails, or answers with something that is no count.
pub async fn count(
    database: &Database,
    question: &Question<'_>,
    cut: &Cut,
    as_of: Micros,
) -> anyhow::Result<Answer> {
    let query = sql::query(database, question, cut, as_of);
    let sql = query.sql_display().to_string();
    let key = &question.experiment.key;
    let doing = match question.metric {
        Some(metric) => format!("counting `{}` in {key}", metric.key),
        None => format!("counting the units of {key}"),
    };
    let mut answer = Answer { units: Vec::new(), ingested_since_ms: None, metric: Vec::new(), sql };
    for counted in database.rows::<Counted>(&doing, query).await? {
        answer.add(counted).with_context(|| doing.clone())?;
    }
    Ok(answer)
}

impl Answer {
    /// Adds the counts of a variant in a phase, which come one after the other.
    fn add(&mut self, counted: Counted) -> anyhow::Result<()> {
        let same = |variant: &str, phase: u32| variant == counted.variant && phase == counted.phase;
        if !self.units.last().is_some_and(|of| same(&of.variant, of.phase)) {
            self.units.push(UnitCounts {
                variant: counted.variant.clone(),
                phase: counted.phase,
                ..UnitCounts::default()
            });
        }
        let units = self.units.last_mut().expect("it was just added");
        units.units += counted.units;
        units.units_forced += counted.units_forced;
        units.units_forced_later += counted.units_forced_later;
        units.units_in_several_variants += counted.units_in_several_variants;
        units.exposures_of_units += counted.exposures_of_units;
        units.exposures_mismatched += counted.exposures_mismatched;
        units.units_mismatched += counted.units_mismatched;
        let since = self.ingested_since_ms.get_or_insert(counted.ingested_since_ms);
        *since = counted.ingested_since_ms.min(*since);
        let sums = counted.sums()?;
        if sums.is_empty() {
            return Ok(());
        }
        if !self.metric.last().is_some_and(|of| same(&of.variant, of.phase)) {
            self.metric.push(MetricCounts {
                variant: counted.variant.clone(),
                phase: counted.phase,
                ..MetricCounts::default()
            });
        }
        let metric = self.metric.last_mut().expect("it was just added");
        if counted.is_matured {
            metric.matured = sums;
        } else {
            metric.open = sums;
        }
        Ok(())
    }
}

impl Counted {
    fn sums(&self) -> anyhow::Result<Sums> {
        let single = self.single_values.iter().map(|(value, units)| Ok((value.parse()?, *units)));
        let single: anyhow::Result<Vec<(i128, u64)>> = single.collect();
        Ok(Sums {
            units: self.units_with_value,
            with_event: self.units_with_event,
            y: self.y.parse().context("reading the sum of the values")?,
            x: self.x.parse().context("reading the sum of the second values")?,
            yy: self.yy.parse().context("reading the sum of the squares")?,
            xx: self.xx.parse().context("reading the sum of the second squares")?,
            xy: self.xy.parse().context("reading the sum of the products")?,
            steps: self.units_by_step.clone(),
            values: Values::from_counts(single.context("reading the single values")?),
        })
    }
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
