//! Which events exist only in memory, which are in the spool, and which the client has. It decides what is written
//! when, what is handed to the client next, and which event is refused. It takes the time as an argument, and knows
//! no file and no Kafka.
//!
//! An accepted event is *unsynced* until Kafka acknowledges it or it is synced in a segment. Independently it is
//! *sent* (the client has it) or not. The events of a topic that are not sent are the topic's *backlog*: while it is
//! not empty, new events join it instead of being sent, so that each topic keeps its order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::{HEADER_BYTES, Record, SegmentNumber};
use super::segments::{NewRecord, Place, Segments, TopicIndex};
use crate::emitter::receipts::{Durable, NotDurable, Receipt};

/// The pause of a topic after a failed delivery, and of the disk after a failed write or read.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The bounds of the ledger. An event beyond any of them is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The number of unsynced events.
    pub memory_events: usize,
    /// The bytes of their values.
    pub memory_bytes: usize,
    /// The bytes of the segments and of what is kept aside, together with those that the unsynced events will take.
    pub spool_bytes: u64,
    /// An unsynced event is written after this time.
    pub delay: Duration,
    /// An unsynced event that a caller waits for is written after this time.
    pub share: Duration,
}

/// The number of an event that was accepted or read from a segment, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

/// An accepted event.
#[derive(Debug)]
pub struct Admitted {
    pub seq: Seq,
    /// Whether the caller hands it to the client now; otherwise it comes back in [`Ledger::claim`].
    pub send: bool,
}

/// The bound that an event would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Memory,
    Spool,
}

/// Events that the feeder hands to the client, in this order.
#[derive(Debug)]
pub struct Claims {
    /// The segment with the records; `None` if they are in memory.
    pub segment: Option<SegmentNumber>,
    pub claims: Vec<Claim>,
}

/// One event that the feeder hands to the client.
#[derive(Debug)]
pub struct Claim {
    pub seq: Seq,
    pub source: Source,
    topic: TopicIndex,
}

/// Where an event is read from.
#[derive(Debug)]
pub enum Source {
    Position(u32),
    Memory(Arc<Record>),
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// It was accepted by an earlier process.
    pub replayed: bool,
    /// It was the last one of a segment that can be deleted now.
    pub ends_segment: bool,
}

/// What is done about an event that the client did not deliver.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It will be sent again, by this process or the next.
    Kept,
    /// It is in neither memory nor spool any more.
    Lost(Arc<Record>),
}

/// The bookkeeping of one spool.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    next: u64,
    unsynced: BTreeMap<Seq, Unsynced>,
    unsynced_bytes: usize,
    unsynced_framed_bytes: u64,
    /// The unsynced events that a caller waits for.
    awaited: BTreeSet<Seq>,
    /// The unsynced events that the client does not have.
    unsent: BTreeSet<Seq>,
    /// The spooled events that the client has.
    spooled_sent: HashMap<Seq, Place>,
    segments: Segments,
    /// The segment that is appended to.
    active: Option<SegmentNumber>,
    topics: Vec<Topic>,
    aside_bytes: u64,
    write_error: Option<DiskError>,
    read_error: Option<String>,
    closing: bool,
}

#[derive(Debug)]
struct Unsynced {
    record: Arc<Record>,
    topic: TopicIndex,
    accepted: Instant,
    receipt: Option<Receipt>,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// The number of events that the client does not have, and of those that it is being given.
    backlog: usize,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct DiskError {
    text: String,
    retry_at: Instant,
}

impl Ledger {
    pub fn new(limits: Limits) -> Ledger {
        Ledger {
            limits,
            next: 0,
            unsynced: BTreeMap::new(),
            unsynced_bytes: 0,
            unsynced_framed_bytes: 0,
            awaited: BTreeSet::new(),
            unsent: BTreeSet::new(),
            spooled_sent: HashMap::new(),
            segments: Segments::default(),
            active: None,
            topics: Vec::new(),
            aside_bytes: 0,
            write_error: None,
            read_error: None,
            closing: false,
        }
    }

    /// Returns the index of a topic's name, which it remembers. There are three names, and those that an earlier
    /// process with other settings left.
    pub fn topic(&mut self, name: &str) -> TopicIndex {
        let known = self.topics.iter().position(|topic| &*topic.name == name);
        let index = known.unwrap_or_else(|| {
            self.topics.push(Topic { name: name.into(), backlog: 0, paused_until: None });
            self.topics.len() - 1
        });
        TopicIndex(u16::try_from(index).expect("there are fewer than 65,536 topics"))
    }

    /// Adds a segment that an earlier process left, with the position, topic and stamp of each record.
    pub fn recover(
        &mut self,
        number: SegmentNumber,
        bytes: u64,
        damaged: bool,
        records: &[(u32, &str, u64)],
    ) {
        self.segments.add(number, bytes, true);
        self.segments.get(number).damaged = damaged;
        for &(at, topic, stamp) in records {
            let topic = self.topic(topic);
            self.topics[usize::from(topic.0)].backlog += 1;
            self.segments.add_record(number, NewRecord { at, topic, stamp, sent: false });
        }
    }

    /// Accepts an event, unless a bound would be exceeded. Nothing old is ever dropped for it.
    pub fn admit(
        &mut self,
        record: Record,
        receipt: Option<Receipt>,
        now: Instant,
    ) -> Result<Admitted, Full> {
        let (bytes, framed) = (record.value.len(), record.framed_bytes() as u64);
        if self.unsynced.len() >= self.limits.memory_events
            || self.unsynced_bytes + bytes > self.limits.memory_bytes
        {
            return Err(Full::Memory);
        }
        if self.spool_bytes() + self.unsynced_framed_bytes + framed > self.limits.spool_bytes {
            return Err(Full::Spool);
        }
        let topic = self.topic(&record.topic);
        let seq = self.next_seq();
        let state = &mut self.topics[usize::from(topic.0)];
        let send = state.backlog == 0;
        if !send {
            state.backlog += 1;
            self.unsent.insert(seq);
        }
        if receipt.is_some() {
            self.awaited.insert(seq);
        }
        self.unsynced_bytes += bytes;
        self.unsynced_framed_bytes += framed;
        let record = Arc::new(record);
        self.unsynced.insert(seq, Unsynced { record, topic, accepted: now, receipt });
        Ok(Admitted { seq, send })
    }

    /// Notes that the client had no room for an admitted event, which now waits its turn.
    pub fn not_sent(&mut self, seq: Seq) {
        if let Some(topic) = self.give_back(seq) {
            self.topics[usize::from(topic.0)].backlog += 1;
        }
    }

    /// Takes an admitted event back, which the caller refuses after all.
    pub fn withdraw(&mut self, seq: Seq) {
        self.remove_unsynced(seq);
    }

    /// Notes Kafka's acknowledgement. `None` if the event is unknown.
    pub fn acknowledged(&mut self, seq: Seq) -> Option<Settled> {
        if let Some(entry) = self.remove_unsynced(seq) {
            settle(entry.receipt, Ok(Durable::Acknowledged));
            return Some(Settled { replayed: false, ends_segment: false });
        }
        let place = self.spooled_sent.remove(&seq)?;
        self.segments.settle(place);
        let ends_segment = self.active != Some(place.segment) && self.segments.is_done(place.segment);
        Some(Settled { replayed: self.segments.get(place.segment).recovered, ends_segment })
    }

    /// Notes that the client gave an event up. It is sent again after a pause of its topic; after the end of this
    /// process the next one sends what is in the spool.
    pub fn failed(&mut self, seq: Seq, now: Instant, reason: &str) -> Failure {
        if self.closing {
            return match self.remove_unsynced(seq) {
                Some(entry) => {
                    settle(entry.receipt, Err(NotDurable::Failed { reason: reason.to_owned() }));
                    Failure::Lost(entry.record)
                }
                None => Failure::Kept,
            };
        }
        if let Some(topic) = self.give_back(seq) {
            let topic = &mut self.topics[usize::from(topic.0)];
            topic.backlog += 1;
            topic.paused_until = Some(now + RETRY_PAUSE);
        }
        Failure::Kept
    }

    /// When the writer has something to write next.
    pub fn sync_due(&self) -> Option<Instant> {
        let (_, first) = self.unsynced.first_key_value()?;
        if self.closing {
            return Some(first.accepted);
        }
        let mut due = first.accepted + self.limits.delay;
        if let Some(awaited) = self.awaited.first() {
            due = due.min(self.unsynced[awaited].accepted + self.limits.share);
        }
        Some(self.write_error.as_ref().map_or(due, |error| due.max(error.retry_at)))
    }

    /// The last event that a caller waits for, if it is time to write those.
    pub fn awaited_through(&self, now: Instant) -> Option<Seq> {
        let first = self.awaited.first()?;
        let is_due = self.unsynced[first].accepted + self.limits.share <= now;
        if is_due { self.awaited.last().copied() } else { None }
    }

    /// The next `max` events after `after` that are to be written, in order: those through `through`, and those that
    /// have waited for the delay.
    pub fn due(
        &self,
        now: Instant,
        after: Option<Seq>,
        through: Option<Seq>,
        max: usize,
    ) -> Vec<(Seq, Arc<Record>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let is_due = |seq: Seq, entry: &Unsynced| {
            self.closing
                || through.is_some_and(|through| seq <= through)
                || entry.accepted + self.limits.delay <= now
        };
        let later = self.unsynced.range((from, Bound::Unbounded));
        let due = later.take_while(|(seq, entry)| is_due(**seq, entry)).take(max);
        due.map(|(seq, entry)| (*seq, entry.record.clone())).collect()
    }

    /// Notes a new segment, which is appended to from now on.
    pub fn opened(&mut self, number: SegmentNumber) {
        self.segments.add(number, HEADER_BYTES as u64, false);
        self.active = Some(number);
    }

    /// Notes that nothing will be appended to the active segment any more, and its length.
    pub fn ended(&mut self, bytes: u64) {
        if let Some(number) = self.active.take() {
            self.segments.set_bytes(number, bytes);
        }
    }

    /// Notes that records are synced in the active segment, each with its position. Those that Kafka acknowledged
    /// meanwhile are done already. Returns how many events became durable by it.
    pub fn synced(&mut self, bytes: u64, written: &[(Seq, u32)]) -> u64 {
        let number = self.active.expect("records are written into an open segment");
        self.segments.set_bytes(number, bytes);
        self.write_error = None;
        let mut count = 0;
        for &(seq, at) in written {
            let sent = !self.unsent.contains(&seq);
            let Some(entry) = self.remove_unsynced(seq) else { continue };
            count += 1;
            let record = NewRecord { at, topic: entry.topic, stamp: entry.record.stamp, sent };
            let place = self.segments.add_record(number, record);
            if sent {
                self.spooled_sent.insert(seq, place);
            }
            settle(entry.receipt, Ok(Durable::Spooled));
        }
        count
    }

    /// Notes that nothing of a group is durable; it is written again after a pause. If `give_up`, the callers that
    /// wait are told; otherwise they wait for Kafka.
    pub fn write_failed(&mut self, now: Instant, error: String, give_up: bool) {
        if give_up {
            for seq in std::mem::take(&mut self.awaited) {
                let entry = self.unsynced.get_mut(&seq).expect("an awaited event is unsynced");
                settle(entry.receipt.take(), Err(NotDurable::Unconfirmed { reason: error.clone() }));
            }
        }
        self.write_error = Some(DiskError { text: error, retry_at: now + RETRY_PAUSE });
    }

    /// Takes up to `max` events of the backlog for the client: first those in the segments, which are older.
    pub fn claim(&mut self, now: Instant, max: usize) -> Option<Claims> {
        let topics = &self.topics;
        let is_open =
            |topic: TopicIndex| topics[usize::from(topic.0)].paused_until.is_none_or(|until| until <= now);
        if let Some(segment) = self.segments.first_waiting(now, is_open) {
            let taken = self.segments.take_waiting(segment, max, is_open);
            let mut claims = Vec::with_capacity(taken.len());
            for (place, at, topic) in taken {
                let seq = self.next_seq();
                self.spooled_sent.insert(seq, place);
                claims.push(Claim { seq, source: Source::Position(at), topic });
            }
            return Some(Claims { segment: Some(segment), claims });
        }
        let mut claims = Vec::new();
        for seq in &self.unsent {
            let entry = &self.unsynced[seq];
            if is_open(entry.topic) {
                let source = Source::Memory(entry.record.clone());
                claims.push(Claim { seq: *seq, source, topic: entry.topic });
                if claims.len() == max {
                    break;
                }
            }
        }
        for claim in &claims {
            self.unsent.remove(&claim.seq);
        }
        (!claims.is_empty()).then_some(Claims { segment: None, claims })
    }

    /// When the next pause ends that keeps [`Ledger::claim`] from more events; `None` if there is none.
    pub fn claim_due(&self, now: Instant) -> Option<Instant> {
        let paused = self.topics.iter().filter(|topic| topic.backlog > 0);
        let ends = paused.filter_map(|topic| topic.paused_until).chain(self.segments.read_pauses());
        ends.filter(|&end| end > now).min()
    }

    /// Notes that the client took a claimed event.
    pub fn fed(&mut self, claim: &Claim) {
        self.topics[usize::from(claim.topic.0)].backlog -= 1;
    }

    /// Notes that the client did not take a claimed event: it had no room or, if `paused`, it refused the topic.
    pub fn not_fed(&mut self, claim: &Claim, paused: Option<Instant>) {
        self.give_back(claim.seq);
        if let Some(now) = paused {
            self.topics[usize::from(claim.topic.0)].paused_until = Some(now + RETRY_PAUSE);
        }
    }

    /// Notes that a claimed record is damaged in its segment: the event is lost, and the segment is kept aside.
    /// Returns the topic's name.
    pub fn unreadable(&mut self, claim: &Claim) -> Arc<str> {
        self.fed(claim);
        if let Some(place) = self.spooled_sent.remove(&claim.seq) {
            self.segments.settle(place);
            self.segments.get(place.segment).damaged = true;
        }
        self.topics[usize::from(claim.topic.0)].name.clone()
    }

    /// Notes that a segment could not be read, or could again.
    pub fn read(&mut self, number: SegmentNumber, now: Instant, error: Option<String>) {
        self.segments.get(number).read_after = error.as_ref().map(|_| now + RETRY_PAUSE);
        self.read_error = error;
    }

    /// Takes the segments whose events are all acknowledged, each with whether it is to be kept aside.
    pub fn take_done(&mut self) -> Vec<(SegmentNumber, bool)> {
        let done = self.segments.take_done(self.active);
        for (_, segment) in done.iter().filter(|(_, segment)| segment.damaged) {
            self.aside_bytes += segment.bytes;
        }
        done.into_iter().map(|(number, segment)| (number, segment.damaged)).collect()
    }

    /// Counts bytes that stay on the disk and are no segment, such as one that could not be deleted.
    pub fn keep_aside(&mut self, bytes: u64) {
        self.aside_bytes += bytes;
    }

    /// Whether the active segment has records and all of them are acknowledged.
    pub fn active_is_done(&self) -> bool {
        self.active.is_some_and(|number| self.segments.is_done(number))
    }

    /// From now on everything unsynced is written at once, and what fails is not sent again.
    pub fn close(&mut self) {
        self.closing = true;
        self.write_error = None;
    }

    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Takes the unsynced events that the client does not have, after the last attempt to write them.
    pub fn take_unsent(&mut self) -> Vec<Arc<Record>> {
        let unsent = std::mem::take(&mut self.unsent);
        unsent.into_iter().filter_map(|seq| self.remove_unsynced(seq)).map(|entry| entry.record).collect()
    }

    /// The number of events that are in memory alone.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The number of events in the spool that are not acknowledged.
    pub fn spooled(&self) -> usize {
        self.segments.open()
    }

    /// The bytes on the disk.
    pub fn spool_bytes(&self) -> u64 {
        self.segments.bytes() + self.aside_bytes
    }

    /// The stamp of the oldest event in the spool, as far as the segments tell.
    pub fn oldest_stamp(&self) -> Option<u64> {
        self.segments.oldest()
    }

    pub fn disk_error(&self) -> Option<&str> {
        let write_error = self.write_error.as_ref().map(|error| error.text.as_str());
        write_error.or(self.read_error.as_deref())
    }

    fn next_seq(&mut self) -> Seq {
        self.next += 1;
        Seq(self.next)
    }

    /// Notes that the client does not have an event any more. Returns its topic; `None` if the event is settled.
    fn give_back(&mut self, seq: Seq) -> Option<TopicIndex> {
        if let Some(entry) = self.unsynced.get(&seq) {
            self.unsent.insert(seq);
            return Some(entry.topic);
        }
        let place = self.spooled_sent.remove(&seq)?;
        Some(self.segments.wait(place))
    }

    fn remove_unsynced(&mut self, seq: Seq) -> Option<Unsynced> {
        let entry = self.unsynced.remove(&seq)?;
        self.awaited.remove(&seq);
        self.unsent.remove(&seq);
        self.unsynced_bytes -= entry.record.value.len();
        self.unsynced_framed_bytes -= entry.record.framed_bytes() as u64;
        Some(entry)
    }
}

/// Tells the caller, who may have stopped waiting.
fn settle(receipt: Option<Receipt>, outcome: Result<Durable, NotDurable>) {
    if let Some(receipt) = receipt {
        let _ = receipt.send(outcome);
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
