//! A real Kafka and real edges for the tests of this package. Tests that run at the same time share Kafka, each with its own
//! topics; a test that stops Kafka starts one of its own.

// Each program uses only a part of this module.
#![allow(dead_code)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use local::{Options, Server, Service, ServiceOptions, Stack};
use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The token of tests that use [`TOKENS`].
pub const SERVER_TOKEN: &str = "server-0123456789abcdef";
pub const CLIENT_TOKEN: &str = "client-0123456789abcdef";
pub const TOKENS: &str = r#"
[[token]]
name = "shop"
kind = "server"
secret = "server-0123456789abcdef"
origins = ["https://shop.example"]

[[token]]
name = "web"
kind = "client"
secret = "client-0123456789abcdef"
origins = ["https://shop.example"]
"#;

/// Flags of every type, and an experiment.
pub const DEFINITIONS: &str = r#"
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
kind: flag
key: on-sale
value_type: boolean
variants: [{ key: "off", value: false }, { key: "on", value: true }]
default_variant: "on"
---
kind: flag
key: switched-off
value_type: boolean
enabled: false
variants: [{ key: "off", value: false }, { key: "on", value: true }]
default_variant: "off"
rules: [{ key: all, split: [{ variant: "on", weight: 100% }] }]
---
kind: flag
key: greeting
value_type: string
variants: [{ key: hello, value: "hello" }, { key: bonjour, value: "bonjour \"ü\"" }]
default_variant: hello
rules: [{ key: french, when: { attribute: country, equals: FR }, split: [{ variant: bonjour, weight: 100% }] }]
---
kind: flag
key: retries
value_type: integer
variants: [{ key: few, value: 3 }, { key: many, value: 9007199254740993 }]
default_variant: few
rules: [{ key: large, when: { attribute: account_number, equals: 9007199254740993 }, split: [{ variant: many, weight: 100% }] }]
---
kind: flag
key: factor
value_type: number
variants: [{ key: whole, value: 1 }, { key: half, value: 0.5 }]
default_variant: whole
---
kind: flag
key: layout
value_type: json
variants: [{ key: wide, value: { columns: [1, 2.5, null], title: "w" } }, { key: none, value: {} }]
default_variant: wide
---
kind: flag
key: by-account
value_type: string
unit_type: account
variants: [{ key: a, value: "a" }, { key: b, value: "b" }]
default_variant: a
rules: [{ key: half, rollout: 50%, split: [{ variant: b, weight: 100% }] }]
---
kind: experiment
key: checkout
state: running
control: control
metrics: { primary: purchase }
targeting: [{ key: adults, when: { attribute: age, at_least: 18 } }]
variants: [{ key: control, weight: 50%, value: "blue" }, { key: treatment, weight: 50%, value: "green" }]
"#;

pub struct Fixture {
    kafka: Arc<SharedKafka>,
    prefix: String,
    files: TempDir,
}

struct SharedKafka {
    stack: Stack,
    _directory: TempDir,
}

impl SharedKafka {
    fn start() -> SharedKafka {
        local::programs::ensure_built().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
        SharedKafka { stack: Stack::up(options).unwrap(), _directory: directory }
    }
}

impl Fixture {
    /// Starts or shares Kafka and creates topics whose names begin with `name`.
    pub fn new(name: &str) -> Fixture {
        static SHARED: Mutex<Weak<SharedKafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let kafka = shared.upgrade().unwrap_or_else(|| Arc::new(SharedKafka::start()));
        *shared = Arc::downgrade(&kafka);
        drop(shared);
        Fixture::on(kafka, name)
    }

    /// With a Kafka of its own, which the test may stop.
    pub fn alone(name: &str) -> Fixture {
        Fixture::on(Arc::new(SharedKafka::start()), name)
    }

    fn on(kafka: Arc<SharedKafka>, name: &str) -> Fixture {
        let fixture = Fixture { kafka, prefix: format!("{name}."), files: tempfile::tempdir().unwrap() };
        fixture.run(&["topics"]);
        fixture
    }

    pub fn stack(&self) -> &Stack {
        &self.kafka.stack
    }

    /// The settings of its Kafka, for parts that run in the test itself.
    pub fn kafka(&self) -> Kafka {
        #[derive(serde::Deserialize)]
        struct Config {
            kafka: Kafka,
        }
        impl ops::config::Config for Config {
            fn pages(&self) -> Vec<ops::config::Page> {
                vec![ops::config::Page::of(&self.kafka)]
            }
        }
        let (brokers, prefix) = (self.stack().brokers(), &self.prefix);
        let text = format!("[kafka]\nbrokers = '{brokers}'\ntopic_prefix = '{prefix}'\n");
        ops::config::parse::<Config>(Some(("test", &text)), []).unwrap().kafka
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Runs `splitstream`, which must succeed.
    pub fn run(&self, args: &[&str]) -> String {
        let mut command = self.stack().command(args).unwrap();
        command.env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", &self.prefix).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies definitions, all of which must be accepted.
    pub fn apply(&self, definitions: &str) {
        let file = self.file("definitions.yaml", definitions);
        self.run(&["apply", file.to_str().unwrap(), "--author", "ann", "--reason", "because"]);
    }

    /// Starts an edge with the tokens of [`TOKENS`] and returns when it is ready.
    pub fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let tokens = self.file("tokens.toml", TOKENS).display().to_string();
        self.edge_with(&[&[("SPLITSTREAM_EDGE__TOKEN_FILE", tokens.as_str())][..], settings].concat())
    }

    /// Starts an edge without any setting about tokens.
    pub fn edge_with(&self, settings: &[(&str, &str)]) -> Edge {
        let port_file = self.path("edge.port");
        let _ = std::fs::remove_file(&port_file);
        let port_file_text = port_file.display().to_string();
        static EDGES: AtomicU32 = AtomicU32::new(0);
        let number = EDGES.fetch_add(1, Ordering::Relaxed);
        let spool = self.path(&format!("spool-{number}")).display().to_string();
        let own = [
            ("SPLITSTREAM_SPOOL__DIRECTORY", spool.as_str()),
            ("SPLITSTREAM_KAFKA__TOPIC_PREFIX", self.prefix.as_str()),
            ("SPLITSTREAM_EDGE__PORT_FILE", port_file_text.as_str()),
            ("SPLITSTREAM_PRODUCER__LINGER_MS", "0"),
        ];
        let all = [&own[..], settings].concat();
        let service =
            self.stack().service_with("edge", ServiceOptions { settings: &all, port: None }).unwrap();
        Edge { service, port_file }
    }

    /// Deletes the topic of the definitions and makes it anew, empty, as after a loss or for a fresh start.
    pub fn make_definitions_anew(&self) {
        let topic = format!("{}definitions", self.prefix);
        let brokers = self.stack().brokers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let deleted = runtime.block_on(admin.delete_topics(&[&topic], &AdminOptions::new())).unwrap();
        assert_eq!(deleted, [Ok(topic.clone())]);
        within(30, "the topic is gone", || {
            let metadata = admin.inner().fetch_metadata(None, ANSWER_TIMEOUT).unwrap();
            metadata.topics().iter().all(|other| other.name() != topic)
        });
        self.run(&["topics"]);
    }

    /// The whole name of a topic.
    pub fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The values of all messages of a topic.
    pub fn stored(&self, topic: &str) -> Vec<Vec<u8>> {
        stored(self.stack().brokers(), &self.topic(topic))
    }
}

pub struct Edge {
    pub service: Service,
    port_file: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Edge {
    /// Where clients ask.
    pub fn url(&self) -> String {
        format!("http://{}", std::fs::read_to_string(&self.port_file).unwrap().trim())
    }

    /// Sends a POST with the server token.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, body, &[])
    }

    pub fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let authorization = format!("Bearer {SERVER_TOKEN}");
        let has_own = headers.iter().any(|(name, _)| matches!(*name, "authorization" | "x-api-key"));
        let own = [("authorization", authorization.as_str())];
        let all = [if has_own { &[][..] } else { &own[..] }, headers].concat();
        send("POST", &format!("{}{path}", self.url()), &all, body)
    }

    pub fn single(&self, key: &str, context: &str) -> Answer {
        self.post(&format!("/ofrep/v1/evaluate/flags/{key}"), &format!(r#"{{"context": {context}}}"#))
    }

    pub fn bulk(&self, context: &str, headers: &[(&str, &str)]) -> Answer {
        self.post_with("/ofrep/v1/evaluate/flags", &format!(r#"{{"context": {context}}}"#), headers)
    }

    /// Asks the private port.
    pub fn private(&self, path: &str) -> Answer {
        send("GET", &format!("{}{path}", self.service.url()), &[], "")
    }

    /// The value of a metric whose name and labels begin like this.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.private("/metrics").text;
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit_once(' ')).map_or(0.0, |(_, value)| value.parse().unwrap())
    }
}

/// Sends a request and returns any answer.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_TIMEOUT))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answered = match body {
        "" if method != "POST" => agent.run(request.body(()).unwrap()),
        _ => agent.run(request.body(body.to_owned()).unwrap()),
    };
    let mut response = answered.unwrap();
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let status = response.status().as_u16();
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    Answer { status, headers, text }
}

/// Waits until `is_so` holds.
pub fn within(seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads all messages of a topic with a client that is not the platform's.
fn stored(brokers: &str, topic: &str) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT).unwrap();
    let mut from = TopicPartitionList::new();
    let mut open = std::collections::BTreeSet::new();
    for partition in metadata.topics()[0].partitions() {
        from.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        open.insert(partition.id());
    }
    consumer.assign(&from).unwrap();
    let mut found = Vec::new();
    while !open.is_empty() {
        match consumer.poll(ANSWER_TIMEOUT).expect("the topic has an end") {
            Ok(message) => found.push(message.payload().unwrap_or_default().to_vec()),
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
            }
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// Reads an event stream, event by event.
pub struct EventStream {
    reader: std::io::BufReader<std::net::TcpStream>,
}

impl EventStream {
    /// Opens the stream at `path` of the edge, whatever is in it.
    pub fn open(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> EventStream {
        use std::io::{BufRead, Write};
        let url = edge.url();
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n").unwrap();
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n").unwrap();
        }
        write!(stream, "\r\n").unwrap();
        let mut reader = std::io::BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        EventStream { reader }
    }

    /// The next event with its id and data; comments and the chunks' sizes are skipped. `None` at the end.
    pub fn next(&mut self) -> Option<(String, Value)> {
        use std::io::BufRead;
        let mut id = String::new();
        loop {
            let mut line = String::new();
            // A chunk of no bytes ends the answer; the connection stays open for another request.
            if self.reader.read_line(&mut line).unwrap() == 0 || line == "0\r\n" {
                return None;
            }
            if let Some(own) = line.strip_prefix("id: ") {
                id = own.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((id, serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// Whether nothing but comments comes for a while.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        use std::io::BufRead;
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.reader.get_ref().set_read_timeout(Some(left)).unwrap();
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(_) if line.starts_with("data: ") => return false,
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.reader.get_ref().set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        true
    }
}

/// A file of this package.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
