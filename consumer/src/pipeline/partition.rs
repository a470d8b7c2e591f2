//! The worker of one Kafka partition: fetch, decode, dedupe, verify, batch, announce, insert, commit. The protocol
//! decides what to do next, also after a failure; the worker does it and reports the outcome.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use definitions::Follower;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use schemas::Micros;
use tokio::runtime::Handle;

use crate::dead_letters::{DeadLetterProducer, Delivery};
use crate::forget::SharedLedger;
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
use crate::pipeline::verify::NamedVersion;

pub use readiness::Readiness;

mod actions;
mod intake;
mod readiness;
mod schema_wait;

/// Longest wait for messages, hence also the delay until a stop is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Longest wait for messages while an insert is in flight.
const ANSWER_WAIT: Duration = Duration::from_millis(5);
/// After this many messages without a row their offset is committed, even if more keep coming.
const TAIL_MESSAGES_MAX: u64 = 100_000;
/// After this long without a message the broker is asked whether there is one: 30 s at what seems to be the end of the
/// partition, 5 s before it (for example behind an open transaction).
const SILENCE_MAX: Duration = Duration::from_secs(30);
const SILENCE_BEFORE_END_MAX: Duration = Duration::from_secs(5);

/// What all workers of a process share.
pub struct Shared {
    pub store: Store,
    pub dead_letters: DeadLetterProducer,
    /// To read a span of a partition outside the group, and whose group it is.
    pub kafka: ops::config::Kafka,
    pub group: String,
    pub ledger: SharedLedger,
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
    /// How long a worker that has to stop may wait for its insert.
    pub wind_up: Duration,
}

/// The worker of one partition.
pub struct Worker {
    assigned: Assigned,
    machine: Machine,
    state: PartitionState,
}

/// The worker's state beside its queue and its protocol. Messages borrow from the queue while the state changes.
struct PartitionState {
    place: Place,
    consumer: Arc<GroupConsumer>,
    shared: Arc<Shared>,
    stop: Stop,
    progress: ops::Progress,
    readiness: Readiness,
    started: Instant,
    plans: Plans,
    window: Window,
    /// The window knows the ids up to this durable offset. `None` before it has been filled.
    window_reaches: Option<Option<u64>>,
    filling: Batch,
    /// The batch that is being announced, inserted or counted; kept until its rows are durable.
    closed: Option<ClosedBatch>,
    /// The batch that `filling` must become exactly.
    replay: Option<Intent>,
    /// The offset of the last seek, until the first message behind it has come.
    resumed_at: Option<u64>,
    /// The first message behind the last seek, if it had another offset.
    gap: Option<Gap>,
    /// All messages before it have been fetched, or do not exist.
    reached: Option<u64>,
    /// When something last came, or the broker last said that there is nothing.
    last_received: Instant,
    /// When the broker was last asked for the end of the partition.
    end_asked: Instant,
    /// librdkafka does not fetch the partition until it is assigned again.
    must_rejoin: bool,
    /// The committed offset, as far as this worker knows.
    committed: u64,
    /// Dead letters sent and not yet acknowledged.
    unacknowledged: Vec<Delivery>,
    waited_for_version: Option<Instant>,
    /// When an exposure last named a configuration that the log had not reached.
    missed_configuration: Option<Instant>,
    tally: Tally,
    /// The definition versions that exposures have named, in ascending order; at most as many as the log has.
    named: Vec<(u64, NamedVersion)>,
    /// Whether ClickHouse had to be asked for the last events, since they were older than the window.
    asks_store: bool,
}

/// Either the log has nothing between these offsets, or a seek went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    asked: u64,
    came: u64,
}

/// A batch that takes no more messages.
struct ClosedBatch {
    batch: Batch,
    /// Encoded for the first insert; a repetition sends the same bytes.
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
        readiness: Readiness,
    ) -> Worker {
        let machine = Machine::new(place.epoch, shared.deadline);
        let plans = Plans::new(shared.schema_cache.clone());
        let state = PartitionState {
            window: Window::new(Micros::MAX, shared.window_ids),
            window_reaches: None,
            filling: Batch::open(shared.buffer_pool.take(place.table), 0, shared.memory.share()),
            closed: None,
            replay: None,
            resumed_at: None,
            gap: None,
            reached: None,
            last_received: Instant::now(),
            end_asked: Instant::now(),
            must_rejoin: false,
            committed: 0,
            unacknowledged: Vec::new(),
            waited_for_version: None,
            missed_configuration: None,
            tally: Tally::default(),
            named: Vec::new(),
            asks_store: false,
            started: Instant::now(),
            place,
            consumer,
            shared,
            stop,
            progress,
            readiness,
            plans,
        };
        Worker { assigned, machine, state }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut event = Event::Begun;
        loop {
            self.state.progress.touch();
            let action = self.machine.on(event, self.state.started.elapsed());
            self.state.note_durable(self.machine.durable());
            event = match self.perform(action) {
                Some(event) => event,
                None => break,
            };
        }
        if let Some((offset, note)) = self.machine.final_commit() {
            self.state.commit(offset, &note).unwrap_or_else(|error| {
                tracing::info!("the last commit failed, the next owner asks the table: {error:#}");
            });
        }
        self.state.set_stalled(false);
        self.state.readiness.given_back();
        self.state.progress.done();
    }

    /// Does what the protocol says and reports the outcome. `None` if told to stop.
    fn perform(&mut self, action: Action) -> Option<Event> {
        if self.state.stop.is_requested() && !matches!(action, Action::Land(_)) {
            return None;
        }
        let state = &mut self.state;
        Some(match action {
            Action::End => state.report("end_inserts", state.end_inserts().map(|()| Event::Done)),
            Action::Observe => {
                let observed = state.observe().map(Event::Observed);
                state.report("observe", observed)
            }
            Action::Count(span) => state.report("count", state.count(span).map(Event::Counted)),
            Action::Resume { from, replay } => {
                let resumed = state.resume(from, replay).map(|()| Event::Done);
                state.report("resume", resumed)
            }
            Action::Commit { offset, note } => {
                let committed = state.commit_acknowledged(offset, &note).map(|()| Event::Done);
                state.report("commit", committed)
            }
            Action::Land(intent) => {
                state.land(&intent);
                Event::Done
            }
            Action::Rest { pause, halted } => {
                state.rest(pause, halted)?;
                Event::Begun
            }
            Action::Fill => self.fill()?,
            Action::Insert { intent, not_after } => self.insert(&intent, not_after)?,
        })
    }

    /// Takes messages until a batch is due, or until only a tail without rows is left to commit.
    fn fill(&mut self) -> Option<Event> {
        loop {
            if self.state.stop.is_requested() {
                return None;
            }
            self.state.progress.touch();
            let taken = match self.take(FETCH_WAIT) {
                Ok(taken) => taken,
                Err(error) => return Some(self.state.start_over("take", &error)),
            };
            if let Some(closed) = self.state.close_if_due() {
                return Some(Event::Closed(closed));
            }
            let state = &mut self.state;
            let nothing_open = state.replay.is_none() && state.filling.row_count == 0;
            let tail = state.passed().saturating_sub(state.committed);
            if nothing_open && tail > 0 && (taken == 0 || tail > TAIL_MESSAGES_MAX) {
                return Some(match state.acknowledge_dead_letters() {
                    Ok(()) => Event::Idle { next: state.passed() },
                    Err(error) => state.start_over("dead_letters", &error),
                });
            }
            if taken > 0 {
                continue;
            }
            let at_end = state.is_at_end();
            if nothing_open && at_end {
                state.note_lag(state.passed());
                state.made_progress();
            }
            let asks_after = if at_end { SILENCE_MAX } else { SILENCE_BEFORE_END_MAX };
            let silence = state.last_received.elapsed();
            let asked = state.end_asked.max(state.last_received).elapsed();
            if asked >= asks_after && !state.is_full() {
                state.end_asked = Instant::now();
                match state.check_end(silence) {
                    Ok(true) => {
                        state.last_received = Instant::now();
                        if nothing_open {
                            state.made_progress();
                        }
                    }
                    Ok(false) => {}
                    Err(error) => return Some(state.start_over("silence", &error)),
                }
            }
        }
    }

    /// Sends the closed batch, and fills the next one until the answer is there.
    fn insert(&mut self, intent: &Intent, not_after: Duration) -> Option<Event> {
        if self.state.started.elapsed() > not_after {
            let late = anyhow!("the process stood still between announcing a batch and sending it");
            return Some(self.state.start_over("late", &late));
        }
        let answer = self.state.send(intent);
        let sent = Instant::now();
        let mut told_to_stop = None;
        // A replayed batch is followed by a seek, so nothing behind it is taken now.
        let fills_ahead = self.state.replay.is_none();
        loop {
            self.state.progress.touch();
            let may_take = fills_ahead && told_to_stop.is_none() && !self.state.is_full();
            let patience = if may_take { Duration::ZERO } else { FETCH_WAIT };
            match answer.recv_timeout(patience) {
                Ok(Ok(())) => {
                    self.state.shared.metrics.insert_seconds.observe(sent.elapsed().as_secs_f64());
                    self.state.stage("insert", sent);
                    return Some(Event::Inserted);
                }
                Ok(Err(error)) => return Some(self.state.start_over("insert", &error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(
                        self.state.start_over("insert", &anyhow!("the insert ended without an answer")),
                    );
                }
            }
            if self.state.stop.is_requested() {
                // If the partition is lost, the next owner may work already; it finds the batch announced.
                let since = *told_to_stop.get_or_insert_with(Instant::now);
                if self.state.stop.is_lost() || since.elapsed() >= self.state.shared.wind_up {
                    tracing::info!(topic = self.state.place.topic, "left an insert to the next owner");
                    return None;
                }
            }
            if may_take && let Err(error) = self.take(ANSWER_WAIT) {
                // The batch in flight is announced: the next observation of the partition finds it.
                return Some(self.state.start_over("take", &error));
            }
        }
    }

    /// Fetches once and takes what came. Returns the number of messages.
    fn take(&mut self, wait: Duration) -> Result<usize> {
        if self.state.is_full() {
            std::thread::sleep(wait);
            return Ok(0);
        }
        let began = Instant::now();
        let fetched = self.assigned.queue.fetch(wait);
        let count = fetched.len();
        if count > 0 {
            self.state.stage("fetch", began);
            self.state.last_received = Instant::now();
            self.state.take(&fetched)?;
        }
        drop(fetched);
        self.state.note_reached(self.assigned.queue.position());
        Ok(count)
    }
}

impl PartitionState {
    /// The event, or `Failed` with the reason logged and counted.
    fn report(&mut self, doing: &'static str, outcome: Result<Event>) -> Event {
        outcome.unwrap_or_else(|error| self.start_over(doing, &error))
    }

    fn start_over(&mut self, reason: &'static str, error: &anyhow::Error) -> Event {
        self.readiness.failed(Instant::now(), &format!("{reason}: {error:#}"));
        self.shared.metrics.recoveries.with_label_values(&[reason]).inc();
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
            self.readiness.halt(Instant::now(), &halt.to_string());
            self.gauge(&self.shared.metrics.halted).set(1);
            if let Halt::Overtaken { next, low } = halt {
                self.gauge(&self.shared.metrics.lost_offsets).set((low - next) as i64);
            }
            tracing::error!(topic, partition, "standing still until an operator has decided: {halt}");
        }
        (!self.stopped_within(pause)).then_some(())
    }

    /// Waits for `pause`. True as soon as the worker is told to stop.
    fn stopped_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.is_requested() {
                return true;
            }
            self.progress.touch();
            std::thread::sleep(FETCH_WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        false
    }

    /// Opens an empty batch at `first` and drops everything taken before.
    fn open(&mut self, first: u64) {
        self.closed = None;
        self.replay = None;
        self.unacknowledged.clear();
        self.reached = None;
        self.last_received = Instant::now();
        let rows = self.shared.buffer_pool.take(self.place.table);
        self.filling = Batch::open(rows, first, self.shared.memory.share());
    }

    /// Pauses the partition until the worker knows where to resume.
    fn hold(&self) {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(&self.place.topic, self.place.partition.into());
        if let Err(error) = self.consumer.pause(&partitions) {
            tracing::debug!(%error, "holding the partition still");
        }
    }

    /// Rows are durable, an offset is committed, or there is nothing to take.
    fn made_progress(&mut self) {
        self.set_stalled(false);
        self.readiness.made_progress();
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
