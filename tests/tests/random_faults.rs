//! A short run of the fault harness, with a new seed each time. `cargo run -p tests --bin faults` runs longer
//! and with more kinds of faults.

use tests::Random;
use tests::harness::{Kind, run};

/// Each takes some ten seconds.
const ROUNDS: u64 = 5;

#[test]
fn every_event_is_stored_once_after_random_faults() {
    let seed = Random::from_environment().below(1_000_000_000);
    run(seed, ROUNDS, &Kind::PLAIN, |line| eprintln!("{line}")).unwrap();
}
