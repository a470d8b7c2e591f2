//! Events that name their schemas by a registry's numbers, on real parts: Kafka, Apicurio, the producer, the
//! consumer, ClickHouse, and Confluent's own client on either side of ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fetch::Cache;
use local::process::spawn_bound;
use local::{Options, Server, Stack};
use schemas::avro::{Fingerprint, WrittenWith, encode_with};
use serde_json::{Value, json};

struct Line {
    stack: Stack,
    python: PathBuf,
    directory: tempfile::TempDir,
}

impl Line {
    /// Servers, topics and tables; no consumer yet.
    fn up() -> Line {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::at(directory.path().join("stack"));
        options.servers.push(Server::Registry);
        let stack = Stack::up(options).unwrap();
        stack.create_topics(1).unwrap();
        stack.run(&["migrate"]).unwrap();
        let pins = clients().join("requirements.txt");
        let python = Cache::open().unwrap().python(&pins).unwrap();
        Line { stack, python, directory }
    }

    /// What Confluent's client prints.
    fn client(&self, args: &[&str], input: &str) -> String {
        let mut command = Command::new(&self.python);
        command.arg(clients().join("client.py")).arg(self.stack.brokers()).arg(self.stack.registry_url());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_bound(command).unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        self.client(args, "").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Through our own emitter.
    fn replay(&self, events: &[Value]) -> Result<(), String> {
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        let file = self.file("events.jsonl", &text);
        self.stack.run(&["replay", &file]).map(|_| ()).map_err(|error| format!("{error:#}"))
    }

    fn sql(&self, sql: &str) -> String {
        self.sql_of("", sql)
    }

    /// The same of a query that names `{table:Identifier}`.
    fn sql_of(&self, table: &str, sql: &str) -> String {
        let url = format!("{}/?database=splitstream&param_table={table}", self.stack.clickhouse_url());
        let mut answer = ureq::post(url).send(sql).unwrap();
        answer.body_mut().read_to_string().unwrap().trim_end().to_owned()
    }

    /// Waits until so many events are there.
    fn await_rows(&self, table: &str, rows: usize) {
        let sql = "SELECT count() FROM {table:Identifier}";
        within("the rows", || self.sql_of(table, sql) == rows.to_string());
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/confluent")
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ninety seconds: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A conversion as `splitstream replay` takes it.
fn conversion(number: u32) -> Value {
    json!({
        "type": "conversion", "event_id": id(number), "name": "buy", "unit_type": "user",
        "unit_id": format!("u{number}"), "value": "12.5", "metadata": {"plan": "pro"},
        "created_at": "2026-01-01T00:00:00Z",
    })
}

fn id(number: u32) -> String {
    format!("0191e3a0-0000-7000-8000-{number:012}")
}

/// A whole message, in hexadecimal digits.
fn hex(number: u32, schema: WrittenWith) -> String {
    let bytes = encode_with(&serde_json::from_value(conversion(number)).unwrap(), schema);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A conversion as Confluent's client writes it, with the fields that `more` adds.
fn written(number: u32, more: Value) -> String {
    let mut event = json!({
        "event_id": id(number), "name": "buy", "unit_type": "user", "unit_id": format!("u{number}"),
        "other_ids": {}, "experiment": null, "value": null, "metadata": {"plan": "pro"},
        "environment": "production", "sender": {"service": "py", "instance": "1", "library_version": "2"},
        "created_at": 1_767_225_600_000_000_u64,
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{event}\n")
}

/// An exposure as Confluent's client writes it with the first schema, which had no configuration and no reason.
fn former_exposure(number: u32) -> String {
    let event = json!({
        "event_id": id(number), "experiment": "e", "variant": "a", "unit_type": "user",
        "unit_id": format!("u{number}"), "other_ids": {}, "phase": 1, "definition_version": 3, "buckets": null,
        "rule": "", "attributes": {"plan": "pro"}, "environment": "production",
        "sender": {"service": "py", "instance": "1", "library_version": "2"},
        "created_at": 1_767_225_600_000_000_u64,
    });
    format!("{event}\n")
}

/// An exposure as `splitstream replay` takes it.
fn exposure(number: u32) -> Value {
    json!({
        "type": "exposure", "event_id": id(number), "experiment": "e", "variant": "a", "unit_type": "user",
        "unit_id": format!("u{number}"), "definition_version": 3, "configuration_version": 77,
        "reason": "forced", "created_at": "2026-01-01T00:00:00Z",
    })
}

fn schema() -> Value {
    serde_json::from_str(schemas::avro::CONVERSION_SCHEMA).unwrap()
}

fn with_field(field: Value) -> String {
    let mut schema = schema();
    schema["fields"].as_array_mut().unwrap().push(field);
    schema.to_string()
}

fn without_field(name: &str) -> String {
    let mut schema = schema();
    schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != name);
    schema.to_string()
}

const EXPOSURES: &str = "SELECT unit_id, configuration_version, reason, \
                         unit_key = xxh3(concat(unit_type, char(0), unit_id)) FROM exposures ORDER BY unit_id FORMAT TSV";
const ROWS: &str = "SELECT unit_id, name, environment, sender_service, value FROM conversions \
                    ORDER BY unit_id FORMAT TSV";

#[test]
fn confluents_client_reads_ours_and_we_read_its_old_and_new_and_refuse_what_does_not_fit() {
    let line = Line::up();

    // Ours, read by theirs.
    line.replay(&[conversion(1)]).unwrap();
    let read = line.json_lines(&["read", "conversions"]);
    assert_eq!(
        read,
        [json!({
            "event_id": id(1), "name": "buy", "unit_type": "user", "unit_id": "u1", "other_ids": {},
            "experiment": null, "value": "12.500000", "metadata": {"plan": "pro"}, "environment": "production",
            "sender": {"service": "producer", "instance": "replay", "library_version": env!("CARGO_PKG_VERSION")},
            "created_at": "2026-01-01 00:00:00+00:00",
        })]
    );

    // Theirs: with our schema, with one more optional field, and with one less.
    let current = line.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    line.client(&["write", "conversions", &current], &written(2, json!({})));
    let wider = with_field(json!({"name": "channel", "type": ["null", "string"], "default": null}));
    let wider = line.file("wider.avsc", &wider);
    line.client(&["write", "conversions", &wider], &written(3, json!({"channel": "web"})));
    let narrower = line.file("narrower.avsc", &without_field("environment"));
    line.client(&["write", "conversions", &narrower], &written(4, json!({})));
    // And one that names its schema by the fingerprint.
    let ours = WrittenWith::Fingerprint(Fingerprint::CONVERSION);
    line.client(&["raw", "conversions"], &hex(5, ours));

    // Exposures of the schema of before, registered first; ours is its next version.
    let former = line.file("exposure_1.avsc", schemas::avro::EXPOSURE_SCHEMA_1);
    line.client(&["write", "exposures", &former], &former_exposure(8));
    line.replay(&[exposure(9)]).unwrap();

    // What does not fit is refused where it is registered ...
    let unfit = line.file("unfit.avsc", &without_field("unit_id"));
    assert_eq!(line.client(&["register", "conversions", &unfit], ""), "409 409\n");
    // ... and where it arrives, if somebody has switched that off; as is a number that nobody gave.
    line.client(&["compatibility", "NONE"], "");
    line.client(&["write", "conversions", &unfit], &written(6, json!({})));
    line.client(&["raw", "conversions"], "000000ffff02\n");

    let _consumer = line.stack.service("consumer").unwrap();
    line.await_rows("conversions", 5);
    assert_eq!(
        line.sql(ROWS),
        "u1\tbuy\tproduction\tproducer\t12.5\nu2\tbuy\tproduction\tpy\t\\N\nu3\tbuy\tproduction\tpy\t\\N\n\
         u4\tbuy\tproduction\tpy\t\\N\nu5\tbuy\tproduction\t\t12.5"
    );
    line.await_rows("exposures", 2);
    assert_eq!(line.sql(EXPOSURES), "u8\t0\tsplit\t1\nu9\t77\tforced\t1");
    let mut letters = Vec::new();
    within("two dead letters", || {
        letters = line.json_lines(&["dead-letters", "dead_letters"]);
        letters.len() == 2
    });
    let mut said: Vec<(&str, &str)> = Vec::new();
    for letter in &letters {
        assert_eq!(letter["origin_topic"], "conversions");
        said.push((letter["code"].as_str().unwrap(), letter["reason"].as_str().unwrap()));
    }
    said.sort_unstable();
    assert_eq!(said[0].0, "incompatible_schema");
    assert!(
        said[0]
            .1
            .ends_with("which does not fit: `unit_id`: the writer does not have it, and it has no default"),
        "{said:?}"
    );
    assert_eq!(
        said[1],
        ("unknown_schema", "written with schema 65535 of a registry, which the registry does not have")
    );
}

/// Our schema with the sender declared elsewhere, and a list of hops, each of which has a sender too.
fn with_references() -> (String, String, String) {
    let mut uses: Value = schema();
    let fields = uses["fields"].as_array_mut().unwrap();
    let sender = fields.iter_mut().find(|field| field["name"] == "sender").unwrap();
    let mut declared = sender["type"].take();
    sender["type"] = json!("splitstream.events.Sender");
    declared["namespace"] = json!("splitstream.events");
    let hop = json!({
        "type": "record", "name": "Hop", "namespace": "shop",
        "fields": [{"name": "by", "type": "splitstream.events.Sender"}],
    });
    let hops = json!({"type": "array", "items": "shop.Hop"});
    fields.push(json!({"name": "hops", "type": hops, "default": []}));
    (declared.to_string(), hop.to_string(), uses.to_string())
}

#[test]
fn a_schema_that_names_other_schemas_is_read_with_them() {
    let line = Line::up();
    let (sender, hop, uses) = with_references();
    // A slash in a subject is no slash of the path.
    let (sender, hop) = (line.file("sender.avsc", &sender), line.file("hop.avsc", &hop));
    let uses = line.file("uses.avsc", &uses);
    line.client(&["register", "shop/sender", &sender], "");
    let of_sender = ["splitstream.events.Sender", "shop/sender-value", "1"];
    line.client(&[&["register", "hop", &hop], &of_sender[..]].concat(), "");
    let of_hop = ["shop.Hop", "hop-value", "1"];
    let by = json!({"service": "proxy", "instance": "1", "library_version": "2"});
    let events: String =
        (1..=3).map(|number| written(number, json!({"hops": [{"by": by}, {"by": by}]}))).collect();
    line.client(&[&["write", "conversions", &uses], &of_sender[..], &of_hop[..]].concat(), &events);

    let _consumer = line.stack.service("consumer").unwrap();
    line.await_rows("conversions", 3);
    assert_eq!(
        line.sql(ROWS),
        "u1\tbuy\tproduction\tpy\t\\N\nu2\tbuy\tproduction\tpy\t\\N\nu3\tbuy\tproduction\tpy\t\\N"
    );
    assert_eq!(line.json_lines(&["dead-letters", "dead_letters"]), Vec::<Value>::new());
}

/// Seconds in an int were once read as microseconds of 1970, and the unit counted.
#[test]
fn a_time_that_is_an_int_is_refused() {
    let line = Line::up();
    let mut seconds = schema();
    let fields = seconds["fields"].as_array_mut().unwrap();
    fields.iter_mut().find(|field| field["name"] == "created_at").unwrap()["type"] = json!("int");
    let seconds = line.file("seconds.avsc", &seconds.to_string());
    line.client(&["compatibility", "NONE"], "");
    line.client(&["write", "conversions", &seconds], &written(1, json!({"created_at": 1_700_000_000})));
    let current = line.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    line.client(&["write", "conversions", &current], &written(2, json!({})));

    let _consumer = line.stack.service("consumer").unwrap();
    line.await_rows("conversions", 1);
    assert_eq!(line.sql("SELECT unit_id FROM conversions"), "u2");
    let letters = line.json_lines(&["dead-letters", "dead_letters"]);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["code"], "incompatible_schema");
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(
        reason.ends_with(
            "which does not fit: `created_at`: an int where a time in microseconds is read; an int of microseconds \
             ends in the first hour of 1970: write a long with the logicalType timestamp-micros"
        ),
        "{reason}"
    );
}

#[test]
fn a_schema_that_the_registry_refuses_stops_the_producer_at_its_start() {
    let line = Line::up();
    let other = json!({"type": "record", "name": "Conversion", "fields": [{"name": "what", "type": "int"}]});
    let other = line.file("other.avsc", &other.to_string());
    line.client(&["register", "conversions", &other], "");
    let refused = line.replay(&[conversion(1)]).unwrap_err();
    assert!(
        refused.contains(
            "the schema registry refuses the schema of conversions-value as incompatible with its others: "
        ),
        "{refused}"
    );
    assert_eq!(line.json_lines(&["read", "conversions"]), Vec::<Value>::new());

    line.stack.kill_registry().unwrap();
    let refused = line.replay(&[conversion(1)]).unwrap_err();
    assert!(refused.contains("exit status: 5"), "{refused}");
    assert!(refused.contains("is not available: "), "{refused}");
}

#[test]
fn without_the_registry_a_partition_stands_and_goes_on_when_it_is_back() {
    let line = Line::up();
    let events: Vec<Value> = (1..=40).map(conversion).collect();
    line.replay(&events).unwrap();
    line.stack.kill_registry().unwrap();

    let consumer = line.stack.service("consumer").unwrap();
    let metrics = || {
        let mut answer = ureq::get(format!("{}/metrics", consumer.url())).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    };
    within("a partition that stands", || {
        metrics().lines().any(|line| line.contains("consumer_stalled{") && line.ends_with(" 1"))
    });
    // Long enough for anything that would be dropped or passed.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(line.sql("SELECT count() FROM conversions"), "0");
    line.stack.start_registry().unwrap();
    line.await_rows("conversions", 40);
    assert_eq!(line.sql("SELECT count(), uniqExact(event_id) FROM conversions FORMAT TSV"), "40\t40");
    assert_eq!(line.json_lines(&["dead-letters", "dead_letters"]), Vec::<Value>::new());

    // Away again: what is known needs no registry.
    let current = line.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    let number = line.client(&["register", "conversions", &current], "").trim().parse().unwrap();
    line.stack.kill_registry().unwrap();
    line.client(&["raw", "conversions"], &hex(41, WrittenWith::RegistryId(number)));
    line.await_rows("conversions", 41);
    assert_eq!(line.sql("SELECT count(), uniqExact(event_id) FROM conversions FORMAT TSV"), "41\t41");
}
