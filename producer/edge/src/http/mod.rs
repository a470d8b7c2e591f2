//! The public routes: who is let in, what bounds a request, and how an answer looks around its body. What is answered is
//! decided elsewhere. There are four routes, which one comparison of the path tells apart, for the metrics too: the search,
//! captures and boxes of a router took more instructions than reading a body and writing its answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
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
/// `off` keeps a single evaluation from logging an exposure; `on` is the default.
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
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Why a request has no token that lets it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoToken {
    NotShown,
    /// It is none of this environment's. Which tokens there were or are elsewhere is nobody's business.
    NotValid,
}

impl NoToken {
    fn problem(self) -> Problem {
        Problem::general(match self {
            NoToken::NotShown => "show a token: as `Authorization: Bearer ...` or as `X-API-Key`",
            NoToken::NotValid => {
                "the token that was shown is not valid here: it is unknown, revoked, or of another environment"
            }
        })
    }
}

/// The token that let a request in, for what is added to its answer.
#[derive(Clone)]
struct LetIn(Arc<Token>);

/// Answers a request of the public port: answers preflights, lets pages read their answers, and counts.
pub async fn answer(edge: Arc<Edge>, request: Request) -> Response {
    let began = Instant::now();
    let route = route_of(request.uri().path());
    let origin = cors::origin(request.headers()).map(str::to_owned);
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(origin) if is_preflight => preflight(&edge, origin),
        _ => answer_by(route, &edge, request, began).await,
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

async fn answer_by(route: Route, edge: &Edge, request: Request, began: Instant) -> Response {
    match (route, request.method()) {
        (Route::Single, &Method::POST) => single::answer(edge, request, began).await,
        (Route::Bulk, &Method::POST) => bulk::answer(edge, request, began).await,
        (Route::Track, &Method::POST) => track::answer(edge, request, began).await,
        (Route::Stream, &Method::GET | &Method::HEAD) => stream::answer(edge, &request, began),
        (Route::Single | Route::Bulk | Route::Track, _) => by_another_method(&request, "POST"),
        (Route::Stream, _) => by_another_method(&request, "GET,HEAD"),
        (Route::Other, _) => nothing_there(&request),
    }
}

fn nothing_there(request: &Request) -> Response {
    let path: String = request.uri().path().chars().take(80).collect();
    refuse(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
}

fn by_another_method(request: &Request, allowed: &'static str) -> Response {
    let method = request.method();
    let message = format!("not by {method}; evaluations and events are sent by POST");
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, message);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
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
        _ => match path.strip_prefix(EVALUATE_PATH).and_then(|rest| rest.strip_prefix('/')) {
            Some(key) if !key.is_empty() => Route::Single,
            _ => Route::Other,
        },
    }
}

impl Edge {
    /// Lets the request in by the token in its headers.
    fn let_in(&self, headers: &HeaderMap, began: Instant) -> Result<Arc<Token>, Failure> {
        let shown = shown_token(headers).ok_or(NoToken::NotShown);
        let token = match self.tokens.current().find(shown.ok()) {
            Some(token) => Ok(token),
            None => Err(shown.err().unwrap_or(NoToken::NotValid)),
        };
        self.admit(token, headers, began)
    }

    fn admit(
        &self,
        token: Result<Arc<Token>, NoToken>,
        headers: &HeaderMap,
        began: Instant,
    ) -> Result<Arc<Token>, Failure> {
        let token = token.map_err(|why| Failure::new(StatusCode::UNAUTHORIZED, why.problem()))?;
        if let Some(origin) = cors::origin(headers)
            && !token.allows_origin(origin)
        {
            let problem = Problem::general("the token does not allow pages of this origin");
            return Err(Failure::new(StatusCode::FORBIDDEN, problem));
        }
        token.take(began).map_err(|early| self.too_many(&token, "requests", early))?;
        Ok(token)
    }

    /// Refuses and counts what is more than the token's rate allows.
    fn too_many(&self, token: &Token, what: &str, early: TooMany) -> Failure {
        self.metrics.rate_limited.with_label_values(&[token.name.as_str()]).inc();
        let problem = Problem::general(format!("more {what} than the token's rate allows"));
        Failure::later(StatusCode::TOO_MANY_REQUESTS, problem, early.retry_after_s)
    }

    /// Reads the body of a request that was let in.
    async fn receive(&self, body: Body, bytes_max: usize) -> Result<Received<'_>, Failure> {
        self.intake.receive(body, bytes_max).await.map_err(|why| {
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
    fn sample(&self, sent: &SentContext<'_>, began: Instant) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.offer(began, || serde_json::to_string(sent).expect("a context can be written as JSON"));
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

/// The token in the headers; an empty one is none. An `Authorization` of another scheme, as a proxy may ask for, hides no key.
fn shown_token(headers: &HeaderMap) -> Option<&[u8]> {
    let authorizations = headers.get_all(header::AUTHORIZATION).into_iter();
    let bearer = authorizations.filter_map(|value| bearer(value.as_bytes())).next();
    let shown = bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii()));
    shown.filter(|shown| !shown.is_empty())
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
    fn a_path_is_compared_as_it_was_sent() {
        for (path, route) in [
            ("/ofrep/v1/evaluate/flags", Route::Bulk),
            ("/ofrep/v1/evaluate/flags/", Route::Other),
            ("/ofrep/v1/evaluate/flags/a", Route::Single),
            ("/ofrep/v1/evaluate/flags/a/b", Route::Single),
            ("/ofrep/v1/evaluate/flagsa", Route::Other),
            ("/ofrep/v1/track", Route::Track),
            ("/ofrep/v1/track/", Route::Other),
            ("/ofrep/v1/stream", Route::Stream),
            ("//ofrep/v1/stream", Route::Other),
            ("/", Route::Other),
            // Of CONNECT and of `OPTIONS *`.
            ("", Route::Other),
            ("*", Route::Other),
        ] {
            assert_eq!(route_of(path), route, "{path}");
        }
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
