//! The operator's commands on real servers: an audit finds exactly the rows that were deleted from ClickHouse
//! and restores exactly these, a dead letter is sent again once, and a forgotten unit does not come back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use local::{Options, Service, ServiceOptions, Stack};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::{Conversion, Event, Uuid, avro};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);
const KEY: &str = "0123456789abcdef0123456789abcdef";
const SETTINGS: [(&str, &str); 3] = [
    ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "200"),
    ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "6000"),
    ("SPLITSTREAM_CONSUMER__FORGET_KEY", KEY),
];

struct Fixture {
    stack: Stack,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn up() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::up(Options::at(dir.path())).unwrap();
        stack.create_topics(1).unwrap();
        stack.run(&["migrate"]).unwrap();
        Fixture { stack, _dir: dir }
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
        producer.flush(TIMEOUT).unwrap();
    }

    /// Returns when the table has this many conversions.
    fn wait_for(&self, rows: usize) {
        let started = Instant::now();
        while self.sql("SELECT count() FROM conversions") != rows.to_string() {
            assert!(started.elapsed() < TIMEOUT, "{} rows", self.sql("SELECT count() FROM conversions"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a command of the consumer and returns its exit code and document.
    fn command(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.stack.command(arguments).unwrap().envs(SETTINGS).output().unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), document)
    }

    /// Runs an audit and returns its exit code and the report on partition 0 of the conversions.
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

/// Writes offsets 0 to 19: events 1 to 20; 20 to 29: five of them again, then five messages that are no
/// record; 30 to 49: events 21 to 40. These are at least two batches, each with its own part.
fn fill(fixture: &Fixture) {
    let events = |numbers: std::ops::Range<u128>| -> Vec<Vec<u8>> {
        numbers.map(|number| conversion(number, &format!("u{number}"))).collect()
    };
    fixture.produce(&events(1..21));
    fixture.wait_for(20);
    fixture.produce(&events(1..6));
    fixture.produce(&vec![b"no record".to_vec(); 5]);
    fixture.produce(&events(21..41));
    fixture.wait_for(40);
}

#[test]
fn an_audit_finds_deleted_rows_and_a_heal_restores_exactly_these() {
    let fixture = Fixture::up();
    let consumer = fixture.consumer();
    fill(&fixture);
    let whole = fixture.contents();

    // While a consumer runs: every offset has a row or an explanation, and a heal is refused.
    let (code, found) = fixture.audit(&[]);
    assert_eq!((code, &found["holes"], &found["rows"]), (0, &json!(0), &json!(40)), "{found}");
    assert_eq!((&found["skipped"]["duplicate"], &found["skipped"]["dead_letter"]), (&json!(5), &json!(5)));
    assert_eq!(fixture.audit(&["--heal"]).0, 3);
    consumer.stop().unwrap();

    // Single rows of a batch.
    fixture.sql("ALTER TABLE conversions DELETE WHERE kafka_offset IN (13, 14, 18, 35)");
    let (code, found) = fixture.audit(&[]);
    assert_eq!((code, &found["holes"]), (6, &json!(4)), "{found}");
    assert_eq!(found["hole_spans"], json!([[13, 14], [18, 18], [35, 35]]));
    let (code, found) = fixture.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["healed"]), (0, &json!(0), &json!(4)), "{found}");
    assert_eq!(fixture.contents(), whole);

    // A whole part: the first batch, whose first events are sent again at offsets 20 to 24.
    let part = fixture.sql("SELECT any(_part) FROM conversions WHERE kafka_offset = 0");
    let count = |which: &str| -> u64 {
        let statement = ["SELECT count() FROM conversions WHERE _part = '", &part, "'", which].concat();
        fixture.sql(&statement).parse().unwrap()
    };
    // The duplicate of a deleted event is no longer explained by it, and counts as a hole too.
    let expected = count("") + count(" AND kafka_offset < 5");
    fixture.sql(&["ALTER TABLE conversions DROP PART '", &part, "'"].concat());
    let (code, found) = fixture.audit(&[]);
    assert_eq!((code, &found["holes"]), (6, &json!(expected)), "{found}");
    let (code, found) = fixture.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["offsets_twice"]), (0, &json!(0), &json!(0)), "{found}");
    assert_eq!(fixture.contents(), whole);
    // The same part once more: the token of the first heal is used up.
    let part = fixture.sql("SELECT any(_part) FROM conversions WHERE kafka_offset = 0");
    fixture.sql(&["ALTER TABLE conversions DROP PART '", &part, "'"].concat());
    assert_eq!(fixture.audit(&["--heal"]).0, 0);
    assert_eq!(fixture.contents(), whole);

    // A repeated row.
    fixture.sql("INSERT INTO conversions SELECT * FROM conversions WHERE kafka_offset = 40");
    let (code, found) = fixture.audit(&[]);
    assert_eq!((code, &found["offsets_twice"]), (6, &json!(1)), "{found}");
    let (_, report) = fixture.command(&["audit", "--json"]);
    assert_eq!(report["topics"][1]["event_ids_twice"], json!(1), "{report}");
    fixture.sql("ALTER TABLE conversions DELETE WHERE kafka_offset = 40");
    assert_eq!(fixture.audit(&["--heal"]).0, 0);
    assert_eq!(fixture.contents(), whole);
}

#[test]
fn a_gap_whose_messages_kafka_has_deleted_is_lost() {
    let fixture = Fixture::up();
    let consumer = fixture.consumer();
    for round in 0..3_u128 {
        let events: Vec<Vec<u8>> = (1..11).map(|number| conversion(round * 10 + number, "u")).collect();
        fixture.produce(&events);
        fixture.wait_for((round as usize + 1) * 10);
    }
    consumer.stop().unwrap();
    fixture.sql("ALTER TABLE conversions DELETE WHERE kafka_offset BETWEEN 10 AND 19");
    delete_records_before(&fixture, 15);
    let (code, found) = fixture.audit(&[]);
    assert_eq!((code, &found["lost"], &found["lost_spans"]), (6, &json!(5), &json!([[10, 14]])), "{found}");
    assert_eq!((&found["holes"], &found["hole_spans"]), (&json!(5), &json!([[15, 19]])));
    let (code, found) = fixture.audit(&["--heal"]);
    assert_eq!((code, &found["holes"], &found["healed"]), (6, &json!(0), &json!(5)), "{found}");
    assert_eq!(found["lost_spans"], json!([[10, 14]]));
}

#[test]
fn a_dead_letter_is_listed_once_and_sent_again_once() {
    let fixture = Fixture::up();
    let consumer = fixture.consumer();
    let mut oversize = conversion(9, "u9");
    oversize.resize(70_000, 0);
    fixture.produce(&[conversion(1, "u1"), b"no record".to_vec(), oversize, Vec::new(), vec![7; 950_000]]);
    fixture.wait_for(1);
    let started = Instant::now();
    let letters = loop {
        let (code, letters) = fixture.command(&["dead-letters", "list", "--json"]);
        assert_eq!(code, 0, "{letters}");
        if letters.as_array().unwrap().len() == 4 {
            break letters;
        }
        assert!(started.elapsed() < TIMEOUT, "{letters}");
    };
    let codes: Vec<(u64, &str)> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (letter["offset"].as_u64().unwrap(), letter["code"].as_str().unwrap()))
        .collect();
    assert_eq!(codes, [(1, "not_framed"), (2, "oversize"), (3, "empty"), (4, "oversize")]);
    let (_, shown) = fixture.command(&["dead-letters", "show", "--offset", "1"]);
    assert_eq!(
        shown[0]["hex"][0],
        json!("00000000  6e 6f 20 72 65 63 6f 72 64                       no.record")
    );

    let chosen = ["dead-letters", "replay", "--json", "--topic", "conversions", "--partition", "0"];
    let replay = |more: &[&str]| fixture.command(&[&chosen[..], more].concat());
    assert_eq!(replay(&["--offset", "1"]), (0, json!({ "sent": 1, "before": 0, "cut": 0 })));
    assert_eq!(replay(&["--offset", "1"]), (0, json!({ "sent": 0, "before": 1, "cut": 0 })));
    assert_eq!(replay(&["--offset", "1", "--again"]), (0, json!({ "sent": 1, "before": 0, "cut": 0 })));
    assert_eq!(replay(&["--offset", "4"]), (0, json!({ "sent": 0, "before": 0, "cut": 1 })));
    consumer.stop().unwrap();
    assert_eq!(fixture.audit(&[]).0, 0);
}

#[test]
fn a_forgotten_unit_does_not_come_back_by_resends_replays_or_heals() {
    let fixture = Fixture::up();
    let consumer = fixture.consumer();
    fill(&fixture);
    let (code, deleted) =
        fixture.command(&["forget", "u3", "--unit-type", "user", "--reason", "asked", "--json"]);
    assert_eq!((code, &deleted["conversions"]), (0, &json!(1)), "{deleted}");
    assert_eq!(fixture.sql("SELECT count() FROM conversions WHERE unit_id = 'u3'"), "0");
    assert_eq!(fixture.sql("SELECT length(unit_hash), unit_type, reason FROM forgotten"), "64\tuser\tasked");
    assert_eq!(
        fixture.sql("SELECT rows_deleted FROM forgotten_deletions WHERE table_name = 'conversions'"),
        "1"
    );

    // A new event from before the request, two that carry the id among others (one before the request, one
    // after it), and one of another unit.
    let mut other: Conversion = serde_json::from_value(json!({
        "event_id": Uuid::from_u128(101), "name": "buy", "unit_type": "account", "unit_id": "a",
        "other_ids": { "user": "u3" }, "created_at": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    let carried = avro::encode(&Event::Conversion(other.clone()));
    other.event_id = Uuid::from_u128(102);
    other.created_at = schemas::Micros::parse("2100-01-01T00:00:00Z").unwrap();
    let later = avro::encode(&Event::Conversion(other));
    fixture.produce(&[conversion(100, "u3"), carried, conversion(103, "u4"), later]);
    fixture.wait_for(41);
    consumer.stop().unwrap();
    assert_eq!(
        fixture.sql("SELECT event_id FROM conversions WHERE kafka_offset >= 50 ORDER BY event_id"),
        [Uuid::from_u128(102), Uuid::from_u128(103)].map(|id| id.to_string()).join("\n")
    );

    let (code, found) = fixture.audit(&["--heal"]);
    // Its first event and the duplicate of it, and the two events that were not stored.
    assert_eq!((code, &found["skipped"]["forgotten"]), (0, &json!(4)), "{found}");
    assert_eq!(fixture.sql("SELECT count() FROM conversions WHERE unit_id = 'u3'"), "0");
}

#[test]
fn the_tables_keep_events_for_as_long_as_the_settings_say() {
    let fixture = Fixture::up();
    let migrate = || -> String {
        let output = fixture.stack.run(&["migrate"]).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Applies the settings and waits until the consumer has mirrored the change. A refused change is mirrored
    // too, and changes nothing.
    let file = fixture._dir.path().join("settings.yaml");
    let propose = |days: u32, version: u32| {
        let settings = format!("kind: settings\nkey: platform\nretention_days: {{ conversions: {days} }}\n");
        std::fs::write(&file, settings).unwrap();
        let path = file.display().to_string();
        fixture.stack.run(&["apply", &path, "--author", "ann", "--reason", "a test"]).unwrap();
        let started = Instant::now();
        while fixture.sql("SELECT max(version) FROM definition_log") != version.to_string() {
            assert!(started.elapsed() < TIMEOUT, "version {version} is not mirrored");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let up_to_date = "the tables are up to date\n";
    // There are no settings yet, so a TTL that was set by hand stays.
    fixture.sql("ALTER TABLE aliases MODIFY TTL toDate(ingest_ts) + toIntervalDay(7)");
    assert_eq!(migrate(), up_to_date);
    let consumer = fixture.consumer();
    propose(30, 1);
    assert_eq!(
        migrate(),
        [up_to_date, "conversions are kept for 30 days\naliases are kept for ever\n"].concat()
    );
    assert_eq!(migrate(), up_to_date);
    fixture.produce(&[conversion(1, "u1"), conversion(2, "u2")]);
    fixture.wait_for(2);
    consumer.stop().unwrap();
    let (_, report) = fixture.command(&["audit", "--json"]);
    let days: Vec<&Value> =
        report["topics"].as_array().unwrap().iter().map(|topic| &topic["retention_days"]).collect();
    // Exposures, conversions, aliases, definitions and looks.
    assert_eq!(days, [&json!(null), &json!(30), &json!(null), &json!(null), &json!(null)]);

    // A row that is too old is deleted by the next merge. It is a batch of its own.
    fixture.sql(
        "INSERT INTO conversions (event_id, kafka_offset, ingest_ts, epoch) \
         VALUES (generateUUIDv4(), 0, '2020-01-01 00:00:00', 9)",
    );
    fixture.sql("OPTIMIZE TABLE conversions FINAL");
    assert_eq!(fixture.sql("SELECT count() FROM conversions"), "2");

    let consumer = fixture.consumer();
    propose(0, 2);
    assert_eq!(migrate(), [up_to_date, "conversions are kept for ever\n"].concat());
    assert_eq!(migrate(), up_to_date);
    consumer.stop().unwrap();

    // The former settings are refused with a message that names the new place.
    let mut command = fixture.stack.command(&["migrate"]).unwrap();
    let output = command.env("SPLITSTREAM_CONSUMER__RETENTION_DAYS_CONVERSIONS", "30").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("consumer.retention_days_conversions: no setting any more: "), "{stderr}");
}

/// Deletes the messages before `offset` of partition 0 of the conversions from Kafka.
fn delete_records_before(fixture: &Fixture, offset: i64) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", fixture.stack.brokers()).create().unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    offsets.add_partition_offset("conversions", 0, rdkafka::Offset::Offset(offset)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
}

/// All replicas of a deployment may migrate at the same time, each before it starts.
#[test]
fn concurrent_migrations_create_the_tables_once() {
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
