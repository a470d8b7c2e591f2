//! Follows each event after it was queued: counts and times deliveries, and passes undelivered events to a
//! callback.

use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

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
    pub delivered: u64,
    pub failed: u64,
}

/// The emitter's metrics; clones share the counts.
#[derive(Clone)]
pub(super) struct Counters {
    accepted: IntCounter,
    refused: IntCounterVec,
    delivered: IntCounter,
    failed: IntCounterVec,
    failed_all: IntCounter,
    queue_events: IntGauge,
    queue_bytes: IntGauge,
    seconds: Histogram,
}

impl Counters {
    pub(super) fn register(registry: &Registry) -> Result<Counters, prometheus::Error> {
        let counters = Counters {
            accepted: IntCounter::new("producer_events_accepted_total", "Events put into the queue.")?,
            refused: IntCounterVec::new(
                Opts::new("producer_events_refused_total", "Events refused, by reason."),
                &["reason"],
            )?,
            delivered: IntCounter::new("producer_events_delivered_total", "Events acknowledged by Kafka.")?,
            failed: IntCounterVec::new(
                Opts::new(
                    "producer_events_failed_total",
                    "Events queued and given up, by Kafka's error code.",
                ),
                &["code"],
            )?,
            failed_all: IntCounter::new("unregistered", "The sum of the codes.")?,
            queue_events: IntGauge::new("producer_queue_events", "Events that wait for Kafka.")?,
            queue_bytes: IntGauge::new("producer_queue_bytes", "Encoded bytes that wait for Kafka.")?,
            seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "producer_delivery_seconds",
                    "Time from the queue to Kafka's acknowledgement.",
                )
                .buckets(DELIVERY_SECONDS.to_vec()),
            )?,
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

    pub(super) fn accepted(&self) {
        self.accepted.inc();
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn entered(&self, bytes: usize) {
        self.queue_events.inc();
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
        }
    }
}

/// Receives librdkafka's reports on its thread.
pub(super) struct Deliveries {
    counters: Counters,
    opened: Instant,
    undelivered: Box<dyn Fn(Undelivered) + Send + Sync>,
}

impl Deliveries {
    pub(super) fn new(
        counters: Counters,
        opened: Instant,
        undelivered: Box<dyn Fn(Undelivered) + Send + Sync>,
    ) -> Deliveries {
        Deliveries { counters, opened, undelivered }
    }

    fn failed(&self, error: &KafkaError, message: &BorrowedMessage<'_>) {
        let code =
            error.rdkafka_error_code().map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"));
        self.counters.failed.with_label_values(&[&code]).inc();
        self.counters.failed_all.inc();
        // Logs the first, second, fourth, ... failure: the log gives the number, not every event.
        let failed = self.counters.failed_all.get();
        if failed.is_power_of_two() {
            tracing::error!(topic = message.topic(), %error, failed, "events were not delivered");
        }
        (self.undelivered)(Undelivered {
            topic: message.topic().to_owned(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            reason: error.to_string(),
        });
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// Microseconds from the emitter's opening to the event's entry into the queue.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, entered: usize) {
        let bytes = match result {
            Ok(message) => {
                let micros = (self.opened.elapsed().as_micros() as usize).wrapping_sub(entered);
                self.counters.seconds.observe(micros as f64 / 1e6);
                self.counters.delivered.inc();
                message.payload_len()
            }
            Err((error, message)) => {
                self.failed(error, message);
                message.payload_len()
            }
        };
        // Counted last, so that the callback has been called for every failure when the queue is empty.
        self.counters.left(bytes);
    }
}
