//! One flag for one context. Reading a value is what exposes a unit, so this logs the exposure, unless the request says that
//! nobody reads.

use std::borrow::Cow;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemas::Micros;
use schemas::evaluation_counts::Day;
use sdk::event::now;

use super::{EVALUATE_PATH, EXPOSURE, Edge, Failure, LetIn, json};
use crate::configuration::Configuration;
use crate::cors;
use crate::exposures::{self, Logged, Told};
use crate::ofrep::answer::write_flag;
use crate::ofrep::error::{ErrorCode, Problem};
use crate::ofrep::request::{self, SentContext};
use crate::tokens::Token;

pub(super) async fn answer(edge: &Edge, request: Request, began: Instant) -> Response {
    let (head, body) = request.into_parts();
    let key = key_of(head.uri.path());
    let token = match edge.let_in(&head.headers, began) {
        Ok(token) => token,
        Err(failure) => return failure.response(Some(&key)),
    };
    let logs = match is_logged(&head.headers) {
        Ok(logs) => logs,
        Err(problem) => return Failure::from(problem).response(Some(&key)),
    };
    let asked = Asked { key: &key, token: &token, logs, began };
    let outcome = match edge.receive(body, edge.settings.body_bytes.usize()).await {
        Ok(received) => evaluate(edge, asked, &received.body),
        Err(failure) => Err(failure),
    };
    let mut response = outcome.unwrap_or_else(|failure| failure.response(Some(&key)));
    // Only a page's answer is looked at again.
    if cors::origin(&head.headers).is_some() {
        response.extensions_mut().insert(LetIn(token));
    }
    response
}

/// What is known of a request before its body is read.
#[derive(Clone, Copy)]
struct Asked<'a> {
    key: &'a str,
    token: &'a Token,
    /// Whether the read is logged as an exposure.
    logs: bool,
    began: Instant,
}

/// The key in the path. Some clients encode it and some do not; a key that there is needs neither.
fn key_of(path: &str) -> Cow<'_, str> {
    let key = path.strip_prefix(EVALUATE_PATH).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    percent_encoding::percent_decode_str(key).decode_utf8_lossy()
}

/// Whether the exposure is to be logged.
fn is_logged(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(value) = headers.get(EXPOSURE) else { return Ok(true) };
    match value.as_bytes() {
        value if value.eq_ignore_ascii_case(b"on") => Ok(true),
        value if value.eq_ignore_ascii_case(b"off") => Ok(false),
        value => {
            let shown: String = String::from_utf8_lossy(value).chars().take(80).collect();
            Err(Problem::general(format!(
                "X-Splitstream-Exposure is `{shown}` where `on` or `off` is expected"
            )))
        }
    }
}

fn evaluate(edge: &Edge, asked: Asked<'_>, body: &[u8]) -> Result<Response, Failure> {
    let Asked { key, began, .. } = asked;
    let configuration = edge.configuration()?;
    let stale = edge.serving.stale();
    let sent = request::read(body)?;
    edge.sample(&sent, began);
    let now = now();
    let mut response = match flag(edge, &configuration, asked, &sent, now) {
        Ok(out) => json(StatusCode::OK, out),
        Err(problem) => failure(problem).response(Some(key)),
    };
    // That there is no such key, too, is what this configuration says.
    edge.say_version(&mut response, &configuration.revision_text(now), stale);
    Ok(response)
}

/// Returns the body of the answer, and logs the exposures.
fn flag(
    edge: &Edge,
    configuration: &Configuration,
    asked: Asked<'_>,
    sent: &SentContext<'_>,
    now: Micros,
) -> Result<Vec<u8>, Problem> {
    let Asked { key, token, logs, began } = asked;
    let attributes = sent.attributes(&token.unit_type);
    let context = sent.context(&token.unit_type, &attributes);
    let (entry, evaluation) = configuration
        .evaluate(key, token.kind, &context, now)
        .map_err(|error| Problem::of_evaluation(&error, &token.unit_type))?;
    let exposures = exposures::of_evaluation(&evaluation, &context, now);
    let mut out = Vec::with_capacity(512);
    // Asked before anything is logged: a value that cannot be written is not read.
    let all_logged = if evaluation.value.is_null() || !logs {
        if !exposures.is_empty() {
            edge.metrics.exposures.off.inc_by(exposures.len() as u64);
        }
        false
    } else {
        let told = Told { configuration, sent, context: &context };
        let mut all = true;
        for exposure in &exposures {
            match exposures::log(exposure, told, &edge.suppressed, &edge.events, began) {
                Logged::Emitted => edge.metrics.exposures.emitted.inc(),
                Logged::Suppressed => edge.metrics.exposures.suppressed.inc(),
                Logged::Refused(why) => {
                    edge.metrics.exposures.refused.inc();
                    all = false;
                    tracing::debug!(%why, experiment = &*exposure.experiment, "an exposure was refused");
                }
            }
        }
        all
    };
    write_flag(&mut out, entry, &evaluation, &exposures, Some(all_logged))?;
    // Without an exposure nobody reads it.
    if logs && let Some(count) = entry.count(evaluation.variant.as_str()) {
        count.single(Day::of(now));
    }
    Ok(out)
}

fn failure(problem: Problem) -> Failure {
    let status = match problem.code {
        ErrorCode::FlagNotFound => StatusCode::NOT_FOUND,
        ErrorCode::General => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    Failure::new(status, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposure_is_logged_unless_the_header_says_off_and_nothing_else_is_guessed() {
        let asked = |value: &'static str| {
            let headers = HeaderMap::from_iter([(EXPOSURE, value.parse().unwrap())]);
            is_logged(&headers).map_err(|problem| problem.details)
        };
        assert_eq!(is_logged(&HeaderMap::new()), Ok(true));
        assert_eq!(
            (asked("on"), asked("ON"), asked("off"), asked("Off")),
            (Ok(true), Ok(true), Ok(false), Ok(false))
        );
        for value in ["maybe", "", "0", "false"] {
            let message = format!("X-Splitstream-Exposure is `{value}` where `on` or `off` is expected");
            assert_eq!(asked(value), Err(message));
        }
    }

    #[test]
    fn a_key_is_read_whether_it_is_encoded_or_not() {
        for (path, key) in [
            ("/ofrep/v1/evaluate/flags/a.b_c-d", "a.b_c-d"),
            ("/ofrep/v1/evaluate/flags/a%2Eb", "a.b"),
            ("/ofrep/v1/evaluate/flags/a/b", "a/b"),
            ("/ofrep/v1/evaluate/flags/%ff", "\u{fffd}"),
        ] {
            assert_eq!(key_of(path), key);
        }
    }
}
