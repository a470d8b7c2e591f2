//! Membership of the consumer group: the partitions assigned to this process, with a worker thread for each. An
//! assigned partition is paused and handed to its worker, which finds out where to resume. A revoked partition is
//! given back once its worker has ended.

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

use crate::config::ConsumerSection;
use crate::metrics::Metrics;
use crate::pipeline::fetch::PartitionQueue;

/// Messages fetched in one call.
const FETCH_MESSAGES_MAX: usize = 10_000;

pub type GroupConsumer = BaseConsumer<Group>;

/// Starts a worker's thread for a partition of a topic.
pub type StartWorker =
    Box<dyn Fn(Arc<GroupConsumer>, Assigned, Stop) -> std::io::Result<JoinHandle<()>> + Send + Sync>;

/// A partition that has been assigned to this process.
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

    fn request(&self, what: u8) {
        self.0.fetch_max(what, Ordering::AcqRel);
    }

    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// Somebody else may already work on the partition. Nothing may be committed any more.
    pub fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::LOST
    }
}

struct Running {
    stop: Stop,
    thread: JoinHandle<()>,
}

/// The group's callbacks, and the workers that they start and stop.
pub struct Group {
    consumer: OnceLock<Weak<GroupConsumer>>,
    start: StartWorker,
    running: Mutex<HashMap<(String, i32), Running>>,
    /// Why an assigned partition has no worker. Nobody would take its messages.
    failed: OnceLock<String>,
    /// Whether a worker needs its partition to be assigned again, and how far that is.
    rejoins: AtomicU8,
    metrics: Metrics,
}

/// Joins the group. From here on the caller must poll the consumer without long pauses.
pub fn join(
    kafka: &ops::config::Kafka,
    settings: &ConsumerSection,
    topics: &[String],
    metrics: Metrics,
    start: StartWorker,
) -> Result<Arc<GroupConsumer>> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties().map_err(ops::config::Error::from)? {
        config.set(name, value);
    }
    config
        .set("group.id", &settings.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // ClickHouse says where to start. An offset out of range is an error, not something to skip.
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", settings.session_timeout_ms.get().to_string())
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", (settings.fetch_bytes_per_partition.get() / 1_024).to_string())
        // A full queue is drained within a tenth of a second. By default it is not filled again for a second.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .set("isolation.level", "read_committed")
        // A partition that was added is found within this; by default within five minutes.
        .set("topic.metadata.refresh.interval.ms", "30000")
        // Must stay off, see `PartitionQueue::position`.
        .set("enable.partition.eof", "false");
    let group = Group {
        consumer: OnceLock::new(),
        start,
        running: Mutex::default(),
        failed: OnceLock::new(),
        rejoins: AtomicU8::new(Group::SETTLED),
        metrics,
    };
    let consumer: Arc<GroupConsumer> =
        Arc::new(config.create_with_context(group).context("making the group's consumer")?);
    // Set once, before the first poll can call back.
    let _ = consumer.context().consumer.set(Arc::downgrade(&consumer));
    subscribe(&consumer, topics)?;
    Ok(consumer)
}

fn subscribe(consumer: &GroupConsumer, topics: &[String]) -> Result<()> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).with_context(|| format!("subscribing to {}", topics.join(", ")))
}

/// Leaves the group if a worker has asked for it, and joins it again once every partition has been given back.
/// Then all of them are assigned again. Must be called by the thread that polls.
pub fn rejoin_if_asked(consumer: &GroupConsumer, topics: &[String]) -> Result<()> {
    let group = consumer.context();
    match group.rejoins.load(Ordering::Acquire) {
        Group::ASKED => {
            tracing::warn!(
                "leaving the group and joining it again, to fetch a partition from where it goes on"
            );
            group.metrics.rebalances.with_label_values(&["rejoin"]).inc();
            consumer.unsubscribe();
            group.rejoins.store(Group::LEAVING, Ordering::Release);
        }
        Group::LEAVING if group.running().is_empty() => {
            subscribe(consumer, topics)?;
            group.rejoins.store(Group::SETTLED, Ordering::Release);
        }
        _ => {}
    }
    Ok(())
}

impl Group {
    const SETTLED: u8 = 0;
    const ASKED: u8 = 1;
    const LEAVING: u8 = 2;

    /// The number of assigned partitions, or why one of them has no worker.
    pub fn state(&self) -> Result<usize, String> {
        if let Some(failed) = self.failed.get() {
            return Err(failed.clone());
        }
        let running = self.running();
        match running.iter().find(|(_, running)| running.thread.is_finished()) {
            Some(((topic, partition), _)) => {
                Err(format!("the worker of {topic}/{partition} ended by itself"))
            }
            None => Ok(running.len()),
        }
    }

    /// After a fetch out of range, librdkafka takes no seek of the partition until it is assigned again.
    pub fn ask_to_rejoin(&self) {
        // While the group is being left, there is nothing more to ask for.
        let _ =
            self.rejoins.compare_exchange(Self::SETTLED, Self::ASKED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends all workers. Each finishes what it has in flight.
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
        // Paused before it is assigned, so that nothing is fetched from offset 0, which the broker often has no
        // more. The worker seeks to where the partition resumes.
        let taken = partitions
            .set_all_offsets(Offset::Offset(0))
            .and_then(|()| consumer.pause(partitions))
            .and_then(|()| consumer.incremental_assign(partitions))
            .and_then(|()| consumer.pause(partitions));
        if let Err(error) = taken {
            self.fail(format!("partitions that were given could not be taken: {error}"));
            return;
        }
        for assigned in assigned {
            let place = (assigned.topic.clone(), assigned.partition);
            let stop = Stop::default();
            match (self.start)(owner.clone(), assigned, stop.clone()) {
                Ok(thread) => {
                    self.running().insert(place, Running { stop, thread });
                }
                Err(error) => self.fail(format!("starting the worker of {}/{}: {error}", place.0, place.1)),
            }
        }
    }

    fn stop(&self, places: &[(String, i32)], what: u8) {
        let stopped: Vec<Running> = {
            let mut running = self.running();
            places.iter().filter_map(|place| running.remove(place)).collect()
        };
        for worker in &stopped {
            worker.stop.request(what);
        }
        for worker in stopped {
            if worker.thread.join().is_err() {
                tracing::error!("a worker had panicked before it was stopped");
            }
        }
    }

    /// Ends the process at the next poll. A partition without a worker would stand still unnoticed.
    fn fail(&self, why: String) {
        tracing::error!("{why}");
        // Only the first reason is reported.
        let _ = self.failed.set(why);
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
