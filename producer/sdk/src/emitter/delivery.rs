//! Follows each event after it was queued: counts and times deliveries, tells the spool and the waiting caller, and
//! passes undelivered events to a callback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::receipts::{Durable, NotDurable, Receipt};
use super::spool::{Failure, Record, Seq, Shared};

/// Buckets for the time from the queue to the acknowledgement, in seconds: from a nearby broker to one that was
/// restarted.
const DELIVERY_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// A queued event that will not be delivered, with everything that is needed to send it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    pub topic: String,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub reason: String,
}

/// The counts of an emitter's events by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub accepted: u64,
    /// Acknowledged by Kafka.
    pub delivered: u64,
    /// Accepted and given up.
    pub failed: u64,
    pub refused: u64,
    /// Of the accepted ones, those that were synced in the spool.
    pub spooled: u64,
    /// Events of an earlier process, found in the spool, that Kafka has now acknowledged. No other count has them.
    pub replayed: u64,
}

/// The callback for events that will not be delivered.
pub(super) type OnUndelivered = Arc<dyn Fn(Undelivered) + Send + Sync>;

/// The emitter's metrics; clones share the counts.
#[derive(Clone)]
pub(super) struct Counters {
    accepted: IntCounter,
    refused: IntCounterVec,
    refused_all: IntCounter,
    delivered: IntCounter,
    failed: IntCounterVec,
    failed_all: IntCounter,
    pub(super) spooled: IntCounter,
    replayed: IntCounter,
    queue_events: IntGauge,
    queue_bytes: IntGauge,
    seconds: Histogram,
    opened: Instant,
    /// Microseconds from `opened` to the last acknowledgement, or to the entry of the first event after the queue was
    /// empty.
    progress: Arc<AtomicU64>,
}

impl Counters {
    pub(super) fn register(registry: &Registry) -> Result<Counters, prometheus::Error> {
        let counters = Counters {
            accepted: IntCounter::new("producer_events_accepted_total", "Events put into the queue.")?,
            refused: IntCounterVec::new(
                Opts::new("producer_events_refused_total", "Events refused, by reason."),
                &["reason"],
            )?,
            refused_all: IntCounter::new("unregistered", "The sum of the reasons.")?,
            delivered: IntCounter::new("producer_events_delivered_total", "Events acknowledged by Kafka.")?,
            failed: IntCounterVec::new(
                Opts::new(
                    "producer_events_failed_total",
                    "Events queued and given up, by Kafka's error code.",
                ),
                &["code"],
            )?,
            failed_all: IntCounter::new("unregistered", "The sum of the codes.")?,
            spooled: IntCounter::new("producer_events_spooled_total", "Events synced in the spool.")?,
            replayed: IntCounter::new(
                "producer_events_replayed_total",
                "Events of an earlier process, from the spool, acknowledged by Kafka.",
            )?,
            queue_events: IntGauge::new("producer_queue_events", "Events that wait for Kafka.")?,
            queue_bytes: IntGauge::new("producer_queue_bytes", "Encoded bytes that wait for Kafka.")?,
            seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "producer_delivery_seconds",
                    "Time from the queue to Kafka's acknowledgement.",
                )
                .buckets(DELIVERY_SECONDS.to_vec()),
            )?,
            opened: Instant::now(),
            progress: Arc::default(),
        };
        registry.register(Box::new(counters.accepted.clone()))?;
        registry.register(Box::new(counters.refused.clone()))?;
        registry.register(Box::new(counters.delivered.clone()))?;
        registry.register(Box::new(counters.failed.clone()))?;
        registry.register(Box::new(counters.queue_events.clone()))?;
        registry.register(Box::new(counters.queue_bytes.clone()))?;
        registry.register(Box::new(counters.seconds.clone()))?;
        Ok(counters)
    }

    /// Registers the counts of events that only an emitter with a spool has.
    pub(super) fn register_spool(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.spooled.clone()))?;
        registry.register(Box::new(self.replayed.clone()))
    }

    pub(super) fn accepted(&self) {
        self.accepted.inc();
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
        self.refused_all.inc();
    }

    pub(super) fn entered(&self, events: usize, bytes: usize) {
        if self.queue_events.get() == 0 {
            self.note_progress();
        }
        self.queue_events.add(events as i64);
        self.queue_bytes.add(bytes as i64);
    }

    pub(super) fn left(&self, bytes: usize) {
        self.queue_events.dec();
        self.queue_bytes.sub(bytes as i64);
    }

    pub(super) fn remaining(&self) -> u64 {
        self.queue_events.get().try_into().expect("an event enters the queue before it leaves it")
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            accepted: self.accepted.get(),
            delivered: self.delivered.get(),
            failed: self.failed_all.get(),
            refused: self.refused_all.get(),
            spooled: self.spooled.get(),
            replayed: self.replayed.get(),
        }
    }

    /// For how long Kafka has acknowledged nothing although events wait; `None` if none waits.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        let since = Duration::from_micros(self.progress.load(Ordering::Relaxed));
        (self.remaining() > 0).then(|| self.opened.elapsed().saturating_sub(since))
    }

    /// Counts an event that is given up, and logs the first, second, fourth, ... of them: the log gives the number,
    /// not every event.
    pub(super) fn failed(&self, code: &str, topic: &str, reason: &str) {
        self.failed.with_label_values(&[code]).inc();
        self.failed_all.inc();
        let failed = self.failed_all.get();
        if failed.is_power_of_two() {
            tracing::error!(topic, reason, failed, "events were not delivered");
        }
    }

    fn note_progress(&self) {
        self.progress.store(self.opened.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// What is remembered of an event while the client has it.
pub(super) struct Ticket {
    /// When the client got it.
    pub(super) entered: Instant,
    /// Its number in the ledger of the spool, if there is one.
    pub(super) seq: Option<Seq>,
    /// The caller that waits, if there is no spool.
    pub(super) receipt: Option<Receipt>,
}

/// Receives librdkafka's reports on its thread.
pub(super) struct Deliveries {
    counters: Counters,
    undelivered: OnUndelivered,
    spool: Option<Arc<Shared>>,
}

impl Deliveries {
    pub(super) fn new(
        counters: Counters,
        undelivered: OnUndelivered,
        spool: Option<Arc<Shared>>,
    ) -> Deliveries {
        Deliveries { counters, undelivered, spool }
    }

    fn acknowledged(&self, ticket: Ticket) {
        self.counters.note_progress();
        self.counters.seconds.observe(ticket.entered.elapsed().as_secs_f64());
        if let Some(receipt) = ticket.receipt {
            // The caller may have stopped waiting.
            let _ = receipt.send(Ok(Durable::Acknowledged));
        }
        let replayed = match (&self.spool, ticket.seq) {
            (Some(spool), Some(seq)) => spool.acknowledged(seq),
            _ => false,
        };
        if replayed {
            self.counters.replayed.inc();
        } else {
            self.counters.delivered.inc();
        }
    }

    /// Returns whether the event is given up; otherwise the spool sends it again.
    fn failed(&self, error: &KafkaError, message: &BorrowedMessage<'_>, ticket: Ticket) -> bool {
        if let (Some(spool), Some(seq)) = (&self.spool, ticket.seq)
            && spool.failed(seq, message.topic(), error) == Failure::Kept
        {
            return false;
        }
        let code =
            error.rdkafka_error_code().map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"));
        let reason = error.to_string();
        self.counters.failed(&code, message.topic(), &reason);
        if let Some(receipt) = ticket.receipt {
            let _ = receipt.send(Err(NotDurable::Failed { reason: reason.clone() }));
        }
        (self.undelivered)(Undelivered {
            topic: message.topic().to_owned(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            reason,
        });
        true
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let (message, left) = match result {
            Ok(message) => {
                self.acknowledged(*ticket);
                (message, true)
            }
            Err((error, message)) => (message, self.failed(error, message, *ticket)),
        };
        // Counted last, so that the callback has been called for every failure when the queue is empty.
        if left {
            self.counters.left(message.payload_len());
        }
    }
}

impl Undelivered {
    pub(super) fn of(record: &Record, reason: String) -> Undelivered {
        Undelivered {
            topic: record.topic.to_string(),
            key: record.key.to_vec(),
            value: record.value.to_vec(),
            reason,
        }
    }
}
