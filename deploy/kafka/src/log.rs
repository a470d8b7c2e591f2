//! A log of one partition that is kept for ever. Readers read it from its beginning, and writers propose
//! records to it. Kafka decides the order of the records; the caller decides their meaning. A proposal is
//! settled by reading it back, never by the answer to the write: of two racing writers the order of the log
//! lets one win, and a write whose answer was lost may have succeeded.
//!
//! Reading ends at a position, not at a record: the last offsets may be transaction markers or records of an
//! aborted transaction, which no reader gets. Records from the first one of an open transaction on cannot be
//! read either; the log ends there until that transaction ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::Retryable;
use ops::config::Kafka;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;
use uuid::Uuid;

use crate::client::{self, ANSWER_TIMEOUT, ConnectError, IgnorePartitionEof};
use crate::topic_id::TopicId;
use crate::transient::{ELECTION, ELECTION_TIMEOUT, Transient};

/// The time for which a write is tried before its outcome is looked for in the log instead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// The time for which a record whose write failed is looked for in the log. A broker that still has the request
/// answers it in much less time.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two attempts to find the record.
const READ_BACK_INTERVAL: Duration = Duration::from_millis(200);

/// The log, read up to some offset.
pub struct OrderedLog {
    kafka: Kafka,
    client_id: &'static str,
    topic: String,
    consumer: Arc<StreamConsumer<IgnorePartitionEof>>,
    /// The offset to read next; everything before it has been read.
    position: u64,
}

/// One record of the log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'m> {
    pub offset: u64,
    /// Milliseconds since 1970 by the broker's clock, the only clock of the log.
    pub time_ms: Option<i64>,
    pub payload: &'m [u8],
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'p> {
    /// The id by which it is recognized when it is read back.
    pub id: Uuid,
    pub key: &'p str,
    pub payload: &'p [u8],
    /// The word for the record in error messages, for example "change".
    pub what: &'static str,
    /// A clause for error messages that names where the verdict can be read; it begins with a comma.
    pub see: &'static str,
    /// A sentence that says why it may be proposed again while its outcome is unknown.
    pub again: &'p str,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("kafka has no topic {topic}; create it with `splitstream topics`")]
    NoTopic { topic: String },
    #[error("topic {topic} has {partitions} partitions; a log in order needs exactly one")]
    NotOnePartition { topic: String, partitions: usize },
    /// The log cannot be folded without its beginning.
    #[error(
        "topic {topic} begins at offset {low}: older records were deleted; its retention.ms and \
         retention.bytes must be -1, and the topic must be restored from a copy"
    )]
    BeginningLost { topic: String, low: u64 },
    #[error(
        "topic {topic} ends at offset {high}, before the offset {read} that was read up to: it was recreated; start \
         again"
    )]
    Recreated { topic: String, high: u64, read: u64 },
    /// The brokers answer, but none of them leads the log.
    #[error(
        "topic {topic} has had no leader for {} s: {source}; check that its brokers run",
        ELECTION_TIMEOUT.as_secs()
    )]
    NoLeader { topic: String, source: KafkaError },
    #[error("reading topic {topic} at offset {offset}: {source}")]
    Read { topic: String, offset: u64, source: KafkaError },
    /// The record was certainly not written.
    #[error("topic {topic} did not take the {what} of `{key}`: {source}")]
    NotWritten { topic: String, what: &'static str, key: String, source: KafkaError },
    /// It is unknown whether the record was written: the broker did not confirm it, and the log does not have
    /// it.
    #[error(
        "the {what} {id} of `{key}` was sent to topic {topic} and has not been read back ({source}); it may \
         still arrive. {again}"
    )]
    Unconfirmed {
        topic: String,
        what: &'static str,
        key: String,
        id: Uuid,
        again: String,
        source: KafkaError,
    },
    /// The record was certainly written and has no verdict yet: the log ends before it while another producer's
    /// transaction is open.
    #[error(
        "the {what} {id} of `{key}` is written to topic {topic} at offset {offset}, behind a transaction of \
         another producer that has been open since offset {since}: nobody can read it before that ends, and it did \
         not within {} s. After that the {what} gets its verdict{see}. A \
         transaction ends with its producer or after its transaction.timeout.ms; `kafka-transactions.sh \
         find-hanging` finds one that does not",
        READ_BACK_TIMEOUT.as_secs()
    )]
    HeldBack {
        topic: String,
        what: &'static str,
        see: &'static str,
        key: String,
        id: Uuid,
        offset: u64,
        since: u64,
    },
}

impl LogError {
    /// Returns whether no broker answered, or none answered for the log. Another attempt later may succeed.
    pub fn is_unreachable(&self) -> bool {
        match self {
            LogError::Connect(_)
            | LogError::NoTopic { .. }
            | LogError::NoLeader { .. }
            | LogError::Read { .. }
            | LogError::Unconfirmed { .. }
            | LogError::HeldBack { .. } => true,
            LogError::NotOnePartition { .. }
            | LogError::BeginningLost { .. }
            | LogError::Recreated { .. }
            | LogError::NotWritten { .. } => false,
        }
    }
}

impl OrderedLog {
    /// Opens the log without reading it. `topic` is the name without the configured prefix.
    pub async fn open(kafka: &Kafka, topic: &str, client_id: &'static str) -> Result<OrderedLog, LogError> {
        let topic = kafka.topic(topic);
        let found = client::topics(kafka, client_id).await?.into_iter().find(|(name, _)| *name == topic);
        match found {
            None => return Err(LogError::NoTopic { topic }),
            Some((_, 1)) => {}
            Some((_, partitions)) => return Err(LogError::NotOnePartition { topic, partitions }),
        }
        let consumer: StreamConsumer<IgnorePartitionEof> = client::client(kafka, client_id)?
            // librdkafka needs a group name to assign by hand; nobody joins the group or commits to it.
            .set("group.id", client_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .create_with_context(IgnorePartitionEof)
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        let consumer = Arc::new(consumer);
        Ok(OrderedLog { kafka: kafka.clone(), client_id, topic, consumer, position: 0 })
    }

    /// The topic's name, prefix included.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The offset to read next. Everything before it has been read, including offsets without records.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns Kafka's id of the topic; `None` if the brokers give topics no ids.
    ///
    /// # Errors
    /// If no broker answers, or the topic does not exist any more.
    pub async fn topic_id(&self) -> anyhow::Result<Option<TopicId>> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let request =
            tokio::task::spawn_blocking(move || TopicId::fetch(consumer.client(), &topic, ANSWER_TIMEOUT));
        request.await.expect("asking for a topic's id does not panic")
    }

    /// Reads on to the end that the log has at the time of the call. If `visit` returns an error for a record,
    /// that record counts as not read.
    pub async fn catch_up<E: From<LogError>>(
        &mut self,
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.end().await?;
        if self.position >= end {
            return Ok(());
        }
        // A new assignment drops everything that the client had reported before, so that an end of the
        // partition that is reported from now on is this one or a later one.
        self.assign().map_err(|source| self.read_error(source))?;
        while self.position < end {
            let consumer = self.consumer.clone();
            match tokio::time::timeout(ANSWER_TIMEOUT, next(&consumer)).await {
                Ok(Ok(Some(message))) => {
                    let offset = message.offset().unsigned_abs();
                    let payload = message.payload().unwrap_or_default();
                    visit(Record { offset, time_ms: message.timestamp().to_millis(), payload })?;
                    self.position = offset + 1;
                }
                Ok(Ok(None)) => self.position = end,
                Ok(Err(source)) => return Err(self.read_error(source).into()),
                Err(_) => {
                    let silent = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                    return Err(self.read_error(silent).into());
                }
            }
        }
        Ok(())
    }

    /// Assigns the partition to the client from the position on.
    fn assign(&self) -> Result<(), KafkaError> {
        let from = Offset::Offset(i64::try_from(self.position).expect("an offset is below 2^63"));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, from)?;
        self.consumer.assign(&list)
    }

    /// Writes the record and reads on until `visit` returns the verdict on it. `visit` is called with every
    /// record, as by [`OrderedLog::catch_up`].
    pub async fn propose<V, E: From<LogError>>(
        &mut self,
        proposal: &Proposal<'_>,
        mut visit: impl FnMut(Record<'_>) -> Result<Option<V>, E>,
    ) -> Result<V, E> {
        let written = self.write(proposal).await?;
        let deadline = Instant::now() + READ_BACK_TIMEOUT;
        loop {
            let mut own = None;
            let read = self
                .catch_up(|record| {
                    if let Some(verdict) = visit(record)? {
                        own = Some(verdict);
                    }
                    Ok::<_, E>(())
                })
                .await;
            if let Some(verdict) = own {
                return Ok(verdict);
            }
            if Instant::now() >= deadline {
                read?;
                return Err(self.not_seen(proposal, written).into());
            }
            tokio::time::sleep(READ_BACK_INTERVAL).await;
        }
    }

    /// Writes the record. Returns its offset if the broker returned one, or the error that leaves the outcome
    /// unknown.
    async fn write(&self, proposal: &Proposal<'_>) -> Result<Result<Option<u64>, KafkaError>, LogError> {
        // The write has its own producer: once that is dropped, no request is in flight any more except one
        // that a broker has already received.
        let producer: FutureProducer = client::client(&self.kafka, self.client_id)?
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", WRITE_TIMEOUT.as_millis().to_string())
            .create()
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        let record = FutureRecord::to(&self.topic).partition(0).key(proposal.key).payload(proposal.payload);
        match producer.send(record, Timeout::After(Duration::ZERO)).await {
            // The offset is below 0 for a repetition that the broker recognized.
            Ok(delivery) => Ok(Ok(u64::try_from(delivery.offset).ok())),
            Err((source, _)) if certainly_not_written(&source) => {
                let (topic, key) = (self.topic.clone(), proposal.key.to_owned());
                Err(LogError::NotWritten { topic, what: proposal.what, key, source })
            }
            Err((source, _)) => Ok(Err(source)),
        }
    }

    /// Returns the error for a record that is not in the readable part of the log.
    fn not_seen(&self, proposal: &Proposal<'_>, written: Result<Option<u64>, KafkaError>) -> LogError {
        let Proposal { id, what, see, .. } = *proposal;
        let (topic, key) = (self.topic.clone(), proposal.key.to_owned());
        match written {
            Ok(Some(offset)) if offset >= self.position => {
                LogError::HeldBack { topic, what, see, key, id, offset, since: self.position }
            }
            written => LogError::Unconfirmed {
                topic,
                what,
                key,
                id,
                again: proposal.again.to_owned(),
                source: written.err().unwrap_or(KafkaError::MessageConsumption(RDKafkaErrorCode::NoError)),
            },
        }
    }

    /// Returns the offset after the last readable one. If a transaction is open, that is the offset of its
    /// first record.
    async fn end(&self) -> Result<u64, LogError> {
        let watermarks = (|| self.watermarks())
            .retry(ELECTION.pauses())
            .sleep(tokio::time::sleep)
            .when(|error| Transient::of(error) == Some(Transient::NoLeader))
            .notify(|error, _| tracing::info!(topic = self.topic, %error, "waiting for the log's leader"))
            .await;
        let (low, high) = match watermarks {
            Ok((low, high)) => (low.unsigned_abs(), high.unsigned_abs()),
            Err(source) if Transient::of(&source) == Some(Transient::NoLeader) => {
                return Err(LogError::NoLeader { topic: self.topic.clone(), source });
            }
            Err(error) => {
                let brokers = self.kafka.brokers.as_str().to_owned();
                return Err(client::diagnose(brokers, &error).await.into());
            }
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

    /// Returns the log's first offset, and the one after its last readable one. librdkafka does not retry this
    /// request.
    async fn watermarks(&self) -> Result<(i64, i64), KafkaError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let request =
            tokio::task::spawn_blocking(move || consumer.fetch_watermarks(&topic, 0, ANSWER_TIMEOUT));
        request.await.expect("asking for watermarks does not panic")
    }

    fn read_error(&self, source: KafkaError) -> LogError {
        LogError::Read { topic: self.topic.clone(), offset: self.position, source }
    }
}

/// Returns the next record; `None` at the end of the readable part. It waits through errors from which
/// librdkafka recovers by itself, such as a lost broker; the caller sets the deadline.
async fn next(
    consumer: &StreamConsumer<IgnorePartitionEof>,
) -> Result<Option<BorrowedMessage<'_>>, KafkaError> {
    loop {
        match consumer.recv().await {
            Ok(message) => return Ok(Some(message)),
            Err(KafkaError::PartitionEOF(_)) => return Ok(None),
            Err(error) if Transient::of(&error).is_some() => {}
            Err(error) => return Err(error),
        }
    }
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
