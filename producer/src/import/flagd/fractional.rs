//! The operator `fractional` of flagd: units are hashed by a value, and weighted buckets name variants.

use serde_json::{Value, json};

use super::expression::{Expressions, Operand};
use super::tree::{Bucket, Bucketing, Tree};
use crate::import::attribute::TARGETING_KEY;
use crate::import::finding::Inexpressible;

/// Reads the arguments: the value that is hashed, if it is given, and the buckets.
pub fn read(expressions: Expressions<'_>, arguments: &[Value], path: &str) -> Result<Tree, Inexpressible> {
    let lost = |what: &str| Inexpressible::new(path, what, "");
    let (bucketing, buckets) = match arguments {
        [Value::Array(_), ..] => (Bucketing { unit: TARGETING_KEY.to_owned(), seed: None }, arguments),
        [by, buckets @ ..] => (bucketing(expressions, by, &format!("{path}[0]"))?, buckets),
        [] => return Ok(Tree::Value(Value::Null)),
    };
    let offset = arguments.len() - buckets.len();
    let mut read = Vec::new();
    for (index, bucket) in buckets.iter().enumerate() {
        let path = format!("{path}[{}]", index + offset);
        let Value::Array(parts) = bucket else { return Err(lost("a bucket is no list")) };
        let Some(name) = parts.first() else { return Err(lost("a bucket is empty")) };
        let name = expressions.tree(name, &format!("{path}[0]"))?;
        let weight = match parts.get(1) {
            None | Some(Value::Null) => Tree::Value(json!(1)),
            Some(weight) => expressions.tree(weight, &format!("{path}[1]"))?,
        };
        read.push(Bucket { name, weight });
    }
    Ok(Tree::Split(bucketing, read))
}

/// Reads the value that is hashed: an attribute, or one joined with texts that set flags apart or together.
fn bucketing(expressions: Expressions<'_>, by: &Value, path: &str) -> Result<Bucketing, Inexpressible> {
    let parts = match by.as_object().and_then(|fields| fields.get("cat")) {
        Some(Value::Array(parts)) => parts.as_slice(),
        Some(part) => std::slice::from_ref(part),
        None => std::slice::from_ref(by),
    };
    let names_the_flag = parts.iter().any(|part| {
        let name = part.get("var").map(|var| var.get(0).unwrap_or(var));
        name.and_then(Value::as_str) == Some("$flagd.flagKey")
    });
    let (mut unit, mut seed) = (None, String::new());
    for part in parts {
        match expressions.operand(part, path)? {
            Operand::Value(Value::String(text)) => seed.push_str(&text),
            Operand::Attribute(attribute) if unit.is_none() && attribute.case.is_none() => {
                unit = Some(attribute.path);
            }
            _ => {
                return Err(Inexpressible::new(path, "hashes something else than one attribute", ""));
            }
        }
    }
    match unit {
        Some(unit) => Ok(Bucketing { unit, seed: (!names_the_flag).then_some(seed) }),
        None => Err(Inexpressible::new(path, "hashes the same value for every unit", "")),
    }
}
