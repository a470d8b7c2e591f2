//! The server's connections, read through [`Heads`] before the HTTP library reads them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::heads::{Aside, Heads};

/// Read at once where a head may stand.
const READ_BYTES: usize = 16_384;
/// Read at once of a body.
const PLAIN_BYTES: usize = 65_536;

pub struct Connections(pub TcpListener);

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small answers must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        (Connection { stream, heads: Heads::default(), read: Vec::new(), taken: 0 }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.0)
    }
}

/// One client's connection.
pub struct Connection {
    stream: TcpStream,
    heads: Heads,
    /// What the library is to read next, and how much of it the library has.
    read: Vec<u8>,
    taken: usize,
}

/// For the requests of one connection: where their long addresses are.
#[derive(Clone)]
pub struct LongAddresses(pub Aside);

impl Connected<IncomingStream<'_, Connections>> for LongAddresses {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> LongAddresses {
        LongAddresses(stream.io().heads.aside.clone())
    }
}

impl AsyncRead for Connection {
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

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
