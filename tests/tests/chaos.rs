//! A short run of the chaos, with a new seed each time. `cargo run -p tests --bin chaos` takes Kafka away for a minute.

use std::time::Duration;

use tests::Random;
use tests::chaos::{Scale, run};

#[test]
fn every_accepted_event_is_stored_once_though_kafka_is_away_and_edges_are_killed() {
    let seed = Random::from_environment().below(1_000_000_000);
    let scale = Scale { kafka_away: Duration::from_secs(6), around: Duration::from_secs(1), faults: 3 };
    let outcome = run(seed, scale, |line| eprintln!("{line}")).unwrap();
    eprintln!("{outcome}");
    // What was checked is not nothing.
    assert!(outcome.guaranteed > 100, "{outcome}");
    assert!(outcome.ledger.accepted > 100 && outcome.ledger.refused > 0, "{outcome}");
}
