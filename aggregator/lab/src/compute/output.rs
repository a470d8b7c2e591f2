//! The answer of a method, field by field: a number, or null with the reason. No field can be NaN.

use serde_json::{Map, Value, json};
use stats::{Interval, Invalid, Missing, NoAnswer};

/// The fields of an answer, with the reason for each null and with warnings about some of the others.
#[derive(Default)]
pub struct Output {
    fields: Map<String, Value>,
    missing: Map<String, Value>,
    warnings: Map<String, Value>,
}

impl Output {
    /// Adds a field, in the order of the calls if the map keeps an order.
    pub fn put(&mut self, name: &str, value: impl IntoField) {
        match value.into_field() {
            Ok(value) => {
                self.fields.insert(name.to_owned(), value);
            }
            Err(why) => self.lacking(name, why),
        }
    }

    /// Adds a field and returns the answer, for chaining.
    pub fn with(mut self, name: &str, value: impl IntoField) -> Output {
        self.put(name, value);
        self
    }

    /// Adds a null with its reason.
    pub fn lacking(&mut self, name: &str, why: impl ToString) {
        self.fields.insert(name.to_owned(), Value::Null);
        self.note(name, why);
    }

    /// Adds the reason why entries of the list in this field are null.
    pub fn note(&mut self, name: &str, why: impl ToString) {
        self.missing.insert(name.to_owned(), json!(why.to_string()));
    }

    /// Adds a warning about this field.
    pub fn warn(&mut self, name: &str, what: impl ToString) {
        self.warnings.insert(name.to_owned(), json!(what.to_string()));
    }

    /// Converts the answer to one JSON object, with `missing` and `warnings` only where there are any.
    pub fn into_json(self) -> Value {
        let mut fields = self.fields;
        for (name, of) in [("missing", self.missing), ("warnings", self.warnings)] {
            if !of.is_empty() {
                fields.insert(name.to_owned(), Value::Object(of));
            }
        }
        Value::Object(fields)
    }
}

/// A value for a field, which converts to JSON or to the reason why there is none.
pub trait IntoField {
    fn into_field(self) -> Result<Value, String>;
}

impl IntoField for f64 {
    fn into_field(self) -> Result<Value, String> {
        if self.is_nan() {
            Err("the formula has no value for these data".to_owned())
        } else if self.is_finite() {
            Ok(json!(self))
        } else {
            Err("it is beyond every number".to_owned())
        }
    }
}

/// A number that may be infinite, such as an end of an interval or a bound that nothing reaches.
pub struct Open(pub f64);

impl IntoField for Open {
    fn into_field(self) -> Result<Value, String> {
        match self.0 {
            f64::INFINITY => Ok(json!("inf")),
            f64::NEG_INFINITY => Ok(json!("-inf")),
            number => number.into_field(),
        }
    }
}

impl IntoField for Interval {
    fn into_field(self) -> Result<Value, String> {
        Ok(json!([Open(self.lower).into_field()?, Open(self.upper).into_field()?]))
    }
}

impl IntoField for u64 {
    fn into_field(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl IntoField for usize {
    fn into_field(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl IntoField for bool {
    fn into_field(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl IntoField for &str {
    fn into_field(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl IntoField for Value {
    fn into_field(self) -> Result<Value, String> {
        Ok(self)
    }
}

impl IntoField for Output {
    fn into_field(self) -> Result<Value, String> {
        Ok(Output::into_json(self))
    }
}

impl<T: IntoField> IntoField for Vec<T> {
    fn into_field(self) -> Result<Value, String> {
        self.into_iter().map(IntoField::into_field).collect::<Result<Vec<Value>, String>>().map(Value::Array)
    }
}

impl<T: IntoField> IntoField for Result<T, Missing> {
    fn into_field(self) -> Result<Value, String> {
        self.map_err(|missing| missing.to_string())?.into_field()
    }
}

impl<T: IntoField> IntoField for Result<T, NoAnswer> {
    fn into_field(self) -> Result<Value, String> {
        self.map_err(|none| none.to_string())?.into_field()
    }
}

impl<T: IntoField> IntoField for Result<T, Invalid> {
    fn into_field(self) -> Result<Value, String> {
        self.map_err(|invalid| invalid.to_string())?.into_field()
    }
}
