//! Sends hundreds of thousands of events while the consumer is killed at seeded moments, most of them with a
//! batch in flight, and ClickHouse and Kafka too: every event is in ClickHouse once. With
//! `SPLITSTREAM_TEST_LONG=1` it sends two million events and kills twenty times.

use std::time::{Duration, Instant};

use local::Service;
use tests::faults::kill_in_flight;
use tests::platform::wait_until;
use tests::traffic::{DEFINITIONS, Traffic};
use tests::{ClickHouse, Platform, Random};

/// A round sends traffic and kills the consumer. A little over 5 % of the units convert and 2 % of the events
/// are sent twice.
const UNITS_PER_ROUND: u64 = 100_000;

/// The number of rounds, by kind of kill.
struct Scale {
    /// The numbers of kills with a batch in flight, at any moment, after a kill of ClickHouse, and after one
    /// of Kafka.
    kills: [usize; 4],
    in_flight_min: u64,
}

const SHORT: Scale = Scale { kills: [5, 1, 1, 1], in_flight_min: 3 };
const LONG: Scale = Scale { kills: [14, 3, 2, 1], in_flight_min: 10 };

/// Longer than the rest of a dead consumer's session, after which its partitions are reassigned.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The moment at which the consumer gets SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// While one of its inserts runs and has not been answered.
    InFlight,
    /// This long after the start of the round, whatever the consumer is doing.
    After(Duration),
    /// This long after a kill of ClickHouse.
    AfterClickHouse(Duration),
    /// This long after a kill of Kafka.
    AfterKafka(Duration),
}

#[test]
fn every_event_is_stored_once_after_every_kill() {
    let scale = if std::env::var_os("SPLITSTREAM_TEST_LONG").is_some() { LONG } else { SHORT };
    let mut random = Random::from_environment();
    let plan = plan(&scale, &mut random);
    let rounds = plan.len() as u64;
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let consumer = platform.consumer(&[]).unwrap();

    let started = Instant::now();
    let (mut distinct, mut sent, mut in_flight) = (0, 0, 0);
    for (round, kill) in plan.into_iter().enumerate() {
        let traffic = Traffic {
            name: format!("round-{round}"),
            seed: random.below(1_000_000),
            units: UNITS_PER_ROUND,
            duplicates: 0.02,
        };
        let running = traffic.start(&platform).unwrap();
        let batch_in_flight = kill_consumer(&platform, &consumer, kill);
        in_flight += u64::from(batch_in_flight);
        consumer.spawn().unwrap();
        let tally = running.finish().unwrap();
        distinct += tally.distinct_events;
        sent += tally.sent;
        eprintln!(
            "{:?}, round {round}: {kill:?}, batch in flight: {batch_in_flight}, {tally:?}",
            started.elapsed()
        );
    }
    consumer.wait_ready().unwrap();
    assert!(in_flight >= scale.in_flight_min, "only {in_flight} kills had a batch in flight");

    let agreement = platform.every_event_once().unwrap();
    eprintln!("{:?}: {agreement}", started.elapsed());
    assert_eq!((agreement.rows, agreement.messages), (distinct, sent));
    assert_eq!(agreement.dead_letters, 0);
    assert!(distinct >= rounds * UNITS_PER_ROUND, "{distinct} events");
}

/// The kills in a seeded order.
fn plan(scale: &Scale, random: &mut Random) -> Vec<Kill> {
    let [in_flight, any_time, after_clickhouse, after_kafka] = scale.kills;
    let mut plan = vec![Kill::InFlight; in_flight];
    for _ in 0..any_time {
        plan.push(Kill::After(random.between(Duration::ZERO, Duration::from_secs(8))));
    }
    for _ in 0..after_clickhouse {
        plan.push(Kill::AfterClickHouse(random.between(Duration::ZERO, Duration::from_secs(3))));
    }
    for _ in 0..after_kafka {
        plan.push(Kill::AfterKafka(random.between(Duration::ZERO, Duration::from_secs(3))));
    }
    random.shuffle(&mut plan);
    plan
}

/// Kills the consumer. Returns whether a batch was certainly in flight.
fn kill_consumer(platform: &Platform, consumer: &Service, kill: Kill) -> bool {
    let clickhouse = platform.clickhouse();
    if kill == Kill::InFlight && kill_in_flight(consumer, &clickhouse, TIMEOUT).unwrap() {
        return true;
    }
    match kill {
        Kill::InFlight => {}
        Kill::After(delay) => std::thread::sleep(delay),
        Kill::AfterClickHouse(delay) => {
            wait_for_insert(&clickhouse);
            platform.stack().kill_clickhouse().unwrap();
            std::thread::sleep(delay);
        }
        Kill::AfterKafka(delay) => {
            wait_for_insert(&clickhouse);
            platform.stack().kill_kafka(0).unwrap();
            std::thread::sleep(delay);
        }
    }
    consumer.kill().unwrap();
    match kill {
        Kill::InFlight | Kill::After(_) => {}
        Kill::AfterClickHouse(_) => platform.stack().start_clickhouse().unwrap(),
        Kill::AfterKafka(_) => platform.start_kafka(0).unwrap(),
    }
    false
}

fn wait_for_insert(clickhouse: &ClickHouse) {
    wait_until("an insert", TIMEOUT, Duration::from_millis(5), || Ok(clickhouse.running_inserts()? > 0))
        .unwrap();
}
