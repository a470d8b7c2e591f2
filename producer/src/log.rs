//! The log of definitions on Kafka: read from its beginning into [`Definitions`], and proposed to. A proposal
//! is settled by reading it back, never by the answer to the write: of two racing writers the log's order
//! lets one through, and a write whose answer was lost may have happened.
//!
//! Reading ends by position, not by a record: the last offsets may be markers of a transaction, or records of
//! one that was aborted, which no reader is ever shown. Nor is what follows the first record of a transaction
//! that is still open; the log ends there until it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::config::Kafka;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;
use schemas::avro::{self, DecodeError};
use schemas::definition::{Accepted, Change, Definitions, Refusal, UnknownRule};
use schemas::{Micros, Uuid, topics};

use crate::kafka::{self, ANSWER_WITHIN, ConnectError};

/// How long a write is tried before its outcome is looked for in the log instead.
const WRITE_WITHIN: Duration = Duration::from_secs(15);
/// How long a change whose write failed is looked for in the log. A broker that still holds the request
/// answers it, one way or the other, well within this.
const READ_BACK_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const READ_BACK_EVERY: Duration = Duration::from_millis(200);
/// How long the log may be without a leader that answers. A broker that was restarted answers before it leads;
/// where another takes over, the election takes seconds.
const LED_WITHIN: Duration = Duration::from_secs(30);
/// Between two questions meanwhile.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The log, read up to some offset, and what holds there.
pub struct DefinitionLog {
    kafka: Kafka,
    topic: String,
    consumer: Arc<StreamConsumer>,
    definitions: Definitions,
    /// Everything before this offset has been read. Beyond [`Definitions::next_offset`] where no record is.
    position: u64,
    undecodable: u64,
}

/// One record of the log, as [`DefinitionLog::catch_up`] shows it.
#[derive(Debug)]
pub struct Record {
    pub offset: u64,
    /// The broker's clock, the only one of the log.
    pub time: Option<Micros>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Judged {
        change: Change,
        /// What held for the key before, if anything did.
        previous: Option<Arc<Accepted>>,
        verdict: Result<Arc<Accepted>, Refusal>,
    },
    /// Bytes that are no change; they have no effect.
    Undecodable(DecodeError),
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("kafka has no topic {topic}; create it with `producer topics`")]
    NoTopic { topic: String },
    #[error("topic {topic} has {partitions} partitions; a log in order needs exactly one")]
    NotOneLog { topic: String, partitions: usize },
    /// Without its beginning the log cannot be folded.
    #[error(
        "topic {topic} begins at offset {low}: older changes were deleted; its retention.ms and \
         retention.bytes must be -1, and the topic must be restored from a copy"
    )]
    BeginningLost { topic: String, low: u64 },
    #[error(
        "topic {topic} ends at offset {high}, before the offset {read} that was read up to: it was recreated; start \
         again"
    )]
    Recreated { topic: String, high: u64, read: u64 },
    #[error(transparent)]
    UnknownRule(#[from] UnknownRule),
    /// The brokers answer, and none of them for the log.
    #[error(
        "topic {topic} has had no leader for {} s: {source}; check that its brokers run",
        LED_WITHIN.as_secs()
    )]
    NotLed { topic: String, source: KafkaError },
    #[error("reading topic {topic} at offset {offset}: {source}")]
    Read { topic: String, offset: u64, source: KafkaError },
    /// Certainly not written.
    #[error("topic {topic} did not take the change of `{key}`: {source}")]
    NotWritten { topic: String, key: String, source: KafkaError },
    /// Written or not: the broker's answer is missing and the log does not show the change.
    #[error(
        "the change {change_id} of `{key}` was sent to topic {topic} and not seen there since ({source}); it may \
         still arrive. Applying the same file again is safe: both are based on version {based_on}, and the log \
         accepts only one of them"
    )]
    Doubtful { topic: String, key: String, change_id: Uuid, based_on: u64, source: KafkaError },
    /// Certainly written, and not judged yet: the log ends before it while somebody's transaction is open.
    #[error(
        "the change {change_id} of `{key}` is written to topic {topic} at offset {offset}, behind a transaction of \
         another producer that has been open since offset {since}: nobody can read it before that ends, and it did \
         not within {} s. Then the change is judged by itself; `producer definitions log` tells how. A transaction \
         ends with its producer or after its transaction.timeout.ms; `kafka-transactions.sh find-hanging` finds one \
         that does not",
        READ_BACK_WITHIN.as_secs()
    )]
    HeldBack { topic: String, key: String, change_id: Uuid, offset: u64, since: u64 },
}

impl DefinitionLog {
    /// Reads the whole log. `see` is shown every record in order.
    pub async fn open(kafka: &Kafka, see: impl FnMut(&Record)) -> Result<DefinitionLog, LogError> {
        let topic = kafka.topic(topics::DEFINITIONS);
        let found = kafka::topics(kafka).await?.into_iter().find(|(name, _)| *name == topic);
        match found {
            None => return Err(LogError::NoTopic { topic }),
            Some((_, 1)) => {}
            Some((_, partitions)) => return Err(LogError::NotOneLog { topic, partitions }),
        }
        let consumer: StreamConsumer = kafka::client(kafka)?
            // librdkafka assigns nothing without a group's name; nobody joins it and nothing is committed.
            .set("group.id", "splitstream-definitions")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .create()
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        let mut log = DefinitionLog {
            kafka: kafka.clone(),
            topic,
            consumer: Arc::new(consumer),
            definitions: Definitions::default(),
            position: 0,
            undecodable: 0,
        };
        log.catch_up(see).await?;
        Ok(log)
    }

    /// What holds at the last record read.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// How many records were no changes at all. They were skipped.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Reads on to what is the log's end at the time of the call.
    pub async fn catch_up(&mut self, mut see: impl FnMut(&Record)) -> Result<(), LogError> {
        let end = self.end().await?;
        if self.position >= end {
            return Ok(());
        }
        // Whatever the client had reported before is dropped with its old assignment, so that an end of the
        // partition reported from now on is this one or a later one.
        self.assign().map_err(|source| self.read_error(source))?;
        while self.position < end {
            let consumer = self.consumer.clone();
            match tokio::time::timeout(ANSWER_WITHIN, next(&consumer)).await {
                Ok(Ok(Some(message))) => {
                    let record = self.take(&message)?;
                    self.position = record.offset + 1;
                    see(&record);
                }
                Ok(Ok(None)) => self.position = end,
                Ok(Err(source)) => return Err(self.read_error(source)),
                Err(_) => {
                    return Err(
                        self.read_error(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
                    );
                }
            }
        }
        Ok(())
    }

    /// Lets the client read on from the position.
    fn assign(&self) -> Result<(), KafkaError> {
        let from = Offset::Offset(i64::try_from(self.position).expect("an offset is below 2^63"));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, from)?;
        self.consumer.assign(&list)
    }

    /// Writes the change to the log and reads it back: the verdict is the log's.
    pub async fn propose(&mut self, change: &Change) -> Result<Result<Arc<Accepted>, Refusal>, LogError> {
        // A producer of its own: once it is dropped, nothing of it is on its way any more but what a broker
        // has already received.
        let producer: FutureProducer = kafka::client(&self.kafka)?
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", WRITE_WITHIN.as_millis().to_string())
            .create()
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        let bytes = avro::encode_change(change);
        let record = FutureRecord::to(&self.topic).partition(0).key(&change.key).payload(&bytes);
        let sent = producer.send(record, Timeout::After(Duration::ZERO)).await;
        drop(producer);

        let written = match sent {
            // Below 0 for a repetition that the broker recognized.
            Ok(delivery) => Ok(u64::try_from(delivery.offset).ok()),
            Err((source, _)) if certainly_not_written(&source) => {
                let (topic, key) = (self.topic.clone(), change.key.clone());
                return Err(LogError::NotWritten { topic, key, source });
            }
            Err((source, _)) => Err(source),
        };
        let deadline = Instant::now() + READ_BACK_WITHIN;
        loop {
            let mut own = None;
            let read = self
                .catch_up(|record| match &record.content {
                    Content::Judged { change: read, verdict, .. } if read.change_id == change.change_id => {
                        own = Some(verdict.clone());
                    }
                    _ => {}
                })
                .await;
            if let Some(verdict) = own {
                return Ok(verdict);
            }
            if Instant::now() >= deadline {
                read?;
                return Err(self.not_seen(change, written));
            }
            tokio::time::sleep(READ_BACK_EVERY).await;
        }
    }

    /// Why a change is not in the log as far as it can be read: `written` has its offset, if it is known, or what
    /// became of the write instead.
    fn not_seen(&self, change: &Change, written: Result<Option<u64>, KafkaError>) -> LogError {
        let (topic, key, change_id) = (self.topic.clone(), change.key.clone(), change.change_id);
        match written {
            Ok(Some(offset)) if offset >= self.position => {
                LogError::HeldBack { topic, key, change_id, offset, since: self.position }
            }
            written => LogError::Doubtful {
                topic,
                key,
                change_id,
                based_on: change.based_on,
                source: written.err().unwrap_or(KafkaError::MessageConsumption(RDKafkaErrorCode::NoError)),
            },
        }
    }

    /// The offset after the last that can be read: that of the first record of an open transaction, if there is
    /// one.
    async fn end(&self) -> Result<u64, LogError> {
        let deadline = Instant::now() + LED_WITHIN;
        let (low, high) = loop {
            match self.watermarks().await {
                Ok((low, high)) => break (low.unsigned_abs(), high.unsigned_abs()),
                Err(error) if !between_leaders(&error) => {
                    let brokers = self.kafka.brokers.as_str().to_owned();
                    return Err(kafka::diagnose(brokers, &error).await.into());
                }
                Err(source) if Instant::now() >= deadline => {
                    return Err(LogError::NotLed { topic: self.topic.clone(), source });
                }
                Err(error) => tracing::info!(topic = self.topic, %error, "waiting for the log's leader"),
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        };
        let read = self.position;
        if low > read {
            return Err(LogError::BeginningLost { topic: self.topic.clone(), low });
        }
        if high < read {
            return Err(LogError::Recreated { topic: self.topic.clone(), high, read });
        }
        Ok(high)
    }

    /// The log's first offset, and the one after its last as far as transactions are over. Not asked again by librdkafka, whatever the answer is.
    async fn watermarks(&self) -> Result<(i64, i64), KafkaError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let asking = tokio::task::spawn_blocking(move || consumer.fetch_watermarks(&topic, 0, ANSWER_WITHIN));
        asking.await.expect("asking for watermarks does not panic")
    }

    /// Folds one record in.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<Record, UnknownRule> {
        let offset = message.offset().unsigned_abs();
        let millis = message.timestamp().to_millis();
        let time = millis.and_then(|millis| Micros::new(millis.checked_mul(1_000)?).ok());
        let change = match avro::decode_change(message.payload().unwrap_or_default()) {
            Ok(change) => change,
            Err(error) => {
                self.definitions.skip(offset);
                self.undecodable += 1;
                tracing::warn!(topic = self.topic, offset, %error, "a record of the log is no change; skipped");
                return Ok(Record { offset, time, content: Content::Undecodable(error) });
            }
        };
        let before = self.definitions.version();
        let verdict = self.definitions.apply(offset, &change)?;
        debug_assert!(verdict.is_err() || self.definitions.version() > before);
        let previous =
            if change.based_on == 0 { None } else { self.definitions.at_version(change.based_on).cloned() };
        Ok(Record { offset, time, content: Content::Judged { change, previous, verdict } })
    }

    fn read_error(&self, source: KafkaError) -> LogError {
        LogError::Read { topic: self.topic.clone(), offset: self.position, source }
    }
}

/// The next record; `None` at the end of what can be read. Errors that librdkafka mends by itself (a broker that
/// went away) are waited out; the caller sets the deadline.
async fn next(consumer: &StreamConsumer) -> Result<Option<BorrowedMessage<'_>>, KafkaError> {
    loop {
        match consumer.recv().await {
            Ok(message) => return Ok(Some(message)),
            Err(KafkaError::PartitionEOF(_)) => return Ok(None),
            Err(error) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress,
                ) => continue,
                _ if between_leaders(&error) => continue,
                _ => return Err(error),
            },
        }
    }
}

/// Whether a broker says that the partition is not led, or not by it, or not from where it was: what passes when
/// a leader is found.
fn between_leaders(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::ReplicaNotAvailable
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::OffsetNotAvailable
        )
    )
}

fn certainly_not_written(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::PolicyViolation
        )
    )
}
