//! Says in an answer that its connection ends, where the request's body was not read to its end: nobody knows how much of it is
//! still to come, so the connection cannot take another request. A client that is not told sends its next request on it, and
//! loses that one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};

/// Answers the request by `answer`. The answer has `Connection: close` unless the body has been read to its end, or what came
/// with the head was all of it.
pub async fn answered<F: Future<Output = Response>>(
    request: Request<Incoming>,
    answer: impl FnOnce(Request<Body>) -> F,
) -> Response {
    if request.body().is_end_stream() {
        return answer(request.map(Body::new)).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let watched = |body| Body::new(Watched { body, ended: ended.clone() });
    let mut response = answer(request.map(watched)).await;
    if !ended.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that tells whether it was read to its end.
struct Watched {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

impl Watched {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        frame
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.next(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    /// Reads what is here already, without waiting: a small body that came with the head leaves the connection open. The
    /// connection fills the body only between two answers, so this is one frame at most.
    fn drop(&mut self) {
        while !self.ended.load(Ordering::Relaxed) {
            let Poll::Ready(Some(Ok(_))) = self.next(&mut Context::from_waker(Waker::noop())) else { break };
        }
    }
}
