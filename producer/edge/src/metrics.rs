//! What the service counts. The names are fixed; `deploy/operations/README.md` explains each.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// From an answer out of memory to a wait for Kafka, in seconds.
const REQUEST_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
const CHANGE_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0];

/// What the metrics tell apart of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Bulk,
    Single,
    Track,
    Stream,
    Other,
}

impl Route {
    const ALL: [Route; 5] = [Route::Bulk, Route::Single, Route::Track, Route::Stream, Route::Other];

    pub fn as_str(self) -> &'static str {
        match self {
            Route::Bulk => "bulk",
            Route::Single => "single",
            Route::Track => "track",
            Route::Stream => "stream",
            Route::Other => "other",
        }
    }
}

/// The series of one route that nearly every request needs, looked up once.
#[derive(Clone)]
struct RouteSeries {
    ok: IntCounter,
    seconds: Histogram,
}

/// What became of the exposures of single reads, each result looked up once.
#[derive(Clone)]
pub struct ExposureSeries {
    pub emitted: IntCounter,
    pub suppressed: IntCounter,
    pub refused: IntCounter,
    pub off: IntCounter,
}

/// All metrics of the service.
#[derive(Clone)]
pub struct Metrics {
    /// By route and status.
    requests: IntCounterVec,
    /// In the order of [`Route::ALL`].
    routes: [RouteSeries; 5],
    /// By token.
    pub rate_limited: IntCounterVec,
    pub exposures: ExposureSeries,
    /// By type and status.
    pub tracked: IntCounterVec,
    /// By type.
    pub tracked_without_experiment: IntCounterVec,
    pub stale_answers: IntCounter,
    pub stale: IntGauge,
    pub configuration_version: IntGauge,
    pub configuration_keys: IntGauge,
    pub configuration_changes: IntCounter,
    pub list_bytes: IntGauge,
    pub compile_seconds: Histogram,
    pub snapshot_failures: IntCounter,
    pub token_file_ok: IntGauge,
    pub streams: IntGauge,
    pub streams_refused: IntCounter,
    pub pushes: IntCounter,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let requests = counters("edge_requests_total", "Requests answered.", &["route", "status"])?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new("edge_request_seconds", "Time to the head of an answer.")
                .buckets(REQUEST_SECONDS.to_vec()),
            &["route"],
        )?;
        let exposures = counters("edge_exposures_total", "Exposures of single reads.", &["result"])?;
        registry.register(Box::new(exposures.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(request_seconds.clone()))?;
        let metrics = Metrics {
            routes: Route::ALL.map(|route| RouteSeries {
                ok: requests.with_label_values(&[route.as_str(), "200"]),
                seconds: request_seconds.with_label_values(&[route.as_str()]),
            }),
            requests,
            rate_limited: counters("edge_rate_limited_total", "Requests over a token's rate.", &["token"])?,
            exposures: ExposureSeries {
                emitted: exposures.with_label_values(&["emitted"]),
                suppressed: exposures.with_label_values(&["suppressed"]),
                refused: exposures.with_label_values(&["refused"]),
                off: exposures.with_label_values(&["off"]),
            },
            tracked: counters(
                "edge_tracked_events_total",
                "Events reported by clients.",
                &["type", "status"],
            )?,
            tracked_without_experiment: counters(
                "edge_tracked_without_experiment_total",
                "Accepted events that name an experiment which is not known here.",
                &["type"],
            )?,
            stale_answers: IntCounter::new("edge_stale_answers_total", "Answers that said they are stale.")?,
            stale: IntGauge::new("edge_stale", "1 while the definitions may be old.")?,
            configuration_version: IntGauge::new(
                "edge_configuration_version",
                "The version of all definitions that is served.",
            )?,
            configuration_keys: IntGauge::new("edge_configuration_keys", "Flags and experiments served.")?,
            configuration_changes: IntCounter::new(
                "edge_configuration_changes_total",
                "Configurations put into service.",
            )?,
            list_bytes: IntGauge::new("edge_list_bytes", "Bytes of the members of lists that are held.")?,
            compile_seconds: Histogram::with_opts(
                HistogramOpts::new("edge_compile_seconds", "Time to compile the definitions.")
                    .buckets(CHANGE_SECONDS.to_vec()),
            )?,
            snapshot_failures: IntCounter::new(
                "edge_snapshot_failures_total",
                "Snapshots that could not be written.",
            )?,
            token_file_ok: IntGauge::new("edge_token_file_ok", "1 if the last token file was valid.")?,
            streams: IntGauge::new("edge_streams", "Event streams open.")?,
            streams_refused: IntCounter::new("edge_streams_refused_total", "Event streams over the bound.")?,
            pushes: IntCounter::new("edge_pushes_total", "Announcements sent on event streams.")?,
        };
        registry.register(Box::new(metrics.rate_limited.clone()))?;
        registry.register(Box::new(metrics.tracked.clone()))?;
        registry.register(Box::new(metrics.tracked_without_experiment.clone()))?;
        registry.register(Box::new(metrics.stale_answers.clone()))?;
        registry.register(Box::new(metrics.stale.clone()))?;
        registry.register(Box::new(metrics.configuration_version.clone()))?;
        registry.register(Box::new(metrics.configuration_keys.clone()))?;
        registry.register(Box::new(metrics.configuration_changes.clone()))?;
        registry.register(Box::new(metrics.list_bytes.clone()))?;
        registry.register(Box::new(metrics.compile_seconds.clone()))?;
        registry.register(Box::new(metrics.snapshot_failures.clone()))?;
        registry.register(Box::new(metrics.token_file_ok.clone()))?;
        registry.register(Box::new(metrics.streams.clone()))?;
        registry.register(Box::new(metrics.streams_refused.clone()))?;
        registry.register(Box::new(metrics.pushes.clone()))?;
        Ok(metrics)
    }

    /// Counts an answer.
    pub fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        let series = &self.routes[route as usize];
        series.seconds.observe(took.as_secs_f64());
        match status {
            StatusCode::OK => series.ok.inc(),
            _ => self.requests.with_label_values(&[route.as_str(), status.as_str()]).inc(),
        }
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
