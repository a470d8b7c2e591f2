//! Tests `splitstream local` as a person runs it: up, status, logs and down, and what remains after it was
//! killed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use local::kafka::metadata::live_brokers;
use local::process::Identity;
use local::state::State;

fn local(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splitstream"));
    command.env(local::programs::FOR_TESTS, "1");
    command.arg("local").args(args).arg("--dir").arg(dir);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    local(dir, args).output().unwrap()
}

fn succeeded(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null)
}

fn within_a_minute(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kill_hard(pid: u32) {
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// Asks a service over plain HTTP and returns the whole answer.
fn post(url: &str, path: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Stops the stack on drop, also when the test fails.
struct StackGuard<'a>(&'a Path);

impl Drop for StackGuard<'_> {
    fn drop(&mut self) {
        run(self.0, &["down"]);
    }
}

#[test]
fn up_stays_up_restarts_what_dies_and_down_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let dir = &directory.path().join("stack");
    let stack = StackGuard(dir);
    let up = succeeded(&run(dir, &["up", "--only", "kafka", "--json"]));
    let parts = up["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0]["name"], "kafka-1");
    assert_eq!(parts[0]["healthy"], true);
    let address = up["kafka"].as_str().unwrap();
    assert_eq!(live_brokers(address).unwrap(), 1);

    // A second `up` changes nothing.
    let again = succeeded(&run(dir, &["up", "--only", "kafka", "--json"]));
    assert_eq!(again, up);

    let pid = u32::try_from(parts[0]["pid"].as_u64().unwrap()).unwrap();
    let killed = Identity::of(pid).unwrap();
    kill_hard(pid);
    within_a_minute("Kafka is killed and answers again", || {
        !killed.is_alive() && live_brokers(address).is_ok()
    });
    let status = succeeded(&run(dir, &["status", "--json"]));
    assert_eq!(status["parts"][0]["healthy"], true);
    assert_ne!(status["parts"][0]["pid"], parts[0]["pid"]);
    let logs = run(dir, &["logs", "local"]);
    let logs = String::from_utf8(logs.stdout).unwrap();
    assert!(logs.contains("kafka-1 ended (signal: 9 (SIGKILL)); starting it again in 0.2 s\n"), "{logs}");

    let owner = State::load(dir).unwrap().unwrap().owner;
    drop(stack);
    assert!(!owner.is_alive());
    live_brokers(address).expect_err("nobody answers after down");
    let status = run(dir, &["status"]);
    assert_eq!(
        String::from_utf8(status.stderr).unwrap(),
        format!("error: no stack runs in {}: `splitstream local up` starts one\n", dir.display())
    );
    succeeded(&run(dir, &["down", "--delete"]));
    assert!(!dir.exists());
}

#[test]
fn when_the_owner_is_killed_its_parts_die_and_the_next_one_starts_on_their_data() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    for _ in 0..2 {
        succeeded(&run(dir, &["up", "--only", "kafka", "--json"]));
        let state = State::load(dir).unwrap().unwrap();
        let part = &state.parts[0];
        assert!(part.process.is_alive());
        kill_hard(state.owner.pid);
        within_a_minute("the part is gone", || !part.process.is_alive());
        let status = run(dir, &["status", "--json"]);
        assert!(!status.status.success());
    }
    succeeded(&run(dir, &["down"]));
    assert!(State::load(dir).unwrap().is_none());
}

#[test]
fn a_part_that_cannot_start_is_reported_with_the_end_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let refused = run(dir, &["up", "--only", "kafka", "--kafka-port", &port.to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8(refused.stderr).unwrap();
    let log = dir.join("logs/local.log");
    let expected = format!(
        "error: the stack did not start (exit status: 1); {} ends:\nerror: port {port} cannot be used: stop \
         what listens there, or name another port: Address already in use (os error 98)\n",
        log.display()
    );
    assert!(errors.ends_with(&expected), "{errors}");
}

#[test]
fn a_missing_prerequisite_is_named_with_its_purpose_and_how_to_get_it() {
    let directory = tempfile::tempdir().unwrap();
    // The programs are built before the path is taken away.
    local::programs::ensure_built().unwrap();
    let refused = local(directory.path(), &["keep", "--only", "kafka"])
        .env("PATH", directory.path())
        .env("SPLITSTREAM_CACHE", directory.path().join("cache"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap().lines().last().unwrap(),
        "error: java is not installed: Apache Kafka and the schema registry run on Java 17 or later. To get it: apt-get install \
         openjdk-17-jre-headless, or brew install openjdk@17"
    );
}

#[test]
fn the_edge_is_a_part_and_keeps_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let dir = &directory.path().join("stack");
    let _stack = StackGuard(dir);
    let up = succeeded(&run(dir, &["up", "--only", "kafka,edge", "--json"]));
    let names: Vec<&str> =
        up["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kafka-1", "edge"]);
    let url = up["edge"].as_str().unwrap();
    let bulk = post(url, "/ofrep/v1/evaluate/flags", "{}");
    assert!(bulk.starts_with("HTTP/1.1 200 OK") && bulk.contains(r#"{"flags":[],"#), "{bulk}");

    let pid = u32::try_from(up["parts"][1]["pid"].as_u64().unwrap()).unwrap();
    let killed = Identity::of(pid).unwrap();
    kill_hard(pid);
    within_a_minute("the edge is killed and answers again", || {
        !killed.is_alive() && TcpStream::connect(url.strip_prefix("http://").unwrap()).is_ok()
    });
    assert!(dir.join("edge/definitions").is_file());
}
