//! Accepts connections and serves HTTP on them. Limits their number, the time for a request's head, and the
//! time that a client may leave its answer unread; ends them in an orderly way. Everything that clients send
//! goes through [`LongUrlFilter`] before the HTTP library reads it. Knows nothing of queries.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutWriter;

use super::Server;
use super::http;
use super::long_urls::LongUrlFilter;

/// Bytes read at once where a head may come.
const HEAD_READ_BYTES: usize = 16_384;
/// Bytes read at once of a body.
const BODY_READ_BYTES: usize = 65_536;
/// The pause after a failed accept, such as one without a free descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Limits on the clients' connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; one more waits until another is closed.
    pub connections_max: usize,
    /// The time for the head of a request. It starts when the connection is accepted, or when the request
    /// before was answered. A connection past it is closed.
    pub head_timeout: Duration,
    /// A connection whose client reads no byte of an answer for this long is closed.
    pub unread_timeout: Duration,
}

/// Serves `listener` until `stopping` is true and the requests in progress have been answered.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        // Losing a branch loses nothing: a slot is released, and a connection stays in the kernel's queue.
        let (slot, accepted) = tokio::select! {
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes the semaphore");
                (slot, listener.accept().await)
            } => accepted,
            // A connection that has ended is only removed from the set.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = wait_for_stop(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (server, stopping) = (Arc::clone(&server), stopping.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    serve_connection(stream, server, limits, stopping).await;
                });
            }
            Err(error) if client_has_left(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    server: Arc<Server>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    // A small answer must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (reader, writer) = stream.into_split();
    let reader =
        UrlFilteredReader { stream: reader, filter: LongUrlFilter::default(), read: Vec::new(), taken: 0 };
    let long_urls = reader.filter.long_urls.clone();
    let mut writer = TimeoutWriter::new(writer);
    writer.set_timeout(Some(limits.unread_timeout));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, long_urls) = (Arc::clone(&server), long_urls.clone());
        let request: Request = request.map(Body::new);
        async move { Ok::<_, Infallible>(http::answer(&server, &long_urls, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(Box::pin(tokio::io::join(reader, writer))), service);
    let mut serving = pin!(serving);
    // Losing the wait for the stop loses nothing: the connection has ended.
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = wait_for_stop(&mut stopping) => {
            // The request in progress is answered; then the connection is closed.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Returns when the server stops.
async fn wait_for_stop(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Returns whether the client left before its connection was accepted.
fn client_has_left(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Reads what one client sends, through the filter.
struct UrlFilteredReader {
    stream: OwnedReadHalf,
    filter: LongUrlFilter,
    /// What the library is to read next, and how many of these bytes it has read.
    read: Vec<u8>,
    taken: usize,
}

impl AsyncRead for UrlFilteredReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let left = &this.read[this.taken..];
            if !left.is_empty() {
                let length = left.len().min(buffer.remaining());
                buffer.put_slice(&left[..length]);
                this.taken += length;
                return Poll::Ready(Ok(()));
            }
            this.read.clear();
            this.taken = 0;
            let plain = usize::try_from(this.filter.body_bytes_left()).unwrap_or(usize::MAX);
            if plain > 0 {
                let room = plain.min(buffer.remaining()).min(BODY_READ_BYTES);
                let mut came = ReadBuf::new(buffer.initialize_unfilled_to(room));
                ready!(Pin::new(&mut this.stream).poll_read(context, &mut came))?;
                let length = came.filled().len();
                buffer.advance(length);
                this.filter.count_body(length as u64);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; HEAD_READ_BYTES];
            let mut came = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter.forward(came.filled(), &mut this.read);
        }
    }
}
