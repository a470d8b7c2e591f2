//! The members of lists, on a compacted topic of one partition. A record is the members of one version of a list; its key
//! names the list and the digest, which the value proves. Nobody has to trust the topic's order: a definition names the
//! digest that it means.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use assignment::{ListSource, Lists, Members};
use kafka::client::ConnectError;
use kafka::{IgnorePartitionEof, OrderedLog};
use ops::config::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use schemas::definition::Definitions;
use schemas::{Key, topics};

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
        take(&mut lists, &BTreeSet::new(), record.offset, record.payload);
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
    held: Mutex<Held>,
    /// How many records have brought members.
    arrived: AtomicU64,
    /// Whether the topic has been read to an end that it had.
    caught_up: AtomicBool,
    /// Whether the topic is to be read again, as members are named again that were dropped.
    again: AtomicBool,
}

#[derive(Default)]
struct Held {
    lists: Arc<Lists>,
    /// The digests of members that were dropped, each of 64 bytes. A record that brings them again is left alone.
    dropped: BTreeSet<String>,
}

impl Held {
    /// Takes the members of a record. Whoever uses the lists of before keeps them.
    fn take(&mut self, offset: u64, payload: &[u8]) -> bool {
        take(Arc::make_mut(&mut self.lists), &self.dropped, offset, payload)
    }
}

impl FollowedLists {
    /// The members that are known now.
    pub fn get(&self) -> Arc<Lists> {
        self.lock().lists.clone()
    }

    /// Drops the members that these definitions do not use any more, and has the topic read again if they name members that
    /// were dropped. Members that no version names yet are kept: their definition may be on its way.
    pub fn keep(&self, definitions: &Definitions) {
        let mut held = self.lock();
        let superseded = superseded(definitions, &held.lists);
        if !superseded.is_empty() {
            Arc::make_mut(&mut held.lists).retain(|digest| !superseded.contains(digest));
            held.dropped.extend(superseded);
        }
        for list in definitions.lists() {
            if held.dropped.remove(&list.members_sha256) {
                self.again.store(true, Ordering::Release);
            }
        }
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
        let mut held = self.lock();
        let lists = Arc::make_mut(&mut held.lists);
        for members in members {
            lists.insert(members);
        }
        drop(held);
        self.arrived.fetch_add(1, Ordering::Release);
    }

    /// Reads the topic from its beginning until `stop` returns true, or until it has to be read again. `arrived` is called after
    /// members have arrived, and once the topic has been read to an end that it had.
    ///
    /// # Errors
    /// If the topic cannot be followed, for example because it does not exist.
    pub fn follow(&self, kafka: &Kafka, stop: impl Fn() -> bool, arrived: impl Fn()) -> Result<()> {
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
        while !stop() && !self.again.swap(false, Ordering::AcqRel) {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    let (offset, payload) = (message.offset().unsigned_abs(), message.payload());
                    if self.lock().take(offset, payload.unwrap_or_default()) {
                        self.arrived.fetch_add(1, Ordering::Release);
                        arrived();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let is_first = !self.caught_up.swap(true, Ordering::AcqRel);
                    if is_first {
                        arrived();
                    }
                }
                Some(Err(error)) if is_final(&error) => {
                    return Err(error).with_context(|| format!("reading `{topic}`"));
                }
                Some(Err(error)) => tracing::warn!(%error, topic, "reading the lists"),
                None => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // Each change of the maps is one step, so a panic of one holder leaves them valid.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digests of the members that a version of a list names or has named, and that are in force for none.
fn superseded(definitions: &Definitions, lists: &Lists) -> BTreeSet<String> {
    let source = ListSource { definitions, lists };
    let (mut named, mut in_force) = (BTreeSet::new(), BTreeSet::new());
    for list in definitions.lists() {
        named.extend(definitions.list_versions(&list.key).map(|version| version.members_sha256.as_str()));
        in_force.extend(source.in_force(&list.key).map(|(digest, _)| digest));
    }
    let digests = lists.digests();
    digests
        .filter(|digest| named.contains(digest) && !in_force.contains(*digest))
        .map(str::to_owned)
        .collect()
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
fn take(lists: &mut Lists, dropped: &BTreeSet<String>, offset: u64, payload: &[u8]) -> bool {
    if payload.is_empty() {
        // The list without members has no bytes, and every reader knows it.
        return false;
    }
    match Members::from_bytes(payload) {
        Ok(members) if !dropped.is_empty() && dropped.contains(&members.digest()) => false,
        // Those that were there are read again, after the reader was opened again.
        Ok(members) => lists.insert(members),
        Err(error) => {
            tracing::warn!(offset, %error, "a record of the lists has no members; skipped");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::definition::{Definition, List};
    use schemas::{Micros, Uuid};

    use super::*;

    /// The definitions after list `testers` has had the members of each of these in turn.
    fn definitions(versions: &[&Members]) -> Definitions {
        let mut definitions = Definitions::default();
        for (offset, members) in versions.iter().enumerate() {
            let list = List {
                key: testers(),
                owner: String::new(),
                description: String::new(),
                unit_type: Key::new("user").unwrap(),
                salt: Some(testers()),
                members_sha256: members.digest(),
                members: members.len() as u64,
            };
            let id = Uuid::from_u128(offset as u128 + 1);
            let change = definitions.change_to(&Definition::List(list), id, "ann", "test");
            definitions.apply(offset as u64, Micros::EPOCH, &change).unwrap().unwrap();
        }
        definitions
    }

    fn testers() -> Key {
        Key::new("testers").unwrap()
    }

    fn members(id: &str) -> Members {
        Members::of_ids(&testers(), [id]).unwrap()
    }

    fn held(followed: &FollowedLists) -> BTreeSet<String> {
        followed.get().digests().map(str::to_owned).collect()
    }

    fn digests(members: &[&Members]) -> BTreeSet<String> {
        members.iter().map(|members| members.digest()).collect()
    }

    #[test]
    fn members_that_no_definition_uses_any_more_are_dropped() {
        let (a, b, c) = (members("a"), members("b"), members("c"));
        let followed = FollowedLists::default();
        followed.add([a.clone(), b.clone()]);
        // Nothing names the others yet.
        followed.keep(&definitions(&[&a]));
        assert_eq!(held(&followed), digests(&[&a, &b]));
        followed.keep(&definitions(&[&a, &b]));
        assert_eq!((held(&followed), followed.get().bytes()), (digests(&[&b]), 8));
        // Those of the new version are not here: the ones before it are in force.
        followed.keep(&definitions(&[&a, &b, &c]));
        assert_eq!(held(&followed), digests(&[&b]));
        assert!(!followed.again.load(Ordering::Acquire));
    }

    #[test]
    fn members_that_are_named_again_are_read_again() {
        let (a, b) = (members("a"), members("b"));
        let followed = FollowedLists::default();
        followed.add([a.clone(), b.clone()]);
        followed.keep(&definitions(&[&a, &b]));
        let arrives = |members: &Members| {
            let held = followed.lock();
            let mut lists = Lists::clone(&held.lists);
            take(&mut lists, &held.dropped, 0, &members.to_bytes())
        };
        assert!(!arrives(&a), "an old record of the topic brings nothing back");
        followed.keep(&definitions(&[&a, &b, &a]));
        assert!(followed.again.load(Ordering::Acquire) && arrives(&a));
    }
}
