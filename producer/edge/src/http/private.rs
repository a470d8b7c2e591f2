//! The private port's own routes: a sample of contexts, which may name people, for previews, and the counts of evaluations,
//! which the aggregator adds to a table.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemas::evaluation_counts::{CountsReading, Day};
use sdk::event::now;
use serde_json::json;

use super::Edge;
use crate::samples::WINDOW;

/// Why there are none.
pub const NO_SAMPLES: &str = "no contexts are sampled, as they may name people: edge.samples is 0, or http.listen can be reached \
     from elsewhere and http.token is not set";

/// The routes, still open to everybody.
pub fn routes(edge: Arc<Edge>) -> Router {
    Router::new().route("/samples", get(samples)).route("/counts", get(counts)).with_state(edge)
}

async fn samples(State(edge): State<Arc<Edge>>) -> Response {
    if edge.samples_kept == 0 {
        return http_server::error(StatusCode::NOT_FOUND, NO_SAMPLES);
    }
    let [previous, current] =
        edge.samples.lock().unwrap_or_else(PoisonError::into_inner).windows(Instant::now());
    let environment = edge.settings.environment.as_str();
    Json(json!({
        "environment": environment,
        "window_seconds": WINDOW.as_secs(),
        "previous": previous,
        "current": current,
    }))
    .into_response()
}

async fn counts(State(edge): State<Arc<Edge>>) -> Json<CountsReading> {
    let today = Day::of(now());
    Json(CountsReading {
        instance: edge.instance,
        environment: edge.settings.environment.key().clone(),
        today,
        counts: edge.counts.rows(today),
    })
}
