//! The crash cases around the group: owners that come late, that leave in the middle of an insert, that lose
//! their partitions without noticing, that cannot commit, that run out of memory. The numbers are those of
//! the table of crash cases; after each of them every event is there once.

use std::process::Command;
use std::time::Duration;

use local::Service;
use tests::oracle::row_count;
use tests::platform::{SESSION_TIMEOUT, wait_until};
use tests::proxy::{Fault, Harm};
use tests::relayed::{EXPOSURES_INSERT, INSERT, OFFSET_COMMIT, Relayed};
use tests::signals::{freeze, thaw};
use tests::traffic::{DEFINITIONS, Traffic, ago, exposures, replay};
use tests::{Platform, metrics};

const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

fn up() -> Relayed {
    let relayed = Relayed::up().unwrap();
    relayed.platform.apply(DEFINITIONS).unwrap();
    relayed
}

fn expect_every_event_once(relayed: &Relayed, events: u64) {
    let agreement = relayed.platform.every_event_once().unwrap();
    assert_eq!(agreement.rows, events);
}

fn expect_running(consumer: &Service) {
    assert_eq!(consumer.ended().unwrap(), None, "{} ended by itself", consumer.name());
}

#[test]
fn case_10_a_zombies_insert_arrives_after_its_successors() {
    let relayed = up();
    let zombie = relayed.consumer(&[]).unwrap();
    relayed.clickhouse.break_with(Fault::always(EXPOSURES_INSERT, Harm::HoldRequest));
    replay(&relayed.platform, &exposures(0, 2_000, ago(MINUTE))).unwrap();
    relayed.clickhouse.wait_until_met(4, PATIENCE).unwrap();
    freeze(zombie.pid()).unwrap();

    // The successor goes straight to the servers and waits for the end of the zombie's session.
    let successor = relayed.platform.consumer(&[]).unwrap();
    expect_every_event_once(&relayed, 2_000);
    // What the zombie had sent comes now.
    relayed.clickhouse.heal();
    expect_every_event_once(&relayed, 2_000);
    // And now it wakes up.
    thaw(zombie.pid()).unwrap();
    replay(&relayed.platform, &exposures(2_000, 2_000, ago(MINUTE))).unwrap();
    expect_every_event_once(&relayed, 4_000);
    expect_running(&successor);
}

/// librdkafka holds every partition still while the group is rebalanced, those too that stay where they are. It once
/// went on from one offset too far where it had reached the end: over the next event, or out of an empty partition.
#[test]
fn members_come_and_go_and_no_event_is_passed_over() {
    const EVENTS: u64 = 40;
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let first = platform.consumer(&[]).unwrap();
    let mut sent = 0;
    let mut send = || {
        for _ in 0..4 {
            replay(&platform, &exposures(sent, EVENTS, ago(MINUTE))).unwrap();
            sent += EVENTS;
        }
        sent
    };
    for _ in 0..5 {
        let second = platform.consumer(&[]).unwrap();
        send();
        let ended = second.stop().unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        send();
    }
    let sent = send();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!(agreement.rows, sent);
    let rejoined = metrics::sum(&first.url(), "splitstream_consumer_rebalances_total", "rejoin").unwrap();
    assert_eq!(rejoined, 0.0);
    expect_running(&first);
}

#[test]
fn case_11_partitions_given_away_in_the_middle_of_an_insert() {
    let relayed = up();
    let first = relayed.consumer(&[]).unwrap();
    relayed.clickhouse.break_with(Fault::always(INSERT, Harm::Delay(Duration::from_millis(500))));
    let traffic = Traffic { name: "shared".to_owned(), seed: 11, units: 30_000, duplicates: 0.05 };
    let running = traffic.start(&relayed.platform).unwrap();
    relayed.clickhouse.wait_until_met(1, PATIENCE).unwrap();
    let second = relayed.consumer(&[]).unwrap();
    let tally = running.finish().unwrap();
    // And back.
    let ended = second.stop().unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    relayed.clickhouse.heal();
    expect_every_event_once(&relayed, tally.distinct_events);
    expect_running(&first);
    let ended = first.stop().unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    expect_every_event_once(&relayed, tally.distinct_events);
}

#[test]
fn case_12_partitions_lost_while_asleep() {
    let relayed = up();
    let sleeper = relayed.consumer(&[]).unwrap();
    let traffic = Traffic { name: "asleep".to_owned(), seed: 12, units: 30_000, duplicates: 0.05 };
    let running = traffic.start(&relayed.platform).unwrap();
    let clickhouse = relayed.platform.clickhouse();
    wait_until("rows", PATIENCE, POLL, || Ok(row_count(&clickhouse)? > 0)).unwrap();
    freeze(sleeper.pid()).unwrap();
    let _other = relayed.consumer(&[]).unwrap();
    let tally = running.finish().unwrap();
    std::thread::sleep(SESSION_TIMEOUT);
    thaw(sleeper.pid()).unwrap();
    expect_every_event_once(&relayed, tally.distinct_events);
    replay(&relayed.platform, &exposures(0, 1_000, ago(MINUTE))).unwrap();
    expect_every_event_once(&relayed, tally.distinct_events + 1_000);
}

#[test]
fn case_13_no_offset_can_be_committed() {
    let relayed = up();
    relayed.kafka.break_with(Fault::always(OFFSET_COMMIT, Harm::CutRequest { after: 0 }));
    let consumer = relayed.consumer(&[]).unwrap();
    replay(&relayed.platform, &exposures(0, 2_000, ago(MINUTE))).unwrap();
    relayed.kafka.wait_until_met(1, PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // Without an intent nothing is inserted.
    assert_eq!(row_count(&relayed.platform.clickhouse()).unwrap(), 0);
    relayed.kafka.heal();
    expect_every_event_once(&relayed, 2_000);
    expect_running(&consumer);
}

#[test]
fn case_20_out_of_memory() {
    let relayed = up();
    let consumer = relayed.consumer(&[]).unwrap();
    let traffic = Traffic { name: "heavy".to_owned(), seed: 20, units: 100_000, duplicates: 0.02 };
    let running = traffic.start(&relayed.platform).unwrap();
    // Not a page more than it has.
    let pid = consumer.pid();
    let limit = format!("--data={}", data_bytes(pid));
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(limited.success(), "{limited}");
    wait_until("the end of the process", PATIENCE, POLL, || Ok(consumer.ended()?.is_some())).unwrap();
    consumer.start().unwrap();
    let tally = running.finish().unwrap();
    expect_every_event_once(&relayed, tally.distinct_events);
}

/// What the process may write to now: its heap and all other private memory.
fn data_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
