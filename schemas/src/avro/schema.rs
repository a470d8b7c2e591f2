//! A schema as somebody wrote it, read from its JSON into an arena: only what decides how bytes are read.
//! Names are resolved, documentation is dropped, and a logical type is kept where it changes what a number
//! means. A schema may stand in several texts, as a registry keeps it: those that name types first, then the
//! one that uses them. Source: Apache Avro 1.12 specification, "Schema Declaration" and "Names".

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::IncompatibleSchema;

/// Longest schema that is looked at, in bytes of all its texts. Ours have three thousand.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1_024;

/// Place of a node in its schema; named types may lead back to themselves.
pub type NodeId = usize;

#[derive(Debug, PartialEq)]
pub struct Schema {
    nodes: Vec<Node>,
    pub root: NodeId,
}

#[derive(Debug, PartialEq)]
pub enum Node {
    Null,
    Boolean,
    Int(Option<Clock>),
    Long(Option<Clock>),
    Float,
    Double,
    /// With the scale, where they are a decimal.
    Bytes(Option<Scale>),
    String {
        uuid: bool,
    },
    Fixed {
        size: usize,
    },
    Enum {
        symbols: Vec<String>,
    },
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Record),
}

/// What a number counts, where it counts time. A reader of microseconds must not take milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    TimestampMicros,
    Other,
}

/// How many digits of a decimal stand behind its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Digits(u32),
    /// A `big-decimal`, whose bytes hold a number and a scale of its own.
    InTheValue,
}

#[derive(Debug, PartialEq)]
pub struct Record {
    pub name: Name,
    pub aliases: Vec<Name>,
    pub fields: Vec<Field>,
}

#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub aliases: Vec<String>,
    pub node: NodeId,
    pub default: Option<Value>,
}

/// A name with its namespace before the last dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    fn new(name: &str, namespace: &str) -> Name {
        match name.contains('.') || namespace.is_empty() {
            true => Name(name.to_owned()),
            false => Name(format!("{namespace}.{name}")),
        }
    }

    fn namespace(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(namespace, _)| namespace)
    }

    /// Without the namespace; the specification matches records by it.
    pub fn unqualified(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(_, name)| name)
    }
}

impl Schema {
    /// A schema that stands in one text.
    pub fn parse(text: &str) -> Result<Schema, IncompatibleSchema> {
        Schema::parse_with(text, &[])
    }

    /// A schema whose text names types that `named` declare: each text may use what those before it declare.
    /// A type may be declared in several of the texts, as long as it is the same in all of them.
    pub fn parse_with(text: &str, named: &[String]) -> Result<Schema, IncompatibleSchema> {
        let bytes = named.iter().map(String::len).fold(text.len(), usize::saturating_add);
        if bytes > SCHEMA_BYTES_MAX {
            return Err(not_a_schema(format!("{bytes} bytes, more than {SCHEMA_BYTES_MAX}")));
        }
        let mut parser = Parser::default();
        for text in named {
            parser.text(text)?;
        }
        let root = parser.text(text)?;
        let Parser { nodes, twice, .. } = parser;
        let nodes: Vec<Node> =
            nodes.into_iter().map(|node| node.expect("every name's node was filled")).collect();
        let schema = Schema { nodes, root };
        for (name, first, second) in twice {
            if !schema.alike(first, second) {
                return Err(not_a_schema(format!("two types with the name {:?} that differ", name.0)));
            }
        }
        Ok(schema)
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Of each node, whether its values take no bytes at all. A record that contains itself would not end, and is not
    /// empty.
    pub fn empty_nodes(&self) -> Vec<bool> {
        let mut empty = vec![false; self.nodes.len()];
        loop {
            let mut changed = false;
            // Types are named behind their declarations or inside of them: one way or the other is quick.
            for id in (0..self.nodes.len()).chain((0..self.nodes.len()).rev()) {
                let is_empty = match self.node(id) {
                    Node::Null | Node::Fixed { size: 0 } => true,
                    Node::Record(record) => record.fields.iter().all(|field| empty[field.node]),
                    _ => false,
                };
                changed |= is_empty != empty[id];
                empty[id] = is_empty;
            }
            if !changed {
                return empty;
            }
        }
    }

    /// Whether the same bytes mean the same in two places. Types that lead back to themselves are taken for
    /// alike until something differs.
    fn alike(&self, left: NodeId, right: NodeId) -> bool {
        let mut asked = HashSet::new();
        let mut open = vec![(left, right)];
        while let Some((left, right)) = open.pop() {
            if left == right || !asked.insert((left, right)) {
                continue;
            }
            match (self.node(left), self.node(right)) {
                (Node::Array(left), Node::Array(right)) | (Node::Map(left), Node::Map(right)) => {
                    open.push((*left, *right));
                }
                (Node::Union(left), Node::Union(right)) if left.len() == right.len() => {
                    open.extend(left.iter().copied().zip(right.iter().copied()));
                }
                (Node::Record(left), Node::Record(right))
                    if left.name == right.name && left.fields.len() == right.fields.len() =>
                {
                    for (left, right) in left.fields.iter().zip(&right.fields) {
                        if left.name != right.name {
                            return false;
                        }
                        open.push((left.node, right.node));
                    }
                }
                (left, right) if left == right => {}
                _ => return false,
            }
        }
        true
    }
}

#[derive(Default)]
struct Parser {
    /// `None` while the node's parts are being read, so that they can name it.
    nodes: Vec<Option<Node>>,
    names: HashMap<Name, NodeId>,
    /// Names that the text being read declares.
    declared: HashSet<Name>,
    /// Types that several texts declare: the first one, which the name means, and another.
    twice: Vec<(Name, NodeId, NodeId)>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<NodeId, IncompatibleSchema> {
        // serde_json refuses what is nested more than 128 deep, which bounds the recursion below.
        let json: Value = serde_json::from_str(text).map_err(|error| not_a_schema(error.to_string()))?;
        self.declared.clear();
        self.node(&json, "")
    }

    fn node(&mut self, json: &Value, namespace: &str) -> Result<NodeId, IncompatibleSchema> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let mut nodes = Vec::with_capacity(branches.len());
                for branch in branches {
                    nodes.push(self.node(branch, namespace)?);
                }
                Ok(self.add(Node::Union(nodes)))
            }
            Value::Object(fields) => match fields.get("type") {
                Some(Value::String(kind)) => self.complex(kind, fields, namespace),
                Some(inner @ (Value::Object(_) | Value::Array(_))) => self.node(inner, namespace),
                _ => Err(not_a_schema("a type without a \"type\"")),
            },
            _ => Err(not_a_schema(format!("{json} where a type is expected"))),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<NodeId, IncompatibleSchema> {
        if let Some(node) = primitive(name, &Map::new()) {
            return Ok(self.add(node));
        }
        let known =
            self.names.get(&Name::new(name, namespace)).or_else(|| self.names.get(&Name::new(name, "")));
        known.copied().ok_or_else(|| not_a_schema(format!("the unknown type {name:?}")))
    }

    fn complex(
        &mut self,
        kind: &str,
        fields: &Map<String, Value>,
        namespace: &str,
    ) -> Result<NodeId, IncompatibleSchema> {
        let part = |name: &str| {
            fields.get(name).ok_or_else(|| not_a_schema(format!("a type {kind:?} without {name:?}")))
        };
        match kind {
            "array" => {
                let items = self.node(part("items")?, namespace)?;
                Ok(self.add(Node::Array(items)))
            }
            "map" => {
                let values = self.node(part("values")?, namespace)?;
                Ok(self.add(Node::Map(values)))
            }
            "record" | "error" | "enum" | "fixed" => {
                let (name, id) = self.declare(fields, namespace)?;
                let node = match kind {
                    "enum" => match part("symbols")? {
                        Value::Array(symbols) => Node::Enum {
                            symbols: symbols
                                .iter()
                                .map(|symbol| symbol.as_str().unwrap_or_default().to_owned())
                                .collect(),
                        },
                        _ => return Err(not_a_schema("symbols that are no list")),
                    },
                    "fixed" => {
                        let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                        Node::Fixed { size: size.ok_or_else(|| not_a_schema("a size that is no size"))? }
                    }
                    _ => Node::Record(self.record(name, fields)?),
                };
                self.nodes[id] = Some(node);
                Ok(id)
            }
            _ => match primitive(kind, fields) {
                Some(node) => Ok(self.add(node)),
                None => self.named(kind, namespace),
            },
        }
    }

    fn declare(
        &mut self,
        fields: &Map<String, Value>,
        namespace: &str,
    ) -> Result<(Name, NodeId), IncompatibleSchema> {
        let name = fields
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| not_a_schema("a type without a name"))?;
        let namespace = fields.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let name = Name::new(name, namespace);
        if !self.declared.insert(name.clone()) {
            return Err(not_a_schema(format!("two types with the name {:?}", name.0)));
        }
        let id = self.nodes.len();
        match self.names.get(&name) {
            Some(first) => self.twice.push((name.clone(), *first, id)),
            None => drop(self.names.insert(name.clone(), id)),
        }
        self.nodes.push(None);
        Ok((name, id))
    }

    fn record(&mut self, name: Name, json: &Map<String, Value>) -> Result<Record, IncompatibleSchema> {
        let list = json.get("fields").and_then(Value::as_array);
        let list = list.ok_or_else(|| not_a_schema("a record without a list of fields"))?;
        let mut fields: Vec<Field> = Vec::with_capacity(list.len());
        for json in list {
            let field_name = json.get("name").and_then(Value::as_str);
            let field_name = field_name.ok_or_else(|| not_a_schema("a field without a name"))?.to_owned();
            if fields.iter().any(|known| known.name == field_name) {
                return Err(not_a_schema(format!("two fields with the name {field_name:?}")));
            }
            let kind = json.get("type").ok_or_else(|| not_a_schema("a field without a type"))?;
            let node = self.node(kind, name.namespace())?;
            let default = json.get("default").cloned();
            fields.push(Field { name: field_name, aliases: strings(json.get("aliases")), node, default });
        }
        let aliases =
            strings(json.get("aliases")).iter().map(|alias| Name::new(alias, name.namespace())).collect();
        Ok(Record { name, aliases, fields })
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(Some(node));
        self.nodes.len() - 1
    }
}

/// A logical type that does not belong to its type is ignored, as the specification wants it.
fn primitive(name: &str, fields: &Map<String, Value>) -> Option<Node> {
    let logical = fields.get("logicalType").and_then(Value::as_str);
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int(matches!(logical, Some("date" | "time-millis")).then_some(Clock::Other)),
        "long" => Node::Long(match logical {
            Some("timestamp-micros") => Some(Clock::TimestampMicros),
            Some(
                "time-micros"
                | "timestamp-millis"
                | "timestamp-nanos"
                | "local-timestamp-millis"
                | "local-timestamp-micros"
                | "local-timestamp-nanos",
            ) => Some(Clock::Other),
            _ => None,
        }),
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes(match logical {
            Some("decimal") => {
                let digits = fields.get("scale").and_then(Value::as_u64).unwrap_or(0);
                Some(Scale::Digits(digits.try_into().unwrap_or(u32::MAX)))
            }
            Some("big-decimal") => Some(Scale::InTheValue),
            _ => None,
        }),
        "string" => Node::String { uuid: logical == Some("uuid") },
        _ => return None,
    })
}

fn strings(json: Option<&Value>) -> Vec<String> {
    let list = json.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn not_a_schema(what: impl Into<String>) -> IncompatibleSchema {
    IncompatibleSchema::NotASchema { what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_type_of_its_namespace() {
        let text = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "b", "type": {"type": "fixed", "name": "B", "size": 3}},
            {"name": "same", "type": "B"}, {"name": "full", "type": "x.B"}, {"name": "self", "type": ["null", "A"]}]}"#;
        let schema = Schema::parse(text).unwrap();
        let Node::Record(record) = schema.node(schema.root) else { panic!("not a record") };
        assert_eq!(record.name.unqualified(), "A");
        assert_eq!(schema.node(record.fields[0].node), &Node::Fixed { size: 3 });
        assert_eq!(record.fields[1].node, record.fields[0].node);
        assert_eq!(record.fields[2].node, record.fields[0].node);
        let Node::Union(branches) = schema.node(record.fields[3].node) else { panic!("not a union") };
        assert_eq!(branches[1], schema.root);
    }

    const SENDER: &str = r#"{"type": "record", "name": "Sender", "namespace": "x",
        "fields": [{"name": "service", "type": "string"}]}"#;

    fn field(schema: &Schema, at: usize) -> &Node {
        let Node::Record(record) = schema.node(schema.root) else { panic!("not a record") };
        schema.node(record.fields[at].node)
    }

    #[test]
    fn a_text_may_name_the_types_of_other_texts() {
        let hop = r#"{"type": "record", "name": "Hop", "namespace": "x", "fields": [{"name": "by", "type": "Sender"}]}"#;
        let uses = r#"{"type": "record", "name": "A", "namespace": "x", "fields": [
            {"name": "hop", "type": "Hop"}, {"name": "sender", "type": "x.Sender"}]}"#;
        let schema = Schema::parse_with(uses, &[SENDER.to_owned(), hop.to_owned()]).unwrap();
        let Node::Record(sender) = field(&schema, 1) else { panic!("not a record") };
        assert_eq!(sender.name.unqualified(), "Sender");
        let Node::Record(hop) = field(&schema, 0) else { panic!("not a record") };
        assert_eq!(schema.node(hop.fields[0].node), field(&schema, 1));
        // A text that stands behind, or nowhere, is not known.
        assert_eq!(
            Schema::parse_with(uses, &[SENDER.to_owned()]).unwrap_err().to_string(),
            "not a schema: the unknown type \"Hop\""
        );
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
            Schema::parse_with("\"int\"", &[first, second]).unwrap();
        }
        let wider = SENDER.replace("}]}", "}, {\"name\": \"zone\", \"type\": \"string\"}]}");
        for (name, first, second) in [
            ("x.Sender", SENDER.to_owned(), wider),
            ("x.Sender", SENDER.to_owned(), SENDER.replace("\"string\"", "\"bytes\"")),
            ("List", list("\"int\""), list("\"long\"")),
            ("E", three("B"), three("C")),
        ] {
            assert_eq!(
                Schema::parse_with("\"int\"", &[first, second]).unwrap_err().to_string(),
                format!("not a schema: two types with the name {name:?} that differ")
            );
        }
    }

    #[test]
    fn all_texts_together_have_a_bound() {
        let text = format!("{}\"int\"", " ".repeat(SCHEMA_BYTES_MAX - 5));
        Schema::parse(&text).unwrap();
        assert_eq!(
            Schema::parse_with(&text, &["1".to_owned()]).unwrap_err().to_string(),
            "not a schema: 262145 bytes, more than 262144"
        );
    }

    #[test]
    fn what_is_no_schema_is_refused_with_what_is_wrong() {
        for (text, expected) in [
            ("\"nothing\"", "not a schema: the unknown type \"nothing\""),
            ("3", "not a schema: 3 where a type is expected"),
            ("{\"type\": \"array\"}", "not a schema: a type \"array\" without \"items\""),
            (
                r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#,
                "not a schema: two fields with the name \"a\"",
            ),
            (
                r#"[{"type": "fixed", "name": "A", "size": 1}, {"type": "fixed", "name": "A", "size": 1}]"#,
                "not a schema: two types with the name \"A\"",
            ),
        ] {
            assert_eq!(Schema::parse(text).unwrap_err().to_string(), expected);
        }
        let deep = "[".repeat(100_000);
        assert!(Schema::parse(&deep).unwrap_err().to_string().contains("recursion limit exceeded"));
    }
}
