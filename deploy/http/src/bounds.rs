//! The bounds of a service's own routes: the size of a request's head, how many are worked on at once, and the time to the
//! head of an answer. Whatever goes wrong is answered in the form that the routes' clients read, and where waiting helps the
//! answer says for how long.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
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

/// How many requests are worked on at once.
pub enum Work {
    /// As many as `[http]` says, each with its body.
    BySlots,
    /// The routes take care of it, by an [`Intake`](crate::Intake).
    ByIntake,
}

struct Bounds {
    slots: Option<Semaphore>,
    timeout: Duration,
    refuse: Refuse,
}

/// Puts the routes within the bounds of `http`.
pub fn bounded(routes: Router, http: &Http, work: Work, refuse: Refuse) -> Router {
    let slots = http.requests_at_once.usize().min(Semaphore::MAX_PERMITS);
    let bounds = Bounds {
        slots: matches!(work, Work::BySlots).then(|| Semaphore::new(slots)),
        timeout: http.request_timeout_ms.duration(),
        refuse,
    };
    routes
        .layer(DefaultBodyLimit::max(http.body_bytes.usize()))
        .layer(middleware::from_fn_with_state(Arc::new(bounds), within_bounds))
}

async fn within_bounds(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    if let Err((status, why)) = check_head(&request) {
        return (bounds.refuse)(status, why);
    }
    let _slot = match &bounds.slots {
        None => None,
        Some(slots) => match slots.try_acquire() {
            Ok(slot) => Some(slot),
            Err(_) => {
                return later((bounds.refuse)(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "as many requests as are allowed at once are under way; try again later".to_owned(),
                ));
            }
        },
    };
    match tokio::time::timeout(bounds.timeout, unwound(next.run(request))).await {
        Ok(Some(response)) => response,
        // The panic itself is logged where it happens.
        Ok(None) => (bounds.refuse)(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the service failed at this request; its log has the reason".to_owned(),
        ),
        Err(_) => later((bounds.refuse)(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no answer within {} ms", bounds.timeout.as_millis()),
        )),
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
async fn unwound<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}
