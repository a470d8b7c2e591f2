//! One flag for one context. Reading a value is what exposes a unit, so this logs the exposure, unless the request says that
//! nobody reads.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
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

pub(super) async fn answer(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let key = key_of(request.uri().path());
    let token = match edge.let_in(request.headers()) {
        Ok(token) => token,
        Err(failure) => return failure.response(Some(&key)),
    };
    let logs = !is_off(request.headers());
    let is_of_page = cors::origin(request.headers()).is_some();
    let outcome = match edge.receive(request, edge.settings.body_bytes.usize()).await {
        Ok(received) => evaluate(&edge, &token, &key, &received.body, logs),
        Err(failure) => Err(failure),
    };
    let mut response = outcome.unwrap_or_else(|failure| failure.response(Some(&key)));
    // Only a page's answer is looked at again.
    if is_of_page {
        response.extensions_mut().insert(LetIn(token));
    }
    response
}

/// The key in the path. Some clients encode it and some do not; a key that there is needs neither.
fn key_of(path: &str) -> String {
    let key = path.strip_prefix(EVALUATE_PATH).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned()
}

fn is_off(headers: &HeaderMap) -> bool {
    headers.get(EXPOSURE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"))
}

fn evaluate(edge: &Edge, token: &Token, key: &str, body: &[u8], logs: bool) -> Result<Response, Failure> {
    let configuration = edge.configuration()?;
    let stale = edge.serving.stale();
    let sent = request::read(body)?;
    edge.sample(&sent);
    let now = now();
    let question = Question { configuration: &configuration, token, key, sent: &sent, now, logs };
    let mut response = match question.answer(edge) {
        Ok(out) => json(StatusCode::OK, out),
        Err(problem) => failure(problem).response(Some(key)),
    };
    // That there is no such key, too, is what this configuration says.
    edge.say_version(&mut response, &configuration.revision(now).to_string(), stale);
    Ok(response)
}

/// One key, asked of one configuration.
struct Question<'a> {
    configuration: &'a Configuration,
    token: &'a Token,
    key: &'a str,
    sent: &'a SentContext<'a>,
    now: Micros,
    /// Whether the exposures are logged.
    logs: bool,
}

impl Question<'_> {
    /// Returns the body of the answer, and logs the exposures.
    fn answer(self, edge: &Edge) -> Result<Vec<u8>, Problem> {
        let Question { configuration, token, key, sent, now, logs } = self;
        let attributes = sent.attributes(&token.unit_type);
        let context = sent.context(&token.unit_type, &attributes);
        let (entry, evaluation) = configuration.evaluate(key, token.kind, &context, now)?;
        let exposures = exposures::of_evaluation(&evaluation, &context, now);
        let mut out = Vec::with_capacity(512);
        // Asked before anything is logged: a value that cannot be written is not read.
        let all_logged = if evaluation.value.is_null() || !logs {
            if !exposures.is_empty() {
                edge.metrics.exposures.with_label_values(&["off"]).inc_by(exposures.len() as u64);
            }
            false
        } else {
            let told = Told { configuration, sent, context: &context };
            let mut all = true;
            for exposure in &exposures {
                let logged = exposures::log(exposure, told, &edge.suppressed, &edge.events, Instant::now());
                edge.metrics.exposures.with_label_values(&[logged.code()]).inc();
                if let Logged::Refused(why) = logged {
                    all = false;
                    tracing::debug!(%why, experiment = &*exposure.experiment, "an exposure was refused");
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
