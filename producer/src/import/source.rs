//! Reads the JSON of a source and says where it is wrong: the line and the field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Why a text is not a source of its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Counted from 1.
    pub line: usize,
    /// The path of the field; empty for the whole text.
    pub field: String,
    pub what: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unreadable { line, field, what } = self;
        match field.as_str() {
            "" => write!(formatter, "line {line}: {what}"),
            field => write!(formatter, "line {line}: {field}: {what}"),
        }
    }
}

/// A step of a path: the name of a field, or the index in a list.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// The text of a source with its value.
#[derive(Clone, Debug)]
pub struct Source<'t> {
    text: &'t str,
    pub value: Value,
}

impl<'t> Source<'t> {
    pub fn parse(text: &'t str) -> Result<Source<'t>, Unreadable> {
        let value = serde_json::from_str(text).map_err(|error| Unreadable {
            line: error.line().max(1),
            field: String::new(),
            what: format!("not JSON: {error}"),
        })?;
        Ok(Source { text, value })
    }

    /// Says that the value at this path is not what it must be.
    pub fn wrong(&self, path: &[Step<'_>], what: impl Into<String>) -> Unreadable {
        Unreadable { line: line_of(self.text, path), field: written(path), what: what.into() }
    }

    /// Returns the fields of the object at this path.
    pub fn fields(&self, path: &[Step<'_>]) -> Result<&Map<String, Value>, Unreadable> {
        self.at(path).as_object().ok_or_else(|| self.wrong(path, "must be an object"))
    }

    /// Returns the items of the list at this path; none if there is no such field.
    pub fn items(&self, path: &[Step<'_>]) -> Result<&[Value], Unreadable> {
        match self.at(path) {
            Value::Null => Ok(&[]),
            Value::Array(items) => Ok(items),
            _ => Err(self.wrong(path, "must be a list")),
        }
    }

    fn at(&self, path: &[Step<'_>]) -> &Value {
        static NOTHING: Value = Value::Null;
        let mut value = &self.value;
        for step in path {
            let inner = match step {
                Step::Field(name) => value.get(name),
                Step::Index(index) => value.get(index),
            };
            value = inner.unwrap_or(&NOTHING);
        }
        value
    }
}

fn written(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Returns the line on which the value at this path begins or, if it is not there, its closest ancestor.
fn line_of(text: &str, path: &[Step<'_>]) -> usize {
    let mut inner = text.trim();
    for step in path {
        let found = match step {
            Step::Field(name) => serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(inner)
                .ok()
                .and_then(|fields| fields.get(*name).map(|value| value.get())),
            Step::Index(index) => serde_json::from_str::<Vec<&RawValue>>(inner)
                .ok()
                .and_then(|items| items.get(*index).map(|value| value.get())),
        };
        match found {
            Some(found) => inner = found,
            None => break,
        }
    }
    let start = inner.as_ptr() as usize - text.as_ptr() as usize;
    1 + text[..start].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\n{\n  \"flags\": {\n    \"a\": {\"state\": \"ON\"},\n    \"b\\u0021\":\n      [1,\n       2]\n  }\n}\n";

    #[test]
    fn an_error_names_line_and_field() {
        let source = Source::parse(TEXT).unwrap();
        for (path, line, field) in [
            (&[][..], 2, ""),
            (&[Step::Field("flags")], 3, "flags"),
            (&[Step::Field("flags"), Step::Field("a"), Step::Field("state")], 4, "flags.a.state"),
            (&[Step::Field("flags"), Step::Field("a"), Step::Field("variants")], 4, "flags.a.variants"),
            (&[Step::Field("flags"), Step::Field("b!"), Step::Index(1)], 7, "flags.b![1]"),
        ] {
            let wrong = source.wrong(path, "is wrong");
            assert_eq!((wrong.line, wrong.field.as_str()), (line, field));
        }
        let error = source.fields(&[Step::Field("flags"), Step::Field("b!")]).unwrap_err();
        assert_eq!(error.to_string(), "line 6: flags.b!: must be an object");
        let error = Source::parse("{\n\"a\": 1,\n}").unwrap_err();
        assert_eq!(error.to_string(), "line 3: not JSON: trailing comma at line 3 column 1");
    }
}
