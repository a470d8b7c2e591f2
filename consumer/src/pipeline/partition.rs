//! One Kafka partition on its way into its table: fetch, decode, verify, dedupe, batch, announce, insert,
//! commit. What is to be done next, and after any doubt, is the protocol's to say; this does it.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use schemas::Micros;
use tokio::runtime::Handle;

use crate::dead_letters::{DeadLetters, Sent};
use crate::definitions::Follower;
use crate::forget::Forgotten;
use crate::metrics::Metrics;
use crate::pipeline::batch::{Batch, Limits};
use crate::pipeline::buffer_pool::BufferPool;
use crate::pipeline::dedupe::Window;
use crate::pipeline::group::{Assigned, GroupConsumer, Stop};
use crate::pipeline::memory::Budget;
use crate::pipeline::protocol::{Action, Event, Halt, Intent, Machine};
use crate::pipeline::schema_cache::{Plans, SchemaCache};
use crate::pipeline::store::{Place, Store};
use crate::pipeline::tally::Tally;
use crate::pipeline::verify::Named;

pub use standing::Standing;

mod decoding;
mod servers;
mod standing;
mod taking;

/// Longest wait for messages; also how soon a stop is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Longest wait for an answer while there is nothing to fetch.
const ANSWER_WAIT: Duration = Duration::from_millis(5);
/// Messages passed without a row before their offset is committed, if they never cease.
const TAIL_MESSAGES_MAX: u64 = 100_000;
/// After a silence of this long the broker is asked whether there is nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

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
    pub buffer_pool: BufferPool,
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
    standing: Standing,
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
    /// Where the log ended when its end was last reached, since the last seek.
    end: Option<u64>,
    /// When a message, or the end of the log, last came.
    heard: Instant,
    /// librdkafka fetches the partition no more until it is assigned anew.
    must_rejoin: bool,
    /// The committed offset, as far as this worker knows.
    committed: u64,
    /// Dead letters sent and not yet acknowledged.
    dead: Vec<Sent>,
    waited_for_version: Option<Instant>,
    tally: Tally,
    /// The definitions that exposures have named, in the order of their versions; as many as the log has.
    named: Vec<(u64, Named)>,
    /// Whether the last events were older than the window, so that ClickHouse had to be asked.
    asks_store: bool,
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
        standing: Standing,
    ) -> Worker {
        let machine = Machine::new(place.epoch, shared.deadline);
        let plans = Plans::new(shared.schema_cache.clone());
        let line = Line {
            window: Window::new(Micros::MAX, shared.window_ids),
            window_reaches: None,
            filling: Batch::open(shared.buffer_pool.take(place.table), 0, shared.memory.share()),
            closed: None,
            replay: None,
            resumed_at: None,
            gap: None,
            end: None,
            heard: Instant::now(),
            must_rejoin: false,
            committed: 0,
            dead: Vec::new(),
            waited_for_version: None,
            tally: Tally::default(),
            named: Vec::new(),
            asks_store: false,
            started: Instant::now(),
            place,
            consumer,
            shared,
            stop,
            progress,
            standing,
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
        self.line.standing.given_back();
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
            let nothing_open = line.replay.is_none() && line.filling.row_count == 0;
            let tail = line.passed().saturating_sub(line.committed);
            if nothing_open && tail > 0 && (taken == 0 || tail > TAIL_MESSAGES_MAX) {
                return Some(match line.acknowledge_dead_letters() {
                    Ok(()) => Event::Idle { next: line.passed() },
                    Err(error) => line.doubt("dead_letters", &error),
                });
            }
            if nothing_open && taken == 0 && line.end == Some(line.passed()) {
                line.note_lag(line.passed());
                line.went_forward();
            }
            if taken == 0 && line.heard.elapsed() >= SILENCE_MAX && !line.is_full() {
                line.heard = Instant::now();
                if let Err(error) = line.check_end() {
                    return Some(line.doubt("silence", &error));
                }
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
        self.line.heard = Instant::now();
        self.line.take(&fetched)?;
        Ok(fetched.len())
    }
}

impl Line {
    /// The event, or the doubt in its place.
    fn report(&mut self, doing: &'static str, outcome: Result<Event>) -> Event {
        outcome.unwrap_or_else(|error| self.doubt(doing, &error))
    }

    fn doubt(&mut self, reason: &'static str, error: &anyhow::Error) -> Event {
        self.standing.doubt(Instant::now(), &format!("{reason}: {error:#}"));
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
            self.standing.halt(Instant::now(), &halt.to_string());
            self.gauge(&self.shared.metrics.halted).set(1);
            if let Halt::Overtaken { next, low } = halt {
                self.gauge(&self.shared.metrics.lost_offsets).set((low - next) as i64);
            }
            tracing::error!(topic, partition, "standing still until an operator has decided: {halt}");
        }
        (!self.told_to_stop_within(pause)).then_some(())
    }

    /// Waits for so long, or until told to stop.
    fn told_to_stop_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.said() {
                return true;
            }
            self.progress.touch();
            std::thread::sleep(FETCH_WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        false
    }

    /// An empty batch from `first` on; nothing else of what was taken is kept.
    fn open(&mut self, first: u64) {
        self.closed = None;
        self.replay = None;
        self.dead.clear();
        self.end = None;
        self.heard = Instant::now();
        let rows = self.shared.buffer_pool.take(self.place.table);
        self.filling = Batch::open(rows, first, self.shared.memory.share());
    }

    /// Keeps the partition still until the worker knows where to go on.
    fn hold(&self) {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(&self.place.topic, self.place.partition.into());
        if let Err(error) = self.consumer.pause(&partitions) {
            tracing::debug!(%error, "holding the partition still");
        }
    }

    /// Rows are durable, an offset is committed, or there is nothing to take.
    fn went_forward(&mut self) {
        self.set_stalled(false);
        self.standing.forward();
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

fn micros_now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)).unwrap_or(Micros::MAX)
}
