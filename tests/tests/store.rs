//! What an operator does with the tables, on real servers: an audit finds exactly what was taken out of
//! ClickHouse and brings exactly that back, a dead letter is sent again once, and a unit that asked to be
//! forgotten stays away.

use std::process::Stdio;
use std::time::{Duration, Instant};

use local::{Options, Service, ServiceOptions, Stack};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::{Conversion, Event, Uuid, avro};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "0123456789abcdef0123456789abcdef";
const SETTINGS: [(&str, &str); 3] = [
    ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "200"),
    ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "6000"),
    ("SPLITSTREAM_CONSUMER__FORGET_KEY", KEY),
];

struct Bench {
    stack: Stack,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn up() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::up(Options::at(dir.path())).unwrap();
        stack.create_topics(1).unwrap();
        stack.run(&["migrate"]).unwrap();
        Bench { stack, _dir: dir }
    }

    fn consumer(&self) -> Service {
        self.stack.service_with("consumer", ServiceOptions { settings: &SETTINGS, port: None }).unwrap()
    }

    fn sql(&self, statement: &str) -> String {
        let url = format!("{}/?database=splitstream&mutations_sync=2", self.stack.clickhouse_url());
        let mut answer = ureq::post(&url).send(statement).unwrap();
        answer.body_mut().read_to_string().unwrap().trim_end().to_owned()
    }

    fn produce(&self, messages: &[Vec<u8>]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.stack.brokers()).create().unwrap();
        for message in messages {
            let record = BaseRecord::<(), [u8]>::to("conversions").partition(0).payload(message);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Returns when the table has so many conversions.
    fn wait_for(&self, rows: usize) {
        let begun = Instant::now();
        while self.sql("SELECT count() FROM conversions") != rows.to_string() {
            assert!(begun.elapsed() < PATIENCE, "{} rows", self.sql("SELECT count() FROM conversions"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Exit code and document of a command of the consumer.
    fn command(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.stack.command(arguments).unwrap().envs(SETTINGS).output().unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), document)
    }

    /// Exit code, and what is said of partition 0 of the conversions.
    fn audit(&self, more: &[&str]) -> (i32, Value) {
        let (code, report) = self.command(&[&["audit", "--json", "--topic", "conversions"], more].concat());
        (code, report["topics"][0]["partitions"].as_array().map_or(report.clone(), |parts| parts[0].clone()))
    }

    fn contents(&self) -> String {
        self.sql("SELECT event_id, unit_id, kafka_offset FROM conversions ORDER BY kafka_offset, event_id")
    }
}

fn conversion(number: u128, unit: &str) -> Vec<u8> {
    let text = json!({
        "event_id": Uuid::from_u128(number), "name": "buy", "unit_type": "user", "unit_id": unit,
        "created_at": "2026-01-01T00:00:00Z"
    });
    let conversion: Conversion = serde_json::from_value(text).unwrap();
    avro::encode(&Event::Conversion(conversion))
}

/// Offsets 0 to 19: events 1 to 20. 20 to 29: five of them again, then five that are no record. 30 to 49:
/// events 21 to 40. Two batches at least, each with its own part.
fn fill(bench: &Bench) {
    let events = |numbers: std::ops::Range<u128>| -> Vec<Vec<u8>> {
        numbers.map(|number| conversion(number, &format!("u{number}"))).collect()
    };
    bench.produce(&events(1..21));
    bench.wait_for(20);
    bench.produce(&events(1..6));
    bench.produce(&vec![b"no record".to_vec(); 5]);
    bench.produce(&events(21..41));
    bench.wait_for(40);
}

#[test]
fn an_audit_finds_what_was_taken_out_and_a_heal_brings_exactly_that_back() {
    let bench = Bench::up();
    let consumer = bench.consumer();
    fill(&bench);
    let whole = bench.contents();

    // Beside a running consumer: all is there or explained, and healing is refused.
    let (code, found) = bench.audit(&[]);
    assert_eq!((code, &found["holes"], &found["rows"]), (0, &json!(0), &json!(40)), "{found}");
    assert_eq!((&found["skipped"]["duplicate"], &found["skipped"]["dead_letter"]), (&json!(5), &json!(5)));
    assert_eq!(bench.audit(&["--heal"]).0, 3);
    consumer.stop().unwrap();

    // Single rows of a batch.
    bench.sql("ALTER TABLE conversions DELETE WHERE kafka_offset IN (13, 14, 18, 35)");
    let (code, found) = bench.audit(&[]);
    assert_eq!((code, &found["holes"]), (6, &json!(4)), "{found}");
    assert_eq!(found["hole_spans"], json!([[13, 14], [18, 18], [35, 35]]));
    let (code, found) = bench.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["healed"]), (0, &json!(0), &json!(4)), "{found}");
    assert_eq!(bench.contents(), whole);

    // A whole part: the first batch, whose events the resends at 20 to 24 repeat.
    let part = bench.sql("SELECT any(_part) FROM conversions WHERE kafka_offset = 0");
    let count = |which: &str| -> u64 {
        let statement = ["SELECT count() FROM conversions WHERE _part = '", &part, "'", which].concat();
        bench.sql(&statement).parse().unwrap()
    };
    // A resend of an event that is lost is no longer explained by it.
    let expected = count("") + count(" AND kafka_offset < 5");
    bench.sql(&["ALTER TABLE conversions DROP PART '", &part, "'"].concat());
    let (code, found) = bench.audit(&[]);
    assert_eq!((code, &found["holes"]), (6, &json!(expected)), "{found}");
    let (code, found) = bench.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["offsets_twice"]), (0, &json!(0), &json!(0)), "{found}");
    assert_eq!(bench.contents(), whole);
    // The same part once more: the token of the first heal is used up.
    let part = bench.sql("SELECT any(_part) FROM conversions WHERE kafka_offset = 0");
    bench.sql(&["ALTER TABLE conversions DROP PART '", &part, "'"].concat());
    assert_eq!(bench.audit(&["--heal"]).0, 0);
    assert_eq!(bench.contents(), whole);

    // A row twice.
    bench.sql("INSERT INTO conversions SELECT * FROM conversions WHERE kafka_offset = 40");
    let (code, found) = bench.audit(&[]);
    assert_eq!((code, &found["offsets_twice"]), (6, &json!(1)), "{found}");
    let (_, report) = bench.command(&["audit", "--json"]);
    assert_eq!(report["topics"][1]["event_ids_twice"], json!(1), "{report}");
    bench.sql("ALTER TABLE conversions DELETE WHERE kafka_offset = 40");
    assert_eq!(bench.audit(&["--heal"]).0, 0);
    assert_eq!(bench.contents(), whole);
}

#[test]
fn a_gap_that_kafka_has_forgotten_is_lost() {
    let bench = Bench::up();
    let consumer = bench.consumer();
    for round in 0..3_u128 {
        let events: Vec<Vec<u8>> = (1..11).map(|number| conversion(round * 10 + number, "u")).collect();
        bench.produce(&events);
        bench.wait_for((round as usize + 1) * 10);
    }
    consumer.stop().unwrap();
    bench.sql("ALTER TABLE conversions DELETE WHERE kafka_offset BETWEEN 10 AND 19");
    forget_records(&bench, 15);
    let (code, found) = bench.audit(&[]);
    assert_eq!((code, &found["lost"], &found["lost_spans"]), (6, &json!(5), &json!([[10, 14]])), "{found}");
    assert_eq!((&found["holes"], &found["hole_spans"]), (&json!(5), &json!([[15, 19]])));
    let (code, found) = bench.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["healed"]), (6, &json!(0), &json!(5)), "{found}");
    assert_eq!(found["lost_spans"], json!([[10, 14]]));
}

#[test]
fn a_dead_letter_is_listed_once_and_sent_again_once() {
    let bench = Bench::up();
    let consumer = bench.consumer();
    let mut oversize = conversion(9, "u9");
    oversize.resize(70_000, 0);
    bench.produce(&[conversion(1, "u1"), b"no record".to_vec(), oversize, Vec::new(), vec![7; 950_000]]);
    bench.wait_for(1);
    let begun = Instant::now();
    let letters = loop {
        let (code, letters) = bench.command(&["dead-letters", "list", "--json"]);
        assert_eq!(code, 0, "{letters}");
        if letters.as_array().unwrap().len() == 4 {
            break letters;
        }
        assert!(begun.elapsed() < PATIENCE, "{letters}");
    };
    let codes: Vec<(u64, &str)> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (letter["offset"].as_u64().unwrap(), letter["code"].as_str().unwrap()))
        .collect();
    assert_eq!(codes, [(1, "not_framed"), (2, "oversize"), (3, "empty"), (4, "oversize")]);
    let (_, shown) = bench.command(&["dead-letters", "show", "--offset", "1"]);
    assert_eq!(
        shown[0]["hex"][0],
        json!("00000000  6e 6f 20 72 65 63 6f 72 64                       no.record")
    );

    let chosen = ["dead-letters", "replay", "--json", "--topic", "conversions", "--partition", "0"];
    let replay = |more: &[&str]| bench.command(&[&chosen[..], more].concat());
    assert_eq!(replay(&["--offset", "1"]), (0, json!({ "sent": 1, "before": 0, "cut": 0 })));
    assert_eq!(replay(&["--offset", "1"]), (0, json!({ "sent": 0, "before": 1, "cut": 0 })));
    assert_eq!(replay(&["--offset", "1", "--again"]), (0, json!({ "sent": 1, "before": 0, "cut": 0 })));
    assert_eq!(replay(&["--offset", "4"]), (0, json!({ "sent": 0, "before": 0, "cut": 1 })));
    consumer.stop().unwrap();
    assert_eq!(bench.audit(&[]).0, 0);
}

#[test]
fn a_forgotten_unit_stays_away_from_resends_replays_and_heals() {
    let bench = Bench::up();
    let consumer = bench.consumer();
    fill(&bench);
    let (code, deleted) =
        bench.command(&["forget", "u3", "--unit-type", "user", "--reason", "asked", "--json"]);
    assert_eq!((code, &deleted["conversions"]), (0, &json!(1)), "{deleted}");
    assert_eq!(bench.sql("SELECT count() FROM conversions WHERE unit_id = 'u3'"), "0");
    assert_eq!(bench.sql("SELECT length(unit_hash), unit_type, reason FROM forgotten"), "64\tuser\tasked");
    assert_eq!(
        bench.sql("SELECT rows_deleted FROM forgotten_deletions WHERE table_name = 'conversions'"),
        "1"
    );

    // A new event of before the request, one with the id among others, and a stranger's.
    let mut other: Conversion = serde_json::from_value(json!({
        "event_id": Uuid::from_u128(101), "name": "buy", "unit_type": "account", "unit_id": "a",
        "other_ids": { "user": "u3" }, "created_at": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    let carried = avro::encode(&Event::Conversion(other.clone()));
    other.event_id = Uuid::from_u128(102);
    other.created_at = schemas::Micros::parse("2100-01-01T00:00:00Z").unwrap();
    let later = avro::encode(&Event::Conversion(other));
    bench.produce(&[conversion(100, "u3"), carried, conversion(103, "u4"), later]);
    bench.wait_for(41);
    consumer.stop().unwrap();
    assert_eq!(
        bench.sql("SELECT event_id FROM conversions WHERE kafka_offset >= 50 ORDER BY event_id"),
        [Uuid::from_u128(102), Uuid::from_u128(103)].map(|id| id.to_string()).join("\n")
    );

    let (code, found) = bench.audit(&["--heal"]);
    // Its first row and the resend of it, and the two that were not taken in.
    assert_eq!((code, &found["skipped"]["forgotten"]), (0, &json!(4)), "{found}");
    assert_eq!(bench.sql("SELECT count() FROM conversions WHERE unit_id = 'u3'"), "0");
}

#[test]
fn the_tables_keep_events_for_as_long_as_the_settings_say() {
    let bench = Bench::up();
    let migrate = || -> String {
        let output = bench.stack.run(&["migrate"]).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Proposed, and mirrored by the consumer; a change that is refused is mirrored too, and changes nothing.
    let file = bench._dir.path().join("settings.yaml");
    let propose = |days: u32, version: u32| {
        let settings = format!("kind: settings\nkey: platform\nretention_days: {{ conversions: {days} }}\n");
        std::fs::write(&file, settings).unwrap();
        let path = file.display().to_string();
        bench.stack.run(&["apply", &path, "--author", "ann", "--reason", "a test"]).unwrap();
        let begun = Instant::now();
        while bench.sql("SELECT max(version) FROM definition_log") != version.to_string() {
            assert!(begun.elapsed() < PATIENCE, "version {version} is not mirrored");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let up_to_date = "the tables are up to date\n";
    // Nothing was said yet, and what is in force by hand stays so.
    bench.sql("ALTER TABLE aliases MODIFY TTL toDate(ingest_ts) + toIntervalDay(7)");
    assert_eq!(migrate(), up_to_date);
    let consumer = bench.consumer();
    propose(30, 1);
    assert_eq!(
        migrate(),
        [up_to_date, "conversions are kept for 30 days\naliases are kept for ever\n"].concat()
    );
    assert_eq!(migrate(), up_to_date);
    bench.produce(&[conversion(1, "u1"), conversion(2, "u2")]);
    bench.wait_for(2);
    consumer.stop().unwrap();
    let (_, report) = bench.command(&["audit", "--json"]);
    let days: Vec<&Value> =
        report["topics"].as_array().unwrap().iter().map(|topic| &topic["retention_days"]).collect();
    // Exposures, conversions, aliases, definitions and looks.
    assert_eq!(days, [&json!(null), &json!(30), &json!(null), &json!(null), &json!(null)]);

    // A row of long ago goes with the next merge; it is a batch of its own before the others.
    bench.sql(
        "INSERT INTO conversions (event_id, kafka_offset, ingest_ts, epoch) \
         VALUES (generateUUIDv4(), 0, '2020-01-01 00:00:00', 9)",
    );
    bench.sql("OPTIMIZE TABLE conversions FINAL");
    assert_eq!(bench.sql("SELECT count() FROM conversions"), "2");

    let consumer = bench.consumer();
    propose(0, 2);
    assert_eq!(migrate(), [up_to_date, "conversions are kept for ever\n"].concat());
    assert_eq!(migrate(), up_to_date);
    consumer.stop().unwrap();

    // The settings of before are told where it is said now.
    let mut command = bench.stack.command(&["migrate"]).unwrap();
    let output = command.env("SPLITSTREAM_CONSUMER__RETENTION_DAYS_CONVERSIONS", "30").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("consumer.retention_days_conversions: no setting any more: "), "{said}");
}

/// Kafka forgets what is before `offset` of partition 0 of the conversions.
fn forget_records(bench: &Bench, offset: i64) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bench.stack.brokers()).create().unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    offsets.add_partition_offset("conversions", 0, rdkafka::Offset::Offset(offset)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
}

/// As when every replica of a deployment migrates before it starts.
#[test]
fn migrations_at_once_make_the_tables_once() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(Options::at(dir.path())).unwrap();
    let migrate = || stack.command(&["migrate"]).unwrap();
    let at_once: Vec<_> =
        (0..4).map(|_| migrate().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    for child in at_once {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let again = migrate().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), "the tables are up to date\n", "{again:?}");
}
