//! The HTTP server of a service. It serves the operator's `/metrics`, `/healthz` and `/readyz` and the
//! service's own routes, which are bounded in time, number and size and may require a token. Operators get
//! answers even when the service's own routes are at their limit.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use ops::config::{Http, Secret};
use ops::health::Report;
use ops::{Health, Shutdown, metrics};
use subtle::ConstantTimeEq;

use crate::bounds::{Bounds, bounded};
use crate::listen::Answering;

mod bounds;
mod intake;
mod linger;
mod listen;
mod unread;

pub use bounds::{HEADER_BYTES_MAX, TARGET_BYTES_MAX};
pub use intake::{Intake, IntakeBounds, NotReceived, Received};
pub use listen::HEAD_BUFFER_BYTES;

/// The parts that the HTTP server of a service serves.
pub struct Served {
    /// The service's own routes; empty for a service that has none.
    pub routes: Router,
    /// The metrics of `/metrics`.
    pub registry: Registry,
    /// The health that `/healthz` and `/readyz` report.
    pub health: Health,
}

/// What a service answers everybody, on an address of its own: the operator's routes are not there.
pub struct Public<'a, A> {
    /// The name of the work that holds up the shutdown.
    pub name: &'static str,
    /// The section whose `listen` and `port_file` are `http`'s, for messages.
    pub section: &'static str,
    pub http: &'a Http,
    /// Answers each request. It is a function, because a router costs more than reading the body of an evaluation.
    pub answer: A,
    /// Makes the response to a request that is refused at a bound, in the form that its clients read.
    pub refuse: Refuse,
}

/// Makes the response to a refused request.
pub type Refuse = fn(StatusCode, String) -> Response;

/// A running server.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Listens on the configured address, writes the port file, and serves until the shutdown begins and the
/// requests under way have been answered.
///
/// # Errors
/// If the address cannot be listened on or the port file cannot be written.
pub async fn start(http: &Http, served: Served, shutdown: &Shutdown) -> anyhow::Result<Server> {
    let routes = operator(served.registry, served.health).merge(bounded(served.routes, http, refusal));
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request| {
        let routes = routes.clone();
        async move {
            let answer = async |request| match routes.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok(unread::answered(request, answer).await)
        }
    });
    listen(Listening { name: "http", section: "http", http }, service, shutdown).await
}

/// Like [`start`], without the operator's routes. Requests have the bounds of `public.http`, except that `public.answer` bounds
/// by an [`Intake`] how many are worked on and how long their bodies are. The token of `public.http` is not asked for.
///
/// # Errors
/// If the address cannot be listened on or the port file cannot be written.
pub async fn start_public<A, F>(public: Public<'_, A>, shutdown: &Shutdown) -> anyhow::Result<Server>
where
    A: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send,
{
    let Public { name, section, http, answer, refuse } = public;
    let shared = Arc::new((Bounds::without_slots(http, refuse), answer));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let (bounds, answer) = &*shared;
            Ok(unread::answered(request, |request| bounds.answer(request, answer)).await)
        }
    });
    listen(Listening { name, section, http }, service, shutdown).await
}

struct Listening<'a> {
    name: &'static str,
    section: &'static str,
    http: &'a Http,
}

async fn listen(
    listening: Listening<'_>,
    service: impl Answering,
    shutdown: &Shutdown,
) -> anyhow::Result<Server> {
    let Listening { name, section, http } = listening;
    let wanted = http.listen.get();
    let listener = TcpListener::bind(wanted)
        .await
        .with_context(|| format!("listening on {wanted}, which is {section}.listen"))?;
    let address = listener.local_addr().context("asking for the port")?;
    if let Some(path) = &http.port_file {
        write_port_file(path, address)
            .with_context(|| format!("writing {}, which is {section}.port_file", path.display()))?;
    }
    let stop = shutdown.clone();
    let hold = shutdown.hold(name);
    let http = http.clone();
    let task = tokio::spawn(async move {
        let _hold = hold;
        listen::serve(listener, service, &http, stop).await;
    });
    tracing::info!(%address, name, "listening");
    Ok(Server { address, task })
}

impl Server {
    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server has stopped.
    ///
    /// # Errors
    /// If the server panicked.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.task.await.context("the HTTP server panicked")
    }
}

/// Requires the token of `[http]` on the routes: as a bearer token, or as the password of basic authentication,
/// which browsers ask for. Without a configured token the routes are open.
///
/// # Errors
/// If the token file cannot be read.
pub fn guarded(routes: Router, http: &Http) -> Result<Router, String> {
    Ok(match Secret::resolve(http.token.as_ref(), http.token_file.as_ref())? {
        None => routes,
        Some(token) => routes.layer(middleware::from_fn_with_state(Arc::new(token), check_token)),
    })
}

/// Makes the response for a failure whose reason only operators may see: the response contains a reference,
/// under which the log has the reason.
pub fn failed(status: StatusCode, what: &str, failure: &anyhow::Error) -> Response {
    error(status, log_failure(what, failure))
}

/// Logs a failure under a reference and returns the text that clients may see. Like [`failed`], but for
/// responses in another form.
pub fn log_failure(what: &str, failure: &anyhow::Error) -> String {
    let reference = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    tracing::warn!(reference, error = %format_args!("{failure:#}"), "{what}");
    format!("{what}; the service's log has the reason, under {reference}")
}

/// Makes an error response in JSON: `{"error": "..."}`.
pub fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

fn refusal(status: StatusCode, message: String) -> Response {
    error(status, message)
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

async fn check_token(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let given =
        request.headers().get(header::AUTHORIZATION).and_then(|value| presented_token(value.as_bytes()));
    if given.is_some_and(|given| given.ct_eq(token.reveal().as_bytes()).into()) {
        return next.run(request).await;
    }
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        "not public: show the service's token as a bearer, or as the password of basic authentication",
    );
    for scheme in ["Bearer", "Basic realm=\"splitstream\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}

/// Returns the token in an `Authorization` header: a bearer token, or the password of any user. The name of the
/// scheme is case-insensitive.
fn presented_token(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64.decode(rest.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Writes `host:port` and a line break to the file, in one step: a reader sees the whole line or no file.
fn write_port_file(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = Path::new(&name);
    let mut file = std::fs::File::create(unfinished)?;
    writeln!(file, "{address}")?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)
}
