//! Facts about the ledger, and a simulation of writer, feeder, client and callers in random order.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::*;

const DELAY: Duration = Duration::from_millis(100);
const SHARE: Duration = Duration::from_millis(10);
const SEGMENT: SegmentNumber = SegmentNumber(1);

fn limits() -> Limits {
    Limits { memory_events: 100, memory_bytes: 10_000, spool_bytes: 1_000_000, delay: DELAY, share: SHARE }
}

fn record(number: u8) -> Record {
    record_of("conversions", number)
}

fn record_of(topic: &str, number: u8) -> Record {
    Record {
        topic: topic.into(),
        key: b"u1"[..].into(),
        value: vec![number; 10].into(),
        stamp: number.into(),
    }
}

/// Admits a record, which must be sent at once or wait, as `sent` says.
fn admit(ledger: &mut Ledger, number: u8, now: Instant, sent: bool) -> Seq {
    let admitted = ledger.admit(record(number), None, now).unwrap();
    assert_eq!(admitted.send, sent, "event {number}");
    admitted.seq
}

fn due(ledger: &Ledger, now: Instant) -> Vec<u8> {
    let due = ledger.due(now, None, ledger.awaited_through(now), 100);
    due.iter().map(|(_, record)| record.value[0]).collect()
}

/// Writes what is due, at the event's number as its position.
fn sync(ledger: &mut Ledger, now: Instant) {
    let due = ledger.due(now, None, ledger.awaited_through(now), 100);
    let written: Vec<(Seq, u32)> =
        due.iter().map(|(seq, record)| (*seq, u32::from(record.value[0]))).collect();
    ledger.synced(1_000, &written);
}

/// What the feeder would send next, by number, and gives to the client.
fn feed(ledger: &mut Ledger, now: Instant) -> (bool, Vec<u8>, Vec<Seq>) {
    let Some(claims) = ledger.claim(now, 100) else { return (false, vec![], vec![]) };
    let mut numbers = Vec::new();
    for claim in &claims.claims {
        ledger.fed(claim);
        numbers.push(match &claim.source {
            Source::Position(at) => *at as u8,
            Source::Memory(record) => record.value[0],
        });
    }
    (claims.segment.is_some(), numbers, claims.claims.iter().map(|claim| claim.seq).collect())
}

#[test]
fn an_event_is_written_if_it_is_not_acknowledged_within_the_delay() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    assert_eq!(ledger.sync_due(), None);
    let first = admit(&mut ledger, 1, start, true);
    admit(&mut ledger, 2, start + SHARE, true);
    assert_eq!(ledger.sync_due(), Some(start + DELAY));
    assert_eq!(due(&ledger, start + DELAY - SHARE / 2), [0; 0]);
    assert_eq!(due(&ledger, start + DELAY), [1]);
    let settled = ledger.acknowledged(first).unwrap();
    assert_eq!(settled, Settled { replayed: false, ends_segment: false });
    assert_eq!(ledger.sync_due(), Some(start + SHARE + DELAY));
    assert_eq!(due(&ledger, start + DELAY), [0; 0]);
    assert_eq!(due(&ledger, start + SHARE + DELAY), [2]);
}

#[test]
fn awaited_events_share_a_write_with_all_that_came_before_them() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    admit(&mut ledger, 1, start, true);
    let (receipt, mut first) = oneshot::channel();
    ledger.admit(record(2), Some(receipt), start + SHARE).unwrap();
    admit(&mut ledger, 3, start + SHARE, true);
    let (receipt, mut second) = oneshot::channel();
    ledger.admit(record(4), Some(receipt), start + SHARE + SHARE / 2).unwrap();
    admit(&mut ledger, 5, start + 2 * SHARE, true);
    assert_eq!(ledger.sync_due(), Some(start + 2 * SHARE));
    assert_eq!(due(&ledger, start + 2 * SHARE), [1, 2, 3, 4]);
    assert!(first.try_recv().is_err());
    ledger.opened(SEGMENT);
    sync(&mut ledger, start + 2 * SHARE);
    assert_eq!(first.try_recv().unwrap(), Ok(Durable::Spooled));
    assert_eq!(second.try_recv().unwrap(), Ok(Durable::Spooled));
    assert_eq!((ledger.unsynced(), ledger.spooled()), (1, 4));
}

#[test]
fn a_segment_is_deleted_when_kafka_has_acknowledged_the_last_of_its_events() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    let [one, two, three] = [1, 2, 3].map(|number| admit(&mut ledger, number, start, true));
    ledger.opened(SEGMENT);
    // Acknowledged while it is being written: it is on the disk and not open.
    let written = [(one, 16), (two, 60), (three, 104)];
    ledger.acknowledged(two);
    assert_eq!(ledger.synced(148, &written), 2);
    assert_eq!((ledger.spooled(), ledger.spool_bytes(), ledger.oldest_stamp()), (2, 148, Some(1)));
    ledger.ended(148);
    assert_eq!(ledger.acknowledged(three), Some(Settled { replayed: false, ends_segment: false }));
    assert_eq!(ledger.take_done(), []);
    assert_eq!(ledger.acknowledged(one), Some(Settled { replayed: false, ends_segment: true }));
    assert_eq!(ledger.take_done(), [(SEGMENT, false)]);
    assert_eq!((ledger.spooled(), ledger.spool_bytes(), ledger.oldest_stamp()), (0, 0, None));
}

#[test]
fn while_events_wait_for_the_client_later_ones_join_them_and_the_order_stays() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    let first = admit(&mut ledger, 1, start, true);
    ledger.not_sent(first);
    admit(&mut ledger, 2, start, false);
    ledger.opened(SEGMENT);
    sync(&mut ledger, start + DELAY);
    admit(&mut ledger, 3, start + DELAY, false);
    // Events of another topic are not held up.
    assert!(ledger.admit(record_of("exposures", 9), None, start + DELAY).unwrap().send);
    let (from_segment, numbers, seqs) = feed(&mut ledger, start + DELAY);
    assert_eq!((from_segment, numbers), (true, vec![1, 2]));
    admit(&mut ledger, 4, start + DELAY, false);
    let (from_segment, numbers, _) = feed(&mut ledger, start + DELAY);
    assert_eq!((from_segment, numbers), (false, vec![3, 4]));
    admit(&mut ledger, 5, start + DELAY, true);
    for seq in seqs {
        ledger.acknowledged(seq).unwrap();
    }
    assert_eq!(ledger.spooled(), 0);
}

#[test]
fn what_an_earlier_process_left_is_sent_first() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    ledger.recover(SegmentNumber(4), 100, false, &[(16, "conversions", 7), (50, "conversions", 8)]);
    ledger.recover(SegmentNumber(5), 100, true, &[(17, "conversions", 9)]);
    assert_eq!((ledger.spooled(), ledger.spool_bytes(), ledger.oldest_stamp()), (3, 200, Some(7)));
    admit(&mut ledger, 1, start, false);
    let mut all = Vec::new();
    for expected in [vec![16, 50], vec![17], vec![1]] {
        let (_, numbers, seqs) = feed(&mut ledger, start);
        assert_eq!(numbers, expected);
        all.extend(seqs);
    }
    admit(&mut ledger, 2, start, true);
    let replayed: Vec<bool> = all.into_iter().map(|seq| ledger.acknowledged(seq).unwrap().replayed).collect();
    assert_eq!(replayed, [true, true, true, false]);
    // The damaged segment is kept, and still takes its room.
    assert_eq!(ledger.take_done(), [(SegmentNumber(4), false), (SegmentNumber(5), true)]);
    assert_eq!(ledger.spool_bytes(), 100);
}

#[test]
fn what_kafka_refuses_is_sent_again_after_a_pause_of_its_topic() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    let first = admit(&mut ledger, 1, start, true);
    let second = admit(&mut ledger, 2, start, true);
    ledger.opened(SEGMENT);
    sync(&mut ledger, start + DELAY);
    assert_eq!(ledger.failed(first, start + DELAY, "no such topic"), Failure::Kept);
    assert_eq!(ledger.acknowledged(first), None);
    admit(&mut ledger, 3, start + DELAY, false);
    assert!(ledger.claim(start + DELAY, 100).is_none());
    assert_eq!(ledger.claim_due(start + DELAY), Some(start + DELAY + RETRY_PAUSE));
    assert!(ledger.admit(record_of("exposures", 9), None, start + DELAY).unwrap().send);
    let later = start + DELAY + RETRY_PAUSE;
    assert_eq!(feed(&mut ledger, later).1, [1]);
    assert_eq!(feed(&mut ledger, later).1, [3]);
    assert_eq!(ledger.claim_due(later), None);
    ledger.acknowledged(second).unwrap();
    assert_eq!(ledger.spooled(), 1);
}

#[test]
fn at_each_bound_the_new_event_is_refused_and_no_old_one_is_dropped() {
    let start = Instant::now();
    let framed = record(1).framed_bytes() as u64;
    let bounds = [
        (Limits { memory_events: 2, ..limits() }, Full::Memory),
        (Limits { memory_bytes: 29, ..limits() }, Full::Memory),
        (Limits { spool_bytes: 3 * framed - 1, ..limits() }, Full::Spool),
    ];
    for (limits, full) in bounds {
        let mut ledger = Ledger::new(limits);
        let first = admit(&mut ledger, 1, start, true);
        admit(&mut ledger, 2, start, true);
        assert_eq!(ledger.admit(record(3), None, start).unwrap_err(), full);
        assert_eq!(ledger.unsynced(), 2);
        ledger.acknowledged(first);
        admit(&mut ledger, 3, start, true);
    }
    // What is on the disk leaves the memory, but not the bound of the spool.
    let mut ledger = Ledger::new(Limits { memory_events: 2, spool_bytes: 16 + 3 * framed, ..limits() });
    let first = admit(&mut ledger, 1, start, true);
    admit(&mut ledger, 2, start, true);
    ledger.opened(SEGMENT);
    let written: Vec<(Seq, u32)> = vec![(first, 16), (Seq(first.0 + 1), 50)];
    ledger.synced(16 + 2 * framed, &written);
    admit(&mut ledger, 3, start, true);
    assert_eq!(ledger.admit(record(4), None, start).unwrap_err(), Full::Spool);
}

#[test]
fn after_a_failed_write_events_stay_in_memory_and_callers_wait_only_if_kafka_is_there() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    let (receipt, mut answer) = oneshot::channel();
    let seq = ledger.admit(record(1), Some(receipt), start).unwrap().seq;
    ledger.write_failed(start + SHARE, "no space".into(), false);
    assert_eq!(ledger.sync_due(), Some(start + SHARE + RETRY_PAUSE));
    assert_eq!(ledger.disk_error(), Some("no space"));
    assert!(answer.try_recv().is_err());
    ledger.acknowledged(seq).unwrap();
    assert_eq!(answer.try_recv().unwrap(), Ok(Durable::Acknowledged));

    let (receipt, mut answer) = oneshot::channel();
    ledger.admit(record(2), Some(receipt), start).unwrap();
    ledger.write_failed(start, "no space".into(), true);
    assert_eq!(answer.try_recv().unwrap(), Err(NotDurable::Unconfirmed { reason: "no space".into() }));
    // The event itself is still there, and is written when the disk works again.
    ledger.opened(SEGMENT);
    sync(&mut ledger, start + DELAY);
    assert_eq!((ledger.spooled(), ledger.disk_error()), (1, None));
}

#[test]
fn at_the_end_everything_is_written_at_once_and_what_is_safe_nowhere_is_given_up() {
    let mut ledger = Ledger::new(limits());
    let start = Instant::now();
    let safe = admit(&mut ledger, 1, start, true);
    ledger.opened(SEGMENT);
    sync(&mut ledger, start + DELAY);
    let first = admit(&mut ledger, 2, start, true);
    let second = admit(&mut ledger, 3, start, true);
    ledger.not_sent(second);
    ledger.write_failed(start, "no space".into(), false);
    ledger.close();
    assert_eq!(due(&ledger, start), [2, 3]);
    let unsent: Vec<u8> = ledger.take_unsent().iter().map(|record| record.value[0]).collect();
    assert_eq!(unsent, [3]);
    assert_eq!(ledger.failed(safe, start, "purged"), Failure::Kept);
    let Failure::Lost(lost) = ledger.failed(first, start, "purged") else { panic!("it is nowhere") };
    assert_eq!(lost.value[0], 2);
    assert_eq!((ledger.unsynced(), ledger.spooled()), (0, 1));
}

/// Random numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A client that takes up to eight events, and acknowledges or gives them up in any order.
#[derive(Default)]
struct Client {
    held: Vec<(Seq, u16)>,
    acknowledged: BTreeSet<u16>,
}

const CLIENT_ROOM: usize = 8;

/// One run: random steps of all parties, then an end in which Kafka and the disk work.
struct Simulation {
    ledger: Ledger,
    client: Client,
    random: Random,
    now: Instant,
    accepted: u16,
    /// The events in the segments by segment and position.
    disk: BTreeMap<(SegmentNumber, u32), u16>,
    segment: u64,
    length: u32,
    receipts: Vec<(u16, oneshot::Receiver<Result<Durable, NotDurable>>)>,
}

impl Simulation {
    fn emit(&mut self) {
        let number = self.accepted + 1;
        let topic = if self.random.below(4) == 0 { "exposures" } else { "conversions" };
        let value = number.to_le_bytes();
        let record = Record { topic: topic.into(), key: Box::new([]), value: value.into(), stamp: 0 };
        let (receipt, answer) = oneshot::channel();
        let receipt = (self.random.below(3) == 0).then_some(receipt);
        let awaited = receipt.is_some();
        let Ok(admitted) = self.ledger.admit(record, receipt, self.now) else { return };
        self.accepted = number;
        if awaited {
            self.receipts.push((number, answer));
        }
        if admitted.send && !self.take(admitted.seq, number) {
            self.ledger.not_sent(admitted.seq);
        }
    }

    fn take(&mut self, seq: Seq, number: u16) -> bool {
        if self.client.held.len() == CLIENT_ROOM {
            return false;
        }
        self.client.held.push((seq, number));
        true
    }

    fn write(&mut self) {
        let through = self.ledger.awaited_through(self.now);
        let group = self.ledger.due(self.now, None, through, 5);
        if group.is_empty() {
            return;
        }
        if self.random.below(4) == 0 {
            self.ledger.ended(u64::from(self.length));
            let give_up = self.random.below(2) == 0;
            self.ledger.write_failed(self.now, "no space".into(), give_up);
            self.length = 0;
            return;
        }
        if self.length == 0 {
            self.segment += 1;
            self.length = HEADER_BYTES as u32;
            self.ledger.opened(SegmentNumber(self.segment));
        }
        let mut written = Vec::new();
        for (seq, record) in group {
            let number = u16::from_le_bytes(record.value[..].try_into().unwrap());
            self.disk.insert((SegmentNumber(self.segment), self.length), number);
            written.push((seq, self.length));
            self.length += 1;
        }
        // Kafka answers while the sync is under way.
        self.answer();
        self.ledger.synced(u64::from(self.length), &written);
        if self.random.below(3) == 0 {
            self.ledger.ended(u64::from(self.length));
            self.length = 0;
        }
    }

    fn feed(&mut self) {
        for (segment, is_damaged) in self.ledger.take_done() {
            assert!(!is_damaged);
            self.disk.retain(|(number, _), _| *number != segment);
        }
        let Some(claims) = self.ledger.claim(self.now, 3) else { return };
        for claim in claims.claims {
            let number = match &claim.source {
                Source::Memory(record) => u16::from_le_bytes(record.value[..].try_into().unwrap()),
                Source::Position(at) => self.disk[&(claims.segment.unwrap(), *at)],
            };
            if self.take(claim.seq, number) {
                // The acknowledgement may come before the feeder notes that the client took the event.
                if self.random.below(4) == 0 {
                    self.answer();
                }
                self.ledger.fed(&claim);
            } else {
                let paused = (self.random.below(8) == 0).then_some(self.now);
                self.ledger.not_fed(&claim, paused);
            }
        }
    }

    fn answer(&mut self) {
        if self.client.held.is_empty() {
            return;
        }
        let at = self.random.below(self.client.held.len() as u64) as usize;
        let (seq, number) = self.client.held.remove(at);
        if self.random.below(5) == 0 {
            assert_eq!(self.ledger.failed(seq, self.now, "refused"), Failure::Kept);
        } else {
            self.ledger.acknowledged(seq).expect("the ledger knows what the client has");
            self.client.acknowledged.insert(number);
        }
    }

    /// Every event that was called durable is acknowledged or on the disk.
    fn check(&mut self) {
        let on_disk: BTreeSet<u16> = self.disk.values().copied().collect();
        for (number, answer) in &mut self.receipts {
            if let Ok(Ok(_)) = answer.try_recv() {
                assert!(self.client.acknowledged.contains(number) || on_disk.contains(number), "{number}");
            }
        }
    }
}

#[test]
fn no_order_of_steps_loses_an_event_or_keeps_a_segment() {
    for seed in 1..=400_u64 {
        let mut run = Simulation {
            ledger: Ledger::new(Limits { memory_events: 20, spool_bytes: 3_000, ..limits() }),
            client: Client::default(),
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            now: Instant::now(),
            accepted: 0,
            disk: BTreeMap::new(),
            segment: 0,
            length: 0,
            receipts: Vec::new(),
        };
        println!("seed {seed}");
        for _ in 0..400 {
            match run.random.below(8) {
                0..=2 => run.emit(),
                3 => run.write(),
                4 => run.feed(),
                5 => run.answer(),
                6 => run.now += Duration::from_millis(run.random.below(200)),
                _ => run.check(),
            }
        }
        for _ in 0..2_000 {
            run.now += RETRY_PAUSE;
            run.feed();
            run.answer();
        }
        let all: BTreeSet<u16> = (1..=run.accepted).collect();
        assert_eq!(run.client.acknowledged, all, "seed {seed}");
        assert!(run.accepted > 50, "seed {seed}: {}", run.accepted);
        assert_eq!((run.ledger.unsynced(), run.ledger.spooled()), (0, 0), "seed {seed}");
        run.ledger.ended(u64::from(run.length));
        run.feed();
        assert_eq!((run.ledger.spool_bytes(), run.disk.len()), (0, 0), "seed {seed}");
        // Nothing is held back any more.
        let record = record_of("exposures", 1);
        assert!(run.ledger.admit(record, None, run.now).unwrap().send, "seed {seed}");
        let record = record_of("conversions", 1);
        assert!(run.ledger.admit(record, None, run.now).unwrap().send, "seed {seed}");
    }
}
