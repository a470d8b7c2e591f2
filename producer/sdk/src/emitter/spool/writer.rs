//! The thread that writes to the spool. It appends what is due as one write and one sync, tells the ledger what is
//! durable, and goes on in a new segment after a failure. The ledger decides what is due.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::directory::{SEGMENT_BYTES, SegmentFile};
use super::ledger::Seq;
use super::metrics::Operation;
use super::record::{self, HEADER_BYTES, Record};
use super::{EVENTS_PER_LOCK, Next, Shared, TICK};
use crate::emitter::KAFKA_AWAY_AFTER;

/// The bytes of one write, which may have one record more.
const GROUP_BYTES: usize = 1_024 * 1_024;
/// How long the active segment is kept although all of its events are acknowledged: making one takes two syncs more.
const ACTIVE_IDLE: Duration = Duration::from_secs(1);
/// How often a closing emitter tries to write before it gives the rest up, and the pause between.
const CLOSE_ATTEMPTS: u32 = 3;
const CLOSE_PAUSE: Duration = Duration::from_millis(100);

enum Work {
    Write,
    /// The active segment is not needed any more.
    Retire,
    Stop,
}

struct Writer<'a> {
    shared: &'a Shared,
    next: Next,
    active: Option<SegmentFile>,
    last_write: Instant,
    failures_at_close: u32,
    buffer: Vec<u8>,
}

/// A group of events in the order of the segment.
struct Group {
    records: Vec<(Seq, Arc<Record>)>,
    bytes: usize,
}

/// Writes until the emitter is closed and nothing is left to write.
pub(super) fn run(shared: &Shared, next: Next) {
    let mut writer = Writer {
        shared,
        next,
        active: None,
        last_write: Instant::now(),
        failures_at_close: 0,
        buffer: Vec::new(),
    };
    loop {
        match writer.wait() {
            Work::Write => writer.write(),
            Work::Retire => writer.end_active(),
            Work::Stop => break,
        }
    }
    writer.end_active();
    shared.delete_done();
}

impl Writer<'_> {
    fn wait(&self) -> Work {
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let ledger = &state.ledger;
            self.shared.set_gauges(ledger);
            let gave_up = self.failures_at_close >= CLOSE_ATTEMPTS;
            if ledger.is_closing() && (ledger.unsynced() == 0 || gave_up) {
                return Work::Stop;
            }
            let due = ledger.sync_due();
            if due.is_some_and(|due| due <= now) {
                return Work::Write;
            }
            let retire = ledger.active_is_done().then(|| self.last_write + ACTIVE_IDLE);
            if retire.is_some_and(|retire| retire <= now) {
                return Work::Retire;
            }
            let tick = (self.active.is_some() || ledger.spooled() > 0).then(|| now + TICK);
            // The end of a pause that nobody waits for is no reason to wake; a caller wakes this thread.
            let wakes = [due, retire, tick].into_iter().flatten().min();
            let wakes = wakes.unwrap_or_else(|| now + 3_600 * TICK);
            state.writer_wakes = Some(wakes);
            let woken = self.shared.writer_woken.wait_timeout(state, wakes - now);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.writer_wakes = None;
        }
    }

    fn write(&mut self) {
        let group = self.take_group();
        if group.records.is_empty() {
            return;
        }
        let began = Instant::now();
        match self.append(&group) {
            Ok(positions) => {
                self.last_write = Instant::now();
                self.shared.metrics.synced(began.elapsed());
                let bytes = self.active.as_ref().expect("it was appended to").bytes();
                for written in positions.chunks(EVENTS_PER_LOCK) {
                    let spooled = self.shared.lock().ledger.synced(bytes, written);
                    self.shared.counters.spooled.inc_by(spooled);
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Collects what is due, in order. The lock is taken for a part at a time.
    fn take_group(&self) -> Group {
        let now = Instant::now();
        let through = self.shared.lock().ledger.awaited_through(now);
        let mut group = Group { records: Vec::new(), bytes: 0 };
        loop {
            let after = group.records.last().map(|(seq, _)| *seq);
            let due = self.shared.lock().ledger.due(now, after, through, EVENTS_PER_LOCK);
            let is_last = due.len() < EVENTS_PER_LOCK;
            for (seq, record) in due {
                if group.bytes >= GROUP_BYTES {
                    return group;
                }
                group.bytes += record.framed_bytes();
                group.records.push((seq, record));
            }
            if is_last {
                return group;
            }
        }
    }

    /// Appends the group to the active segment, or to a new one, and syncs it. Returns the records' positions.
    fn append(&mut self, group: &Group) -> io::Result<Vec<(Seq, u32)>> {
        let is_full = |active: &SegmentFile| active.bytes() + group.bytes as u64 > SEGMENT_BYTES;
        if self.active.as_ref().is_some_and(is_full) {
            self.end_active();
        }
        let on_disk = self.shared.lock().ledger.spool_bytes();
        if on_disk + (HEADER_BYTES + group.bytes) as u64 > self.shared.bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the spool has reached its bound `spool.bytes`",
            ));
        }
        if self.active.is_none() {
            let number = self.next.take();
            let file = self.shared.directory.create(number)?;
            self.shared.lock().ledger.opened(number);
            self.active = Some(file);
        }
        let active = self.active.as_mut().expect("it was just made");
        let mut positions = Vec::with_capacity(group.records.len());
        self.buffer.clear();
        for (seq, record) in &group.records {
            let at = active.bytes() as usize + self.buffer.len();
            positions.push((*seq, u32::try_from(at).expect("a segment is shorter than 4 GiB")));
            record::encode(active.number(), at, record, &mut self.buffer);
        }
        active.append(&self.buffer)?;
        Ok(positions)
    }

    fn failed(&mut self, error: &io::Error) {
        // Nothing may be appended behind a failed write.
        self.end_active();
        let failures = self.shared.metrics.error(Operation::Write);
        if failures.is_power_of_two() {
            tracing::error!(%error, failures, "writing to the spool failed; events stay in memory until kafka has them");
        }
        let kafka_is_away = self.shared.counters.stalled_for().is_some_and(|time| time >= KAFKA_AWAY_AFTER);
        let mut state = self.shared.lock();
        let reason = format!("writing to the spool: {error}");
        state.ledger.write_failed(Instant::now(), reason, kafka_is_away);
        let is_closing = state.ledger.is_closing();
        drop(state);
        if is_closing {
            self.failures_at_close += 1;
            std::thread::sleep(CLOSE_PAUSE);
        }
    }

    fn end_active(&mut self) {
        let Some(file) = self.active.take() else { return };
        let bytes = file.abandon();
        let mut state = self.shared.lock();
        state.ledger.ended(bytes);
        self.shared.wake_idle_feeder(&mut state);
    }
}
