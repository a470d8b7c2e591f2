//! Sends events to Kafka from inside another program. [`Emitter::emit`] puts an event into a bounded queue or
//! refuses it with a reason, and never waits. librdkafka sends the queue in compressed batches and retries for
//! as long as it takes; each event is written once and in order.
//!
//! No event is lost silently: it is delivered, or refused to the caller, or passed to the [`Undelivered`]
//! callback. With a spool ([`Emitter::open_with_spool`]) what Kafka has not acknowledged after 100 ms is also kept on
//! disk, and sent after a crash, too; [`Emitter::emit_durable`] tells when an event is safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::config::Kafka;
use prometheus::Registry;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use schemas::event::{EVENT_BYTES_MAX, OutOfRange};
use schemas::{Event, Sender, avro, topics};
use tokio::sync::oneshot;

use kafka::ConnectError;

mod delivery;
mod receipts;
mod schema_ids;
mod settings;
mod spool;

pub use delivery::{Totals, Undelivered};
pub use receipts::{Durable, NotDurable, Receipts};
pub use schema_ids::SchemaIds;
pub use settings::Settings;
pub use spool::{SpoolError, SpoolSettings, SpoolStatus};

use delivery::{Counters, Deliveries, OnUndelivered, Ticket};
use receipts::Receipt;
use spool::{Record, Spool};

/// The time between two checks of a flush, or of a caller that waits for room in the queue.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Kafka is called away when it has acknowledged nothing for this time although events wait. A batch takes
/// milliseconds; the election of a leader takes about this time.
const KAFKA_AWAY_AFTER: Duration = Duration::from_secs(1);

/// A handle to the queue. It is meant to be shared: its methods take `&self`.
pub struct Emitter {
    // Dropped first: it writes what Kafka has not acknowledged, before the client gives it up.
    spool: Option<Spool>,
    producer: Arc<ThreadedProducer<Deliveries>>,
    exposures: Arc<str>,
    conversions: Arc<str>,
    aliases: Arc<str>,
    sender: Sender<'static>,
    schema_ids: Option<SchemaIds>,
    counters: Counters,
}

/// An emitter could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings of the client are wrong.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The spool is in use, or its disk refuses.
    #[error(transparent)]
    Spool(#[from] SpoolError),
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
    /// Kafka has been unavailable until the spool was full. Drop the event or emit it later; those in the spool stay.
    #[error("the spool is full; kafka has been slower than the caller, or unreachable")]
    SpoolFull,
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
            Refused::SpoolFull => "spool_full",
            Refused::Stopped { .. } => "stopped",
        }
    }

    /// Whether the event itself is wrong, so that emitting it again cannot succeed.
    pub fn is_final(&self) -> bool {
        matches!(self, Refused::OutOfRange(_) | Refused::Oversize { .. })
    }
}

/// The flush timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{remaining} events are not acknowledged yet; the spool keeps {spooled} events")]
pub struct Unflushed {
    pub remaining: u64,
    /// The events in the spool, which are not lost; 0 without a spool.
    pub spooled: u64,
}

/// The state of an emitter, for the readiness of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The events that wait for Kafka.
    pub remaining: u64,
    /// For how long Kafka has acknowledged nothing although events wait; `None` if none waits.
    pub stalled_for: Option<Duration>,
    /// Why the client has stopped for good; only a new emitter can send again.
    pub stopped: Option<String>,
    pub spool: Option<SpoolStatus>,
}

impl Status {
    /// Whether Kafka has acknowledged nothing for a second although events wait.
    pub fn kafka_is_away(&self) -> bool {
        self.stalled_for.is_some_and(|time| time >= KAFKA_AWAY_AFTER)
    }
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
        let counters = register(registry)?;
        Emitter::build(kafka, settings, sender, counters, Arc::new(undelivered), None)
    }

    /// Like [`Emitter::open`], with a spool in a directory that no other process uses. It takes over what an earlier
    /// process left there, and sends it first. It reads all of that, about a second for each GiB.
    ///
    /// `undelivered` is then only called with events that can be kept nowhere: when the emitter is closed, Kafka is
    /// away and the disk fails.
    pub fn open_with_spool(
        kafka: &Kafka,
        settings: &Settings,
        spool: &SpoolSettings,
        sender: Sender<'static>,
        registry: &Registry,
        undelivered: impl Fn(Undelivered) + Send + Sync + 'static,
    ) -> Result<Emitter, OpenError> {
        let counters = register(registry)?;
        let undelivered: OnUndelivered = Arc::new(undelivered);
        let (spool, next) = Spool::open(settings, spool, counters.clone(), registry, undelivered.clone())?;
        let mut emitter = Emitter::build(kafka, settings, sender, counters, undelivered, Some(spool))?;
        let producer = emitter.producer.clone();
        if let Some(spool) = &mut emitter.spool {
            spool.start(next, producer)?;
        }
        Ok(emitter)
    }

    fn build(
        kafka: &Kafka,
        settings: &Settings,
        sender: Sender<'static>,
        counters: Counters,
        undelivered: OnUndelivered,
        spool: Option<Spool>,
    ) -> Result<Emitter, ConnectError> {
        let shared = spool.as_ref().map(|spool| spool.shared.clone());
        let deliveries = Deliveries::new(counters.clone(), undelivered, shared);
        let producer = settings
            .producer(kafka)?
            .create_with_context(deliveries)
            .map_err(|error| ConnectError::Settings(error.to_string()))?;
        Ok(Emitter {
            spool,
            producer: Arc::new(producer),
            exposures: kafka.topic(topics::EXPOSURES).into(),
            conversions: kafka.topic(topics::CONVERSIONS).into(),
            aliases: kafka.topic(topics::ALIASES).into(),
            sender,
            schema_ids: None,
            counters,
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
        self.count_outcome(self.encode(event).and_then(|encoded| self.accept(&encoded, None)))
    }

    /// Queues the events at once, like [`Emitter::emit`], and returns the receipts that tell when each is safe:
    /// acknowledged by Kafka, or synced in the spool. Events of concurrent calls share a sync.
    pub fn emit_durable<'a>(&self, events: impl IntoIterator<Item = Event<'a>>) -> Receipts {
        let mut receipts = Receipts::new();
        for event in events {
            let (receipt, answer) = oneshot::channel();
            let outcome = self.encode(event).and_then(|encoded| self.accept(&encoded, Some(receipt)));
            receipts.push(self.count_outcome(outcome).map(|()| answer));
        }
        receipts
    }

    /// Like [`Emitter::emit`], but waits for up to `timeout` while the queue or the spool is full. It is for replays,
    /// which must not drop events; a service that answers requests uses [`Emitter::emit`].
    pub async fn emit_when_room(&self, event: Event<'_>, timeout: Duration) -> Result<(), Refused> {
        let encoded = match self.encode(event) {
            Ok(encoded) => encoded,
            Err(refused) => return self.count_outcome(Err(refused)),
        };
        let mut deadline = None;
        loop {
            match self.accept(&encoded, None) {
                Err(Refused::QueueFull | Refused::SpoolFull)
                    if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + timeout) =>
                {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                settled => return self.count_outcome(settled),
            }
        }
    }

    /// The number of events that are neither delivered nor given up, those in the spool included.
    pub fn remaining(&self) -> u64 {
        self.counters.remaining()
    }

    /// The counts so far.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// The state now.
    pub fn status(&self) -> Status {
        Status {
            remaining: self.remaining(),
            stalled_for: self.counters.stalled_for(),
            stopped: self.fatal_error(),
            spool: self.spool.as_ref().map(|spool| spool.shared.status()),
        }
    }

    /// Waits until Kafka has acknowledged everything, which includes events that are queued meanwhile and those in the
    /// spool. Dropping the future is harmless.
    pub async fn flush(&self, timeout: Duration) -> Result<(), Unflushed> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.remaining() {
                0 => return Ok(()),
                remaining if Instant::now() >= deadline => {
                    let spooled = self.spool.as_ref().map_or(0, |spool| spool.shared.spooled());
                    return Err(Unflushed { remaining, spooled });
                }
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Flushes, then closes the client. With a spool, what Kafka has not acknowledged after `timeout` is in the spool
    /// when this returns, and the next emitter sends it; the error is for events of which the disk refused to keep a
    /// copy. They go to the `undelivered` callback; without a spool all events that are left do. So they do when an
    /// emitter is dropped.
    pub async fn close(mut self, timeout: Duration) -> Result<(), Unflushed> {
        let flushed = self.flush(timeout).await;
        // Closing the client joins its thread, which takes up to half a second.
        let closing = tokio::task::spawn_blocking(move || {
            let Some(spool) = &mut self.spool else { return flushed };
            let in_memory = spool.close();
            let spooled = spool.shared.spooled();
            drop(self);
            if in_memory == 0 { Ok(()) } else { Err(Unflushed { remaining: in_memory, spooled }) }
        });
        closing.await.expect("closing a client does not panic")
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

    fn accept(&self, encoded: &EncodedEvent<'_>, receipt: Option<Receipt>) -> Result<(), Refused> {
        // Counted before sending, because the delivery may be reported before `send` returns.
        self.counters.entered(1, encoded.value.len());
        let accepted = match &self.spool {
            Some(spool) => self.accept_into(spool, encoded, receipt),
            None => self.enqueue(encoded, Ticket { entered: Instant::now(), seq: None, receipt }),
        };
        if accepted.is_err() {
            self.counters.left(encoded.value.len());
        }
        accepted
    }

    /// Accepts an event into the ledger of the spool, and sends it unless others wait for their turn.
    fn accept_into(
        &self,
        spool: &Spool,
        encoded: &EncodedEvent<'_>,
        receipt: Option<Receipt>,
    ) -> Result<(), Refused> {
        let record = Record {
            topic: encoded.topic.clone(),
            key: encoded.event.partition_key().as_bytes().into(),
            value: encoded.value.as_slice().into(),
            stamp: spool::stamp(),
        };
        let admitted = spool.shared.admit(record, receipt)?;
        if !admitted.send {
            return Ok(());
        }
        let ticket = Ticket { entered: Instant::now(), seq: Some(admitted.seq), receipt: None };
        match self.send(encoded, ticket) {
            Ok(()) => Ok(()),
            Err(error) if is_queue_full(&error) => {
                spool.shared.not_sent(admitted.seq);
                Ok(())
            }
            Err(error) => match self.fatal_error() {
                Some(reason) => {
                    spool.shared.stopped(admitted.seq, &reason);
                    Err(Refused::Stopped { reason })
                }
                None => {
                    // Its topic does not exist, for example: it is kept, and sent when it does.
                    spool.shared.failed(admitted.seq, encoded.topic, &error);
                    Ok(())
                }
            },
        }
    }

    fn enqueue(&self, encoded: &EncodedEvent<'_>, ticket: Ticket) -> Result<(), Refused> {
        match self.send(encoded, ticket) {
            Ok(()) => Ok(()),
            Err(error) if is_queue_full(&error) => Err(Refused::QueueFull),
            Err(error) => {
                let reason = self.fatal_error().unwrap_or_else(|| error.to_string());
                Err(Refused::Stopped { reason })
            }
        }
    }

    fn send(&self, encoded: &EncodedEvent<'_>, ticket: Ticket) -> Result<(), KafkaError> {
        let record = BaseRecord::with_opaque_to(encoded.topic, Box::new(ticket))
            .key(encoded.event.partition_key())
            .payload(&encoded.value[..]);
        self.producer.send(record).map_err(|(error, _)| error)
    }

    fn fatal_error(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, text)| format!("{code}: {text}"))
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
    topic: &'a Arc<str>,
    event: Event<'a>,
    value: Vec<u8>,
}

fn register(registry: &Registry) -> Result<Counters, ConnectError> {
    Counters::register(registry).map_err(|error| ConnectError::Settings(error.to_string()))
}

fn is_queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
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
