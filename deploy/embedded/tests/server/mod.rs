//! Starts a clickhouse-embedded for one test, on a free port, and stops it by its process id; and a minimal
//! HTTP client, which can send and receive what other clients hide.

// Each test binary uses only some of it.
#![allow(dead_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fetch::Cache;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

/// A cold start loads a library of half a gigabyte on a machine that may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
pub struct Server {
    process: Child,
    pub address: String,
    /// The data directory, if the test gave none.
    _directory: Option<TempDir>,
}

impl Server {
    /// Starts a server with a new data directory and these arguments.
    pub fn start(arguments: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Server::start_at(directory.path(), arguments);
        server._directory = Some(directory);
        server
    }

    /// Starts a server on the data directory `path`.
    pub fn start_at(path: &Path, arguments: &[&str]) -> Server {
        let port_file = path.join("address");
        let mut command = command(path, arguments);
        command.arg("--port-file").arg(&port_file);
        Server::start_command(command, &port_file)
    }

    /// Starts a server on the data directory `path` in the working directory `directory`, with a relative
    /// port file.
    pub fn start_in(directory: &Path, path: &Path) -> Server {
        let mut command = command(path, &[]);
        command.current_dir(directory).args(["--port-file", "address"]);
        Server::start_command(command, &directory.join("address"))
    }

    fn start_command(mut command: Command, port_file: &Path) -> Server {
        let mut process = command.spawn().expect("starts");
        let deadline = Instant::now() + START_TIMEOUT;
        let pid = process.id().to_string();
        loop {
            // A killed server leaves its port file: the server must also answer.
            if let Ok(address) = fs::read_to_string(port_file)
                && TcpStream::connect(address.trim()).is_ok()
            {
                return Server { process, address: address.trim().to_owned(), _directory: None };
            }
            if let Some(status) = process.try_wait().expect("waits") {
                panic!("the server {pid} ended with {status} before it answered");
            }
            assert!(Instant::now() < deadline, "the server does not answer after {START_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn signal(&self, signal: Signal) {
        // A process id fits: it came from the system.
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("signals");
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end after {STOP_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// POST with `sql` as the body; the answer must be 200.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_with("", sql)
    }

    /// The same, with a URL's query.
    pub fn sql_with(&self, address: &str, sql: &str) -> String {
        let answer = self.post(address, sql.as_bytes());
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.text()
    }

    /// POST to `/?address`.
    pub fn post(&self, address: &str, body: &[u8]) -> Answer {
        self.send("POST", address, &[], body)
    }

    /// POST that must be refused: the status and ClickHouse's code.
    pub fn refused(&self, address: &str, body: &[u8]) -> (u16, u16) {
        let answer = self.post(address, body);
        (answer.status, answer.code())
    }

    /// A request without a body to the server under the name `host`.
    pub fn send_to(&self, host: &str, method: &str, address: &str) -> Answer {
        let mut stream = self.connect();
        write!(stream, "{method} /?{address} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            .expect("sends");
        read_answer(stream)
    }

    pub fn send(&self, method: &str, address: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} /?{address} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).expect("sends");
        // A server that refuses a body need not read it.
        let _ = stream.write_all(body);
        read_answer(stream)
    }

    /// A connection for bytes that no client would send.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// Asks until `sql` answers `expected`.
    pub fn wait_for(&self, sql: &str, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.sql(sql);
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {found:?} instead of {expected:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's command line, without a port file.
pub fn command(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickhouse-embedded"));
    command.arg("--path").arg(path).arg("--library").arg(engine()).args(arguments);
    command
}

fn engine() -> &'static Path {
    static ENGINE: OnceLock<PathBuf> = OnceLock::new();
    ENGINE.get_or_init(|| Cache::open().and_then(|cache| cache.engine()).expect("the engine can be fetched"))
}

/// An HTTP response, which may be cut short.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// False if the connection ended before the body did.
    pub whole: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// X-ClickHouse-Exception-Code; 0 without one.
    pub fn code(&self) -> u16 {
        self.header("X-ClickHouse-Exception-Code").map_or(0, |code| code.parse().expect("a number"))
    }
}

/// Reads to the end of the connection.
pub fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that was cut may end with a reset after the bytes that arrived.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|it| it.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status: status.expect("a status"), headers, body: Vec::new(), whole: false };
    let rest = &bytes[end + 4..];
    match answer.header("Content-Length").map(|length| length.parse::<usize>().expect("a number")) {
        Some(length) => {
            answer.whole = rest.len() == length;
            answer.body = rest.to_vec();
        }
        None => (answer.body, answer.whole) = unchunk(rest),
    }
    answer
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let length =
            std::str::from_utf8(&rest[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.expect("a chunk's length");
        if length == 0 {
            return (body, true);
        }
        let chunk = &rest[line + 2..];
        body.extend_from_slice(&chunk[..length.min(chunk.len())]);
        match chunk.get(length + 2..) {
            Some(next) => rest = next,
            None => break,
        }
    }
    (body, false)
}

/// Encodes `text` for a URL.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
