//! Documents with random changes: the JSON Schema and the parser agree about each, but for what no schema can express.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;

/// What a schema cannot express: relations between fields, the depth of conditions, the years that a time may
/// be in.
const BEYOND_THE_SCHEMA: [&str; 23] = [
    "is used twice",
    "is named twice",
    "is excluded twice",
    "is not one of the variants",
    "is no guardrail of the experiment",
    "the weights add up to",
    "its ranges hold",
    "overlap",
    "is not a range of buckets",
    "is not first <= last in 1 to 365",
    "nests deeper than 8",
    "is not after the start",
    "is not after the step before",
    "has the shares itself",
    "is not below the window of",
    "is for a stopped or archived experiment",
    "another system decides what an external experiment serves",
    "the experiment has no targeting",
    "the slot alone decides who is held out",
    "a holdout ",
    "is not a time such as",
    "is outside 1970 to 2261",
    // JSON Schema accepts 5.0 as an integer.
    "is not of the flag's value_type",
];

fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                places(value, &format!("{pointer}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Makes one change somewhere in the document: removes a value, duplicates it, or replaces it by another one,
/// perhaps from elsewhere in the document.
fn mutated(mut document: Value, (place, other, what): (Index, Index, usize)) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(0.5),
        json!(5000.0),
        json!(10_001),
        json!("50%"),
        json!("0.0%"),
        json!("100.00%"),
        json!("33.333%"),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("a"),
        json!("a b"),
        json!("running"),
        json!([]),
        json!(["a"]),
        json!([0, 1]),
        json!([1, 0]),
        json!({}),
        json!({"a": 1}),
        json!("-1.5"),
        json!("0.00"),
        json!("first"),
        json!({"metadata": "a", "exists": false}),
    ];
    let mut found = Vec::new();
    places(&document, "", &mut found);
    let (place, other) = (&found[place.index(found.len())], &found[other.index(found.len())]);
    let replacement = match what {
        0 | 1 => None,
        2 => document.pointer(other).cloned(),
        value => Some(values[value % values.len()].clone()),
    };
    if let Some(replacement) = replacement {
        *document.pointer_mut(place).unwrap() = replacement;
        return document;
    }
    let (parent, name) = place.rsplit_once('/').unwrap_or(("", ""));
    match (document.pointer_mut(parent), name.parse::<usize>()) {
        (Some(Value::Object(fields)), _) if what == 0 => {
            fields.remove(name);
        }
        (Some(Value::Object(fields)), _) => {
            fields.insert("extra".to_owned(), json!(1));
        }
        (Some(Value::Array(items)), Ok(index)) if what == 0 => {
            items.remove(index);
        }
        (Some(Value::Array(items)), Ok(index)) => items.push(items[index].clone()),
        // The whole document.
        _ => {}
    }
    document
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_schema_and_the_parser_agree_on_whatever_a_file_becomes(
        file in 0..FULL.len(),
        which in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<Index>(), 0..44_usize), 1..4),
    ) {
        thread_local! {
            static SCHEMA: Schema = Schema::new();
        }
        let mut document = match valid_json(&format!("{}.json", FULL[file])) {
            Value::Array(items) => which.get(&items).clone(),
            document => document,
        };
        for change in changes {
            document = mutated(document, change);
        }
        let by_schema = SCHEMA.with(|schema| schema.refusal(&document));
        match (parse(&document), by_schema) {
            (Ok(_), by_schema) => prop_assert_eq!(by_schema, None, "the parser takes {}", document),
            (Err(_), Some(_)) => {}
            (Err(errors), None) => {
                for error in messages(&errors) {
                    prop_assert!(
                        BEYOND_THE_SCHEMA.iter().any(|known| error.contains(known)),
                        "the schema takes {document}, the parser says {error}"
                    );
                }
            }
        }
    }
}
