//! Follows the log of definitions from its beginning. It keeps every version of every definition and the
//! verdict on every change. Each process follows the whole log by itself, without a group or commits. A
//! [recording](Follower::recording) follower also keeps the accepted changes as they were read, so that they can be
//! folded again without Kafka, and when the brokers last answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kafka::{IgnorePartitionEof, TopicId};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use schemas::definition::Definitions;
use schemas::{Micros, avro};

use crate::CLIENT_ID;

const POLL_TIMEOUT: Duration = Duration::from_millis(200);
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often a recording follower asks the brokers whether they are there, and the time that they have. Nothing is read
/// meanwhile.
const CONTACT_INTERVAL: Duration = Duration::from_secs(2);
const CONTACT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it asks whether the topic is still the same one.
const TOPIC_ID_INTERVAL: Duration = Duration::from_secs(30);

/// The state of the log as far as it has been read.
#[derive(Default)]
pub struct FollowedLog {
    pub definitions: Definitions,
    /// The reason for each refused change, by offset; empty if the change was accepted.
    pub verdicts: BTreeMap<u64, String>,
    /// Empty unless the follower records.
    pub recorded: Recorded,
    /// The offset to read next.
    next: u64,
    /// Whether a waiter is to look although nothing was read.
    woken: bool,
}

/// What a recording follower keeps.
#[derive(Clone, Default)]
pub struct Recorded {
    /// Kafka's id of the topic; `None` until it is known, and if the brokers give topics no ids.
    pub topic_id: Option<TopicId>,
    /// Whether the position has reached the end that the log had at the start.
    pub caught_up: bool,
    /// The accepted changes in order.
    pub changes: Vec<RecordedChange>,
    /// When the brokers last answered.
    pub answered: Option<Instant>,
}

/// An accepted change as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedChange {
    pub offset: u64,
    /// The time by the broker's clock, the only clock of the log; the epoch if it gave none.
    pub time: Micros,
    pub payload: Arc<[u8]>,
}

/// The log, which a thread keeps up to date.
#[derive(Default)]
pub struct Follower {
    log: Mutex<FollowedLog>,
    advanced: Condvar,
    recording: bool,
}

/// A client that reads the log.
type Reader = BaseConsumer<IgnorePartitionEof>;

impl Follower {
    /// A follower that keeps [`Recorded`].
    pub fn recording() -> Follower {
        Follower { recording: true, ..Follower::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, FollowedLog> {
        // Readers do not change the log, so a panic of one leaves it valid.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the log has been read past `offset`, or until it is [woken](Follower::wake), for up to `timeout`, and returns
    /// the log as it then is.
    pub fn wait_past(&self, offset: u64, timeout: Duration) -> MutexGuard<'_, FollowedLog> {
        let deadline = Instant::now() + timeout;
        let mut log = self.lock();
        while log.next <= offset && !std::mem::take(&mut log.woken) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            log = self.advanced.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        log
    }

    /// Ends the wait of one waiter: what it waits for besides the log has happened.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.advanced.notify_all();
    }

    /// Forgets what was read, before the log is followed again from its beginning.
    pub fn restart(&self) {
        *self.lock() = FollowedLog::default();
    }

    /// Reads the log until `stop` returns true. `caught_up` is called once, when the position has reached the
    /// end that the log had at the start. The position counts, not the records: the last offsets may be
    /// transaction markers or records of an aborted transaction, which no reader gets. Records from the first
    /// one of an open transaction on are no part of the log until that transaction ends.
    ///
    /// # Errors
    /// If the log cannot be followed correctly: this build does not know a rule, or the beginning of the log or
    /// the next offset is gone.
    pub fn follow(
        self: Arc<Self>,
        kafka: &ops::config::Kafka,
        stop: impl Fn() -> bool,
        mut caught_up: impl FnMut(),
    ) -> Result<()> {
        let topic = kafka.topic(schemas::topics::DEFINITIONS);
        let consumer: Reader = kafka::client::client(kafka, CLIENT_ID)?
            // librdkafka needs a group name to assign by hand; nobody joins the group or commits to it.
            .set("group.id", "splitstream-definitions-follower")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create_with_context(IgnorePartitionEof)
            .context("making the reader of the definitions log")?;
        let Some(end_at_start) = end(&consumer, &topic, &stop)? else { return Ok(()) };
        let mut contact = match self.recording {
            true => Some(Contact::open(&consumer, &topic)?),
            false => None,
        };
        if let Some(contact) = &contact {
            self.lock().recorded.topic_id = contact.topic_id;
        }
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning)?;
        // Assigned only after the end was read, so that a reported end of the partition is that one or a later
        // one.
        consumer.assign(&from).with_context(|| format!("assigning `{topic}`"))?;

        let mut behind = true;
        let mut at_end = false;
        while !stop() {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    let offset =
                        u64::try_from(message.offset()).context("a record of the log has no offset")?;
                    self.apply_record(offset, time(&message), message.payload().unwrap_or_default())?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
                Some(Err(error)) if is_offset_gone(&error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "`{topic}` no longer has what comes next: it was recreated or cut; start again"
                        )
                    });
                }
                Some(Err(error)) => tracing::warn!(%error, topic, "reading the definitions log"),
                None => {}
            }
            if behind && (at_end || self.lock().next >= end_at_start) {
                behind = false;
                let mut log = self.lock();
                log.recorded.caught_up = true;
                log.recorded.answered = Some(Instant::now());
                drop(log);
                self.advanced.notify_all();
                caught_up();
            }
            if let Some(contact) = contact.as_mut().filter(|_| !behind)
                && contact.ask_if_due(&consumer, &topic)?
            {
                self.lock().recorded.answered = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn apply_record(&self, offset: u64, time: Option<Micros>, payload: &[u8]) -> Result<()> {
        let mut log = self.lock();
        match avro::decode_change(payload) {
            Ok(change) => {
                let time = time.unwrap_or(log.definitions.time());
                let verdict = log.definitions.apply(offset, time, &change)?;
                if self.recording && verdict.is_ok() {
                    log.recorded.changes.push(RecordedChange { offset, time, payload: payload.into() });
                }
                let refusal = verdict.err().map(|refusal| refusal.to_string()).unwrap_or_default();
                log.verdicts.insert(offset, refusal);
            }
            Err(error) => {
                tracing::warn!(offset, %error, "a record of the definitions log is no change");
                log.definitions.skip(offset);
            }
        }
        log.next = offset + 1;
        self.advanced.notify_all();
        Ok(())
    }
}

/// Returns when the broker appended the record.
fn time(record: &impl Message) -> Option<Micros> {
    Micros::new(record.timestamp().to_millis()?.checked_mul(1_000)?).ok()
}

/// The questions that a recording follower asks besides reading.
struct Contact {
    topic_id: Option<TopicId>,
    asked: Instant,
    identified: Instant,
}

impl Contact {
    fn open(consumer: &Reader, topic: &str) -> Result<Contact> {
        let topic_id = TopicId::fetch(consumer.client(), topic, WATERMARKS_TIMEOUT)?;
        let now = Instant::now();
        Ok(Contact { topic_id, asked: now, identified: now })
    }

    /// Asks, if it is time, and returns whether the brokers answered.
    ///
    /// # Errors
    /// If the topic is another one than at the start.
    fn ask_if_due(&mut self, consumer: &Reader, topic: &str) -> Result<bool> {
        if self.asked.elapsed() < CONTACT_INTERVAL {
            return Ok(false);
        }
        self.asked = Instant::now();
        if consumer.fetch_watermarks(topic, 0, CONTACT_TIMEOUT).is_err() {
            return Ok(false);
        }
        if self.identified.elapsed() >= TOPIC_ID_INTERVAL
            && let Ok(topic_id) = TopicId::fetch(consumer.client(), topic, CONTACT_TIMEOUT)
        {
            self.identified = self.asked;
            if topic_id != self.topic_id {
                bail!("`{topic}` is another topic than before: it was recreated; start again");
            }
        }
        Ok(true)
    }
}

/// Returns the offset after the last readable one; `None` if `stop` returns true before the broker has
/// answered.
fn end(consumer: &Reader, topic: &str, stop: impl Fn() -> bool) -> Result<Option<u64>> {
    while !stop() {
        match consumer.fetch_watermarks(topic, 0, WATERMARKS_TIMEOUT) {
            Ok((0, high)) => return Ok(Some(u64::try_from(high).context("the log ends before 0")?)),
            Ok((..0, _)) => {
                tracing::warn!(topic, "the broker does not know yet where the definitions log begins")
            }
            Ok((low, _)) => bail!(
                "topic `{topic}` begins at offset {low}: older changes were deleted; its retention.ms and \
                 retention.bytes must be -1, and the topic must be restored from a copy"
            ),
            Err(error) => tracing::warn!(%error, topic, "asking for the end of the definitions log"),
        }
        // Polling handles the brokers' events and is the pause before the next request.
        if let Some(Err(error)) = consumer.poll(RETRY_INTERVAL) {
            tracing::warn!(%error, topic, "before reading the definitions log");
        }
    }
    Ok(None)
}

/// Returns whether the client has stopped reading for good because the next offset is not in the log.
fn is_offset_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}
