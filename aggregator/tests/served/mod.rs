//! Aggregators that serve the definitions of a real Kafka, each test with topics of its own. ClickHouse is not there,
//! which the routes of definitions do not need.

use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use local::process::spawn_bound;
use local::{Options, Server, Stack};
use serde_json::Value;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The topics of one test.
pub struct Topics {
    kafka: Arc<SharedKafka>,
    prefix: String,
    files: TempDir,
}

struct SharedKafka {
    stack: Stack,
    _directory: TempDir,
}

/// A running aggregator; it is killed when dropped.
pub struct Aggregator {
    child: Child,
    address: String,
}

/// An answer: the status, the entity tag and the body as JSON.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub tag: Option<String>,
    pub body: Value,
}

impl Topics {
    /// Starts or shares Kafka and creates topics whose names begin with `name`.
    pub fn new(name: &str) -> Topics {
        static SHARED: Mutex<Weak<SharedKafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let kafka = shared.upgrade().unwrap_or_else(|| {
            local::programs::ensure_built().unwrap();
            let directory = tempfile::tempdir().unwrap();
            let options =
                Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
            Arc::new(SharedKafka { stack: Stack::up(options).unwrap(), _directory: directory })
        });
        *shared = Arc::downgrade(&kafka);
        drop(shared);
        let topics = Topics { kafka, prefix: format!("{name}."), files: tempfile::tempdir().unwrap() };
        topics.run(&["topics"]);
        topics
    }

    /// Runs `splitstream` with these arguments and returns what it prints.
    pub fn run(&self, args: &[&str]) -> String {
        let mut command = self.kafka.stack.command(args).unwrap();
        command.env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", &self.prefix);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `splitstream apply` on `definitions`, all of which must be accepted.
    pub fn apply(&self, definitions: &str) {
        let file = self.files.path().join("definitions.yaml");
        std::fs::write(&file, definitions).unwrap();
        self.run(&["apply", file.to_str().unwrap(), "--author", "cli", "--reason", "because"]);
    }

    /// Starts an aggregator with these settings and returns when it listens.
    pub fn serve(&self, name: &str, settings: &[(&str, &str)]) -> Aggregator {
        let port_file = self.files.path().join(name);
        let mut command = self.kafka.stack.command(&["aggregator", "run"]).unwrap();
        command
            .env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", &self.prefix)
            .env("SPLITSTREAM_HTTP__PORT_FILE", &port_file)
            // Nobody listens there.
            .env("SPLITSTREAM_CLICKHOUSE__URL", "http://127.0.0.1:1")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = spawn_bound(command).unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        let address = loop {
            if let Ok(text) = std::fs::read_to_string(&port_file) {
                break text.trim().to_owned();
            }
            assert_eq!(child.try_wait().unwrap(), None, "the aggregator ended");
            assert!(Instant::now() < deadline, "the aggregator does not listen");
            std::thread::sleep(Duration::from_millis(20));
        };
        Aggregator { child, address }
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Aggregator {
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call().unwrap())
    }

    pub fn put(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = agent().put(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body).unwrap())
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = response.body_mut().read_to_string().unwrap();
    let tag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    // A 304 has no body.
    let body = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
    };
    Answer { status: response.status().as_u16(), tag, body }
}
