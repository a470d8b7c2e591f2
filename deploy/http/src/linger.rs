//! The end of a connection on which a client may still be sending. If it were closed at once, the kernel would answer what
//! arrives with a reset, and the client would lose the answer that says why: that its body or head is too large. So what still
//! comes is read and thrown away, for a bounded time and number of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The time for a client to notice that nobody listens any more.
const LINGER: Duration = Duration::from_millis(500);
/// What is read at most meanwhile. Beyond it the connection is closed at once.
const DISCARDED_BYTES_MAX: usize = 1 << 20;

/// A stream that is not closed before the client has stopped sending, within bounds.
pub struct Lingering<S> {
    stream: S,
    /// Once the stream is closed for writing: when the reading ends, and how much has been read.
    ending: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Lingering<S> {
    pub fn new(stream: S) -> Lingering<S> {
        Lingering { stream, ending: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
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
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes the stream for writing, so that the client sees the end of the answer, and waits until it has closed its side.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = &mut *self;
        if own.ending.is_none() {
            ready!(Pin::new(&mut own.stream).poll_shutdown(context))?;
        }
        let (end, discarded) = own.ending.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut scratch = [0; 8 << 10];
        while *discarded < DISCARDED_BYTES_MAX && end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // An error means that the client has gone, which is what is waited for.
            if ready!(Pin::new(&mut own.stream).poll_read(context, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            *discarded += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
