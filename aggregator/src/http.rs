//! The HTTP interface: the JSON API, which serves the latest documents as they are stored, and the page, which
//! shows them. It is open to everybody who can reach it, unless a token is configured; nothing here changes
//! anything. The routes of definitions, of which one does, are beside them in `command`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_server::{error, failed, log_failure};
use schemas::Key;
use schemas::evaluation_counts::Day;
use schemas::key::is_key;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cut;
use crate::database::Database;
use crate::document::MetricKeys;
use crate::edge_counts::{self, DAYS_MAX, Evaluations, Question, ROWS_MAX};
use crate::page::{self, Histories};
use crate::store::{self, Point};

/// Allows no script, style or frame other than our own; nothing is sent anywhere else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// [`Document`](crate::document::Document), with the experiments as they are stored.
#[derive(Serialize)]
struct StoredDocument {
    experiments: Vec<Box<RawValue>>,
}

/// The API's answer to a request for the history.
#[derive(Serialize)]
struct History {
    experiment: String,
    metric: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuestion {
    /// The metric's key; the primary one by default.
    metric: Option<String>,
}

/// The API's answer about evaluations.
#[derive(Serialize)]
struct FlagCounts {
    /// The first day, in UTC; the last is today.
    from: Day,
    counts: Vec<Evaluations>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountsQuestion {
    /// From 1 to [`DAYS_MAX`], today among them; 7 by default.
    days: Option<String>,
    /// Key of a flag or an experiment; all by default.
    flag: Option<String>,
    /// All by default.
    environment: Option<String>,
}

/// The routes of results and of evaluations.
pub fn routes(database: Database) -> Router {
    Router::new()
        .route("/api/v1/experiments", get(api_experiments))
        .route("/api/v1/experiments/{key}", get(api_experiment))
        .route("/api/v1/experiments/{key}/history", get(api_history))
        .route("/api/v1/flags/counts", get(api_flag_counts))
        .route("/", get(page_experiments))
        .route("/experiments/{key}", get(page_experiment))
        .route("/style.css", get(async || ([(header::CONTENT_TYPE, "text/css")], page::STYLE)))
        .route("/refresh.js", get(async || ([(header::CONTENT_TYPE, "text/javascript")], page::REFRESH)))
        .with_state(database)
}

async fn api_experiments(State(database): State<Database>) -> Response {
    match store::latest_json_of_all(&database).await {
        Ok(experiments) => Json(StoredDocument { experiments }).into_response(),
        Err(failure) => unavailable(&failure),
    }
}

async fn api_experiment(State(database): State<Database>, Path(key): Path<String>) -> Response {
    match find(&database, &key).await {
        Ok(experiment) => Json(StoredDocument { experiments: vec![experiment] }).into_response(),
        Err(refusal) => refusal,
    }
}

async fn api_history(
    State(database): State<Database>,
    Path(key): Path<String>,
    question: Result<Query<HistoryQuestion>, QueryRejection>,
) -> Response {
    let question = match question {
        Ok(Query(question)) => question,
        Err(wrong) => return wrong_parameter(&wrong),
    };
    let experiment = match find(&database, &key).await {
        Ok(experiment) => experiment,
        Err(refusal) => return refusal,
    };
    let metrics = match MetricKeys::read(&key, experiment.get()) {
        Ok(metrics) => metrics,
        Err(failure) => return unavailable(&failure.into()),
    };
    let asked = question.metric.as_deref();
    let Some(metric) = metrics.find(asked) else {
        let asked: String = asked.unwrap_or_default().chars().take(80).collect();
        return error(StatusCode::NOT_FOUND, format!("experiment `{key}` has no metric `{asked}`"));
    };
    match store::history(&database, &key, &[metric]).await {
        Ok(points) => Json(History { experiment: key, metric: metric.to_owned(), points }).into_response(),
        Err(failure) => unavailable(&failure),
    }
}

async fn api_flag_counts(
    State(database): State<Database>,
    question: Result<Query<CountsQuestion>, QueryRejection>,
) -> Response {
    let question = match question {
        Ok(Query(question)) => question,
        Err(wrong) => return wrong_parameter(&wrong),
    };
    let question = match cut::now().map(|now| question.read(Day::of(now))) {
        Ok(Ok(question)) => question,
        Ok(Err(why)) => return error(StatusCode::BAD_REQUEST, why),
        Err(failure) => return unavailable(&failure),
    };
    match edge_counts::by_day(&database, &question).await {
        Ok(counts) if counts.len() > ROWS_MAX => error(
            StatusCode::BAD_REQUEST,
            format!(
                "these are more than {ROWS_MAX} rows; ask for fewer `days`, or name a `flag` or an `environment`"
            ),
        ),
        Ok(counts) => Json(FlagCounts { from: question.from, counts }).into_response(),
        Err(failure) => unavailable(&failure),
    }
}

/// Refuses a parameter that is unknown or cannot be read, by its name.
fn wrong_parameter(wrong: &QueryRejection) -> Response {
    error(wrong.status(), wrong.body_text())
}

impl CountsQuestion {
    fn read(self, today: Day) -> Result<Question, String> {
        let days = match &self.days {
            None => 7,
            Some(text) => {
                text.parse().ok().filter(|days| (1..=DAYS_MAX).contains(days)).ok_or_else(|| {
                    let shown: String = text.chars().take(80).collect();
                    format!("days={shown} where a whole number from 1 to {DAYS_MAX} is expected")
                })?
            }
        };
        let key = |name: &str, text: Option<String>| {
            let key = text.map(Key::new).transpose();
            key.map_err(|_| format!("{name}: 1 to 64 of the characters A-Z a-z 0-9 . _ - are expected"))
        };
        Ok(Question {
            from: edge_counts::first_day(today, days),
            flag: key("flag", self.flag)?,
            environment: key("environment", self.environment)?,
        })
    }
}

async fn page_experiments(State(database): State<Database>) -> Response {
    match store::latest_of_all(&database).await {
        Ok(experiments) => html(StatusCode::OK, page::overview(&experiments)),
        Err(failure) => html_unavailable(&failure),
    }
}

async fn page_experiment(State(database): State<Database>, Path(key): Path<String>) -> Response {
    let result = match is_key(&key) {
        true => store::latest(&database, &key).await,
        false => Ok(None),
    };
    let result = match result {
        Ok(Some(result)) => result,
        Ok(None) => return html(StatusCode::NOT_FOUND, page::not_found(&key)),
        Err(failure) => return html_unavailable(&failure),
    };
    let metrics: Vec<&str> = result.metrics.iter().map(|metric| metric.key.as_str()).collect();
    let points = match store::history(&database, &key, &metrics).await {
        Ok(points) => points,
        Err(failure) => return html_unavailable(&failure),
    };
    let mut histories = Histories::new();
    for point in points {
        histories.entry(point.metric.clone()).or_default().push(point);
    }
    html(StatusCode::OK, page::experiment(&result, &histories))
}

async fn find(database: &Database, key: &str) -> Result<Box<RawValue>, Response> {
    let found = match is_key(key) {
        true => store::latest_json(database, key).await.map_err(|failure| unavailable(&failure))?,
        false => None,
    };
    found.ok_or_else(|| {
        let shown: String = key.chars().take(80).collect();
        error(StatusCode::NOT_FOUND, format!("no analysis of an experiment `{shown}` has been made"))
    })
}

fn unavailable(failure: &anyhow::Error) -> Response {
    failed(StatusCode::SERVICE_UNAVAILABLE, "the request could not be answered", failure)
}

fn html_unavailable(failure: &anyhow::Error) -> Response {
    let message = log_failure("the page could not be shown", failure);
    html(StatusCode::SERVICE_UNAVAILABLE, page::unavailable(&message))
}

fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (status, headers, body).into_response()
}
