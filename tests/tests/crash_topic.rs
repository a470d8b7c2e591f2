//! The crash cases in which the stored data has changed: unreadable messages, retention that overtakes the
//! consumer, a topic created again, a table emptied. The numbers are those of the table of crash cases.
//! Nothing is ever lost silently.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use fetch::Cache;
use local::Service;
use local::process::spawn_bound;
use schemas::avro;
use schemas::topics::{DEAD_LETTERS, EXPOSURES};
use tests::oracle::{dead_letters, row_count};
use tests::platform::wait_until;
use tests::proxy::{Effect, Fault};
use tests::relayed::{EXPOSURES_INSERT, Relayed};
use tests::topic;
use tests::traffic::{ago, exposures};
use tests::{Platform, metrics};

const MINUTE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// The partition of the topic `exposures` that the tests write to.
const PARTITION: u16 = 1;

/// Writes the exposures with the numbers `first` to `first + count - 1` to one partition.
fn write(platform: &Platform, first: u64, count: u64) {
    let messages: Vec<Vec<u8>> = exposures(first, count, ago(MINUTE)).iter().map(avro::encode).collect();
    topic::write(platform.brokers(), EXPOSURES, PARTITION, &messages).unwrap();
}

/// Waits until the consumer reports that the partition is stalled, and checks that it stays so.
fn expect_stalled(consumer: &Service) {
    let url = consumer.url();
    wait_until("a stalled partition", TIMEOUT, POLL, || Ok(stalled(&url)? == 1.0)).unwrap();
    // It stays stalled, and the consumer runs on.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stalled(&url).unwrap(), 1.0);
    assert_eq!(consumer.ended().unwrap(), None);
}

fn stalled(url: &str) -> anyhow::Result<f64> {
    let all = metrics::series(url, "splitstream_consumer_stalled")?;
    let ours = all.iter().filter(|(labels, _)| {
        labels.contains(&format!("topic=\"{EXPOSURES}\"")) && labels.contains(&format!("=\"{PARTITION}\""))
    });
    Ok(ours.map(|(_, value)| value).sum())
}

/// Runs one of Kafka's own tools.
fn tool(platform: &Platform, class: &str, args: &[&str]) {
    let jars = Cache::open().unwrap().kafka().unwrap();
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", jars.display())]);
    command.arg(format!("org.apache.kafka.tools.{class}"));
    command.args(["--bootstrap-server", platform.brokers()]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn_bound(command).unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{class}: {output:?}");
}

#[test]
fn case_14_poison_and_a_crash_before_its_offset_has_passed() {
    let relayed = Relayed::up().unwrap();
    let mut messages: Vec<Vec<u8>> = exposures(0, 500, ago(MINUTE)).iter().map(avro::encode).collect();
    for at in [0, 100, 400, 500] {
        messages.insert(at, b"poison".to_vec());
    }
    topic::write(relayed.platform.brokers(), EXPOSURES, PARTITION, &messages).unwrap();
    relayed.clickhouse.inject(Fault::always(EXPOSURES_INSERT, Effect::CutRequest { after: 0 }));
    let consumer = relayed.consumer(&[]).unwrap();
    relayed.clickhouse.wait_until_matched(1, TIMEOUT).unwrap();
    // The dead letters were acknowledged before the insert was tried.
    assert_eq!(dead_letters(relayed.platform.brokers()).unwrap().len(), 4);
    consumer.kill().unwrap();
    relayed.clickhouse.clear_faults();
    consumer.start().unwrap();
    let agreement = relayed.platform.every_event_once().unwrap();
    assert_eq!((agreement.rows, agreement.dead_letters), (500, 4));
    // The letters that were sent again have the same keys.
    let mut wrong = Vec::new();
    topic::read(relayed.platform.brokers(), DEAD_LETTERS, |_, letter| {
        use rdkafka::Message;
        let offset = topic::header(letter, "origin_offset").unwrap();
        let key = String::from_utf8_lossy(letter.key().unwrap()).into_owned();
        if key != format!("{EXPOSURES}/{PARTITION}/{offset}") {
            wrong.push(key);
        }
    })
    .unwrap();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn case_17_retention_overtakes_the_consumer() {
    let platform = Platform::up().unwrap();
    write(&platform, 0, 100);
    let consumer = platform.consumer(&[]).unwrap();
    assert_eq!(platform.every_event_once().unwrap().rows, 100);
    consumer.stop().unwrap();
    write(&platform, 100, 100);
    let file = platform.path("delete.json");
    let partition = format!(r#"{{"topic": "{EXPOSURES}", "partition": {PARTITION}, "offset": 150}}"#);
    fs::write(&file, format!(r#"{{"partitions": [{partition}], "version": 1}}"#)).unwrap();
    tool(&platform, "DeleteRecordsCommand", &["--offset-json-file", &file.display().to_string()]);

    // Fifty messages are deleted that were never durable. The consumer neither skips them nor ends.
    consumer.start().unwrap();
    expect_stalled(&consumer);
    assert_eq!(row_count(&platform.clickhouse()).unwrap(), 100);
}

#[test]
fn case_18_a_topic_made_anew() {
    let platform = Platform::up().unwrap();
    write(&platform, 0, 100);
    let consumer = platform.consumer(&[]).unwrap();
    assert_eq!(platform.every_event_once().unwrap().rows, 100);
    consumer.stop().unwrap();
    tool(&platform, "TopicCommand", &["--delete", "--topic", EXPOSURES]);
    wait_until("the recreated topic", TIMEOUT, POLL, || {
        platform.stack().run(&["topics"])?;
        topic::wait_for_leaders(platform.brokers(), EXPOSURES)?;
        Ok(topic::length(platform.brokers(), EXPOSURES)? == 0)
    })
    .unwrap();
    write(&platform, 100, 50);

    // The new messages at offsets 0 to 49 are not those that are durable.
    consumer.start().unwrap();
    expect_stalled(&consumer);
    assert_eq!(row_count(&platform.clickhouse()).unwrap(), 100);
    consumer.stop().unwrap();

    let _next = platform.consumer(&[("SPLITSTREAM_CONSUMER__EPOCH", "2")]).unwrap();
    let clickhouse = platform.clickhouse();
    wait_until("the rows of the new topic", TIMEOUT, POLL, || Ok(row_count(&clickhouse)? >= 150)).unwrap();
    let sql = "SELECT epoch, count(), min(kafka_offset), max(kafka_offset), uniqExact(event_id) \
               FROM exposures GROUP BY epoch ORDER BY epoch";
    assert_eq!(clickhouse.text(sql, &[]).unwrap(), "1\t100\t0\t99\t100\n2\t50\t0\t49\t50");
}

#[test]
fn case_19_a_table_emptied() {
    let platform = Platform::up().unwrap();
    write(&platform, 0, 100);
    let consumer = platform.consumer(&[]).unwrap();
    assert_eq!(platform.every_event_once().unwrap().rows, 100);
    consumer.stop().unwrap();
    let clickhouse = platform.clickhouse();
    clickhouse.text("TRUNCATE TABLE exposures", &[]).unwrap();
    write(&platform, 100, 100);

    // Kafka still has every message: the rows are restored, or the partition stalls and the consumer reports
    // it. It never goes on after the missing rows.
    consumer.start().unwrap();
    let url = consumer.url();
    wait_until("restored rows or a stalled partition", TIMEOUT, POLL, || {
        Ok(row_count(&clickhouse)? > 0 || stalled(&url)? == 1.0)
    })
    .unwrap();
    if stalled(&url).unwrap() == 1.0 {
        assert_eq!(row_count(&clickhouse).unwrap(), 0);
    } else {
        assert_eq!(platform.every_event_once().unwrap().rows, 200);
    }
}
