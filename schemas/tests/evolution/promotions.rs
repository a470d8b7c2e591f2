//! The table of the types that are accepted for each of ours (at the head of `avro/plan/leaf.rs`), row by
//! row, and what the library does with the same bytes.

use apache_avro::Schema;
use schemas::avro::{Plan, RecordKind};
use serde_json::{Value, json};

use super::values::long;
use super::{Oracle, ours, without_decimals};

const ID: &str = "0191e3a0-0000-7000-8000-000000000001";

/// What the library does with a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    /// It reads what we read.
    Same,
    /// It accepts what we refuse.
    Accepts,
    Refuses,
    /// Not compared: the library gets no decimals (see [`Oracle`]).
    NotCompared,
}

use Library::{Accepts, NotCompared, Refuses, Same};

/// A field with a type that is not ours, its bytes, and the result: its value as text, or the error.
struct Case {
    field: &'static str,
    kind: Value,
    bytes: Vec<u8>,
    ours: Result<&'static str, &'static str>,
    library: Library,
}

fn number(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    long(value, &mut bytes);
    bytes
}

fn bytes(content: &[u8]) -> Vec<u8> {
    [number(content.len() as i64), content.to_vec()].concat()
}

fn logical(kind: &str, name: &str) -> Value {
    json!({"type": kind, "logicalType": name})
}

fn decimal(precision: u32, scale: u32) -> Value {
    json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
}

/// Returns the bytes of an exposure or a conversion, field by field, in the order of our schema.
fn parts(kind: RecordKind) -> Vec<(&'static str, Vec<u8>)> {
    let unit = [("unit_type", bytes(b"user")), ("unit_id", bytes(b"u1")), ("other_ids", vec![0])];
    let end = [
        ("environment", bytes(b"production")),
        ("sender", vec![0, 0, 0]),
        ("created_at", number(1_700_000_000_000_000)),
    ];
    let id = ("event_id", bytes(ID.as_bytes()));
    let mut parts = match kind {
        RecordKind::Exposure => vec![id, ("experiment", bytes(b"e")), ("variant", bytes(b"a"))],
        _ => vec![id, ("name", bytes(b"buy"))],
    };
    parts.extend(unit);
    parts.extend(match kind {
        RecordKind::Exposure => vec![
            ("phase", number(1)),
            ("definition_version", number(7)),
            ("configuration_version", number(9)),
            ("buckets", vec![2, 2, 4, 6]),
            ("rule", vec![0]),
            ("reason", bytes(b"forced")),
            ("attributes", vec![0]),
        ],
        _ => vec![("experiment", vec![0]), ("value", vec![0]), ("metadata", vec![0])],
    });
    parts.extend(end);
    parts
}

/// Returns our schema with the type of `case`, and a body written with it.
fn written(kind: RecordKind, case: &Case) -> (Value, Vec<u8>) {
    let mut schema: Value = serde_json::from_str(kind.schema()).unwrap();
    let (outer, inner) = case.field.split_once('.').unwrap_or((case.field, ""));
    let fields = schema["fields"].as_array_mut().unwrap();
    let field = fields.iter_mut().find(|known| known["name"] == outer).unwrap();
    match inner {
        "" => {
            field["type"] = case.kind.clone();
            // The library checks that a default fits its type.
            field.as_object_mut().unwrap().remove("default");
        }
        _ => {
            let fields = field["type"][1]["fields"].as_array_mut().unwrap();
            fields.iter_mut().find(|known| known["name"] == inner).unwrap()["type"] = case.kind.clone();
        }
    }
    let mut body = Vec::new();
    for (name, part) in parts(kind) {
        match (name == outer, inner) {
            (false, _) => body.extend(part),
            (true, "") => body.extend(&case.bytes),
            // The slot, then the two other buckets unchanged.
            (true, _) => body.extend([&[2][..], &case.bytes, &[4, 6]].concat()),
        }
    }
    (schema, body)
}

fn expect(kind: RecordKind, cases: Vec<Case>) {
    let oracle = Oracle::new(kind);
    for case in cases {
        let (schema, body) = written(kind, &case);
        let path = format!("/{}", case.field.replace('.', "/"));
        let plan = Plan::compile(kind, &schema.to_string());
        let result = ours(kind, &plan, &body);
        let what = format!("{} as {} of {:02x?}", case.field, case.kind, case.bytes);
        match (&result, case.ours) {
            (Ok(leaves), Ok(expected)) => assert_eq!(leaves[&path], expected, "{what}"),
            (Err(error), Err(expected)) => assert_eq!(error, expected, "{what}"),
            (result, expected) => panic!("{what}: {result:?} where {expected:?} is expected"),
        }
        if case.library == NotCompared {
            continue;
        }
        let writer = Schema::parse_str(&without_decimals(&schema)).unwrap();
        let library = match (result, oracle.read(&writer, &body)) {
            (Ok(ours), Ok(theirs)) if ours == theirs => Same,
            (Err(_), Ok(_)) => Accepts,
            (Err(_), Err(_)) => Refuses,
            (ours, theirs) => panic!("{what}: we return {ours:?}, the library {theirs:?}"),
        };
        assert_eq!(library, case.library, "{what}");
    }
}

const ANOTHER_UNIT: &str = "`created_at`: a time of another unit where a time in microseconds is read";
const MILLIS: i64 = 1_700_000_000_000;

/// A fixed bug: the times of a writer, seconds in an int, were read as times in 1970, and its units were
/// counted.
#[test]
fn a_time_is_accepted_in_microseconds_and_refused_in_any_other_unit() {
    let case = |kind, bytes, ours, library| Case { field: "created_at", kind, bytes, ours, library };
    let micros = "1700000000000000";
    let not_micros = "`created_at`: seconds or milliseconds, where a long without logicalType counts microseconds, \
                      at byte 72";
    expect(
        RecordKind::Conversion,
        vec![
            case(logical("long", "timestamp-micros"), number(MILLIS * 1_000), Ok(micros), Same),
            // A declared unit is trusted.
            case(logical("long", "timestamp-micros"), number(1_700_000_000), Ok("1700000000"), Same),
            case(json!("long"), number(MILLIS * 1_000), Ok(micros), Same),
            case(json!("long"), number(9_214_646_400_000), Ok("9214646400000"), Same),
            case(json!("long"), number(9_214_646_399_999), Err(not_micros), Accepts),
            case(json!("long"), number(MILLIS), Err(not_micros), Accepts),
            case(json!("long"), number(1_700_000_000), Err(not_micros), Accepts),
            // A writer's own name of a unit is not a logical type.
            case(logical("long", "unix-millis"), number(MILLIS), Err(not_micros), Accepts),
            case(
                json!("long"),
                number(MILLIS * 1_000_000),
                Err("`created_at`: not a time in 1970 to 2261, at byte 72"),
                Accepts,
            ),
            case(
                json!("int"),
                number(1_700_000_000),
                Err(
                    "`created_at`: an int where a time in microseconds is read; an int of microseconds ends in \
                     the first hour of 1970: write a long with the logicalType timestamp-micros",
                ),
                Accepts,
            ),
            // This logical type belongs to a long, and has no meaning for an int.
            case(
                logical("int", "timestamp-micros"),
                number(1_700_000_000),
                Err(
                    "`created_at`: an int where a time in microseconds is read; an int of microseconds ends in \
                     the first hour of 1970: write a long with the logicalType timestamp-micros",
                ),
                Accepts,
            ),
            case(
                json!(["null", "int"]),
                [number(1), number(1_700_000_000)].concat(),
                Err(
                    "`created_at`: an int where a time in microseconds is read; an int of microseconds ends in \
                     the first hour of 1970: write a long with the logicalType timestamp-micros",
                ),
                Accepts,
            ),
            case(
                json!(["int", "long"]),
                [number(0), number(1_700_000_000)].concat(),
                Err("`created_at`: a branch of the writer's union that our schema does not have, at byte 73"),
                Accepts,
            ),
            case(json!(["int", "long"]), [number(1), number(MILLIS * 1_000)].concat(), Ok(micros), Same),
            case(logical("int", "date"), number(19_675), Err(ANOTHER_UNIT), Refuses),
            case(logical("int", "time-millis"), number(1), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "time-micros"), number(1), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "timestamp-millis"), number(MILLIS), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "timestamp-nanos"), number(MILLIS), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "local-timestamp-millis"), number(MILLIS), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "local-timestamp-micros"), number(MILLIS), Err(ANOTHER_UNIT), Refuses),
            case(logical("long", "local-timestamp-nanos"), number(MILLIS), Err(ANOTHER_UNIT), Refuses),
            case(
                json!("float"),
                vec![0; 4],
                Err("`created_at`: a float where a time in microseconds is read"),
                Refuses,
            ),
            case(
                json!("double"),
                vec![0; 8],
                Err("`created_at`: a double where a time in microseconds is read"),
                Refuses,
            ),
            case(
                json!("string"),
                bytes(b"2026-01-01T00:00:00Z"),
                Err("`created_at`: a string where a time in microseconds is read"),
                Refuses,
            ),
        ],
    );
}

const NO_SUCH_BRANCH: &str =
    "`buckets`: a branch of the writer's union that our schema does not have, at byte 59";

#[test]
fn a_count_is_accepted_if_it_is_the_same_count() {
    let case = |field, kind, bytes, ours, library| Case { field, kind, bytes, ours, library };
    let (phase, version, slot) = ("phase", "definition_version", "buckets.slot");
    let configuration = "configuration_version";
    expect(
        RecordKind::Exposure,
        vec![
            case(phase, json!("int"), number(3), Ok("3"), Same),
            case(phase, logical("int", "my-count"), number(3), Ok("3"), Same),
            case(phase, json!("long"), number(3), Err("`phase`: a long where an int is read"), Accepts),
            case(
                phase,
                logical("int", "date"),
                number(3),
                Err("`phase`: a time of another unit where an int is read"),
                Refuses,
            ),
            case(phase, json!("float"), vec![0; 4], Err("`phase`: a float where an int is read"), Refuses),
            case(version, json!("long"), number(1 << 40), Ok("1099511627776"), Same),
            case(version, json!("int"), number(77), Ok("77"), Same),
            case(
                version,
                logical("long", "timestamp-micros"),
                number(MILLIS),
                Err("`definition_version`: a time in microseconds where a long is read"),
                Refuses,
            ),
            case(
                version,
                logical("long", "timestamp-millis"),
                number(MILLIS),
                Err("`definition_version`: a time of another unit where a long is read"),
                Refuses,
            ),
            case(
                version,
                json!("double"),
                vec![0; 8],
                Err("`definition_version`: a double where a long is read"),
                Refuses,
            ),
            case(configuration, json!("long"), number(1 << 40), Ok("1099511627776"), Same),
            case(configuration, json!("int"), number(77), Ok("77"), Same),
            case(
                configuration,
                json!("double"),
                vec![0; 8],
                Err("`configuration_version`: a double where a long is read"),
                Refuses,
            ),
            case(slot, json!("int"), number(999_999), Ok("999999"), Same),
            // The record of the buckets is one of two branches, and is incompatible as a whole.
            case(slot, json!("long"), number(3), Err(NO_SUCH_BRANCH), Accepts),
            case(slot, json!("double"), vec![0; 8], Err(NO_SUCH_BRANCH), Refuses),
        ],
    );
}

#[test]
fn a_value_is_accepted_only_at_its_own_scale() {
    let case = |kind, bytes, ours, library| Case { field: "value", kind, bytes, ours, library };
    let amount = || bytes(&12_500_000_i32.to_be_bytes());
    let refused = |what: &'static str| Err(what);
    expect(
        RecordKind::Conversion,
        vec![
            case(decimal(18, 6), amount(), Ok("12500000"), NotCompared),
            case(decimal(38, 6), amount(), Ok("12500000"), NotCompared),
            case(
                decimal(38, 6),
                bytes(&1_000_000_000_000_000_000_i128.to_be_bytes()),
                refused("`value`: more than 18 digits, at byte 56"),
                NotCompared,
            ),
            case(json!("bytes"), amount(), Ok("12500000"), Same),
            case(
                decimal(18, 2),
                amount(),
                refused("`value`: a decimal of scale 2 where a decimal of scale 6 is read"),
                NotCompared,
            ),
            case(
                json!({"type": "bytes", "logicalType": "decimal", "precision": 18}),
                amount(),
                refused("`value`: a decimal of scale 0 where a decimal of scale 6 is read"),
                NotCompared,
            ),
            case(
                decimal(18, 7),
                amount(),
                refused("`value`: a decimal of scale 7 where a decimal of scale 6 is read"),
                NotCompared,
            ),
            // The bytes of a big decimal are a length, a number, and a scale.
            case(
                logical("bytes", "big-decimal"),
                amount(),
                refused("`value`: a decimal with a scale in each value where a decimal of scale 6 is read"),
                NotCompared,
            ),
            case(
                json!({"type": "fixed", "name": "Money", "size": 4, "logicalType": "decimal", "precision": 9,
                       "scale": 6}),
                12_500_000_i32.to_be_bytes().to_vec(),
                refused("`value`: 4 fixed bytes where a decimal of scale 6 is read"),
                NotCompared,
            ),
            case(
                json!("int"),
                number(12),
                refused("`value`: an int where a decimal of scale 6 is read"),
                Refuses,
            ),
            case(
                json!("long"),
                number(12),
                refused("`value`: a long where a decimal of scale 6 is read"),
                Refuses,
            ),
            case(
                json!("float"),
                vec![0; 4],
                refused("`value`: a float where a decimal of scale 6 is read"),
                Refuses,
            ),
            case(
                json!("double"),
                vec![0; 8],
                refused("`value`: a double where a decimal of scale 6 is read"),
                Refuses,
            ),
            case(
                json!("string"),
                bytes(b"12.5"),
                refused("`value`: a string where a decimal of scale 6 is read"),
                Accepts,
            ),
        ],
    );
}

#[test]
fn an_id_and_a_text_are_accepted_as_the_text_that_they_are() {
    let case = |field, kind, bytes, ours, library| Case { field, kind, bytes, ours, library };
    let fixed = json!({"type": "fixed", "name": "Id", "size": 2});
    expect(
        RecordKind::Conversion,
        vec![
            case("event_id", json!("string"), bytes(ID.as_bytes()), Ok(ID), Same),
            case(
                "event_id",
                json!("string"),
                bytes(b"order 17"),
                Err("`event_id`: not a UUID, at byte 14"),
                Refuses,
            ),
            case(
                "event_id",
                json!("bytes"),
                bytes(&[7; 16]),
                Err("`event_id`: bytes where a UUID is read"),
                Refuses,
            ),
            case(
                "event_id",
                json!({"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}),
                vec![7; 16],
                Err("`event_id`: 16 fixed bytes where a UUID is read"),
                Accepts,
            ),
            case("unit_id", json!("bytes"), bytes("ü".as_bytes()), Ok("ü"), Same),
            case("unit_id", json!("bytes"), bytes(&[0xFF]), Err("`unit_id`: not UTF-8, at byte 51"), Refuses),
            case(
                "unit_id",
                decimal(9, 0),
                bytes(b"17"),
                Err("`unit_id`: a decimal of scale 0 where a string is read"),
                NotCompared,
            ),
            case(
                "unit_id",
                logical("bytes", "big-decimal"),
                bytes(b"17"),
                Err("`unit_id`: a decimal with a scale in each value where a string is read"),
                NotCompared,
            ),
            case(
                "unit_id",
                fixed,
                b"17".to_vec(),
                Err("`unit_id`: 2 fixed bytes where a string is read"),
                Accepts,
            ),
            case(
                "unit_id",
                json!("long"),
                number(17),
                Err("`unit_id`: a long where a string is read"),
                Refuses,
            ),
        ],
    );
}

/// A reason that we do not know is refused, whatever its type; the library accepts any text.
#[test]
fn a_reason_is_accepted_if_it_is_one_that_we_know() {
    let case = |kind, bytes, ours, library| Case { field: "reason", kind, bytes, ours, library };
    let symbols = json!({"type": "enum", "name": "Why", "symbols": ["split", "forced"]});
    expect(
        RecordKind::Exposure,
        vec![
            case(json!("string"), bytes(b"held_out"), Ok("held_out"), Same),
            case(json!("bytes"), bytes(b"split"), Ok("split"), Same),
            case(
                json!("string"),
                bytes(b"drawn"),
                Err("exposed for the unknown reason `drawn`; known are split, forced, held_out"),
                Accepts,
            ),
            case(
                json!("string"),
                bytes(b""),
                Err("exposed for the unknown reason ``; known are split, forced, held_out"),
                Accepts,
            ),
            case(symbols, number(1), Err("`reason`: an enum where a string is read"), Refuses),
        ],
    );
}
