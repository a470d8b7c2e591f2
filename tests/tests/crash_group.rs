//! The crash cases around the consumer group: owners whose insert arrives late, that leave in the middle of
//! an insert, lose their partitions without noticing, cannot commit, or run out of memory. The numbers are
//! those of the table of crash cases; after each of them every event is stored once.

use std::process::Command;
use std::time::Duration;

use local::Service;
use tests::oracle::row_count;
use tests::platform::{SESSION_TIMEOUT, wait_until};
use tests::proxy::{Effect, Fault};
use tests::relayed::{EXPOSURES_INSERT, INSERT, OFFSET_COMMIT, Relayed};
use tests::signals::{freeze, thaw};
use tests::traffic::{DEFINITIONS, Traffic, ago, exposures, replay};
use tests::{Platform, metrics};

const MINUTE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
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
    relayed.clickhouse.inject(Fault::always(EXPOSURES_INSERT, Effect::HoldRequest));
    replay(&relayed.platform, &exposures(0, 2_000, ago(MINUTE))).unwrap();
    relayed.clickhouse.wait_until_matched(4, TIMEOUT).unwrap();
    freeze(zombie.pid()).unwrap();

    // The successor connects to the servers directly and waits for the end of the zombie's session.
    let successor = relayed.platform.consumer(&[]).unwrap();
    expect_every_event_once(&relayed, 2_000);
    // Now the zombie's insert arrives.
    relayed.clickhouse.clear_faults();
    expect_every_event_once(&relayed, 2_000);
    // Now the zombie goes on running.
    thaw(zombie.pid()).unwrap();
    replay(&relayed.platform, &exposures(2_000, 2_000, ago(MINUTE))).unwrap();
    expect_every_event_once(&relayed, 4_000);
    expect_running(&successor);
}

/// librdkafka pauses every partition while the group is rebalanced, also those that keep their owner. At the
/// end of a partition it once resumed one offset too far: it skipped the next event, or went past the end of
/// an empty partition.
#[test]
fn members_come_and_go_and_no_event_is_skipped() {
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
    relayed.clickhouse.inject(Fault::always(INSERT, Effect::Delay(Duration::from_millis(500))));
    let traffic = Traffic { name: "shared".to_owned(), seed: 11, units: 30_000, duplicates: 0.05 };
    let running = traffic.start(&relayed.platform).unwrap();
    relayed.clickhouse.wait_until_matched(1, TIMEOUT).unwrap();
    let second = relayed.consumer(&[]).unwrap();
    let tally = running.finish().unwrap();
    // The partitions are given back.
    let ended = second.stop().unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    relayed.clickhouse.clear_faults();
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
    wait_until("rows", TIMEOUT, POLL, || Ok(row_count(&clickhouse)? > 0)).unwrap();
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
    relayed.kafka.inject(Fault::always(OFFSET_COMMIT, Effect::CutRequest { after: 0 }));
    let consumer = relayed.consumer(&[]).unwrap();
    replay(&relayed.platform, &exposures(0, 2_000, ago(MINUTE))).unwrap();
    relayed.kafka.wait_until_matched(1, TIMEOUT).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // Without an intent nothing is inserted.
    assert_eq!(row_count(&relayed.platform.clickhouse()).unwrap(), 0);
    relayed.kafka.clear_faults();
    expect_every_event_once(&relayed, 2_000);
    expect_running(&consumer);
}

#[test]
fn case_20_out_of_memory() {
    let relayed = up();
    let consumer = relayed.consumer(&[]).unwrap();
    let traffic = Traffic { name: "heavy".to_owned(), seed: 20, units: 100_000, duplicates: 0.02 };
    let running = traffic.start(&relayed.platform).unwrap();
    // The limit is the memory that the process has now, so that it cannot get another page.
    let pid = consumer.pid();
    let limit = format!("--data={}", data_bytes(pid));
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(limited.success(), "{limited}");
    wait_until("the end of the process", TIMEOUT, POLL, || Ok(consumer.ended()?.is_some())).unwrap();
    consumer.start().unwrap();
    let tally = running.finish().unwrap();
    expect_every_event_once(&relayed, tally.distinct_events);
}

/// The size of the process's writable private memory, heap included.
fn data_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
