//! The load generator: one thread, keep-alive connections, on each one request after another. Requests are made
//! beforehand, but for the number of the unit, so that it takes as little of the processors as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// Digits of a unit's number.
const DIGITS: usize = 12;
const HEADERS_MAX: usize = 32;
/// Time for an answer; longer is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request with a place for the number of its unit.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    digits_at: usize,
    /// Units of which one after another asks, again and again.
    units: u64,
    /// The next one, for all connections.
    next: Arc<AtomicU64>,
}

impl Request {
    /// `body` has the text of `place` where the number goes.
    pub fn new(path: &str, headers: &[(&str, &str)], body: &str, place: &str) -> Request {
        let digits = "0".repeat(DIGITS);
        let body = body.replacen(place, &digits, 1);
        let mut head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let digits_at = head.len() + body.find(&digits).expect("the body has a place for the number");
        let next = Arc::new(AtomicU64::new(0));
        Request { bytes: (head + &body).into_bytes(), digits_at, units: u64::MAX, next }
    }

    pub fn with_units(self, units: u64) -> Request {
        Request { units, ..self }
    }

    /// Puts in the number of the next unit.
    fn turn(&mut self) -> &[u8] {
        let mut number = self.next.fetch_add(1, Ordering::Relaxed) % self.units;
        for digit in self.bytes[self.digits_at..self.digits_at + DIGITS].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.bytes
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Their names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// As it came.
    pub raw: Vec<u8>,
}

impl Answer {
    /// `None` if it is not whole.
    pub fn parse(raw: &[u8]) -> Result<Option<Answer>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = parsed.parse(raw)? else { return Ok(None) };
        let mut own = Vec::new();
        for header in parsed.headers.iter() {
            own.push((header.name.to_lowercase(), std::str::from_utf8(header.value)?.to_owned()));
        }
        let length = own.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(Ok(0), |(_, value)| value.parse::<usize>())?;
        let Some(body) = raw.get(head..head + length) else { return Ok(None) };
        let status = parsed.code.context("an answer has a status")?;
        Ok(Some(Answer { status, headers: own, body: body.to_vec(), raw: raw[..head + length].to_vec() }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What one turn measured.
pub struct Load {
    pub took: Duration,
    /// Of each request, in microseconds.
    pub latencies: Vec<u32>,
}

/// Open connections to one server.
pub struct Connections {
    runtime: Runtime,
    open: Vec<Connection>,
}

/// One keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    request: Request,
    buffer: Vec<u8>,
}

impl Connections {
    pub fn open(address: &str, count: usize, request: &Request) -> Result<Connections> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            open.push(runtime.block_on(Connection::open(address, request.clone()))?);
        }
        Ok(Connections { runtime, open })
    }

    /// Asks for `seconds` on every connection.
    ///
    /// # Errors
    /// If an answer has another status, or does not come.
    pub fn load(&mut self, seconds: f64, status: u16) -> Result<Load> {
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(seconds);
        let open = std::mem::take(&mut self.open);
        let (open, latencies) = self.runtime.block_on(async {
            let turns: Vec<_> =
                open.into_iter().map(|one| tokio::spawn(one.ask_until(until, status))).collect();
            let (mut open, mut latencies) = (Vec::new(), Vec::new());
            for turn in turns {
                let (connection, own) = turn.await??;
                open.push(connection);
                latencies.extend(own);
            }
            Ok::<_, anyhow::Error>((open, latencies))
        })?;
        self.open = open;
        Ok(Load { took: began.elapsed(), latencies })
    }
}

impl Connection {
    pub async fn open(address: &str, request: Request) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, request, buffer: vec![0; 1 << 20] })
    }

    async fn ask_until(mut self, until: Instant, status: u16) -> Result<(Connection, Vec<u32>)> {
        let mut latencies = Vec::with_capacity(1 << 16);
        while Instant::now() < until {
            let began = Instant::now();
            let (found, _) = tokio::time::timeout(ANSWER_TIMEOUT, self.ask()).await??;
            ensure!(found == status, "an answer has status {found} in place of {status}");
            latencies.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok((self, latencies))
    }

    /// Sends the next request and reads its answer: the status and the bytes.
    pub async fn ask(&mut self) -> Result<(u16, &[u8])> {
        self.stream.write_all(self.request.turn()).await?;
        let mut filled = 0;
        let mut whole: Option<(u16, usize)> = None;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed the connection after {filled} bytes");
            filled += read;
            if whole.is_none() {
                whole = head(&self.buffer[..filled])?;
            }
            match whole {
                Some((status, length)) if filled == length => return Ok((status, &self.buffer[..length])),
                Some((_, length)) if filled > length => bail!("{filled} bytes of an answer of {length}"),
                _ if filled == self.buffer.len() => bail!("an answer has more than {filled} bytes"),
                _ => {}
            }
        }
    }
}

/// The status, and the length of the whole answer; `None` until the head is there.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes)? else { return Ok(None) };
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        Some(header) => std::str::from_utf8(header.value)?.parse::<usize>()?,
        None => 0,
    };
    Ok(Some((parsed.code.context("an answer has a status")?, head + length)))
}
