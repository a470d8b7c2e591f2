//! Measures what decoding one event costs: our decoder, with our own schema and with another writer's,
//! compared with the Avro library's, in one run. A plain program: `cargo bench -p schemas`, with parts of
//! names to run only some.

use std::hint::black_box;
use std::time::Instant;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use schemas::avro::{self, Plan, RecordKind, WrittenWith};
use schemas::{Conversion, Event, Exposure};
use serde::Deserialize;
use serde_json::{Value, json};

/// The number of rounds, and of events in each. Rounds are so short that the fastest one is not interrupted.
const ROUNDS: usize = 1_000;
const EVENTS: usize = 200;

const EXPOSURE: &str = r#"{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-000000000001",
    "experiment": "checkout-button", "variant": "treatment", "unit_type": "user", "unit_id": "user-0012345678",
    "other_ids": {"account": "a-991"}, "phase": 2, "definition_version": 41,
    "buckets": {"slot": 123456, "rollout": 654321, "variant": 999999}, "rule": "everyone",
    "attributes": {"region": "US", "plan": "pro", "device": "mobile", "browser": "firefox"},
    "sender": {"service": "shop", "instance": "shop-7", "library_version": "0.1.0"},
    "created_at": "2026-01-01T00:00:00Z"}"#;

const CONVERSION: &str = r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000002",
    "name": "purchase", "unit_type": "user", "unit_id": "user-0012345678", "value": "129.90",
    "metadata": {"currency": "EUR"}, "sender": {"service": "shop", "instance": "shop-7", "library_version": "0.1.0"},
    "created_at": "2026-01-01T00:00:00Z"}"#;

/// The bare minimum: five short texts, a few numbers, no maps.
const SMALL: &str = r#"{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-000000000001",
    "experiment": "e", "variant": "a", "unit_type": "user", "unit_id": "u12345678",
    "created_at": "2026-01-01T00:00:00Z"}"#;

/// The form that the library decodes to through serde.
#[derive(Deserialize)]
#[allow(dead_code)]
struct OwnedConversion {
    event_id: String,
    name: String,
    unit_type: String,
    unit_id: String,
    other_ids: std::collections::HashMap<String, String>,
    experiment: Option<String>,
    metadata: std::collections::HashMap<String, String>,
    environment: String,
    created_at: i64,
}

fn main() {
    println!("{:<60} {:>7} {:>7}", "nanoseconds an event, of rounds", "least", "median");
    for (name, text) in [("exposure, every field", EXPOSURE), ("exposure, small", SMALL)] {
        let event: Event<'_> = serde_json::from_str(text).unwrap();
        let kind = RecordKind::Exposure;
        let message = avro::encode(&event);
        measure(&format!("{name} ({} bytes): ours, exact", message.len()), || {
            black_box(avro::decode_exposure(black_box(&message)).unwrap());
        });
        let (evolved, body) = evolved(kind, &message);
        let plan = Plan::compile(kind, &evolved).unwrap();
        assert!(!plan.is_exact());
        let framed = framed(&body);
        let read = |framed| -> Exposure<'_> { plan.decode(avro::open(kind, framed).unwrap().1).unwrap() };
        assert_eq!(Event::Exposure(read(&framed)), event);
        measure(&format!("{name}: ours, evolved"), || {
            black_box(read(black_box(&framed)));
        });
        library(name, kind, &message[10..], &evolved, &body);
    }
    let event: Event<'_> = serde_json::from_str(CONVERSION).unwrap();
    let message = avro::encode(&event);
    measure(&format!("conversion ({} bytes): ours, exact", message.len()), || {
        let read: Conversion<'_> = avro::decode_conversion(black_box(&message)).unwrap();
        black_box(read);
    });
    // A decimal and a UUID need types of the library; without logical types they are bytes and text.
    let plain = Schema::parse_str(&without_logical_types(avro::CONVERSION_SCHEMA)).unwrap();
    let reader = GenericDatumReader::builder(&plain).build().unwrap();
    measure("conversion: apache-avro, Value", || {
        black_box(reader.read_value(&mut black_box(&message[10..])).unwrap());
    });
    measure("conversion: apache-avro, Value into a struct", || {
        let value = reader.read_value(&mut black_box(&message[10..])).unwrap();
        black_box(apache_avro::from_value::<OwnedConversion>(&value).unwrap());
    });
}

fn library(name: &str, kind: RecordKind, exact: &[u8], evolved: &str, body: &[u8]) {
    let ours = Schema::parse_str(kind.schema()).unwrap();
    let reader = GenericDatumReader::builder(&ours).build().unwrap();
    measure(&format!("{name}: apache-avro, Value"), || {
        black_box(reader.read_value(&mut black_box(exact)).unwrap());
    });
    let writer = Schema::parse_str(evolved).unwrap();
    let reader = GenericDatumReader::builder(&writer).reader_schema(&ours).build().unwrap();
    measure(&format!("{name}: apache-avro, Value resolved from evolved"), || {
        black_box(reader.read_value(&mut black_box(body)).unwrap());
    });
}

/// Returns our schema with two more fields at the end, and the body of a message with them.
fn evolved(kind: RecordKind, message: &[u8]) -> (String, Vec<u8>) {
    let mut schema: Value = serde_json::from_str(kind.schema()).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.push(json!({"name": "channel", "type": ["null", "string"], "default": null}));
    fields.push(json!({"name": "position", "type": "int", "default": 0}));
    (schema.to_string(), [&message[10..], b"\x02\x06web", &[8]].concat())
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut message = avro::encode_with(&serde_json::from_str(SMALL).unwrap(), WrittenWith::RegistryId(1));
    message.truncate(5);
    message.extend_from_slice(body);
    message
}

fn without_logical_types(schema: &str) -> String {
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(fields) if fields.contains_key("logicalType") => fields["type"].clone(),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, value)| (name, strip(value))).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(strip).collect()),
            other => other,
        }
    }
    strip(serde_json::from_str(schema).unwrap()).to_string()
}

fn measure(name: &str, mut decode: impl FnMut()) {
    let mut wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    if wanted.any(|part| !name.contains(&part)) {
        return;
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..EVENTS {
            decode();
        }
        rounds.push(start.elapsed().as_secs_f64() / EVENTS as f64 * 1e9);
    }
    rounds.sort_by(f64::total_cmp);
    println!("{name:<60} {:>7.0} {:>7.0}", rounds[0], rounds[ROUNDS / 2]);
}
