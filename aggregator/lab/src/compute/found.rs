//! What a method found, field by field: a number, or null with the reason. Nothing here can be NaN.

use serde_json::{Map, Value, json};
use stats::{Interval, Invalid, Missing, NoAnswer};

/// An object of answers, for each null among them why it is one, and what to know before reading some of the others.
#[derive(Default)]
pub struct Found {
    fields: Map<String, Value>,
    missing: Map<String, Value>,
    warnings: Map<String, Value>,
}

impl Found {
    /// Adds a field; in the order of the calls where the map keeps it.
    pub fn put(&mut self, name: &str, value: impl Shown) {
        match value.shown() {
            Ok(value) => {
                self.fields.insert(name.to_owned(), value);
            }
            Err(why) => self.lacking(name, why),
        }
    }

    /// The same on the way.
    pub fn with(mut self, name: &str, value: impl Shown) -> Found {
        self.put(name, value);
        self
    }

    /// A null and why it is one.
    pub fn lacking(&mut self, name: &str, why: impl ToString) {
        self.fields.insert(name.to_owned(), Value::Null);
        self.note(name, why);
    }

    /// Why entries of the list in this field are null.
    pub fn note(&mut self, name: &str, why: impl ToString) {
        self.missing.insert(name.to_owned(), json!(why.to_string()));
    }

    /// What to know before reading this field.
    pub fn warn(&mut self, name: &str, what: impl ToString) {
        self.warnings.insert(name.to_owned(), json!(what.to_string()));
    }

    /// As one JSON object; `missing` and `warnings` only where there are any.
    pub fn shown(self) -> Value {
        let mut fields = self.fields;
        for (name, of) in [("missing", self.missing), ("warnings", self.warnings)] {
            if !of.is_empty() {
                fields.insert(name.to_owned(), Value::Object(of));
            }
        }
        Value::Object(fields)
    }
}

/// What can stand in a field: the value, or why there is none.
pub trait Shown {
    fn shown(self) -> Result<Value, String>;
}

impl Shown for f64 {
    fn shown(self) -> Result<Value, String> {
        if self.is_nan() {
            Err("the formula has no value for these data".to_owned())
        } else if self.is_finite() {
            Ok(json!(self))
        } else {
            Err("it is beyond every number".to_owned())
        }
    }
}

/// A number that may be infinite: an open end, a bound that nothing reaches.
pub struct Open(pub f64);

impl Shown for Open {
    fn shown(self) -> Result<Value, String> {
        match self.0 {
            f64::INFINITY => Ok(json!("inf")),
            f64::NEG_INFINITY => Ok(json!("-inf")),
            number => number.shown(),
        }
    }
}

impl Shown for Interval {
    fn shown(self) -> Result<Value, String> {
        Ok(json!([Open(self.lower).shown()?, Open(self.upper).shown()?]))
    }
}

impl Shown for u64 {
    fn shown(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl Shown for usize {
    fn shown(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl Shown for bool {
    fn shown(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl Shown for &str {
    fn shown(self) -> Result<Value, String> {
        Ok(json!(self))
    }
}

impl Shown for Value {
    fn shown(self) -> Result<Value, String> {
        Ok(self)
    }
}

impl Shown for Found {
    fn shown(self) -> Result<Value, String> {
        Ok(Found::shown(self))
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(self) -> Result<Value, String> {
        self.into_iter().map(Shown::shown).collect::<Result<Vec<Value>, String>>().map(Value::Array)
    }
}

impl<T: Shown> Shown for Result<T, Missing> {
    fn shown(self) -> Result<Value, String> {
        self.map_err(|missing| missing.to_string())?.shown()
    }
}

impl<T: Shown> Shown for Result<T, NoAnswer> {
    fn shown(self) -> Result<Value, String> {
        self.map_err(|none| none.to_string())?.shown()
    }
}

impl<T: Shown> Shown for Result<T, Invalid> {
    fn shown(self) -> Result<Value, String> {
        self.map_err(|invalid| invalid.to_string())?.shown()
    }
}
