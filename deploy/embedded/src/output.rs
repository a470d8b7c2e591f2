//! Sends a result to its client: compresses it, buffers its beginning until it is known whether the query
//! fails early, then streams it, with a limit on the chunks in memory. One side is the thread that runs the
//! query, the other side is the body of the response. Knows nothing of SQL.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::compression::{Coding, Encoder};
use super::engine::Progress;
use super::exception::{Exception, code};
use super::response_headers::Headers;
use super::running::Query;
use super::spool::{Spool, SpoolSpace};

/// A result of up to this many bytes is sent as a whole, with its length, its final counts, and an error
/// status if it fails. ClickHouse buffers as much.
const BUFFERED_BYTES_MAX: usize = 1 << 20;
/// Chunks that wait for a client that reads slowly; each has about BUFFERED_BYTES_MAX at most.
const CHUNKS_MAX: usize = 2;
/// The time that the exception after a broken result waits for a client that reads slowly.
const TAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for the last bytes to be sent before the connection of a failed response is closed.
const CUT_AFTER: Duration = Duration::from_millis(200);

/// The part of a result that the head of its response needs.
pub struct Head {
    /// The counts so far: final if the body is whole.
    pub progress: Progress,
    /// The name of the result's format.
    pub format: String,
    /// The response headers that the client sets, beyond the server's own.
    pub headers: Headers,
    pub body: Body,
}

pub enum Body {
    Whole(Bytes),
    Streamed(mpsc::Receiver<Chunk>),
}

pub enum Chunk {
    Bytes(Bytes),
    /// The result is complete. A stream without it ends with a closed connection, so that no client treats it
    /// as complete.
    End,
}

/// Receives the result from the thread that runs its query.
pub struct Output {
    query: Arc<Query>,
    encoder: Encoder,
    buffered: Vec<u8>,
    /// The beginning of a result that is to be sent only when it is complete.
    spilled: Option<Spool>,
    wait_for_end: Option<Arc<SpoolSpace>>,
    progress: Progress,
    format: String,
    headers: Headers,
    tag: String,
    version: Arc<str>,
    stage: Stage,
}

enum Stage {
    Buffering(oneshot::Sender<Result<Head, Exception>>),
    Streaming(mpsc::Sender<Chunk>),
    /// The client has left.
    Closed,
}

/// The options of an [`Output`].
pub struct OutputOptions {
    pub query: Arc<Query>,
    pub coding: Coding,
    /// Marks an exception in the middle of the result, so that no row can look like one.
    pub tag: String,
    /// The engine's version, which is part of each exception.
    pub version: Arc<str>,
    /// Send the result only when it is complete; until then it uses memory of this space.
    pub wait_for_end: Option<Arc<SpoolSpace>>,
    pub head: oneshot::Sender<Result<Head, Exception>>,
}

impl Output {
    pub fn new(plan: OutputOptions) -> io::Result<Output> {
        Ok(Output {
            query: plan.query,
            encoder: Encoder::new(plan.coding)?,
            buffered: Vec::new(),
            spilled: None,
            wait_for_end: plan.wait_for_end,
            progress: Progress::default(),
            format: String::new(),
            headers: Headers::new(),
            tag: plan.tag,
            version: plan.version,
            stage: Stage::Buffering(plan.head),
        })
    }

    /// Sends or buffers a chunk of the result. After an error the query must end.
    pub fn push(&mut self, bytes: &[u8], progress: Progress) -> Result<(), Exception> {
        self.progress += progress;
        self.encoder.push(bytes, &mut self.buffered).map_err(cannot_compress)?;
        if self.buffered.len() < BUFFERED_BYTES_MAX {
            return Ok(());
        }
        if let Some(space) = &self.wait_for_end
            && matches!(self.stage, Stage::Buffering(_))
        {
            let spilled = match &mut self.spilled {
                Some(spilled) => spilled,
                none => none.insert(space.new_spool()?),
            };
            spilled.append(&self.buffered)?;
            self.buffered.clear();
            return Ok(());
        }
        self.send_buffered()
    }

    /// Returns whether the client left before the result began.
    pub fn client_has_left(&self) -> bool {
        matches!(&self.stage, Stage::Buffering(head) if head.is_closed())
    }

    /// Sets the format of the chunks; before the first chunk.
    pub fn set_format(&mut self, format: &str) {
        self.format = format.to_owned();
    }

    /// Sets more headers of the response; before the first chunk.
    pub fn set_headers(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Adds to the counts, without bytes.
    pub fn count(&mut self, progress: Progress) {
        self.progress += progress;
    }

    /// Ends a complete result.
    pub fn finish(mut self) {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
        if let Err(error) = encoder.finish(&mut self.buffered) {
            return self.fail(cannot_compress(error));
        }
        if let Some(spilled) = self.spilled.take() {
            let tail = std::mem::take(&mut self.buffered);
            // After an error the stream has no `End`, so the client sees a closed connection.
            if self.send_spilled(&spilled, tail).is_ok() {
                let _ = self.send(Chunk::End);
            }
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Buffering(head) => {
                let body = Body::Whole(Bytes::from(std::mem::take(&mut self.buffered)));
                // An error means that the client has left.
                let _ = head.send(Ok(self.head(body)));
            }
            Stage::Streaming(chunks) => {
                self.stage = Stage::Streaming(chunks);
                if self.buffered.is_empty() || self.send_buffered().is_ok() {
                    let _ = self.send(Chunk::End);
                }
            }
            Stage::Closed => {}
        }
    }

    /// Ends the result of a failed query: with an error status if the response has not begun, otherwise as
    /// ClickHouse ends a broken result.
    pub fn fail(mut self, exception: Exception) {
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Buffering(head) => {
                let _ = head.send(Err(exception));
            }
            Stage::Streaming(chunks) => {
                let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
                let tail = exception_tail(&exception, &self.version, &self.tag);
                if finish_with(encoder, &tail, &mut self.buffered).is_err() {
                    return;
                }
                let last = Chunk::Bytes(Bytes::from(std::mem::take(&mut self.buffered)));
                // Best effort: the missing `End` alone tells the client that the result is broken.
                let _ = Handle::current().block_on(tokio::time::timeout(TAIL_TIMEOUT, chunks.send(last)));
            }
            Stage::Closed => {}
        }
    }

    fn send_spilled(&mut self, spilled: &Spool, tail: Vec<u8>) -> Result<(), Exception> {
        let mut reader = spilled.read_from(0);
        loop {
            let mut chunk = vec![0; BUFFERED_BYTES_MAX];
            let length = reader.read(&mut chunk).map_err(cannot_compress)?;
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            self.buffered = chunk;
            self.send_buffered()?;
        }
        self.buffered = tail;
        self.send_buffered()
    }

    fn head(&self, body: Body) -> Head {
        Head { progress: self.progress, format: self.format.clone(), headers: self.headers.clone(), body }
    }

    /// Sends what is buffered, with the head first if it has not been sent.
    fn send_buffered(&mut self) -> Result<(), Exception> {
        if let Stage::Buffering(_) = self.stage
            && let Stage::Buffering(head) = std::mem::replace(&mut self.stage, Stage::Closed)
        {
            let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
            let body = Body::Streamed(receiver);
            head.send(Ok(self.head(body))).map_err(|_| client_left())?;
            self.stage = Stage::Streaming(sender);
        }
        let buffered = std::mem::take(&mut self.buffered);
        self.send(Chunk::Bytes(Bytes::from(buffered)))
    }

    fn send(&mut self, chunk: Chunk) -> Result<(), Exception> {
        let Stage::Streaming(chunks) = &self.stage else {
            return Err(client_left());
        };
        let query = &self.query;
        let sent = Handle::current().block_on(async {
            // Losing the send loses the chunk and with it the result, which the other branch ends. If the
            // client reads nothing, the listener closes the connection, which closes the channel.
            tokio::select! {
                biased;
                sent = chunks.send(chunk) => sent.map_err(|_| client_left()),
                () = query.asked_to_stop() => Err(query.cancelled()),
            }
        });
        if sent.as_ref().is_err_and(|exception| exception.code == code::NETWORK_ERROR) {
            self.stage = Stage::Closed;
        }
        sent
    }
}

fn finish_with(mut encoder: Encoder, tail: &[u8], compressed: &mut Vec<u8>) -> io::Result<()> {
    encoder.push(tail, compressed)?;
    encoder.finish(compressed)
}

/// Ends the query of a client that has left; nobody reads it.
pub fn client_left() -> Exception {
    Exception::new(code::NETWORK_ERROR, "the client closed the connection")
}

fn cannot_compress(error: io::Error) -> Exception {
    Exception::new(code::LOGICAL_ERROR, format_args!("cannot compress the result: {error}"))
}

/// An exception after rows that have been sent already, as ClickHouse writes it since 25.11. The tag is in
/// the response's head.
fn exception_tail(exception: &Exception, version: &str, tag: &str) -> Vec<u8> {
    let text = format!("{}\n", exception.text(version));
    format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len()).into_bytes()
}

/// The body of a streamed response. It is dropped when the client leaves, and `on_drop` with it.
pub struct StreamedBody<T> {
    chunks: mpsc::Receiver<Chunk>,
    cut_at: Option<Pin<Box<Sleep>>>,
    on_drop: T,
}

impl<T> StreamedBody<T> {
    pub fn new(chunks: mpsc::Receiver<Chunk>, on_drop: T) -> StreamedBody<T> {
        StreamedBody { chunks, cut_at: None, on_drop }
    }
}

/// Called when a body has been sent to its end.
pub trait Finish {
    fn finish(&mut self);
}

impl<T: Finish + Unpin> HttpBody for StreamedBody<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(cut_at) = &mut self.cut_at {
                return cut_at
                    .as_mut()
                    .poll(context)
                    .map(|()| Some(Err(io::ErrorKind::ConnectionAborted.into())));
            }
            match self.chunks.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Chunk::Bytes(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Chunk::End)) => {
                    self.on_drop.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    self.on_drop.finish();
                    // An error at once would lose the bytes that have not been sent yet.
                    self.cut_at = Some(Box::pin(tokio::time::sleep_until(Instant::now() + CUT_AFTER)));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
