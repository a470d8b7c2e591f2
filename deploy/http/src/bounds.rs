//! The bounds of a service's own routes: the size of a request's head, how many are worked on at once, and the time to the
//! head of an answer. Whatever goes wrong is answered in the form that the routes' clients read, and where waiting helps the
//! answer says for how long.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use ops::config::Http;
use tokio::sync::Semaphore;

use crate::Refuse;

/// The longest target of a request: its path and query.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// The names and values of a request's headers together. Browsers send up to some kilobytes of cookies.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Seconds after which a request that found the service at a bound is worth sending again.
const RETRY_AFTER_S: u64 = 1;

/// The bounds of the requests to one service.
pub struct Bounds {
    /// The requests that are worked on at once; `None` if whoever answers takes care of it.
    slots: Option<Semaphore>,
    timeout: Duration,
    refuse: Refuse,
}

/// Puts the routes within the bounds of `http`.
pub fn bounded(routes: Router, http: &Http, refuse: Refuse) -> Router {
    let slots = Semaphore::new(http.requests_at_once.usize().min(Semaphore::MAX_PERMITS));
    let bounds = Arc::new(Bounds { slots: Some(slots), ..Bounds::without_slots(http, refuse) });
    routes
        .layer(DefaultBodyLimit::max(http.body_bytes.usize()))
        .layer(middleware::from_fn_with_state(bounds, within_bounds))
}

async fn within_bounds(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    bounds.answer(request, |request| next.run(request)).await
}

impl Bounds {
    /// The bounds of `http`, but for the number of requests that are worked on and the size of a body: an
    /// [`Intake`](crate::Intake) bounds both.
    pub fn without_slots(http: &Http, refuse: Refuse) -> Bounds {
        Bounds { slots: None, timeout: http.request_timeout_ms.duration(), refuse }
    }

    /// Answers the request by `answer`, or refuses it at a bound.
    pub async fn answer<F: Future<Output = Response>>(
        &self,
        request: Request,
        answer: impl FnOnce(Request) -> F,
    ) -> Response {
        if let Err((status, why)) = check_head(&request) {
            return (self.refuse)(status, why);
        }
        let _slot = match &self.slots {
            None => None,
            Some(slots) => match slots.try_acquire() {
                Ok(slot) => Some(slot),
                Err(_) => {
                    return later((self.refuse)(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "as many requests as are allowed at once are under way; try again later".to_owned(),
                    ));
                }
            },
        };
        // Pinned where it is made: the state of an answer has kilobytes, and each wrapper that took it would copy it.
        let mut answering = pin!(answer(request));
        match tokio::time::timeout(self.timeout, unwound(answering.as_mut())).await {
            Ok(Some(response)) => response,
            // The panic itself is logged where it happens.
            Ok(None) => (self.refuse)(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the service failed at this request; its log has the reason".to_owned(),
            ),
            Err(_) => later((self.refuse)(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("no answer within {} ms", self.timeout.as_millis()),
            )),
        }
    }
}

fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    response
}

fn check_head(request: &Request) -> Result<(), (StatusCode, String)> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_BYTES_MAX {
        return Err((
            StatusCode::URI_TOO_LONG,
            format!("a path and its query have at most {TARGET_BYTES_MAX} bytes"),
        ));
    }
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > HEADER_BYTES_MAX {
        let why = format!("the headers of a request have at most {HEADER_BYTES_MAX} bytes together");
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    Ok(())
}

/// Returns what the future returns, or `None` if it panics: one request that meets a bug must not take the connection, on which
/// others wait for their answers, with it. What requests share is behind locks whose data every step leaves valid.
async fn unwound<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}
