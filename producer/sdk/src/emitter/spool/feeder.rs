//! The thread that hands events to the client for which it had no room, which it gave back, or which an earlier
//! process left, in their order. It also deletes segments without open events. The ledger decides which are next.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::ledger::{Claim, Claims, Source};
use super::metrics::Operation;
use super::record::{self, RecordRef, SegmentNumber};
use super::{EVENTS_PER_LOCK, Shared, TICK};
use crate::emitter::delivery::{Deliveries, Ticket};

/// The longest wait for room in the client, in case its last acknowledgement came before the wait began.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);
/// The pause after an acknowledgement, in which more room is made.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// What the client said to one event.
enum Sent {
    Taken,
    NoRoom,
    /// It takes no event of this topic now.
    TopicRefused,
    /// It has stopped for good.
    Stopped(String),
    /// The record in the segment is damaged.
    Unreadable,
}

struct Feeder<'a> {
    shared: &'a Shared,
    producer: &'a ThreadedProducer<Deliveries>,
    /// The bytes of the segment that was read last.
    read: Option<(SegmentNumber, Vec<u8>)>,
}

/// Feeds until the emitter is closed.
pub(super) fn run(shared: &Shared, producer: &ThreadedProducer<Deliveries>) {
    let mut feeder = Feeder { shared, producer, read: None };
    while let Some(claims) = feeder.wait() {
        feeder.feed(&claims);
    }
}

impl Feeder<'_> {
    /// Waits for events to feed; `None` at the end.
    fn wait(&mut self) -> Option<Claims> {
        loop {
            self.shared.delete_done();
            let mut state = self.shared.lock();
            if state.feeder_stops {
                return None;
            }
            let now = Instant::now();
            let can_feed = state.client_stopped.is_none();
            if can_feed && let Some(claims) = state.ledger.claim(now, EVENTS_PER_LOCK) {
                return Some(claims);
            }
            self.read = None;
            state.feeder_idle = true;
            let wakes = state.ledger.claim_due(now).unwrap_or_else(|| now + 3_600 * TICK);
            let woken = self.shared.feeder_woken.wait_timeout(state, wakes - now);
            woken.unwrap_or_else(PoisonError::into_inner).0.feeder_idle = false;
        }
    }

    fn feed(&mut self, claims: &Claims) {
        if let Some(segment) = claims.segment
            && !self.holds(segment, &claims.claims)
            && let Err(error) = self.load(segment)
        {
            self.read_failed(segment, &claims.claims, &error);
            return;
        }
        let mut left = claims.claims.iter();
        for claim in left.by_ref() {
            match self.send(claims.segment, claim) {
                Sent::Taken => self.shared.lock().ledger.fed(claim),
                Sent::Unreadable => self.unreadable(claims.segment, claim),
                Sent::TopicRefused => self.shared.lock().ledger.not_fed(claim, Some(Instant::now())),
                Sent::NoRoom => {
                    self.give_back(claim, left.as_slice());
                    self.wait_for_room();
                    return;
                }
                Sent::Stopped(reason) => {
                    tracing::error!(
                        reason,
                        "the kafka client stopped; events are kept in the spool for the next start"
                    );
                    self.shared.lock().client_stopped = Some(reason);
                    self.give_back(claim, left.as_slice());
                    return;
                }
            }
        }
    }

    /// Whether the bytes that were read last reach to the claims.
    fn holds(&self, segment: SegmentNumber, claims: &[Claim]) -> bool {
        let Some((number, bytes)) = &self.read else { return false };
        let last = claims.last().map(|claim| &claim.source);
        let Some(Source::Position(last)) = last else { return false };
        *number == segment && record::decode(segment, bytes, *last as usize).is_some()
    }

    fn load(&mut self, segment: SegmentNumber) -> std::io::Result<()> {
        let bytes = self.shared.directory.read(segment)?;
        self.read = Some((segment, bytes));
        self.shared.lock().ledger.read(segment, Instant::now(), None);
        Ok(())
    }

    fn send(&self, segment: Option<SegmentNumber>, claim: &Claim) -> Sent {
        let record = match (&claim.source, segment, &self.read) {
            (Source::Memory(record), _, _) => RecordRef {
                topic: &record.topic,
                key: &record.key,
                value: &record.value,
                stamp: record.stamp,
            },
            (Source::Position(at), Some(segment), Some((_, bytes))) => {
                match record::decode(segment, bytes, *at as usize) {
                    Some((record, _)) => record,
                    None => return Sent::Unreadable,
                }
            }
            (Source::Position(at), _, _) => panic!("position {at} without its segment"),
        };
        let ticket = Ticket { entered: Instant::now(), seq: Some(claim.seq), receipt: None };
        let message =
            BaseRecord::with_opaque_to(record.topic, Box::new(ticket)).key(record.key).payload(record.value);
        let Err((error, _)) = self.producer.send(message) else { return Sent::Taken };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Sent::NoRoom;
        }
        match self.producer.client().fatal_error() {
            Some((code, text)) => Sent::Stopped(format!("{code}: {text}")),
            None => {
                self.shared.metrics.returned(record.topic, &error);
                Sent::TopicRefused
            }
        }
    }

    fn give_back(&self, claim: &Claim, later: &[Claim]) {
        let mut state = self.shared.lock();
        state.ledger.not_fed(claim, None);
        for claim in later {
            state.ledger.not_fed(claim, None);
        }
    }

    fn wait_for_room(&self) {
        let mut state = self.shared.lock();
        state.feeder_blocked = true;
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while state.feeder_blocked && !state.feeder_stops {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.shared.feeder_woken.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.feeder_blocked = false;
        drop(state);
        std::thread::sleep(ROOM_PAUSE);
    }

    fn read_failed(&self, segment: SegmentNumber, claims: &[Claim], error: &std::io::Error) {
        let failures = self.shared.metrics.error(Operation::Read);
        if failures.is_power_of_two() {
            let path = self.shared.directory.path_of(segment);
            tracing::error!(%error, failures, path = %path.display(), "reading the spool failed; it is tried again");
        }
        let mut state = self.shared.lock();
        for claim in claims {
            state.ledger.not_fed(claim, None);
        }
        state.ledger.read(segment, Instant::now(), Some(format!("reading the spool: {error}")));
    }

    fn unreadable(&self, segment: Option<SegmentNumber>, claim: &Claim) {
        let (Some(segment), Source::Position(at), Some((_, bytes))) = (segment, &claim.source, &self.read)
        else {
            return;
        };
        let at = *at as usize;
        let path = self.shared.directory.path_of(segment);
        tracing::error!(path = %path.display(), at, "an event in the spool is damaged and lost; the file will be kept");
        let topic = self.shared.lock().ledger.unreadable(claim);
        self.shared.counters.failed("damaged", &topic, "damaged in the spool");
        self.shared.metrics.damaged(record::damage_at(segment, bytes, at));
        // How long the event was is not known any more.
        self.shared.counters.left(0);
    }
}

impl Shared {
    /// Deletes the segments whose events are all acknowledged, and keeps the damaged ones under another name.
    pub(super) fn delete_done(&self) {
        let done = self.lock().ledger.take_done();
        for (number, is_damaged) in done {
            let path = self.directory.path_of(number);
            let outcome = if is_damaged {
                self.directory.set_aside(number).map(|aside| {
                    tracing::error!(path = %aside.display(), "a damaged segment is kept; delete it when it was looked at");
                })
            } else {
                self.directory.delete(number)
            };
            if let Err(error) = outcome {
                self.metrics.error(Operation::Delete);
                // Its bytes stay on the disk, and the next start sends its events once more.
                tracing::error!(%error, path = %path.display(), "a segment of the spool could not be removed");
                let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                self.lock().ledger.keep_aside(if is_damaged { 0 } else { bytes });
            }
        }
    }
}
