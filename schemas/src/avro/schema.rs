//! A writer's schema as the Avro library parses it, out of one text or of several, as a registry keeps them: those
//! that declare types first, then the one that uses them. The texts come from strangers. What does not decide how
//! bytes are read is taken out before the library sees it: the library copies a type for each of its aliases,
//! overflows its stack over a default that does not fit (`tests/evolution/strangers.rs`), and logs or refuses
//! annotations that the specification ignores. What is read of the bytes is another file's question. Source: Apache Avro 1.12 specification, "Names".

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Name, UuidSchema};
use serde_json::{Map, Value, json};

use super::{Fingerprint, IncompatibleSchema};

/// Longest schema that is looked at, in bytes of all its texts. Ours have three thousand.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1_024;
/// How many characters of the library's reasons are kept: some of them quote the schema.
const WHAT_CHARS_MAX: usize = 300;
/// What a name means whatever a schema declares.
const BUILT_IN: [&str; 13] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum", "array", "map",
    "fixed",
];
/// The types that a logical type can annotate.
const ANNOTATED: [&str; 5] = ["int", "long", "bytes", "string", "fixed"];

/// The schema of a writer, with everything that it names.
pub struct Written {
    /// One record with a field for each text. The library's own functions for schemas in several texts follow names
    /// from text to text by calls in each other, which strangers' texts could drive to the end of the stack.
    texts: Schema,
}

impl Written {
    /// A schema whose text names types that `named` declare: each text may use what those before it declare.
    /// A type may be declared in several of the texts, as long as it is the same in all of them.
    pub fn parse(text: &str, named: &[String]) -> Result<Written, IncompatibleSchema> {
        let bytes = named.iter().map(String::len).fold(text.len(), usize::saturating_add);
        if bytes > SCHEMA_BYTES_MAX {
            return Err(not_a_schema(format!("{bytes} bytes, more than {SCHEMA_BYTES_MAX}")));
        }
        let mut kept = Kept::new(true);
        let mut fields = Vec::with_capacity(named.len() + 1);
        for text in named.iter().map(String::as_str).chain([text]) {
            let name = format!("text_{}", fields.len());
            fields.push(json!({"name": name, "type": kept.of_text(text)?}));
        }
        let texts = json!({"type": "record", "name": "__texts", "fields": fields});
        let texts = Schema::parse(&texts).map_err(|error| not_a_schema(error.to_string()))?;
        Ok(Written { texts })
    }

    /// The schema itself, and the types that are declared in any of its texts.
    pub fn resolve(&self) -> Result<(&Schema, Names<'_>), IncompatibleSchema> {
        let Schema::Record(record) = &self.texts else { unreachable!("the texts are parsed as a record") };
        let last = record.fields.last().expect("there is at least one text");
        Ok((&last.schema, Names::of(&self.texts)?))
    }
}

/// CRC-64-AVRO of a schema of ours, of its parsing canonical form.
pub fn fingerprint(text: &str) -> Fingerprint {
    // The library's canonical form keeps `{"type": "string"}` where a logical type stood (apache/avro-rs#61); the
    // specification's has `"string"`, since its rule PRIMITIVES comes before STRIP.
    let json = Kept::new(false).of_text(text).expect("our own schemas are schemas");
    let schema = Schema::parse(&json).expect("our own schemas are schemas");
    let bytes = schema.fingerprint::<Rabin>().bytes;
    Fingerprint(u64::from_le_bytes(bytes.try_into().expect("a CRC-64 has eight bytes")))
}

/// The types that a schema declares, by their full names.
pub struct Names<'s> {
    types: HashMap<&'s Name, &'s Schema>,
    /// Those whose values take no bytes at all.
    empty: HashSet<&'s Name>,
}

impl<'s> Names<'s> {
    pub fn of(schema: &'s Schema) -> Result<Names<'s>, IncompatibleSchema> {
        let mut names = Names { types: HashMap::new(), empty: HashSet::new() };
        names.collect(schema)?;
        Ok(names)
    }

    /// What a schema is, where it may be a name.
    pub fn resolve(&self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.types[name],
            declared => declared,
        }
    }

    /// Whether the values of a named type take no bytes at all. A record that contains itself would not end, and is
    /// not empty.
    pub fn is_empty(&self, name: &Name) -> bool {
        self.empty.contains(name)
    }

    /// Collects what `schema` declares, and says whether its values take no bytes. Names are not followed, so this
    /// goes as deep as the text does. A name stands behind or inside of its declaration: behind it the answer is
    /// known, and inside of it the answer is no.
    fn collect(&mut self, schema: &'s Schema) -> Result<bool, IncompatibleSchema> {
        if let Schema::Ref { name } = schema {
            return match self.types.contains_key(name) {
                true => Ok(self.empty.contains(name)),
                false => Err(not_a_schema(format!("the unknown type {:?}", name.fullname(None)))),
            };
        }
        if let Some(name) = schema.name()
            && let Some(first) = self.types.insert(name, schema)
            && first != schema
        {
            let name = name.fullname(None);
            return Err(not_a_schema(format!("two types with the name {name:?} that differ")));
        }
        let empty = match schema {
            Schema::Null => true,
            Schema::Array(array) => {
                self.collect(&array.items)?;
                false
            }
            Schema::Map(map) => {
                self.collect(&map.types)?;
                false
            }
            Schema::Union(union) => {
                for branch in union.variants() {
                    self.collect(branch)?;
                }
                false
            }
            Schema::Record(record) => {
                let mut empty = true;
                for field in &record.fields {
                    empty &= self.collect(&field.schema)?;
                }
                empty
            }
            other => fixed_size(other) == Some(0),
        };
        if empty {
            self.empty.extend(schema.name());
        }
        Ok(empty)
    }
}

/// How many bytes each value takes, where the type is a fixed one, whatever it stands for.
pub fn fixed_size(schema: &Schema) -> Option<usize> {
    match schema {
        Schema::Fixed(fixed)
        | Schema::Duration(fixed)
        | Schema::Uuid(UuidSchema::Fixed(fixed))
        | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => Some(fixed.size),
        _ => None,
    }
}

/// What is kept of schemas' JSON, text by text.
struct Kept {
    logical_types: bool,
    /// Full names of the types declared so far, and of those in this text.
    declared: HashSet<String>,
    in_this_text: HashSet<String>,
}

impl Kept {
    fn new(logical_types: bool) -> Kept {
        Kept { logical_types, declared: HashSet::new(), in_this_text: HashSet::new() }
    }

    fn of_text(&mut self, text: &str) -> Result<Value, IncompatibleSchema> {
        // serde_json refuses what is nested more than 128 deep, which bounds every recursion over a schema.
        let mut json = serde_json::from_str(text).map_err(|error| not_a_schema(error.to_string()))?;
        self.in_this_text.clear();
        self.keep(&mut json, "")?;
        Ok(json)
    }

    fn keep(&mut self, json: &mut Value, namespace: &str) -> Result<(), IncompatibleSchema> {
        match json {
            Value::String(name) => self.settle(name, namespace),
            Value::Array(branches) => {
                for branch in branches {
                    self.keep(branch, namespace)?;
                }
            }
            Value::Object(parts) => self.keep_parts(parts, namespace)?,
            // The library refuses it.
            _ => {}
        }
        Ok(())
    }

    fn keep_parts(
        &mut self,
        parts: &mut Map<String, Value>,
        namespace: &str,
    ) -> Result<(), IncompatibleSchema> {
        let kind = parts.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let annotated = self.logical_types && ANNOTATED.contains(&kind.as_str());
        parts.retain(|part, value| match part.as_str() {
            "type" | "name" | "namespace" | "fields" | "items" | "values" | "symbols" | "size" => true,
            "logicalType" => annotated && value.is_string(),
            "scale" => annotated,
            _ => false,
        });
        match kind.as_str() {
            "array" | "map" => {
                for part in ["items", "values"] {
                    if let Some(inner) = parts.get_mut(part) {
                        self.keep(inner, namespace)?;
                    }
                }
            }
            "record" => {
                let namespace = self.declare(parts, namespace)?;
                for field in parts.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                    // The library would pass over one that is none.
                    let field =
                        field.as_object_mut().ok_or_else(|| not_a_schema("a field that is no object"))?;
                    field.retain(|part, _| matches!(part.as_str(), "name" | "type"));
                    if let Some(inner) = field.get_mut("type") {
                        self.keep(inner, &namespace)?;
                    }
                }
            }
            "enum" => drop(self.declare(parts, namespace)?),
            "fixed" => {
                self.declare(parts, namespace)?;
                scaled(parts);
            }
            _ => {
                if let Some(inner) = parts.get_mut("type") {
                    self.keep(inner, namespace)?;
                }
                scaled(parts);
            }
        }
        Ok(())
    }

    /// Notes a type's name, and says in which namespace the names inside of it stand.
    fn declare(&mut self, parts: &Map<String, Value>, namespace: &str) -> Result<String, IncompatibleSchema> {
        let name = parts.get("name").and_then(Value::as_str).unwrap_or_default();
        let namespace = parts.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let name = full_name(name, namespace);
        if !self.in_this_text.insert(name.clone()) {
            return Err(not_a_schema(format!("two types with the name {name:?}")));
        }
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        self.declared.insert(name);
        Ok(namespace)
    }

    /// A name without a namespace means the type of the namespace around it or, where there is none, the type without
    /// a namespace. Java's writers, whose schemas a registry has, rely on the latter; the library does not know it
    /// and is given the dot that says so.
    fn settle(&self, name: &mut String, namespace: &str) {
        let known = |name: &str| self.declared.contains(name);
        if !BUILT_IN.contains(&name.as_str()) && !known(&full_name(name, namespace)) && known(name) {
            name.insert(0, '.');
        }
    }
}

/// The library takes a decimal whose precision is missing or less than its scale for plain bytes. Its bytes would
/// then be taken as millionths, whatever scale its writer meant. A reader of decimals needs no precision, so each
/// gets one that is allowed.
fn scaled(parts: &mut Map<String, Value>) {
    let decimal = parts.get("logicalType").is_some_and(|logical| logical == "decimal");
    let scale = parts.remove("scale").and_then(|scale| scale.as_u64()).unwrap_or(0);
    if decimal {
        parts.insert("scale".to_owned(), scale.into());
        parts.insert("precision".to_owned(), scale.max(1).into());
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    match (name.strip_prefix('.'), name.contains('.') || namespace.is_empty()) {
        (Some(name), _) => name.to_owned(),
        (None, true) => name.to_owned(),
        (None, false) => format!("{namespace}.{name}"),
    }
}

fn not_a_schema(what: impl Into<String>) -> IncompatibleSchema {
    let mut what: String = what.into();
    if let Some((end, _)) = what.char_indices().nth(WHAT_CHARS_MAX) {
        what.truncate(end);
    }
    IncompatibleSchema::NotASchema { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, named: &[String]) -> String {
        let refused = Written::parse(text, named).and_then(|written| written.resolve().map(|_| ()));
        refused.unwrap_err().to_string()
    }

    fn fields<'s>(schema: &'s Schema, names: &Names<'s>) -> Vec<&'s Schema> {
        let Schema::Record(record) = names.resolve(schema) else { panic!("not a record") };
        record.fields.iter().map(|field| names.resolve(&field.schema)).collect()
    }

    fn name(schema: &Schema) -> String {
        schema.name().expect("a named type").fullname(None)
    }

    #[test]
    fn a_name_means_the_type_of_its_namespace() {
        let text = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "b", "type": {"type": "fixed", "name": "B", "size": 3}},
            {"name": "same", "type": "B"}, {"name": "full", "type": "x.B"}, {"name": "self", "type": ["null", "A"]}]}"#;
        let written = Written::parse(text, &[]).unwrap();
        let (root, names) = written.resolve().unwrap();
        assert_eq!(name(root), "x.A");
        let fields = fields(root, &names);
        assert_eq!([name(fields[0]), name(fields[1]), name(fields[2])], ["x.B", "x.B", "x.B"]);
        let Schema::Union(union) = fields[3] else { panic!("not a union") };
        assert_eq!(name(names.resolve(&union.variants()[1])), "x.A");
    }

    /// As Java's parser has it.
    #[test]
    fn a_name_that_its_namespace_does_not_have_means_the_type_without_one() {
        let outside =
            r#"[{"type": "fixed", "name": "B", "size": 3}, {"type": "fixed", "name": "C", "size": 4}]"#;
        let uses = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "c", "type": {"type": "fixed", "name": "C", "size": 5}},
            {"name": "b", "type": "B"}, {"name": "near", "type": {"type": "C"}}]}"#;
        let written = Written::parse(uses, &[outside.to_owned()]).unwrap();
        let (root, names) = written.resolve().unwrap();
        let fields: Vec<String> = fields(root, &names).into_iter().map(name).collect();
        assert_eq!(fields, ["x.C", "B", "x.C"]);
    }

    const SENDER: &str = r#"{"type": "record", "name": "Sender", "namespace": "x",
        "fields": [{"name": "service", "type": "string"}]}"#;

    #[test]
    fn a_text_may_name_the_types_of_other_texts() {
        let hop = r#"{"type": "record", "name": "Hop", "namespace": "x", "fields": [{"name": "by", "type": "Sender"}]}"#;
        let uses = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "hop", "type": "Hop"}, {"name": "sender", "type": "x.Sender"}]}"#;
        let written = Written::parse(uses, &[SENDER.to_owned(), hop.to_owned()]).unwrap();
        let (root, names) = written.resolve().unwrap();
        let found = fields(root, &names);
        assert_eq!([name(found[0]), name(found[1])], ["x.Hop", "x.Sender"]);
        assert_eq!(name(fields(found[0], &names)[0]), "x.Sender");
        // A text that stands behind, or nowhere, is not known.
        assert_eq!(refusal(uses, &[SENDER.to_owned()]), "not a schema: Unknown primitive type: x.Hop");
        assert_eq!(refusal(hop, &[]), "not a schema: Unknown primitive type: x.Sender");
    }

    #[test]
    fn a_type_that_several_texts_declare_is_the_same_in_all_of_them() {
        let told_otherwise = SENDER.replace("\"fields\"", "\"doc\": \"Who.\", \"fields\"");
        let list = |value: &str| {
            format!(
                r#"{{"type": "record", "name": "List", "fields": [
                    {{"name": "next", "type": ["null", "List"]}}, {{"name": "value", "type": {value}}}]}}"#
            )
        };
        let three =
            |symbol: &str| format!(r#"{{"type": "enum", "name": "E", "symbols": ["A", "{symbol}"]}}"#);
        for (first, second) in [
            (SENDER.to_owned(), told_otherwise),
            (list("\"int\""), list("\"int\"")),
            (three("B"), three("B")),
        ] {
            Written::parse("\"int\"", &[first, second]).unwrap().resolve().unwrap();
        }
        let wider = SENDER.replace("}]}", "}, {\"name\": \"zone\", \"type\": \"string\"}]}");
        for (name, first, second) in [
            ("x.Sender", SENDER.to_owned(), wider),
            ("x.Sender", SENDER.to_owned(), SENDER.replace("\"string\"", "\"bytes\"")),
            ("List", list("\"int\""), list("\"long\"")),
            ("E", three("B"), three("C")),
        ] {
            assert_eq!(
                refusal("\"int\"", &[first, second]),
                format!("not a schema: two types with the name {name:?} that differ")
            );
        }
    }

    #[test]
    fn all_texts_together_have_a_bound() {
        let text = format!("{}\"int\"", " ".repeat(SCHEMA_BYTES_MAX - 5));
        Written::parse(&text, &[]).unwrap();
        assert_eq!(refusal(&text, &["1".to_owned()]), "not a schema: 262145 bytes, more than 262144");
    }

    #[test]
    fn what_is_no_schema_is_refused_with_what_is_wrong() {
        for (text, expected) in [
            ("\"nothing\"", "not a schema: Unknown primitive type: nothing"),
            ("3", "not a schema: Must be a JSON string, object or array"),
            ("{\"type\": \"array\"}", "not a schema: No `items` in array"),
            (
                r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#,
                "not a schema: Duplicate field name a",
            ),
            (
                r#"{"type": "record", "name": "A", "fields": ["a"]}"#,
                "not a schema: a field that is no object",
            ),
            (
                r#"[{"type": "fixed", "name": "A", "size": 1}, {"type": "fixed", "name": "A", "size": 1}]"#,
                "not a schema: two types with the name \"A\"",
            ),
        ] {
            assert_eq!(refusal(text, &[]), expected);
        }
        let deep = "[".repeat(100_000);
        assert!(refusal(&deep, &[]).contains("recursion limit exceeded"));
        assert_eq!(refusal(&format!("\"{}\"", "x".repeat(5_000)), &[]).len(), "not a schema: ".len() + 300);
    }

    /// What the library would refuse, follow or copy, and the specification ignores in a writer's schema.
    #[test]
    fn what_does_not_decide_how_bytes_are_read_decides_nothing() {
        let plain = r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": ["null", "A"]}]}"#;
        let told = r#"{"type": "record", "name": "A", "aliases": ["not a name"], "doc": 7, "order": {}, "logicalType": 5,
            "fields": [{"name": "a", "type": ["null", "A"], "default": {"a": {}}, "aliases": ["1"],
                        "logicalType": "decimal"}]}"#;
        let of = |text: &str| Written::parse(text, &[]).unwrap().texts;
        assert_eq!(format!("{:?}", of(told)), format!("{:?}", of(plain)));
    }

    /// Each was once plain bytes to the library, and would be taken as millionths.
    #[test]
    fn a_decimal_keeps_its_scale_whatever_its_precision_is() {
        for (said, expected) in [
            (r#""precision": 18, "scale": 2"#, 2),
            (r#""precision": 1, "scale": 2"#, 2),
            (r#""scale": 2"#, 2),
            (r#""precision": "18", "scale": 2"#, 2),
            (r#""precision": 18, "scale": "2""#, 0),
            (r#""precision": 18, "scale": -2"#, 0),
            (r#""precision": 0"#, 0),
        ] {
            let text = format!(r#"{{"type": "bytes", "logicalType": "decimal", {said}}}"#);
            let written = Written::parse(&text, &[]).unwrap();
            let Schema::Decimal(decimal) = written.resolve().unwrap().0 else { panic!("{text}: no decimal") };
            assert_eq!(decimal.scale, expected, "{text}");
        }
    }
}
