//! The HTTP side of a service: the operator's `/metrics`, `/healthz` and `/readyz` beside the
//! service's own routes, which are bounded in time, number and size. Operators are answered even
//! when the service's own routes are full.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::{Http, Secret};
use crate::health::Report;
use crate::{Health, Shutdown, metrics};

/// What a service serves.
pub struct Served {
    /// The service's own routes; empty for a service that has none.
    pub routes: Router,
    /// What `/metrics` tells.
    pub registry: Registry,
    /// What `/healthz` and `/readyz` tell.
    pub health: Health,
}

/// A server under way.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

/// Listens as `http` says, writes the port file, and serves until the shutdown begins and the
/// requests under way have been answered.
///
/// # Errors
/// When the address cannot be listened on or the port file cannot be written.
pub async fn start(http: &Http, served: Served, shutdown: &Shutdown) -> anyhow::Result<Server> {
    let wanted = http.listen.get();
    let listener = TcpListener::bind(wanted)
        .await
        .with_context(|| format!("listening on {wanted}, which is http.listen"))?;
    let address = listener.local_addr().context("asking for the port")?;
    if let Some(path) = &http.port_file {
        write_port_file(path, address)
            .with_context(|| format!("writing {}, which is http.port_file", path.display()))?;
    }
    let routes = operator(served.registry, served.health).merge(bounded(served.routes, http));
    let stop = shutdown.clone();
    let hold = shutdown.hold("http");
    let task = tokio::spawn(async move {
        let _hold = hold;
        axum::serve(listener, routes)
            .with_graceful_shutdown(async move {
                stop.wait().await;
            })
            .await
    });
    tracing::info!(%address, "listening");
    Ok(Server { address, task })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// When it stopped by a failure.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.task.await.context("the HTTP server panicked")?.context("serving HTTP")
    }
}

/// Lets only those through that bear the token of `[http]`; without a configured token, nobody.
///
/// # Errors
/// When the token's file cannot be read.
pub fn protected(routes: Router, http: &Http) -> Result<Router, String> {
    let token = Secret::resolve(http.token.as_ref(), http.token_file.as_ref())?;
    Ok(routes.layer(middleware::from_fn_with_state(Arc::new(token), check_token)))
}

/// An error as JSON: `{"error": "..."}`.
pub fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

fn operator(registry: Registry, health: Health) -> Router {
    let alive = health.clone();
    Router::new()
        .route("/metrics", get(async move || metrics_response(&registry)))
        .route("/healthz", get(async move || report_response(alive.alive())))
        .route("/readyz", get(async move || report_response(health.ready())))
}

fn metrics_response(registry: &Registry) -> Response {
    match metrics::text(registry) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()),
    }
}

fn report_response(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

struct Bounds {
    slots: Semaphore,
    timeout: Duration,
}

fn bounded(routes: Router, http: &Http) -> Router {
    let bounds = Bounds {
        slots: Semaphore::new(http.requests_at_once.usize().min(Semaphore::MAX_PERMITS)),
        timeout: http.request_timeout_ms.duration(),
    };
    routes
        .layer(DefaultBodyLimit::max(http.body_bytes.usize()))
        .layer(middleware::from_fn_with_state(Arc::new(bounds), within_bounds))
}

async fn within_bounds(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    let Ok(_slot) = bounds.slots.try_acquire() else {
        let mut response = error(
            StatusCode::SERVICE_UNAVAILABLE,
            "as many requests as are allowed at once are under way; try again later",
        );
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
        return response;
    };
    match tokio::time::timeout(bounds.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no answer within {} ms", bounds.timeout.as_millis()),
        ),
    }
}

async fn check_token(State(token): State<Arc<Option<Secret>>>, request: Request, next: Next) -> Response {
    let Some(token) = token.as_ref() else {
        return error(
            StatusCode::FORBIDDEN,
            "not public, and no token is configured; the operator sets http.token or http.token_file",
        );
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| same(given, token.reveal().as_bytes())) {
        return next.run(request).await;
    }
    let mut response = error(StatusCode::UNAUTHORIZED, "not public; bear the operator's token");
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// Equality in a time that depends on the lengths alone, so that a guess learns nothing of how
/// much of it was right.
fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut difference = 0;
    for (left, right) in left.iter().zip(right) {
        difference |= std::hint::black_box(left ^ right);
    }
    difference == 0
}

/// Puts `host:port` and a line break into the file: a reader sees the whole line or no file.
fn write_port_file(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = Path::new(&name);
    let mut file = std::fs::File::create(unfinished)?;
    writeln!(file, "{address}")?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)
}
