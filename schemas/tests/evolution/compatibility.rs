//! Compares the library's `SchemaCompatibility` with our own judgement of schemas: it accepts every schema
//! that we accept, and the differences show why we cannot use it.

use apache_avro::error::CompatibilityError;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use schemas::avro::{Plan, RecordKind};
use serde_json::{Value, json};

use super::random::Random;
use super::{schema, seeds, writers};

fn ours(kind: RecordKind) -> Value {
    serde_json::from_str(kind.schema()).unwrap()
}

/// Without aliases: our schema of them names a type that it declares, which the library does not follow.
#[test]
fn the_library_accepts_every_schema_that_we_accept() {
    let kinds = [RecordKind::Exposure, RecordKind::Conversion];
    let readers = kinds.map(|kind| schema(&ours(kind)));
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds(3_000) {
        let random = &mut Random::new(seed);
        let at = random.below(kinds.len());
        let json = writers::writer(kinds[at].schema(), random);
        let library = SchemaCompatibility::can_read(&schema(&json), &readers[at]);
        match (Plan::compile(kinds[at], &json.to_string()), library) {
            (Ok(_), Ok(_)) => taken += 1,
            (Ok(_), Err(error)) => panic!("AVRO_SEED={seed}: we take it, the library says {error}\n{json}"),
            (Err(_), _) => refused += 1,
        }
    }
    println!("{taken} taken by both, {refused} refused by us");
    if std::env::var_os("AVRO_SEED").is_none() {
        assert!(taken > 500 && refused > 500, "{taken} taken, {refused} refused: the cases are lopsided");
    }
}

/// Returns both judgements on our schema with the type of one field replaced.
fn both(kind: RecordKind, field: &str, with: Value) -> (bool, Option<Compatibility>) {
    let mut writer = ours(kind);
    let fields = writer["fields"].as_array_mut().unwrap();
    let field = fields.iter_mut().find(|known| known["name"] == field).unwrap();
    field["type"] = with;
    field.as_object_mut().unwrap().remove("default");
    let parse = |json: &Value| apache_avro::Schema::parse_str(&json.to_string()).unwrap();
    let library = SchemaCompatibility::can_read(&parse(&writer), &parse(&ours(kind)));
    (Plan::compile(kind, &writer.to_string()).is_ok(), library.ok())
}

#[test]
fn the_library_accepts_and_refuses_other_types_than_we_do() {
    let full = Some(Compatibility::Full);
    let millis = json!({"type": "long", "logicalType": "timestamp-millis"});
    assert_eq!(both(RecordKind::Conversion, "created_at", millis), (false, full));
    assert_eq!(both(RecordKind::Conversion, "created_at", json!("int")), (false, full));
    // Sixteen bytes are not the text of a UUID.
    assert_eq!(both(RecordKind::Conversion, "event_id", json!("bytes")), (false, full));
    // A text of digits is not the bytes of a number.
    assert_eq!(both(RecordKind::Conversion, "value", json!("string")), (false, full));
    // The same number has the same bytes at any precision.
    let wider = json!({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6});
    assert_eq!(both(RecordKind::Conversion, "value", wider), (true, None));
}

/// The library does not follow names. Our schema declares the type of units at `from` and names it at `to`; a
/// writer with the two fields in the other order declares it at `to`.
#[test]
fn a_type_that_one_schema_declares_and_the_other_names() {
    let mut writer = ours(RecordKind::Alias);
    let fields = writer["fields"].as_array_mut().unwrap();
    let unit = fields[1]["type"].take();
    fields[1] = json!({"name": "to", "type": unit});
    fields[2] = json!({"name": "from", "type": "Unit"});
    assert!(Plan::compile(RecordKind::Alias, &writer.to_string()).is_ok());
    let refused =
        SchemaCompatibility::can_read(&schema(&writer), &schema(&ours(RecordKind::Alias))).unwrap_err();
    assert!(matches!(refused, CompatibilityError::FieldTypeMismatch(field, _) if field == "from"));
}
