//! Sends events to Kafka from inside another program. [`Emitter::emit`] puts an event into a bounded queue or
//! refuses it with a reason, and never waits. librdkafka sends the queue in compressed batches and retries for
//! as long as it takes; each event is written once and in order.
//!
//! No event is lost silently: it is delivered, or refused to the caller, or passed to the [`Undelivered`]
//! callback. A caller can add a spool on disk for the time when Kafka is unavailable: it would keep the events
//! of [`Refused::QueueFull`] and the encoded bytes that the callback gets, and send them again later.

use std::time::{Duration, Instant};

use ops::config::Kafka;
use prometheus::Registry;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use schemas::event::{EVENT_BYTES_MAX, OutOfRange};
use schemas::{Event, Sender, avro, topics};

use kafka::ConnectError;

mod delivery;
mod schema_ids;
mod settings;

pub use delivery::{Totals, Undelivered};
pub use schema_ids::SchemaIds;
pub use settings::Settings;

use delivery::{Counters, Deliveries};

/// The time between two checks of a flush, or of a caller that waits for room in the queue.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A handle to the queue. It is meant to be shared: its methods take `&self`.
pub struct Emitter {
    producer: ThreadedProducer<Deliveries>,
    exposures: String,
    conversions: String,
    aliases: String,
    sender: Sender<'static>,
    schema_ids: Option<SchemaIds>,
    counters: Counters,
    opened: Instant,
}

/// The reason why an event was not queued. The emitter keeps nothing of the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A value of the event is out of range; sending it again cannot succeed.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The event is longer than a consumer accepts.
    #[error("{bytes} bytes, more than {EVENT_BYTES_MAX}")]
    Oversize { bytes: usize },
    /// Kafka has been slower than the caller, or unavailable, until the queue was full. Drop the event or emit
    /// it later.
    #[error("the queue is full; Kafka is slower than the caller, or unreachable")]
    QueueFull,
    /// The client cannot continue, for example because the broker forgot it in the middle of a batch. A new
    /// [`Emitter`] can.
    #[error("the kafka client stopped: {reason}")]
    Stopped { reason: String },
}

impl Refused {
    /// The label of the reason in the metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::OutOfRange(_) => "out_of_range",
            Refused::Oversize { .. } => "oversize",
            Refused::QueueFull => "queue_full",
            Refused::Stopped { .. } => "stopped",
        }
    }
}

/// The flush timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{remaining} events are not acknowledged yet")]
pub struct Unflushed {
    pub remaining: u64,
}

impl Emitter {
    /// Creates the client. It does not wait for a broker, so that a service can start while Kafka is
    /// unavailable. `undelivered` is called on the client's thread with every queued event that will not be
    /// delivered.
    pub fn open(
        kafka: &Kafka,
        settings: &Settings,
        sender: Sender<'static>,
        registry: &Registry,
        undelivered: impl Fn(Undelivered) + Send + Sync + 'static,
    ) -> Result<Emitter, ConnectError> {
        let counters =
            Counters::register(registry).map_err(|error| ConnectError::Settings(error.to_string()))?;
        let opened = Instant::now();
        let deliveries = Deliveries::new(counters.clone(), opened, Box::new(undelivered));
        let producer = settings
            .producer(kafka)?
            .create_with_context(deliveries)
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        Ok(Emitter {
            producer,
            exposures: kafka.topic(topics::EXPOSURES),
            conversions: kafka.topic(topics::CONVERSIONS),
            aliases: kafka.topic(topics::ALIASES),
            sender,
            schema_ids: None,
            counters,
            opened,
        })
    }

    /// With `Some`, events name their schema by its id in a registry, in Confluent's framing, instead of by its
    /// fingerprint.
    pub fn with_schema_ids(self, schema_ids: Option<SchemaIds>) -> Emitter {
        Emitter { schema_ids, ..self }
    }

    /// Queues the event, or returns at once why it cannot. An event without a sender gets this emitter's.
    /// Attributes of an exposure are cut to their bounds in length and number ([`Event::fit_attributes`]); they
    /// are no reason to refuse it.
    pub fn emit(&self, event: Event<'_>) -> Result<(), Refused> {
        self.count_outcome(self.encode(event).and_then(|encoded| self.enqueue(&encoded)))
    }

    /// Like [`Emitter::emit`], but waits for up to `timeout` while the queue is full. It is for replays, which
    /// must not drop events; a service that answers requests uses [`Emitter::emit`].
    pub async fn emit_when_room(&self, event: Event<'_>, timeout: Duration) -> Result<(), Refused> {
        let encoded = match self.encode(event) {
            Ok(encoded) => encoded,
            Err(refused) => return self.count_outcome(Err(refused)),
        };
        let mut deadline = None;
        loop {
            match self.enqueue(&encoded) {
                Err(Refused::QueueFull)
                    if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + timeout) =>
                {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                settled => return self.count_outcome(settled),
            }
        }
    }

    /// The number of queued events that are neither delivered nor given up.
    pub fn remaining(&self) -> u64 {
        self.counters.remaining()
    }

    /// The counts so far.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// Waits until the queue is empty, which includes events that are queued meanwhile. Dropping the future is
    /// harmless.
    pub async fn flush(&self, timeout: Duration) -> Result<(), Unflushed> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.remaining() {
                0 => return Ok(()),
                remaining if Instant::now() >= deadline => return Err(Unflushed { remaining }),
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Flushes, then closes the client. Events that are left after `timeout` go to the `undelivered` callback,
    /// as they do when an emitter is dropped.
    pub async fn close(self, timeout: Duration) -> Result<(), Unflushed> {
        let flushed = self.flush(timeout).await;
        // Closing the client joins its thread, which takes up to half a second.
        tokio::task::spawn_blocking(move || drop(self)).await.expect("closing a client does not panic");
        flushed
    }

    fn encode<'a>(&'a self, mut event: Event<'a>) -> Result<EncodedEvent<'a>, Refused> {
        fill_sender(&mut event, &self.sender);
        event.fit_attributes();
        event.check()?;
        let value = match &self.schema_ids {
            Some(ids) => avro::encode_with(&event, ids.of(&event)),
            None => avro::encode(&event),
        };
        if value.len() > EVENT_BYTES_MAX {
            return Err(Refused::Oversize { bytes: value.len() });
        }
        let topic = match &event {
            Event::Exposure(_) => &self.exposures,
            Event::Conversion(_) => &self.conversions,
            Event::Alias(_) => &self.aliases,
        };
        Ok(EncodedEvent { topic, event, value })
    }

    fn enqueue(&self, encoded: &EncodedEvent<'_>) -> Result<(), Refused> {
        let bytes = encoded.value.len();
        let enqueued = self.opened.elapsed().as_micros() as usize;
        let record = BaseRecord::with_opaque_to(encoded.topic, enqueued)
            .key(encoded.event.partition_key())
            .payload(&encoded.value[..]);
        // Counted before sending, because the delivery may be reported before `send` returns.
        self.counters.entered(bytes);
        let Err((error, _)) = self.producer.send(record) else { return Ok(()) };
        self.counters.left(bytes);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Err(Refused::QueueFull),
            _ => {
                let fatal = self.producer.client().fatal_error();
                let reason =
                    fatal.map_or_else(|| error.to_string(), |(code, text)| format!("{code}: {text}"));
                Err(Refused::Stopped { reason })
            }
        }
    }

    fn count_outcome(&self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        match &outcome {
            Ok(()) => self.counters.accepted(),
            Err(refused) => self.counters.refused(refused.code()),
        }
        outcome
    }
}

/// An event with its topic and its encoded bytes.
struct EncodedEvent<'a> {
    topic: &'a str,
    event: Event<'a>,
    value: Vec<u8>,
}

/// Sets the sender of an event without one. An event that names its sender was made elsewhere and must keep its
/// bytes.
fn fill_sender<'a>(event: &mut Event<'a>, sender: &'a Sender<'static>) {
    let current = match event {
        Event::Exposure(exposure) => &mut exposure.sender,
        Event::Conversion(conversion) => &mut conversion.sender,
        Event::Alias(alias) => &mut alias.sender,
    };
    if *current == Sender::default() {
        *current = Sender {
            service: sender.service.as_ref().into(),
            instance: sender.instance.as_ref().into(),
            library_version: sender.library_version.as_ref().into(),
        };
    }
}
