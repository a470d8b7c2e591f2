//! The consumer's metrics, named here without the common prefix. Labels are few and bounded.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::pipeline::tally::Senders;

#[derive(Clone)]
pub struct Metrics {
    /// Messages by outcome: taken, inserted, duplicate, forgotten, dead_letter.
    pub records: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub batch_rows: HistogramVec,
    pub batch_bytes: Histogram,
    pub batch_age: Histogram,
    /// By stage: fetch, decode, dedupe, append, encode, intent, insert, count, commit.
    stage_seconds: HistogramVec,
    /// By ClickHouse's code; 0 is success.
    pub insert_attempts: IntCounterVec,
    /// Counts of a batch's rows in the table: present, absent.
    pub verdicts: IntCounterVec,
    pub batches: IntCounterVec,
    pub insert_seconds: Histogram,
    /// Failures after which a partition started over from what is durable, by reason.
    pub recoveries: IntCounterVec,
    pub ended_inserts: IntCounter,
    pub rebalances: IntCounterVec,
    pub rebalance_drain: Histogram,
    pub durable_offset: IntGaugeVec,
    pub committed_offset: IntGaugeVec,
    pub position: IntGaugeVec,
    pub lag: IntGaugeVec,
    /// 1 from a failure until the partition has made progress.
    pub stalled: IntGaugeVec,
    /// 1 while it waits for an operator.
    pub halted: IntGaugeVec,
    pub lost_offsets: IntGaugeVec,
    pub on_their_way: IntGauge,
    pub window_ids: IntGaugeVec,
    pub window_bytes: IntGaugeVec,
    pub window_oldest_seconds: IntGaugeVec,
    pub store_lookups: IntCounter,
    /// Of messages in a registry's framing, by result: hit, miss.
    pub schema_cache: IntCounterVec,
    /// Exposures by verification and sender.
    pub senders: Arc<Senders>,
    pub commit_failures: IntCounter,
    pub end_to_end: Histogram,
}

impl Metrics {
    /// Counts the time since `began` towards a stage.
    pub fn stage(&self, stage: &str, began: Instant) {
        self.stage_seconds.with_label_values(&[stage]).observe(began.elapsed().as_secs_f64());
    }

    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let seconds = || prometheus::exponential_buckets(0.005, 2.0, 14);
        let batch_rows = HistogramVec::new(
            HistogramOpts::new("consumer_batch_rows", "rows of a batch")
                .buckets(prometheus::exponential_buckets(1.0, 4.0, 10)?),
            &["topic"],
        )?;
        registry.register(Box::new(batch_rows.clone()))?;
        let stage_seconds = HistogramVec::new(
            HistogramOpts::new("consumer_stage_seconds", "time that a stage took, by stage")
                .buckets(prometheus::exponential_buckets(0.000_1, 4.0, 10)?),
            &["stage"],
        )?;
        registry.register(Box::new(stage_seconds.clone()))?;
        let on_their_way =
            IntGauge::new("consumer_inserts_on_their_way", "batches sent and not yet answered")?;
        registry.register(Box::new(on_their_way.clone()))?;
        let place = &["topic", "partition"];
        Ok(Metrics {
            records: counters(
                "consumer_records_total",
                "messages by what became of them",
                &["topic", "result"],
            )?,
            dead_letters: counters(
                "consumer_dead_letters_total",
                "messages sent to the dead letters",
                &["topic", "code"],
            )?,
            batch_rows,
            batch_bytes: histogram(
                "consumer_batch_bytes",
                "bytes of a batch's messages",
                prometheus::exponential_buckets(1_024.0, 4.0, 9)?,
            )?,
            batch_age: histogram("consumer_batch_age_seconds", "age of a batch when closed", seconds()?)?,
            batches: counters("consumer_batches_total", "batches closed, by reason", &["topic", "due"])?,
            stage_seconds,
            insert_attempts: counters(
                "consumer_insert_attempts_total",
                "inserts by ClickHouse's code; 0 is success",
                &["code"],
            )?,
            verdicts: counters(
                "consumer_batch_verdicts_total",
                "what the table said when it was asked for a batch's rows",
                &["verdict"],
            )?,
            insert_seconds: histogram(
                "consumer_insert_seconds",
                "from sending a batch to its answer",
                seconds()?,
            )?,
            recoveries: counters(
                "consumer_recoveries_total",
                "times that a partition started over from what is durable, by reason",
                &["reason"],
            )?,
            ended_inserts: counter(
                "consumer_ended_inserts_total",
                "inserts of earlier writers that still ran and were ended",
            )?,
            rebalances: counters("consumer_rebalances_total", "changes of the assignment", &["kind"])?,
            rebalance_drain: histogram(
                "consumer_rebalance_drain_seconds",
                "from partitions being taken away to their workers having ended",
                seconds()?,
            )?,
            durable_offset: gauges(
                "consumer_durable_offset",
                "last offset that is durable in ClickHouse",
                place,
            )?,
            committed_offset: gauges(
                "consumer_committed_offset",
                "offset committed to Kafka, as far as this process knows",
                place,
            )?,
            lag: gauges(
                "consumer_lag",
                "messages behind the end of the partition when a batch landed",
                place,
            )?,
            position: gauges("consumer_position", "offset after the last message taken", place)?,
            stalled: gauges("consumer_stalled", "1 while the partition refuses to go on", place)?,
            halted: gauges(
                "consumer_halted",
                "1 while the partition waits for an operator's decision",
                place,
            )?,
            lost_offsets: gauges(
                "consumer_lost_offsets",
                "offsets that the broker no longer has and the table never had",
                place,
            )?,
            on_their_way,
            window_ids: gauges("consumer_window_ids", "event ids remembered", place)?,
            window_bytes: gauges("consumer_window_bytes", "memory of the event ids remembered", place)?,
            window_oldest_seconds: gauges(
                "consumer_window_oldest_seconds",
                "age up to which event ids are remembered; older ones are looked up in ClickHouse",
                place,
            )?,
            store_lookups: counter(
                "consumer_window_misses_total",
                "event ids looked up in ClickHouse, older than the window",
            )?,
            schema_cache: counters(
                "consumer_schema_cache_total",
                "messages in a registry's framing by whether their writer's schema was at hand",
                &["result"],
            )?,
            senders: Arc::new(Senders::new(counters(
                "consumer_exposures_total",
                "exposures by verification and by the service that sent them",
                &["verification", "sender"],
            )?)),
            commit_failures: counter(
                "consumer_commit_failures_total",
                "offset commits that failed; harmless by themselves",
            )?,
            end_to_end: histogram(
                "consumer_end_to_end_seconds",
                "from the broker's time stamp of a batch's oldest message to its rows being durable",
                seconds()?,
            )?,
        })
    }
}
