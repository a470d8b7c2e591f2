//! The connections of a service's HTTP server. Their number is bounded, each has a time limit for the head of a
//! request, and they end in order. A client that sends slowly, or nothing, keeps its connection only for that
//! time; so does one that does not read its answer.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use ops::Shutdown;
use ops::config::Http;

use crate::linger::Lingering;

/// The most that a connection buffers of a request's head, of its body and of its answer; one reading may bring as much again.
/// For a longer head hyper answers a bare 431 and closes the connection; a head that fits is measured by
/// [`crate::HEADER_BYTES_MAX`], whose 431 has a body. hyper's own bound of 400 KiB would be 8 GiB for 20,000 connections.
pub const HEAD_BUFFER_BYTES: usize = 32 << 10;
/// The pause before a listener that has run out of descriptors tries again.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What answers the requests of a connection; each connection has a clone.
pub trait Answering:
    Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Answering for S where
    S: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves `service` on `listener` until the shutdown begins and the requests under way have been answered.
pub async fn serve(listener: TcpListener, service: impl Answering, http: &Http, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(http.connections.usize().min(Semaphore::MAX_PERMITS)));
    let limits = Limits {
        head: http.head_timeout_ms.duration(),
        unread: http.unread_timeout_ms.duration(),
        last_answer: http.request_timeout_ms.duration(),
    };
    let mut connections = JoinSet::new();
    loop {
        // Losing is harmless: a slot is released, and a connection stays in the kernel's queue until the next
        // turn.
        let (slot, accepted) = tokio::select! {
            accepted = async {
                let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
                (slot, listener.accept().await)
            } => accepted,
            // A connection has ended; it is only removed from the set.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = shutdown.wait() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (service, shutdown) = (service.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    connection(stream, service, limits, shutdown).await;
                });
            }
            Err(error) if is_client_error(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accepting a connection; trying again");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The times for which a connection waits for its client.
#[derive(Clone, Copy)]
struct Limits {
    head: Duration,
    unread: Duration,
    /// After the shutdown has begun: for the answer under way, and for its client to read it.
    last_answer: Duration,
}

async fn connection(stream: TcpStream, service: impl Answering, limits: Limits, shutdown: Shutdown) {
    // Answers are written as a whole; waiting for more data would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(Lingering::new(stream));
    stream.set_write_timeout(Some(limits.unread));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut served = pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        // Losing is harmless: the request under way is answered, then the connection is closed.
        _ = shutdown.wait() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.last_answer, served.as_mut()).await {
                Ok(outcome) => outcome,
                // A client that reads slowly must not hold up the shutdown: others wait for it.
                Err(_) => {
                    tracing::warn!("a client has not read its answer in the time that the shutdown leaves; cut off");
                    return;
                }
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Returns whether the error only means that the client has disconnected before it was served.
fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
