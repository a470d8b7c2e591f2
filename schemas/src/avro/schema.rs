//! A schema as somebody wrote it, read from its JSON into an arena: only what decides how bytes are read.
//! Names are resolved, documentation is dropped, and a logical type is kept where it changes what a number
//! means. Source: Apache Avro 1.12 specification, "Schema Declaration" and "Names".

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::IncompatibleSchema;

/// Longest text of a schema that is looked at, in bytes. Ours have three thousand.
const TEXT_BYTES_MAX: usize = 256 * 1_024;

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
    Bytes(Option<u32>),
    String {
        uuid: bool,
    },
    Fixed {
        size: usize,
    },
    Enum {
        symbols: usize,
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
    pub fn parse(text: &str) -> Result<Schema, IncompatibleSchema> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(not_a_schema(format!("{} bytes, more than {TEXT_BYTES_MAX}", text.len())));
        }
        // serde_json refuses what is nested more than 128 deep, which bounds the recursion below.
        let json: Value = serde_json::from_str(text).map_err(|error| not_a_schema(error.to_string()))?;
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new() };
        let root = parser.node(&json, "")?;
        let nodes =
            parser.nodes.into_iter().map(|node| node.expect("every name's node was filled")).collect();
        Ok(Schema { nodes, root })
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }
}

struct Parser {
    /// `None` while the node's parts are being read, so that they can name it.
    nodes: Vec<Option<Node>>,
    names: HashMap<Name, NodeId>,
}

impl Parser {
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
                    "enum" => {
                        let symbols = part("symbols")?.as_array().map(Vec::len);
                        Node::Enum {
                            symbols: symbols.ok_or_else(|| not_a_schema("symbols that are no list"))?,
                        }
                    }
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
        let id = self.nodes.len();
        if self.names.insert(name.clone(), id).is_some() {
            return Err(not_a_schema(format!("two types with the name {:?}", name.0)));
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
                Some(fields.get("scale").and_then(Value::as_u64).unwrap_or(0).try_into().unwrap_or(u32::MAX))
            }
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
