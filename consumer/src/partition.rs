//! One Kafka partition on its way into its table: fetch, decode, verify, dedupe, batch, announce, insert,
//! commit. What is to be done next, and after any doubt, is the protocol's to say; this does it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use schemas::{Exposure, Micros, Uuid};
use tokio::runtime::Handle;

use crate::batch::{Batch, Due, Limits, Span, Stamp};
use crate::dead_letters::{DeadLetters, Sent};
use crate::decode::Decoded;
use crate::dedupe::{Known, Window};
use crate::definitions::Follower;
use crate::fetch::{Fetched, Message, high_watermark};
use crate::forget::Forgotten;
use crate::group::{Assigned, GroupConsumer, Stop};
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::protocol::{Action, Closed, Event, Found, Halt, Intent, Machine, Note};
use crate::rows::{Rows, Verdict};
use crate::schema_cache::{Plans, SchemaCache};
use crate::store::{Place, Store};
use crate::tally::Tally;
use crate::verify::{Named, Verification};

mod decoding;

/// Longest wait for messages; also how soon a stop is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Longest wait for an answer while there is nothing to fetch.
const ANSWER_WAIT: Duration = Duration::from_millis(5);
const KAFKA_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for the definitions log to reach a version that an exposure names, and the shortest time
/// between two such waits, so that a version nobody ever made cannot hold the stream up.
const VERSION_WAIT: Duration = Duration::from_millis(500);
const VERSION_WAITS_APART: Duration = Duration::from_secs(5);
/// Messages passed without a row before their offset is committed, if they never cease.
const TAIL_MESSAGES_MAX: u64 = 100_000;

/// What all workers of a process share.
pub struct Shared {
    pub store: Store,
    pub dead_letters: DeadLetters,
    pub forgotten: Forgotten,
    pub follower: Arc<Follower>,
    pub schema_cache: Arc<SchemaCache>,
    pub metrics: Metrics,
    pub runtime: Handle,
    pub limits: Limits,
    pub memory: Budget,
    pub window_micros: i64,
    pub window_ids: usize,
    /// Longest time from announcing a batch to sending it.
    pub deadline: Duration,
    /// How long a worker that must go may wait for what it has on its way.
    pub wind_up: Duration,
}

/// The worker of one partition.
pub struct Worker {
    assigned: Assigned,
    machine: Machine,
    line: Line,
}

/// Everything of a worker but its source and its protocol.
struct Line {
    place: Place,
    consumer: Arc<GroupConsumer>,
    shared: Arc<Shared>,
    stop: Stop,
    progress: ops::Progress,
    started: Instant,
    plans: Plans,
    window: Window,
    /// The durable offset up to which the window knows the ids; `None` before it has been seeded.
    window_reaches: Option<Option<u64>>,
    filling: Batch,
    /// The batch that is being announced, inserted or counted; kept until its rows are durable.
    closed: Option<ClosedBatch>,
    /// The batch that `filling` must become exactly.
    replay: Option<Intent>,
    /// Where the partition was let run from, until its first message is there.
    resumed_at: Option<u64>,
    /// A first message that was not the one asked for.
    gap: Option<Gap>,
    /// The committed offset, as far as this worker knows.
    committed: u64,
    /// Dead letters sent and not yet acknowledged.
    dead: Vec<Sent>,
    waited_for_version: Option<Instant>,
    tally: Tally,
    /// The definitions that exposures have named, by version; as many as the log has.
    named: HashMap<u64, Named>,
}

/// The log has nothing between the offset asked for and the one that came first, or a seek went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    asked: u64,
    came: u64,
}

/// A batch that takes no more messages.
struct ClosedBatch {
    batch: Batch,
    /// Made with the first sending; sent again as it is.
    block: Option<Bytes>,
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
        let machine = Machine::new(place.epoch, shared.deadline);
        let plans = Plans::new(shared.schema_cache.clone());
        let line = Line {
            window: Window::new(Micros::MAX, shared.window_ids),
            window_reaches: None,
            filling: Batch::open(place.table, 0, shared.memory.share()),
            closed: None,
            replay: None,
            resumed_at: None,
            gap: None,
            committed: 0,
            dead: Vec::new(),
            waited_for_version: None,
            tally: Tally::default(),
            named: HashMap::new(),
            started: Instant::now(),
            place,
            consumer,
            shared,
            stop,
            progress,
            plans,
        };
        Worker { assigned, machine, line }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut event = Event::Begun;
        loop {
            self.line.progress.touch();
            let action = self.machine.on(event, self.line.started.elapsed());
            self.line.note_durable(self.machine.durable());
            event = match self.perform(action) {
                Some(event) => event,
                None => break,
            };
        }
        if let Some((offset, note)) = self.machine.farewell() {
            self.line.commit(offset, &note).unwrap_or_else(|error| {
                tracing::info!("the last commit failed, the next owner asks the table: {error:#}");
            });
        }
        self.line.set_stalled(false);
        self.line.progress.done();
    }

    /// Does what the protocol says and reports what came of it. `None` when told to stop.
    fn perform(&mut self, action: Action) -> Option<Event> {
        if self.line.stop.said() && !matches!(action, Action::Land(_)) {
            return None;
        }
        let line = &mut self.line;
        Some(match action {
            Action::End => line.report("end_inserts", line.end_inserts().map(|()| Event::Done)),
            Action::Look => {
                let found = line.look().map(Event::Found);
                line.report("look", found)
            }
            Action::Count(span) => line.report("count", line.count(span).map(Event::Counted)),
            Action::Resume { from, replay } => {
                let resumed = line.resume(from, replay).map(|()| Event::Done);
                line.report("resume", resumed)
            }
            Action::Commit { offset, note } => {
                let committed = line.announce(offset, &note).map(|()| Event::Done);
                line.report("commit", committed)
            }
            Action::Land(intent) => {
                line.land(&intent);
                Event::Done
            }
            Action::Rest { pause, halted } => {
                line.rest(pause, halted)?;
                Event::Begun
            }
            Action::Fill => self.fill()?,
            Action::Insert { intent, not_after } => self.insert(&intent, not_after)?,
        })
    }

    /// Takes messages until a batch is due, or until there is nothing to take but a tail to commit.
    fn fill(&mut self) -> Option<Event> {
        loop {
            if self.line.stop.said() {
                return None;
            }
            self.line.progress.touch();
            let taken = match self.take(FETCH_WAIT) {
                Ok(taken) => taken,
                Err(error) => return Some(self.line.doubt("take", &error)),
            };
            if let Some(closed) = self.line.close_if_due() {
                return Some(Event::Closed(closed));
            }
            let line = &mut self.line;
            let tail = line.filling.next().saturating_sub(line.committed);
            let passed_only = line.replay.is_none() && line.filling.row_count == 0 && tail > 0;
            if passed_only && (taken == 0 || tail > TAIL_MESSAGES_MAX) {
                return Some(match line.acknowledge_dead_letters() {
                    Ok(()) => Event::Idle { next: line.filling.next() },
                    Err(error) => line.doubt("dead_letters", &error),
                });
            }
        }
    }

    /// Sends the closed batch, and fills the next one until the answer is there.
    fn insert(&mut self, intent: &Intent, not_after: Duration) -> Option<Event> {
        if self.line.started.elapsed() > not_after {
            let late = anyhow!("the process stood still between announcing a batch and sending it");
            return Some(self.line.doubt("late", &late));
        }
        let answer = self.line.send(intent);
        let sent = Instant::now();
        let mut told_to_stop = None;
        // A batch made again is followed by a seek, so nothing is taken behind it.
        let fills_ahead = self.line.replay.is_none();
        loop {
            self.line.progress.touch();
            let may_take = fills_ahead && told_to_stop.is_none() && !self.line.is_full();
            let patience = if may_take { Duration::ZERO } else { FETCH_WAIT };
            match answer.recv_timeout(patience) {
                Ok(Ok(())) => {
                    self.line.shared.metrics.insert_seconds.observe(sent.elapsed().as_secs_f64());
                    self.line.stage("insert", sent);
                    return Some(Event::Inserted);
                }
                Ok(Err(error)) => return Some(self.line.doubt("insert", &error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(self.line.doubt("insert", &anyhow!("the insert ended without an answer")));
                }
            }
            if self.line.stop.said() {
                // Lost: the next owner may be at work already, and finds the batch announced.
                let since = *told_to_stop.get_or_insert_with(Instant::now);
                if self.line.stop.lost() || since.elapsed() >= self.line.shared.wind_up {
                    tracing::info!(topic = self.line.place.topic, "left an insert to the next owner");
                    return None;
                }
            }
            if may_take && let Err(error) = self.take(ANSWER_WAIT) {
                // The batch on its way is announced: it is found again when the partition is looked at.
                return Some(self.line.doubt("take", &error));
            }
        }
    }

    /// Fetches once and takes what came. Returns how many messages that were.
    fn take(&mut self, wait: Duration) -> Result<usize> {
        if self.line.is_full() {
            std::thread::sleep(wait);
            return Ok(0);
        }
        let began = Instant::now();
        let fetched = self.assigned.queue.fetch(wait);
        if fetched.is_empty() {
            return Ok(0);
        }
        self.line.stage("fetch", began);
        self.line.take(&fetched)?;
        Ok(fetched.len())
    }
}

impl Line {
    /// The event, or the doubt in its place.
    fn report(&self, doing: &'static str, outcome: Result<Event>) -> Event {
        outcome.unwrap_or_else(|error| self.doubt(doing, &error))
    }

    fn doubt(&self, reason: &'static str, error: &anyhow::Error) -> Event {
        self.shared.metrics.doubts.with_label_values(&[reason]).inc();
        let (topic, partition) = (&self.place.topic, self.place.partition);
        tracing::warn!(topic, partition, reason, "starting over from what is durable: {error:#}");
        Event::Failed
    }

    fn rest(&mut self, pause: Duration, halted: Option<Halt>) -> Option<()> {
        self.hold();
        self.open(0);
        let (topic, partition) = (&self.place.topic, self.place.partition);
        self.set_stalled(true);
        if let Some(halt) = halted {
            self.gauge(&self.shared.metrics.halted).set(1);
            if let Halt::Overtaken { next, low } = halt {
                self.gauge(&self.shared.metrics.lost_offsets).set((low - next) as i64);
            }
            tracing::error!(topic, partition, "standing still until an operator has decided: {halt}");
        }
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.said() {
                return None;
            }
            self.progress.touch();
            std::thread::sleep(FETCH_WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        Some(())
    }

    fn end_inserts(&self) -> Result<()> {
        let ending = self.shared.store.end_inserts(&self.place);
        let ended = self.shared.runtime.block_on(ending).context("ending inserts that still run")?;
        self.shared.metrics.ended_inserts.inc_by(ended);
        Ok(())
    }

    fn look(&mut self) -> Result<Found> {
        let Place { topic, partition, .. } = &self.place;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, i32::from(*partition));
        // First the group's word: from here on no earlier owner can announce anything.
        let committed = self
            .consumer
            .committed_offsets(asked, KAFKA_ANSWERS_WITHIN)
            .context("asking for the group's committed offset")?;
        let element = committed
            .find_partition(topic, i32::from(*partition))
            .context("the broker left the partition out of its answer")?;
        element.error().context("asking for the group's committed offset")?;
        let note = Note::parse(element.metadata())?;
        let committed = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let durable = self
            .shared
            .runtime
            .block_on(self.shared.store.durable(&self.place))
            .context("reading the durable offset")?;
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, i32::from(*partition), KAFKA_ANSWERS_WITHIN)
            .context("asking the broker for the ends of the partition")?;
        let (Ok(low), Ok(high)) = (u64::try_from(low), u64::try_from(high)) else {
            return Err(anyhow!("the broker does not know the ends of the partition yet ({low} to {high})"));
        };
        self.committed = committed.unwrap_or(0);
        Ok(Found { committed, note, durable, low, high })
    }

    fn count(&self, span: Span) -> Result<u64> {
        let began = Instant::now();
        let counting = self.shared.store.count(&self.place, span);
        let rows = self.shared.runtime.block_on(counting).context("counting a batch's rows")?;
        self.stage("verify", began);
        let verdict = if rows == 0 { "absent" } else { "present" };
        self.shared.metrics.verdicts.with_label_values(&[verdict]).inc();
        Ok(rows)
    }

    /// Remembers the ids of durable events, as far as it does not yet, and lets the partition run from `from`.
    fn resume(&mut self, from: u64, replay: Option<Intent>) -> Result<()> {
        let Shared { store, runtime, .. } = &*self.shared;
        let place = &self.place;
        if place.table.holds_events() {
            // A window that was right up to an offset only misses what became durable behind it.
            let now = micros_now();
            let horizon = Micros::new(now.get() - self.shared.window_micros).unwrap_or(now);
            let after = self.window_reaches.flatten();
            let (ids, complete_since) = runtime
                .block_on(store.ids_since(place, horizon, after, self.shared.window_ids))
                .context("reading the ids of recent events")?;
            if after.is_none() {
                self.window = Window::new(complete_since, self.shared.window_ids);
            } else {
                self.window.advance(complete_since);
            }
            for (id, created_at) in ids {
                self.window.enter(id, created_at);
            }
        }
        self.window_reaches = Some(from.checked_sub(1));
        self.gauge(&self.shared.metrics.window_ids).set(self.window.ids() as i64);
        self.gauge(&self.shared.metrics.window_bytes).set(self.window.bytes() as i64);
        self.open(from);
        self.replay = replay;
        self.resumed_at = Some(from);
        self.seek(from)?;
        self.set_stalled(false);
        let (topic, partition) = (&self.place.topic, self.place.partition);
        match replay {
            None => tracing::info!(topic, partition, from, "going on"),
            Some(intent) => {
                let Span { first, last } = intent.span;
                tracing::info!(topic, partition, first, last, "making an announced batch again");
            }
        }
        Ok(())
    }

    /// An empty batch from `first` on; nothing else of what was taken is kept.
    fn open(&mut self, first: u64) {
        self.closed = None;
        self.replay = None;
        self.dead.clear();
        self.filling = Batch::open(self.place.table, first, self.shared.memory.share());
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

    /// Whether the batch being filled may take no more for now.
    fn is_full(&self) -> bool {
        self.filling.full(&self.shared.limits)
            || (self.shared.memory.is_spent() && (self.filling.row_count > 0 || self.closed.is_some()))
    }

    /// Closes the batch if it is due; one that is made again, once all its messages are there.
    fn close_if_due(&mut self) -> Option<Closed> {
        let due = match &self.replay {
            None if self.shared.memory.is_spent() && self.filling.row_count > 0 => Due::Memory,
            None => self.filling.due(&self.shared.limits, Instant::now())?,
            Some(intent) if self.filling.next() > intent.span.last => Due::Replay,
            Some(_) => return None,
        };
        let following = Batch::open(self.place.table, self.filling.next(), self.shared.memory.share());
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

    /// Takes messages into the batch: decoded, verified, deduplicated; what cannot be a row goes to the dead
    /// letters. An error leaves the batch unusable.
    fn take(&mut self, fetched: &Fetched<'_>) -> Result<()> {
        let began = Instant::now();
        let last = self.replay.map_or(u64::MAX, |intent| intent.span.last);
        let mut decoded = Vec::with_capacity(fetched.len());
        let mut passed_last = false;
        for message in fetched.iter() {
            let message = message.map_err(|code| anyhow!("fetching: {code}"))?;
            if message.offset < self.filling.next() {
                // Fetched before the seek took hold.
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
        let stored = self.ask_store(decoded.iter().filter_map(|(_, decoded)| decoded.as_ref().ok()))?;
        let ledger = self.shared.forgotten.ledger();
        let now = Instant::now();
        let (mut duplicates, mut forgotten, mut rows) = (0, 0, 0);
        for (message, decoded) in &decoded {
            match decoded {
                Err(error) => self.bury(message, error.code(), &error.to_string())?,
                Ok(decoded) if ledger.covers(decoded) => forgotten += 1,
                Ok(decoded) => {
                    let identity = decoded.identity();
                    if identity.is_some_and(|(id, created_at)| self.is_known(id, created_at, &stored)) {
                        duplicates += 1;
                    } else {
                        self.append(decoded, message)?;
                        rows += 1;
                        if let Some((id, created_at)) = identity {
                            self.filling.remember(id, created_at);
                        }
                    }
                }
            }
            self.filling.cover(message.offset, message.payload.len(), message.timestamp_ms, now);
        }
        if passed_last {
            // The log has a gap where the batch ends, as behind a transaction.
            self.filling.cover_until(last);
        }
        self.tally.flush(&self.shared.metrics.senders);
        self.stage("dedupe", began);
        let counted = &self.shared.metrics.records;
        counted.with_label_values(&[self.place.table.topic(), "taken"]).inc_by(rows);
        counted.with_label_values(&[self.place.table.topic(), "duplicate"]).inc_by(duplicates);
        counted.with_label_values(&[self.place.table.topic(), "forgotten"]).inc_by(forgotten);
        self.gauge(&self.shared.metrics.position).set(self.filling.next() as i64);
        Ok(())
    }

    /// The first message behind a seek must be the one asked for. A log may have a gap there (a transaction's
    /// mark), so what comes twice in the same way is believed.
    fn check_first(&mut self, came: u64) -> Result<()> {
        let Some(asked) = self.resumed_at.take() else { return Ok(()) };
        let gap = Gap { asked, came };
        if came == asked || self.gap == Some(gap) {
            return Ok(());
        }
        self.gap = Some(gap);
        Err(anyhow!("the first message behind offset {asked} is {came}; asking again"))
    }

    /// Which of the events that the window cannot know are in the table.
    fn ask_store<'a>(&self, events: impl Iterator<Item = &'a Decoded<'a>>) -> Result<HashSet<Uuid>> {
        let asked: Vec<Uuid> = events
            .filter_map(Decoded::identity)
            .filter(|(id, created_at)| {
                !self.is_on_its_way(*id) && self.window.know(*id, *created_at) == Known::AskStore
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
        self.is_on_its_way(id)
            || match self.window.know(id, created_at) {
                Known::Seen => true,
                Known::New => false,
                Known::AskStore => stored.contains(&id),
            }
    }

    /// Whether a batch that is not durable yet has it.
    fn is_on_its_way(&self, id: Uuid) -> bool {
        self.filling.ids.contains(id)
            || self.closed.as_ref().is_some_and(|closed| closed.batch.ids.contains(id))
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
                let log = self.shared.follower.past(offset, KAFKA_ANSWERS_WITHIN);
                let refusal = log.verdicts.get(&offset).cloned();
                drop(log);
                let refusal =
                    refusal.context("the follower of the definitions log is behind the log's own mirror")?;
                rows.push(change, &Verdict { refusal }, message.timestamp_ms, offset);
            }
            _ => unreachable!("each table decodes its own record"),
        }
        self.filling.row_count += 1;
        Ok(())
    }

    /// Compares an exposure with the version of its definition, which is looked up once.
    fn verify(&mut self, exposure: &Exposure<'_>) -> Verification {
        let version = exposure.definition_version;
        if !self.named.contains_key(&version) {
            match self.name(version) {
                Some(named) => self.named.insert(version, named),
                None => return Verification::Unknown,
            };
        }
        self.named[&version].verify(exposure)
    }

    /// What the definitions log says of `version`; waited for once in a while, never for long.
    fn name(&mut self, version: u64) -> Option<Named> {
        let follower = self.shared.follower.clone();
        let behind = version > 0 && follower.lock().definitions.version() < version;
        let rested = self.waited_for_version.is_none_or(|waited| waited.elapsed() >= VERSION_WAITS_APART);
        if behind && rested {
            self.waited_for_version = Some(Instant::now());
            return Named::of(&follower.past(version - 1, VERSION_WAIT).definitions, version);
        }
        Named::of(&follower.lock().definitions, version)
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

    /// Commits, the dead letters that the offset passes being acknowledged first.
    fn announce(&mut self, offset: u64, note: &Note) -> Result<()> {
        self.acknowledge_dead_letters()?;
        let began = Instant::now();
        self.commit(offset, note)?;
        self.stage(if note.intent.is_some() { "intent" } else { "commit" }, began);
        self.committed = offset;
        Ok(())
    }

    /// Waits for the broker to take the offset and the note. It takes neither from a member that has lost the
    /// partition.
    fn commit(&self, offset: u64, note: &Note) -> Result<()> {
        if self.stop.lost() || self.consumer.assignment_lost() {
            return Err(anyhow!("the partition is lost"));
        }
        let (topic, partition) = (self.place.topic.as_str(), i32::from(self.place.partition));
        let mut offsets = TopicPartitionList::new();
        let offset = i64::try_from(offset).context("an offset beyond 2^63")?;
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let mut element = offsets.find_partition(topic, partition).expect("was just added");
        element.set_metadata(note.to_string());
        let committed = self.consumer.commit(&offsets, CommitMode::Sync);
        if committed.is_err() {
            self.shared.metrics.commit_failures.inc();
        }
        committed.with_context(|| format!("committing offset {offset}"))
    }

    /// Sends the closed batch. The answer comes later.
    fn send(&mut self, intent: &Intent) -> mpsc::Receiver<Result<()>> {
        let closed = self.closed.as_mut().expect("a batch was closed before it is inserted");
        assert_eq!(closed.batch.span(), Some(intent.span), "the announced batch is the closed one");
        let block = closed.block.get_or_insert_with(|| {
            let began = Instant::now();
            let stamp = Stamp {
                partition: self.place.partition,
                epoch: self.place.epoch,
                first: intent.span.first,
                last: intent.span.last,
                ingest_ms: intent.ingest_ms,
            };
            let block = Bytes::from(closed.batch.take_block(&stamp));
            self.shared.metrics.stage("encode", began);
            block
        });
        let block = block.clone();
        let attempt = self.place.attempt(intent, Uuid::now_v7().as_u64_pair().1);
        let (topic, partition) = (&self.place.topic, self.place.partition);
        let Span { first, last } = intent.span;
        tracing::debug!(topic, partition, first, last, rows = intent.rows, "inserting");
        let (answer_to, answer) = mpsc::sync_channel(1);
        let (shared, table) = (self.shared.clone(), self.place.table);
        shared.metrics.on_their_way.inc();
        self.shared.runtime.spawn(async move {
            let inserted = shared.store.insert(table, &attempt, block).await;
            shared.metrics.on_their_way.dec();
            let code = inserted.as_ref().map_or_else(error_code, |()| "0".to_owned());
            shared.metrics.insert_attempts.with_label_values(&[&code]).inc();
            // A worker that ended meanwhile does not ask any more; the next one finds the batch announced.
            let _ = answer_to.send(inserted.map_err(anyhow::Error::from));
        });
        answer
    }

    /// The batch is durable: its ids are remembered, its memory is free.
    fn land(&mut self, intent: &Intent) {
        let closed = self.closed.take().expect("a batch lands that was closed");
        for (id, created_at) in &closed.batch.identities {
            self.window.enter(*id, *created_at);
        }
        // Announced twice with other rows, either of the two may be there: the ids are read anew.
        self.window_reaches = (intent.earlier_rows == 0).then_some(Some(intent.span.last));
        let now = micros_now();
        if let Ok(horizon) = Micros::new(now.get() - self.shared.window_micros) {
            self.window.advance(horizon);
        }
        let metrics = &self.shared.metrics;
        metrics.records.with_label_values(&[self.place.table.topic(), "inserted"]).inc_by(intent.rows);
        metrics.end_to_end.observe((now.millis() - closed.batch.oldest_ms()).max(0) as f64 / 1_000.0);
        self.gauge(&metrics.window_ids).set(self.window.ids() as i64);
        self.gauge(&metrics.window_bytes).set(self.window.bytes() as i64);
        let oldest = (now.get() - self.window.horizon().get()).max(0) / 1_000_000;
        self.gauge(&metrics.window_oldest_seconds).set(oldest);
        let high = high_watermark(&self.consumer, &self.place.topic, self.place.partition.into());
        if let Some(high) = high {
            let lag = high.saturating_sub(intent.span.last + 1);
            self.gauge(&metrics.lag).set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        let (topic, partition) = (&self.place.topic, self.place.partition);
        let Span { first, last } = intent.span;
        tracing::debug!(topic, partition, first, last, rows = intent.rows, "inserted");
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
        if !stalled {
            self.gauge(&self.shared.metrics.halted).set(0);
        }
    }

    fn note_durable(&self, durable: Option<u64>) {
        self.gauge(&self.shared.metrics.durable_offset).set(durable.map_or(-1, |offset| offset as i64));
        self.gauge(&self.shared.metrics.committed_offset).set(self.committed as i64);
    }

    fn stage(&self, stage: &str, began: Instant) {
        self.shared.metrics.stage(stage, began);
    }

    fn gauge(&self, gauges: &prometheus::IntGaugeVec) -> prometheus::IntGauge {
        gauges.with_label_values(&[self.place.table.topic(), &self.place.partition.to_string()])
    }
}

/// ClickHouse's code of an error, or what else it was.
fn error_code(error: &clickhouse::error::Error) -> String {
    match error {
        clickhouse::error::Error::BadResponse(text) => text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .map_or("unknown".to_owned(), |(code, _)| code.to_owned()),
        clickhouse::error::Error::TimedOut => "timeout".to_owned(),
        _ => "network".to_owned(),
    }
}

fn micros_now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)).unwrap_or(Micros::MAX)
}
