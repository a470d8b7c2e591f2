//! Crash cases inside a system call: ClickHouse is killed where it writes and renames for an insert, the
//! consumer where it sends. strace kills the process at the call, which never takes effect. After each case
//! every event is stored once, and the tests state what the consumer found in the table on the way.

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
use tests::proxy::{Effect, Fault, Matcher};
use tests::relayed::{HEARTBEAT, INSERT, Relayed};
use tests::syscalls::{Call, Endpoints, Trap, socket_of};
use tests::traffic::{ago, exposures};
use tests::{Platform, metrics, topic};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const SIGKILL: i32 = 9;
/// The number of events of one batch; no other limit closes a batch.
const BATCH: u64 = 2_000;
const WHOLE_BATCHES: [(&str, &str); 2] =
    [("SPLITSTREAM_CONSUMER__BATCH_ROWS", "2000"), ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "60000")];
const FIRST_EPOCH: &str = "splitstream/2 epoch=1 topic=";
/// Kafka's form: 16 bytes in base64.
const TOPIC_ID_LENGTH: usize = 22;

/// Writes the events of batch `number`, from 0, to one partition.
fn write_batch(platform: &Platform, number: u64) {
    let events = exposures(number * BATCH, BATCH, ago(Duration::from_secs(60)));
    let messages: Vec<Vec<u8>> = events.iter().map(avro::encode).collect();
    topic::write(platform.brokers(), EXPOSURES, 0, &messages).unwrap();
}

fn rows(platform: &Platform) -> u64 {
    row_count(&platform.clickhouse()).unwrap()
}

fn metadata(platform: &Platform) -> String {
    topic::committed_metadata(platform.brokers(), "splitstream-consumer", EXPOSURES, 0).unwrap()
}

/// Checks that the first batch is announced and nothing is durable.
fn expect_first_announced(platform: &Platform) {
    let metadata = metadata(platform);
    let after_epoch = metadata.strip_prefix(FIRST_EPOCH).unwrap_or_else(|| panic!("{metadata}"));
    let (topic_id, rest) = after_epoch.split_once(' ').unwrap_or_else(|| panic!("{metadata}"));
    assert_eq!(topic_id.len(), TOPIC_ID_LENGTH, "{metadata}");
    assert!(rest.starts_with("durable=none intent=0-1999 rows=2000 "), "{metadata}");
}

fn expect_killed(trap: Trap, ended: impl Fn() -> anyhow::Result<Option<ExitStatus>>) {
    assert!(trap.kills_within(TIMEOUT), "the call was never made");
    wait_until("an exit status", TIMEOUT, POLL, || Ok(ended()?.is_some())).unwrap();
    assert_eq!(ended().unwrap().unwrap().signal(), Some(SIGKILL));
}

fn expect_every_event_once(platform: &Platform, batches: u64) {
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows), (batches * BATCH, batches * BATCH));
}

/// How often the consumer looked for an announced batch in the table and found it absent, and found it present.
fn verdicts(consumer: &Service) -> (f64, f64) {
    let count = |verdict: &str| {
        metrics::sum(&consumer.url(), "splitstream_consumer_batch_verdicts_total", verdict).unwrap()
    };
    (count("absent"), count("present"))
}

/// The directory of ClickHouse's table of exposures.
fn table_directory(platform: &Platform) -> String {
    let sql = "SELECT data_paths[1] FROM system.tables WHERE database = 'splitstream' AND name = 'exposures'";
    platform.clickhouse().text(sql, &[]).unwrap()
}

/// The paths of a file of the part that an insert creates, under its temporary name: with today's date, and
/// with tomorrow's in case the day ends meanwhile.
fn file_of_new_part(platform: &Platform, number: u64, file: &str) -> Vec<String> {
    let days =
        platform.clickhouse().text("SELECT toYYYYMMDD(now('UTC')), toYYYYMMDD(now('UTC') + 86400)", &[]);
    let days = days.unwrap();
    let directory = table_directory(platform);
    let path = |day| format!("{directory}tmp_insert_{day}_{number}_{number}_0/{file}");
    days.split('\t').map(path).collect()
}

/// Kills ClickHouse at a call during the first insert after `batches_before`, starts it again, and expects
/// these verdicts of the consumer, which runs on meanwhile.
fn kill_clickhouse_at(batches_before: u64, call: impl Fn(&Platform) -> Call, absent_present: (f64, f64)) {
    let platform = Platform::up().unwrap();
    let consumer = platform.consumer(&WHOLE_BATCHES).unwrap();
    for number in 0..batches_before {
        write_batch(&platform, number);
        let stored = (number + 1) * BATCH;
        wait_until("the batch before", TIMEOUT, POLL, || Ok(rows(&platform) == stored)).unwrap();
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
    // Absent after the restart, present after it was sent again.
    kill_clickhouse_at(0, call, (1.0, 1.0));
}

/// A write to the log of tokens, which has one line for each of the two hashes of a token.
fn token_write(platform: &Platform, count: u64) -> Call {
    let log = format!("{}deduplication_logs/deduplication_log_1.txt", table_directory(platform));
    Call { names: "write,pwrite64,writev", on: vec![log], count }
}

#[test]
fn case_07_clickhouse_killed_at_the_write_of_the_token() {
    kill_clickhouse_at(0, |platform| token_write(platform, 1), (1.0, 1.0));
}

#[test]
fn case_07_clickhouse_killed_at_the_second_write_of_the_token() {
    // Half a token counts as a token: sending the batch again "succeeds" without rows, and then another token
    // is used.
    kill_clickhouse_at(0, |platform| token_write(platform, 2), (2.0, 1.0));
}

#[test]
fn case_07_clickhouse_killed_at_the_rename_of_its_second_part() {
    let call = |platform: &Platform| Call {
        names: "rename,renameat,renameat2",
        on: file_of_new_part(platform, 2, ""),
        count: 1,
    };
    // The token is stored and the rows are not: as above.
    kill_clickhouse_at(1, call, (2.0, 1.0));
}

/// Restarts the consumer and checks that the whole first batch is stored.
fn expect_recovery(relayed: &Relayed, consumer: &Service) {
    relayed.kafka.clear_faults();
    relayed.clickhouse.clear_faults();
    consumer.kill().unwrap();
    consumer.start().unwrap();
    expect_every_event_once(&relayed.platform, 1);
}

/// Starts a consumer whose session is longer than it takes to set a trap after a heartbeat on a busy machine.
fn consumer_with_long_session(relayed: &Relayed) -> Service {
    let session = ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "9000");
    relayed.consumer(&[&WHOLE_BATCHES[..], &[session]].concat()).unwrap()
}

/// A trap that kills the consumer at its next commit. The socket is that of a heartbeat, which the proxy
/// holds: without its answer no other heartbeat is sent.
fn trap_next_commit(relayed: &Relayed, consumer: &Service) -> Trap {
    relayed.kafka.inject(Fault::once(HEARTBEAT, Effect::HoldRequest));
    relayed.kafka.wait_until_matched(1, TIMEOUT).unwrap();
    let Some(SocketAddr::V4(own)) = relayed.kafka.matched_from() else {
        panic!("the consumer's end is IPv4")
    };
    let peer = relayed.kafka.address().parse().unwrap();
    let on = vec![socket_of(Endpoints { own, peer }).unwrap()];
    Trap::set(consumer.pid(), &Call { names: "sendmsg,sendto,write,writev", on, count: 1 }).unwrap()
}

#[test]
fn case_01_consumer_killed_at_the_send_of_the_intent() {
    let relayed = Relayed::up().unwrap();
    let consumer = consumer_with_long_session(&relayed);
    let trap = trap_next_commit(&relayed, &consumer);
    write_batch(&relayed.platform, 0);
    expect_killed(trap, || consumer.ended());
    assert_eq!((metadata(&relayed.platform).as_str(), rows(&relayed.platform)), ("", 0));
    expect_recovery(&relayed, &consumer);
}

#[test]
fn case_02_consumer_killed_at_the_send_of_the_insert() {
    let relayed = Relayed::up().unwrap();
    let consumer = relayed.consumer(&WHOLE_BATCHES).unwrap();
    // The consumer's periodic queries are held, so that it sends nothing else to ClickHouse until a batch is
    // due.
    for query in ["FROM forgotten", "uptime()"] {
        relayed.clickhouse.inject(Fault::once(Matcher::Text(query), Effect::HoldRequest));
    }
    relayed.clickhouse.wait_until_matched(2, TIMEOUT).unwrap();
    let call = Call { names: "writev", on: Vec::new(), count: 1 };
    let trap = Trap::set(consumer.pid(), &call).unwrap();
    write_batch(&relayed.platform, 0);
    expect_killed(trap, || consumer.ended());
    expect_first_announced(&relayed.platform);
    assert_eq!(rows(&relayed.platform), 0);
    expect_recovery(&relayed, &consumer);
}

#[test]
fn case_05_consumer_killed_at_the_send_of_the_offset() {
    let relayed = Relayed::up().unwrap();
    let consumer = consumer_with_long_session(&relayed);
    relayed.clickhouse.inject(Fault::once(INSERT, Effect::HoldRequest));
    write_batch(&relayed.platform, 0);
    relayed.clickhouse.wait_until_matched(1, TIMEOUT).unwrap();
    let trap = trap_next_commit(&relayed, &consumer);
    relayed.clickhouse.release();
    expect_killed(trap, || consumer.ended());
    expect_first_announced(&relayed.platform);
    assert_eq!(rows(&relayed.platform), BATCH);
    expect_recovery(&relayed, &consumer);
}
