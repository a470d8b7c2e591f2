//! The protocol under random schedules: members are killed, or stand still and wake up; commits and answers are
//! lost; inserts arrive late; ClickHouse dies between recording a token and writing the rows. Whatever happens, at
//! the end every event is in the table once. SPLITSTREAM_TEST_SEED replays a schedule, SPLITSTREAM_TEST_SCHEDULES
//! is their number.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use simulation::world::{Broken, World};

mod simulation {
    pub mod world;
}

const SCHEDULES: u64 = 10_000;
const STEPS: usize = 300;

/// Runs one schedule to its end and says what is wrong with the table.
fn run(seed: u64, broken: Broken) -> Result<(), String> {
    let mut world = World::new(seed, broken);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();

    let mut ids = HashSet::new();
    let mut offsets = HashSet::new();
    for row in &world.rows {
        if !ids.insert(row.id) {
            return Err(format!("event {} is in the table twice", row.id));
        }
        if !offsets.insert(row.offset) {
            return Err(format!("offset {} is in the table twice", row.offset));
        }
        if world.log[row.offset as usize] != Some(row.id) {
            return Err(format!("offset {} holds another event than the log", row.offset));
        }
    }
    let sent: HashSet<u64> = world.log.iter().flatten().copied().collect();
    if let Some(lost) = sent.iter().find(|id| !ids.contains(id)) {
        return Err(format!("event {lost} is not in the table"));
    }
    let mut spans: Vec<(u64, u64)> = world.rows.iter().map(|row| (row.span.first, row.span.last)).collect();
    spans.sort_unstable();
    spans.dedup();
    let mut next = 0;
    for (first, last) in spans {
        if first != next {
            return Err(format!("the chain of batches breaks at {next}: the next one begins at {first}"));
        }
        next = last + 1;
    }
    Ok(())
}

/// The first of `count` schedules that ends badly.
fn search(first: u64, count: u64, broken: Broken) -> Option<(u64, String)> {
    (first..first + count).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, broken)));
        let wrong = match outcome {
            Ok(Ok(())) => return None,
            Ok(Err(wrong)) => wrong,
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without a text".to_owned()),
        };
        Some((seed, wrong))
    })
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn every_event_is_there_once_whatever_happens() {
    let (first, count) = match setting("SPLITSTREAM_TEST_SEED") {
        Some(seed) => (seed, 1),
        None => (0, setting("SPLITSTREAM_TEST_SCHEDULES").unwrap_or(SCHEDULES)),
    };
    println!("{count} schedules from seed {first}");
    if let Some((seed, wrong)) = search(first, count, Broken::default()) {
        panic!("SPLITSTREAM_TEST_SEED={seed}: {wrong}");
    }
}

/// Each protection is needed: without it, the simulation finds a schedule that ends badly.
#[test]
fn without_any_one_protection_something_goes_wrong() {
    let broken = [
        Broken { fence: true, ..Broken::default() },
        Broken { tokens: true, ..Broken::default() },
        Broken { notes: true, ..Broken::default() },
    ];
    for broken in broken {
        let found = search(0, SCHEDULES, broken);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("nothing goes wrong with {broken:?}"));
        println!("{broken:?}: seed {seed}: {wrong}");
    }
}
