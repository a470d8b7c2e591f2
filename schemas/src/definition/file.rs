//! Reads definition files: YAML (one or several documents) or JSON (an object or an array of objects). An
//! error names the line and the field; the errors of all definitions in a file are reported at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::check::{Problem, check};
use super::{Definition, Kind, Unfit};
use yaml::{Content, Node};

mod shares;
mod tabs;
mod yaml;

pub use shares::parse_share;

/// A problem in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Counted from 1.
    pub line: usize,
    /// The place and the key of the definition, where another begins on this line: `3, \`checkout\``.
    pub definition: Option<String>,
    pub problem: Problem,
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.definition {
            Some(definition) => {
                write!(formatter, "line {}: definition {definition}: {}", self.line, self.problem)
            }
            None => write!(formatter, "line {}: {}", self.line, self.problem),
        }
    }
}

/// Reads the definitions of a file, in its order, with all checks that need no log.
pub fn parse_file(text: &str) -> Result<Vec<Definition>, Vec<FileError>> {
    let text = join_surrogates(text.strip_prefix('\u{feff}').unwrap_or(text));
    let text = tabs::separated(&text);
    let documents = yaml::documents(&text).map_err(|error| {
        let (line, why) = match tabs::first_indentation(&text, &error) {
            Some(line) => (line, tabs::NO_INDENTATION),
            None => (error.marker().line(), error.info()),
        };
        vec![FileError::new(line, Problem::new(".", format!("neither YAML nor JSON: {why}")))]
    })?;
    let mut nodes: Vec<&Node> = Vec::new();
    for document in &documents {
        match &document.content {
            Content::List(items) => nodes.extend(items),
            Content::Scalar(Value::Null) => {}
            _ => nodes.push(document),
        }
    }
    let mut definitions = Vec::new();
    let mut errors = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let before = errors.len();
        read(node, &mut definitions, &mut errors);
        for error in &mut errors[before..] {
            let begins_there = |(other, node): (usize, &&Node)| other != index && node.line == error.line;
            if nodes.iter().enumerate().any(begins_there) {
                error.definition = Some(place_and_key(index, node));
            }
        }
    }
    if definitions.is_empty() && errors.is_empty() {
        errors.push(FileError::new(1, Problem::new(".", "the file holds no definition")));
    }
    if errors.is_empty() { Ok(definitions) } else { Err(errors) }
}

impl FileError {
    fn new(line: usize, problem: Problem) -> FileError {
        FileError { line, definition: None, problem }
    }
}

fn place_and_key(index: usize, node: &Node) -> String {
    let place = index + 1;
    let Content::Map(entries) = &node.content else { return place.to_string() };
    match entries.iter().find(|entry| entry.name == "key").map(|entry| &entry.value.content) {
        Some(Content::Scalar(Value::String(key))) => format!("{place}, `{key}`"),
        _ => place.to_string(),
    }
}

fn read(node: &Node, definitions: &mut Vec<Definition>, errors: &mut Vec<FileError>) {
    let mut lines = BTreeMap::new();
    let before = errors.len();
    let value = to_json(node, String::new(), &mut lines, errors);
    if errors.len() > before {
        return;
    }
    let problems = match definition(value) {
        Ok(definition) => {
            let mut problems = check(&definition);
            problems.extend(check_usable_range(&definition));
            definitions.push(definition);
            problems
        }
        Err(problems) => problems,
    };
    errors
        .extend(problems.into_iter().map(|problem| FileError::new(line_of(&lines, &problem.field), problem)));
}

/// The smallest alpha that a file may set: no test of units decides at a smaller one.
const ALPHA_MIN: f64 = 1e-9;

/// Refuses values that the log's rules accept but that no author intends.
fn check_usable_range(definition: &Definition) -> Option<Problem> {
    match definition {
        Definition::Experiment(experiment)
            if experiment.plan.alpha > 0.0 && experiment.plan.alpha < ALPHA_MIN =>
        {
            let what = format!("{:e} is below {ALPHA_MIN:e}", experiment.plan.alpha);
            Some(Problem::new("plan.alpha", what))
        }
        _ => None,
    }
}

fn definition(mut value: Value) -> Result<Definition, Vec<Problem>> {
    let wrong = |field: &str, what: String| vec![Problem::new(field, what)];
    let Some(fields) = value.as_object_mut() else {
        return Err(wrong(".", "a definition is a map with a `kind`".to_owned()));
    };
    let kinds = || Kind::ALL.map(Kind::as_str).join(", ");
    let kind = match fields.remove("kind") {
        Some(Value::String(text)) => {
            Kind::parse(&text).ok_or_else(|| wrong("kind", format!("`{text}` is none of {}", kinds())))?
        }
        Some(_) => return Err(wrong("kind", format!("must be one of {}", kinds()))),
        None => return Err(wrong(".", format!("the definition has no `kind`: one of {}", kinds()))),
    };
    let problems = shares::in_basis_points(kind, &mut value);
    if !problems.is_empty() {
        return Err(problems);
    }
    Definition::read(kind, value).map_err(Unfit::problems)
}

/// Converts the node to JSON. Writes to `lines` the line on which each path begins, and to `errors` the
/// values that a definition cannot have.
fn to_json(
    node: &Node,
    path: String,
    lines: &mut BTreeMap<String, usize>,
    errors: &mut Vec<FileError>,
) -> Value {
    // In a map the line of the name is already known, and may be an earlier one.
    lines.entry(path.clone()).or_insert(node.line);
    match &node.content {
        Content::Scalar(value) => value.clone(),
        Content::List(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                array.push(to_json(item, format!("{path}[{index}]"), lines, errors));
            }
            Value::Array(array)
        }
        Content::Map(entries) => {
            let mut object = Map::new();
            for entry in entries {
                let inner =
                    if path.is_empty() { entry.name.clone() } else { format!("{path}.{}", entry.name) };
                lines.entry(inner.clone()).or_insert(entry.line);
                if object.contains_key(&entry.name) {
                    let problem = Problem::new(inner.clone(), "is given twice");
                    errors.push(FileError::new(entry.line, problem));
                }
                object.insert(entry.name.clone(), to_json(&entry.value, inner, lines, errors));
            }
            Value::Object(object)
        }
        Content::Refused(why) => {
            let field = if path.is_empty() { ".".to_owned() } else { path };
            errors.push(FileError::new(node.line, Problem::new(field, why)));
            Value::Null
        }
    }
}

/// Returns the line of the field or, if the file does not have it, of its closest ancestor in the file.
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

/// Replaces surrogate pairs of JSON with YAML's escapes: JSON writes a character beyond the first 65,536 as two
/// escapes (RFC 8259, section 7), YAML as one. `\ud83d\ude00` becomes `\U0001f600`. This applies only to a text
/// that is JSON, where a backslash is always an escape.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        written.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match surrogate_pair(rest.as_bytes()) {
            Some(character) => {
                written.push_str(&format!("\\U{:08x}", u32::from(character)));
                12
            }
            // The backslash and the byte that it escapes: in JSON it is always one byte.
            None => {
                written.push_str(&rest[..2]);
                2
            }
        };
        rest = &rest[length..];
    }
    written.push_str(rest);
    Cow::Owned(written)
}

/// Returns the character of two escapes such as `\ud83d\ude00` at the start of `text`.
fn surrogate_pair(text: &[u8]) -> Option<char> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let units = [unit(0)?, unit(6)?];
    // If the first unit is a whole character, the two are not a pair.
    let mut characters = char::decode_utf16(units);
    let first = characters.next()?.ok()?;
    characters.next().is_none().then_some(first)
}
