//! The rules one by one: what can be read, what it then is, and what the refusals say.

use schemas::avro::{self, IncompatibleSchema, Plan, RecordKind, WrittenWith};
use schemas::{Conversion, Event};
use serde_json::{Value, json};

fn event() -> Event<'static> {
    serde_json::from_str(
        r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000001", "name": "buy",
            "unit_type": "user", "unit_id": "u1", "value": "12.5", "metadata": {"plan": "pro"},
            "created_at": "2026-01-01T00:00:00Z"}"#,
    )
    .unwrap()
}

fn ours() -> Value {
    serde_json::from_str(avro::CONVERSION_SCHEMA).unwrap()
}

/// Our schema with the type of one field replaced.
fn with_type(field: &str, kind: Value) -> Value {
    let mut schema = ours();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.iter_mut().find(|known| known["name"] == field).unwrap()["type"] = kind;
    schema
}

fn compile(schema: &Value) -> Result<Plan, IncompatibleSchema> {
    Plan::compile(RecordKind::Conversion, &schema.to_string())
}

fn refusal(schema: &Value) -> String {
    compile(schema).err().map_or_else(|| "none".to_owned(), |error| error.to_string())
}

fn message(event: &Event<'_>) -> Vec<u8> {
    avro::encode_with(event, WrittenWith::RegistryId(7))
}

fn decode<'a>(schema: &Value, message: &'a [u8]) -> Result<Conversion<'a>, String> {
    let (_, body) = avro::open(RecordKind::Conversion, message).unwrap();
    compile(schema).unwrap().decode(body).map_err(|error| format!("{} ({})", error, error.code()))
}

/// A message whose body was written by hand.
fn framed(body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 7], body].concat()
}

#[test]
fn every_schema_of_ours_is_read_straight_from_the_message() {
    for kind in RecordKind::ALL {
        assert!(Plan::compile(kind, kind.schema()).unwrap().is_exact(), "{kind:?}");
    }
    let mut told_otherwise = ours();
    told_otherwise["namespace"] = json!("com.example");
    told_otherwise["doc"] = json!("Another text.");
    told_otherwise["fields"][4].as_object_mut().unwrap().remove("default");
    assert!(compile(&told_otherwise).unwrap().is_exact());
    assert!(!compile(&with_type("name", json!("bytes"))).unwrap().is_exact());
}

#[test]
fn the_name_of_the_schema_stands_before_the_body() {
    let event = event();
    let (name, _) = avro::open(RecordKind::Conversion, &message(&event)).map(|(name, _)| (name, ())).unwrap();
    assert_eq!(name, WrittenWith::RegistryId(7));
    assert_eq!(message(&event)[..5], [0, 0, 0, 0, 7]);
    assert_eq!(message(&event)[5..], avro::encode(&event)[10..]);
}

#[test]
fn a_field_that_was_added_is_passed_over_and_one_that_was_removed_has_its_default() {
    let event = event();
    let mut added = ours();
    added["fields"].as_array_mut().unwrap().push(json!({"name": "channel", "type": ["null", "string"]}));
    let bytes = [&message(&event)[..], &[2, 6], b"web"].concat();
    assert_eq!(Event::Conversion(decode(&added, &bytes).unwrap()), event);

    let mut removed = ours();
    removed["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "environment");
    let whole = message(&event);
    let at = whole.windows(11).position(|window| window == b"\x14production").unwrap();
    let bytes = [&whole[..at], &whole[at + 11..]].concat();
    assert_eq!(Event::Conversion(decode(&removed, &bytes).unwrap()), event);
}

#[test]
fn a_schema_that_does_not_fit_is_refused_by_the_field() {
    let without = |name: &str| {
        let mut schema = ours();
        schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != name);
        schema
    };
    let mut renamed = ours();
    renamed["name"] = json!("Purchase");
    for (schema, expected) in [
        (without("unit_id"), "`unit_id`: the writer does not have it, and it has no default"),
        (with_type("name", json!("int")), "`name`: an int where a string is read"),
        (with_type("event_id", json!("bytes")), "`event_id`: bytes where a UUID is read"),
        (
            with_type("metadata", json!({"type": "map", "values": "double"})),
            "`metadata`: a double where a string is read",
        ),
        (
            with_type("sender", json!({"type": "record", "name": "Origin", "fields": []})),
            "`sender`: a record \"Origin\" where \"Sender\" is read",
        ),
        (
            with_type("created_at", json!({"type": "long", "logicalType": "timestamp-millis"})),
            "`created_at`: a time of another unit where a time in microseconds is read",
        ),
        (
            with_type(
                "value",
                json!({"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}),
            ),
            "`value`: a decimal of scale 2 where a decimal of scale 6 is read",
        ),
        // The library would take the three of these.
        (with_type("value", json!("string")), "`value`: a string where a decimal of scale 6 is read"),
        (
            with_type("name", json!({"type": "fixed", "name": "Four", "size": 4})),
            "`name`: 4 fixed bytes where a string is read",
        ),
        (renamed, "`the record`: a record \"Purchase\" where \"Conversion\" is read"),
        (json!("string"), "`the record`: a string where a record \"Conversion\" is read"),
    ] {
        assert_eq!(refusal(&schema), expected);
    }
    let mut wide = serde_json::from_str::<Value>(avro::EXPOSURE_SCHEMA).unwrap();
    wide["fields"][6]["type"] = json!("long");
    let refused = Plan::compile(RecordKind::Exposure, &wide.to_string()).err().unwrap();
    assert_eq!(refused.to_string(), "`phase`: a long where an int is read");
}

#[test]
fn a_uuid_is_a_text_where_a_text_is_read() {
    let event = event();
    let schema = with_type("unit_id", json!({"type": "string", "logicalType": "uuid"}));
    assert_eq!(Event::Conversion(decode(&schema, &message(&event)).unwrap()), event);
}

#[test]
fn a_branch_that_does_not_fit_is_refused_where_a_message_takes_it() {
    let event = event();
    let schema = with_type("name", json!(["null", "string"]));
    let whole = message(&event);
    let at = whole.windows(4).position(|window| window == b"\x06buy").unwrap();
    let text = [&whole[..at], &[2], &whole[at..]].concat();
    assert_eq!(Event::Conversion(decode(&schema, &text).unwrap()), event);
    let null = [&whole[..at], &[0], &whole[at + 4..]].concat();
    assert_eq!(
        decode(&schema, &null).unwrap_err(),
        "`name`: a branch of the writer's that ours has not, at byte 43 (malformed)"
    );
    let none = [&whole[..at], &[4], &whole[at..]].concat();
    assert_eq!(
        decode(&schema, &none).unwrap_err(),
        "`name`: no such branch of the union, at byte 42 (malformed)"
    );
}

/// Our schema behind one more field.
fn behind(kind: Value) -> Value {
    let mut schema = ours();
    schema["fields"].as_array_mut().unwrap().insert(0, json!({"name": "more", "type": kind}));
    schema
}

#[test]
fn items_that_take_no_bytes_cannot_keep_us_busy() {
    let nulls = behind(json!({"type": "array", "items": "null"}));
    let nothing =
        json!({"type": "fixed", "name": "None", "size": 0, "logicalType": "decimal", "precision": 1});
    let nothings = json!({"type": "record", "name": "Nones", "fields": [
        {"name": "a", "type": nothing}, {"name": "b", "type": "None"}]});
    let mut body = Vec::new();
    super::values::long(1 << 62, &mut body);
    for kind in [json!("null"), nothing, nothings] {
        let many = behind(json!({"type": "array", "items": kind}));
        assert_eq!(
            decode(&many, &framed(&body)).unwrap_err(),
            "`a field of the writer's own`: too many items, at byte 15 (malformed)"
        );
    }
    let event = event();
    let few = [&[0, 0, 0, 0, 7, 8, 0], &message(&event)[5..]].concat();
    assert_eq!(Event::Conversion(decode(&nulls, &few).unwrap()), event);
}

#[test]
fn values_that_lie_too_deep_in_each_other_are_refused() {
    let list = behind(
        json!({"type": "record", "name": "List", "fields": [{"name": "next", "type": ["null", "List"]}]}),
    );
    let event = event();
    let nested = |depth: usize| [&framed(&vec![2; depth]), &[0][..], &message(&event)[5..]].concat();
    assert_eq!(Event::Conversion(decode(&list, &nested(63)).unwrap()), event);
    assert_eq!(
        decode(&list, &nested(64)).unwrap_err(),
        "`a field of the writer's own`: nested too deep, at byte 69 (malformed)"
    );
    assert!(decode(&list, &nested(60_000)).unwrap_err().contains("nested too deep"));
}

#[test]
fn a_schema_of_types_in_types_stays_small() {
    // Thirty types, each of two of the next: written out, 2^30 fields.
    let mut kind = json!("null");
    for at in (0..30).rev() {
        let name = format!("T{at}");
        let next = if at == 29 { json!("null") } else { json!(format!("T{}", at + 1)) };
        kind = json!({"type": "record", "name": name, "fields": [{"name": "a", "type": kind}, {"name": "b", "type": next}]});
    }
    let event = event();
    assert_eq!(Event::Conversion(decode(&behind(kind), &message(&event)).unwrap()), event);
}
