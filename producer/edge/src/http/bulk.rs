//! All flags for one context, for clients that evaluate once and read later. Nothing is exposed by it: each flag's metadata
//! carries what an exposure needs, and a client reports what it reads.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemas::evaluation_counts::Day;
use sdk::event::now;

use super::{Edge, Failure, LetIn, STREAM_PATH, TRACK_PATH, json, parameter};
use crate::etag::{self, Asked, Known, Revision, Verdict};
use crate::exposures;
use crate::ofrep::answer::{BulkEnd, BulkWriter, write_flag};
use crate::ofrep::error::Problem;
use crate::ofrep::{canonical, request};
use crate::serving::Stale;
use crate::tokens::Token;

/// How long a client waits that was told of a newer configuration than is here, and how often that is looked at.
const NEWER_WAIT: Duration = Duration::from_secs(1);
const NEWER_TICK: Duration = Duration::from_millis(10);

/// The tokens of a request, copied out of its head.
struct Shown {
    tags: Vec<String>,
    config_etag: Option<String>,
    config_modified_s: Option<i64>,
}

pub(super) async fn answer(edge: &Edge, request: Request, began: Instant) -> Response {
    let token = match edge.let_in(request.headers(), began) {
        Ok(token) => token,
        Err(failure) => return failure.response(None),
    };
    let shown = Shown::of(request.headers(), request.uri());
    await_configuration(edge, shown.config_etag.as_deref()).await;
    let outcome = match edge.receive(request.into_body(), edge.settings.body_bytes.usize()).await {
        Ok(received) => evaluate(edge, &token, &shown, &received.body, began),
        Err(failure) => Err(failure),
    };
    let mut response = outcome.unwrap_or_else(|failure| failure.response(None));
    response.extensions_mut().insert(LetIn(token));
    response
}

/// Waits until the configuration is here that the client was told of, by another edge that had it first: what it gets now it
/// keeps until the next change. After the time it gets what there is, marked as stale. It holds no slot meanwhile.
async fn await_configuration(edge: &Edge, told: Option<&str>) {
    let Some(told) = told.and_then(Revision::parse) else { return };
    let is_awaited = || {
        let served = edge.serving.configuration();
        served.is_some_and(|served| told.is_newer_than(&served.revision(now())))
    };
    let deadline = Instant::now() + NEWER_WAIT;
    while is_awaited() && Instant::now() < deadline {
        tokio::time::sleep(NEWER_TICK).await;
    }
}

impl Shown {
    fn of(headers: &HeaderMap, uri: &Uri) -> Shown {
        let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        Shown {
            tags: tags.map(str::to_owned).collect(),
            config_etag: parameter(uri, "flagConfigEtag"),
            config_modified_s: parameter(uri, "flagConfigLastModified")
                .and_then(|seconds| seconds.parse().ok()),
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            tags: self.tags.iter().map(String::as_str).collect(),
            config_etag: self.config_etag.as_deref(),
            config_modified_s: self.config_modified_s,
        }
    }
}

fn evaluate(
    edge: &Edge,
    token: &Token,
    shown: &Shown,
    body: &[u8],
    began: Instant,
) -> Result<Response, Failure> {
    let configuration = edge.configuration()?;
    let mut stale = edge.serving.stale();
    let sent = request::read(body)?;
    edge.sample(&sent, began);
    let now = now();
    let revision = configuration.revision(now);
    let tag =
        revision.tag(&Asked { context: canonical::hash(&sent), class: token.class(), place: &edge.place });
    let verdict = etag::decide(&revision, &tag, configuration.modified_s(now), &shown.known());
    let version = revision.to_string();
    let mut response = match verdict {
        Verdict::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Verdict::Answer | Verdict::AnswerStale => {
            let attributes = sent.attributes(&token.unit_type);
            let context = sent.context(&token.unit_type, &attributes);
            let day = Day::of(now);
            let mut bulk = BulkWriter::new(configuration.keys());
            for (entry, evaluated) in configuration.evaluate_all(token.kind, &context, now) {
                bulk.flag(entry.key.as_str(), |out| {
                    let evaluation =
                        evaluated.map_err(|error| Problem::of_evaluation(&error, &token.unit_type))?;
                    let exposures = exposures::of_evaluation(&evaluation, &context, now);
                    write_flag(out, entry, &evaluation, &exposures, None)?;
                    if let Some(count) = entry.count(evaluation.variant.as_str()) {
                        count.bulk(day);
                    }
                    Ok(())
                });
            }
            let prefix = edge.settings.path_prefix.as_str();
            let stream_uri = format!("{prefix}{STREAM_PATH}?token={}", token.ticket);
            let end = BulkEnd {
                version: &version,
                track_path: &format!("{prefix}{TRACK_PATH}"),
                stream_uri: (edge.settings.streams.get() > 0).then_some(&stream_uri),
            };
            json(StatusCode::OK, bulk.end(&end))
        }
    };
    if verdict == Verdict::AnswerStale {
        stale = stale.or(Some(Stale::Behind));
    }
    let quoted = HeaderValue::from_str(&format!("\"{tag}\"")).expect("a tag is ASCII");
    response.headers_mut().insert(header::ETAG, quoted);
    edge.say_version(&mut response, &version, stale);
    Ok(response)
}
