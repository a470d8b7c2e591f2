//! One Kafka partition on its way into its table: fetch, decode, verify, dedupe, batch, insert, commit.
//!
//! Exactly once rests on three things. A batch is one block, so it is in the table as a whole or not at all.
//! Every row carries the offsets of its batch, so the table itself says where to go on. And nothing is ever
//! sent twice in the hope that it was not taken: at the start, and whenever an insert's outcome is not a
//! clean answer, whatever still runs is ended, the durable offset is read again and the work goes on behind
//! it. Kafka's committed offsets follow and decide nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use schemas::{Micros, Uuid};
use tokio::runtime::Handle;

use crate::batch::{Batch, Due, Limits, Span, Stamp};
use crate::dead_letters::{DeadLetters, Sent};
use crate::decode::{Decoded, decode};
use crate::dedupe::{Known, Window};
use crate::definitions::Follower;
use crate::fetch::{Fetched, Message};
use crate::group::{Assigned, GroupConsumer, Stop};
use crate::metrics::Metrics;
use crate::rows::{Rows, Verdict};
use crate::store::{Place, Store};
use crate::verify::verify;

mod start;

use start::start_offset;

/// Longest wait for messages; also how soon a stop is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Pauses between attempts to go on, doubling from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const KAFKA_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for the definitions log to reach a version that an exposure names, and the shortest time
/// between two such waits, so that a version nobody ever made cannot hold the stream up.
const VERSION_WAIT: Duration = Duration::from_millis(500);
const VERSION_WAITS_APART: Duration = Duration::from_secs(5);

/// What all workers of a process share.
pub struct Shared {
    pub store: Store,
    pub dead_letters: DeadLetters,
    pub follower: Arc<Follower>,
    pub metrics: Metrics,
    pub runtime: Handle,
    pub limits: Limits,
    pub window_micros: i64,
    pub window_ids: usize,
    /// How long a worker that must go may wait for what it has on its way.
    pub wind_up: Duration,
}

/// The worker of one partition.
pub struct Worker {
    assigned: Assigned,
    line: Line,
}

/// Everything of a worker but its source.
struct Line {
    place: Place,
    consumer: Arc<GroupConsumer>,
    shared: Arc<Shared>,
    stop: Stop,
    progress: ops::Progress,
    window: Window,
    /// Ids of rows that are in a batch and not yet durable.
    pending: HashSet<Uuid>,
    /// Dead letters sent and not yet acknowledged.
    dead: Vec<Sent>,
    /// The offset at which a token was found used up without its rows, and how often.
    poisoned: Option<(u64, u32)>,
    waited_for_version: Option<Instant>,
}

/// A batch that was sent and whose answer is awaited. There is at most one for each partition.
struct OnItsWay {
    span: Span,
    ids: Vec<(Uuid, Micros)>,
    rows: usize,
    oldest_ms: i64,
    sent: Instant,
    /// Whether a clean answer has to be checked against the table: so for the first batch after a start, when
    /// an earlier writer's insert may have come in between.
    read_back: bool,
    answer: mpsc::Receiver<Result<()>>,
}

/// Why a worker stopped consuming.
enum End {
    Stopped,
    /// What is durable is not known for sure.
    Doubt {
        reason: &'static str,
        error: anyhow::Error,
    },
}

impl Worker {
    pub fn new(
        assigned: Assigned,
        place: Place,
        consumer: Arc<GroupConsumer>,
        shared: Arc<Shared>,
        stop: Stop,
        progress: ops::Progress,
    ) -> Worker {
        let window = Window::new(Micros::MAX, shared.window_ids);
        let line = Line {
            place,
            consumer,
            shared,
            stop,
            progress,
            window,
            pending: HashSet::new(),
            dead: Vec::new(),
            poisoned: None,
            waited_for_version: None,
        };
        Worker { assigned, line }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        while let Some(start) = self.line.recover() {
            match self.consume(start) {
                End::Stopped => break,
                End::Doubt { reason, error } => self.line.doubt(reason, &error),
            }
        }
        self.line.set_stalled(false);
        self.line.progress.done();
    }

    /// The way of the messages from `start` on. Returns when the partition is taken away or when an outcome
    /// is in doubt; what was not durable then is fetched again.
    fn consume(&mut self, start: u64) -> End {
        let limits = self.line.shared.limits;
        let table = self.line.place.table;
        let mut filling = Batch::open(table, start);
        let mut oldest_ms = i64::MAX;
        let mut on_its_way: Option<OnItsWay> = None;
        let mut read_back = true;
        let mut committed = start;

        while !self.line.stop.said() {
            self.line.progress.touch();

            // fetch, decode, verify, dedupe, append; a full batch waits for the one before it to land
            if !filling.full(&limits) {
                let fetched = self.assigned.queue.fetch(FETCH_WAIT);
                oldest_ms = oldest_ms.min(oldest_timestamp(&fetched));
                if let Err(error) = self.line.take(&fetched, &mut filling) {
                    return End::Doubt { reason: "take", error };
                }
            }

            // has the batch before landed?
            if let Some(sent) = &on_its_way {
                let patience = if filling.full(&limits) { FETCH_WAIT } else { Duration::ZERO };
                match sent.answered(patience) {
                    None => {}
                    Some(Err(error)) => return End::Doubt { reason: "insert", error },
                    Some(Ok(())) => {
                        if let Err(error) = self.line.landed(sent) {
                            return End::Doubt { reason: "read_back", error };
                        }
                        committed = sent.span.last + 1;
                        self.line.commit(committed, CommitMode::Async);
                        read_back = false;
                        on_its_way = None;
                    }
                }
            }
            if on_its_way.is_some() {
                continue;
            }

            // close and insert, or let a tail without rows be committed
            if let Some(due) = filling.due(&limits, Instant::now()) {
                let closed = std::mem::replace(&mut filling, Batch::open(table, start));
                filling = Batch::open(table, closed.next());
                match self.line.send(closed, due, read_back, std::mem::replace(&mut oldest_ms, i64::MAX)) {
                    Ok(sent) => on_its_way = Some(sent),
                    Err(error) => return End::Doubt { reason: "dead_letters", error },
                }
            } else if filling.row_count == 0 && filling.next() > committed {
                if let Err(error) = self.line.acknowledge_dead_letters() {
                    return End::Doubt { reason: "dead_letters", error };
                }
                committed = filling.next();
                self.line.commit(committed, CommitMode::Async);
            }
        }
        self.line.wind_up(on_its_way);
        End::Stopped
    }
}

impl Line {
    /// Finds out where to go on and holds the partition there. `None` when told to stop.
    fn recover(&mut self) -> Option<u64> {
        let mut pause = BACK_OFF.0;
        while !self.stop.said() {
            self.progress.touch();
            match self.try_recover() {
                Ok(start) => {
                    self.set_stalled(false);
                    tracing::info!(
                        topic = self.place.topic,
                        partition = self.place.partition,
                        start,
                        "going on"
                    );
                    return Some(start);
                }
                Err(error) => {
                    self.set_stalled(true);
                    let (topic, partition) = (&self.place.topic, self.place.partition);
                    tracing::warn!(topic, partition, "cannot go on yet: {error:#}");
                    self.wait(pause);
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
        None
    }

    /// End what still runs, read what is durable, remember its ids, seek behind it: in this order.
    fn try_recover(&mut self) -> Result<u64> {
        let Shared { store, runtime, metrics, .. } = &*self.shared;
        let place = &self.place;
        self.pending.clear();
        self.dead.clear();

        let ended = runtime.block_on(store.end_inserts(place)).context("ending inserts that still run")?;
        metrics.ended_inserts.inc_by(ended);
        let durable = runtime.block_on(store.durable(place)).context("reading the durable offset")?;
        let (low, high) = self
            .consumer
            .fetch_watermarks(&place.topic, place.partition.into(), KAFKA_ANSWERS_WITHIN)
            .context("asking the broker for the ends of the partition")?;
        let start = start_offset(durable, low, high)?;
        if place.table.holds_events() {
            let now = micros_now();
            let horizon = Micros::new(now.get() - self.shared.window_micros).unwrap_or(now);
            let (ids, complete_since) = runtime
                .block_on(store.ids_since(place, horizon, self.shared.window_ids))
                .context("reading the ids of recent events")?;
            self.window = Window::new(complete_since, self.shared.window_ids);
            for (id, created_at) in ids {
                self.window.enter(id, created_at);
            }
        }
        self.seek(start)?;
        self.note_durable(durable);
        Ok(start)
    }

    /// Lets the partition run from `start`. A partition that was just assigned takes a moment to be seekable.
    fn seek(&self, start: u64) -> Result<()> {
        let (topic, partition) = (self.place.topic.as_str(), i32::from(self.place.partition));
        let offset = i64::try_from(start).context("an offset beyond 2^63")?;
        self.consumer
            .seek(topic, partition, Offset::Offset(offset), KAFKA_ANSWERS_WITHIN)
            .with_context(|| format!("seeking to {start}"))?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(topic, partition);
        self.consumer.resume(&partitions).context("letting the partition run")
    }

    /// Takes messages into the batch: decoded, verified, deduplicated; what cannot be a row goes to the dead
    /// letters. An error leaves the batch unusable.
    fn take(&mut self, fetched: &Fetched<'_>, batch: &mut Batch) -> Result<()> {
        let mut decoded = Vec::with_capacity(fetched.len());
        for message in fetched.iter() {
            let message = message.map_err(|code| anyhow!("fetching: {code}"))?;
            if message.offset < batch.next() {
                // Fetched before the seek took hold.
                continue;
            }
            decoded.push((message, decode(self.place.table, message.payload)));
        }
        let stored = self.ask_store(decoded.iter().filter_map(|(_, decoded)| decoded.as_ref().ok()))?;
        let now = Instant::now();
        let (mut duplicates, mut rows) = (0, 0);
        for (message, decoded) in &decoded {
            match decoded {
                Err(error) => self.bury(message, error.code(), &error.to_string())?,
                Ok(decoded) => {
                    let identity = decoded.identity();
                    if identity.is_some_and(|(id, created_at)| self.is_known(id, created_at, &stored)) {
                        duplicates += 1;
                    } else {
                        self.append(decoded, message, batch)?;
                        rows += 1;
                        if let Some((id, created_at)) = identity {
                            self.pending.insert(id);
                            batch.ids.push((id, created_at));
                        }
                    }
                }
            }
            batch.cover(message.offset, message.payload.len(), now);
        }
        let counted = &self.shared.metrics.records;
        counted.with_label_values(&[self.place.table.topic(), "taken"]).inc_by(rows);
        counted.with_label_values(&[self.place.table.topic(), "duplicate"]).inc_by(duplicates);
        self.gauge(&self.shared.metrics.position).set(batch.next() as i64);
        Ok(())
    }

    /// Which of the events that the window cannot know are in the table.
    fn ask_store<'a>(&self, events: impl Iterator<Item = &'a Decoded<'a>>) -> Result<HashSet<Uuid>> {
        let asked: Vec<Uuid> = events
            .filter_map(Decoded::identity)
            .filter(|(id, created_at)| {
                !self.pending.contains(id) && self.window.know(*id, *created_at) == Known::AskStore
            })
            .map(|(id, _)| id)
            .collect();
        if asked.is_empty() {
            return Ok(HashSet::new());
        }
        self.shared.metrics.store_look_ups.inc_by(asked.len() as u64);
        let look_up = self.shared.store.look_up(self.place.table, &asked);
        let found = self.shared.runtime.block_on(look_up).context("looking up ids of old events")?;
        Ok(found.into_iter().collect())
    }

    fn is_known(&self, id: Uuid, created_at: Micros, stored: &HashSet<Uuid>) -> bool {
        self.pending.contains(&id)
            || match self.window.know(id, created_at) {
                Known::Seen => true,
                Known::New => false,
                Known::AskStore => stored.contains(&id),
            }
    }

    fn append(&mut self, decoded: &Decoded<'_>, message: &Message<'_>, batch: &mut Batch) -> Result<()> {
        let offset = message.offset;
        match (decoded, &mut batch.rows) {
            (Decoded::Exposure(exposure), Rows::Exposures(rows)) => {
                let log = self.log_of_version(exposure.definition_version);
                let verification = verify(&log.definitions, exposure);
                drop(log);
                self.shared.metrics.exposures.with_label_values(&[verification.as_str()]).inc();
                rows.push(exposure, verification, offset);
            }
            (Decoded::Conversion(conversion), Rows::Conversions(rows)) => rows.push(conversion, offset),
            (Decoded::Alias(alias), Rows::Aliases(rows)) => rows.push(alias, offset),
            (Decoded::Change(change), Rows::Definitions(rows)) => {
                let log = self.shared.follower.past(offset, KAFKA_ANSWERS_WITHIN);
                let refusal = log.verdicts.get(&offset).cloned();
                drop(log);
                let refusal =
                    refusal.context("the follower of the definitions log is behind the log's own mirror")?;
                rows.push(change, &Verdict { refusal }, message.timestamp_ms, offset);
            }
            _ => unreachable!("each table decodes its own record"),
        }
        batch.row_count += 1;
        Ok(())
    }

    /// The definitions log, which should know `version`: waited for once in a while, never for long.
    fn log_of_version(&mut self, version: u64) -> std::sync::MutexGuard<'_, crate::definitions::Log> {
        let behind = version > 0 && self.shared.follower.lock().definitions.version() < version;
        let rested = self.waited_for_version.is_none_or(|waited| waited.elapsed() >= VERSION_WAITS_APART);
        if behind && rested {
            self.waited_for_version = Some(Instant::now());
            return self.shared.follower.past(version - 1, VERSION_WAIT);
        }
        self.shared.follower.lock()
    }

    /// Sends a message to the dead letters, waiting for room if need be.
    fn bury(&mut self, message: &Message<'_>, code: &str, reason: &str) -> Result<()> {
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
                self.dead.push(sent);
                self.shared.metrics.dead_letters.with_label_values(&[topic, code]).inc();
                self.shared.metrics.records.with_label_values(&[topic, "dead_letter"]).inc();
                return Ok(());
            }
            if self.stop.said() {
                return Err(anyhow!("told to stop while waiting for room among the dead letters"));
            }
            self.acknowledge_dead_letters()?;
        }
    }

    fn acknowledge_dead_letters(&mut self) -> Result<()> {
        if self.dead.is_empty() {
            return Ok(());
        }
        let sent = std::mem::take(&mut self.dead);
        self.shared.runtime.block_on(self.shared.dead_letters.acknowledged(sent))
    }

    /// Sends a closed batch, its dead letters being acknowledged first. The answer comes later.
    fn send(&mut self, batch: Batch, due: Due, read_back: bool, oldest_ms: i64) -> Result<OnItsWay> {
        self.acknowledge_dead_letters()?;
        let span = batch.span().expect("a batch with rows covers their offsets");
        let poisoned = self.poisoned.filter(|(first, _)| *first == span.first).map_or(0, |(_, times)| times);
        let now = Instant::now();
        let attempt = self.place.attempt(span, poisoned, Uuid::now_v7().as_u64_pair().1);
        let stamp = Stamp {
            partition: self.place.partition,
            epoch: self.place.epoch,
            first: span.first,
            last: span.last,
            ingest_ms: micros_now().millis(),
        };
        let topic = self.place.table.topic();
        let metrics = &self.shared.metrics;
        metrics.batch_rows.with_label_values(&[topic]).observe(batch.row_count as f64);
        metrics.batch_age.observe(batch.age(now).as_secs_f64());
        metrics.batches.with_label_values(&[topic, due.as_str()]).inc();
        metrics.on_their_way.inc();

        let block = Bytes::from(batch.rows.encode(batch.row_count, &stamp));
        let (topic, partition) = (&self.place.topic, self.place.partition);
        tracing::info!(
            topic,
            partition,
            first = span.first,
            last = span.last,
            rows = batch.row_count,
            "inserting"
        );
        let (answer_to, answer) = mpsc::sync_channel(1);
        let (shared, table) = (self.shared.clone(), self.place.table);
        self.shared.runtime.spawn(async move {
            let inserted = shared.store.insert(table, &attempt, block).await.map_err(anyhow::Error::from);
            shared.metrics.on_their_way.dec();
            // A worker that ended meanwhile does not ask any more; the next one reads the table.
            let _ = answer_to.send(inserted);
        });
        Ok(OnItsWay { span, ids: batch.ids, rows: batch.row_count, oldest_ms, sent: now, read_back, answer })
    }

    /// A clean answer: read back where that is due, then the rows count as durable.
    fn landed(&mut self, sent: &OnItsWay) -> Result<()> {
        let Span { first, last } = sent.span;
        if sent.read_back {
            let read = self.shared.store.durable(&self.place);
            let durable = self.shared.runtime.block_on(read).context("reading the first batch back")?;
            if durable != Some(last) {
                let times = self.poisoned.filter(|(known, _)| *known == first).map_or(0, |(_, times)| times);
                if durable.is_none_or(|durable| durable < first) {
                    self.poisoned = Some((first, times + 1));
                    self.shared.metrics.poisoned_tokens.inc();
                }
                return Err(anyhow!(
                    "the insert of {first} to {last} was answered as done; durable is {durable:?}"
                ));
            }
        }
        for (id, created_at) in &sent.ids {
            self.pending.remove(id);
            self.window.enter(*id, *created_at);
        }
        let now = micros_now();
        if let Ok(horizon) = Micros::new(now.get() - self.shared.window_micros) {
            self.window.advance(horizon);
        }
        self.note_durable(Some(last));
        let metrics = &self.shared.metrics;
        metrics.records.with_label_values(&[self.place.table.topic(), "inserted"]).inc_by(sent.rows as u64);
        metrics.insert_seconds.observe(sent.sent.elapsed().as_secs_f64());
        metrics.end_to_end.observe((now.millis() - sent.oldest_ms).max(0) as f64 / 1_000.0);
        self.gauge(&metrics.window_ids).set(self.window.ids() as i64);
        let (topic, partition) = (&self.place.topic, self.place.partition);
        tracing::info!(topic, partition, first, last, rows = sent.rows, "inserted");
        Ok(())
    }

    /// Tells Kafka how far the partition is done. For people who watch the lag; nothing depends on it.
    fn commit(&self, next: u64, mode: CommitMode) {
        if self.stop.lost() || self.consumer.assignment_lost() {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        let committed = offsets
            .add_partition_offset(&self.place.topic, self.place.partition.into(), Offset::Offset(next as i64))
            .and_then(|()| self.consumer.commit(&offsets, mode));
        if let Err(error) = committed {
            self.shared.metrics.commit_failures.inc();
            tracing::debug!(%error, next, "committing; the next commit covers it");
        }
    }

    /// The partition is taken away: what is on its way may land for a bounded time, what is being filled is
    /// dropped, since nothing durable refers to it.
    fn wind_up(&mut self, on_its_way: Option<OnItsWay>) {
        let Some(sent) = on_its_way else { return };
        if self.stop.lost() {
            return;
        }
        match sent.answered(self.shared.wind_up) {
            Some(Ok(())) if self.landed(&sent).is_ok() => self.commit(sent.span.last + 1, CommitMode::Sync),
            _ => tracing::info!(
                topic = self.place.topic,
                "left an insert to be looked after by the next owner"
            ),
        }
    }

    fn doubt(&self, reason: &'static str, error: &anyhow::Error) {
        self.shared.metrics.doubts.with_label_values(&[reason]).inc();
        let (topic, partition) = (&self.place.topic, self.place.partition);
        tracing::warn!(topic, partition, reason, "starting over from what is durable: {error:#}");
        self.hold();
    }

    /// Keeps the partition still until the worker knows where to go on.
    fn hold(&self) {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(&self.place.topic, self.place.partition.into());
        if let Err(error) = self.consumer.pause(&partitions) {
            tracing::debug!(%error, "holding the partition still");
        }
    }

    fn set_stalled(&self, stalled: bool) {
        self.gauge(&self.shared.metrics.stalled).set(i64::from(stalled));
    }

    fn note_durable(&self, durable: Option<u64>) {
        self.gauge(&self.shared.metrics.durable_offset).set(durable.map_or(-1, |offset| offset as i64));
    }

    fn gauge(&self, gauges: &prometheus::IntGaugeVec) -> prometheus::IntGauge {
        gauges.with_label_values(&[self.place.table.topic(), &self.place.partition.to_string()])
    }

    fn wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.said() {
            std::thread::sleep(FETCH_WAIT);
        }
    }
}

impl OnItsWay {
    /// The answer, if it comes within `patience`.
    fn answered(&self, patience: Duration) -> Option<Result<()>> {
        match self.answer.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(anyhow!("the insert ended without an answer"))),
        }
    }
}

fn oldest_timestamp(fetched: &Fetched<'_>) -> i64 {
    fetched.iter().next().and_then(|first| first.ok()).map_or(i64::MAX, |first| first.timestamp_ms)
}

fn micros_now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)).unwrap_or(Micros::MAX)
}
