//! The configuration as a tree of values with their origins, and the deserializer that reads checked types from
//! it. It knows TOML and environment variables, but no section or field by name.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Error, PREFIX, value::SECRET};

/// A value and its origin.
#[derive(Debug)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    Text(String),
    /// The text of an environment variable; it is parsed as the type of the field.
    Raw(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// An absent section.
    Absent,
    Line {
        file: String,
        line: usize,
    },
    Variable(String),
}

impl Node {
    /// Creates an empty table.
    pub(super) fn empty() -> Node {
        Node { origin: Origin::Absent, value: Value::Table(BTreeMap::new()) }
    }

    /// Parses the text of a TOML file; `file` is its name in messages.
    pub(super) fn parse(file: &str, text: &str) -> Result<Node, Error> {
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            Error::from(format!("{file}, line {line}: not TOML: {}", error.message()))
        })?;
        table(document.get_ref(), &Source { file, text })
            .map(|value| Node { origin: Origin::Line { file: file.into(), line: 1 }, value })
            .map_err(Error::from)
    }

    /// Sets the value of an environment variable in the tree, at the path that its name spells.
    pub(super) fn overlay(&mut self, variable: &str, path: &[String], text: String) -> Result<(), Error> {
        let mut node = self;
        for name in path {
            let Value::Table(entries) = &mut node.value else {
                return Err(format!(
                    "environment variable {variable}: the configuration has a value, not a table, \
                     above {name} (at {})",
                    node.origin
                )
                .into());
            };
            node = entries.entry(name.clone()).or_insert_with(|| Node {
                origin: Origin::Variable(variable.into()),
                value: Value::Table(BTreeMap::new()),
            });
        }
        *node = Node { origin: Origin::Variable(variable.into()), value: Value::Raw(text) };
        Ok(())
    }
}

struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

fn table(entries: &DeTable<'_>, source: &Source<'_>) -> Result<Value, String> {
    let mut nodes = BTreeMap::new();
    for (key, value) in entries.iter() {
        let line = line_at(source.text, key.span().start);
        nodes.insert(key.get_ref().to_string(), node(value, line, source)?);
    }
    Ok(Value::Table(nodes))
}

fn node(value: &Spanned<DeValue<'_>>, line: usize, source: &Source<'_>) -> Result<Node, String> {
    let at = || format!("{}, line {line}", source.file);
    let value = match value.get_ref() {
        DeValue::Table(entries) => table(entries, source)?,
        DeValue::Array(elements) => {
            let mut nodes = Vec::new();
            for element in elements.iter() {
                let line = line_at(source.text, element.span().start);
                nodes.push(node(element, line, source)?);
            }
            Value::List(nodes)
        }
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|error| format!("{}: {number}: {error}", at()))?,
        ),
        DeValue::Float(number) => {
            Value::Float(number.as_str().parse().map_err(|error| format!("{}: {number}: {error}", at()))?)
        }
        DeValue::Datetime(time) => Value::Text(time.to_string()),
    };
    let origin = Origin::Line { file: source.file.into(), line };
    Ok(Node { origin, value })
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text[..offset].bytes().filter(|byte| *byte == b'\n').count()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Absent => f.write_str("configuration"),
            Origin::Line { file, line } => write!(f, "{file}, line {line}"),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The problem of a value, before and after the path of the value is known.
#[derive(Debug)]
pub(super) enum ValueError {
    /// Found by a type that does not know its path.
    Here(Fault),
    /// The complete message, with path and origin.
    Located(String),
}

#[derive(Debug)]
pub(super) enum Fault {
    Invalid(String),
    Missing(&'static str),
    Unknown { key: String, known: &'static [&'static str] },
}

impl ValueError {
    /// Adds the path and origin of the value; for an unknown key, those of the key itself.
    fn at(self, path: &Path<'_>, origin: &Origin) -> ValueError {
        let fault = match self {
            ValueError::Here(fault) => fault,
            located => return located,
        };
        ValueError::Located(match fault {
            Fault::Invalid(what) => format!("{origin}: {path}: {what}"),
            Fault::Unknown { known, .. } => match path.parent {
                Some(Path { name: "", .. }) | None => {
                    format!("{origin}: {path}: no such section; there are {}", known.join(", "))
                }
                Some(section) => match super::replacement_of(&path.to_string()) {
                    Some(instead) => format!("{origin}: {path}: no setting any more: {instead}"),
                    None => format!("{origin}: {path}: no such setting; {section} has {}", known.join(", ")),
                },
            },
            Fault::Missing(field) => format!(
                "{path}.{field} is not set and has no default; set it as {field} under [{path}] in \
                 the configuration file, or as the environment variable {}",
                path.child(field).variable()
            ),
        })
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::Here(Fault::Invalid(what)) | ValueError::Located(what) => f.write_str(what),
            ValueError::Here(Fault::Missing(field)) => write!(f, "{field} is not set"),
            ValueError::Here(Fault::Unknown { key, .. }) => write!(f, "{key}: no such setting"),
        }
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> ValueError {
        ValueError::Here(Fault::Invalid(message.to_string()))
    }

    fn invalid_type(found: Unexpected, expected: &dyn de::Expected) -> ValueError {
        ValueError::custom(format_args!("{found} where {expected} is expected"))
    }

    fn invalid_value(found: Unexpected, expected: &dyn de::Expected) -> ValueError {
        ValueError::custom(format_args!("{found} where {expected} is expected"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> ValueError {
        ValueError::custom(format_args!("{variant:?} where one of {} is expected", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> ValueError {
        ValueError::Here(Fault::Unknown { key: field.into(), known: expected })
    }

    fn missing_field(field: &'static str) -> ValueError {
        ValueError::Here(Fault::Missing(field))
    }
}

/// The dotted path of a value; the root's name is empty.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a str,
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path { parent: None, name: "" };

    fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), name }
    }

    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.to_string().replace('.', "__").to_uppercase())
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent {
            Some(parent) if !parent.name.is_empty() => write!(f, "{parent}.{}", self.name),
            _ => f.write_str(self.name),
        }
    }
}

/// Reads a service's configuration from the tree. Its sections are the fields of `T`: an absent one is read as
/// empty, and those in `foreign` that `T` does not have are ignored.
pub(super) fn read<T: de::DeserializeOwned>(root: &Node, foreign: &[&str]) -> Result<T, Error> {
    let reader = RootReader { root, foreign };
    T::deserialize(reader).map_err(|error| Error::from(error.to_string()))
}

/// Reads one section from its own tree. `name` is its name in messages.
pub(super) fn read_section<T: de::DeserializeOwned>(name: &str, node: &Node) -> Result<T, Error> {
    let path = Path::ROOT.child(name);
    T::deserialize(ValueReader { node, path })
        .map_err(|error| Error::from(error.at(&path, &node.origin).to_string()))
}

struct RootReader<'a> {
    root: &'a Node,
    foreign: &'a [&'a str],
}

impl<'de> Deserializer<'de> for RootReader<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(ValueError::custom("a configuration must be a struct of sections"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let Value::Table(entries) = &self.root.value else {
            return Err(ValueError::custom("the configuration's root is not a table"));
        };
        let empty = Node::empty();
        let mut sections = Vec::new();
        for (name, node) in entries {
            if fields.contains(&name.as_str()) || !self.foreign.contains(&name.as_str()) {
                sections.push((name.as_str(), node));
            }
        }
        for name in fields {
            if !entries.contains_key(*name) {
                sections.push((name, &empty));
            }
        }
        visitor.visit_map(Entries { path: Path::ROOT, rest: sections.into_iter(), current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Deserializes one value with its path.
#[derive(Clone, Copy)]
struct ValueReader<'a> {
    node: &'a Node,
    path: Path<'a>,
}

impl ValueReader<'_> {
    /// Parses the text of a variable as the type of the field; other values are deserialized as they are.
    fn parsed<'de, T, V>(
        self,
        visitor: V,
        visit: fn(V, T) -> Result<V::Value, ValueError>,
    ) -> Result<V::Value, ValueError>
    where
        T: std::str::FromStr,
        V: Visitor<'de>,
    {
        match &self.node.value {
            Value::Raw(text) => match text.parse() {
                Ok(parsed) => visit(visitor, parsed),
                Err(_) => Err(ValueError::invalid_value(Unexpected::Str(text), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }
}

/// Deserializes booleans, integers and floats of the requested width, from the text of a variable if it is one.
macro_rules! parsed {
    ($($deserialize:ident $visit:ident $type:ty,)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            self.parsed::<$type, V>(visitor, V::$visit)
        })*
    };
}

impl<'de> Deserializer<'de> for ValueReader<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match &self.node.value {
            Value::Table(entries) => {
                let rest = entries.iter().map(|(name, node)| (name.as_str(), node));
                visitor.visit_map(Entries { path: self.path, rest, current: None })
            }
            Value::List(elements) => visitor.visit_seq(Elements { list: self, rest: elements.iter() }),
            Value::Text(text) | Value::Raw(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
        }
    }

    parsed! {
        deserialize_bool visit_bool bool,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        if name == SECRET && !matches!(self.node.value, Value::Raw(_)) {
            return Err(ValueError::custom(format_args!(
                "a secret is not read from a configuration file; set the environment variable {}, \
                 or name a file that holds it in {}_file",
                self.path.variable(),
                self.path
            )));
        }
        visitor.visit_newtype_struct(self)
    }

    /// Splits a list in a variable at its commas; an empty variable is an empty list.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let Value::Raw(text) = &self.node.value else {
            return self.deserialize_any(visitor);
        };
        let mut elements = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            elements.push(Node { origin: self.node.origin.clone(), value: Value::Raw(part.trim().into()) });
        }
        visitor.visit_seq(Elements { list: self, rest: elements.iter() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match &self.node.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_enum(Name(text)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// The name of an enum variant without content.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = ValueError;
    type Variant = <StrDeserializer<'static, ValueError> as EnumAccess<'de>>::Variant;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), ValueError> {
        let name: StrDeserializer<'_, ValueError> = self.0.into_deserializer();
        name.variant_seed(seed)
    }
}

struct Entries<'a, I> {
    path: Path<'a>,
    rest: I,
    current: Option<(&'a str, &'a Node)>,
}

impl<'de, 'a, I: Iterator<Item = (&'a str, &'a Node)>> MapAccess<'de> for Entries<'a, I> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        let Some((name, node)) = self.rest.next() else {
            return Ok(None);
        };
        self.current = Some((name, node));
        let key: StringDeserializer<ValueError> = name.to_string().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&self.path.child(name), &node.origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let (name, node) = self.current.take().expect("serde asks for a value only after its key");
        let path = self.path.child(name);
        seed.deserialize(ValueReader { node, path }).map_err(|error| error.at(&path, &node.origin))
    }
}

struct Elements<'a, I> {
    list: ValueReader<'a>,
    rest: I,
}

impl<'de, 'a, I: Iterator<Item = &'a Node>> SeqAccess<'de> for Elements<'a, I> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let path = self.list.path;
        seed.deserialize(ValueReader { node, path }).map(Some).map_err(|error| error.at(&path, &node.origin))
    }
}
