//! A batch: a run of offsets of one Kafka partition that is filled row by row, closed by rows, bytes, age, the process's memory or as a complete replay, and
//! inserted as one block. It covers the offsets of duplicates and dead letters too, so that the batches of a
//! partition form a chain without gaps. No clock and no network here.

use std::time::{Duration, Instant};

use schemas::{Micros, Uuid};

use crate::pipeline::dedupe::Ids;
use crate::pipeline::memory::Share;
use crate::pipeline::rows::Rows;

/// The offsets that a batch covers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

/// When a batch is closed, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: usize,
    /// Bytes of the messages, as received, that became rows. Duplicates do not count, so a batch of them alone is never
    /// closed.
    pub bytes: usize,
    pub age: Duration,
}

/// What decides beside the limits whether a batch is closed.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub now: Instant,
    /// The process holds as many bytes of batches as it may.
    pub memory_is_spent: bool,
    /// The batch that this one must become exactly.
    pub replay: Option<Span>,
}

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Rows,
    Bytes,
    Age,
    /// The process holds as many bytes as it may.
    Memory,
    /// It is a replayed batch and has all of its messages.
    Replay,
}

impl Due {
    pub fn as_str(self) -> &'static str {
        match self {
            Due::Rows => "rows",
            Due::Bytes => "bytes",
            Due::Age => "age",
            Due::Memory => "memory",
            Due::Replay => "replay",
        }
    }
}

/// A batch being filled.
pub struct Batch {
    pub rows: Rows,
    pub row_count: usize,
    /// The ids and times of the rows, for the window once they are durable. `ids` is the same as a set, to compare
    /// with.
    identities: Vec<(Uuid, Micros)>,
    ids: Ids,
    first: u64,
    /// The offset after the last one covered.
    next: u64,
    /// Bytes of the messages, as received, that became rows.
    share: Share,
    opened: Option<Instant>,
    /// The broker's time stamp of the oldest message.
    oldest_ms: i64,
}

impl Batch {
    /// An empty batch that begins at `first`. `rows` are empty columns of its table.
    pub fn open(rows: Rows, first: u64, share: Share) -> Batch {
        Batch {
            rows,
            row_count: 0,
            identities: Vec::new(),
            ids: Ids::default(),
            first,
            next: first,
            share,
            opened: None,
            oldest_ms: i64::MAX,
        }
    }

    /// An empty batch that follows this one, with room for as many ids.
    pub fn following(&self, rows: Rows, share: Share) -> Batch {
        Batch {
            identities: Vec::with_capacity(self.identities.len()),
            ids: Ids::with_room(self.identities.len()),
            ..Batch::open(rows, self.next, share)
        }
    }

    /// Remembers an event that becomes a row. False if the batch has it already.
    pub fn remember(&mut self, id: Uuid, created_at: Micros) -> bool {
        let new = self.ids.insert(id);
        if new {
            self.identities.push((id, created_at));
        }
        new
    }

    /// As [`Ids::warm`].
    pub fn warm(&self, events: &[(Uuid, Micros)]) {
        self.ids.warm(events.iter().map(|(id, _)| *id));
    }

    /// Whether one of its rows has that id.
    pub fn has(&self, id: Uuid) -> bool {
        self.ids.contains(id)
    }

    /// The ids and times of its events.
    pub fn identities(&self) -> &[(Uuid, Micros)] {
        &self.identities
    }

    /// Covers the message at `offset`, whether or not it becomes a row.
    pub fn cover(&mut self, offset: u64, timestamp_ms: i64, now: Instant) {
        assert!(offset >= self.next, "offset {offset} after {}", self.next);
        self.next = offset + 1;
        self.opened.get_or_insert(now);
        self.oldest_ms = self.oldest_ms.min(timestamp_ms);
    }

    /// Counts bytes of messages that became rows. Call it once for many messages, since the count is shared by all
    /// partitions.
    pub fn hold(&mut self, bytes: usize) {
        self.share.grow(bytes);
    }

    /// Covers everything up to `last`, where no more messages come.
    pub fn cover_until(&mut self, last: u64) {
        self.next = self.next.max(last + 1);
    }

    /// Every rule by which a batch is closed. A batch without rows grows until it has one, unless it is a replayed
    /// batch: that one is due once it has all of its messages, and never before.
    pub fn due(&self, limits: &Limits, circumstances: &Circumstances) -> Option<Due> {
        let Circumstances { now, memory_is_spent, replay } = *circumstances;
        if let Some(span) = replay {
            return (self.next > span.last).then_some(Due::Replay);
        }
        if self.row_count == 0 {
            return None;
        }
        if memory_is_spent {
            return Some(Due::Memory);
        }
        let opened = self.opened?;
        self.reached_size(limits).or((now.duration_since(opened) >= limits.age).then_some(Due::Age))
    }

    /// The size limit that it has reached, after which it takes no more messages.
    pub fn reached_size(&self, limits: &Limits) -> Option<Due> {
        if self.row_count >= limits.rows {
            return Some(Due::Rows);
        }
        (self.bytes() >= limits.bytes).then_some(Due::Bytes)
    }

    /// The offset after everything that it covers.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What it covers. `None` if nothing.
    pub fn span(&self) -> Option<Span> {
        (self.next > self.first).then(|| Span { first: self.first, last: self.next - 1 })
    }

    pub fn age(&self, now: Instant) -> Duration {
        self.opened.map_or(Duration::ZERO, |opened| now.duration_since(opened))
    }

    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// Milliseconds since 1970.
    pub fn oldest_ms(&self) -> i64 {
        self.oldest_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::memory::Budget;
    use crate::pipeline::rows::Table;

    const LIMITS: Limits = Limits { rows: 3, bytes: 100, age: Duration::from_secs(1) };

    fn at(now: Instant) -> Circumstances {
        Circumstances { now, memory_is_spent: false, replay: None }
    }

    fn batch(rows: usize, bytes: usize, opened: Instant) -> Batch {
        let mut batch = Batch::open(Table::Conversions.rows(), 10, Budget::new(1_000).share());
        batch.cover(12, 0, opened);
        batch.hold(bytes);
        batch.row_count = rows;
        batch
    }

    #[test]
    fn it_is_due_by_rows_bytes_or_age() {
        let opened = Instant::now();
        assert_eq!(batch(3, 1, opened).due(&LIMITS, &at(opened)), Some(Due::Rows));
        assert_eq!(batch(2, 100, opened).due(&LIMITS, &at(opened)), Some(Due::Bytes));
        assert_eq!(batch(2, 99, opened).due(&LIMITS, &at(opened + Duration::from_millis(999))), None);
        assert_eq!(batch(2, 99, opened).due(&LIMITS, &at(opened + Duration::from_secs(1))), Some(Due::Age));
    }

    #[test]
    fn it_is_due_with_its_first_row_when_memory_is_spent() {
        let opened = Instant::now();
        let spent = Circumstances { memory_is_spent: true, ..at(opened) };
        assert_eq!(batch(1, 1, opened).due(&LIMITS, &spent), Some(Due::Memory));
        assert_eq!(batch(0, 1, opened).due(&LIMITS, &spent), None);
    }

    #[test]
    fn a_replayed_batch_is_due_with_its_last_message_and_by_nothing_else() {
        // The batch covers 10 to 12.
        let opened = Instant::now();
        let becoming = |last| Circumstances {
            memory_is_spent: true,
            replay: Some(Span { first: 10, last }),
            ..at(opened + Duration::from_secs(60))
        };
        assert_eq!(batch(3, 100, opened).due(&LIMITS, &becoming(13)), None);
        assert_eq!(batch(3, 100, opened).due(&LIMITS, &becoming(12)), Some(Due::Replay));
        assert_eq!(batch(0, 0, opened).due(&LIMITS, &becoming(12)), Some(Due::Replay));
    }

    #[test]
    fn without_rows_it_grows_whatever_its_age() {
        let opened = Instant::now();
        assert_eq!(batch(0, 1_000, opened).due(&LIMITS, &at(opened + Duration::from_secs(60))), None);
    }

    #[test]
    fn its_span_begins_where_the_last_one_ended_and_covers_the_gap() {
        let mut batch = Batch::open(Table::Exposures.rows(), 10, Budget::new(1_000).share());
        assert_eq!(batch.span(), None);
        batch.cover(14, 7, Instant::now());
        assert_eq!(batch.oldest_ms(), 7);
        assert_eq!(batch.span(), Some(Span { first: 10, last: 14 }));
        assert_eq!(batch.next(), 15);
    }
}
