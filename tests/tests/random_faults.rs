//! A short run of the fault harness, another one each time. `cargo run -p tests --bin faults` runs longer
//! ones and has more kinds of faults.

use tests::Random;
use tests::harness::{Kind, run};

/// Some ten seconds each.
const ROUNDS: u64 = 5;

#[test]
fn every_event_once_whatever_happens() {
    let seed = Random::from_environment().below(1_000_000_000);
    run(seed, ROUNDS, &Kind::PLAIN, |line| eprintln!("{line}")).unwrap();
}
