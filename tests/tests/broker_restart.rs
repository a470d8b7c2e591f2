//! `splitstream simulate` with a broker that is restarted: in the middle of a run, and right before a run,
//! when the broker answers already but leads no partition yet. The run succeeds, and every event is stored
//! once.

use std::net::TcpStream;
use std::time::Duration;

use schemas::topics::EXPOSURES;
use tests::platform::wait_until;
use tests::traffic::{DEFINITIONS, Traffic};
use tests::{Platform, topic};

const TIMEOUT: Duration = Duration::from_secs(60);

fn traffic(name: &str, units: u64) -> Traffic {
    Traffic { name: name.to_owned(), seed: 4, units, duplicates: 0.02 }
}

#[test]
fn a_simulation_goes_on_when_the_broker_is_restarted_in_the_middle() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let mut running = traffic("middle", 300_000).start(&platform).unwrap();
    let events_written = || Ok(topic::length(platform.brokers(), EXPOSURES)? > 0);
    wait_until("the first events", TIMEOUT, Duration::ZERO, events_written).unwrap();
    platform.stack().kill_kafka(0).unwrap();
    assert!(running.is_running().unwrap(), "it ended before the broker did");
    platform.stack().start_kafka(0).unwrap();
    let tally = running.finish().unwrap();
    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!(
        (agreement.messages, agreement.rows, agreement.duplicates),
        (tally.sent, tally.distinct_events, tally.duplicates)
    );
}

/// The run once ended with exit code 5 and NotLeaderForPartition, the answer to the request for the end of
/// the log of definitions.
#[test]
fn a_simulation_can_start_when_the_broker_has_just_been_restarted() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let (mut sent, mut distinct) = (0, 0);
    for round in ["one", "two", "three"] {
        platform.stack().kill_kafka(0).unwrap();
        let tally = std::thread::scope(|scope| {
            let starting = scope.spawn(|| platform.stack().start_kafka(0));
            let listens = || Ok(TcpStream::connect(platform.brokers()).is_ok());
            wait_until("the broker's port", TIMEOUT, Duration::ZERO, listens).unwrap();
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
