//! What was found, kept: one row of `analyses` and one of `results` for each metric and variant. And read
//! again, for the document, the page's chart and the next look.

use clickhouse::Row;
use schemas::Uuid;
use serde::{Deserialize, Serialize};

use crate::database::Database;
use crate::document::ExperimentResult;

/// The most points of a history; beyond, every second, third, ... analysis is left out.
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
}

/// Writes an analysis. The row of `analyses` comes last: where it is, the others are.
pub async fn write(database: &Database, result: &ExperimentResult) -> anyhow::Result<()> {
    database.insert("INSERT INTO results FORMAT JSONEachRow", &result_rows(result)).await?;
    database.insert("INSERT INTO analyses FORMAT JSONEachRow", &[analysis_row(result)?]).await
}

fn analysis_row(result: &ExperimentResult) -> anyhow::Result<AnalysisRow<'_>> {
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
    })
}

fn result_rows(result: &ExperimentResult) -> Vec<ResultRow<'_>> {
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
            });
        }
    }
    rows
}

const LATEST_OF_ALL: &str = "
SELECT experiment, document
FROM analyses
WHERE (experiment, computed_at) IN (SELECT experiment, max(computed_at) FROM analyses GROUP BY experiment)
ORDER BY experiment, analysis_id DESC
LIMIT 1 BY experiment";

const LATEST: &str = "
SELECT experiment, document
FROM analyses
WHERE experiment = ?
ORDER BY computed_at DESC, analysis_id DESC
LIMIT 1";

#[derive(Row, Deserialize)]
struct Kept {
    experiment: String,
    document: String,
}

/// The latest analysis of each experiment, by key.
pub async fn latest_of_all(database: &Database) -> anyhow::Result<Vec<ExperimentResult>> {
    let rows = database.rows::<Kept>("reading the latest analyses", database.query(LATEST_OF_ALL)).await?;
    Ok(rows.iter().filter_map(readable).collect())
}

/// The latest analysis of one experiment, if there is any.
pub async fn latest(database: &Database, experiment: &str) -> anyhow::Result<Option<ExperimentResult>> {
    let query = database.query(LATEST).bind(experiment);
    let doing = format!("reading the latest analysis of {experiment}");
    Ok(database.rows::<Kept>(&doing, query).await?.iter().find_map(readable))
}

/// A document that another build wrote may be of another shape; the next analysis takes its place.
fn readable(kept: &Kept) -> Option<ExperimentResult> {
    match serde_json::from_str(&kept.document) {
        Ok(result) => Some(result),
        Err(error) => {
            tracing::warn!(
                experiment = kept.experiment,
                %error,
                "the latest document was written by another version and cannot be read; analyze again"
            );
            None
        }
    }
}

/// One variant at one analysis, for charts.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct Point {
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

/// Thinned evenly, counted from the latest backwards, so that the latest is always there.
const HISTORY: &str = "
SELECT
    toUnixTimestamp64Milli(computed_at) AS computed_at_ms,
    variant,
    is_control, units, conversions, mean, lift_absolute, lift_relative, p_value,
    always_valid_p_value, always_valid_lower, always_valid_upper
FROM
(
    SELECT
        *,
        row_number() OVER (PARTITION BY variant ORDER BY computed_at DESC) - 1 AS place,
        count() OVER (PARTITION BY variant) AS places
    FROM results
    WHERE experiment = ? AND metric = ?
      AND analysis_id IN (SELECT analysis_id FROM analyses WHERE experiment = ?)
)
WHERE place % intDiv(places + ? - 1, ?) = 0
ORDER BY computed_at_ms, variant";

/// How a metric developed, oldest first.
pub async fn history(database: &Database, experiment: &str, metric: &str) -> anyhow::Result<Vec<Point>> {
    let query = database
        .query(HISTORY)
        .bind(experiment)
        .bind(metric)
        .bind(experiment)
        .bind(HISTORY_POINTS_MAX)
        .bind(HISTORY_POINTS_MAX);
    let doing = format!("reading the history of `{metric}` in {experiment}");
    database.rows(&doing, query).await
}
