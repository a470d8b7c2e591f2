//! Unusual topics: the log starts after offset 0, the topic is deleted and created again, or its last offsets
//! are transaction markers. No process dies in any of these tests.

use std::time::Duration;

use local::Service;
use schemas::avro;
use schemas::topics::EXPOSURES;
use tests::oracle::row_count;
use tests::platform::wait_until;
use tests::traffic::{DEFINITIONS, ago, exposures};
use tests::{Platform, metrics, topic};

const MINUTE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const PARTITION: u16 = 1;

fn messages(first: u64, count: u64) -> Vec<Vec<u8>> {
    exposures(first, count, ago(MINUTE)).iter().map(avro::encode).collect()
}

/// Writes the exposures with the numbers `first` to `first + count - 1` to one partition.
fn write(platform: &Platform, partition: u16, first: u64, count: u64) {
    topic::write(platform.brokers(), EXPOSURES, partition, &messages(first, count)).unwrap();
}

fn wait_for_rows(platform: &Platform, rows: u64) {
    let clickhouse = platform.clickhouse();
    wait_until("the rows", TIMEOUT, POLL, || Ok(row_count(&clickhouse)? >= rows)).unwrap();
    assert_eq!(row_count(&clickhouse).unwrap(), rows);
}

/// For each epoch and partition with rows: the number of rows, the first and the last offset.
fn offsets(platform: &Platform) -> String {
    let sql = "SELECT epoch, kafka_partition, count(), min(kafka_offset), max(kafka_offset) FROM exposures \
               GROUP BY epoch, kafka_partition ORDER BY epoch, kafka_partition";
    platform.clickhouse().text(sql, &[]).unwrap()
}

/// Returns when `/readyz` reports that the consumer is ready.
fn wait_until_ready(consumer: &Service) {
    let url = consumer.url();
    wait_until("a ready consumer", TIMEOUT, POLL, || Ok(metrics::readiness(&url)?["ok"] == true)).unwrap();
}

/// Waits until `/readyz` reports that the partition has halted. Returns the reason.
fn wait_until_halted(consumer: &Service) -> String {
    let url = consumer.url();
    let check =
        || Ok(metrics::readiness(&url)?["checks"][format!("{EXPOSURES}/{PARTITION} makes progress")].clone());
    let halted = |check: &serde_json::Value| {
        check.as_str().is_some_and(|reason| reason.starts_with("halted; an operator must act"))
    };
    wait_until("a halted partition", TIMEOUT, POLL, || Ok(halted(&check()?))).unwrap();
    assert_eq!(metrics::readiness(&url).unwrap()["ok"], false);
    assert_eq!(gauge(consumer, "splitstream_consumer_halted"), 1.0);
    check().unwrap_or_else(|error: anyhow::Error| panic!("{error}")).as_str().unwrap().to_owned()
}

fn gauge(consumer: &Service, name: &str) -> f64 {
    let all = metrics::series(&consumer.url(), name).unwrap();
    let ours = all.iter().filter(|(labels, _)| {
        labels.contains(&format!("topic=\"{EXPOSURES}\"")) && labels.contains(&format!("=\"{PARTITION}\""))
    });
    ours.map(|(_, value)| value).sum()
}

/// Deletes the topic and creates it again, empty.
fn recreate_topic(platform: &Platform) {
    topic::delete(platform.brokers(), EXPOSURES).unwrap();
    wait_until("the recreated topic", TIMEOUT, POLL, || {
        platform.stack().run(&["topics"])?;
        topic::wait_for_leaders(platform.brokers(), EXPOSURES)?;
        Ok(topic::length(platform.brokers(), EXPOSURES)? == 0)
    })
    .unwrap();
}

/// Runs an audit and returns its exit code and its document.
fn audit(platform: &Platform, epoch: &str) -> (i32, serde_json::Value) {
    let settings = [("SPLITSTREAM_CONSUMER__EPOCH", epoch)];
    let output = platform.program_with(&["audit", "--json"], &settings).unwrap();
    let code = output.status.code().unwrap();
    let document = serde_json::from_slice(&output.stdout);
    (code, document.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn exposures_report(audit: &serde_json::Value) -> &serde_json::Value {
    let topics = audit["topics"].as_array().unwrap();
    topics.iter().find(|topic| topic["topic"] == EXPOSURES).unwrap()
}

/// Every topic older than its retention is like this.
#[test]
fn a_log_that_starts_after_offset_0_is_read_from_its_start_or_after_the_durable_rows() {
    let platform = Platform::up().unwrap();
    for partition in 0..3 {
        write(&platform, partition, 100 * u64::from(partition), 100);
    }
    topic::delete_before(platform.brokers(), EXPOSURES, 0, 50).unwrap();
    topic::delete_before(platform.brokers(), EXPOSURES, 1, 98).unwrap();
    topic::delete_before(platform.brokers(), EXPOSURES, 2, 100).unwrap();

    let consumer = platform.consumer(&[]).unwrap();
    wait_for_rows(&platform, 52);
    for partition in 0..3 {
        write(&platform, partition, 1_000 + 100 * u64::from(partition), 10);
    }
    wait_for_rows(&platform, 82);
    assert_eq!(offsets(&platform), "1\t0\t60\t50\t109\n1\t1\t12\t98\t109\n1\t2\t10\t100\t109");
    wait_until_ready(&consumer);

    // The log now starts after the last durable offset.
    consumer.stop().unwrap();
    topic::delete_before(platform.brokers(), EXPOSURES, 0, 105).unwrap();
    topic::delete_before(platform.brokers(), EXPOSURES, 1, 110).unwrap();
    consumer.start().unwrap();
    for partition in 0..3 {
        write(&platform, partition, 2_000 + 100 * u64::from(partition), 5);
    }
    wait_for_rows(&platform, 97);
    assert_eq!(offsets(&platform), "1\t0\t65\t50\t114\n1\t1\t17\t98\t114\n1\t2\t15\t100\t114");
    let (code, report) = audit(&platform, "1");
    assert_eq!((code, &report["clean"]), (0, &serde_json::json!(true)), "{report:#}");
}

/// The new topic has more offsets than the rows, so that only Kafka's id of the topic distinguishes the two.
#[test]
fn a_topic_recreated_while_the_consumer_is_stopped_is_never_mistaken_for_the_old_one() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let changes = || platform.clickhouse().text("SELECT count() FROM definition_log", &[]).unwrap();
    write(&platform, PARTITION, 0, 100);
    let consumer = platform.consumer(&[]).unwrap();
    wait_for_rows(&platform, 100);
    wait_until("the changes", TIMEOUT, POLL, || Ok(changes() == "2")).unwrap();
    consumer.stop().unwrap();
    recreate_topic(&platform);
    write(&platform, PARTITION, 1_000, 300);

    let (code, report) = audit(&platform, "1");
    assert_eq!((code, &report["clean"]), (6, &serde_json::json!(false)), "{report:#}");
    let topic_ids = &exposures_report(&report)["made_anew"];
    assert_ne!(topic_ids["noted"], topic_ids["now"]);
    assert_eq!(topic_ids["now"].as_str().unwrap().len(), 22, "{topic_ids}");

    consumer.start().unwrap();
    let reason = wait_until_halted(&consumer);
    assert!(
        reason.contains("the topic was recreated") && reason.contains("raise `consumer.epoch`"),
        "{reason}"
    );
    assert_eq!(row_count(&platform.clickhouse()).unwrap(), 100);
    consumer.stop().unwrap();

    let next = platform.consumer(&[("SPLITSTREAM_CONSUMER__EPOCH", "2")]).unwrap();
    wait_for_rows(&platform, 400);
    assert_eq!(offsets(&platform), "1\t1\t100\t0\t99\n2\t1\t300\t0\t299");
    next.stop().unwrap();
    let (code, report) = audit(&platform, "2");
    assert_eq!((code, &report["clean"]), (0, &serde_json::json!(true)), "{report:#}");
    // The log of definitions is the same as before and was read again: no change is stored twice.
    assert_eq!(changes(), "2");
}

#[test]
fn a_topic_recreated_under_a_running_consumer_gives_no_rows() {
    let platform = Platform::up().unwrap();
    write(&platform, PARTITION, 0, 100);
    let consumer = platform.consumer(&[]).unwrap();
    wait_for_rows(&platform, 100);
    recreate_topic(&platform);
    write(&platform, PARTITION, 1_000, 300);
    wait_until_halted(&consumer);
    assert_eq!(offsets(&platform), "1\t1\t100\t0\t99");
    let (code, _) = audit(&platform, "1");
    assert_eq!(code, 6);
    consumer.stop().unwrap();
    let _next = platform.consumer(&[("SPLITSTREAM_CONSUMER__EPOCH", "2")]).unwrap();
    wait_for_rows(&platform, 400);
    assert_eq!(offsets(&platform), "1\t1\t100\t0\t99\n2\t1\t300\t0\t299");
}

/// A marker has an offset but is no message: nothing is left to read, and the offset after it is committed.
#[test]
fn after_a_transaction_marker_there_is_no_lag() {
    let platform = Platform::up().unwrap();
    let consumer = platform.consumer(&[]).unwrap();
    // Three aborted messages and the marker: four offsets without a row.
    topic::write_in_transaction(
        platform.brokers(),
        EXPOSURES,
        PARTITION,
        &messages(0, 3),
        topic::Ending::Abort,
    )
    .unwrap();
    let wait_until_committed = |offset: f64| {
        let both = || {
            (
                gauge(&consumer, "splitstream_consumer_committed_offset"),
                gauge(&consumer, "splitstream_consumer_lag"),
            )
        };
        wait_until("the end to be committed", TIMEOUT, POLL, || Ok(both() == (offset, 0.0)))
            .unwrap_or_else(|error| panic!("{error}; committed and lag are {:?}", both()));
    };
    wait_until_committed(4.0);
    assert_eq!(row_count(&platform.clickhouse()).unwrap(), 0);

    // Rows with a marker after them.
    topic::write_in_transaction(
        platform.brokers(),
        EXPOSURES,
        PARTITION,
        &messages(10, 3),
        topic::Ending::Commit,
    )
    .unwrap();
    wait_for_rows(&platform, 3);
    wait_until_committed(8.0);
    write(&platform, PARTITION, 20, 1);
    wait_for_rows(&platform, 4);
    assert_eq!(offsets(&platform), "1\t1\t4\t4\t8");
    wait_until_ready(&consumer);
    // A consumer that is restarted after a marker goes on reading.
    topic::write_in_transaction(
        platform.brokers(),
        EXPOSURES,
        PARTITION,
        &messages(30, 1),
        topic::Ending::Abort,
    )
    .unwrap();
    wait_until_committed(11.0);
    consumer.stop().unwrap();
    consumer.start().unwrap();
    write(&platform, PARTITION, 40, 1);
    wait_for_rows(&platform, 5);
    let (code, report) = audit(&platform, "1");
    assert_eq!((code, &report["clean"]), (0, &serde_json::json!(true)), "{report:#}");
}
