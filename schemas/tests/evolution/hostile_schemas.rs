//! Schemas made to do harm, of the maximum size. Each is compiled or refused with a reason, quickly and on a
//! small stack; none ends the process.

use schemas::avro::{Plan, RecordKind, SCHEMA_BYTES_MAX};
use serde_json::{Value, json};

/// Half the stack of the consumer's threads.
const STACK_BYTES: usize = 1 << 20;

/// Compiles our alias schema with one more field on a small stack; `named` are the texts of the types that it
/// names. Returns `fits` or the error.
fn compile_result(more: Value, named: &[Value]) -> String {
    let mut schema: Value = serde_json::from_str(RecordKind::Alias.schema()).unwrap();
    schema["fields"].as_array_mut().unwrap().push(more);
    let (text, named) = (schema.to_string(), named.iter().map(Value::to_string).collect::<Vec<_>>());
    let bytes = named.iter().map(String::len).fold(text.len(), |sum, bytes| sum + bytes);
    assert!(bytes <= SCHEMA_BYTES_MAX, "{bytes} bytes");
    let compile = move || Plan::compile_with(RecordKind::Alias, &text, &named).err();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(compile).unwrap();
    thread.join().unwrap().map_or_else(|| "fits".to_owned(), |error| error.to_string())
}

fn field(name: &str, kind: impl Into<Value>) -> Value {
    json!({"name": name, "type": kind.into()})
}

fn record(name: &str, fields: Vec<Value>) -> Value {
    json!({"type": "record", "name": name, "fields": fields})
}

/// The library makes a copy of a type for each of its aliases: for this one, more than a gigabyte for a
/// thousand aliases.
#[test]
fn many_aliases_of_a_wide_type() {
    let mut wide = record("Wide", (0..3_500).map(|at| field(&format!("f{at}"), "int")).collect());
    wide["aliases"] = (0..12_000).map(|at| Value::from(format!("a{at}"))).collect();
    assert_eq!(compile_result(field("more", wide), &[]), "fits");
}

/// The library copies a type for each type around it.
#[test]
fn a_wide_type_within_many() {
    let wide = record("Wide", (0..6_000).map(|at| field(&format!("f{at}"), "int")).collect());
    let within = (0..36).fold(wide, |inner, at| record(&format!("T{at}"), vec![field("a", inner)]));
    assert_eq!(compile_result(field("more", within), &[]), "fits");
}

#[test]
fn a_large_enumeration() {
    let symbols: Vec<Value> = (0..25_000).map(|at| format!("S{at}").into()).collect();
    assert_eq!(
        compile_result(field("more", json!({"type": "enum", "name": "E", "symbols": symbols})), &[]),
        "fits"
    );
    let named: Vec<Value> = (0..4_000).map(|at| record(&format!("T{at}"), Vec::new())).collect();
    assert_eq!(
        compile_result(field("more", Value::Array(named)), &[]),
        "not a schema: a union of 4000 branches"
    );
}

/// The maximum depth of JSON, and one level more.
#[test]
fn types_as_deep_as_a_text_may_be() {
    let nested =
        |depth: usize| (0..depth).fold(json!("int"), |inner, _| json!({"type": "array", "items": inner}));
    assert_eq!(compile_result(field("more", nested(124)), &[]), "fits");
    assert!(compile_result(field("more", nested(125)), &[]).contains("recursion limit exceeded"));
}

/// Every text names the next one from the maximum depth. Code that follows the names recursively goes seven
/// thousand levels deep.
#[test]
fn deep_texts_that_name_each_other() {
    let mut texts = vec![record("T0", Vec::new())];
    for at in 1..64 {
        let inner =
            (0..110).fold(json!(format!("T{}", at - 1)), |inner, _| json!({"type": "map", "values": inner}));
        texts.push(record(&format!("T{at}"), vec![field("a", inner)]));
    }
    assert_eq!(compile_result(field("more", "T63"), &texts), "fits");
    texts.reverse();
    assert_eq!(compile_result(field("more", "T63"), &texts), "not a schema: Unknown primitive type: T62");
}

#[test]
fn recursive_types() {
    let endless = record("A", vec![field("a", "A")]);
    assert_eq!(compile_result(field("more", endless), &[]), "fits");
    let two =
        record("A", vec![field("b", record("B", vec![field("a", "A"), field("b", json!(["null", "B"]))]))]);
    assert_eq!(compile_result(field("more", two), &[]), "fits");
    // Two texts that need each other: neither can be the first.
    let texts = [record("A", vec![field("b", "B")]), record("B", vec![field("a", "A")])];
    assert_eq!(compile_result(field("more", "A"), &texts), "not a schema: Unknown primitive type: B");
}

/// For a default that does not fit, the library writes the type into its error, and follows its names
/// recursively.
#[test]
fn a_default_that_does_not_fit_a_chain_of_types() {
    let mut chain = vec![record("T0", Vec::new())];
    chain.extend((1..3_500).map(|at| record(&format!("T{at}"), vec![field("a", format!("T{}", at - 1))])));
    let mut more = field("more", "T3499");
    more["default"] = json!(7);
    assert_eq!(compile_result(more, &[Value::Array(chain)]), "fits");
}
