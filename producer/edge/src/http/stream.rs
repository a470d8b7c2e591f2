//! The event stream: it tells a client to ask again, at once when it connects and whenever the revision changes. A browser
//! sends no headers with it, so the token may be in the query or in a cookie; requests are logged nowhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use ops::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{Edge, Failure, LetIn, NoToken, parameter, shown_token};
use crate::announce::Announcement;
use crate::metrics::Metrics;
use crate::ofrep::error::Problem;
use crate::tokens::{OpenStream, Token, Tokens};

/// The cookie that may have the token.
const COOKIE: &str = "splitstream_token";
/// Frames that wait for a client that does not read; then its stream waits, and what it misses is one announcement.
const FRAMES_WAITING_MAX: usize = 4;
/// Seconds after which a client asks again for a stream.
const RETRY_AFTER_S: u64 = 30;
/// What the browser waits before it connects again, in milliseconds.
const HELLO: &str = "retry: 2000\n: connected\n\n";
const KEEP_ALIVE: &str = ": keep-alive\n\n";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// For the proxy nginx, which would hold events back.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn answer(edge: &Edge, request: &Request, began: Instant) -> Response {
    let token = match edge.admit(find_token(edge, request), request.headers(), began) {
        Ok(token) => token,
        Err(failure) => return failure.response(None),
    };
    let Some(open) = token.open_stream(edge.settings.streams_per_token.usize()) else {
        edge.metrics.streams_refused.inc();
        let problem = Problem::general("as many event streams as are allowed for one token are open");
        return Failure::later(StatusCode::TOO_MANY_REQUESTS, problem, RETRY_AFTER_S).response(None);
    };
    let Ok(slot) = edge.stream_slots.clone().try_acquire_owned() else {
        edge.metrics.streams_refused.inc();
        let problem = Problem::general("as many event streams as are allowed are open");
        return Failure::later(StatusCode::SERVICE_UNAVAILABLE, problem, RETRY_AFTER_S).response(None);
    };
    let (frames, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    let stream = Stream {
        frames,
        announced: edge.announced.clone(),
        last_event_id: last_event_id(request),
        keep_alive: edge.settings.stream_keep_alive_ms.duration(),
        metrics: edge.metrics.clone(),
        _slot: slot,
        _open: open,
    };
    let end = End { token: token.clone(), tokens: edge.tokens.subscribe(), shutdown: edge.shutdown.clone() };
    tokio::spawn(stream.run(end));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    let mut response = (headers, Body::new(Frames(waiting))).into_response();
    response.extensions_mut().insert(LetIn(token));
    response
}

fn find_token(edge: &Edge, request: &Request) -> Result<Arc<Token>, NoToken> {
    let tokens = edge.tokens.current();
    let in_headers = shown_token(request.headers());
    if let Some(token) = tokens.find(in_headers) {
        return Ok(token);
    }
    let Some(shown) = parameter(request.uri(), "token").or_else(|| cookie(request.headers())) else {
        return Err(if in_headers.is_some() { NoToken::NotValid } else { NoToken::NotShown });
    };
    let found = tokens.find_by_ticket(shown.as_bytes()).or_else(|| tokens.find(Some(shown.as_bytes())));
    found.ok_or(NoToken::NotValid)
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

/// A browser that connects again names the last event that it has seen.
fn last_event_id(request: &Request) -> Option<String> {
    let header =
        request.headers().get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header.or_else(|| parameter(request.uri(), "lastEventId"))
}

/// One open stream.
struct Stream {
    frames: mpsc::Sender<Bytes>,
    announced: watch::Receiver<Option<Announcement>>,
    last_event_id: Option<String>,
    keep_alive: Duration,
    metrics: Metrics,
    _slot: OwnedSemaphorePermit,
    _open: OpenStream,
}

/// What ends a stream whose client is still there, whether it reads or not.
struct End {
    token: Arc<Token>,
    tokens: watch::Receiver<Arc<Tokens>>,
    shutdown: Shutdown,
}

impl End {
    /// Waits until the token does not count any more, or the service stops.
    async fn wait(mut self) {
        // Losing is harmless: both branches only wait.
        tokio::select! {
            _ = self.tokens.wait_for(|tokens| !tokens.has(&self.token)) => {}
            _ = self.shutdown.wait() => {}
        }
    }
}

impl Stream {
    async fn run(mut self, end: End) {
        let streams = self.metrics.streams.clone();
        streams.inc();
        // Losing is harmless: what a stream did not send, its client gets when it connects again. The end comes first, so that a
        // token that does not count any more gets no announcement.
        tokio::select! {
            biased;
            () = end.wait() => {}
            // Ends with an error as soon as the client has gone.
            _ = self.send_all() => {}
        }
        streams.dec();
    }

    async fn send_all(&mut self) -> Result<(), mpsc::error::SendError<Bytes>> {
        self.frames.send(Bytes::from_static(HELLO.as_bytes())).await?;
        let mut sent = self.last_event_id.take();
        loop {
            let current = self.announced.borrow_and_update().clone();
            if let Some(current) = current {
                let id = current.revision.to_string();
                if sent.as_ref() != Some(&id) {
                    self.frames.send(current.event().into()).await?;
                    self.metrics.pushes.inc();
                    sent = Some(id);
                }
            }
            // Losing is harmless: whatever happened, the loop looks at the newest announcement.
            tokio::select! {
                changed = self.announced.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(self.keep_alive) => {
                    self.frames.send(Bytes::from_static(KEEP_ALIVE.as_bytes())).await?;
                }
                () = self.frames.closed() => return Ok(()),
            }
        }
    }
}

/// The frames of a stream as the body of an answer.
struct Frames(mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
