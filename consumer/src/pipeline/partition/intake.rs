//! Messages into a batch: each is decoded, deduplicated, verified and appended, or sent to the dead letters.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::error::RDKafkaErrorCode;
use schemas::avro::DecodeError;
use schemas::{Exposure, Micros, Uuid};

use super::actions::KAFKA_ANSWERS_WITHIN;
use super::{ClosedBatch, Gap, PartitionState, micros_now};
use crate::pipeline::batch::Circumstances;
use crate::pipeline::decode::Decoded;
use crate::pipeline::dedupe::WindowAnswer;
use crate::pipeline::fetch::{Fetched, Message};
use crate::pipeline::protocol::Closed;
use crate::pipeline::rows::{Rows, RuleVerdict};
use crate::pipeline::schema_cache::PlanCounts;
use crate::pipeline::verify::{NamedVersion, Verification};

/// Longest wait for the definitions log to reach a version that an exposure names.
const VERSION_WAIT: Duration = Duration::from_millis(500);
/// Shortest time between two such waits, so that a version that never existed cannot hold the stream up.
const VERSION_WAITS_APART: Duration = Duration::from_secs(5);

/// Messages decoded together before the next step.
const AT_ONCE: usize = 512;

/// A message with its record, or with the reason why it cannot be decoded.
type Taken<'a> = (Message<'a>, Result<Decoded<'a>, DecodeError>);

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    DeadLetter,
    Forgotten,
    Duplicate,
    /// A row.
    Row(Uuid, Micros),
    /// Created before the window's horizon: a row, unless ClickHouse has it.
    AskStore(Uuid, Micros),
}

/// How many messages had which outcome.
#[derive(Default)]
struct Counts {
    rows: u64,
    duplicates: u64,
    forgotten: u64,
}

impl Outcome {
    fn id(self) -> Option<Uuid> {
        match self {
            Outcome::Row(id, _) | Outcome::AskStore(id, _) => Some(id),
            _ => None,
        }
    }
}

impl PartitionState {
    /// Whether the batch being filled may take no more for now.
    pub(super) fn is_full(&self) -> bool {
        // A replayed batch is as large as it was announced, whatever the limits are now.
        self.replay.is_none()
            && (self.filling.reached_size(&self.shared.limits).is_some()
                || (self.shared.memory.is_spent() && (self.filling.row_count > 0 || self.closed.is_some())))
    }

    /// Closes the batch if it is due.
    pub(super) fn close_if_due(&mut self) -> Option<Closed> {
        let circumstances = Circumstances {
            now: Instant::now(),
            memory_is_spent: self.shared.memory.is_spent(),
            replay: self.replay.map(|intent| intent.span),
        };
        let due = self.filling.due(&self.shared.limits, &circumstances)?;
        let rows = self.shared.buffer_pool.take(self.place.table);
        let following = self.filling.following(rows, self.shared.memory.share());
        let batch = std::mem::replace(&mut self.filling, following);
        let topic = self.place.table.topic();
        let metrics = &self.shared.metrics;
        metrics.batch_rows.with_label_values(&[topic]).observe(batch.row_count as f64);
        metrics.batch_bytes.observe(batch.bytes() as f64);
        metrics.batch_age.observe(batch.age(Instant::now()).as_secs_f64());
        metrics.batches.with_label_values(&[topic, due.as_str()]).inc();
        let closed = Closed {
            span: batch.span().expect("a batch that is due covers an offset"),
            rows: batch.row_count as u64,
            kept: batch.rows.kept(),
            now_ms: micros_now().millis(),
        };
        self.closed = Some(ClosedBatch { batch, block: None });
        Some(closed)
    }

    /// Takes messages into the batch, or to the dead letters. An error leaves the batch unusable.
    pub(super) fn take(&mut self, fetched: &Fetched<'_>) -> Result<()> {
        let last = self.replay.map_or(u64::MAX, |intent| intent.span.last);
        // As many decoded messages as fit the processor's cache; all of them if ClickHouse has to be asked.
        let at_once = if self.asks_store { fetched.len() } else { AT_ONCE };
        let mut messages = fetched.iter().peekable();
        let mut decoded = Vec::with_capacity(at_once);
        let mut passed_last = false;
        let mut counts = Counts::default();
        while messages.peek().is_some() && !passed_last {
            let began = Instant::now();
            decoded.clear();
            for came in messages.by_ref().take(at_once) {
                let message = came.map_err(|code| self.fetch_failed(code))?;
                if message.offset < self.filling.next() {
                    // Fetched before the seek took effect.
                    continue;
                }
                self.check_first(message.offset)?;
                if message.offset > last {
                    passed_last = true;
                    break;
                }
                let held = self.decoded(&message)?;
                decoded.push((message, held));
            }
            self.stage("decode", began);
            let began = Instant::now();
            let outcomes = self.outcomes(&decoded)?;
            self.stage("dedupe", began);
            let began = Instant::now();
            self.append_all(&decoded, &outcomes, &mut counts)?;
            self.stage("append", began);
        }
        if passed_last {
            // The log has a gap at the batch's end, such as a transaction marker.
            self.filling.cover_until(last);
        }
        self.tally.flush(&self.shared.metrics.senders);
        let PlanCounts { at_hand, asked } = self.plans.take_counts();
        self.shared.metrics.schema_cache.with_label_values(&["hit"]).inc_by(at_hand);
        self.shared.metrics.schema_cache.with_label_values(&["miss"]).inc_by(asked);
        let counted = &self.shared.metrics.records;
        counted.with_label_values(&[self.place.table.topic(), "taken"]).inc_by(counts.rows);
        counted.with_label_values(&[self.place.table.topic(), "duplicate"]).inc_by(counts.duplicates);
        counted.with_label_values(&[self.place.table.topic(), "forgotten"]).inc_by(counts.forgotten);
        self.gauge(&self.shared.metrics.position).set(self.filling.next() as i64);
        Ok(())
    }

    /// Notes how far the partition has come, after everything fetched has been taken.
    pub(super) fn note_reached(&mut self, position: Option<u64>) {
        let Some(position) = position else { return };
        if Some(position) > self.reached {
            self.reached = Some(position);
            self.last_received = Instant::now();
        }
        if let Some(intent) = self.replay
            && position > intent.span.last
        {
            // The log ends in a gap, such as a transaction marker.
            self.filling.cover_until(intent.span.last);
        }
    }

    /// After an offset out of range, librdkafka stops fetching and takes no seek.
    fn fetch_failed(&mut self, code: RDKafkaErrorCode) -> anyhow::Error {
        self.must_rejoin |= code == RDKafkaErrorCode::AutoOffsetReset;
        anyhow!("fetching: {code}")
    }

    /// What becomes of each message. Each check runs over all messages before the next check begins: the tables of
    /// ids are larger than the processor's cache, and many look-ups at once take as long as one.
    fn outcomes(&mut self, decoded: &[Taken<'_>]) -> Result<Vec<Outcome>> {
        let events: Vec<(Uuid, Micros)> =
            decoded.iter().filter_map(|(_, held)| Some(held.as_ref().ok()?.identity())).collect();
        self.window.warm(&events);
        let mut outcomes = {
            let (ledger, mut window) = (self.shared.ledger.current(), self.window.reader());
            let outcome = |(_, held): &Taken<'_>| match held {
                Err(_) => Outcome::DeadLetter,
                Ok(decoded) if ledger.covers(decoded) => Outcome::Forgotten,
                Ok(decoded) => {
                    let (id, created_at) = decoded.identity();
                    match window.look_up(id, created_at) {
                        WindowAnswer::Seen => Outcome::Duplicate,
                        WindowAnswer::New => Outcome::Row(id, created_at),
                        WindowAnswer::AskStore => Outcome::AskStore(id, created_at),
                    }
                }
            };
            decoded.iter().map(outcome).collect::<Vec<Outcome>>()
        };
        if let Some(closed) = &self.closed {
            closed.batch.warm(&events);
            for outcome in &mut outcomes {
                if outcome.id().is_some_and(|id| closed.batch.has(id)) {
                    *outcome = Outcome::Duplicate;
                }
            }
        }
        self.ask_store(&mut outcomes)?;
        self.filling.warm(&events);
        for outcome in &mut outcomes {
            if let Outcome::Row(id, created_at) = *outcome
                && !self.filling.remember(id, created_at)
            {
                *outcome = Outcome::Duplicate;
            }
        }
        Ok(outcomes)
    }

    fn append_all(&mut self, decoded: &[Taken<'_>], outcomes: &[Outcome], counts: &mut Counts) -> Result<()> {
        let now = Instant::now();
        // Only rows hold memory; duplicates and dead letters leave nothing behind.
        let mut held = 0;
        for ((message, decoded), outcome) in decoded.iter().zip(outcomes) {
            match (decoded, outcome) {
                (Err(error), _) => self.dead_letter(message, error.code(), &error.to_string())?,
                (_, Outcome::Forgotten) => counts.forgotten += 1,
                (_, Outcome::Duplicate) => counts.duplicates += 1,
                (Ok(decoded), _) => {
                    self.append(decoded, message)?;
                    held += message.payload.len();
                    counts.rows += 1;
                }
            }
            self.filling.cover(message.offset, message.timestamp_ms, now);
        }
        self.filling.hold(held);
        Ok(())
    }

    /// The first message behind a seek must have the offset that was sought. The log may have a gap there (a
    /// transaction marker), so the same gap is accepted when it is seen twice.
    fn check_first(&mut self, came: u64) -> Result<()> {
        let Some(asked) = self.resumed_at.take() else { return Ok(()) };
        let gap = Gap { asked, came };
        if came == asked || self.gap == Some(gap) {
            return Ok(());
        }
        self.gap = Some(gap);
        Err(anyhow!("the first message behind offset {asked} is {came}; asking again"))
    }

    /// Asks ClickHouse which of the events older than the window are in the table.
    fn ask_store(&mut self, outcomes: &mut [Outcome]) -> Result<()> {
        let asked = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::AskStore(id, _) if !self.filling.has(*id) => Some(*id),
            _ => None,
        });
        let asked: Vec<Uuid> = asked.collect();
        self.asks_store = !asked.is_empty();
        let mut stored = HashSet::new();
        if self.asks_store {
            self.shared.metrics.store_lookups.inc_by(asked.len() as u64);
            let look_up = self.shared.store.look_up(&self.place, &asked);
            let found = self.shared.runtime.block_on(look_up).context("looking up ids of old events")?;
            stored.extend(found);
        }
        for outcome in outcomes {
            if let Outcome::AskStore(id, created_at) = *outcome {
                *outcome =
                    if stored.contains(&id) { Outcome::Duplicate } else { Outcome::Row(id, created_at) };
            }
        }
        Ok(())
    }

    fn append(&mut self, decoded: &Decoded<'_>, message: &Message<'_>) -> Result<()> {
        let offset = message.offset;
        let verification = match decoded {
            Decoded::Exposure(exposure) => self.verify(exposure),
            _ => Verification::Unknown,
        };
        match (decoded, &mut self.filling.rows) {
            (Decoded::Exposure(exposure), Rows::Exposures(rows)) => {
                self.tally.count(&exposure.sender.service, verification);
                rows.push(exposure, verification, offset);
            }
            (Decoded::Conversion(conversion), Rows::Conversions(rows)) => rows.push(conversion, offset),
            (Decoded::Alias(alias), Rows::Aliases(rows)) => rows.push(alias, offset),
            (Decoded::Change(change), Rows::Definitions(rows)) => {
                let log = self.shared.follower.wait_past(offset, KAFKA_ANSWERS_WITHIN);
                let refusal = log.verdicts.get(&offset).cloned();
                drop(log);
                let refusal =
                    refusal.context("the follower of the definitions log is behind the log's own mirror")?;
                rows.push(change, &RuleVerdict { refusal }, message.timestamp_ms, offset);
            }
            (Decoded::Look(record), Rows::Looks(rows)) => rows.push(record, message.timestamp_ms, offset),
            _ => unreachable!("each table decodes its own record"),
        }
        self.filling.row_count += 1;
        Ok(())
    }

    /// Compares an exposure with the definition version that it names. Each version is looked up once, and again when
    /// an exposure names a configuration that is later than the one of which its holdouts were taken.
    fn verify(&mut self, exposure: &Exposure<'_>) -> Verification {
        let version = exposure.definition_version;
        match self.named.binary_search_by_key(&version, |(known, _)| *known) {
            Ok(at) => {
                let configuration = exposure.configuration_version;
                // A configuration that the log never reaches must not cost a renewal for every message.
                let missed = self.missed_configuration.is_some_and(|at| at.elapsed() < VERSION_WAITS_APART);
                if self.named[at].1.is_older_than(configuration)
                    && !missed
                    && let Some(renewed) = self.name(version, configuration)
                {
                    self.missed_configuration = renewed.is_older_than(configuration).then(Instant::now);
                    self.named[at].1 = renewed;
                }
                self.named[at].1.verify(exposure)
            }
            Err(at) => {
                let Some(named) = self.name(version, exposure.configuration_version) else {
                    return Verification::Unknown;
                };
                let verification = named.verify(exposure);
                self.named.insert(at, (version, named));
                verification
            }
        }
    }

    /// What the definitions log holds for `version`. If the log has not reached it, or the configuration that was
    /// evaluated, waits for it, rarely and briefly.
    fn name(&mut self, version: u64, configuration: u64) -> Option<NamedVersion> {
        let follower = self.shared.follower.clone();
        let needed = version.max(configuration);
        let behind = needed > 0 && follower.lock().definitions.version() < needed;
        let rested = self.waited_for_version.is_none_or(|waited| waited.elapsed() >= VERSION_WAITS_APART);
        if behind && rested {
            self.waited_for_version = Some(Instant::now());
            return NamedVersion::of(&follower.wait_past(needed - 1, VERSION_WAIT).definitions, version);
        }
        NamedVersion::of(&follower.lock().definitions, version)
    }

    /// Sends a message to the dead letters. Waits while their queue is full.
    fn dead_letter(&mut self, message: &Message<'_>, code: &str, reason: &str) -> Result<()> {
        let topic = self.place.table.topic();
        tracing::warn!(
            topic,
            partition = self.place.partition,
            offset = message.offset,
            code,
            reason,
            "dead letter"
        );
        loop {
            let letters = &self.shared.dead_letters;
            if let Some(sent) = letters.send(&self.place, message.offset, code, reason, message.payload)? {
                self.unacknowledged.push(sent);
                self.shared.metrics.dead_letters.with_label_values(&[topic, code]).inc();
                self.shared.metrics.records.with_label_values(&[topic, "dead_letter"]).inc();
                return Ok(());
            }
            if self.stop.is_requested() {
                return Err(anyhow!("told to stop while waiting for room among the dead letters"));
            }
            self.acknowledge_dead_letters()?;
        }
    }

    pub(super) fn acknowledge_dead_letters(&mut self) -> Result<()> {
        if self.unacknowledged.is_empty() {
            return Ok(());
        }
        let sent = std::mem::take(&mut self.unacknowledged);
        self.shared.runtime.block_on(self.shared.dead_letters.acknowledged(sent))
    }
}
