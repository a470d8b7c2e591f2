//! A hostile load on a running edge: requests of every kind that a server should refuse, slow heads and bodies, idle
//! connections, event streams, and meanwhile good single evaluations, which are timed. It is plain sockets, knows nothing of the
//! edge's inside, and states exactly how each hostile request is answered. All that is random follows from the seed.

// The program and the test each use only a part of this module.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::edge_fixture::{CLIENT_TOKEN, Edge, SERVER_TOKEN};

/// The longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The settings that [`attack`] expects of the edge, besides its defaults.
pub const SETTINGS: [(&str, &str); 3] = [
    ("SPLITSTREAM_EDGE__HEAD_TIMEOUT_MS", "3000"),
    ("SPLITSTREAM_EDGE__BODY_TIMEOUT_MS", "2000"),
    ("SPLITSTREAM_EDGE__STREAM_KEEP_ALIVE_MS", "1000"),
];

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Connections that send good evaluations, one after the other, and how many each sends in quiet and under attack.
    pub good_connections: usize,
    pub good_requests: usize,
    /// Threads that send the requests of [`hostile`] over and over.
    pub attackers: usize,
    /// Connections at once that send the head, or the body, of a request a byte at a time.
    pub slow_heads: usize,
    pub slow_bodies: usize,
    pub idle_connections: usize,
    pub streams: usize,
}

/// Times of good evaluations, in microseconds.
#[derive(Debug, Default)]
pub struct Good {
    pub micros: Vec<u64>,
    /// What went wrong instead of an answer of 200.
    pub errors: Vec<String>,
}

impl Good {
    /// The time within which this share of the answers came, in parts of 1,000.
    pub fn percentile(&self, thousandths: usize) -> u64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * thousandths).div_ceil(1_000).max(1) - 1;
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Report {
    pub quiet: Good,
    pub attacked: Good,
    /// By kind of hostile request and its answer: a status, or `closed` without one.
    pub answers: BTreeMap<(&'static str, String), usize>,
    /// Answers that were not the expected one, with their text.
    pub unexpected: Vec<String>,
}

/// One kind of hostile request.
pub struct Hostile {
    pub name: &'static str,
    /// The status of its answer.
    pub status: u16,
    /// Whether the answer has a body that clients parse. Of what is no request that it can read, hyper answers without one.
    pub has_body: bool,
    pub bytes: Vec<u8>,
}

const SINGLE: &str = "/ofrep/v1/evaluate/flags/factor";
const BULK: &str = "/ofrep/v1/evaluate/flags";
const TRACK: &str = "/ofrep/v1/track";
const STREAM: &str = "/ofrep/v1/stream";

fn head(method: &str, path: &str, headers: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAuthorization: Bearer {SERVER_TOKEN}\r\n{headers}"
    )
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    [head("POST", path, &length).as_bytes(), body.as_bytes()].concat()
}

/// A text that opens `levels` lists or objects and closes them.
fn deep(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

/// Every kind of hostile request that is sent as a whole, with its answer.
pub fn hostile(random: &mut Random) -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name, status, has_body, bytes| all.push(Hostile { name, status, has_body, bytes });
    // Bodies and heads over their bounds.
    let large = "x".repeat(65_537);
    add("a body too large", 413, true, post(SINGLE, &large));
    let announced = head("POST", SINGLE, "Content-Length: 99999999999\r\n\r\n{");
    add("a body announced too large", 413, true, announced.into_bytes());
    let chunked = head("POST", SINGLE, "Transfer-Encoding: chunked\r\n\r\n");
    add(
        "a body in chunks too large",
        413,
        true,
        format!("{chunked}10001\r\n{large}\r\n0\r\n\r\n").into_bytes(),
    );
    add("events too large", 413, true, post(TRACK, &"x".repeat(1_048_577)));
    add("a chunk without a length", 400, true, format!("{chunked}length\r\n").into_bytes());
    let padded = |bytes: usize| head("GET", SINGLE, &format!("X-Padding: {}\r\n\r\n", "h".repeat(bytes)));
    add("headers too large", 431, true, padded(20_000).into_bytes());
    add("a head beyond every buffer", 431, false, padded(200_000).into_bytes());
    let many: String = (0..200).map(|index| format!("X-{index}: 1\r\n")).collect();
    add("too many headers", 431, false, head("GET", SINGLE, &format!("{many}\r\n")).into_bytes());
    let target = format!("{SINGLE}?{}", "q".repeat(9_000));
    add("a target too long", 414, true, post(&target, "{}"));
    // What is not HTTP.
    add("a greeting of TLS", 400, false, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec());
    add("a line that is no request", 400, false, b"let me in\r\n\r\n".to_vec());
    let twice = head("POST", SINGLE, "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}");
    add("two lengths", 400, false, twice.into_bytes());
    // JSON that is none, too deep or too wide.
    let noise: String = (0..200).map(|_| char::from(b' ' + (random.next() % 95) as u8)).collect();
    add("noise for JSON", 400, true, post(SINGLE, &format!("~{noise}")));
    add("JSON cut off", 400, true, post(BULK, r#"{"context": {"targetingKey": "u1", "a": ["#));
    let lists = deep("[", "", "]", 10_000);
    let objects = deep("{\"a\":", "1", "}", 9_000);
    add("lists 10,000 deep", 400, true, post(SINGLE, &format!(r#"{{"context": {{"a": {lists}}}}}"#)));
    add("objects 9,000 deep", 400, true, post(BULK, &format!(r#"{{"context": {{"a": {objects}}}}}"#)));
    add("lists 10,000 deep that nobody reads", 200, true, post(SINGLE, &format!(r#"{{"other": {lists}}}"#)));
    add("events 10,000 deep", 200, true, post(TRACK, &format!(r#"{{"events": [{lists}]}}"#)));
    let event = format!(
        r#"{{"events": [{{"event_id": "x", "type": "conversion", "key": "k", "context": {objects}}}]}}"#
    );
    add("an event with a context 9,000 deep", 200, true, post(TRACK, &event));
    let attributes = |count: usize| {
        let own: Vec<String> = (0..count).map(|index| format!(r#""a{index}":{index}"#)).collect();
        format!(r#"{{"context": {{"targetingKey": "u1", {}}}}}"#, own.join(","))
    };
    add("256 attributes", 200, true, post(SINGLE, &attributes(256)));
    add("257 attributes", 400, true, post(SINGLE, &attributes(257)));
    add("4,000 attributes", 400, true, post(BULK, &attributes(4_000)));
    let events = |count: usize| format!(r#"{{"events": [{}]}}"#, vec!["7"; count].join(","));
    add("1,000 events that are none", 200, true, post(TRACK, &events(1_000)));
    add("1,001 events", 400, true, post(TRACK, &events(1_001)));
    add("all flags", 200, true, post(BULK, r#"{"context": {"targetingKey": "u1"}}"#));
    // Who may not, and what there is not.
    let body = "Content-Length: 2\r\n\r\n{}";
    let as_client =
        |token: &str| format!("POST {SINGLE} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{token}{body}");
    add("no token", 401, true, as_client("").into_bytes());
    add(
        "a wrong token",
        401,
        true,
        as_client(&format!("X-API-Key: wrong-{}\r\n", random.next())).into_bytes(),
    );
    add("a hidden flag", 404, true, as_client(&format!("X-API-Key: {CLIENT_TOKEN}\r\n")).into_bytes());
    add(
        "another origin",
        403,
        true,
        head("POST", SINGLE, &format!("Origin: https://evil.example\r\n{body}")).into_bytes(),
    );
    add(
        "a wrong ticket",
        401,
        true,
        format!("GET {STREAM}?token=x HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").into_bytes(),
    );
    let large_unread = format!(
        "POST {SINGLE} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Length: 900000\r\n\r\n{large}"
    );
    add("a large body without a token", 401, true, large_unread.into_bytes());
    for (name, method, path) in [
        ("GET of a flag", "GET", SINGLE),
        ("PUT of a flag", "PUT", SINGLE),
        ("DELETE of all flags", "DELETE", BULK),
        ("POST to the stream", "POST", STREAM),
        ("a method of its own", "BREW", TRACK),
    ] {
        add(name, 405, true, head(method, path, "Content-Length: 0\r\n\r\n").into_bytes());
    }
    add("a path that is none", 404, true, post(&format!("/{}", random.next()), "{}"));
    add("a flag that is none", 404, true, post(&format!("{BULK}/k{}", random.next()), "{}"));
    all
}

/// Runs the plan: good evaluations in quiet, then as many under attack.
pub fn run(edge: &Edge, plan: &Plan) -> Report {
    let mut report = Report { quiet: evaluate(address(edge), plan, 1), ..Report::default() };
    let stop = AtomicBool::new(false);
    let answers = Answers::default();
    let at = address(edge);
    report.attacked = thread::scope(|scope| {
        for attacker in 0..plan.attackers {
            let (answers, stop) = (&answers, &stop);
            let seed = plan.seed ^ (0xa77a << 32) ^ attacker as u64;
            scope.spawn(move || attack(at, seed, answers, stop));
        }
        scope.spawn(|| slow(at, plan, &answers, &stop));
        scope.spawn(|| idle(at, plan.idle_connections, &answers, &stop));
        scope.spawn(|| streams(edge, plan.streams, &answers, &stop));
        // Also after a panic here, so that the others end.
        let _stop = SetAtEnd(&stop);
        answers.wait_until_all_have_begun(plan);
        evaluate(at, plan, 2)
    });
    let found = answers.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    (report.answers, report.unexpected) = (found.counts, found.unexpected);
    report
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn address(edge: &Edge) -> SocketAddr {
    edge.url().strip_prefix("http://").unwrap().parse().unwrap()
}

#[derive(Default)]
struct Answers(Mutex<Found>);

#[derive(Default)]
struct Found {
    counts: BTreeMap<(&'static str, String), usize>,
    unexpected: Vec<String>,
    /// The idle connections and streams that are open.
    open: usize,
}

impl Answers {
    /// Counts an answer, which should be the expected one.
    fn add(&self, name: &'static str, expected: &str, answer: &str, text: &str) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *found.counts.entry((name, answer.to_owned())).or_default() += 1;
        if answer != expected && found.unexpected.len() < 20 {
            let text: String = text.chars().take(300).collect();
            found.unexpected.push(format!("{name}: {answer}, not {expected}: {text}"));
        }
    }

    fn opened(&self, count: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open += count;
    }

    /// Waits for what is opened once; the rest is sent over and over.
    fn wait_until_all_have_begun(&self, plan: &Plan) {
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.0.lock().unwrap_or_else(PoisonError::into_inner).open
            < plan.idle_connections + plan.streams
        {
            assert!(Instant::now() < deadline, "the connections of the attack cannot be opened");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends every kind of hostile request in another order each time, at least once.
fn attack(at: SocketAddr, seed: u64, answers: &Answers, stop: &AtomicBool) {
    let mut random = Random(seed);
    loop {
        let mut all = hostile(&mut random);
        while !all.is_empty() {
            let next = all.swap_remove((random.next() % all.len() as u64) as usize);
            let text = exchange(at, &next.bytes);
            let answer = answer_of(&text, next.has_body);
            answers.add(next.name, &next.status.to_string(), &answer, &text);
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Keeps connections open that send a byte at a time. A head that does not come is closed without an answer, a body gets 408.
fn slow(at: SocketAddr, plan: &Plan, answers: &Answers, stop: &AtomicBool) {
    const HEAD: &str = "a head byte by byte";
    const BODY: &str = "a body byte by byte";
    let mut open: Vec<(&'static str, TcpStream)> = Vec::new();
    let mut random = Random(plan.seed ^ 0x510e);
    let mut rounds = 0;
    // Longer than the edge waits for a head or a body.
    while rounds < 60 || !stop.load(Ordering::Acquire) {
        rounds += 1;
        for (name, wanted) in [(HEAD, plan.slow_heads), (BODY, plan.slow_bodies)] {
            let missing = wanted - open.iter().filter(|(own, _)| *own == name).count();
            for _ in 0..missing {
                let mut stream = connect(at);
                let sent = match name {
                    HEAD => format!("POST {SINGLE} HTTP/1.1\r\nHost: edge\r\nX: "),
                    _ => head("POST", SINGLE, "Content-Length: 1000\r\n\r\n{"),
                };
                stream.write_all(sent.as_bytes()).unwrap();
                stream.set_nonblocking(true).unwrap();
                open.push((name, stream));
            }
        }
        open.retain_mut(|(name, stream)| {
            let mut text = [0; 1_024];
            match stream.read(&mut text) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = stream.write(&[b'a' + (random.next() % 26) as u8]);
                    return true;
                }
                // A byte that crosses the end of the connection is answered with a reset.
                Ok(0) | Err(_) => answers.add(name, expected_of(name, HEAD), "closed", ""),
                Ok(length) => {
                    let text = String::from_utf8_lossy(&text[..length]).into_owned();
                    answers.add(name, expected_of(name, HEAD), &answer_of(&text, *name == BODY), &text);
                }
            }
            false
        });
        thread::sleep(Duration::from_millis(100));
    }
}

fn expected_of(name: &str, head: &str) -> &'static str {
    if name == head { "closed" } else { "408" }
}

/// Opens connections on which nothing is sent, and again those that are closed.
fn idle(at: SocketAddr, count: usize, answers: &Answers, stop: &AtomicBool) {
    let open = |_| {
        let stream = connect(at);
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut idle: Vec<TcpStream> = (0..count).map(open).collect();
    answers.opened(count);
    while !stop.load(Ordering::Acquire) {
        idle.retain_mut(|stream| match stream.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(0) | Err(_) => {
                answers.add("an idle connection", "closed", "closed", "");
                false
            }
            Ok(_) => {
                answers.add("an idle connection", "closed", "answered", "");
                false
            }
        });
        let missing = count - idle.len();
        idle.extend((0..missing).map(open));
        thread::sleep(Duration::from_millis(200));
    }
}

/// Opens event streams, which stay open to the end, and reads of each the head and the first event.
fn streams(edge: &Edge, count: usize, answers: &Answers, stop: &AtomicBool) {
    let at = address(edge);
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..count {
        let mut stream = connect(at);
        let head = format!("GET {STREAM} HTTP/1.1\r\nHost: edge\r\nX-API-Key: {SERVER_TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let text = read_until(&mut stream, "refetchEvaluation");
        answers.add("an event stream", "200", &status_of(&text), &text);
        answers.opened(1);
        open.push(stream);
    }
    while !stop.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(50));
    }
    // None of them was closed meanwhile.
    for stream in &mut open {
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 16 << 10];
        let ended = loop {
            match stream.read(&mut bytes) {
                Ok(0) => break "closed",
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break "open",
                Err(_) => break "closed",
            }
        };
        answers.add("an event stream at the end", "open", ended, "");
    }
}

/// Sends good evaluations on connections that are kept open, and times them.
fn evaluate(at: SocketAddr, plan: &Plan, part: u64) -> Good {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.good_connections)
            .map(|index| {
                let mut random = Random(plan.seed ^ (part << 40) ^ ((index as u64) << 20));
                scope.spawn(move || evaluate_on_one(at, plan.good_requests, &mut random))
            })
            .collect();
        let mut good = Good::default();
        for thread in threads {
            let own = thread.join().unwrap();
            good.micros.extend(own.micros);
            good.errors.extend(own.errors);
        }
        good
    })
}

fn evaluate_on_one(at: SocketAddr, count: usize, random: &mut Random) -> Good {
    let mut good = Good::default();
    let mut stream = connect(at);
    for _ in 0..count {
        let body = format!(r#"{{"context": {{"targetingKey": "u{}", "age": 20}}}}"#, random.next() % 10_000);
        let request = format!(
            "POST /ofrep/v1/evaluate/flags/checkout HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {SERVER_TOKEN}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        let answer = stream.write_all(request.as_bytes()).and_then(|()| read_answer(&mut stream));
        match answer {
            Ok(text) if text.starts_with("HTTP/1.1 200 ") && text.contains(r#""variant":"#) => {
                good.micros.push(began.elapsed().as_micros() as u64);
            }
            other => {
                good.errors.push(format!("{other:?}"));
                stream = connect(at);
            }
        }
    }
    good
}

/// Connects, again and again while the listener's queue is full.
fn connect(at: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&at, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                return stream;
            }
            Err(error) if Instant::now() < deadline => {
                // For example no free port for a moment.
                let _ = error;
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("connecting to {at}: {error}"),
        }
    }
}

/// Sends a request and returns what comes until the end. The edge may close the connection while it is being sent.
pub fn exchange(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(at);
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut buffer = [0; 16 << 10];
    // A reset after the answer is the end too.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The status of an answer, or `closed` if there is none.
pub fn status_of(text: &str) -> String {
    match text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) {
        Some(status) => status.to_owned(),
        None => "closed".to_owned(),
    }
}

/// The status, and whether the body that there should be is missing.
fn answer_of(text: &str, has_body: bool) -> String {
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let parses = serde_json::from_str::<serde_json::Value>(body).is_ok_and(|body| body.is_object());
    let status = status_of(text);
    if parses || !has_body { status } else { format!("{status} without JSON") }
}

fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains(wanted) {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => break,
        }
    }
    text
}

/// Reads one answer, whose head says how long its body is.
fn read_answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
            if body.len() >= length {
                return Ok(text);
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}

/// A sequence of numbers that follows from its seed: SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
