//! Schemas in several texts, as a registry keeps them: they are read like the same schema in one text, and
//! like the library reads them.

use schemas::avro::{Plan, RecordKind};
use serde_json::{Value, json};

use super::random::Random;
use super::values::Values;
use super::{KINDS, Oracle, ours, seeds, without_decimals, writers};

const NAMESPACE: &str = "splitstream.events";

/// Moves types of `schema` to texts of their own, each after those that it names: all types if `every`.
fn move_types(schema: &mut Value, random: &mut Random, every: bool, taken: &mut Vec<Value>) {
    match schema {
        Value::Array(branches) => {
            branches.iter_mut().for_each(|branch| move_types(branch, random, every, taken));
        }
        Value::Object(fields) => {
            let root = fields.contains_key("namespace");
            for part in ["type", "items", "values"] {
                if let Some(inner) = fields.get_mut(part) {
                    move_types(inner, random, every, taken);
                }
            }
            for field in fields.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                move_types(&mut field["type"], random, every, taken);
            }
            let Some(name) = fields.get("name").cloned() else { return };
            if root || !fields.contains_key("type") || !(every || random.one_in(2)) {
                return;
            }
            let mut declared = schema.take();
            declared["namespace"] = json!(NAMESPACE);
            *schema = json!(format!("{NAMESPACE}.{}", name.as_str().unwrap()));
            taken.push(declared);
        }
        _ => {}
    }
}

fn texts(schemas: &[Value]) -> Vec<String> {
    schemas.iter().map(Value::to_string).collect()
}

#[test]
fn a_schema_in_several_texts_is_read_as_in_one_and_as_the_library_reads_it() {
    let oracles = KINDS.map(Oracle::new);
    let (mut read, mut refused, mut in_several) = (0, 0, 0);
    for seed in seeds(1_000) {
        let random = &mut Random::new(seed);
        let at = random.below(KINDS.len());
        let whole = writers::writer(KINDS[at].schema(), random);
        let (mut uses, mut taken) = (whole.clone(), Vec::new());
        move_types(&mut uses, random, false, &mut taken);
        in_several += usize::from(!taken.is_empty());

        let plan = Plan::compile_with(KINDS[at], &uses.to_string(), &texts(&taken));
        let plan_of_one = Plan::compile(KINDS[at], &whole.to_string());
        let named: Vec<String> = taken.iter().map(without_decimals).collect();
        let (writer, declared) = apache_avro::Schema::parse_str_with_list(&without_decimals(&uses), &named)
            .unwrap_or_else(|error| {
                panic!("AVRO_SEED={seed}: {error}\n{uses}\n{named:?}");
            });
        let all: Vec<&apache_avro::Schema> = declared.iter().chain([&writer]).collect();
        for _ in 0..4 {
            let mut body = Vec::new();
            Values::new(&whole, random).write(&whole, "", &mut body);
            let result = ours(KINDS[at], &plan, &body);
            assert_eq!(result, ours(KINDS[at], &plan_of_one, &body), "AVRO_SEED={seed}\n{uses}");
            match (result, oracles[at].read_with(&writer, all.clone(), &body)) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(ours, theirs, "AVRO_SEED={seed}\n{uses}\n{body:02x?}");
                    read += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (ours, theirs) => {
                    panic!("AVRO_SEED={seed}: we say {ours:?}\nthe library {theirs:?}\n{uses}\n{body:02x?}")
                }
            }
        }
    }
    println!("{read} read by both, {refused} refused by both, {in_several} schemas in several texts");
    if std::env::var_os("AVRO_SEED").is_none() {
        assert!(read > 300 && refused > 300 && in_several > 300, "the cases are lopsided");
    }
}

#[test]
fn our_schema_with_its_types_in_other_texts_is_still_read_directly_from_the_message() {
    for kind in KINDS {
        let mut uses: Value = serde_json::from_str(kind.schema()).unwrap();
        let mut taken = Vec::new();
        move_types(&mut uses, &mut Random::new(0), true, &mut taken);
        let names: Vec<&str> = taken.iter().map(|declared| declared["name"].as_str().unwrap()).collect();
        let expected = match kind {
            RecordKind::Exposure => ["Buckets", "Sender"].as_slice(),
            RecordKind::Alias => &["Unit", "Sender"],
            _ => &["Sender"],
        };
        assert_eq!(names, expected, "{kind:?}");
        assert!(Plan::compile_with(kind, &uses.to_string(), &texts(&taken)).unwrap().is_exact(), "{kind:?}");
        // The library agrees that the text alone is not a schema.
        let alone = Plan::compile(kind, &uses.to_string()).err().unwrap().to_string();
        let expected = format!("not a schema: Unknown primitive type: splitstream.events.{}", expected[0]);
        assert_eq!(alone, expected);
        assert!(apache_avro::Schema::parse_str(&uses.to_string()).is_err());
    }
}

/// Each type has one field, of the type before it. Code that follows such a chain recursively overflows its
/// stack.
#[test]
fn a_chain_of_types_may_be_as_long_as_a_schema() {
    let mut chain = vec![json!({"type": "record", "name": "T0", "fields": []})];
    for at in 1..3_500 {
        chain.push(json!({"type": "record", "name": format!("T{at}"),
            "fields": [{"name": "a", "type": format!("T{}", at - 1)}]}));
    }
    let mut uses: Value = serde_json::from_str(RecordKind::Alias.schema()).unwrap();
    uses["fields"].as_array_mut().unwrap().push(json!({"name": "more", "type": "T3499"}));
    let named = [Value::Array(chain).to_string()];
    assert!(Plan::compile_with(RecordKind::Alias, &uses.to_string(), &named).is_ok());
}
