//! The rules of schema resolution one by one: which schemas can be read, with which results, and the errors
//! for others.

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

/// Returns our schema with the type of one field replaced.
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

/// Returns a message with this body.
fn framed(body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 7], body].concat()
}

#[test]
fn records_of_our_own_schemas_are_read_directly_from_the_message() {
    for kind in RecordKind::ALL {
        assert!(Plan::compile(kind, kind.schema()).unwrap().is_exact(), "{kind:?}");
    }
    let mut equivalent = ours();
    equivalent["namespace"] = json!("com.example");
    equivalent["doc"] = json!("Another text.");
    equivalent["fields"][4].as_object_mut().unwrap().remove("default");
    assert!(compile(&equivalent).unwrap().is_exact());
    assert!(!compile(&with_type("name", json!("bytes"))).unwrap().is_exact());
}

#[test]
fn the_reference_to_the_schema_is_before_the_body() {
    let event = event();
    let (name, _) = avro::open(RecordKind::Conversion, &message(&event)).map(|(name, _)| (name, ())).unwrap();
    assert_eq!(name, WrittenWith::RegistryId(7));
    assert_eq!(message(&event)[..5], [0, 0, 0, 0, 7]);
    assert_eq!(message(&event)[5..], avro::encode(&event)[10..]);
}

#[test]
fn an_added_field_is_skipped_and_a_removed_one_has_its_default() {
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
fn an_incompatible_schema_is_refused_with_the_field() {
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
        // The library would accept the next three.
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
fn a_uuid_is_accepted_as_a_text() {
    let event = event();
    let schema = with_type("unit_id", json!({"type": "string", "logicalType": "uuid"}));
    assert_eq!(Event::Conversion(decode(&schema, &message(&event)).unwrap()), event);
}

#[test]
fn an_incompatible_branch_is_refused_if_a_message_uses_it() {
    let event = event();
    let schema = with_type("name", json!(["null", "string"]));
    let whole = message(&event);
    let at = whole.windows(4).position(|window| window == b"\x06buy").unwrap();
    let text = [&whole[..at], &[2], &whole[at..]].concat();
    assert_eq!(Event::Conversion(decode(&schema, &text).unwrap()), event);
    let null = [&whole[..at], &[0], &whole[at + 4..]].concat();
    assert_eq!(
        decode(&schema, &null).unwrap_err(),
        "`name`: a branch of the writer's union that our schema does not have, at byte 43 (malformed)"
    );
    let none = [&whole[..at], &[4], &whole[at..]].concat();
    assert_eq!(
        decode(&schema, &none).unwrap_err(),
        "`name`: no such branch of the union, at byte 42 (malformed)"
    );
}

/// Returns our schema with one more field at the beginning.
fn with_first_field(kind: Value) -> Value {
    let mut schema = ours();
    schema["fields"].as_array_mut().unwrap().insert(0, json!({"name": "more", "type": kind}));
    schema
}

#[test]
fn the_number_of_items_that_take_no_bytes_is_bounded() {
    let nulls = with_first_field(json!({"type": "array", "items": "null"}));
    let nothing =
        json!({"type": "fixed", "name": "None", "size": 0, "logicalType": "decimal", "precision": 1});
    let nothings = json!({"type": "record", "name": "Nones", "fields": [
        {"name": "a", "type": nothing}, {"name": "b", "type": "None"}]});
    let mut body = Vec::new();
    super::values::long(1 << 62, &mut body);
    for kind in [json!("null"), nothing, nothings] {
        let many = with_first_field(json!({"type": "array", "items": kind}));
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
fn values_that_nest_too_deep_are_refused() {
    let list = with_first_field(
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
fn a_type_that_occurs_twice_is_compiled_once() {
    // Thirty types, each with two fields of the next type: expanded, 2^30 fields.
    let mut kind = json!("null");
    for at in (0..30).rev() {
        let name = format!("T{at}");
        let next = if at == 29 { json!("null") } else { json!(format!("T{}", at + 1)) };
        kind = json!({"type": "record", "name": name, "fields": [{"name": "a", "type": kind}, {"name": "b", "type": next}]});
    }
    let event = event();
    assert_eq!(Event::Conversion(decode(&with_first_field(kind), &message(&event)).unwrap()), event);
}
