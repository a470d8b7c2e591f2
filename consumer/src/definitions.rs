//! The log of definitions, followed from its beginning: every version of every definition, and the verdict
//! on every change. Each consumer follows it by itself; no group, no commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::avro;
use schemas::definition::Definitions;

const POLL_WAIT: Duration = Duration::from_millis(200);
const WATERMARKS_WITHIN: Duration = Duration::from_secs(10);

/// What the log has said so far.
#[derive(Default)]
pub struct Log {
    pub definitions: Definitions,
    /// Of every record that was a change: why it was refused, empty if accepted.
    pub verdicts: BTreeMap<u64, String>,
    /// The offset to be read next.
    next: u64,
}

/// The log, kept up to date by a thread.
#[derive(Default)]
pub struct Follower {
    log: Mutex<Log>,
    grown: Condvar,
}

impl Follower {
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        // A reader that panicked has changed nothing.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, once it reaches past `offset`, or as it is when `wait` is over.
    pub fn past(&self, offset: u64, wait: Duration) -> MutexGuard<'_, Log> {
        let until = Instant::now() + wait;
        let mut log = self.lock();
        while log.next <= offset {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            log = self.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        log
    }

    /// Reads the log until `stop` says so. `caught_up` is called once, when all that the log held at the
    /// start has been read.
    ///
    /// # Errors
    /// Where the log cannot be followed truthfully: a rule that this build does not know.
    pub fn follow(
        self: Arc<Self>,
        kafka: &ops::config::Kafka,
        stop: impl Fn() -> bool,
        mut caught_up: impl FnMut(),
    ) -> Result<()> {
        let topic = kafka.topic(schemas::topics::DEFINITIONS);
        let mut config = ClientConfig::new();
        for (name, value) in kafka.properties().map_err(anyhow::Error::msg)? {
            config.set(name, value);
        }
        let consumer: BaseConsumer = config
            // Never joined and never committed to; the library wants a name to assign by hand.
            .set("group.id", "splitstream-definitions-follower")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .context("making the reader of the definitions log")?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning)?;
        consumer.assign(&from).with_context(|| format!("assigning `{topic}`"))?;

        let mut held: Option<u64> = None;
        let mut behind = true;
        while !stop() {
            match consumer.poll(POLL_WAIT) {
                Some(Ok(message)) => {
                    let offset =
                        u64::try_from(message.offset()).context("a record of the log has no offset")?;
                    self.take(offset, message.payload().unwrap_or_default())?;
                }
                Some(Err(error)) => tracing::warn!(%error, topic, "reading the definitions log"),
                None => {}
            }
            if behind {
                if held.is_none() {
                    let watermarks = consumer.fetch_watermarks(&topic, 0, WATERMARKS_WITHIN);
                    held = watermarks.ok().and_then(|(_, high)| u64::try_from(high).ok());
                }
                if held.is_some_and(|held| self.lock().next >= held) {
                    behind = false;
                    caught_up();
                }
            }
        }
        Ok(())
    }

    fn take(&self, offset: u64, payload: &[u8]) -> Result<()> {
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
        self.grown.notify_all();
        Ok(())
    }
}
