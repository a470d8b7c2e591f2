//! A result on its way out: packed, held back until it is known whether the query gets anywhere, then
//! streamed with a bound. One side is a thread that runs the query, the other a response's body.

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

/// A result of up to this many bytes is answered whole, with its length, its final counts, and an honest
/// status if it fails; ClickHouse holds back as much.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Pieces on their way to a client that reads slowly; each is about HELD_BYTES_MAX at most.
const PIECES_MAX: usize = 2;
/// The exception behind a broken result waits this long for a client that reads slowly.
const TAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that the last bytes get to leave before a failed response's connection is cut.
const CUT_AFTER: Duration = Duration::from_millis(200);

/// What the response's head waits for.
pub struct Head {
    /// The counts so far: final if the body is whole.
    pub progress: Progress,
    /// The name of the result's format.
    pub format: String,
    /// What the asker wants on the answer beyond the server's own.
    pub headers: Headers,
    pub body: Body,
}

pub enum Body {
    Whole(Bytes),
    Streamed(mpsc::Receiver<Piece>),
}

pub enum Piece {
    Bytes(Bytes),
    /// The result is whole. A stream that ends without it is cut, so that no client takes it for whole.
    End,
}

/// Where the thread that runs a query puts its result.
pub struct Output {
    query: Arc<Query>,
    encoder: Encoder,
    held: Vec<u8>,
    /// The held back rest of a result that is to be answered only when it is whole.
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
    Held(oneshot::Sender<Result<Head, Exception>>),
    Streaming(mpsc::Sender<Piece>),
    /// Nobody is left to take the result.
    Closed,
}

/// How an [`Output`] behaves.
pub struct OutputPlan {
    pub query: Arc<Query>,
    pub coding: Coding,
    /// Marks an exception in the middle of the result, so that no row can be taken for one.
    pub tag: String,
    /// The engine's version, which stands in each exception.
    pub version: Arc<str>,
    /// Hold the whole result back; it may take room in this space.
    pub wait_for_end: Option<Arc<SpoolSpace>>,
    pub head: oneshot::Sender<Result<Head, Exception>>,
}

impl Output {
    pub fn new(plan: OutputPlan) -> io::Result<Output> {
        Ok(Output {
            query: plan.query,
            encoder: Encoder::new(plan.coding)?,
            held: Vec::new(),
            spilled: None,
            wait_for_end: plan.wait_for_end,
            progress: Progress::default(),
            format: String::new(),
            headers: Headers::new(),
            tag: plan.tag,
            version: plan.version,
            stage: Stage::Held(plan.head),
        })
    }

    /// Takes a piece of the result. An error says that the query need not go on.
    pub fn push(&mut self, bytes: &[u8], progress: Progress) -> Result<(), Exception> {
        self.progress += progress;
        self.encoder.push(bytes, &mut self.held).map_err(cannot_pack)?;
        if self.held.len() < HELD_BYTES_MAX {
            return Ok(());
        }
        if let Some(space) = &self.wait_for_end
            && matches!(self.stage, Stage::Held(_))
        {
            let spilled = match &mut self.spilled {
                Some(spilled) => spilled,
                none => none.insert(space.spool()?),
            };
            spilled.append(&self.held)?;
            self.held.clear();
            return Ok(());
        }
        self.send_held()
    }

    /// Whether the client went away before any of the result was ready.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.stage, Stage::Held(head) if head.is_closed())
    }

    /// Says what the pieces are in; before the first of them.
    pub fn set_format(&mut self, format: &str) {
        self.format = format.to_owned();
    }

    /// Adds to the answer's headers; before the first piece.
    pub fn set_headers(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Adds to the counts what came without bytes.
    pub fn count(&mut self, progress: Progress) {
        self.progress += progress;
    }

    /// The result is whole.
    pub fn finish(mut self) {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
        if let Err(error) = encoder.finish(&mut self.held) {
            return self.fail(cannot_pack(error));
        }
        if let Some(spilled) = self.spilled.take() {
            let tail = std::mem::take(&mut self.held);
            // On an error the stream ends without its end, so the client sees a cut.
            if self.send_spilled(&spilled, tail).is_ok() {
                let _ = self.send(Piece::End);
            }
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Held(head) => {
                let body = Body::Whole(Bytes::from(std::mem::take(&mut self.held)));
                // A client that went away meanwhile is no longer to be told.
                let _ = head.send(Ok(self.head(body)));
            }
            Stage::Streaming(pieces) => {
                self.stage = Stage::Streaming(pieces);
                if self.held.is_empty() || self.send_held().is_ok() {
                    let _ = self.send(Piece::End);
                }
            }
            Stage::Closed => {}
        }
    }

    /// The query failed: with a proper answer if none has begun, else as ClickHouse ends a broken one.
    pub fn fail(mut self, exception: Exception) {
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Held(head) => {
                let _ = head.send(Err(exception));
            }
            Stage::Streaming(pieces) => {
                let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
                let tail = exception_tail(&exception, &self.version, &self.tag);
                if finish_with(encoder, &tail, &mut self.held).is_err() {
                    return;
                }
                let last = Piece::Bytes(Bytes::from(std::mem::take(&mut self.held)));
                // Best effort: the stream that ends without its end tells the client enough.
                let _ = Handle::current().block_on(tokio::time::timeout(TAIL_TIMEOUT, pieces.send(last)));
            }
            Stage::Closed => {}
        }
    }

    fn send_spilled(&mut self, spilled: &Spool, tail: Vec<u8>) -> Result<(), Exception> {
        let mut reader = spilled.read_from(0);
        loop {
            let mut piece = vec![0; HELD_BYTES_MAX];
            let length = reader.read(&mut piece).map_err(cannot_pack)?;
            if length == 0 {
                break;
            }
            piece.truncate(length);
            self.held = piece;
            self.send_held()?;
        }
        self.held = tail;
        self.send_held()
    }

    fn head(&self, body: Body) -> Head {
        Head { progress: self.progress, format: self.format.clone(), headers: self.headers.clone(), body }
    }

    /// Sends what is held, the head first if it has not gone out.
    fn send_held(&mut self) -> Result<(), Exception> {
        if let Stage::Held(_) = self.stage
            && let Stage::Held(head) = std::mem::replace(&mut self.stage, Stage::Closed)
        {
            let (sender, receiver) = mpsc::channel(PIECES_MAX);
            let body = Body::Streamed(receiver);
            head.send(Ok(self.head(body))).map_err(|_| client_left())?;
            self.stage = Stage::Streaming(sender);
        }
        let held = std::mem::take(&mut self.held);
        self.send(Piece::Bytes(Bytes::from(held)))
    }

    fn send(&mut self, piece: Piece) -> Result<(), Exception> {
        let Stage::Streaming(pieces) = &self.stage else {
            return Err(client_left());
        };
        let query = &self.query;
        let sent = Handle::current().block_on(async {
            // Losing the race loses the piece, and with it the result: the other branch ends it. The connection of a
            // client that takes nothing is closed, which closes the channel.
            tokio::select! {
                biased;
                sent = pieces.send(piece) => sent.map_err(|_| client_left()),
                () = query.asked_to_stop() => Err(query.cancelled()),
            }
        });
        if sent.as_ref().is_err_and(|exception| exception.code == code::NETWORK_ERROR) {
            self.stage = Stage::Closed;
        }
        sent
    }
}

fn finish_with(mut encoder: Encoder, tail: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
    encoder.push(tail, packed)?;
    encoder.finish(packed)
}

/// Nobody reads it; it ends the query.
pub fn client_left() -> Exception {
    Exception::new(code::NETWORK_ERROR, "the client closed the connection")
}

fn cannot_pack(error: io::Error) -> Exception {
    Exception::new(code::LOGICAL_ERROR, format_args!("cannot pack the result: {error}"))
}

/// How ClickHouse (since 25.11) writes an exception behind the rows that have gone out already; the tag
/// is in the response's head.
fn exception_tail(exception: &Exception, version: &str, tag: &str) -> Vec<u8> {
    let text = format!("{}\n", exception.text(version));
    format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len()).into_bytes()
}

/// A streamed response's body. `on_drop` is dropped with it, so it learns of a client that goes away.
pub struct StreamedBody<T> {
    pieces: mpsc::Receiver<Piece>,
    cut_at: Option<Pin<Box<Sleep>>>,
    on_drop: T,
}

impl<T> StreamedBody<T> {
    pub fn new(pieces: mpsc::Receiver<Piece>, on_drop: T) -> StreamedBody<T> {
        StreamedBody { pieces, cut_at: None, on_drop }
    }
}

/// Told when a body has been taken to its end.
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
            match self.pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Piece::Bytes(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Piece::End)) => {
                    self.on_drop.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    self.on_drop.finish();
                    // An error at once would take the bytes with it that are not on the wire yet.
                    self.cut_at = Some(Box::pin(tokio::time::sleep_until(Instant::now() + CUT_AFTER)));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
