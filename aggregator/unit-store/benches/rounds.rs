//! Measures what a round costs when three quarters of the units' rows have no room in memory: 1,000,000 units with 20 rows,
//! then rounds of 20,000 different keys that get a row each, drawn by Zipf's law; the popular keys come back in nearly every
//! round. The same rounds run over [`Memory`], whose bytes divided by 4 are the bound.
//!
//! Run it with `cargo bench -p unit-store`. The file is in the directory for temporary files (`TMPDIR`).

use std::collections::HashSet;
use std::time::Instant;

use counting::event::{Conversion, Exposure, NewExposure, Scope};
use counting::names::{Name, Names};
use counting::rows::Rows;
use counting::store::{Memory, Store};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use unit_store::BoundedMemory;

const UNITS: u64 = 1_000_000;
const ROWS: u64 = 20;
const KEYS_OF_ROUND: usize = 20_000;
const ROUNDS: u64 = 100;
const SEED: u64 = 28;

fn main() {
    // `cargo test --benches` only checks that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mut names = Names::default();
    let name = names.add("purchase");
    let rounds = rounds();

    let before = resident_bytes();
    let mut memory = Memory::default();
    measure("memory", &mut memory, name, &rounds);
    let needed = memory.bytes();
    println!("memory: {} MB counted, {} MB resident", mb(needed), mb(resident_bytes() - before));
    drop(memory);
    // SAFETY: the call has no conditions.
    unsafe { nix::libc::malloc_trim(0) };

    let before = resident_bytes();
    let directory = tempfile::tempdir().unwrap();
    let mut store = BoundedMemory::open(directory.path(), needed / 4).unwrap();
    measure("bounded", &mut store, name, &rounds);
    let resident = resident_bytes() - before;
    let counters = store.counters();
    println!(
        "bounded: {} MB counted, {} MB resident, {} MB allowed; file {} MB, of which {} MB are used",
        mb(counters.memory_bytes),
        mb(resident),
        mb(needed / 4),
        mb(counters.file_bytes as usize),
        mb(counters.file_bytes_used as usize)
    );
    println!("{counters:?}");
    let start = Instant::now();
    let mut rows = 0;
    store.visit(|_, of| rows += of.conversions().len()).unwrap();
    println!("bounded: a visit of all {rows} conversions takes {:.1} s", start.elapsed().as_secs_f64());
}

/// Fills the store, a row of each unit after the other in the order of their keys, and measures the rounds.
fn measure<S: Store<Error: std::fmt::Debug>>(what: &str, store: &mut S, name: Name, rounds: &[Vec<u64>]) {
    let (start, cpu) = (Instant::now(), cpu_us());
    for key in 0..UNITS {
        let mut rows = Rows::default();
        rows.push_exposure(exposure(name));
        for row in 1..ROWS {
            rows.push_conversion(conversion(name, row));
        }
        store.put(scrambled(key), rows).unwrap();
    }
    report(&format!("{what}: filling"), start, cpu, UNITS as usize);
    // The first half makes popular keys be in memory.
    let (first, second) = rounds.split_at(rounds.len() / 2);
    for (part, rounds) in [("first", first), ("second", second)] {
        let (start, cpu) = (Instant::now(), cpu_us());
        for (number, keys) in rounds.iter().enumerate() {
            for key in keys {
                let mut rows = store.take(*key).unwrap();
                rows.push_conversion(conversion(name, ROWS + number as u64 + part.len() as u64 * 1_000));
                store.put(*key, rows).unwrap();
            }
        }
        report(&format!("{what}: {part} half of the rounds"), start, cpu, rounds.len() * KEYS_OF_ROUND);
    }
}

fn report(what: &str, start: Instant, cpu: i64, keys: usize) {
    let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e6, (cpu_us() - cpu) as f64);
    println!("{what}: {:.2} us a key, {:.2} us of CPU", wall / keys as f64, cpu / keys as f64);
}

/// The keys of each round, drawn by Zipf's law with the exponent 1 until there are enough different ones.
fn rounds() -> Vec<Vec<u64>> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=UNITS)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut state = SEED;
    let mut round = |_| {
        let mut keys = HashSet::new();
        let mut order = Vec::new();
        while order.len() < KEYS_OF_ROUND {
            state += 1;
            let uniform = scrambled(state) as f64 / 2f64.powi(64) * sum;
            let rank = cumulative.partition_point(|of| *of < uniform).min(UNITS as usize - 1);
            if keys.insert(rank) {
                order.push(scrambled(rank as u64));
            }
        }
        order
    };
    (0..ROUNDS).map(&mut round).collect()
}

/// A number of which nothing can be guessed: SplitMix64's finalizer, as units' keys are hashes.
fn scrambled(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

const START: i64 = 1_790_000_000_000_000;

fn exposure(name: Name) -> Exposure {
    Exposure::new(NewExposure {
        experiment: name,
        at: START,
        id: u128::from(scrambled(0)) << 64,
        variant: name,
        phase: 1,
        environment: name,
        segments: [name; 4],
        ingested_ms: START / 1_000 + 2_000,
        forced: false,
        mismatched: false,
    })
}

fn conversion(name: Name, number: u64) -> Conversion {
    let scope = Scope { environment: name, experiment: None };
    let id = u128::from(scrambled(number)) << 64 | u128::from(scrambled(!number));
    Conversion::new(name, START + number as i64 * 60_000_000, id, 19_990_000, scope)
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

fn mb(bytes: usize) -> usize {
    bytes / 1_000_000
}
