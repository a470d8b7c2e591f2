//! The hash of a context in which equal contexts have equal bytes: the order of names does not matter, and a number is its
//! value, so that 1 and 1.0, which evaluate the same, hash the same.

use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_128;

use super::request::{Attribute, SentContext};

/// 2^64: doubles below it are whole numbers that an integer can hold.
const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;

/// Returns the hash of everything in the context that an evaluation may look at.
pub fn hash(context: &SentContext<'_>) -> u128 {
    let mut out = Vec::with_capacity(256);
    match &context.targeting_key {
        Some(key) => write_text(&mut out, b'k', key),
        None => out.push(b'-'),
    }
    let mut attributes: Vec<_> = context.attributes.iter().collect();
    attributes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    for (name, value) in attributes {
        write_text(&mut out, b'a', name);
        match value {
            Attribute::Boolean(value) => write_boolean(&mut out, *value),
            Attribute::Integer(value) => write_integer(&mut out, (*value).into()),
            Attribute::Number(value) => write_double(&mut out, *value),
            Attribute::Text(text) => write_text(&mut out, b't', text),
            Attribute::Json(json) => write_json(&mut out, json),
        }
    }
    xxh3_128(&out)
}

/// A text with its length, so that no two sequences of texts have the same bytes.
fn write_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_boolean(out: &mut Vec<u8>, value: bool) {
    out.extend([b'b', value.into()]);
}

fn write_integer(out: &mut Vec<u8>, value: i128) {
    out.push(b'i');
    out.extend(value.to_le_bytes());
}

fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < TWO_TO_THE_64 {
        return write_integer(out, value as i128);
    }
    out.push(b'd');
    out.extend(value.to_le_bytes());
}

fn write_json(out: &mut Vec<u8>, json: &Json) {
    match json {
        Json::Null => out.push(b'n'),
        Json::Bool(value) => write_boolean(out, *value),
        Json::Number(number) => {
            let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            match integer {
                Some(integer) => write_integer(out, integer),
                None => {
                    write_double(out, number.as_f64().expect("a number of JSON is an integer or a double"))
                }
            }
        }
        Json::String(text) => write_text(out, b't', text),
        Json::Array(items) => {
            out.push(b'[');
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write_json(out, item));
        }
        Json::Object(fields) => {
            out.push(b'{');
            out.extend((fields.len() as u64).to_le_bytes());
            // Not left to the map, whose order is a feature of the JSON library.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                write_text(out, b'a', name);
                write_json(out, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ofrep::request::read;

    fn of(context: &str) -> u128 {
        hash(&read(format!(r#"{{"context": {context}}}"#).as_bytes()).unwrap())
    }

    #[test]
    fn what_evaluates_the_same_hashes_the_same() {
        for (left, right) in [
            (r#"{"a": 1, "b": "x"}"#, r#"{"b": "x", "a": 1}"#),
            (r#"{"a": 1}"#, r#"{"a": 1.0}"#),
            (r#"{"a": 0}"#, r#"{"a": -0.0}"#),
            (r#"{"a": [1, {"p": 2, "q": 3}]}"#, r#"{"a": [1.0, {"q": 3.0, "p": 2}]}"#),
            (r#"{"targetingKey": "u", "a": true}"#, r#"{"a": true, "targetingKey": "u"}"#),
            (r#"{"targetingKey": ""}"#, "{}"),
            (r#"{"a": "\u0041"}"#, r#"{"a": "A"}"#),
        ] {
            assert_eq!(of(left), of(right), "{left} {right}");
        }
    }

    #[test]
    fn what_may_evaluate_otherwise_hashes_otherwise() {
        let contexts = [
            "{}",
            r#"{"targetingKey": "u"}"#,
            r#"{"targetingKey": "v"}"#,
            r#"{"a": "u"}"#,
            r#"{"a": 1}"#,
            r#"{"a": "1"}"#,
            r#"{"a": true}"#,
            r#"{"a": null}"#,
            r#"{"a": [1]}"#,
            r#"{"a": [[1]]}"#,
            r#"{"a": {"b": 1}}"#,
            r#"{"a.b": 1}"#,
            r#"{"a": 1.5}"#,
            r#"{"a": 9007199254740992}"#,
            r#"{"a": 9007199254740993}"#,
            r#"{"a": 18446744073709551615}"#,
            r#"{"a": "x", "b": "y"}"#,
            r#"{"a": "xb", "y": ""}"#,
        ];
        let hashes: std::collections::BTreeSet<u128> = contexts.iter().map(|context| of(context)).collect();
        assert_eq!(hashes.len(), contexts.len());
    }
}
