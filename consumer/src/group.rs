//! Membership of the consumer group: which partitions are ours, and a worker thread for each. A partition
//! given is split off, held still and handed to its worker, which finds out by itself where to go on; one
//! taken away is let go only after its worker has ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Settings;
use crate::fetch::PartitionQueue;
use crate::metrics::Metrics;

/// Messages taken from librdkafka in one call; decoded and appended together.
const FETCH_MESSAGES_MAX: usize = 10_000;

pub type GroupConsumer = BaseConsumer<Group>;

/// Starts a worker's thread for a partition of a topic.
pub type StartWorker =
    Box<dyn Fn(Arc<GroupConsumer>, Assigned, Stop) -> std::io::Result<JoinHandle<()>> + Send + Sync>;

/// A partition that has become ours.
pub struct Assigned {
    pub topic: String,
    pub partition: i32,
    pub queue: PartitionQueue<Group>,
}

/// Tells a worker to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    const REVOKED: u8 = 1;
    const LOST: u8 = 2;

    fn say(&self, what: u8) {
        self.0.fetch_max(what, Ordering::AcqRel);
    }

    pub fn said(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// Somebody else may already work on the partition: nothing may be committed any more.
    pub fn lost(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::LOST
    }
}

struct Running {
    stop: Stop,
    thread: JoinHandle<()>,
}

/// The group's callbacks and the workers they govern.
pub struct Group {
    consumer: OnceLock<Weak<GroupConsumer>>,
    start: StartWorker,
    running: Mutex<HashMap<(String, i32), Running>>,
    metrics: Metrics,
}

/// Joins the group. From here on the caller must poll the consumer, and nothing else, without long pauses.
pub fn join(
    kafka: &ops::config::Kafka,
    settings: &Settings,
    topics: &[String],
    metrics: Metrics,
    start: StartWorker,
) -> Result<Arc<GroupConsumer>> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties().map_err(anyhow::Error::msg)? {
        config.set(name, value);
    }
    config
        .set("group.id", &settings.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Where to start is ClickHouse's to say; an offset out of range is a finding, not something to skip over.
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", settings.session_timeout_ms.get().to_string())
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", (settings.fetch_bytes_per_partition.get() / 1_024).to_string())
        // A full queue is drained within a tenth of a second; by default it is not filled again for a second.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .set("isolation.level", "read_committed");
    let group = Group { consumer: OnceLock::new(), start, running: Mutex::default(), metrics };
    let consumer: Arc<GroupConsumer> =
        Arc::new(config.create_with_context(group).context("making the group's consumer")?);
    // Set once, before the first poll can call back.
    let _ = consumer.context().consumer.set(Arc::downgrade(&consumer));
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).with_context(|| format!("subscribing to {}", topics.join(", ")))?;
    Ok(consumer)
}

impl Group {
    /// How many partitions are ours, and whether a worker ended by itself, which none should.
    pub fn state(&self) -> (usize, Option<String>) {
        let running = self.running();
        let ended = running.iter().find(|(_, running)| running.thread.is_finished());
        (running.len(), ended.map(|((topic, partition), _)| format!("{topic}/{partition}")))
    }

    /// Ends all workers, each with what it has on its way.
    pub fn stop_all(&self) {
        let all: Vec<(String, i32)> = self.running().keys().cloned().collect();
        self.stop(&all, Stop::REVOKED);
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let Some(owner) = self.consumer.get().and_then(Weak::upgrade) else { return };
        let mut assigned = Vec::new();
        for ((topic, partition), _) in partitions.to_topic_map() {
            let queue = PartitionQueue::split(owner.clone(), &topic, partition, FETCH_MESSAGES_MAX);
            assigned.push(Assigned { topic, partition, queue });
        }
        // Any place will do, as it is held still until the worker seeks; asking the group for its offset would not.
        if let Err(error) = partitions.set_all_offsets(Offset::Offset(0)) {
            tracing::warn!(%error, "setting the offsets of an assignment");
        }
        if let Err(error) = consumer.incremental_assign(partitions).and_then(|()| consumer.pause(partitions))
        {
            tracing::error!(%error, "taking an assignment; it will be given again after the next rebalance");
            return;
        }
        for assigned in assigned {
            let place = (assigned.topic.clone(), assigned.partition);
            let stop = Stop::default();
            match (self.start)(owner.clone(), assigned, stop.clone()) {
                Ok(thread) => {
                    self.running().insert(place, Running { stop, thread });
                }
                Err(error) => {
                    tracing::error!(%error, topic = place.0, partition = place.1, "starting a worker")
                }
            }
        }
    }

    fn stop(&self, places: &[(String, i32)], what: u8) {
        let stopped: Vec<Running> = {
            let mut running = self.running();
            places.iter().filter_map(|place| running.remove(place)).collect()
        };
        for worker in &stopped {
            worker.stop.say(what);
        }
        for worker in stopped {
            if worker.thread.join().is_err() {
                tracing::error!("a worker had panicked before it was stopped");
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<(String, i32), Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let places: Vec<(String, i32)> = partitions.to_topic_map().into_keys().collect();
        if code == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(?places, "partitions given");
            self.metrics.rebalances.with_label_values(&["assign"]).inc();
            self.assign(consumer, partitions);
            return;
        }
        let lost = consumer.assignment_lost();
        tracing::info!(?places, lost, "partitions taken away");
        self.metrics.rebalances.with_label_values(&[if lost { "lost" } else { "revoke" }]).inc();
        let began = Instant::now();
        self.stop(&places, if lost { Stop::LOST } else { Stop::REVOKED });
        self.metrics.rebalance_drain.observe(began.elapsed().as_secs_f64());
        if let Err(error) = consumer.incremental_unassign(partitions) {
            tracing::error!(%error, "giving partitions back");
        }
    }
}
