//! Events that name their schemas by the ids of a registry, on real parts: Kafka, Apicurio, the producer, the
//! consumer, ClickHouse, and Confluent's own client, which reads our messages and writes messages for us.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fetch::Cache;
use local::process::spawn_bound;
use local::{Options, Server, Stack};
use schemas::avro::{Fingerprint, WrittenWith, encode_with};
use serde_json::{Value, json};

struct Pipeline {
    stack: Stack,
    python: PathBuf,
    directory: tempfile::TempDir,
}

impl Pipeline {
    /// Starts the servers and creates topics and tables; starts no consumer.
    fn up() -> Pipeline {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::at(directory.path().join("stack"));
        options.servers.push(Server::Registry);
        let stack = Stack::up(options).unwrap();
        stack.create_topics(1).unwrap();
        stack.run(&["migrate"]).unwrap();
        let pins = clients().join("requirements.txt");
        let python = Cache::open().unwrap().python(&pins).unwrap();
        Pipeline { stack, python, directory }
    }

    /// Runs Confluent's client and returns its output.
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

    /// Sends the events with our own emitter.
    fn replay(&self, events: &[Value]) -> Result<(), String> {
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        let file = self.file("events.jsonl", &text);
        self.stack.run(&["replay", &file]).map(|_| ()).map_err(|error| format!("{error:#}"))
    }

    fn sql(&self, sql: &str) -> String {
        self.sql_with_table("", sql)
    }

    /// Runs a query that names `{table:Identifier}`.
    fn sql_with_table(&self, table: &str, sql: &str) -> String {
        let url = format!("{}/?database=splitstream&param_table={table}", self.stack.clickhouse_url());
        let mut answer = ureq::post(url).send(sql).unwrap();
        answer.body_mut().read_to_string().unwrap().trim_end().to_owned()
    }

    /// Waits until the table has this many rows.
    fn await_rows(&self, table: &str, rows: usize) {
        let sql = "SELECT count() FROM {table:Identifier}";
        wait_until("the rows", || self.sql_with_table(table, sql) == rows.to_string());
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/confluent")
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !condition() {
        assert!(Instant::now() < deadline, "not within ninety seconds: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A conversion in the input format of `splitstream replay`.
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

/// A whole message with a conversion, in hexadecimal digits.
fn hex(number: u32, schema: WrittenWith) -> String {
    let bytes = encode_with(&serde_json::from_value(conversion(number)).unwrap(), schema);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A conversion in the input format of Confluent's client, with the fields of `more`.
fn client_conversion(number: u32, more: Value) -> String {
    let mut event = json!({
        "event_id": id(number), "name": "buy", "unit_type": "user", "unit_id": format!("u{number}"),
        "other_ids": {}, "experiment": null, "value": null, "metadata": {"plan": "pro"},
        "environment": "production", "sender": {"service": "py", "instance": "1", "library_version": "2"},
        "created_at": 1_767_225_600_000_000_u64,
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{event}\n")
}

/// An exposure in the input format of Confluent's client for the first schema, which had no configuration and
/// no reason.
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

/// An exposure in the input format of `splitstream replay`.
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
fn confluents_client_reads_our_events_and_we_read_its_compatible_events_and_refuse_the_others() {
    let pipeline = Pipeline::up();

    // Our event, read by their client.
    pipeline.replay(&[conversion(1)]).unwrap();
    let read = pipeline.json_lines(&["read", "conversions"]);
    assert_eq!(
        read,
        [json!({
            "event_id": id(1), "name": "buy", "unit_type": "user", "unit_id": "u1", "other_ids": {},
            "experiment": null, "value": "12.500000", "metadata": {"plan": "pro"}, "environment": "production",
            "sender": {"service": "producer", "instance": "replay", "library_version": env!("CARGO_PKG_VERSION")},
            "created_at": "2026-01-01 00:00:00+00:00",
        })]
    );

    // Their events: with our schema, with one more optional field, and with one field less.
    let current = pipeline.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    pipeline.client(&["write", "conversions", &current], &client_conversion(2, json!({})));
    let wider = with_field(json!({"name": "channel", "type": ["null", "string"], "default": null}));
    let wider = pipeline.file("wider.avsc", &wider);
    pipeline.client(&["write", "conversions", &wider], &client_conversion(3, json!({"channel": "web"})));
    let narrower = pipeline.file("narrower.avsc", &without_field("environment"));
    pipeline.client(&["write", "conversions", &narrower], &client_conversion(4, json!({})));
    // And one event that names its schema by the fingerprint.
    let ours = WrittenWith::Fingerprint(Fingerprint::CONVERSION);
    pipeline.client(&["raw", "conversions"], &hex(5, ours));

    // An exposure with the former schema, which is registered first; ours is the next version.
    let former = pipeline.file("exposure_1.avsc", schemas::avro::EXPOSURE_SCHEMA_1);
    pipeline.client(&["write", "exposures", &former], &former_exposure(8));
    pipeline.replay(&[exposure(9)]).unwrap();

    // The registry refuses an incompatible schema.
    let incompatible = pipeline.file("incompatible.avsc", &without_field("unit_id"));
    assert_eq!(pipeline.client(&["register", "conversions", &incompatible], ""), "409 409\n");
    // If its check is switched off, the consumer refuses the event; so it does for an unknown schema id.
    pipeline.client(&["compatibility", "NONE"], "");
    pipeline.client(&["write", "conversions", &incompatible], &client_conversion(6, json!({})));
    pipeline.client(&["raw", "conversions"], "000000ffff02\n");

    let _consumer = pipeline.stack.service("consumer").unwrap();
    pipeline.await_rows("conversions", 5);
    assert_eq!(
        pipeline.sql(ROWS),
        "u1\tbuy\tproduction\tproducer\t12.5\nu2\tbuy\tproduction\tpy\t\\N\nu3\tbuy\tproduction\tpy\t\\N\n\
         u4\tbuy\tproduction\tpy\t\\N\nu5\tbuy\tproduction\t\t12.5"
    );
    pipeline.await_rows("exposures", 2);
    assert_eq!(pipeline.sql(EXPOSURES), "u8\t0\tsplit\t1\nu9\t77\tforced\t1");
    let mut letters = Vec::new();
    wait_until("two dead letters", || {
        letters = pipeline.json_lines(&["dead-letters", "dead_letters"]);
        letters.len() == 2
    });
    let mut refusals: Vec<(&str, &str)> = Vec::new();
    for letter in &letters {
        assert_eq!(letter["origin_topic"], "conversions");
        refusals.push((letter["code"].as_str().unwrap(), letter["reason"].as_str().unwrap()));
    }
    refusals.sort_unstable();
    assert_eq!(refusals[0].0, "incompatible_schema");
    assert!(
        refusals[0]
            .1
            .ends_with("which does not fit: `unit_id`: the writer does not have it, and it has no default"),
        "{refusals:?}"
    );
    assert_eq!(
        refusals[1],
        ("unknown_schema", "written with schema 65535 of a registry, which the registry does not have")
    );
}

/// Our schema with a reference to a sender that is declared in another schema, and with a list of hops, each
/// of which has a sender too. Returns the three schemas: sender, hop and event.
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
    let pipeline = Pipeline::up();
    let (sender, hop, uses) = with_references();
    // A slash in a subject must not be read as a slash of the path.
    let (sender, hop) = (pipeline.file("sender.avsc", &sender), pipeline.file("hop.avsc", &hop));
    let uses = pipeline.file("uses.avsc", &uses);
    pipeline.client(&["register", "shop/sender", &sender], "");
    let of_sender = ["splitstream.events.Sender", "shop/sender-value", "1"];
    pipeline.client(&[&["register", "hop", &hop], &of_sender[..]].concat(), "");
    let of_hop = ["shop.Hop", "hop-value", "1"];
    let by = json!({"service": "proxy", "instance": "1", "library_version": "2"});
    let events: String =
        (1..=3).map(|number| client_conversion(number, json!({"hops": [{"by": by}, {"by": by}]}))).collect();
    pipeline.client(&[&["write", "conversions", &uses], &of_sender[..], &of_hop[..]].concat(), &events);

    let _consumer = pipeline.stack.service("consumer").unwrap();
    pipeline.await_rows("conversions", 3);
    assert_eq!(
        pipeline.sql(ROWS),
        "u1\tbuy\tproduction\tpy\t\\N\nu2\tbuy\tproduction\tpy\t\\N\nu3\tbuy\tproduction\tpy\t\\N"
    );
    assert_eq!(pipeline.json_lines(&["dead-letters", "dead_letters"]), Vec::<Value>::new());
}

/// Seconds in an int were once read as microseconds of 1970, and the unit was counted.
#[test]
fn a_time_that_is_an_int_is_refused() {
    let pipeline = Pipeline::up();
    let mut seconds = schema();
    let fields = seconds["fields"].as_array_mut().unwrap();
    fields.iter_mut().find(|field| field["name"] == "created_at").unwrap()["type"] = json!("int");
    let seconds = pipeline.file("seconds.avsc", &seconds.to_string());
    pipeline.client(&["compatibility", "NONE"], "");
    pipeline.client(
        &["write", "conversions", &seconds],
        &client_conversion(1, json!({"created_at": 1_700_000_000})),
    );
    let current = pipeline.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    pipeline.client(&["write", "conversions", &current], &client_conversion(2, json!({})));

    let _consumer = pipeline.stack.service("consumer").unwrap();
    pipeline.await_rows("conversions", 1);
    assert_eq!(pipeline.sql("SELECT unit_id FROM conversions"), "u2");
    let letters = pipeline.json_lines(&["dead-letters", "dead_letters"]);
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
    let pipeline = Pipeline::up();
    let other = json!({"type": "record", "name": "Conversion", "fields": [{"name": "what", "type": "int"}]});
    let other = pipeline.file("other.avsc", &other.to_string());
    pipeline.client(&["register", "conversions", &other], "");
    let refused = pipeline.replay(&[conversion(1)]).unwrap_err();
    assert!(
        refused.contains(
            "the schema registry refuses the schema of conversions-value as incompatible with its others: "
        ),
        "{refused}"
    );
    assert_eq!(pipeline.json_lines(&["read", "conversions"]), Vec::<Value>::new());

    pipeline.stack.kill_registry().unwrap();
    let refused = pipeline.replay(&[conversion(1)]).unwrap_err();
    assert!(refused.contains("exit status: 5"), "{refused}");
    assert!(refused.contains("is not available: "), "{refused}");
}

#[test]
fn without_the_registry_a_partition_stalls_and_goes_on_when_the_registry_is_back() {
    let pipeline = Pipeline::up();
    let events: Vec<Value> = (1..=40).map(conversion).collect();
    pipeline.replay(&events).unwrap();
    pipeline.stack.kill_registry().unwrap();

    let consumer = pipeline.stack.service("consumer").unwrap();
    let metrics = || {
        let mut answer = ureq::get(format!("{}/metrics", consumer.url())).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    };
    wait_until("a stalled partition", || {
        metrics().lines().any(|series| series.contains("consumer_stalled{") && series.ends_with(" 1"))
    });
    // Long enough for the consumer to drop or skip an event, if it did so.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pipeline.sql("SELECT count() FROM conversions"), "0");
    pipeline.stack.start_registry().unwrap();
    pipeline.await_rows("conversions", 40);
    assert_eq!(pipeline.sql("SELECT count(), uniqExact(event_id) FROM conversions FORMAT TSV"), "40\t40");
    assert_eq!(pipeline.json_lines(&["dead-letters", "dead_letters"]), Vec::<Value>::new());

    // Stopped again: a known schema needs no registry.
    let current = pipeline.file("current.avsc", schemas::avro::CONVERSION_SCHEMA);
    let number = pipeline.client(&["register", "conversions", &current], "").trim().parse().unwrap();
    pipeline.stack.kill_registry().unwrap();
    pipeline.client(&["raw", "conversions"], &hex(41, WrittenWith::RegistryId(number)));
    pipeline.await_rows("conversions", 41);
    assert_eq!(pipeline.sql("SELECT count(), uniqExact(event_id) FROM conversions FORMAT TSV"), "41\t41");
}
