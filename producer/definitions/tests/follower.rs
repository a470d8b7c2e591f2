//! The follower of the definitions log on a real broker. The last offsets of the log may be no records; the
//! follower, and the consumer with it, once waited for them for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use definitions::Follower;
use local::{Options, Server, Stack};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::definition::{Change, RULE_VERSION};
use schemas::{Uuid, avro};

const TIMEOUT: Duration = Duration::from_secs(60);

struct Broker {
    stack: Stack,
    _directory: tempfile::TempDir,
}

impl Broker {
    fn start() -> Broker {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
        Broker { stack: Stack::up(options).unwrap(), _directory: directory }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.stack.brokers()).create().unwrap()
    }

    /// Creates a log for one case.
    async fn log(&self, case: &str) -> TestLog {
        let topic = format!("{case}.definitions");
        let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
        let made = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        made[0].as_ref().unwrap();
        let settings =
            serde_json::json!({"brokers": self.stack.brokers(), "topic_prefix": format!("{case}.")});
        let producer = ClientConfig::new()
            .set("bootstrap.servers", self.stack.brokers())
            .set("transactional.id", &topic)
            .create::<BaseProducer>()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        TestLog { topic, kafka: serde_json::from_value(settings).unwrap(), producer }
    }
}

struct TestLog {
    topic: String,
    kafka: ops::config::Kafka,
    producer: BaseProducer,
}

impl TestLog {
    fn begin(&self, values: &[&[u8]]) -> &BaseProducer {
        self.producer.begin_transaction().unwrap();
        for value in values {
            let record = BaseRecord::<str, [u8]>::to(&self.topic).partition(0).payload(value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(TIMEOUT).unwrap();
        &self.producer
    }

    /// Follows the log until it has caught up. Returns the current versions, or the reason why it could not.
    fn follow(&self) -> Result<Vec<u64>, String> {
        let follower = Arc::new(Follower::default());
        let caught_up = AtomicBool::new(false);
        let began = Instant::now();
        follower
            .clone()
            .follow(
                &self.kafka,
                || caught_up.load(Ordering::Relaxed) || began.elapsed() > TIMEOUT,
                || caught_up.store(true, Ordering::Relaxed),
            )
            .map_err(|error| format!("{error:#}"))?;
        assert!(caught_up.load(Ordering::Relaxed), "never caught up with {}", self.topic);
        let log = follower.lock();
        Ok(log.definitions.iter().map(|accepted| accepted.version).collect())
    }
}

fn layer(key: &str) -> Vec<u8> {
    avro::encode_change(&Change {
        change_id: Uuid::from_u128(7),
        rule_version: RULE_VERSION,
        kind: "layer".to_owned(),
        key: key.to_owned(),
        based_on: 0,
        definition: format!(r#"{{"key":"{key}"}}"#),
        author: "ann".to_owned(),
        reason: "test".to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_follower_catches_up_whatever_the_log_ends_with() {
    let broker = Broker::start();
    let (first, second) = (layer("first"), layer("second"));

    let log = broker.log("empty").await;
    assert_eq!(log.follow(), Ok(vec![]));

    let log = broker.log("aborted").await;
    log.begin(&[b"not for anybody"]).abort_transaction(TIMEOUT).unwrap();
    assert_eq!(log.follow(), Ok(vec![]));
    log.begin(&[&first]).commit_transaction(TIMEOUT).unwrap();
    log.begin(&[&second]).abort_transaction(TIMEOUT).unwrap();
    assert_eq!(log.follow(), Ok(vec![3]));

    // The marker of the first transaction has offset 1.
    let log = broker.log("committed").await;
    log.begin(&[&first]).commit_transaction(TIMEOUT).unwrap();
    log.begin(&[b"no change", &second]).commit_transaction(TIMEOUT).unwrap();
    assert_eq!(log.follow(), Ok(vec![1, 4]));

    let log = broker.log("open").await;
    log.begin(&[&first]).commit_transaction(TIMEOUT).unwrap();
    let open = log.begin(&[&second]);
    assert_eq!(log.follow(), Ok(vec![1]));
    open.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(log.follow(), Ok(vec![1, 3]));

    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&log.topic, 0, Offset::Offset(2)).unwrap();
    broker.admin().delete_records(&before, &AdminOptions::new()).await.unwrap();
    assert_eq!(
        log.follow(),
        Err("topic `open.definitions` begins at offset 2: older changes were deleted; its retention.ms and \
             retention.bytes must be -1, and the topic must be restored from a copy"
            .to_owned())
    );
}
