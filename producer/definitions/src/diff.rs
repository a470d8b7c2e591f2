//! Compares two versions of a definition field by field.

use std::collections::BTreeMap;
use std::fmt;

use schemas::definition::Definition;
use serde::Serialize;
use serde_json::Value;

/// A field whose value has changed. `None` means that the field was or is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The path of the field, for example `variants[1].weight`.
    pub field: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl fmt::Display for Changed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changed { field, before, after } = self;
        match (before, after) {
            (Some(before), Some(after)) => write!(formatter, "{field}: {before} -> {after}"),
            (None, Some(after)) => write!(formatter, "{field}: {after} (new)"),
            (Some(before), None) => write!(formatter, "{field}: {before} (gone)"),
            (None, None) => write!(formatter, "{field}"),
        }
    }
}

/// Returns the changed fields in the order of their paths; none if there is no version before.
pub fn diff(before: Option<&Definition>, after: &Definition) -> Vec<Changed> {
    let Some(before) = before else { return Vec::new() };
    let json = |definition: &Definition| {
        serde_json::from_str(&definition.to_json()).expect("a definition's JSON is JSON")
    };
    changes(json(before), json(after))
}

/// Returns the changed fields of any two documents, in the order of their paths.
pub fn changes(before: Value, after: Value) -> Vec<Changed> {
    let (mut before, after) = (leaves(before), leaves(after));
    let mut changed = Vec::new();
    for (field, after) in after {
        match before.remove(&field) {
            Some(before) if before == after => {}
            before => changed.push(Changed { field, before, after: Some(after) }),
        }
    }
    for (field, before) in before {
        changed.push(Changed { field, before: Some(before), after: None });
    }
    changed.sort_by(|left, right| left.field.cmp(&right.field));
    changed
}

fn leaves(value: Value) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    collect(String::new(), value, &mut leaves);
    leaves
}

/// Collects the leaves of objects and lists by path. A list of numbers, such as a range of buckets, is one
/// leaf.
fn collect(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let inner = if path.is_empty() { name } else { format!("{path}.{name}") };
                collect(inner, value, leaves);
            }
        }
        Value::Array(items) if !items.iter().all(Value::is_number) => {
            for (index, value) in items.into_iter().enumerate() {
                collect(format!("{path}[{index}]"), value, leaves);
            }
        }
        leaf => {
            leaves.insert(path, leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::definition::parse_file;

    use super::*;

    fn metric(text: &str) -> Definition {
        parse_file(text).unwrap().remove(0)
    }

    #[test]
    fn only_what_differs_is_listed() {
        let before = metric("{kind: metric, key: m, event: click, type: conversion, window_hours: 24}");
        let after =
            metric("{kind: metric, key: m, event: click, type: conversion, owner: ann, direction: decrease}");
        let shown: Vec<String> = diff(Some(&before), &after).iter().map(Changed::to_string).collect();
        assert_eq!(
            shown,
            [r#"direction: "increase" -> "decrease""#, r#"owner: "" -> "ann""#, "window_hours: 24 (gone)"]
        );
        assert_eq!(diff(Some(&before), &before), []);
        assert_eq!(diff(None, &before), []);
    }
}
