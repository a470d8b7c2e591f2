//! The members of lists, on a compacted topic of one partition. A record is the members of one version of a list; its key
//! names the list and the digest, which the value proves. Nobody has to trust the topic's order: a definition names the
//! digest that it means.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use assignment::{Lists, Members};
use kafka::client::ConnectError;
use kafka::{IgnorePartitionEof, OrderedLog};
use ops::config::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use schemas::Key;
use schemas::topics;

use crate::CLIENT_ID;
use crate::log::LogError;

/// Longest wait for Kafka to take a record.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_TIMEOUT: Duration = Duration::from_millis(200);

/// Returns the members that the topic has now. For commands; a service follows with [`FollowedLists`].
pub async fn read_lists(kafka: &Kafka) -> Result<Lists, LogError> {
    let mut lists = Lists::default();
    let mut log = OrderedLog::open(kafka, topics::LISTS, CLIENT_ID).await?;
    log.catch_up(|record| {
        take(&mut lists, record.offset, record.payload);
        Ok::<_, LogError>(())
    })
    .await?;
    Ok(lists)
}

/// Writes the members of lists.
pub struct ListWriter {
    producer: FutureProducer,
    topic: String,
}

impl ListWriter {
    pub fn open(kafka: &Kafka) -> Result<ListWriter, ConnectError> {
        let producer = kafka::client::client(kafka, CLIENT_ID)?
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.max.bytes", topics::LIST_BYTES_MAX.to_string())
            .set("compression.type", "none")
            .create()
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        Ok(ListWriter { producer, topic: kafka.topic(topics::LISTS) })
    }

    /// Writes the members of a version of the list, before the definition that names their digest.
    pub async fn put(&self, list: &Key, members: &Members) -> Result<()> {
        let bytes = members.to_bytes();
        self.send(list, &members.digest(), Some(&bytes)).await
    }

    /// Removes the members of a version that no definition names any more.
    pub async fn remove(&self, list: &Key, digest: &str) -> Result<()> {
        self.send(list, digest, None).await
    }

    async fn send(&self, list: &Key, digest: &str, bytes: Option<&[u8]>) -> Result<()> {
        let key = format!("{list}/{digest}");
        let mut record = FutureRecord::to(&self.topic).key(&key).partition(0);
        if let Some(bytes) = bytes {
            record = record.payload(bytes);
        }
        let sent = self.producer.send(record, Timeout::After(WRITE_TIMEOUT)).await;
        sent.map_err(|(error, _)| error)
            .with_context(|| format!("writing the members of list `{list}` to topic `{}`", self.topic))?;
        Ok(())
    }
}

/// The members of lists, which a thread keeps up to date.
#[derive(Default)]
pub struct FollowedLists {
    lists: Mutex<Arc<Lists>>,
    /// How many records have brought members.
    arrived: AtomicU64,
    /// Whether the topic has been read to an end that it had.
    caught_up: AtomicBool,
}

impl FollowedLists {
    /// The members that are known now.
    pub fn get(&self) -> Arc<Lists> {
        self.lock().clone()
    }

    /// Whether the topic has been read to an end that it had. Before that, members may be missing that are there.
    pub fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// How many records have brought members: as long as this is the same, so are the members.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// Adds members that were kept elsewhere, for the time in which Kafka is away.
    pub fn add(&self, members: impl IntoIterator<Item = Members>) {
        let mut lists = Lists::clone(&self.lock());
        for members in members {
            lists.insert(members);
        }
        *self.lock() = Arc::new(lists);
        self.arrived.fetch_add(1, Ordering::Release);
    }

    /// Reads the topic until `stop` returns true.
    ///
    /// # Errors
    /// If the topic cannot be followed, for example because it does not exist.
    pub fn follow(&self, kafka: &Kafka, stop: impl Fn() -> bool) -> Result<()> {
        let topic = kafka.topic(topics::LISTS);
        let consumer: BaseConsumer<IgnorePartitionEof> = kafka::client::client(kafka, CLIENT_ID)?
            // librdkafka needs a group name to assign by hand; nobody joins the group or commits to it.
            .set("group.id", "splitstream-lists-follower")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .create_with_context(IgnorePartitionEof)
            .context("making the reader of the lists")?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning)?;
        consumer.assign(&from).with_context(|| format!("assigning `{topic}`"))?;
        while !stop() {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    let (offset, payload) = (message.offset().unsigned_abs(), message.payload());
                    // Whoever uses the lists of before keeps them.
                    let mut lists = Lists::clone(&self.lock());
                    if take(&mut lists, offset, payload.unwrap_or_default()) {
                        *self.lock() = Arc::new(lists);
                        self.arrived.fetch_add(1, Ordering::Release);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.caught_up.store(true, Ordering::Release),
                Some(Err(error)) if is_final(&error) => {
                    return Err(error).with_context(|| format!("reading `{topic}`"));
                }
                Some(Err(error)) => tracing::warn!(%error, topic, "reading the lists"),
                None => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Lists>> {
        // The lists are replaced as a whole, so a panic of one holder leaves them valid.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether reading will not go on by itself: the offset or the topic is gone, or may not be read.
fn is_final(error: &KafkaError) -> bool {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return true;
    }
    use RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            AutoOffsetReset
                | OffsetOutOfRange
                | TopicAuthorizationFailed
                | UnknownTopic
                | UnknownTopicOrPartition
        )
    )
}

/// Takes the members of a record. Returns false for a record that has none: one that removes members, which a reader keeps
/// until it starts again, or one whose bytes are no members.
fn take(lists: &mut Lists, offset: u64, payload: &[u8]) -> bool {
    if payload.is_empty() {
        // The list without members has no bytes, and every reader knows it.
        return false;
    }
    match Members::from_bytes(payload) {
        // Those that were there are read again, after the reader was opened again.
        Ok(members) => lists.insert(members),
        Err(error) => {
            tracing::warn!(offset, %error, "a record of the lists has no members; skipped");
            false
        }
    }
}
