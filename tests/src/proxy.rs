//! A TCP proxy that stands between two parts and breaks the connection as networks do: it cuts at the n-th
//! byte, holds bytes back, and swallows answers. It looks into the bytes only as far as it must to know
//! which request a connection is at.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const CHUNK_BYTES: usize = 16 * 1_024;
/// How soon a held connection notices that it may go on.
const LOOK: Duration = Duration::from_millis(5);

/// Which requests a fault meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meets {
    /// Every connection, at its next byte.
    Any,
    /// A request in whose bytes this text begins; for HTTP, whose head comes in one piece.
    Text(&'static str),
    /// A request of Kafka's protocol with this API key.
    KafkaApi(i16),
}

/// What happens to the connection of a request that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// So many bytes of the request pass, then the connection is cut on both sides.
    CutRequest { after: usize },
    /// The request passes; of the answer so many bytes, then the connection is cut on both sides.
    CutAnswer { after: usize },
    /// The request passes only when [`Proxy::release`] is called, whether or not its sender still waits.
    HoldRequest,
    /// Nothing of the request passes; the connection stays silent until [`Proxy::release`], then it is cut.
    SwallowRequest,
    /// The request passes, its answer is kept until [`Proxy::release`]; then the connection is cut.
    HoldAnswer,
    /// Everything of the connection comes so much later.
    Delay(Duration),
}

/// A fault that waits for requests to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub meets: Meets,
    pub harm: Harm,
    /// How many requests it meets before it is used up.
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
    /// Waited for with `told`.
    met: Mutex<Met>,
    told: Condvar,
    /// Answers that came and were not passed on.
    withheld: AtomicU64,
    released: AtomicU64,
    closed: AtomicBool,
}

/// Requests that were met, ever.
#[derive(Debug, Default)]
struct Met {
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

    /// Has its port, and drops every connection until it is told where to forward them.
    pub fn open() -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let address = listener.local_addr().context("listening")?;
        let shared = Arc::new(Shared {
            to: OnceLock::new(),
            faults: Mutex::default(),
            met: Mutex::default(),
            told: Condvar::new(),
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

    /// To be called once, with "host:port".
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

    /// Adds a fault; the first one that meets a request is the one that harms it.
    pub fn break_with(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Takes all faults away. What they have done to open connections stays done.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
        self.release();
    }

    /// Lets everything pass that is held now.
    pub fn release(&self) {
        self.shared.released.fetch_add(1, Ordering::AcqRel);
    }

    /// How many requests were met so far.
    pub fn met(&self) -> u64 {
        lock(&self.shared.met).count
    }

    /// The client's end of the connection whose request was met last.
    pub fn met_from(&self) -> Option<SocketAddr> {
        lock(&self.shared.met).latest_from
    }

    /// How many answers came and were held or cut.
    pub fn withheld(&self) -> u64 {
        self.shared.withheld.load(Ordering::Acquire)
    }

    /// Returns when so many requests were met.
    pub fn wait_until_met(&self, requests: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut met = lock(&self.shared.met);
        while met.count < requests {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} of {requests} requests met a fault within {} s", met.count, patience.as_secs());
            }
            met = self.shared.told.wait_timeout(met, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Returns when so many answers were withheld.
    pub fn wait_until_withheld(&self, answers: u64, patience: Duration) -> Result<()> {
        crate::platform::wait_until("an answer to be withheld", patience, LOOK, || {
            Ok(self.withheld() >= answers)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.heal();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// A connection: what its two directions have to know of each other.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The harm that its current request has come to.
    harm: Mutex<Option<Harm>>,
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let Some(to) = self.to.get() else { return };
        let Ok(server) = TcpStream::connect(to) else { return };
        for side in [&client, &server] {
            // Small requests must not wait for more; if it cannot be set they only come later.
            let _ = side.set_nodelay(true);
        }
        let connection = Connection { client, server, harm: Mutex::new(None) };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = self.requests(&connection);
                // A server that loses its client may give a request up. One that was held arrives for certain:
                // the connection ends after its answer.
                if *lock(&connection.harm) != Some(Harm::HoldRequest) {
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
        // Of a request that is to be cut: how many bytes may still pass.
        let mut passing: Option<usize> = None;
        loop {
            let count = (&connection.client).read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut bytes = &buffer[..count];
            let whole;
            let begun = frames.see(bytes);
            if let Some((harm, at)) = self.meet(bytes, &begun) {
                if harm == Harm::HoldRequest {
                    // Told only when all of it has come: then its sender may die and it still arrives whole.
                    whole = whole_request(&connection.client, bytes)?;
                    bytes = &whole;
                }
                *lock(&connection.harm) = Some(harm);
                if let Harm::CutRequest { after } = harm {
                    passing = Some(at + after);
                }
                let released = self.releases();
                self.tell(connection.client.peer_addr().ok());
                match harm {
                    Harm::HoldRequest => self.hold(released),
                    Harm::SwallowRequest => {
                        self.hold(released);
                        return Ok(());
                    }
                    Harm::CutRequest { .. } | Harm::CutAnswer { .. } | Harm::HoldAnswer | Harm::Delay(_) => {}
                }
            }
            if let Some(Harm::Delay(delay)) = *lock(&connection.harm) {
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
            let harm = *lock(&connection.harm);
            match harm {
                Some(Harm::HoldAnswer) => {
                    let released = self.releases();
                    self.withheld.fetch_add(1, Ordering::AcqRel);
                    self.hold(released);
                    return Ok(());
                }
                Some(Harm::CutAnswer { after }) if passed + count > after => {
                    self.withheld.fetch_add(1, Ordering::AcqRel);
                    return (&connection.client).write_all(&buffer[..after - passed]);
                }
                Some(Harm::CutAnswer { .. }) => passed += count,
                Some(Harm::Delay(delay)) => thread::sleep(delay),
                Some(Harm::CutRequest { .. } | Harm::HoldRequest | Harm::SwallowRequest) | None => {}
            }
            (&connection.client).write_all(&buffer[..count])?;
        }
    }

    /// The harm that comes to the request in these bytes, and where in them it begins.
    fn meet(&self, bytes: &[u8], begun: &[(usize, i16)]) -> Option<(Harm, usize)> {
        let mut faults = lock(&self.faults);
        for (index, fault) in faults.iter_mut().enumerate() {
            let at = match &fault.meets {
                Meets::Any => Some(0),
                Meets::Text(text) => bytes.windows(text.len()).position(|window| window == text.as_bytes()),
                Meets::KafkaApi(api) => begun.iter().find(|(_, found)| found == api).map(|(at, _)| *at),
            };
            if let Some(at) = at {
                let harm = fault.harm;
                fault.times -= 1;
                if fault.times == 0 {
                    faults.remove(index);
                }
                return Some((harm, at));
            }
        }
        None
    }

    fn tell(&self, from: Option<SocketAddr>) {
        let mut met = lock(&self.met);
        met.count += 1;
        met.latest_from = from;
        drop(met);
        self.told.notify_all();
    }

    fn releases(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Until the next release after so many. They are counted before anybody is told, who may release at once.
    fn hold(&self, releases: u64) {
        while self.releases() == releases && !self.closed.load(Ordering::Acquire) {
            thread::sleep(LOOK);
        }
    }
}

/// The request that begins in `begun`; for HTTP with a body in chunks, up to the last of them.
fn whole_request(mut client: &TcpStream, begun: &[u8]) -> io::Result<Vec<u8>> {
    let mut whole = begun.to_vec();
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
            // It may be shut already.
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}

/// Finds the beginnings of requests in a stream of Kafka's protocol: four bytes of length, then two of the
/// API key. What is not that protocol gives beginnings that mean nothing, and nobody asks for them.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next request begins.
    left: usize,
    /// The first bytes of a request, until there are six.
    head: Vec<u8>,
}

impl Frames {
    const HEAD_BYTES: usize = 6;

    /// The requests that begin in `bytes`: where, and which API they ask. One whose head is cut by the end
    /// of `bytes` is told with the next ones, as beginning there.
    fn see(&mut self, bytes: &[u8]) -> Vec<(usize, i16)> {
        let mut begun = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.left.min(bytes.len() - at);
            self.left -= skipped;
            at += skipped;
            let begins = at.saturating_sub(self.head.len());
            while self.left == 0 && at < bytes.len() && self.head.len() < Self::HEAD_BYTES {
                self.head.push(bytes[at]);
                at += 1;
            }
            if let [a, b, c, d, high, low] = self.head[..] {
                begun.push((begins, i16::from_be_bytes([high, low])));
                self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(2);
                self.head.clear();
            }
        }
        begun
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every byte with its double.
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

    /// What comes back for `sent` until as much has come or the connection is cut.
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

    fn fault(harm: Harm) -> Fault {
        Fault { meets: Meets::Text("\x03"), harm, times: 1 }
    }

    #[test]
    fn a_fault_cuts_where_it_should_and_is_used_up() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6, 8]);

        proxy.break_with(fault(Harm::CutAnswer { after: 3 }));
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6]);
        assert_eq!((proxy.met(), proxy.withheld()), (1, 1));
        assert_eq!(ask(&proxy, &[1, 2, 3, 4]), [2, 4, 6, 8]);

        proxy.break_with(fault(Harm::CutRequest { after: 1 }));
        assert!(ask(&proxy, &[1, 2, 3, 4]).len() <= 3);
        proxy.break_with(fault(Harm::CutRequest { after: 1 }));
        assert_eq!(ask(&proxy, &[1, 1]), [2, 2]);
        proxy.heal();
        assert_eq!(ask(&proxy, &[3, 3]), [6, 6]);
    }

    #[test]
    fn what_is_held_passes_when_it_is_released() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        proxy.break_with(fault(Harm::HoldRequest));
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&proxy, &[3, 5]));
            proxy.wait_until_met(1, Duration::from_secs(10)).unwrap();
            assert!(!asked.is_finished());
            proxy.release();
            assert_eq!(asked.join().unwrap(), [6, 10]);
        });
    }

    #[test]
    fn what_is_swallowed_never_passes() {
        let proxy = Proxy::to(&doubling_server().to_string()).unwrap();
        proxy.break_with(fault(Harm::SwallowRequest));
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&proxy, &[3, 5]));
            proxy.wait_until_met(1, Duration::from_secs(10)).unwrap();
            assert!(!asked.is_finished());
            proxy.release();
            assert_eq!(asked.join().unwrap(), Vec::<u8>::new());
        });
        assert_eq!(ask(&proxy, &[3, 5]), [6, 10]);
    }

    #[test]
    fn requests_of_kafka_are_found_however_they_are_cut_into_pieces() {
        let request = |api: u8, body: usize| [vec![0, 0, 0, 2 + body as u8, 0, api], vec![9; body]].concat();
        let stream = [request(3, 4), request(8, 0), request(1, 7)].concat();
        assert_eq!(Frames::default().see(&stream), [(0, 3), (10, 8), (16, 1)]);
        let mut frames = Frames::default();
        let apis: Vec<i16> =
            stream.iter().flat_map(|byte| frames.see(&[*byte])).map(|(_, api)| api).collect();
        assert_eq!(apis, [3, 8, 1]);
    }
}
