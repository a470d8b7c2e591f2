//! A TCP proxy between two parts that injects network faults: it cuts a connection at the n-th byte, delays
//! bytes, and drops answers. It parses the bytes only as far as it needs to find the requests.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const CHUNK_BYTES: usize = 16 * 1_024;
/// How often a held connection checks whether it is released.
const POLL: Duration = Duration::from_millis(5);

/// The requests that a fault applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// Any connection, at its next byte.
    Any,
    /// A request whose bytes contain this text; for HTTP, where a head arrives in one piece.
    Text(&'static str),
    /// A request of Kafka's protocol with this API key.
    KafkaApi(i16),
}

/// The effect of a fault on the connection of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The first `after` bytes of the request pass, then the connection is cut on both sides.
    CutRequest { after: usize },
    /// The request and the first `after` bytes of the answer pass, then the connection is cut on both sides.
    CutAnswer { after: usize },
    /// The request passes when [`Proxy::release`] is called, even if its sender no longer waits.
    HoldRequest,
    /// No byte of the request passes; the connection is silent until [`Proxy::release`], then it is cut.
    SwallowRequest,
    /// The request passes, its answer is held until [`Proxy::release`]; then the connection is cut.
    HoldAnswer,
    /// All bytes of the connection are delayed by this time.
    Delay(Duration),
}

/// A fault that is applied to the next matching requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub matcher: Matcher,
    pub effect: Effect,
    /// The number of requests it is applied to before it is used up.
    pub times: u64,
}

/// Listens on a port of its own and forwards to another.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    to: OnceLock<SocketAddr>,
    faults: Mutex<Vec<Fault>>,
    /// `matched_changed` is notified after each change.
    matched: Mutex<Matched>,
    matched_changed: Condvar,
    /// The number of answers that arrived and were not passed on, or only in part.
    withheld: AtomicU64,
    released: AtomicU64,
    closed: AtomicBool,
}

/// The requests that matched a fault so far.
#[derive(Debug, Default)]
struct Matched {
    count: u64,
    latest_from: Option<SocketAddr>,
}

impl Proxy {
    /// Forwards to `to`, "host:port".
    pub fn to(to: &str) -> Result<Proxy> {
        let proxy = Proxy::open()?;
        proxy.forward_to(to)?;
        Ok(proxy)
    }

    /// Opens the port. Every connection is dropped until [`Proxy::forward_to`] is called.
    pub fn open() -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let address = listener.local_addr().context("listening")?;
        let shared = Arc::new(Shared {
            to: OnceLock::new(),
            faults: Mutex::default(),
            matched: Mutex::default(),
            matched_changed: Condvar::new(),
            withheld: AtomicU64::new(0),
            released: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(client) = client {
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || shared.serve(client));
                }
            }
        });
        Ok(Proxy { shared, address })
    }

    /// Sets the target, "host:port". May be called only once.
    pub fn forward_to(&self, to: &str) -> Result<()> {
        let address = to.parse().with_context(|| format!("{to} is no address"))?;
        ensure!(self.shared.to.set(address).is_ok(), "the proxy forwards already");
        Ok(())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// "127.0.0.1:port".
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Adds a fault. A request is affected by the first fault that matches it.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Removes all faults and releases what is held. Their effects on open connections remain.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
        self.release();
    }

    /// Releases every connection that is held now.
    pub fn release(&self) {
        self.shared.released.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of requests that have matched a fault.
    pub fn matched(&self) -> u64 {
        lock(&self.shared.matched).count
    }

    /// The client's address in the connection whose request matched last.
    pub fn matched_from(&self) -> Option<SocketAddr> {
        lock(&self.shared.matched).latest_from
    }

    /// The number of answers that arrived and were held or cut.
    pub fn withheld(&self) -> u64 {
        self.shared.withheld.load(Ordering::Acquire)
    }

    /// Returns when this many requests have matched a fault.
    pub fn wait_until_matched(&self, requests: u64, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut matched = lock(&self.shared.matched);
        while matched.count < requests {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "{} of {requests} requests matched a fault within {} s",
                    matched.count,
                    timeout.as_secs()
                );
            }
            let changed = self.shared.matched_changed.wait_timeout(matched, left);
            matched = changed.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Returns when this many answers have been withheld.
    pub fn wait_until_withheld(&self, answers: u64, timeout: Duration) -> Result<()> {
        crate::platform::wait_until("an answer to be withheld", timeout, POLL, || {
            Ok(self.withheld() >= answers)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.clear_faults();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// A connection: the state that its two directions share.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The effect of the fault that its latest matching request has met.
    effect: Mutex<Option<Effect>>,
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let Some(to) = self.to.get() else { return };
        let Ok(server) = TcpStream::connect(to) else { return };
        for side in [&client, &server] {
            // Small requests must not wait for more bytes. If the option cannot be set, they are only delayed.
            let _ = side.set_nodelay(true);
        }
        let connection = Connection { client, server, effect: Mutex::new(None) };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = self.requests(&connection);
                // A server that loses its client may drop the request. A held request must be processed, so its
                // connection ends only after the answer.
                if *lock(&connection.effect) != Some(Effect::HoldRequest) {
                    connection.end();
                }
            });
            let _ = self.answers(&connection);
            connection.end();
        });
    }

    fn requests(&self, connection: &Connection) -> io::Result<()> {
        let mut frames = Frames::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        // The number of bytes that may still pass, if the request is to be cut.
        let mut passing: Option<usize> = None;
        loop {
            let count = (&connection.client).read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut bytes = &buffer[..count];
            let whole;
            let starts = frames.find_starts(bytes);
            if let Some((effect, at)) = self.match_fault(bytes, &starts) {
                if effect == Effect::HoldRequest {
                    // Reported only when all of it has arrived: then its sender may die and it is still
                    // complete.
                    whole = whole_request(&connection.client, bytes)?;
                    bytes = &whole;
                }
                *lock(&connection.effect) = Some(effect);
                if let Effect::CutRequest { after } = effect {
                    passing = Some(at + after);
                }
                let released = self.releases();
                self.report_match(connection.client.peer_addr().ok());
                match effect {
                    Effect::HoldRequest => self.wait_for_release(released),
                    Effect::SwallowRequest => {
                        self.wait_for_release(released);
                        return Ok(());
                    }
                    Effect::CutRequest { .. }
                    | Effect::CutAnswer { .. }
                    | Effect::HoldAnswer
                    | Effect::Delay(_) => {}
                }
            }
            if let Some(Effect::Delay(delay)) = *lock(&connection.effect) {
                thread::sleep(delay);
            }
            match passing {
                Some(left) if left <= count => {
                    (&connection.server).write_all(&bytes[..left])?;
                    return Ok(());
                }
                Some(left) => passing = Some(left - count),
                None => {}
            }
            (&connection.server).write_all(bytes)?;
        }
    }

    fn answers(&self, connection: &Connection) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut passed = 0;
        loop {
            let count = (&connection.server).read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let effect = *lock(&connection.effect);
            match effect {
                Some(Effect::HoldAnswer) => {
                    let released = self.releases();
                    self.withheld.fetch_add(1, Ordering::AcqRel);
                    self.wait_for_release(released);
                    return Ok(());
                }
                Some(Effect::CutAnswer { after }) if passed + count > after => {
                    self.withheld.fetch_add(1, Ordering::AcqRel);
                    return (&connection.client).write_all(&buffer[..after - passed]);
                }
                Some(Effect::CutAnswer { .. }) => passed += count,
                Some(Effect::Delay(delay)) => thread::sleep(delay),
                Some(Effect::CutRequest { .. } | Effect::HoldRequest | Effect::SwallowRequest) | None => {}
            }
            (&connection.client).write_all(&buffer[..count])?;
        }
    }

    /// The effect of the first fault that matches a request in these bytes, and the position where the match
    /// starts.
    fn match_fault(&self, bytes: &[u8], starts: &[(usize, i16)]) -> Option<(Effect, usize)> {
        let mut faults = lock(&self.faults);
        for (index, fault) in faults.iter_mut().enumerate() {
            let at = match &fault.matcher {
                Matcher::Any => Some(0),
                Matcher::Text(text) => bytes.windows(text.len()).position(|window| window == text.as_bytes()),
                Matcher::KafkaApi(api) => starts.iter().find(|(_, found)| found == api).map(|(at, _)| *at),
            };
            if let Some(at) = at {
                let effect = fault.effect;
                fault.times -= 1;
                if fault.times == 0 {
                    faults.remove(index);
                }
                return Some((effect, at));
            }
        }
        None
    }

    fn report_match(&self, from: Option<SocketAddr>) {
        let mut matched = lock(&self.matched);
        matched.count += 1;
        matched.latest_from = from;
        drop(matched);
        self.matched_changed.notify_all();
    }

    fn releases(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Waits until the number of releases differs from `releases`. The caller reads it before it reports the
    /// match, since a test may release at once.
    fn wait_for_release(&self, releases: u64) {
        while self.releases() == releases && !self.closed.load(Ordering::Acquire) {
            thread::sleep(POLL);
        }
    }
}

/// Reads the rest of the request whose first bytes are `start`: for HTTP with a chunked body, up to the last
/// chunk.
fn whole_request(mut client: &TcpStream, start: &[u8]) -> io::Result<Vec<u8>> {
    let mut whole = start.to_vec();
    let in_chunks = b"transfer-encoding: chunked";
    if whole.windows(in_chunks.len()).any(|window| window.eq_ignore_ascii_case(in_chunks)) {
        let mut buffer = vec![0; CHUNK_BYTES];
        while !whole.ends_with(b"\r\n0\r\n\r\n") {
            let count = client.read(&mut buffer)?;
            if count == 0 {
                return Ok(whole);
            }
            whole.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(whole)
}

impl Connection {
    fn end(&self) {
        for side in [&self.client, &self.server] {
            // An error is harmless: the side may be shut down already.
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}

/// Finds the starts of requests in a stream of Kafka's protocol: four bytes of length, then two of the API
/// key. For other protocols the starts mean nothing, and no fault uses them.
#[derive(Debug, Default)]
struct Frames {
    /// The number of bytes until the next request starts.
    left: usize,
    /// The first bytes of a request; fewer than six.
    head: Vec<u8>,
}

impl Frames {
    const HEAD_BYTES: usize = 6;

    /// The requests that start in `bytes`: position and API key. If the end of `bytes` cuts the head of a
    /// request, the next call returns it, with position 0.
    fn find_starts(&mut self, bytes: &[u8]) -> Vec<(usize, i16)> {
        let mut starts = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.left.min(bytes.len() - at);
            self.left -= skipped;
            at += skipped;
            let start = at.saturating_sub(self.head.len());
            while self.left == 0 && at < bytes.len() && self.head.len() < Self::HEAD_BYTES {
                self.head.push(bytes[at]);
                at += 1;
            }
            if let [a, b, c, d, high, low] = self.head[..] {
                starts.push((start, i16::from_be_bytes([high, low])));
                self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(2);
                self.head.clear();
            }
        }
        starts
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value is valid at any moment, also after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that answers every byte with its double.
    fn doubling_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                thread::spawn(move || {
                    let mut byte = [0];
                    while client.read(&mut byte).is_ok_and(|count| count == 1) {
                        if client.write_all(&[byte[0] * 2]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    /// Sends `sent` and returns the answer, which ends at the same length or when the connection is cut.
    fn ask(proxy: &Proxy, sent: &[u8]) -> Vec<u8> {
        let mut client = TcpStream::connect(proxy.address).unwrap();
        client.write_all(sent).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while answer.len() < sent.len() && client.read(&mut byte).is_ok_and(|count| count == 1) {
            answer.push(byte[0]);
        }
        answer
    }

    fn fault(effect: Effect) -> Fault {
        Fault { matcher: Matcher::Text("\x03"), effect, times: 1 }
    }

    #[test]
    fn a_fault_cuts_at_its_byte_and_is_used_up() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6, 8]);

        proxy.inject(fault(Effect::CutAnswer { after: 3 }));
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6]);
        assert_eq!((proxy.matched(), proxy.withheld()), (1, 1));
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6, 8]);

        proxy.inject(fault(Effect::CutRequest { after: 1 }));
        assert!(ask(&proxy, &[1, 2, 3, 4]).len() <= 3);
        proxy.inject(fault(Effect::CutRequest { after: 1 }));
        assert_eq!(ask(&proxy, &[1, 1]), [2, 2]);
        proxy.clear_faults();
        assert_eq!(ask(&proxy, &[3, 3]), [6, 6]);
    }

    #[test]
    fn a_held_request_passes_when_it_is_released() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        proxy.inject(fault(Effect::HoldRequest));
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&proxy, &[3, 5]));
            proxy.wait_until_matched(1, Duration::from_secs(10)).unwrap();
            assert!(!asked.is_finished());
            proxy.release();
            assert_eq!(asked.join().unwrap(), [6, 10]);
        });
    }

    #[test]
    fn a_swallowed_request_never_passes() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        proxy.inject(fault(Effect::SwallowRequest));
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&proxy, &[3, 5]));
            proxy.wait_until_matched(1, Duration::from_secs(10)).unwrap();
            assert!(!asked.is_finished());
            proxy.release();
            assert_eq!(asked.join().unwrap(), Vec::<u8>::new());
        });
        assert_eq!(ask(&proxy, &[3, 5]), [6, 10]);
    }

    #[test]
    fn requests_of_kafka_are_found_however_the_stream_is_split() {
        let request = |api: u8, body: usize| [vec![0, 0, 0, 2 + body as u8, 0, api], vec![9; body]].concat();
        let stream = [request(3, 4), request(8, 0), request(1, 7)].concat();
        assert_eq!(Frames::default().find_starts(&stream), [(0, 3), (10, 8), (16, 1)]);
        let mut frames = Frames::default();
        let apis: Vec<i16> =
            stream.iter().flat_map(|byte| frames.find_starts(&[*byte])).map(|(_, api)| api).collect();
        assert_eq!(apis, [3, 8, 1]);
    }
}
