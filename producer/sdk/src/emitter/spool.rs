//! The spool on disk. It keeps the events that Kafka has not acknowledged within `delay_ms`, so that neither a killed
//! process nor a long absence of Kafka loses them, and sends them again.
//!
//! - [`ledger`] decides, without a file or a client. [`record`] is the format of the segments, [`segments`] the state
//!   of their records, [`directory`] the files.
//! - The [`writer`] thread appends what is due as one write and one sync. Only then it is called durable, and its
//!   bytes leave our memory. After a failed write or sync it goes on in a new segment, a second later.
//! - The [`feeder`] thread hands to the client what the client has no room for or gave back, and what an earlier
//!   process left, oldest first. It deletes a segment when all of its events are acknowledged.
//!
//! librdkafka's queue stays as it is: while Kafka is away it fills up to `queue_events` or `queue_bytes`, and what
//! comes later goes to the disk alone. At most as much again is in memory without being synced, which happens only if
//! the disk is slower than the callers, or fails. So the memory is bounded by twice the queue, and about eight bytes
//! for each event in the spool. If the disk is full or fails, events stay in memory within that bound until Kafka
//! acknowledges them.
//!
//! Whether a segment's event was acknowledged is not written: after a crash the next process sends the segment again.
//! The consumer drops the repetitions by the events' ids.
//!
//! No lock is held while a file or the client is used, and never for more than a few hundred events: a caller of
//! `emit` does not wait for them.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::Registry;
use rdkafka::error::KafkaError;
use rdkafka::producer::ThreadedProducer;

use super::delivery::{Counters, Deliveries, OnUndelivered, Undelivered};
use super::receipts::Receipt;
use super::{Refused, Settings};

mod directory;
mod feeder;
mod ledger;
mod metrics;
mod record;
mod segments;
mod settings;
mod writer;

pub use directory::SpoolError;
pub(super) use ledger::{Failure, Seq};
pub(super) use record::Record;
pub use settings::SpoolSettings;

use directory::Directory;
use ledger::{Admitted, Full, Ledger, Limits};
use metrics::SpoolMetrics;
use record::SegmentNumber;

/// The number of events for which the lock is held at a time.
const EVENTS_PER_LOCK: usize = 256;
/// The room that is kept for the headers of the segments that the unsynced events will need: at most 2 GiB of
/// events, in segments of at least 6 MiB.
const HEADERS_RESERVE: u64 = 8_192;
/// How often the gauges are set while there is something in the spool.
const TICK: Duration = Duration::from_secs(1);

/// The state of a spool, for the readiness of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolStatus {
    /// The events that are in the spool and not acknowledged.
    pub events: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// The age of the oldest event in the spool.
    pub oldest: Option<Duration>,
    /// The last write, sync or read failed, and none has succeeded since.
    pub disk_error: Option<String>,
}

impl SpoolStatus {
    /// Whether four fifths of the bytes are used.
    pub fn is_near_full(&self) -> bool {
        self.bytes >= self.bytes_max / 5 * 4
    }
}

/// What the callers, the client's thread and the two threads of the spool share.
pub(super) struct Shared {
    state: Mutex<State>,
    writer_woken: Condvar,
    feeder_woken: Condvar,
    directory: Directory,
    counters: Counters,
    metrics: SpoolMetrics,
    undelivered: OnUndelivered,
    bytes_max: u64,
}

struct State {
    ledger: Ledger,
    /// When the sleeping writer wakes by itself; `None` while it works.
    writer_wakes: Option<Instant>,
    /// The feeder sleeps until it has something to do.
    feeder_idle: bool,
    /// The feeder sleeps until the client has room.
    feeder_blocked: bool,
    feeder_stops: bool,
    client_stopped: Option<String>,
}

/// A spool with its threads.
pub(super) struct Spool {
    pub(super) shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    feeder: Option<JoinHandle<()>>,
}

impl Spool {
    /// Takes the directory over and reads what an earlier process left. It sends nothing yet.
    pub(super) fn open(
        settings: &Settings,
        spool: &SpoolSettings,
        counters: Counters,
        registry: &Registry,
        undelivered: OnUndelivered,
    ) -> Result<(Spool, Next), SpoolError> {
        let metrics = SpoolMetrics::register(registry)
            .and_then(|metrics| counters.register_spool(registry).map(|()| metrics))
            .map_err(|error| SpoolError::Settings(error.to_string()))?;
        let limits = Limits {
            memory_events: settings.queue_events.usize(),
            memory_bytes: settings.queue_bytes.usize(),
            spool_bytes: spool.bytes.get() - HEADERS_RESERVE,
            delay: spool.delay_ms.duration(),
            share: spool.sync_ms.duration(),
        };
        let directory = Directory::open(&spool.directory)?;
        let mut ledger = Ledger::new(limits);
        let next = recover(&directory, &mut ledger, &counters, &metrics)?;
        let state = State {
            ledger,
            writer_wakes: None,
            feeder_idle: false,
            feeder_blocked: false,
            feeder_stops: false,
            client_stopped: None,
        };
        let shared = Shared {
            state: Mutex::new(state),
            writer_woken: Condvar::new(),
            feeder_woken: Condvar::new(),
            directory,
            counters,
            metrics,
            undelivered,
            bytes_max: spool.bytes.get(),
        };
        Ok((Spool { shared: Arc::new(shared), writer: None, feeder: None }, next))
    }

    /// Starts the threads.
    pub(super) fn start(
        &mut self,
        next: Next,
        producer: Arc<ThreadedProducer<Deliveries>>,
    ) -> Result<(), SpoolError> {
        let failed =
            |error: io::Error| SpoolError::Settings(format!("starting a thread of the spool: {error}"));
        let shared = self.shared.clone();
        let writer = std::thread::Builder::new().name("spool writer".into());
        self.writer = Some(writer.spawn(move || writer::run(&shared, next)).map_err(failed)?);
        let shared = self.shared.clone();
        let feeder = std::thread::Builder::new().name("spool feeder".into());
        self.feeder = Some(feeder.spawn(move || feeder::run(&shared, &producer)).map_err(failed)?);
        Ok(())
    }

    /// Writes and syncs everything that Kafka has not acknowledged, and ends the threads. Returns the number of
    /// events that are safe nowhere because the disk fails. The second call does nothing.
    pub(super) fn close(&mut self) -> u64 {
        {
            let mut state = self.shared.lock();
            state.feeder_stops = true;
            self.shared.feeder_woken.notify_all();
        }
        if let Some(feeder) = self.feeder.take() {
            feeder.join().expect("the spool's feeder does not panic");
        }
        {
            let mut state = self.shared.lock();
            state.ledger.close();
            self.shared.writer_woken.notify_all();
        }
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the spool's writer does not panic");
        }
        self.shared.give_up_unsent()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(&self, record: Record, receipt: Option<Receipt>) -> Result<Admitted, Refused> {
        let awaited = receipt.is_some();
        let mut state = self.lock();
        if let Some(reason) = &state.client_stopped {
            return Err(Refused::Stopped { reason: reason.clone() });
        }
        let admitted = state.ledger.admit(record, receipt, Instant::now()).map_err(|full| match full {
            Full::Memory => Refused::QueueFull,
            Full::Spool => Refused::SpoolFull,
        })?;
        // Waking a thread is a system call, which a caller makes only if the writer would come too late.
        if let Some(wakes) = state.writer_wakes
            && (awaited || state.ledger.unsynced() == 1)
            && state.ledger.sync_due().is_some_and(|due| due < wakes)
        {
            state.writer_wakes = None;
            self.writer_woken.notify_one();
        }
        if !admitted.send {
            self.wake_idle_feeder(&mut state);
        }
        Ok(admitted)
    }

    /// The client had no room for an admitted event.
    pub(super) fn not_sent(&self, seq: Seq) {
        let mut state = self.lock();
        state.ledger.not_sent(seq);
        self.wake_idle_feeder(&mut state);
    }

    /// The caller refuses an admitted event after all, because the client stopped for good.
    pub(super) fn stopped(&self, seq: Seq, reason: &str) {
        let mut state = self.lock();
        state.ledger.withdraw(seq);
        state.client_stopped = Some(reason.to_owned());
    }

    /// Returns whether the event was accepted by an earlier process.
    pub(super) fn acknowledged(&self, seq: Seq) -> bool {
        let mut state = self.lock();
        let settled = state.ledger.acknowledged(seq);
        if state.feeder_blocked {
            state.feeder_blocked = false;
            self.feeder_woken.notify_one();
        } else if settled.is_some_and(|settled| settled.ends_segment) {
            self.wake_idle_feeder(&mut state);
        }
        settled.is_some_and(|settled| settled.replayed)
    }

    /// The client gave an event up.
    pub(super) fn failed(&self, seq: Seq, topic: &str, error: &KafkaError) -> Failure {
        let mut state = self.lock();
        let failure = state.ledger.failed(seq, Instant::now(), &error.to_string());
        if failure == Failure::Kept && !state.ledger.is_closing() {
            self.metrics.returned(topic, error);
            state.feeder_blocked = false;
            state.feeder_idle = false;
            self.feeder_woken.notify_one();
        }
        failure
    }

    pub(super) fn spooled(&self) -> u64 {
        self.lock().ledger.spooled() as u64
    }

    pub(super) fn status(&self) -> SpoolStatus {
        let state = self.lock();
        let ledger = &state.ledger;
        SpoolStatus {
            events: ledger.spooled() as u64,
            bytes: ledger.spool_bytes(),
            bytes_max: self.bytes_max,
            oldest: ledger.oldest_stamp().map(age),
            disk_error: ledger.disk_error().map(str::to_owned),
        }
    }

    fn wake_idle_feeder(&self, state: &mut State) {
        if state.feeder_idle {
            state.feeder_idle = false;
            self.feeder_woken.notify_one();
        }
    }

    fn set_gauges(&self, ledger: &Ledger) {
        self.metrics.set(ledger.spooled(), ledger.spool_bytes(), ledger.oldest_stamp().map(age));
    }

    /// Passes the events to the callback that are neither in the spool nor with the client, and returns how many
    /// events are not in the spool.
    fn give_up_unsent(&self) -> u64 {
        let (unsynced, unsent, reason) = {
            let mut state = self.lock();
            let reason = state.ledger.disk_error().unwrap_or("the emitter was closed").to_owned();
            (state.ledger.unsynced() as u64, state.ledger.take_unsent(), reason)
        };
        for record in unsent {
            self.counters.failed("disk", &record.topic, &reason);
            (self.undelivered)(Undelivered::of(&record, reason.clone()));
            self.counters.left(record.value.len());
        }
        unsynced
    }
}

/// The number of the next segment.
pub(super) struct Next(u64);

/// Reads the segments of an earlier process into the ledger. What is torn is cut; what is damaged is reported and
/// kept aside once the rest of its segment is sent.
fn recover(
    directory: &Directory,
    ledger: &mut Ledger,
    counters: &Counters,
    metrics: &SpoolMetrics,
) -> Result<Next, SpoolError> {
    let listing = directory.list()?;
    ledger.keep_aside(listing.aside_bytes);
    if listing.aside_bytes > 0 {
        tracing::warn!(
            bytes = listing.aside_bytes,
            "damaged segments are kept in the spool and take room there; delete the files `.damaged` when they were \
             looked at"
        );
    }
    let (mut events, mut event_bytes) = (0, 0);
    for &(number, bytes) in &listing.segments {
        let path = directory.path_of(number);
        let failed = |doing| {
            let path = path.clone();
            move |source| SpoolError::Io { doing, path, source }
        };
        let read = directory.read(number).map_err(failed("reading"))?;
        let found = record::recover(number, &read)
            .map_err(|later| SpoolError::LaterVersion { path: path.clone(), version: later.0 })?;
        let end = found.torn.unwrap_or(read.len());
        if found.torn.is_some() {
            let torn_bytes = read.len() - end;
            tracing::warn!(path = %path.display(), torn_bytes, "an unfinished write at the end of a segment was cut");
            metrics.torn(torn_bytes);
            directory.cut(number, end as u64).map_err(failed("cutting"))?;
        }
        for range in &found.damaged {
            metrics.damaged(range.len());
            tracing::error!(
                path = %path.display(), from = range.start, bytes = range.len(),
                "a part of the spool is damaged; its events are lost to us, the file is kept as `.damaged` once the \
                 others in it are sent"
            );
        }
        let records: Vec<(u32, &str, u64)> =
            found.records.iter().map(|(at, record)| (*at, record.topic, record.stamp)).collect();
        events += records.len();
        event_bytes += found.records.iter().map(|(_, record)| record.value.len()).sum::<usize>();
        ledger.recover(number, bytes.min(end as u64), !found.damaged.is_empty(), &records);
    }
    counters.entered(events, event_bytes);
    if events > 0 {
        tracing::info!(events, "the spool has events of an earlier process, which are sent first");
    }
    Ok(Next(listing.next))
}

/// The microseconds since 1970.
pub(super) fn stamp() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn age(stamp_then: u64) -> Duration {
    Duration::from_micros(stamp().saturating_sub(stamp_then))
}

impl Next {
    fn take(&mut self) -> SegmentNumber {
        self.0 += 1;
        SegmentNumber(self.0 - 1)
    }
}
