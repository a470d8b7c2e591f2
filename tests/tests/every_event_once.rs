//! Hundreds of thousands of events while the consumer is killed at seeded moments, most of them with a batch on its
//! way, and ClickHouse and Kafka too: every event is in ClickHouse once. With `SPLITSTREAM_TEST_LONG=1` it is two million
//! events and twenty kills.

use std::time::{Duration, Instant};

use local::Service;
use tests::faults::kill_in_flight;
use tests::platform::wait_until;
use tests::traffic::{DEFINITIONS, Traffic};
use tests::{ClickHouse, Platform, Random};

/// A round is some traffic and a kill of the consumer. A little over 5 % of the units convert and 2 % of the events are
/// sent twice.
const UNITS_PER_ROUND: u64 = 100_000;

/// How many rounds, by what ends them.
struct Scale {
    /// Kills with a batch in flight, at any moment, after a kill of ClickHouse, and after one of Kafka.
    kills: [usize; 4],
    in_flight_min: u64,
}

const SHORT: Scale = Scale { kills: [5, 1, 1, 1], in_flight_min: 3 };
const LONG: Scale = Scale { kills: [14, 3, 2, 1], in_flight_min: 10 };

/// Longer than the rest of a dead consumer's session, after which its partitions are given on.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a round ends for the consumer, always by SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// While an insert runs that the consumer has no answer for.
    InFlight,
    /// So long after its start, whatever it is doing then.
    After(Duration),
    /// So long after ClickHouse was killed under it.
    AfterClickHouse(Duration),
    /// So long after Kafka was killed under it and under the producer.
    AfterKafka(Duration),
}

#[test]
fn every_event_is_there_once_after_every_kill() {
    let scale = if std::env::var_os("SPLITSTREAM_TEST_LONG").is_some() { LONG } else { SHORT };
    let mut random = Random::from_environment();
    let plan = plan(&scale, &mut random);
    let rounds = plan.len() as u64;
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let consumer = platform.consumer(&[]).unwrap();

    let begun = Instant::now();
    let (mut distinct, mut sent, mut in_flight) = (0, 0, 0);
    for (round, kill) in plan.into_iter().enumerate() {
        let traffic = Traffic {
            name: format!("round-{round}"),
            seed: random.below(1_000_000),
            units: UNITS_PER_ROUND,
            duplicates: 0.02,
        };
        let running = traffic.start(&platform).unwrap();
        let met = strike(&platform, &consumer, kill);
        in_flight += u64::from(met);
        consumer.spawn().unwrap();
        let tally = running.finish().unwrap();
        distinct += tally.distinct_events;
        sent += tally.sent;
        eprintln!("{:?}, round {round}: {kill:?}, batch in flight: {met}, {tally:?}", begun.elapsed());
    }
    consumer.wait_ready().unwrap();
    assert!(in_flight >= scale.in_flight_min, "{in_flight} kills met a batch on its way");

    let agreement = platform.every_event_once().unwrap();
    eprintln!("{:?}: {agreement}", begun.elapsed());
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

/// Kills the consumer, and says whether a batch was in flight for certain.
fn strike(platform: &Platform, consumer: &Service, kill: Kill) -> bool {
    let clickhouse = platform.clickhouse();
    if kill == Kill::InFlight && kill_in_flight(consumer, &clickhouse, PATIENCE).unwrap() {
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
    wait_until("an insert", PATIENCE, Duration::from_millis(5), || Ok(clickhouse.running_inserts()? > 0))
        .unwrap();
}
