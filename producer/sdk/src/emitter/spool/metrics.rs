//! The metrics of a spool.

use std::time::Duration;

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rdkafka::error::KafkaError;

/// Buckets for the time of one write and sync, in seconds: from a disk with a safe cache to one that fails.
const SYNC_SECONDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 5.0];

/// What an operation on the disk was.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    Write,
    Read,
    Delete,
}

/// The gauges and counters of one spool.
pub struct SpoolMetrics {
    events: IntGauge,
    bytes: IntGauge,
    oldest: Gauge,
    sync_seconds: Histogram,
    errors: IntCounterVec,
    returned: IntCounterVec,
    returned_all: IntCounter,
    damaged_bytes: IntCounter,
    torn_bytes: IntCounter,
}

impl SpoolMetrics {
    pub fn register(registry: &Registry) -> Result<SpoolMetrics, prometheus::Error> {
        let metrics = SpoolMetrics {
            events: IntGauge::new("producer_spool_events", "Events in the spool, not acknowledged.")?,
            bytes: IntGauge::new("producer_spool_bytes", "Bytes of the spool on the disk.")?,
            oldest: Gauge::new("producer_spool_oldest_seconds", "Age of the oldest event in the spool.")?,
            sync_seconds: Histogram::with_opts(
                HistogramOpts::new("producer_spool_sync_seconds", "Time of one write and sync.")
                    .buckets(SYNC_SECONDS.to_vec()),
            )?,
            errors: IntCounterVec::new(
                Opts::new("producer_spool_errors_total", "Failed operations on the disk."),
                &["operation"],
            )?,
            returned: IntCounterVec::new(
                Opts::new(
                    "producer_events_returned_total",
                    "Events that Kafka refused and that are sent again, by its error code.",
                ),
                &["code"],
            )?,
            returned_all: IntCounter::new("unregistered", "The sum of the codes.")?,
            damaged_bytes: IntCounter::new(
                "producer_spool_damaged_bytes_total",
                "Bytes of the spool that were damaged; their events are lost.",
            )?,
            torn_bytes: IntCounter::new(
                "producer_spool_torn_bytes_total",
                "Bytes of unfinished writes, which were never called durable, cut at a start.",
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.oldest.clone()))?;
        registry.register(Box::new(metrics.sync_seconds.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.returned.clone()))?;
        registry.register(Box::new(metrics.damaged_bytes.clone()))?;
        registry.register(Box::new(metrics.torn_bytes.clone()))?;
        Ok(metrics)
    }

    pub fn set(&self, events: usize, bytes: u64, oldest: Option<Duration>) {
        self.events.set(events as i64);
        self.bytes.set(bytes as i64);
        self.oldest.set(oldest.unwrap_or_default().as_secs_f64());
    }

    pub fn synced(&self, took: Duration) {
        self.sync_seconds.observe(took.as_secs_f64());
    }

    /// Returns the number of failures of this operation so far.
    pub fn error(&self, operation: Operation) -> u64 {
        let label = match operation {
            Operation::Write => "write",
            Operation::Read => "read",
            Operation::Delete => "delete",
        };
        let counter = self.errors.with_label_values(&[label]);
        counter.inc();
        counter.get()
    }

    /// Counts an event that the client gave back, and logs the first, second, fourth, ... of them.
    pub fn returned(&self, topic: &str, error: &KafkaError) {
        let code =
            error.rdkafka_error_code().map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"));
        self.returned.with_label_values(&[code.as_str()]).inc();
        self.returned_all.inc();
        let returned = self.returned_all.get();
        if returned.is_power_of_two() {
            tracing::warn!(topic, %error, returned, "kafka refused events, which are sent again");
        }
    }

    pub fn damaged(&self, bytes: usize) {
        self.damaged_bytes.inc_by(bytes as u64);
    }

    pub fn torn(&self, bytes: usize) {
        self.torn_bytes.inc_by(bytes as u64);
    }
}
