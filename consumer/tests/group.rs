//! Membership of the group, on librdkafka's mock brokers. A partition whose fetch was out of range is fetched
//! again only after it has been assigned again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use consumer::config::ConsumerSection;
use consumer::metrics::Metrics;
use consumer::pipeline::group::{self, Assigned, GroupConsumer, Stop};
use prometheus::Registry;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "exposures";
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A partition as its worker sees it.
struct Given {
    consumer: Arc<GroupConsumer>,
    assigned: Assigned,
}

impl Given {
    /// Fetches from `offset` on, as a worker does. It takes a moment after the assignment until a seek is possible.
    fn seek(&self, offset: i64) {
        let begun = Instant::now();
        while let Err(error) = self.try_seek(offset) {
            assert!(begun.elapsed() < PATIENCE, "seeking to {offset}: {error}");
            thread::sleep(Duration::from_millis(20));
        }
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(TOPIC, 0);
        self.consumer.resume(&partitions).unwrap();
    }

    fn try_seek(&self, offset: i64) -> Result<(), KafkaError> {
        self.consumer.seek(TOPIC, 0, Offset::Offset(offset), ANSWERS_WITHIN)
    }

    /// The offsets of the messages that come, until `enough`.
    fn offsets(&mut self, enough: usize) -> Result<Vec<u64>, RDKafkaErrorCode> {
        let (begun, mut offsets) = (Instant::now(), Vec::new());
        while offsets.len() < enough {
            assert!(begun.elapsed() < PATIENCE, "{offsets:?} came and no more");
            for message in self.assigned.queue.fetch(Duration::from_millis(50)).iter() {
                offsets.push(message?.offset);
            }
        }
        Ok(offsets)
    }
}

/// Joins the group. Every assigned partition comes over the channel.
fn join(brokers: &str) -> (Arc<GroupConsumer>, Receiver<Given>) {
    let kafka = serde_json::from_value(serde_json::json!({ "brokers": brokers })).unwrap();
    // After a member has left, the mock brokers wait for almost a session.
    let settings: ConsumerSection =
        serde_json::from_value(serde_json::json!({"session_timeout_ms": 6_000})).unwrap();
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let (give, given) = mpsc::channel();
    let start = move |consumer: Arc<GroupConsumer>, assigned, stop: Stop| {
        give.send(Given { consumer, assigned }).unwrap();
        thread::Builder::new().spawn(move || {
            while !stop.is_requested() {
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let consumer = group::join(&kafka, &settings, &[TOPIC.to_owned()], metrics, Box::new(start)).unwrap();
    (consumer, given)
}

/// Ends the polling, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_partition_that_was_out_of_range_is_assigned_anew() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    for number in 0..3 {
        let payload = format!("message {number}");
        producer.send(BaseRecord::<str, str>::to(TOPIC).partition(0).payload(&payload)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();

    let (consumer, given) = join(&brokers);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                if let Some(Err(error)) = consumer.poll(Duration::from_millis(20)) {
                    eprintln!("from the broker: {error}");
                }
                group::rejoin_if_asked(&consumer, &[TOPIC.to_owned()]).unwrap();
            }
            consumer.context().stop_all();
        });
        let _ends = Ends(&ended);
        let mut first = given.recv_timeout(PATIENCE).unwrap();
        first.seek(1_000);
        assert_eq!(first.offsets(1), Err(RDKafkaErrorCode::AutoOffsetReset));
        // The reason for leaving and joining again: a seek is refused.
        assert_eq!(first.try_seek(1), Err(KafkaError::Seek("Local: Erroneous state".to_owned())));

        consumer.context().ask_to_rejoin();
        drop(first);
        let mut second = given.recv_timeout(PATIENCE).unwrap();
        second.seek(1);
        assert_eq!(second.assigned.queue.position(), None);
        assert_eq!(second.offsets(2), Ok(vec![1, 2]));
        assert_eq!(second.assigned.queue.position(), Some(3));
        // A fetch at the end of the partition brings nothing, and is no message there.
        assert!(second.assigned.queue.fetch(Duration::from_millis(500)).is_empty());
        assert_eq!(second.assigned.queue.position(), Some(3));
        assert_eq!(consumer.context().state(), Ok(1));
        drop(second);
    });
}
