//! The public routes: who is let in, what bounds a request, and how an answer looks around its body. What is answered is
//! decided elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_server::{Intake, NotReceived, Received};
use ops::Shutdown;
use schemas::Uuid;
use tokio::sync::{Semaphore, watch};

use crate::announce::Announcement;
use crate::config::EdgeSection;
use crate::configuration::Configuration;
use crate::cors;
use crate::counts::Counts;
use crate::events::Events;
use crate::metrics::{Metrics, Route};
use crate::ofrep::error::Problem;
use crate::ofrep::request::SentContext;
use crate::rate::TooMany;
use crate::samples::Samples;
use crate::serving::{Serving, Stale};
use crate::suppress::Suppressed;
use crate::token_file::TokenStore;
use crate::tokens::Token;

mod bulk;
pub mod private;
mod single;
mod stream;
mod track;

pub const EVALUATE_PATH: &str = "/ofrep/v1/evaluate/flags";
pub const TRACK_PATH: &str = "/ofrep/v1/track";
pub const STREAM_PATH: &str = "/ofrep/v1/stream";

/// Says why an answer may be old.
const STALE: HeaderName = HeaderName::from_static("x-splitstream-stale");
/// Names the revision that was evaluated.
const VERSION: HeaderName = HeaderName::from_static("x-splitstream-version");
/// `off` keeps a single evaluation from logging an exposure.
const EXPOSURE: HeaderName = HeaderName::from_static("x-splitstream-exposure");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Seconds after which a client asks again that came too early for the definitions or for the event path.
const RETRY_AFTER_S: u64 = 1;

/// Everything that a request needs.
pub struct Edge {
    pub settings: EdgeSection,
    /// Of this process; events name it as their sender's.
    pub instance: Uuid,
    pub serving: Serving,
    pub tokens: TokenStore,
    pub events: Arc<Events>,
    pub suppressed: Suppressed,
    pub samples: Mutex<Samples>,
    /// How many contexts are sampled: see [`EdgeSection::samples_kept`].
    pub samples_kept: usize,
    pub counts: Arc<Counts>,
    pub metrics: Metrics,
    pub announced: watch::Receiver<Option<Announcement>>,
    pub stream_slots: Arc<Semaphore>,
    pub intake: Intake,
    /// See [`EdgeSection::place`].
    pub place: String,
    pub shutdown: Shutdown,
}

/// The public routes. The frame is put around each handler: a layer of the router would be copied for every request.
pub fn routes(edge: Arc<Edge>) -> Router {
    type Here = State<Arc<Edge>>;
    Router::new()
        .route(EVALUATE_PATH, post(|edge: Here, request| frame(edge, request, bulk::answer)))
        .route(
            "/ofrep/v1/evaluate/flags/{*key}",
            post(|edge: Here, request| frame(edge, request, single::answer)),
        )
        .route(TRACK_PATH, post(|edge: Here, request| frame(edge, request, track::answer)))
        .route(STREAM_PATH, get(|edge: Here, request| frame(edge, request, stream::answer)))
        .fallback(|edge: Here, request| frame(edge, request, nothing_there))
        .method_not_allowed_fallback(|edge: Here, request| frame(edge, request, not_by_this_method))
        .with_state(edge)
}

async fn nothing_there(_: State<Arc<Edge>>, request: Request) -> Response {
    let path: String = request.uri().path().chars().take(80).collect();
    refuse(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
}

async fn not_by_this_method(_: State<Arc<Edge>>, request: Request) -> Response {
    let method = request.method();
    let message = format!("not by {method}; evaluations and events are sent by POST");
    refuse(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// The answer to a request that never reaches the handlers.
pub fn refuse(status: StatusCode, message: String) -> Response {
    Failure::new(status, Problem::general(message)).response(None)
}

/// Why a request as a whole has no answer.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, problem: Problem) -> Failure {
        Failure { status, problem, retry_after_s: None }
    }

    fn later(status: StatusCode, problem: Problem, retry_after_s: u64) -> Failure {
        Failure { status, problem, retry_after_s: Some(retry_after_s) }
    }

    fn not_ready() -> Failure {
        Failure::later(StatusCode::SERVICE_UNAVAILABLE, Problem::not_ready(), RETRY_AFTER_S)
    }

    /// `key` is that of a single evaluation.
    fn response(&self, key: Option<&str>) -> Response {
        let mut response = json(self.status, self.problem.body(key));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Problem> for Failure {
    /// A body that cannot be used.
    fn from(problem: Problem) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, problem)
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// The token that let a request in, for what is added to its answer.
#[derive(Clone)]
struct LetIn(Arc<Token>);

/// Answers preflights, lets pages read their answers, and counts.
async fn frame<A: Future<Output = Response>>(
    State(edge): State<Arc<Edge>>,
    request: Request,
    answer: impl FnOnce(State<Arc<Edge>>, Request) -> A,
) -> Response {
    let began = Instant::now();
    let route = route_of(request.uri().path());
    let origin = cors::origin(request.headers()).map(str::to_owned);
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(origin) if is_preflight => preflight(&edge, origin),
        _ => answer(State(edge.clone()), request).await,
    };
    if let Some(origin) = origin.filter(|_| !is_preflight) {
        // Without a token, a page that some token allows may at least read the error.
        let allowed = match response.extensions().get::<LetIn>() {
            Some(LetIn(token)) => token.allows_origin(&origin),
            None => edge.tokens.current().allows_origin(&origin),
        };
        if allowed {
            cors::allow(response.headers_mut(), &origin);
        }
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    edge.metrics.answered(route, response.status(), began.elapsed());
    response
}

/// A preflight shows no token, so it is answered before anybody is let in.
fn preflight(edge: &Edge, origin: &str) -> Response {
    if !edge.tokens.current().allows_origin(origin) {
        let shown: String = origin.chars().take(80).collect();
        return refuse(StatusCode::FORBIDDEN, format!("no token allows pages of {shown}"));
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    cors::allow_preflight(response.headers_mut(), origin);
    response
}

fn route_of(path: &str) -> Route {
    match path {
        EVALUATE_PATH => Route::Bulk,
        TRACK_PATH => Route::Track,
        STREAM_PATH => Route::Stream,
        _ if path.strip_prefix(EVALUATE_PATH).is_some_and(|rest| rest.starts_with('/')) => Route::Single,
        _ => Route::Other,
    }
}

impl Edge {
    /// Lets the request in by the token in its headers.
    fn let_in(&self, headers: &HeaderMap) -> Result<Arc<Token>, Failure> {
        let token = self.tokens.current().find(shown_token(headers));
        self.admit(token, headers)
    }

    fn admit(&self, token: Option<Arc<Token>>, headers: &HeaderMap) -> Result<Arc<Token>, Failure> {
        let Some(token) = token else {
            let problem = Problem::general("show a token: as `Authorization: Bearer ...` or as `X-API-Key`");
            return Err(Failure::new(StatusCode::UNAUTHORIZED, problem));
        };
        if let Some(origin) = cors::origin(headers)
            && !token.allows_origin(origin)
        {
            let problem = Problem::general("the token does not allow pages of this origin");
            return Err(Failure::new(StatusCode::FORBIDDEN, problem));
        }
        token.take(Instant::now()).map_err(|early| self.too_many(&token, "requests", early))?;
        Ok(token)
    }

    /// Refuses and counts what is more than the token's rate allows.
    fn too_many(&self, token: &Token, what: &str, early: TooMany) -> Failure {
        self.metrics.rate_limited.with_label_values(&[token.name.as_str()]).inc();
        let problem = Problem::general(format!("more {what} than the token's rate allows"));
        Failure::later(StatusCode::TOO_MANY_REQUESTS, problem, early.retry_after_s)
    }

    /// Reads the body of a request that was let in.
    async fn receive(&self, request: Request, bytes_max: usize) -> Result<Received, Failure> {
        self.intake.receive(request.into_body(), bytes_max).await.map_err(|why| {
            let later = |what: &str| {
                Failure::later(StatusCode::SERVICE_UNAVAILABLE, Problem::general(what), RETRY_AFTER_S)
            };
            match why {
                NotReceived::TooLarge => {
                    let problem = Problem::general(format!("a body has at most {bytes_max} bytes here"));
                    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, problem)
                }
                NotReceived::Late => {
                    let timeout = self.settings.body_timeout_ms.get();
                    let problem = Problem::general(format!("the body did not come within {timeout} ms"));
                    Failure::new(StatusCode::REQUEST_TIMEOUT, problem)
                }
                NotReceived::Displaced => later(
                    "as many bodies as are allowed are awaited, and this one had been awaited longest; send it again",
                ),
                NotReceived::Busy => later(
                    "as many requests as are allowed at once are under way; try again later",
                ),
                NotReceived::Broken => Problem::general("the body cannot be read").into(),
            }
        })
    }

    fn configuration(&self) -> Result<Arc<Configuration>, Failure> {
        self.serving.configuration().ok_or_else(Failure::not_ready)
    }

    /// Shows the context to the sample.
    fn sample(&self, sent: &SentContext<'_>) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples
            .offer(Instant::now(), || serde_json::to_string(sent).expect("a context can be written as JSON"));
    }

    /// Adds what an answer says of the configuration.
    fn say_version(&self, response: &mut Response, version: &str, stale: Option<Stale>) {
        let headers = response.headers_mut();
        headers.insert(VERSION, HeaderValue::from_str(version).expect("a revision is ASCII"));
        // A cache on the way must not answer in this one's place.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        if let Some(stale) = stale {
            headers.insert(STALE, HeaderValue::from_str(&stale.to_string()).expect("the reason is ASCII"));
            self.metrics.stale_answers.inc();
        }
    }
}

/// The token in the headers. An `Authorization` of another scheme, as a proxy may ask for, hides no key.
fn shown_token(headers: &HeaderMap) -> Option<&[u8]> {
    let authorizations = headers.get_all(header::AUTHORIZATION).into_iter();
    let bearer = authorizations.filter_map(|value| bearer(value.as_bytes())).next();
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii()))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// A parameter of the query.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let value = uri.query()?.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    let value = value?.1.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_token_is_shown_in_either_of_two_headers() {
        let shown = |pairs: &[(HeaderName, &'static str)]| {
            shown_token(&headers(pairs)).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        assert_eq!(shown(&[(header::AUTHORIZATION, "Bearer abc")]).as_deref(), Some("abc"));
        assert_eq!(shown(&[(header::AUTHORIZATION, "bearer  abc ")]).as_deref(), Some("abc"));
        assert_eq!(shown(&[(API_KEY, "abc")]).as_deref(), Some("abc"));
        assert_eq!(shown(&[(header::AUTHORIZATION, "Bearer a"), (API_KEY, "b")]).as_deref(), Some("a"));
        for other in ["Basic abc", "Bearer", "", "Bearerabc"] {
            assert_eq!(
                shown(&[(header::AUTHORIZATION, other), (API_KEY, "b")]).as_deref(),
                Some("b"),
                "{other}"
            );
        }
        for other in ["Basic abc", "Bearer", "", "Bearerabc"] {
            assert_eq!(shown(&[(header::AUTHORIZATION, other)]), None, "{other}");
        }
        assert_eq!(shown(&[]), None);
    }

    #[test]
    fn a_parameter_is_decoded() {
        let uri: Uri = "/x?a=1&flagConfigEtag=%22l.1.0%22&b=x+y&a=2".parse().unwrap();
        assert_eq!(parameter(&uri, "flagConfigEtag").as_deref(), Some("\"l.1.0\""));
        assert_eq!(parameter(&uri, "a").as_deref(), Some("1"));
        assert_eq!(parameter(&uri, "b").as_deref(), Some("x y"));
        assert_eq!(parameter(&uri, "c"), None);
        assert_eq!(parameter(&"/x".parse().unwrap(), "a"), None);
    }

    #[test]
    fn every_refusal_has_the_body_that_clients_parse() {
        let response = refuse(StatusCode::NOT_FOUND, "there is nothing at /x".to_owned());
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    }
}
