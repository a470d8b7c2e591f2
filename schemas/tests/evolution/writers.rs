//! Schemas of other writers, made from ours: with fields in another order, without some, with others of any
//! type, and with types that can be read as ours or cannot.
//!
//! Three groups are left out and have their own tests: what the library accepts and the specification does
//! not (a long for an int, fixed bytes for a text, a map for a record, a record of another name), the reverse
//! (a UUID for a plain text), and what both accept and we do not, because the number would mean something
//! else (an int for a time).

use serde_json::{Value, json};

use super::random::Random;

/// The type of units, for a schema without the field that declared it.
const UNIT: &str = r#"{"type": "record", "name": "Unit", "fields": [
    {"name": "unit_type", "type": "string"}, {"name": "unit_id", "type": "string"}]}"#;

pub fn writer(ours: &str, random: &mut Random) -> Value {
    let mut schema: Value = serde_json::from_str(ours).unwrap();
    let mut names = 0;
    // Some schemas stay close to ours, so that many can be read.
    let calm = *random.pick(&[4, 12, 40]);
    change_record(&mut schema, calm, random, &mut names);
    let declared = schema.to_string().contains(r#""name":"Unit""#);
    for field in schema["fields"].as_array_mut().unwrap() {
        if field["type"] == "Unit" && !declared {
            field["type"] = serde_json::from_str(UNIT).unwrap();
        }
    }
    schema
}

fn change_record(record: &mut Value, calm: usize, random: &mut Random, names: &mut usize) {
    let mut fields = Vec::new();
    for field in record["fields"].as_array().unwrap() {
        let has_default = field.get("default").is_some();
        if random.one_in(if has_default { calm } else { calm * 8 }) {
            continue;
        }
        let mut field = field.clone();
        if random.one_in(calm * 16) {
            field["name"] = json!(format!("was_{}", field["name"].as_str().unwrap()));
        }
        field.as_object_mut().unwrap().remove("default");
        let kind = field["type"].take();
        field["type"] = change_type(kind, calm, random, names);
        fields.push(field);
    }
    while random.one_in(3) {
        *names += 1;
        fields.push(json!({"name": format!("added_{names}"), "type": any_type(3, random, names)}));
    }
    // The second unit of an alias names the type that the first one declares, so the order must stay.
    if record["name"] != "Alias" && random.one_in(2) {
        random.shuffle(&mut fields);
    }
    record["fields"] = json!(fields);
}

fn change_type(kind: Value, calm: usize, random: &mut Random, names: &mut usize) -> Value {
    let name = kind.as_str().or_else(|| kind["logicalType"].as_str()).or_else(|| kind["type"].as_str());
    match name {
        Some("record") => {
            let mut record = kind;
            change_record(&mut record, calm, random, names);
            if random.one_in(calm) {
                return json!(["null", record]);
            }
            if random.one_in(calm * 8) { json!("string") } else { record }
        }
        Some("string") if random.one_in(calm) => one_of(
            &[
                "bytes",
                r#"["null", "string"]"#,
                r#"["bytes", "null", "int"]"#,
                r#"{"type": "string", "x": 1}"#,
            ],
            &["int", "boolean", "double", "null", r#"{"type": "array", "items": "string"}"#],
            random,
        ),
        Some("uuid") if random.one_in(calm) => {
            one_of(&["string", r#"["string", "null"]"#], &["bytes", "long", "null"], random)
        }
        Some("map") if random.one_in(calm) => one_of(
            &[
                r#"{"type": "map", "values": "bytes"}"#,
                r#"{"type": "map", "values": ["null", "string"]}"#,
                r#"["null", {"type": "map", "values": "string"}]"#,
            ],
            &[r#"{"type": "map", "values": "int"}"#, r#"{"type": "array", "items": "string"}"#, "string"],
            random,
        ),
        Some("int") if random.one_in(calm) => one_of(
            &[r#"["null", "int"]"#, r#"["string", "int"]"#],
            &["string", "float", "boolean", r#"{"type": "int", "logicalType": "date"}"#],
            random,
        ),
        Some("long") if random.one_in(calm) => one_of(
            &["int", r#"["null", "long"]"#, r#"["int", "long"]"#],
            &["string", "double", r#"{"type": "long", "logicalType": "timestamp-millis"}"#],
            random,
        ),
        Some("timestamp-micros") if random.one_in(calm) => one_of(
            &["long", r#"["null", {"type": "long", "logicalType": "timestamp-micros"}]"#],
            &["string", r#"{"type": "long", "logicalType": "timestamp-millis"}"#],
            random,
        ),
        Some("decimal") if random.one_in(calm) => one_of(&["bytes"], &["int", "boolean"], random),
        Some(_) => kind,
        None => {
            let mut branches = kind.as_array().unwrap().clone();
            let value = branches[1].take();
            branches[1] = change_type(value, calm, random, names);
            let nested = branches[1].is_array();
            match random.below(calm) {
                _ if nested => branches[1].clone(),
                _ if branches[1] == "null" => json!("null"),
                0 => branches[1].clone(),
                1 => json!("null"),
                2 => json!([branches[1], "null"]),
                3 if branches[1] != "boolean" => json!(["boolean", "null", branches[1]]),
                _ => json!(branches),
            }
        }
    }
}

/// Returns a type, mostly one that can be read.
fn one_of(good: &[&str], bad: &[&str], random: &mut Random) -> Value {
    let text = if random.one_in(5) { random.pick(bad) } else { random.pick(good) };
    if text.starts_with(['{', '[']) { serde_json::from_str(text).unwrap() } else { json!(text) }
}

/// Returns any type, for a field that is skipped.
fn any_type(depth: usize, random: &mut Random, names: &mut usize) -> Value {
    *names += 1;
    let name = format!("Type{names}");
    let kinds = if depth == 0 { 12 } else { 17 };
    match random.below(kinds) {
        0 => json!("null"),
        1 => json!("boolean"),
        2 => json!("int"),
        3 => json!("long"),
        4 => json!("float"),
        5 => json!("double"),
        6 => json!("bytes"),
        7 => json!("string"),
        8 => json!({"type": "fixed", "name": name, "size": random.below(20)}),
        9 => json!({"type": "enum", "name": name, "symbols": ["A", "B", "C"]}),
        10 => json!({"type": "long", "logicalType": "timestamp-millis"}),
        11 => json!({"type": "record", "name": name, "fields": [
            {"name": "next", "type": ["null", name]}, {"name": "value", "type": "int"}]}),
        12 => json!({"type": "array", "items": any_type(depth - 1, random, names)}),
        13 => json!({"type": "map", "values": any_type(depth - 1, random, names)}),
        14 => {
            let mut branches = vec![json!("null"), json!("string"), json!("int")];
            let other = any_type(depth - 1, random, names);
            if other.is_object() && other["logicalType"].is_null() {
                branches.push(other);
            }
            random.shuffle(&mut branches);
            json!(branches)
        }
        _ => {
            let mut fields = Vec::new();
            for at in 0..random.below(4) {
                fields.push(json!({"name": format!("f{at}"), "type": any_type(depth - 1, random, names)}));
            }
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
}
