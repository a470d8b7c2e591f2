//! Messages as in their topics, of the current schemas and of former ones: each is decoded to its event, with
//! either reference to its schema, and the current ones are encoded to the same bytes again.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use schemas::avro::{self, Plan, RecordKind, WrittenWith};
use schemas::event::CUT_MARK;
use schemas::{Event, Exposure, Pairs};
use serde::Deserialize;
use serde_json::Value as Json;

const VECTORS: &str = include_str!("../vectors/messages.json");
/// The length of the framing of single-object encoding.
const SINGLE_OBJECT_BYTES: usize = 10;

#[derive(Deserialize)]
struct Vectors {
    version: u32,
    messages: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    schema: String,
    event: Event<'static>,
    single_object: String,
    registry_7: String,
    unit_keys: Vec<String>,
    carried_keys: Vec<String>,
}

fn messages() -> Vec<Vector> {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert_eq!((vectors.version, vectors.messages.len()), (1, 9));
    vectors.messages
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Returns the kind of record, the text of the writer's schema, and whether it is a current one.
fn schema(name: &str) -> (RecordKind, &'static str, bool) {
    match name {
        "exposure" => (RecordKind::Exposure, avro::EXPOSURE_SCHEMA, true),
        "exposure_1" => (RecordKind::Exposure, avro::EXPOSURE_SCHEMA_1, false),
        "conversion" => (RecordKind::Conversion, avro::CONVERSION_SCHEMA, true),
        "alias" => (RecordKind::Alias, avro::ALIAS_SCHEMA, true),
        other => panic!("{other} is no schema of ours"),
    }
}

fn decode<'a>(kind: RecordKind, plan: &Plan, message: &'a [u8]) -> Event<'a> {
    let (_, body) = avro::open(kind, message).unwrap();
    match kind {
        RecordKind::Exposure => Event::Exposure(plan.decode(body).unwrap()),
        RecordKind::Conversion => Event::Conversion(plan.decode(body).unwrap()),
        _ => Event::Alias(plan.decode(body).unwrap()),
    }
}

#[test]
fn every_message_decodes_to_its_event_and_a_current_one_encodes_to_the_same_bytes() {
    for Vector { schema: name, event, single_object, registry_7, .. } in messages() {
        let (kind, text, current) = schema(&name);
        let single_object = bytes(&single_object);
        let read = match kind {
            RecordKind::Exposure => avro::decode_exposure(&single_object).map(Event::Exposure),
            RecordKind::Conversion => avro::decode_conversion(&single_object).map(Event::Conversion),
            _ => avro::decode_alias(&single_object).map(Event::Alias),
        };
        assert_eq!(read.unwrap(), event, "{name}");

        let plan = Plan::compile(kind, text).unwrap();
        assert_eq!(plan.is_exact(), current, "{name}");
        let framed = bytes(&registry_7);
        assert_eq!(avro::open(kind, &framed).unwrap().0, WrittenWith::RegistryId(7));
        assert_eq!(decode(kind, &plan, &framed), event, "{name}");
        if current {
            assert_eq!(avro::encode(&event), single_object, "{name}");
            assert_eq!(avro::encode_with(&event, WrittenWith::RegistryId(7)), framed, "{name}");
        }
    }
}

#[test]
fn every_event_has_the_keys_of_its_units() {
    for Vector { event, unit_keys, carried_keys, .. } in messages() {
        let (units, carried) = match &event {
            Event::Exposure(exposure) => (vec![exposure.unit_key()], exposure.carried_keys().collect()),
            Event::Conversion(conversion) => {
                (vec![conversion.unit_key()], conversion.carried_keys().collect())
            }
            Event::Alias(alias) => (vec![alias.from_unit_key(), alias.to_unit_key()], Vec::new()),
        };
        assert_eq!(units.iter().map(ToString::to_string).collect::<Vec<_>>(), unit_keys);
        assert_eq!(carried.iter().map(ToString::to_string).collect::<Vec<_>>(), carried_keys);
    }
}

/// Checks the fields of a record, whose types may name types declared before.
fn expect_fields(schema: &Json, event: &Json, declared: &mut BTreeMap<String, Json>) {
    match schema {
        Json::String(name) => {
            if let Some(record) = declared.get(name).cloned() {
                expect_fields(&record, event, declared);
            }
        }
        Json::Array(branches) if !event.is_null() => expect_fields(&branches[1], event, declared),
        Json::Object(parts) if parts["type"] == "record" => {
            declared.insert(parts["name"].as_str().unwrap().to_owned(), schema.clone());
            let fields = parts["fields"].as_array().unwrap();
            let names: BTreeSet<&str> = fields.iter().map(|field| field["name"].as_str().unwrap()).collect();
            let in_json: BTreeSet<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(in_json, names, "the fields of {}, in JSON and in its schema", parts["name"]);
            for field in fields {
                expect_fields(&field["type"], &event[field["name"].as_str().unwrap()], declared);
            }
        }
        _ => {}
    }
}

fn json(event: &Event<'_>) -> Json {
    let mut json = serde_json::to_value(event).unwrap();
    json.as_object_mut().unwrap().remove("type");
    json
}

#[test]
fn every_event_has_the_fields_of_its_schema() {
    for Vector { schema: name, event, .. } in messages() {
        let schema = serde_json::from_str(schema(&name).0.schema()).unwrap();
        expect_fields(&schema, &json(&event), &mut BTreeMap::new());
    }
}

#[test]
fn a_field_that_json_leaves_out_has_the_default_of_the_schema() {
    for Vector { schema: name, event, .. } in messages() {
        let schema: Json = serde_json::from_str(schema(&name).0.schema()).unwrap();
        let mut defaults = schema["fields"].as_array().unwrap().clone();
        defaults.retain(|field| field.get("default").is_some());
        let mut left = serde_json::to_value(&event).unwrap();
        left.as_object_mut().unwrap().retain(|name, _| defaults.iter().all(|field| field["name"] != *name));
        let filled = json(&serde_json::from_value(left).unwrap());
        for field in defaults {
            assert_eq!(
                filled[field["name"].as_str().unwrap()],
                field["default"],
                "{name}: {}",
                field["name"]
            );
        }
    }
}

/// Decodes a body of `writer` with the library and the schema `reader`, and returns its fields.
fn library(writer: &str, reader: &str, body: &[u8]) -> Vec<(String, Value)> {
    let (writer, reader) = (Schema::parse_str(writer).unwrap(), Schema::parse_str(reader).unwrap());
    let resolving = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
    let mut rest = body;
    let Value::Record(fields) = resolving.read_value(&mut rest).unwrap() else { panic!("no record") };
    assert_eq!(rest, [0_u8; 0]);
    fields
}

/// BACKWARD, by the Avro library: our schema reads messages of the former one, and fills in the missing fields.
#[test]
fn a_former_exposure_has_the_defaults_of_the_fields_that_it_lacks() {
    let former: Vec<Vector> =
        messages().into_iter().filter(|message| message.schema == "exposure_1").collect();
    assert_eq!(former.len(), 3);
    for Vector { single_object, event, .. } in former {
        let single_object = bytes(&single_object);
        let body = &single_object[SINGLE_OBJECT_BYTES..];
        let mut fields = library(avro::EXPOSURE_SCHEMA_1, avro::EXPOSURE_SCHEMA, body);
        // The same event, written with our schema.
        let ours = avro::encode(&event);
        let same = library(avro::EXPOSURE_SCHEMA, avro::EXPOSURE_SCHEMA, &ours[SINGLE_OBJECT_BYTES..]);
        assert_eq!(fields, same);
        fields.retain(|(name, _)| ["configuration_version", "reason"].contains(&name.as_str()));
        let filled = [
            ("configuration_version".to_owned(), Value::Long(0)),
            ("reason".to_owned(), Value::String("split".to_owned())),
        ];
        assert_eq!(fields, filled);
    }
}

/// FORWARD, by the Avro library: a reader with the former schema misses the two fields and nothing else.
#[test]
fn a_former_reader_reads_our_exposures_without_the_fields_that_it_does_not_know() {
    let ours: Vec<Vector> = messages().into_iter().filter(|message| message.schema == "exposure").collect();
    assert_eq!(ours.len(), 4);
    for Vector { single_object, .. } in ours {
        let single_object = bytes(&single_object);
        let body = &single_object[SINGLE_OBJECT_BYTES..];
        let read = library(avro::EXPOSURE_SCHEMA, avro::EXPOSURE_SCHEMA_1, body);
        let mut known = library(avro::EXPOSURE_SCHEMA, avro::EXPOSURE_SCHEMA, body);
        assert_eq!(known.len(), read.len() + 2);
        known.retain(|(name, _)| !["configuration_version", "reason"].contains(&name.as_str()));
        assert_eq!(read, known);
    }
}

/// A reason of a newer build is not a split, and must not be counted as one.
#[test]
fn an_exposure_for_an_unknown_reason_is_refused_by_its_own_code() {
    let message = messages().into_iter().find(|message| message.registry_7.contains("0c666f72636564"));
    let Vector { single_object, .. } = message.expect("one is forced");
    for (reason, quoted) in [("forged", "forged"), ("Forced", "Forced"), ("\n\n\n\n\n\n", "\n\n\n\n\n\n")] {
        let hexadecimal: String = reason.bytes().map(|byte| format!("{byte:02x}")).collect();
        let message = bytes(&single_object.replace("666f72636564", &hexadecimal));
        let refused = avro::decode::<Exposure<'_>>(&message).unwrap_err();
        assert_eq!(refused.code(), "unknown_reason");
        assert_eq!(
            refused.to_string(),
            format!("exposed for the unknown reason `{quoted}`; known are split, forced, held_out")
        );
    }
}

/// Another writer may not know the bounds: the value is cut as our own sender would have cut it.
#[test]
fn a_value_that_arrives_too_long_is_cut_and_too_many_are_still_refused() {
    let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "a",
        "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#;
    let exposure =
        |attributes: Pairs<'static>| Exposure { attributes, ..serde_json::from_str(json).unwrap() };
    let long = exposure(Pairs::from_iter([("region", "é".repeat(600)), ("plan", "pro".to_owned())]));
    let cut = ["é".repeat(508).as_str(), CUT_MARK].concat();
    let message = avro::encode(&Event::Exposure(long.clone()));
    let mut evolved: serde_json::Value = serde_json::from_str(avro::EXPOSURE_SCHEMA).unwrap();
    evolved["fields"].as_array_mut().unwrap().push(serde_json::json!({"name": "more", "type": "null"}));
    let plan = Plan::compile(RecordKind::Exposure, &evolved.to_string()).unwrap();
    assert!(!plan.is_exact());
    let (_, body) = avro::open(RecordKind::Exposure, &message).unwrap();
    let mut sent = long;
    sent.fit_attributes();
    for read in [avro::decode_exposure(&message).unwrap(), plan.decode(body).unwrap()] {
        assert_eq!(read.attributes.iter().collect::<Vec<_>>(), [("region", cut.as_str()), ("plan", "pro")]);
        assert_eq!(read, sent);
    }

    let many = exposure((0..65).map(|number| (format!("a{number}"), "x")).collect());
    let message = avro::encode(&Event::Exposure(many));
    let refused = avro::decode_exposure(&message).unwrap_err();
    assert_eq!((refused.code(), refused.to_string().contains("more than 64 entries")), ("malformed", true));
}
