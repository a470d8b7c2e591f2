//! The log of definitions, followed from its beginning: every version of every definition, and the verdict
//! on every change. Each consumer follows it by itself; no group, no commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kafka::IgnorePartitionEof;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::avro;
use schemas::definition::Definitions;

const POLL_TIMEOUT: Duration = Duration::from_millis(200);
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the log has said so far.
#[derive(Default)]
pub struct FollowedLog {
    pub definitions: Definitions,
    /// Of every record that was a change: why it was refused, empty if accepted.
    pub verdicts: BTreeMap<u64, String>,
    /// The offset to be read next.
    next: u64,
}

/// The log, kept up to date by a thread.
#[derive(Default)]
pub struct Follower {
    log: Mutex<FollowedLog>,
    advanced: Condvar,
}

impl Follower {
    pub fn lock(&self) -> MutexGuard<'_, FollowedLog> {
        // A reader that panicked has changed nothing.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, once it reaches past `offset`, or as it is when `wait` is over.
    pub fn wait_past(&self, offset: u64, wait: Duration) -> MutexGuard<'_, FollowedLog> {
        let until = Instant::now() + wait;
        let mut log = self.lock();
        while log.next <= offset {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            log = self.advanced.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        log
    }

    /// Reads the log until `stop` says so. `caught_up` is called once, when all that the log held at the
    /// start has been read: by position, as its last offsets may be markers of a transaction or records of one
    /// that was aborted, which nobody is ever shown. What follows the first record of a transaction that is open
    /// is no part of the log until that ends.
    ///
    /// # Errors
    /// Where the log cannot be followed truthfully: a rule that this build does not know, or a beginning or a
    /// place to go on from that is gone.
    pub fn follow(
        self: Arc<Self>,
        kafka: &ops::config::Kafka,
        stop: impl Fn() -> bool,
        mut caught_up: impl FnMut(),
    ) -> Result<()> {
        let topic = kafka.topic(schemas::topics::DEFINITIONS);
        let mut config = ClientConfig::new();
        for (name, value) in kafka.properties().map_err(ops::config::Error::from)? {
            config.set(name, value);
        }
        let consumer: BaseConsumer<IgnorePartitionEof> = config
            // Never joined and never committed to; the library wants a name to assign by hand.
            .set("group.id", "splitstream-definitions-follower")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create_with_context(IgnorePartitionEof)
            .context("making the reader of the definitions log")?;
        let Some(held) = end(&consumer, &topic, &stop)? else { return Ok(()) };
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning)?;
        // Only now: an end of the partition that is reported is then this one or a later one.
        consumer.assign(&from).with_context(|| format!("assigning `{topic}`"))?;

        let mut behind = true;
        let mut at_end = false;
        while !stop() {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    let offset =
                        u64::try_from(message.offset()).context("a record of the log has no offset")?;
                    self.apply_record(offset, message.payload().unwrap_or_default())?;
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
            if behind && (at_end || self.lock().next >= held) {
                behind = false;
                caught_up();
            }
        }
        Ok(())
    }

    fn apply_record(&self, offset: u64, payload: &[u8]) -> Result<()> {
        let mut log = self.lock();
        match avro::decode_change(payload) {
            Ok(change) => {
                let verdict = log.definitions.apply(offset, &change)?;
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

/// The offset after the last that can be read; `None` if told to stop before the broker has said it.
fn end(
    consumer: &BaseConsumer<IgnorePartitionEof>,
    topic: &str,
    stop: impl Fn() -> bool,
) -> Result<Option<u64>> {
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
        // The brokers' events, and time between two questions.
        if let Some(Err(error)) = consumer.poll(RETRY_INTERVAL) {
            tracing::warn!(%error, topic, "before reading the definitions log");
        }
    }
    Ok(None)
}

/// Whether the client has stopped reading for good: the offset that comes next is not in the log.
fn is_offset_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}
