//! `splitstream simulate` beside a broker that is restarted: in the middle of a run, and right before one, when the
//! broker answers already and leads nothing yet. It ends well, and every event is there once.

use std::net::TcpStream;
use std::time::Duration;

use schemas::topics::EXPOSURES;
use tests::platform::wait_until;
use tests::traffic::{DEFINITIONS, Traffic};
use tests::{Platform, topic};

const PATIENCE: Duration = Duration::from_secs(60);

fn traffic(name: &str, units: u64) -> Traffic {
    Traffic { name: name.to_owned(), seed: 4, units, duplicates: 0.02 }
}

#[test]
fn a_simulation_goes_on_when_the_broker_is_restarted_in_the_middle() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let mut running = traffic("middle", 300_000).start(&platform).unwrap();
    let begun = || Ok(topic::length(platform.brokers(), EXPOSURES)? > 0);
    wait_until("the first events", PATIENCE, Duration::ZERO, begun).unwrap();
    platform.stack().kill_kafka(0).unwrap();
    assert!(running.runs().unwrap(), "it ended before the broker did");
    platform.stack().start_kafka(0).unwrap();
    let tally = running.finish().unwrap();
    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!(
        (agreement.messages, agreement.rows, agreement.duplicates),
        (tally.sent, tally.distinct_events, tally.duplicates)
    );
}

/// It ended with exit code 5 and NotLeaderForPartition, the answer to the question where the log of definitions
/// ends.
#[test]
fn a_simulation_begins_when_the_broker_has_just_been_restarted() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let (mut sent, mut distinct) = (0, 0);
    for round in ["one", "two", "three"] {
        platform.stack().kill_kafka(0).unwrap();
        let tally = std::thread::scope(|scope| {
            let starting = scope.spawn(|| platform.stack().start_kafka(0));
            let listens = || Ok(TcpStream::connect(platform.brokers()).is_ok());
            wait_until("the broker's port", PATIENCE, Duration::ZERO, listens).unwrap();
            let tally = traffic(round, 1_000).send(&platform);
            starting.join().unwrap().unwrap();
            tally.unwrap()
        });
        sent += tally.sent;
        distinct += tally.distinct_events;
    }
    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows), (sent, distinct));
}
