//! A real Kafka for the tests of this package. Tests that run at the same time share it, each with its own
//! topics. The fixture also runs the program as a person does and reads the messages of a topic.

// Each test binary uses only a part of this module.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use local::{Options, Server, Stack};
use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A Kafka with the platform's topics under a prefix, and a directory for files.
pub struct KafkaFixture {
    cluster: Arc<SharedKafka>,
    prefix: String,
    files: TempDir,
}

struct SharedKafka {
    stack: Stack,
    _directory: TempDir,
}

/// The exit code and output of a program that has ended.
#[derive(Debug)]
pub struct ProgramOutput {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A message that is stored in a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredMessage {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Vec<u8>,
}

impl KafkaFixture {
    /// Starts or shares Kafka and creates topics whose names begin with `name`.
    pub fn new(name: &str) -> KafkaFixture {
        let fixture = KafkaFixture::without_topics(name);
        let made = fixture.producer(&["topics"]);
        assert_eq!(made.code, 0, "{made:?}");
        fixture
    }

    pub fn without_topics(name: &str) -> KafkaFixture {
        static SHARED: Mutex<Weak<SharedKafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = shared.upgrade().unwrap_or_else(|| {
            let directory = tempfile::tempdir().unwrap();
            let options =
                Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
            Arc::new(SharedKafka { stack: Stack::up(options).unwrap(), _directory: directory })
        });
        *shared = Arc::downgrade(&cluster);
        KafkaFixture { cluster, prefix: format!("{name}."), files: tempfile::tempdir().unwrap() }
    }

    /// Runs `splitstream` with these arguments.
    pub fn producer(&self, args: &[&str]) -> ProgramOutput {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        ProgramOutput {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = local::programs::splitstream().unwrap();
        command.args(args).envs(self.cluster.stack.environment());
        command.env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", &self.prefix);
        command
    }

    /// Runs `splitstream apply` on `definitions`, written to a file called `name`.
    pub fn apply(&self, name: &str, definitions: &str, more: &[&str]) -> ProgramOutput {
        let file = self.file(name, definitions);
        let args = ["apply", file.to_str().unwrap(), "--author", "ann", "--reason", "because"];
        self.producer(&[&args[..], more].concat())
    }

    /// Applies `definitions`, all of which must be accepted.
    pub fn accept(&self, name: &str, definitions: &str) {
        let applied = self.apply(name, definitions, &[]);
        assert_eq!(applied.code, 0, "{applied:?}");
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// With which the names of the topics begin.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn stack(&self) -> &Stack {
        &self.cluster.stack
    }

    /// The settings that lead to these topics.
    pub fn kafka(&self) -> Kafka {
        kafka(self.stack().brokers(), &self.prefix)
    }

    /// Reads all messages of a topic, by partition and offset.
    pub fn stored(&self, topic: &str) -> Vec<StoredMessage> {
        stored(self.stack().brokers(), &format!("{}{topic}", self.prefix))
    }

    /// The directory of a topic's partition on the broker's disk.
    pub fn partition_directory(&self, topic: &str, partition: i32) -> PathBuf {
        let data = self.stack().dir().join("kafka-1");
        find(&data, &format!("{}{topic}-{partition}", self.prefix)).expect("the partition is on the disk")
    }
}

/// A transaction of another producer.
pub struct Transaction {
    producer: BaseProducer,
    topic: String,
}

impl Transaction {
    /// Begins the transaction and writes its first record.
    pub fn open(fixture: &KafkaFixture, topic: &str, first: &[u8]) -> Transaction {
        let topic = format!("{}{topic}", fixture.prefix);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", fixture.stack().brokers())
            .set("transactional.id", &topic)
            .create()
            .unwrap();
        producer.init_transactions(ANSWER_TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        let transaction = Transaction { producer, topic };
        transaction.write(first);
        transaction
    }

    /// Writes a record and waits until the broker has it.
    pub fn write(&self, value: &[u8]) {
        let record = BaseRecord::to(&self.topic).partition(0).key("stranger").payload(value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(ANSWER_TIMEOUT).unwrap();
    }

    pub fn commit(self) {
        self.producer.commit_transaction(ANSWER_TIMEOUT).unwrap();
    }

    pub fn abort(self) {
        self.producer.abort_transaction(ANSWER_TIMEOUT).unwrap();
    }
}

/// The section `[kafka]` of a configuration.
pub fn kafka(brokers: &str, prefix: &str) -> Kafka {
    #[derive(serde::Deserialize)]
    struct Config {
        kafka: Kafka,
    }
    impl ops::config::Config for Config {
        fn pages(&self) -> Vec<ops::config::Page> {
            vec![ops::config::Page::of(&self.kafka)]
        }
    }
    let text = format!("[kafka]\nbrokers = '{brokers}'\ntopic_prefix = '{prefix}'\n");
    ops::config::parse::<Config>(Some(("test", &text)), []).unwrap().kafka
}

/// Reads all messages of a topic with a client that is not the platform's.
pub fn stored(brokers: &str, topic: &str) -> Vec<StoredMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT).unwrap();
    let mut from = TopicPartitionList::new();
    let mut open = BTreeSet::new();
    for partition in metadata.topics()[0].partitions() {
        from.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        open.insert(partition.id());
    }
    consumer.assign(&from).unwrap();
    let mut found = Vec::new();
    while !open.is_empty() {
        let message = match consumer.poll(ANSWER_TIMEOUT).expect("the topic has an end") {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        found.push(StoredMessage {
            partition: message.partition(),
            offset: message.offset(),
            key: String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap(),
            value: message.payload().unwrap_or_default().to_vec(),
        });
    }
    found.sort();
    found
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
        if let Some(found) = find(&path, name) {
            return Some(found);
        }
    }
    None
}
