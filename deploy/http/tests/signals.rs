//! Runs the example service as a process: it starts, stops in order, and is ended if it does not stop.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(20);

struct Service {
    child: Child,
    _directory: tempfile::TempDir,
    address: String,
}

/// Returns the path of the example. Cargo builds it with the package's tests, in a directory next to theirs.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let path = target.join("examples/service");
    assert!(
        path.exists(),
        "{} is not built; run the whole package's tests, or `cargo build -p frame --examples`",
        path.display()
    );
    path
}

fn start(settings: &[(&str, &str)]) -> Service {
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let mut child = Command::new(example())
        .env("SPLITSTREAM_HTTP__PORT_FILE", &port_file)
        .env("SPLITSTREAM_LOG__FORMAT", "json")
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let address = loop {
        if let Ok(address) = std::fs::read_to_string(&port_file) {
            break address.trim().to_string();
        }
        assert_eq!(child.try_wait().unwrap(), None, "ended before it listened");
        assert!(Instant::now() < deadline, "does not listen");
        std::thread::sleep(Duration::from_millis(10));
    };
    Service { child, _directory: directory, address }
}

impl Service {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end and returns the exit status and the events of the log.
    fn end(mut self) -> (ExitStatus, Vec<serde_json::Value>) {
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("does not stop");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        let mut events = Vec::new();
        for line in text.lines() {
            events.push(serde_json::from_str(line).expect(line));
        }
        (status, events)
    }
}

fn messages(events: &[serde_json::Value]) -> Vec<&str> {
    let mut messages = Vec::new();
    for event in events {
        messages.push(event["message"].as_str().unwrap());
    }
    messages
}

#[test]
fn either_signal_stops_it_in_order() {
    for signal in ["TERM", "INT"] {
        let service = start(&[("SPLITSTREAM_CONSUMER__LAST_WORK_MS", "100")]);
        let mut response = ureq::get(format!("http://{}/hello", service.address)).call().unwrap();
        assert_eq!(response.body_mut().read_to_string().unwrap(), "hello");
        service.signal(signal);
        let (status, events) = service.end();
        assert_eq!(messages(&events), ["listening", "stopping"]);
        assert_eq!(events[1]["reason"], format!("SIG{signal}"));
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_logs_what_ran() {
    let service = start(&[("SPLITSTREAM_CONSUMER__LAST_WORK_MS", "60000")]);
    service.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    service.signal("INT");
    let (status, events) = service.end();
    assert_eq!(messages(&events), ["listening", "stopping", "SIGINT while stopping: ended at once"]);
    assert_eq!(events[2]["running"], "work");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_stop_that_takes_too_long_is_ended_and_logs_what_ran() {
    let service = start(&[
        ("SPLITSTREAM_CONSUMER__LAST_WORK_MS", "60000"),
        ("SPLITSTREAM_CONSUMER__PATIENCE_MS", "200"),
    ]);
    service.signal("TERM");
    let (status, events) = service.end();
    assert_eq!(messages(&events), ["listening", "stopping", "not stopped after 200 ms: ended at once"]);
    assert_eq!(events[2]["running"], "work");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_configuration_that_is_wrong_exits_with_invalid_input() {
    let output = Command::new(example()).env("SPLITSTREAM_CONSUMER__PATIENCE_MS", "0").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: environment variable SPLITSTREAM_CONSUMER__PATIENCE_MS: consumer.patience_ms: \
         integer `0` where a whole number from 1 to 60000 milliseconds is expected\n"
    );
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_port_that_is_taken_is_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(example())
        .env("SPLITSTREAM_HTTP__LISTEN", &address)
        .env("SPLITSTREAM_LOG__FORMAT", "json")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let event: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        event["error"],
        format!("listening on {address}, which is http.listen: Address already in use (os error 98)")
    );
    assert_eq!(output.status.code(), Some(1));
}
