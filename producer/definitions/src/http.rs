//! Definitions over HTTP: what is defined, the history of each definition, and changes under a precondition. A
//! change takes the same way as one of `splitstream apply`; only its author, who is named by the token, and the
//! version that it is based on come from the request. These routes do not know which service serves them: one whose
//! Kafka user may write to the log, and that no browser of a stranger reaches.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Json, Router, middleware};
use http_server::error;
use ops::config::Kafka;
use schemas::definition::{Accepted, Kind};
use schemas::{Key, Micros};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

use crate::apply::{Applied, apply, rehearse};
use crate::log::{DefinitionLog, LogError};
use answer::{DefinitionDocument, ListDocument, Outcome};
use request::ChangeRequest;
use writers::Author;

mod answer;
mod request;
mod writers;

pub use request::REASON_HEADER;
pub use writers::Writers;

/// The time for which a request waits until the requests before it have read the log or written to it; then it is
/// answered with 503. It is shorter than a service's time for a whole request.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

const ONE: &str = "/api/v1/definitions/{kind}/{key}";

/// The routes, separate because they are guarded by different tokens.
pub struct Routes {
    pub read: Router,
    /// Only for [`Writers`].
    pub write: Router,
}

/// Tells the time by which slots have cooled down.
pub type Clock = fn() -> anyhow::Result<Micros>;

/// The routes of the log that `kafka` leads to. The log is opened by the first request.
pub fn routes(kafka: Kafka, writers: Writers, clock: Clock) -> Routes {
    let log = SharedLog { kafka: Arc::new(kafka), clock, log: Arc::default() };
    let read = Router::new()
        .route("/api/v1/definitions", get(list))
        .route(ONE, get(one))
        .route("/api/v1/definitions/{kind}/{key}/history", get(history))
        .with_state(log.clone());
    let write = Router::new()
        .route(ONE, put(change))
        // Before the body is read.
        .route_layer(middleware::from_fn_with_state(Arc::new(writers), writers::authorize))
        .with_state(log);
    Routes { read, write }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuestion {
    /// Whether the refused changes are asked for as well.
    #[serde(default)]
    refused: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeQuestion {
    /// Whether only the verdict is asked for.
    #[serde(default)]
    dry_run: bool,
}

async fn list(State(log): State<SharedLog>, headers: HeaderMap) -> Response {
    match log.at_its_end().await {
        Ok(log) => {
            let definitions = log.definitions();
            unless_known(&headers, answer::tag(definitions.version()), || ListDocument::of(definitions))
        }
        Err(refusal) => *refusal,
    }
}

async fn one(
    State(log): State<SharedLog>,
    Path((kind, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let kind = read_kind(&kind)?;
        let log = log.at_its_end().await?;
        let accepted = current(&log, kind, &key).ok_or_else(|| no_such(kind, &key))?;
        let tag = answer::tag(accepted.version);
        Ok(unless_known(&headers, tag, || DefinitionDocument::of(&log, accepted)))
    };
    found.await.unwrap_or_else(|refusal: Refused| *refusal)
}

async fn history(
    State(log): State<SharedLog>,
    Path((kind, key)): Path<(String, String)>,
    question: Result<Query<HistoryQuestion>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let kind = read_kind(&kind)?;
        let Query(HistoryQuestion { refused }) = question.map_err(|wrong| unreadable(&wrong.body_text()))?;
        let log = log.at_its_end().await?;
        let kind = log
            .history()
            .kind_of(&key, Some(kind), refused)
            .map_err(|unknown| error(StatusCode::NOT_FOUND, unknown.to_string()))?;
        // Records of other keys change the tag as well; they are few beside the questions.
        let tag = answer::tag(log.definitions().next_offset());
        Ok(unless_known(&headers, tag, || log.history().changes(kind, &key, refused)))
    };
    found.await.unwrap_or_else(|refusal: Refused| *refusal)
}

async fn change(
    State(log): State<SharedLog>,
    Extension(Author(author)): Extension<Author>,
    Path((kind, key)): Path<(String, String)>,
    question: Result<Query<ChangeQuestion>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let read = || -> Result<_, Refused> {
        let kind = read_kind(&kind)?;
        let Query(ChangeQuestion { dry_run }) = question.map_err(|wrong| unreadable(&wrong.body_text()))?;
        let body = body.map_err(|wrong| error(wrong.status(), wrong.body_text()))?;
        let request = ChangeRequest::read(kind, &key, &headers, &body, author)?;
        Ok((request, dry_run))
    };
    let (request, dry_run) = match read() {
        Ok(read) => read,
        Err(refusal) => return *refusal,
    };
    // In a task of its own: a change that was sent to Kafka gets its verdict, and its line in the service's log, even
    // if its client is gone or its time is over.
    let carried_out = tokio::spawn(async move {
        if dry_run { try_out(&log, request).await } else { carry_out(&log, request).await }
    });
    match carried_out.await {
        Ok(answer) => answer.unwrap_or_else(|refusal| *refusal),
        Err(panic) => http_server::failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the change failed; its history tells whether it was written",
            &panic.into(),
        ),
    }
}

/// Returns the verdict on a change without writing it.
async fn try_out(log: &SharedLog, request: ChangeRequest) -> Result<Response, Refused> {
    let now = log.now()?;
    let log = log.at_its_end().await?;
    request.based_on.check(&log, request.kind(), request.key())?;
    let rehearsed = rehearse(log.definitions(), now, vec![request.definition], &request.signature);
    let mut rehearsed = rehearsed.map_err(|unknown_rule| answer::unavailable(unknown_rule.into()))?;
    Ok(Outcome::of(&log, rehearsed.remove(0)).into_response())
}

async fn carry_out(log: &SharedLog, request: ChangeRequest) -> Result<Response, Refused> {
    let now = log.now()?;
    let mut log = log.at_its_end().await?;
    let (kind, key) = (request.kind(), request.key().clone());
    request.based_on.check(&log, kind, &key)?;
    // Nobody else has this log meanwhile, so the change is based on the version that was just checked. If another
    // process is first, the order of the log refuses the change.
    let applied: Result<Applied, LogError> =
        apply(&mut log, now, request.definition, &request.signature).await;
    let author = request.signature.author;
    let applied = applied.map_err(answer::failed)?;
    tracing::info!(author, %kind, %key, verdict = ?applied.verdict, "a change of a definition over HTTP");
    for opened in &applied.opened {
        let (key, verdict) = (&opened.key, &opened.verdict);
        tracing::info!(author, kind = %opened.kind, key, ?verdict, "a change of a definition over HTTP, which it entails");
    }
    Ok(Outcome::of(&log, applied).into_response())
}

/// The log, which one request at a time reads or writes.
#[derive(Clone)]
struct SharedLog {
    kafka: Arc<Kafka>,
    clock: Clock,
    log: Arc<Mutex<Option<DefinitionLog>>>,
}

/// The answer to a request that is not carried out.
type Refused = Box<Response>;

type HeldLog = OwnedMappedMutexGuard<Option<DefinitionLog>, DefinitionLog>;

impl SharedLog {
    fn now(&self) -> Result<Micros, Refused> {
        (self.clock)().map_err(|why| {
            http_server::failed(StatusCode::INTERNAL_SERVER_ERROR, "the clock cannot be read", &why).into()
        })
    }

    /// Returns the log, read to the end that it has now. A log that could not be read is opened anew by the next
    /// request: its topic may have been restored.
    async fn at_its_end(&self) -> Result<HeldLog, Refused> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.log.clone().lock_owned()).await;
        let mut held = turn.map_err(|_| answer::busy())?;
        let log = match held.take() {
            None => DefinitionLog::open(&self.kafka).await,
            Some(mut log) => log.catch_up().await.map(|()| log),
        };
        let log = log.map_err(answer::unavailable)?;
        Ok(OwnedMutexGuard::map(held, |held| held.insert(log)))
    }
}

/// Answers with the document under its tag, or with 304 and without a body if the client has it already.
fn unless_known<T: Serialize>(headers: &HeaderMap, tag: String, document: impl FnOnce() -> T) -> Response {
    if request::is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    ([(header::ETAG, tag)], Json(document())).into_response()
}

/// Returns the current version of a definition; `None` if the key is not there or is of another kind.
fn current<'l>(log: &'l DefinitionLog, kind: Kind, key: &str) -> Option<&'l Accepted> {
    let accepted = log.definitions().current(kind, &Key::new(key).ok()?)?;
    (accepted.definition.kind() == kind).then_some(accepted)
}

fn read_kind(text: &str) -> Result<Kind, Refused> {
    Kind::parse(text).ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::as_str).join(", ");
        let shown: String = text.chars().take(80).collect();
        error(StatusCode::NOT_FOUND, format!("`{shown}` is not a kind of definition: one of {kinds}")).into()
    })
}

fn no_such(kind: Kind, key: &str) -> Response {
    let shown: String = key.chars().take(80).collect();
    error(StatusCode::NOT_FOUND, format!("there is no {kind} `{shown}`"))
}

fn unreadable(why: &str) -> Response {
    error(StatusCode::BAD_REQUEST, why)
}
