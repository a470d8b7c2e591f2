//! Reads the types of definitions from JSON. It is stricter than the JSON library (it does not accept a list
//! for a struct, or a map for a variant of an enum), and an error states what the field must be and what it
//! is instead.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::Value;

use super::check::Problem;
use crate::event::{Decimal6, NotADecimal};
use crate::number::TWO_TO_THE_64;

/// How many characters of a wrong text an error quotes.
const QUOTED_CHARS_MAX: usize = 40;

/// Reads a `T`. The error names the field.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(Strict(value))
        .map_err(|error| Problem::new(error.path().to_string(), error.into_inner().0))
}

/// Reads a field that is present. A null is a value, so it does not leave the field out.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A decimal of a definition. It is text: a number of a file is a double, which has too few digits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct WrittenDecimal(pub Decimal6);

impl TryFrom<String> for WrittenDecimal {
    type Error = NotADecimal;

    fn try_from(text: String) -> Result<WrittenDecimal, NotADecimal> {
        Decimal6::parse(&text).map(WrittenDecimal)
    }
}

impl From<WrittenDecimal> for String {
    fn from(written: WrittenDecimal) -> String {
        written.0.to_string()
    }
}

/// Describes a value in the terms of the file, for an error.
pub(super) fn describe_value(value: &Value) -> String {
    describe(unexpected(value))
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => Unexpected::Unsigned(number),
            (_, Some(number), _) => Unexpected::Signed(number),
            (_, _, Some(number)) => Unexpected::Float(number),
            _ => Unexpected::Other("a number"),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct Strict(Value);

impl Strict {
    /// Makes an integer of a whole double: JSON has one kind of number, so 5e3 and 5000.0 are the whole
    /// number 5000.
    fn whole(self) -> Strict {
        match self.0.as_f64() {
            Some(number)
                if self.0.is_f64() && number.fract() == 0.0 && (0.0..TWO_TO_THE_64).contains(&number) =>
            {
                Strict(Value::from(number as u64))
            }
            _ => self,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        unexpected(&self.0)
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, Some(number)) => visitor.visit_f64(number),
                _ => Err(FieldError::custom(format!("{number} is too large for a number"))),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let list = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(list)
            }
            Value::Object(fields) => visitor.visit_map(MapDeserializer::new(
                fields.into_iter().map(|(name, value)| (name, Strict(value))),
            )),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        if self.0.is_object() {
            self.deserialize_any(visitor)
        } else {
            Err(FieldError::invalid_type(self.unexpected(), &visitor))
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(word.into_deserializer()),
            _ => Err(FieldError(format!(
                "must be one of {}, not {}",
                words.join(", "),
                describe(self.unexpected())
            ))),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.whole().deserialize_any(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.whole().deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, FieldError> for Strict {
    type Deserializer = Strict;

    fn into_deserializer(self) -> Strict {
        self
    }
}

/// What is wrong with a field, in the terms of the file.
#[derive(Debug)]
struct FieldError(String);

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FieldError {}

impl Error for FieldError {
    fn custom<T: fmt::Display>(what: T) -> FieldError {
        FieldError(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> FieldError {
        let expected = expected.to_string();
        let hint = match found {
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
                if expected == "a string" =>
            {
                "; put it in quotes"
            }
            _ => "",
        };
        FieldError(format!("must be {}, not {}{hint}", expected_form(&expected), describe(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> FieldError {
        match found {
            Unexpected::Unsigned(number) => FieldError(format!("{number} is too large")),
            Unexpected::Signed(number) if number < 0 => {
                FieldError(format!("must be 0 or more, not {number}"))
            }
            found => FieldError::invalid_type(found, expected),
        }
    }

    /// Pairs are the only lists in a definition with a fixed length.
    fn invalid_length(length: usize, _expected: &dyn Expected) -> FieldError {
        FieldError(format!("must be a pair of whole numbers, not a list of {length}"))
    }

    fn unknown_variant(word: &str, words: &'static [&'static str]) -> FieldError {
        FieldError(format!("`{}` is none of {}", shortened(word), words.join(", ")))
    }

    fn unknown_field(_field: &str, fields: &'static [&'static str]) -> FieldError {
        FieldError(format!("no such field; there can be {}", fields.join(", ")))
    }

    fn missing_field(field: &'static str) -> FieldError {
        FieldError(format!("`{field}` is missing"))
    }
}

fn expected_form(expected: &str) -> &str {
    match expected {
        "u32" | "u64" => "a whole number",
        "f64" | "a JSON number" => "a number",
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a tuple of size 2" => "a pair of whole numbers",
        structure if structure.starts_with("struct ") => "a map of fields",
        other => other,
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text `{}`", shortened(text)),
        Unexpected::Unit => "nothing (null)".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
