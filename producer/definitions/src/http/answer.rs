//! The answers: definitions with their versions as entity tags, the outcome of a change, and refusals with what the
//! client can do about them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_server::error;
use schemas::Micros;
use schemas::definition::{Accepted, Definitions, Kind, Problem, Refusal, Version};
use serde::Serialize;
use serde_json::Value;

use crate::apply::{Applied, Unopened, Verdict};
use crate::history::Standing;
use crate::log::{DefinitionLog, LogError};

/// The answer to a request for all definitions.
#[derive(Serialize)]
pub(super) struct ListDocument {
    /// Of all definitions together.
    version: Version,
    definitions: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    kind: Kind,
    key: String,
    version: Version,
    #[serde(flatten)]
    standing: Standing,
}

/// The answer to a request for one definition.
#[derive(Serialize)]
pub(super) struct DefinitionDocument {
    #[serde(flatten)]
    listed: Listed,
    #[serde(flatten)]
    changed: Option<LastChange>,
    /// The body of a change that changes nothing.
    definition: Value,
}

/// Who made a version.
#[derive(Serialize)]
struct LastChange {
    changed_at: Option<Micros>,
    author: String,
    reason: String,
}

/// The answer to a change that was judged.
#[derive(Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    applied: Applied,
    #[serde(flatten)]
    accepted: Option<OutcomeDefinition>,
    #[serde(skip)]
    created: bool,
    #[serde(skip)]
    stale: Option<Stale>,
}

/// The version that a change has made or has found.
#[derive(Serialize)]
struct OutcomeDefinition {
    #[serde(flatten)]
    standing: Standing,
    definition: Value,
}

/// The answer to a change that is not based on the current version.
#[derive(Serialize)]
pub(super) struct Stale {
    error: String,
    /// None if there is no such definition.
    current: Option<Current>,
}

#[derive(Serialize)]
struct Current {
    version: Version,
    #[serde(flatten)]
    changed: Option<LastChange>,
}

/// A problem of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Located {
    /// The line of the body, counted from 1, if the problem was found while it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The path of the field; `.` is the whole definition.
    pub field: String,
    pub what: String,
}

/// The answer to a change with problems.
#[derive(Serialize)]
struct ProblemsDocument {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Located>,
}

impl ListDocument {
    pub fn of(definitions: &Definitions) -> ListDocument {
        let listed = definitions.iter().map(|accepted| Listed::of(accepted)).collect();
        ListDocument { version: definitions.version(), definitions: listed }
    }
}

impl Listed {
    fn of(accepted: &Accepted) -> Listed {
        let Accepted { version, definition } = accepted;
        Listed {
            kind: definition.kind(),
            key: definition.key().to_string(),
            version: *version,
            standing: Standing::of(definition),
        }
    }
}

impl DefinitionDocument {
    pub fn of(log: &DefinitionLog, accepted: &Accepted) -> DefinitionDocument {
        DefinitionDocument {
            listed: Listed::of(accepted),
            changed: LastChange::of(log, accepted.version),
            definition: accepted.definition.to_document(),
        }
    }
}

impl LastChange {
    fn of(log: &DefinitionLog, version: Version) -> Option<LastChange> {
        let (entry, judged) = log.history().of_version(version)?;
        let (author, reason) = (judged.author.clone(), judged.reason.clone());
        Some(LastChange { changed_at: entry.time, author, reason })
    }
}

impl Stale {
    pub fn at(log: &DefinitionLog, error: String, current: Option<Version>) -> Stale {
        let current = current.map(|version| Current { version, changed: LastChange::of(log, version) });
        Stale { error, current }
    }
}

impl Outcome {
    pub fn of(log: &DefinitionLog, applied: Applied) -> Outcome {
        let version = match &applied.verdict {
            Verdict::Accepted { version } | Verdict::Unchanged { version } => Some(*version),
            Verdict::WouldBeAccepted | Verdict::Refused { .. } => None,
        };
        let made = version.and_then(|version| log.definitions().at_version(version));
        let is_first = |version| {
            let change = log.history().of_version(version);
            change.is_some_and(|(_, judged)| judged.based_on == 0)
        };
        let stale = match &applied.verdict {
            Verdict::Refused { reason: reason @ Refusal::Stale { current, .. } } => {
                let current = (*current > 0).then_some(*current);
                Some(Stale::at(log, reason.to_string(), current))
            }
            _ => None,
        };
        Outcome {
            accepted: made.map(|made| OutcomeDefinition {
                standing: Standing::of(&made.definition),
                definition: made.definition.to_document(),
            }),
            created: matches!(&applied.verdict, Verdict::Accepted { version } if is_first(*version)),
            stale,
            applied,
        }
    }
}

impl IntoResponse for Outcome {
    fn into_response(mut self) -> Response {
        if let Some(refused) = self.stale.take() {
            return stale(refused);
        }
        match &self.applied.verdict {
            Verdict::Accepted { version } | Verdict::Unchanged { version } => {
                if let Some(unopened) = &self.applied.unopened {
                    return not_open(*version, unopened);
                }
                let status = if self.created { StatusCode::CREATED } else { StatusCode::OK };
                (status, [(header::ETAG, tag(*version))], Json(self)).into_response()
            }
            Verdict::WouldBeAccepted => Json(self).into_response(),
            Verdict::Refused { reason } => {
                let found = match reason {
                    Refusal::NotAllowed(problems) => problems.iter().map(Located::of).collect(),
                    Refusal::Unreadable(_) | Refusal::Stale { .. } => Vec::new(),
                };
                problems(StatusCode::UNPROCESSABLE_ENTITY, format!("refused: {reason}"), found)
            }
        }
    }
}

impl Located {
    fn of(problem: &Problem) -> Located {
        Located { line: None, field: problem.field.clone(), what: problem.what.clone() }
    }
}

/// The entity tag of a version.
pub(super) fn tag(version: Version) -> String {
    format!("\"{version}\"")
}

pub(super) fn stale(stale: Stale) -> Response {
    (StatusCode::PRECONDITION_FAILED, Json(stale)).into_response()
}

/// The list is written, and a phase that it opens is not open yet. The reason may name servers, so only the service's log has
/// it.
fn not_open(version: Version, unopened: &Unopened) -> Response {
    let experiments: Vec<String> = unopened.experiments.iter().map(|key| format!("`{key}`")).collect();
    let tag = tag(version);
    let what = format!(
        "the list is version {version}; the phases of {} are not open yet: PUT it again with If-Match {tag}",
        experiments.join(", ")
    );
    ([(header::ETAG, tag)], error(StatusCode::SERVICE_UNAVAILABLE, what)).into_response()
}

pub(super) fn problems(status: StatusCode, error: String, problems: Vec<Located>) -> Response {
    (status, Json(ProblemsDocument { error, problems })).into_response()
}

pub(super) fn busy() -> Response {
    let mut response = error(
        StatusCode::SERVICE_UNAVAILABLE,
        "the log of definitions is being read or written by others; try again later",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The log could not be read; nothing was written.
pub(super) fn unavailable(failure: LogError) -> Response {
    http_server::failed(
        StatusCode::SERVICE_UNAVAILABLE,
        "the log of definitions cannot be read",
        &failure.into(),
    )
}

/// A change could not be carried out. The reason may name servers, so only the service's log has it.
pub(super) fn failed(failure: LogError) -> Response {
    use kafka::LogError::NotWritten;
    let what = match &failure {
        LogError::Log(log) if matches!(**log, NotWritten { .. }) => {
            "Kafka did not take the change, and it is not written"
        }
        _ => {
            "it is not known yet whether the change is written; the definition's history will tell. Trying again is safe: \
             both are based on one version, and the log accepts only one of them"
        }
    };
    http_server::failed(StatusCode::SERVICE_UNAVAILABLE, what, &failure.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client was told that the list is not written.
    #[tokio::test]
    async fn a_list_whose_phases_are_not_open_is_told_to_be_written() {
        let experiments = vec!["e".to_owned(), "f".to_owned()];
        let unopened = Unopened { experiments, because: "kafka at 10.0.0.1 does not answer".to_owned() };
        let answer = not_open(7, &unopened);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::ETAG], "\"7\"");
        let body = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            serde_json::json!({
                "error": "the list is version 7; the phases of `e`, `f` are not open yet: PUT it again with If-Match \"7\""
            })
        );
    }
}
