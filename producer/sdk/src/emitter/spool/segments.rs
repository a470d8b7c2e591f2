//! The records of the segments that Kafka has not acknowledged, and which of them were handed to the client. It
//! knows positions in segments, but no file and no bytes of events.

use std::collections::BTreeMap;
use std::time::Instant;

use super::record::SegmentNumber;

/// The index of a topic in the ledger's list of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicIndex(pub u16);

/// A record's segment, and its index in that segment's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentNumber,
    index: u32,
}

/// A record as it is added to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRecord {
    /// Its position in the segment.
    pub at: u32,
    pub topic: TopicIndex,
    pub stamp: u64,
    /// Whether the client has it.
    pub sent: bool,
}

/// One segment. A record takes eight bytes here, until the segment is deleted.
#[derive(Debug)]
pub struct Segment {
    pub bytes: u64,
    /// Written by an earlier process.
    pub recovered: bool,
    /// To be kept aside instead of deleted.
    pub damaged: bool,
    /// A failed read is not repeated before this time.
    pub read_after: Option<Instant>,
    records: Vec<Spooled>,
    /// The stamp of the first record.
    oldest: Option<u64>,
    open: usize,
    /// The numbers of waiting records by topic.
    waiting: Vec<usize>,
    /// No record before this index waits.
    waiting_from: usize,
}

#[derive(Debug, Clone, Copy)]
struct Spooled {
    at: u32,
    topic: TopicIndex,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be handed to the client.
    Waiting,
    /// Handed to the client.
    Sent,
    Done,
}

/// The segments by number, with sums over all of them.
#[derive(Debug, Default)]
pub struct Segments {
    by_number: BTreeMap<SegmentNumber, Segment>,
    open: usize,
    bytes: u64,
}

impl Segments {
    pub fn add(&mut self, number: SegmentNumber, bytes: u64, recovered: bool) {
        let segment = Segment {
            bytes,
            recovered,
            damaged: false,
            read_after: None,
            records: Vec::new(),
            oldest: None,
            open: 0,
            waiting: Vec::new(),
            waiting_from: 0,
        };
        let before = self.by_number.insert(number, segment);
        assert!(before.is_none(), "segment {number:?} was added twice");
        self.bytes += bytes;
    }

    /// # Panics
    /// If there is no such segment.
    pub fn get(&mut self, number: SegmentNumber) -> &mut Segment {
        self.by_number.get_mut(&number).expect("a segment is kept while the ledger refers to it")
    }

    pub fn set_bytes(&mut self, number: SegmentNumber, bytes: u64) {
        self.bytes = self.bytes - self.get(number).bytes + bytes;
        self.get(number).bytes = bytes;
    }

    /// The number of records that are not acknowledged.
    pub fn open(&self) -> usize {
        self.open
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stamp of the oldest record of the first segment that is not done.
    pub fn oldest(&self) -> Option<u64> {
        self.by_number.values().find(|segment| segment.open > 0)?.oldest
    }

    pub fn add_record(&mut self, number: SegmentNumber, record: NewRecord) -> Place {
        self.open += 1;
        let segment = self.get(number);
        let index = segment.records.len();
        segment.open += 1;
        segment.oldest.get_or_insert(record.stamp);
        segment.records.push(Spooled { at: record.at, topic: record.topic, state: State::Sent });
        let place = Place {
            segment: number,
            index: u32::try_from(index).expect("a segment has fewer than 2^32 records"),
        };
        if !record.sent {
            self.wait(place);
        }
        place
    }

    /// Notes that the client gave a record back. Returns its topic.
    pub fn wait(&mut self, place: Place) -> TopicIndex {
        let index = place.index as usize;
        let segment = self.get(place.segment);
        let record = &mut segment.records[index];
        assert_eq!(record.state, State::Sent, "only a record that the client has can be given back");
        record.state = State::Waiting;
        let topic = record.topic;
        let slot = usize::from(topic.0);
        if segment.waiting.len() <= slot {
            segment.waiting.resize(slot + 1, 0);
        }
        segment.waiting[slot] += 1;
        segment.waiting_from = segment.waiting_from.min(index);
        topic
    }

    /// Notes that a record which the client has is acknowledged or lost.
    pub fn settle(&mut self, place: Place) {
        self.open -= 1;
        let segment = self.get(place.segment);
        segment.open -= 1;
        let record = &mut segment.records[place.index as usize];
        assert_eq!(record.state, State::Sent, "only a record that the client has can be settled");
        record.state = State::Done;
    }

    /// The first segment that has a waiting record of a topic that `is_open`.
    pub fn first_waiting(&self, now: Instant, is_open: impl Fn(TopicIndex) -> bool) -> Option<SegmentNumber> {
        let (number, _) = self.by_number.iter().find(|(_, segment)| {
            segment.read_after.is_none_or(|after| after <= now) && segment.waiting_topics().any(&is_open)
        })?;
        Some(*number)
    }

    /// The ends of the pauses after failed reads.
    pub fn read_pauses(&self) -> impl Iterator<Item = Instant> {
        self.by_number.values().filter_map(|segment| segment.read_after)
    }

    /// Takes up to `max` waiting records of a segment, in order, for the client. Each comes with its position and
    /// its topic.
    pub fn take_waiting(
        &mut self,
        number: SegmentNumber,
        max: usize,
        is_open: impl Fn(TopicIndex) -> bool,
    ) -> Vec<(Place, u32, TopicIndex)> {
        let segment = self.get(number);
        let mut taken = Vec::new();
        let mut first_left = None;
        let mut index = segment.waiting_from;
        while index < segment.records.len() && taken.len() < max {
            let record = &mut segment.records[index];
            if record.state == State::Waiting && is_open(record.topic) {
                record.state = State::Sent;
                segment.waiting[usize::from(record.topic.0)] -= 1;
                taken.push((Place { segment: number, index: index as u32 }, record.at, record.topic));
            } else if record.state == State::Waiting {
                first_left.get_or_insert(index);
            }
            index += 1;
        }
        segment.waiting_from = first_left.unwrap_or(index);
        taken
    }

    pub fn is_done(&self, number: SegmentNumber) -> bool {
        self.by_number.get(&number).is_none_or(|segment| segment.open == 0)
    }

    /// Takes the segments without open records, `except` one.
    pub fn take_done(&mut self, except: Option<SegmentNumber>) -> Vec<(SegmentNumber, Segment)> {
        let is_done =
            |number: &SegmentNumber, segment: &mut Segment| segment.open == 0 && Some(*number) != except;
        let taken: Vec<(SegmentNumber, Segment)> = self.by_number.extract_if(.., is_done).collect();
        self.bytes -= taken.iter().map(|(_, segment)| segment.bytes).sum::<u64>();
        taken
    }
}

impl Segment {
    fn waiting_topics(&self) -> impl Iterator<Item = TopicIndex> {
        let waiting = self.waiting.iter().enumerate().filter(|(_, count)| **count > 0);
        waiting.map(|(topic, _)| TopicIndex(topic as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: SegmentNumber = SegmentNumber(3);
    const ONE: TopicIndex = TopicIndex(0);
    const OTHER: TopicIndex = TopicIndex(1);

    fn record(at: u32, topic: TopicIndex, sent: bool) -> NewRecord {
        NewRecord { at, topic, stamp: u64::from(at), sent }
    }

    #[test]
    fn waiting_records_are_taken_in_order_and_those_of_a_paused_topic_stay() {
        let mut segments = Segments::default();
        segments.add(NUMBER, 16, false);
        let first = segments.add_record(NUMBER, record(16, ONE, true));
        for (at, topic) in [(20, ONE), (30, OTHER), (40, ONE), (50, ONE)] {
            segments.add_record(NUMBER, record(at, topic, false));
        }
        let now = Instant::now();
        let positions = |taken: Vec<(Place, u32, TopicIndex)>| {
            taken.into_iter().map(|(_, at, _)| at).collect::<Vec<u32>>()
        };
        assert_eq!(positions(segments.take_waiting(NUMBER, 2, |topic| topic == ONE)), [20, 40]);
        assert_eq!(segments.first_waiting(now, |topic| topic == OTHER), Some(NUMBER));
        assert_eq!(positions(segments.take_waiting(NUMBER, 9, |_| true)), [30, 50]);
        assert_eq!(segments.first_waiting(now, |_| true), None);
        // What the client gives back is taken again, before what follows.
        segments.wait(first);
        segments.add_record(NUMBER, record(60, ONE, false));
        assert_eq!(positions(segments.take_waiting(NUMBER, 9, |_| true)), [16, 60]);
    }

    #[test]
    fn a_segment_is_done_with_its_last_record_and_the_active_one_stays() {
        let mut segments = Segments::default();
        segments.add(NUMBER, 16, false);
        segments.add(SegmentNumber(4), 16, false);
        let places = [20, 40].map(|at| segments.add_record(NUMBER, record(at, ONE, true)));
        segments.set_bytes(NUMBER, 60);
        assert_eq!((segments.open(), segments.bytes(), segments.oldest()), (2, 76, Some(20)));
        segments.settle(places[1]);
        assert!(segments.take_done(Some(SegmentNumber(4))).is_empty());
        segments.settle(places[0]);
        let done = segments.take_done(Some(SegmentNumber(4)));
        assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [NUMBER]);
        assert_eq!((segments.open(), segments.bytes(), segments.oldest()), (0, 16, None));
    }
}
