//! Definition files: YAML (several documents allowed) or JSON (one object or an array of them). An error
//! names the file's line and the field, and all errors of a file come at once.

use std::collections::BTreeMap;
use std::fmt;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use super::check::{Problem, check};
use super::{Definition, Kind};

/// How deep a file may nest; far above any definition.
const DEPTH_MAX: usize = 64;

/// Something wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// From 1.
    pub line: usize,
    pub problem: Problem,
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.problem)
    }
}

/// The definitions of a file, in its order. What can be said without the log has been checked.
pub fn parse_file(text: &str) -> Result<Vec<Definition>, Vec<FileError>> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        vec![FileError { line: error.marker().line(), problem: Problem::new(".", error.to_string()) }]
    })?;
    let mut definitions = Vec::new();
    let mut errors = Vec::new();
    for document in &documents {
        match &document.data {
            YamlData::Sequence(items) => {
                for item in items {
                    read(item, &mut definitions, &mut errors);
                }
            }
            YamlData::Value(Scalar::Null) => {}
            _ => read(document, &mut definitions, &mut errors),
        }
    }
    if definitions.is_empty() && errors.is_empty() {
        errors.push(FileError { line: 1, problem: Problem::new(".", "the file holds no definition") });
    }
    if errors.is_empty() { Ok(definitions) } else { Err(errors) }
}

fn read(node: &MarkedYaml<'_>, definitions: &mut Vec<Definition>, errors: &mut Vec<FileError>) {
    let mut lines = BTreeMap::new();
    let problems = match plain(node, String::new(), 0, &mut lines).and_then(definition) {
        Ok(definition) => {
            let problems = check(&definition);
            definitions.push(definition);
            problems
        }
        Err(problem) => vec![problem],
    };
    errors.extend(
        problems.into_iter().map(|problem| FileError { line: line_of(&lines, &problem.field), problem }),
    );
}

fn definition(mut value: Value) -> Result<Definition, Problem> {
    let Some(fields) = value.as_object_mut() else {
        return Err(Problem::new(".", "a definition is a map with a `kind`"));
    };
    let kinds = || Kind::ALL.map(Kind::as_str).join(", ");
    let kind = match fields.remove("kind") {
        Some(Value::String(text)) => Kind::parse(&text)
            .ok_or_else(|| Problem::new("kind", format!("`{text}` is none of {}", kinds())))?,
        Some(_) => return Err(Problem::new("kind", format!("must be one of {}", kinds()))),
        None => return Err(Problem::new(".", format!("has no `kind`: one of {}", kinds()))),
    };
    Definition::from_json(kind, value)
}

/// The node as JSON; `lines` learns where each path begins.
fn plain(
    node: &MarkedYaml<'_>,
    path: String,
    depth: usize,
    lines: &mut BTreeMap<String, usize>,
) -> Result<Value, Problem> {
    lines.insert(path.clone(), node.span.start.line());
    if depth > DEPTH_MAX {
        return Err(Problem::new(path, format!("nests deeper than {DEPTH_MAX}")));
    }
    match &node.data {
        YamlData::Value(Scalar::Null) => Ok(Value::Null),
        YamlData::Value(Scalar::Boolean(value)) => Ok(Value::Bool(*value)),
        YamlData::Value(Scalar::Integer(value)) => Ok(Value::Number((*value).into())),
        YamlData::Value(Scalar::FloatingPoint(value)) => match Number::from_f64(value.into_inner()) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(Problem::new(path, "infinite or not a number")),
        },
        YamlData::Value(Scalar::String(value)) => Ok(Value::String(value.to_string())),
        YamlData::Sequence(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                array.push(plain(item, format!("{path}[{index}]"), depth + 1, lines)?);
            }
            Ok(Value::Array(array))
        }
        YamlData::Mapping(entries) => {
            let mut object = Map::new();
            for (name, value) in entries {
                let YamlData::Value(Scalar::String(name)) = &name.data else {
                    return Err(Problem::new(path, "the names in a map must be text"));
                };
                let inner = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                let value = plain(value, inner, depth + 1, lines)?;
                object.insert(name.to_string(), value);
            }
            Ok(Value::Object(object))
        }
        _ => Err(Problem::new(path, "tags, anchors and aliases are not used in definitions")),
    }
}

/// The line of the field, or of the closest thing around it that the file has.
fn line_of(lines: &BTreeMap<String, usize>, field: &str) -> usize {
    let mut path = if field == "." { "" } else { field };
    loop {
        if let Some(line) = lines.get(path) {
            return *line;
        }
        path = path.rfind(['.', '[']).map_or("", |at| &path[..at]);
        if path.is_empty() {
            return lines.get("").copied().unwrap_or(1);
        }
    }
}
