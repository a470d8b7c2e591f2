//! Parses a writer's schema with the Avro library, from one text or from several, as a registry keeps them:
//! first the texts that declare types, then the one that uses them. The texts are untrusted. Parts that do
//! not affect how bytes are read are removed before the library parses the text: the library copies a type
//! for each of its aliases, overflows its stack on a default that does not fit its type
//! (`tests/evolution/hostile_schemas.rs`), and logs or refuses annotations that the specification ignores. This
//! module does not decode bytes. Source: Apache Avro 1.12 specification, "Names".

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Name, UuidSchema};
use serde_json::{Map, Value, json};

use super::{Fingerprint, IncompatibleSchema};

/// The longest schema that is parsed, in bytes of all its texts. Ours have three thousand.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1_024;
/// How many characters of the library's reasons are kept: some of them quote the schema.
const WHAT_CHARS_MAX: usize = 300;
/// The names that have a fixed meaning, whatever a schema declares.
const BUILT_IN: [&str; 13] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum", "array", "map",
    "fixed",
];
/// The types that a logical type can annotate.
const ANNOTATED: [&str; 5] = ["int", "long", "bytes", "string", "fixed"];

/// The schema of a writer, with all types that it names.
pub struct WriterSchema {
    /// One record with a field for each text. The library's own functions for schemas in several texts follow
    /// names from text to text recursively, and untrusted texts could make them overflow the stack.
    texts: Schema,
}

impl WriterSchema {
    /// Parses a schema whose text names types that `named` declare: each text may use the types that texts
    /// before it declare. Several texts may declare a type, if it is the same in all of them.
    pub fn parse(text: &str, named: &[String]) -> Result<WriterSchema, IncompatibleSchema> {
        let bytes = named.iter().map(String::len).fold(text.len(), usize::saturating_add);
        if bytes > SCHEMA_BYTES_MAX {
            return Err(not_a_schema(format!("{bytes} bytes, more than {SCHEMA_BYTES_MAX}")));
        }
        let mut filter = SchemaFilter::new(true);
        let mut fields = Vec::with_capacity(named.len() + 1);
        for text in named.iter().map(String::as_str).chain([text]) {
            let name = format!("text_{}", fields.len());
            fields.push(json!({"name": name, "type": filter.filter_text(text)?}));
        }
        let texts = json!({"type": "record", "name": "__texts", "fields": fields});
        let texts = Schema::parse(&texts).map_err(|error| not_a_schema(error.to_string()))?;
        Ok(WriterSchema { texts })
    }

    /// Returns the schema itself, and the types that any of its texts declares.
    pub fn resolve(&self) -> Result<(&Schema, Names<'_>), IncompatibleSchema> {
        let Schema::Record(record) = &self.texts else { unreachable!("the texts are parsed as a record") };
        let last = record.fields.last().expect("there is at least one text");
        Ok((&last.schema, Names::of(&self.texts)?))
    }
}

/// Returns the CRC-64-AVRO of the parsing canonical form of one of our schemas.
pub fn fingerprint(text: &str) -> Fingerprint {
    // The library's canonical form keeps `{"type": "string"}` for a type with a logical type
    // (apache/avro-rs#61); the specification's has `"string"`, since its rule PRIMITIVES comes before STRIP.
    let json = SchemaFilter::new(false).filter_text(text).expect("our own schemas are schemas");
    let schema = Schema::parse(&json).expect("our own schemas are schemas");
    let bytes = schema.fingerprint::<Rabin>().bytes;
    Fingerprint(u64::from_le_bytes(bytes.try_into().expect("a CRC-64 has eight bytes")))
}

/// The types that a schema declares, by their full names.
pub struct Names<'s> {
    types: HashMap<&'s Name, &'s Schema>,
    /// The types whose values take no bytes.
    empty: HashSet<&'s Name>,
}

impl<'s> Names<'s> {
    pub fn of(schema: &'s Schema) -> Result<Names<'s>, IncompatibleSchema> {
        let mut names = Names { types: HashMap::new(), empty: HashSet::new() };
        names.collect(schema)?;
        Ok(names)
    }

    /// Returns the type that a schema names, or the schema itself if it is not a name.
    pub fn resolve(&self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.types[name],
            declared => declared,
        }
    }

    /// Returns whether the values of a named type take no bytes. A record that contains itself is not empty:
    /// its values would not end.
    pub fn is_empty(&self, name: &Name) -> bool {
        self.empty.contains(name)
    }

    /// Collects the types that `schema` declares, and returns whether its values take no bytes. Names are not
    /// followed, so the recursion is as deep as the text. A name occurs after its declaration, where the
    /// answer is known, or inside of it, where the answer is no.
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

/// Returns the size of each value in bytes, if the type is a fixed one with or without a logical type.
pub fn fixed_size(schema: &Schema) -> Option<usize> {
    match schema {
        Schema::Fixed(fixed)
        | Schema::Duration(fixed)
        | Schema::Uuid(UuidSchema::Fixed(fixed))
        | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => Some(fixed.size),
        _ => None,
    }
}

/// Removes the parts of schemas' JSON that do not affect how bytes are read, text by text.
struct SchemaFilter {
    logical_types: bool,
    /// The full names of the types declared so far, and of those declared in this text.
    declared: HashSet<String>,
    in_this_text: HashSet<String>,
}

impl SchemaFilter {
    fn new(logical_types: bool) -> SchemaFilter {
        SchemaFilter { logical_types, declared: HashSet::new(), in_this_text: HashSet::new() }
    }

    fn filter_text(&mut self, text: &str) -> Result<Value, IncompatibleSchema> {
        // serde_json refuses JSON that nests deeper than 128, which bounds every recursion over a schema.
        let mut json = serde_json::from_str(text).map_err(|error| not_a_schema(error.to_string()))?;
        self.in_this_text.clear();
        self.filter(&mut json, "")?;
        Ok(json)
    }

    fn filter(&mut self, json: &mut Value, namespace: &str) -> Result<(), IncompatibleSchema> {
        match json {
            Value::String(name) => self.qualify(name, namespace),
            Value::Array(branches) => {
                for branch in branches {
                    self.filter(branch, namespace)?;
                }
            }
            Value::Object(parts) => self.filter_object(parts, namespace)?,
            // The library refuses any other value.
            _ => {}
        }
        Ok(())
    }

    fn filter_object(
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
                        self.filter(inner, namespace)?;
                    }
                }
            }
            "record" => {
                let namespace = self.declare(parts, namespace)?;
                for field in parts.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                    // The library would skip a field that is not an object.
                    let field =
                        field.as_object_mut().ok_or_else(|| not_a_schema("a field that is not an object"))?;
                    field.retain(|part, _| matches!(part.as_str(), "name" | "type"));
                    if let Some(inner) = field.get_mut("type") {
                        self.filter(inner, &namespace)?;
                    }
                }
            }
            "enum" => drop(self.declare(parts, namespace)?),
            "fixed" => {
                self.declare(parts, namespace)?;
                normalize_decimal(parts);
            }
            _ => {
                if let Some(inner) = parts.get_mut("type") {
                    self.filter(inner, namespace)?;
                }
                normalize_decimal(parts);
            }
        }
        Ok(())
    }

    /// Records the name of a type, and returns the namespace of the names inside of it.
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

    /// Marks a name that means a type without a namespace. A name without a namespace means the type in the
    /// namespace around it or, if there is none, the type without a namespace. Java writers, whose schemas
    /// are in registries, rely on the latter; the library does not support it, so the name gets the dot that
    /// means it.
    fn qualify(&self, name: &mut String, namespace: &str) {
        let known = |name: &str| self.declared.contains(name);
        if !BUILT_IN.contains(&name.as_str()) && !known(&full_name(name, namespace)) && known(name) {
            name.insert(0, '.');
        }
    }
}

/// Sets a valid precision for a decimal. The library treats a decimal whose precision is missing or less than
/// its scale as plain bytes, which would then be read as millionths, whatever scale its writer meant. Reading
/// a decimal needs no precision, so each decimal gets one that is allowed.
fn normalize_decimal(parts: &mut Map<String, Value>) {
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
        let refused = WriterSchema::parse(text, named).and_then(|written| written.resolve().map(|_| ()));
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
        let written = WriterSchema::parse(text, &[]).unwrap();
        let (root, names) = written.resolve().unwrap();
        assert_eq!(name(root), "x.A");
        let fields = fields(root, &names);
        assert_eq!([name(fields[0]), name(fields[1]), name(fields[2])], ["x.B", "x.B", "x.B"]);
        let Schema::Union(union) = fields[3] else { panic!("not a union") };
        assert_eq!(name(names.resolve(&union.variants()[1])), "x.A");
    }

    /// The same as in Java's parser.
    #[test]
    fn a_name_that_its_namespace_does_not_have_means_the_type_without_one() {
        let outside =
            r#"[{"type": "fixed", "name": "B", "size": 3}, {"type": "fixed", "name": "C", "size": 4}]"#;
        let uses = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "c", "type": {"type": "fixed", "name": "C", "size": 5}},
            {"name": "b", "type": "B"}, {"name": "near", "type": {"type": "C"}}]}"#;
        let written = WriterSchema::parse(uses, &[outside.to_owned()]).unwrap();
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
        let written = WriterSchema::parse(uses, &[SENDER.to_owned(), hop.to_owned()]).unwrap();
        let (root, names) = written.resolve().unwrap();
        let found = fields(root, &names);
        assert_eq!([name(found[0]), name(found[1])], ["x.Hop", "x.Sender"]);
        assert_eq!(name(fields(found[0], &names)[0]), "x.Sender");
        // A text that comes later, or is missing, is not known.
        assert_eq!(refusal(uses, &[SENDER.to_owned()]), "not a schema: Unknown primitive type: x.Hop");
        assert_eq!(refusal(hop, &[]), "not a schema: Unknown primitive type: x.Sender");
    }

    #[test]
    fn a_type_that_several_texts_declare_is_the_same_in_all_of_them() {
        let with_doc = SENDER.replace("\"fields\"", "\"doc\": \"Who.\", \"fields\"");
        let list = |value: &str| {
            format!(
                r#"{{"type": "record", "name": "List", "fields": [
                    {{"name": "next", "type": ["null", "List"]}}, {{"name": "value", "type": {value}}}]}}"#
            )
        };
        let three =
            |symbol: &str| format!(r#"{{"type": "enum", "name": "E", "symbols": ["A", "{symbol}"]}}"#);
        for (first, second) in
            [(SENDER.to_owned(), with_doc), (list("\"int\""), list("\"int\"")), (three("B"), three("B"))]
        {
            WriterSchema::parse("\"int\"", &[first, second]).unwrap().resolve().unwrap();
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
    fn the_total_size_of_all_texts_has_a_bound() {
        let text = format!("{}\"int\"", " ".repeat(SCHEMA_BYTES_MAX - 5));
        WriterSchema::parse(&text, &[]).unwrap();
        assert_eq!(refusal(&text, &["1".to_owned()]), "not a schema: 262145 bytes, more than 262144");
    }

    #[test]
    fn an_invalid_schema_is_refused_with_a_reason() {
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
                "not a schema: a field that is not an object",
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

    /// Parts that the library would refuse, follow or copy, and that the specification ignores in a writer's
    /// schema.
    #[test]
    fn parts_that_do_not_affect_how_bytes_are_read_are_ignored() {
        let plain = r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": ["null", "A"]}]}"#;
        let annotated = r#"{"type": "record", "name": "A", "aliases": ["not a name"], "doc": 7, "order": {}, "logicalType": 5,
            "fields": [{"name": "a", "type": ["null", "A"], "default": {"a": {}}, "aliases": ["1"],
                        "logicalType": "decimal"}]}"#;
        let of = |text: &str| WriterSchema::parse(text, &[]).unwrap().texts;
        assert_eq!(format!("{:?}", of(annotated)), format!("{:?}", of(plain)));
    }

    /// A fixed bug: the library treated each of these as plain bytes, which would be read as millionths.
    #[test]
    fn a_decimal_keeps_its_scale_whatever_its_precision_is() {
        for (attributes, expected) in [
            (r#""precision": 18, "scale": 2"#, 2),
            (r#""precision": 1, "scale": 2"#, 2),
            (r#""scale": 2"#, 2),
            (r#""precision": "18", "scale": 2"#, 2),
            (r#""precision": 18, "scale": "2""#, 0),
            (r#""precision": 18, "scale": -2"#, 0),
            (r#""precision": 0"#, 0),
        ] {
            let text = format!(r#"{{"type": "bytes", "logicalType": "decimal", {attributes}}}"#);
            let written = WriterSchema::parse(&text, &[]).unwrap();
            let Schema::Decimal(decimal) = written.resolve().unwrap().0 else { panic!("{text}: no decimal") };
            assert_eq!(decimal.scale, expected, "{text}");
        }
    }
}
