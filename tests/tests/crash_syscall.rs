//! Crash cases met inside a system call: ClickHouse killed where it writes and renames for an insert, the
//! consumer killed where it sends. The call is watched by strace and never takes place. After each of them
//! every event is there once, and what the consumer found out on the way is stated.

#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use local::Service;
use schemas::avro;
use schemas::topics::EXPOSURES;
use tests::oracle::row_count;
use tests::platform::wait_until;
use tests::proxy::{Fault, Harm, Meets};
use tests::relayed::{HEARTBEAT, INSERT, Relayed};
use tests::syscalls::{Call, Ends, Trap, socket_of};
use tests::traffic::{ago, exposures};
use tests::{Platform, metrics, topic};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const SIGKILL: i32 = 9;
/// Events of one batch, which is closed by nothing else.
const BATCH: u64 = 2_000;
const WHOLE_BATCHES: [(&str, &str); 2] =
    [("SPLITSTREAM_CONSUMER__BATCH_ROWS", "2000"), ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "60000")];
const FIRST_EPOCH: &str = "splitstream/2 epoch=1 topic=";
/// 16 bytes as base64, as Kafka writes them.
const TOPIC_ID_LENGTH: usize = 22;

/// The events of batch number `number`, from 0, all in one partition.
fn write_batch(platform: &Platform, number: u64) {
    let events = exposures(number * BATCH, BATCH, ago(Duration::from_secs(60)));
    let messages: Vec<Vec<u8>> = events.iter().map(avro::encode).collect();
    topic::write(platform.brokers(), EXPOSURES, 0, &messages).unwrap();
}

fn rows(platform: &Platform) -> u64 {
    row_count(&platform.clickhouse()).unwrap()
}

fn note(platform: &Platform) -> String {
    topic::note(platform.brokers(), "splitstream-consumer", EXPOSURES, 0).unwrap()
}

/// The first batch is announced and nothing is durable.
fn expect_first_announced(platform: &Platform) {
    let note = note(platform);
    let named = note.strip_prefix(FIRST_EPOCH).unwrap_or_else(|| panic!("{note}"));
    let (topic_id, rest) = named.split_once(' ').unwrap_or_else(|| panic!("{note}"));
    assert_eq!(topic_id.len(), TOPIC_ID_LENGTH, "{note}");
    assert!(rest.starts_with("durable=none intent=0-1999 rows=2000 "), "{note}");
}

fn expect_killed(trap: Trap, ended: impl Fn() -> anyhow::Result<Option<ExitStatus>>) {
    assert!(trap.springs_within(PATIENCE), "the call was never made");
    wait_until("an exit status", PATIENCE, POLL, || Ok(ended()?.is_some())).unwrap();
    assert_eq!(ended().unwrap().unwrap().signal(), Some(SIGKILL));
}

fn expect_every_event_once(platform: &Platform, batches: u64) {
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows), (batches * BATCH, batches * BATCH));
}

/// How often an announced batch was looked for in the table: and was not there, and was.
fn verdicts(consumer: &Service) -> (f64, f64) {
    let count = |verdict: &str| {
        metrics::sum(&consumer.url(), "splitstream_consumer_batch_verdicts_total", verdict).unwrap()
    };
    (count("absent"), count("present"))
}

/// Where ClickHouse keeps the table of exposures.
fn table_directory(platform: &Platform) -> String {
    let sql = "SELECT data_paths[1] FROM system.tables WHERE database = 'splitstream' AND name = 'exposures'";
    platform.clickhouse().text(sql, &[]).unwrap()
}

/// A file of the part that an insert makes, before it has its name; by today's date and by tomorrow's, which
/// may come meanwhile.
fn file_of_new_part(platform: &Platform, number: u64, file: &str) -> Vec<String> {
    let days =
        platform.clickhouse().text("SELECT toYYYYMMDD(now('UTC')), toYYYYMMDD(now('UTC') + 86400)", &[]);
    let days = days.unwrap();
    let directory = table_directory(platform);
    let path = |day| format!("{directory}tmp_insert_{day}_{number}_{number}_0/{file}");
    days.split('\t').map(path).collect()
}

/// Kills ClickHouse at a call during the first insert after `batches_before`, starts it again, and expects
/// these verdicts of the consumer, which lived through it.
fn kill_clickhouse_at(batches_before: u64, call: impl Fn(&Platform) -> Call, absent_present: (f64, f64)) {
    let platform = Platform::up().unwrap();
    let consumer = platform.consumer(&WHOLE_BATCHES).unwrap();
    for number in 0..batches_before {
        write_batch(&platform, number);
        let there = (number + 1) * BATCH;
        wait_until("the batch before", PATIENCE, POLL, || Ok(rows(&platform) == there)).unwrap();
    }
    let stack = platform.stack();
    let trap = Trap::set(stack.clickhouse_pid().unwrap(), &call(&platform)).unwrap();
    write_batch(&platform, batches_before);
    expect_killed(trap, || stack.clickhouse_ended());
    stack.kill_clickhouse().unwrap();
    stack.start_clickhouse().unwrap();
    expect_every_event_once(&platform, batches_before + 1);
    assert_eq!(consumer.ended().unwrap(), None, "the consumer ended by itself");
    assert_eq!(verdicts(&consumer), absent_present);
}

#[test]
fn case_03_clickhouse_killed_at_the_first_write_of_a_parts_columns() {
    let call = |platform: &Platform| Call {
        names: "write,pwrite64,writev",
        on: file_of_new_part(platform, 1, "data.bin"),
        count: 1,
    };
    // Not there after the restart, there after it was sent again.
    kill_clickhouse_at(0, call, (1.0, 1.0));
}

/// The log of tokens, one line for each of the two hashes of a token.
fn write_of_a_token(platform: &Platform, count: u64) -> Call {
    let log = format!("{}deduplication_logs/deduplication_log_1.txt", table_directory(platform));
    Call { names: "write,pwrite64,writev", on: vec![log], count }
}

#[test]
fn case_07_clickhouse_killed_at_the_write_of_the_token() {
    kill_clickhouse_at(0, |platform| write_of_a_token(platform, 1), (1.0, 1.0));
}

#[test]
fn case_07_clickhouse_killed_at_the_second_write_of_the_token() {
    // Half a token is a token: sending again "succeeds" without rows, and another token is taken.
    kill_clickhouse_at(0, |platform| write_of_a_token(platform, 2), (2.0, 1.0));
}

#[test]
fn case_07_clickhouse_killed_at_the_rename_of_its_second_part() {
    let call = |platform: &Platform| Call {
        names: "rename,renameat,renameat2",
        on: file_of_new_part(platform, 2, ""),
        count: 1,
    };
    // The token is there and the rows are not: as above.
    kill_clickhouse_at(1, call, (2.0, 1.0));
}

/// The next consumer gets all of the first batch in.
fn expect_mended(relayed: &Relayed, consumer: &Service) {
    relayed.kafka.heal();
    relayed.clickhouse.heal();
    consumer.kill().unwrap();
    consumer.start().unwrap();
    expect_every_event_once(&relayed.platform, 1);
}

/// A consumer whose session outlasts the time that it takes to set a trap after a heartbeat, on a busy machine.
fn patient_consumer(relayed: &Relayed) -> Service {
    let session = ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "9000");
    relayed.consumer(&[&WHOLE_BATCHES[..], &[session]].concat()).unwrap()
}

/// Kills the consumer when it sends to the group's coordinator next, heartbeats excepted: one is held back, and
/// without its answer no other is sent.
fn at_the_next_commit(relayed: &Relayed, consumer: &Service) -> Trap {
    relayed.kafka.break_with(Fault::once(HEARTBEAT, Harm::HoldRequest));
    relayed.kafka.wait_until_met(1, PATIENCE).unwrap();
    let Some(SocketAddr::V4(own)) = relayed.kafka.met_from() else { panic!("the consumer's end is IPv4") };
    let far = relayed.kafka.address().parse().unwrap();
    let on = vec![socket_of(Ends { own, far }).unwrap()];
    Trap::set(consumer.pid(), &Call { names: "sendmsg,sendto,write,writev", on, count: 1 }).unwrap()
}

#[test]
fn case_01_consumer_killed_at_the_send_of_the_intent() {
    let relayed = Relayed::up().unwrap();
    let consumer = patient_consumer(&relayed);
    let trap = at_the_next_commit(&relayed, &consumer);
    write_batch(&relayed.platform, 0);
    expect_killed(trap, || consumer.ended());
    assert_eq!((note(&relayed.platform).as_str(), rows(&relayed.platform)), ("", 0));
    expect_mended(&relayed, &consumer);
}

#[test]
fn case_02_consumer_killed_at_the_send_of_the_insert() {
    let relayed = Relayed::up().unwrap();
    let consumer = relayed.consumer(&WHOLE_BATCHES).unwrap();
    // What it asks at fixed times is withheld, and nothing else is sent to ClickHouse until a batch is due.
    for question in ["FROM forgotten", "uptime()"] {
        relayed.clickhouse.break_with(Fault::once(Meets::Text(question), Harm::HoldRequest));
    }
    relayed.clickhouse.wait_until_met(2, PATIENCE).unwrap();
    let call = Call { names: "writev", on: Vec::new(), count: 1 };
    let trap = Trap::set(consumer.pid(), &call).unwrap();
    write_batch(&relayed.platform, 0);
    expect_killed(trap, || consumer.ended());
    expect_first_announced(&relayed.platform);
    assert_eq!(rows(&relayed.platform), 0);
    expect_mended(&relayed, &consumer);
}

#[test]
fn case_05_consumer_killed_at_the_send_of_the_offset() {
    let relayed = Relayed::up().unwrap();
    let consumer = patient_consumer(&relayed);
    relayed.clickhouse.break_with(Fault::once(INSERT, Harm::HoldRequest));
    write_batch(&relayed.platform, 0);
    relayed.clickhouse.wait_until_met(1, PATIENCE).unwrap();
    let trap = at_the_next_commit(&relayed, &consumer);
    relayed.clickhouse.release();
    expect_killed(trap, || consumer.ended());
    expect_first_announced(&relayed.platform);
    assert_eq!(rows(&relayed.platform), BATCH);
    expect_mended(&relayed, &consumer);
}
