//! Results in ClickHouse: rows of `results` for each metric and variant at every round, and the document in
//! `analyses` when it has something new. Stored results are only displayed, or compared with new ones; nothing
//! is computed from them.

use std::time::Duration;

use clickhouse::Row;
use schemas::Uuid;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::database::Database;
use crate::document::{DOCUMENT_VERSION, ExperimentResult, FIRST_FORM, Unreadable};

/// The most points of a history; longer ones are thinned to every second, third, ... analysis.
pub const HISTORY_POINTS_MAX: u32 = 400;

#[derive(Serialize)]
struct AnalysisRow<'a> {
    analysis_id: Uuid,
    experiment: &'a str,
    definition_version: u64,
    computed_at: &'a str,
    as_of: &'a str,
    cut: String,
    sql: String,
    verdict: &'static str,
    reason: &'a str,
    document: String,
    is_look: bool,
    document_version: u32,
}

#[derive(Serialize)]
struct ResultRow<'a> {
    analysis_id: Uuid,
    experiment: &'a str,
    computed_at: &'a str,
    metric: &'a str,
    role: &'static str,
    variant: &'a str,
    is_control: bool,
    units: u64,
    conversions: u64,
    mean: Option<f64>,
    lift_absolute: Option<f64>,
    lift_relative: Option<f64>,
    statistic: Option<f64>,
    p_value: Option<f64>,
    interval_lower: Option<f64>,
    interval_upper: Option<f64>,
    always_valid_p_value: Option<f64>,
    always_valid_lower: Option<f64>,
    always_valid_upper: Option<f64>,
    kept_as: &'static str,
}

/// The last analysis written of an experiment, as far as this process knows. It decides only what has to be
/// written next.
#[derive(Clone, Debug)]
pub struct Written {
    /// The latest analysis, whose rows of numbers were written.
    pub result: ExperimentResult,
    /// When the last document was written, by its own time, in microseconds since 1970.
    document_at: i64,
}

impl Written {
    /// Returns the state for a document that was read back.
    pub fn read(result: ExperimentResult) -> Written {
        let document_at = micros(&result.computed_at);
        Written { result, document_at }
    }
}

const MINUTE_MICROS: i64 = 60_000_000;

/// Writes the analysis's rows of numbers, and its document if it has something new or the last one is older
/// than `document_every`. Without `before` both are written.
pub async fn write(
    database: &Database,
    result: ExperimentResult,
    is_look: bool,
    before: Option<&Written>,
    document_every: Duration,
) -> anyhow::Result<Written> {
    let at = micros(&result.computed_at);
    let kept_as = kept_as(is_look, at, before.map(|before| micros(&before.result.computed_at)));
    database.insert("INSERT INTO results FORMAT JSONEachRow", &result_rows(&result, kept_as)).await?;
    let every = i64::try_from(document_every.as_micros()).unwrap_or(i64::MAX);
    let is_old = |before: &Written| at - before.document_at >= every;
    let is_due =
        is_look || before.is_none_or(|before| is_old(before) || differs_for_readers(&before.result, &result));
    if is_due {
        database
            .insert("INSERT INTO analyses FORMAT JSONEachRow", &[analysis_row(&result, is_look)?])
            .await?;
    }
    let document_at = if is_due { at } else { before.map_or(at, |before| before.document_at) };
    Ok(Written { result, document_at })
}

/// Returns whether people should see the new document at once.
fn differs_for_readers(before: &ExperimentResult, now: &ExperimentResult) -> bool {
    let kinds = |of: &ExperimentResult| -> Vec<_> {
        of.warnings.iter().map(|warning| (warning.kind, warning.metric.clone())).collect()
    };
    let verdict = |of: &ExperimentResult| (of.decision.verdict, of.decision.treatment.clone());
    verdict(before) != verdict(now)
        || kinds(before) != kinds(now)
        || before.looks_recorded != now.looks_recorded
        || before.definition_version != now.definition_version
}

/// Returns how long rows of numbers are kept: see migration `analyses`.
fn kept_as(is_look: bool, at: i64, before: Option<i64>) -> &'static str {
    let first_of = |minutes: i64| {
        let span = minutes * MINUTE_MICROS;
        before.is_none_or(|before| before.div_euclid(span) != at.div_euclid(span))
    };
    match () {
        () if is_look => "look",
        () if first_of(60) => "hour",
        () if first_of(10) => "ten_minutes",
        () => "round",
    }
}

/// Converts a time that this program wrote.
fn micros(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, |time| time.as_microsecond())
}

fn analysis_row(result: &ExperimentResult, is_look: bool) -> anyhow::Result<AnalysisRow<'_>> {
    let queries: Vec<String> =
        result.sql.iter().map(|of| format!("-- {}\n{}", of.metric, of.query.trim_end())).collect();
    Ok(AnalysisRow {
        analysis_id: result.analysis_id,
        experiment: &result.key,
        definition_version: result.definition_version,
        computed_at: &result.computed_at,
        as_of: &result.as_of,
        cut: serde_json::to_string(&result.cut)?,
        sql: queries.join(";\n\n"),
        verdict: result.decision.verdict.as_str(),
        reason: &result.decision.reason,
        document: serde_json::to_string(result)?,
        is_look,
        document_version: result.document_version,
    })
}

fn result_rows<'a>(result: &'a ExperimentResult, kept_as: &'static str) -> Vec<ResultRow<'a>> {
    let mut rows = Vec::new();
    for metric in &result.metrics {
        for variant in &metric.variants {
            let test = metric.tests.iter().find(|test| test.treatment == variant.key);
            let look = metric.always_valid.iter().find(|look| look.treatment == variant.key);
            let interval = test.and_then(|test| test.interval_absolute);
            let always = look.and_then(|look| look.interval_absolute);
            rows.push(ResultRow {
                analysis_id: result.analysis_id,
                experiment: &result.key,
                computed_at: &result.computed_at,
                metric: &metric.key,
                role: metric.role.as_str(),
                variant: &variant.key,
                is_control: variant.control,
                units: variant.units,
                conversions: variant.conversions,
                mean: variant.mean,
                lift_absolute: test.and_then(|test| test.lift_absolute),
                lift_relative: test.and_then(|test| test.lift_relative),
                statistic: test.and_then(|test| test.z.or(test.t)),
                p_value: test.and_then(|test| test.p_value),
                interval_lower: interval.and_then(|interval| interval.lower),
                interval_upper: interval.and_then(|interval| interval.upper),
                always_valid_p_value: look.and_then(|look| look.p_value),
                always_valid_lower: always.and_then(|interval| interval.lower),
                always_valid_upper: always.and_then(|interval| interval.upper),
                kept_as,
            });
        }
    }
    rows
}

const LATEST_OF_ALL: &str =
    "SELECT experiment, document_version, document FROM latest_analyses FINAL ORDER BY experiment";

const LATEST: &str =
    "SELECT experiment, document_version, document FROM latest_analyses FINAL WHERE experiment = ?";

/// Searches all documents that are kept: the last of each day, and every one of the last 30 days.
const LAST_OF_A_FORM: &str = "
SELECT document FROM
(
    SELECT computed_at, document FROM analyses WHERE experiment = ? AND document_version = ?
    UNION ALL
    SELECT computed_at, document FROM analyses_of_days FINAL WHERE experiment = ? AND document_version = ?
)
ORDER BY computed_at DESC
LIMIT 1";

#[derive(Row, Deserialize)]
struct StoredDocument {
    experiment: String,
    document_version: u32,
    document: String,
}

impl StoredDocument {
    fn read(&self) -> Result<ExperimentResult, Unreadable> {
        ExperimentResult::read(&self.experiment, &self.document)
    }

    /// Returns the JSON as it was written, if it has this build's form.
    fn json(self) -> Result<Box<RawValue>, Unreadable> {
        let StoredDocument { experiment, document_version: version, document } = self;
        if version != DOCUMENT_VERSION {
            return Err(Unreadable::OtherVersion { experiment, version });
        }
        RawValue::from_string(document)
            .map_err(|error| Unreadable::Damaged { experiment, why: error.to_string() })
    }
}

/// Reads the latest document of each experiment, by key. A document of another form is named in the log and
/// left out.
pub async fn latest_of_all(database: &Database) -> anyhow::Result<Vec<ExperimentResult>> {
    let stored = stored_of_all(database).await?;
    Ok(stored.iter().filter_map(|stored| readable(stored.read())).collect())
}

/// Reads the same documents as JSON.
pub async fn latest_json_of_all(database: &Database) -> anyhow::Result<Vec<Box<RawValue>>> {
    let stored = stored_of_all(database).await?;
    Ok(stored.into_iter().filter_map(|stored| readable(stored.json())).collect())
}

/// Reads the latest documents that this build cannot read.
pub async fn unreadable_of_all(database: &Database) -> anyhow::Result<Vec<Unreadable>> {
    let stored = stored_of_all(database).await?;
    Ok(stored.iter().filter_map(|stored| stored.read().err()).collect())
}

/// Reads the latest document of one experiment, if there is any.
///
/// # Errors
/// Also if it has another form.
pub async fn latest(database: &Database, experiment: &str) -> anyhow::Result<Option<ExperimentResult>> {
    let stored = stored(database, experiment).await?;
    stored.map(|stored| stored.read()).transpose().map_err(Into::into)
}

/// Reads the same document as JSON.
pub async fn latest_json(database: &Database, experiment: &str) -> anyhow::Result<Option<Box<RawValue>>> {
    let stored = stored(database, experiment).await?;
    stored.map(StoredDocument::json).transpose().map_err(Into::into)
}

fn readable<T>(read: Result<T, Unreadable>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "a document is not shown")).ok()
}

/// Reads the latest document, as an earlier process wrote it. A document that cannot be read is written anew:
/// the looks and the alpha spent are in the log of looks.
pub async fn last_written(database: &Database, key: &str) -> anyhow::Result<Option<Written>> {
    match latest(database, key).await {
        Ok(latest) => Ok(latest.map(Written::read)),
        Err(error) if error.downcast_ref::<Unreadable>().is_some() => {
            tracing::warn!(%error, "a document is written anew");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the last document of the first form that is kept of an experiment. Later ones may have been written
/// since.
pub async fn last_of_the_first_form(database: &Database, experiment: &str) -> anyhow::Result<Option<String>> {
    let query =
        database.query(LAST_OF_A_FORM).bind(experiment).bind(FIRST_FORM).bind(experiment).bind(FIRST_FORM);
    let doing = format!("reading the last document of the first form of {experiment}");
    Ok(database.rows::<String>(&doing, query).await?.into_iter().next())
}

async fn stored_of_all(database: &Database) -> anyhow::Result<Vec<StoredDocument>> {
    database.rows("reading the latest analyses", database.query(LATEST_OF_ALL)).await
}

async fn stored(database: &Database, experiment: &str) -> anyhow::Result<Option<StoredDocument>> {
    let query = database.query(LATEST).bind(experiment);
    let doing = format!("reading the latest analysis of {experiment}");
    Ok(database.rows(&doing, query).await?.into_iter().next())
}

/// The numbers of one variant at one analysis, for charts.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Point {
    pub metric: String,
    /// Milliseconds since 1970.
    pub computed_at_ms: i64,
    pub variant: String,
    pub is_control: bool,
    pub units: u64,
    pub conversions: u64,
    pub mean: Option<f64>,
    pub lift_absolute: Option<f64>,
    pub lift_relative: Option<f64>,
    pub p_value: Option<f64>,
    pub always_valid_p_value: Option<f64>,
    pub always_valid_lower: Option<f64>,
    pub always_valid_upper: Option<f64>,
}

/// Serializes a point without its metric, which is named once for all points.
impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut point = serializer.serialize_struct("Point", 12)?;
        point.serialize_field("computed_at_ms", &self.computed_at_ms)?;
        point.serialize_field("variant", &self.variant)?;
        point.serialize_field("is_control", &self.is_control)?;
        point.serialize_field("units", &self.units)?;
        point.serialize_field("conversions", &self.conversions)?;
        point.serialize_field("mean", &self.mean)?;
        point.serialize_field("lift_absolute", &self.lift_absolute)?;
        point.serialize_field("lift_relative", &self.lift_relative)?;
        point.serialize_field("p_value", &self.p_value)?;
        point.serialize_field("always_valid_p_value", &self.always_valid_p_value)?;
        point.serialize_field("always_valid_lower", &self.always_valid_lower)?;
        point.serialize_field("always_valid_upper", &self.always_valid_upper)?;
        point.end()
    }
}

/// Thinned evenly, counted backwards from the latest point, so that the latest is always included.
const HISTORY: &str = "
SELECT
    metric,
    toUnixTimestamp64Milli(computed_at) AS computed_at_ms,
    variant,
    is_control, units, conversions, mean, lift_absolute, lift_relative, p_value,
    always_valid_p_value, always_valid_lower, always_valid_upper
FROM
(
    SELECT
        *,
        row_number() OVER (PARTITION BY metric, variant ORDER BY computed_at DESC) - 1 AS place,
        count() OVER (PARTITION BY metric, variant) AS places
    FROM results
    WHERE experiment = ? AND metric IN ?
)
WHERE place % intDiv(places + ? - 1, ?) = 0
ORDER BY metric, computed_at_ms, variant";

/// Reads the history of these metrics of an experiment: by metric, oldest first.
pub async fn history(database: &Database, experiment: &str, metrics: &[&str]) -> anyhow::Result<Vec<Point>> {
    let query = database
        .query(HISTORY)
        .bind(experiment)
        .bind(metrics)
        .bind(HISTORY_POINTS_MAX)
        .bind(HISTORY_POINTS_MAX);
    database.rows(&format!("reading the history of {experiment}"), query).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_by_where_they_stand_in_their_hour() {
        let minutes = |minutes: f64| (minutes * 60e6) as i64;
        let kept = |at, before| kept_as(false, minutes(at), Some(minutes(before)));
        assert_eq!(kept(60.0, 59.9), "hour");
        assert_eq!(kept(60.2, 60.0), "round");
        assert_eq!(kept(70.1, 69.9), "ten_minutes");
        assert_eq!(kept(185.0, 60.0), "hour");
        assert_eq!(kept_as(false, 0, None), "hour");
        assert_eq!(kept_as(true, minutes(60.2), Some(minutes(60.0))), "look");
    }
}
