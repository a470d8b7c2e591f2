//! What a row costs a worker, step by step, on one core and without Kafka or ClickHouse: the consumer's own parts in
//! their order, on the events of the `pipeline` benchmark.
//!
//! Then it prints what a look-up in the ledger of forgotten units adds, by the entries of the ledger. The sum of the
//! steps does not contain it: it is that of a ledger without entries. Every event here carries one id.
//!
//! `cargo bench -p consumer --bench steps`, with SPLITSTREAM_BENCH_EVENTS.

mod exposures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use consumer::forget::{Entry, Ledger, LedgerKey, UNITS_MAX};
use consumer::pipeline::batch::{Batch, BatchStamp};
use consumer::pipeline::decode::{Decoded, decode};
use consumer::pipeline::dedupe::{Window, WindowAnswer};
use consumer::pipeline::memory::{Budget, Share};
use consumer::pipeline::rows::{Rows, Table};
use consumer::pipeline::schema_cache::{Plans, SchemaCache};
use consumer::pipeline::verify::{NamedVersion, Verification};
use exposures::Experiments;
use schemas::definition::Definitions;
use schemas::{Event, Exposure, Micros, Uuid};

const EVENTS: usize = 1_500_000;
const ROUNDS: usize = 5;
const RESENT_EVERY: usize = 50;
/// As the consumer does.
const AT_ONCE: usize = 512;
const BATCH_ROWS: usize = 100_000;
const STAMP: BatchStamp =
    BatchStamp { partition: 0, epoch: 1, first: 0, last: 0, ingest_ms: 1_790_000_000_000 };

const STEPS: [&str; 5] = ["decode", "dedupe", "append", "encode", "enter"];

fn main() {
    // `cargo test --benches` runs this as a test; only `cargo bench` measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    consumer::heap::keep_memory();
    let events = std::env::var("SPLITSTREAM_BENCH_EVENTS")
        .map_or(EVENTS, |events| events.parse().expect("SPLITSTREAM_BENCH_EVENTS is a number"));
    let (experiments, _) = Experiments::make();
    let messages = messages(&experiments, events);
    let rounds: Vec<[Duration; STEPS.len()]> =
        (0..ROUNDS).map(|_| Worker::new(&experiments.definitions).run(&messages)).collect();
    println!("{:<10} {:>6}   nanoseconds a message, the least of {ROUNDS} rounds", "step", "ns");
    let mut sum = 0.0;
    for (at, step) in STEPS.into_iter().enumerate() {
        let least = rounds.iter().map(|times| times[at]).min().unwrap_or_default();
        let nanos = least.as_nanos() as f64 / messages.len() as f64;
        sum += nanos;
        println!("{step:<10} {nanos:>6.0}");
    }
    println!("{:<10} {sum:>6.0}", "all");
    println!("\nthe ledger of forgotten units, nanoseconds a message, the least of {ROUNDS} rounds");
    for (what, ledger) in ledgers() {
        let least = (0..ROUNDS).map(|_| asked(&ledger, &messages)).min().unwrap_or_default();
        println!("{what:<32} {:>6.1}", least.as_nanos() as f64 / messages.len() as f64);
    }
}

/// Of units that none of the events carries.
fn ledgers() -> [(&'static str, Ledger); 5] {
    let key = LedgerKey::new(&[7; 32]).expect("a key is long enough");
    let entry = |number: usize| {
        let unit_id = format!("gone-{number}");
        Entry {
            hash: key.unit_hash("user", &unit_id),
            tag: Some(key.tag("user", &unit_id)),
            until: Micros::MAX,
        }
    };
    let of = |units: usize| Ledger::of(key.clone(), (0..units).map(entry));
    let untagged = Ledger::of(key.clone(), [Entry { tag: None, ..entry(0) }]);
    [
        ("without entries", Ledger::default()),
        ("1 unit", of(1)),
        ("1,000 units", of(1_000)),
        ("1,000,000 units", of(UNITS_MAX)),
        ("1 unit of an older build", untagged),
    ]
}

/// How long the ledger is asked.
fn asked(ledger: &Ledger, messages: &[Vec<u8>]) -> Duration {
    let mut plans = Plans::new(Arc::new(SchemaCache::new(None)));
    let mut spent = Duration::ZERO;
    for some in messages.chunks(AT_ONCE) {
        let decoded: Vec<Decoded<'_>> = some
            .iter()
            .map(|message| match decode(Table::Exposures, message, &mut plans) {
                Ok(decoded) => decoded,
                Err(_) => unreachable!("it was encoded as an exposure"),
            })
            .collect();
        let began = Instant::now();
        let covered = decoded.iter().filter(|decoded| ledger.covers(decoded)).count();
        spent += began.elapsed();
        assert_eq!(covered, 0, "nobody of these was forgotten");
    }
    spent
}

/// Of one partition of four.
fn messages(experiments: &Experiments, events: usize) -> Vec<Vec<u8>> {
    let start = STAMP.ingest_ms * 1_000;
    let mut messages: Vec<Vec<u8>> = Vec::with_capacity(events);
    for number in 0..events {
        let message = match number % RESENT_EVERY {
            49 => messages[number - RESENT_EVERY / 2].clone(),
            _ => schemas::avro::encode(&Event::Exposure(experiments.exposure(4 * number, start))),
        };
        messages.push(message);
    }
    messages
}

/// A worker of one partition, without servers.
struct Worker<'d> {
    definitions: &'d Definitions,
    plans: Plans,
    named: Vec<(u64, NamedVersion)>,
    window: Window,
    filling: Batch,
    /// What a batch that has been sent leaves behind.
    spare: Option<Rows>,
    next: u64,
    times: [Duration; STEPS.len()],
}

impl<'d> Worker<'d> {
    fn new(definitions: &'d Definitions) -> Worker<'d> {
        Worker {
            definitions,
            plans: Plans::new(Arc::new(SchemaCache::new(None))),
            named: Vec::new(),
            window: Window::new(Micros::new(0).expect("1970"), usize::MAX),
            filling: Batch::open(Table::Exposures.rows(), 0, share()),
            spare: None,
            next: 0,
            times: [Duration::ZERO; STEPS.len()],
        }
    }

    fn run(mut self, messages: &[Vec<u8>]) -> [Duration; STEPS.len()] {
        let mut decoded = Vec::with_capacity(AT_ONCE);
        for some in messages.chunks(AT_ONCE) {
            let began = Instant::now();
            decoded.clear();
            for message in some {
                match decode(Table::Exposures, message, &mut self.plans) {
                    Ok(Decoded::Exposure(exposure)) => decoded.push(exposure),
                    _ => unreachable!("it was encoded as an exposure"),
                }
            }
            self.times[0] += began.elapsed();
            let began = Instant::now();
            let new = self.new_ones(&decoded);
            self.times[1] += began.elapsed();
            let began = Instant::now();
            self.append(&decoded, &new);
            self.filling.hold(some.iter().map(Vec::len).sum());
            self.times[2] += began.elapsed();
            if self.filling.row_count >= BATCH_ROWS {
                self.close();
            }
        }
        self.times
    }

    fn new_ones(&mut self, decoded: &[Exposure<'_>]) -> Vec<bool> {
        let events: Vec<(Uuid, Micros)> =
            decoded.iter().map(|exposure| (exposure.event_id, exposure.created_at)).collect();
        self.window.warm(&events);
        let mut reader = self.window.reader();
        let mut new: Vec<bool> = events
            .iter()
            .map(|(id, created_at)| reader.look_up(*id, *created_at) == WindowAnswer::New)
            .collect();
        self.filling.warm(&events);
        for (new, (id, created_at)) in new.iter_mut().zip(events) {
            *new = *new && self.filling.remember(id, created_at);
        }
        new
    }

    fn append(&mut self, decoded: &[Exposure<'_>], new: &[bool]) {
        let now = Instant::now();
        for (exposure, new) in decoded.iter().zip(new) {
            if *new {
                let verification = self.verify(exposure);
                assert_eq!(verification, Verification::Verified);
                let Rows::Exposures(rows) = &mut self.filling.rows else { unreachable!("rows of exposures") };
                rows.push(exposure, verification, self.next);
                self.filling.row_count += 1;
            }
            self.filling.cover(self.next, 0, now);
            self.next += 1;
        }
    }

    fn verify(&mut self, exposure: &Exposure<'_>) -> Verification {
        let version = exposure.definition_version;
        let at = self.named.binary_search_by_key(&version, |(known, _)| *known).unwrap_or_else(|at| {
            let named = NamedVersion::of(self.definitions, version).expect("the definitions hold it");
            self.named.insert(at, (version, named));
            at
        });
        self.named[at].1.verify(exposure)
    }

    /// The block, and the ids as those of durable rows.
    fn close(&mut self) {
        let began = Instant::now();
        let rows = self.spare.take().unwrap_or_else(|| Table::Exposures.rows());
        let following = self.filling.following(rows, share());
        let mut batch = std::mem::replace(&mut self.filling, following);
        std::hint::black_box(batch.rows.drain(batch.row_count, &STAMP));
        self.times[3] += began.elapsed();
        let began = Instant::now();
        self.window.enter(batch.identities());
        self.times[4] += began.elapsed();
        self.spare = Some(batch.rows);
    }
}

fn share() -> Share {
    Budget::new(usize::MAX).share()
}
