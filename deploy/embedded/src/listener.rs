//! The server's connections: so many at once, each with a time limit for the head of a request and for an answer
//! that its client does not read, and an orderly end. Reads what clients send through [`Heads`] before the HTTP
//! library reads it; knows nothing of queries.

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
use super::heads::Heads;
use super::http;

/// Read at once where a head may stand.
const READ_BYTES: usize = 16_384;
/// Read at once of a body.
const PLAIN_BYTES: usize = 65_536;
/// A listener that has run out of descriptors tries again after this.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What the clients' connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; one more waits until another is closed.
    pub connections_max: usize,
    /// A connection is closed if the head of its next request is not complete this long after the connection began
    /// or its previous request was answered.
    pub head_timeout: Duration,
    /// A connection is closed if its client takes no byte of an answer for this long.
    pub unread_timeout: Duration,
}

/// Serves `listener` until `stopping` says so and the requests in progress have been answered.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        // What loses the race waits for the next turn: a slot is given back, and a connection stays with the kernel.
        let (slot, accepted) = tokio::select! {
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes the semaphore");
                (slot, listener.accept().await)
            } => accepted,
            // A connection that has ended is only taken off the list.
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
    // Small answers must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (reader, writer) = stream.into_split();
    let reader = HeadReader { stream: reader, heads: Heads::default(), read: Vec::new(), taken: 0 };
    let long_addresses = reader.heads.aside.clone();
    let mut writer = TimeoutWriter::new(writer);
    writer.set_timeout(Some(limits.unread_timeout));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, long_addresses) = (Arc::clone(&server), long_addresses.clone());
        let request: Request = request.map(Body::new);
        async move { Ok::<_, Infallible>(http::answer(&server, &long_addresses, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(Box::pin(tokio::io::join(reader, writer))), service);
    let mut serving = pin!(serving);
    // Losing the wait loses nothing: the connection has ended.
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

/// Whether the client left before its connection was accepted.
fn client_has_left(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What one client sends.
struct HeadReader {
    stream: OwnedReadHalf,
    heads: Heads,
    /// What the library is to read next, and how much of it the library has.
    read: Vec<u8>,
    taken: usize,
}

impl AsyncRead for HeadReader {
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
            let plain = usize::try_from(this.heads.plain_bytes()).unwrap_or(usize::MAX);
            if plain > 0 {
                let room = plain.min(buffer.remaining()).min(PLAIN_BYTES);
                let mut came = ReadBuf::new(buffer.initialize_unfilled_to(room));
                ready!(Pin::new(&mut this.stream).poll_read(context, &mut came))?;
                let length = came.filled().len();
                buffer.advance(length);
                this.heads.count_plain(length as u64);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES];
            let mut came = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.heads.pass(came.filled(), &mut this.read);
        }
    }
}
