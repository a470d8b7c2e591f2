//! Compares an attribute with a value with the conversions of JavaScript, as JsonLogic and GrowthBook do: `"1" == 1` holds, and nothing is less
//! than 5, because nothing is converted to 0.

use serde_json::{Number, Value, json};

use super::attribute::{self, Part};
use super::logic::Logic;
use super::pattern::{self, Compare};

/// An attribute in an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub path: String,
    /// What stands for an absent attribute; null if nothing was said.
    pub default: Value,
    pub case: Option<Case>,
}

/// An attribute whose letters of ASCII are first converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Lower,
    Upper,
}

impl Case {
    pub fn convert(self, text: &str) -> String {
        match self {
            Case::Lower => text.to_ascii_lowercase(),
            Case::Upper => text.to_ascii_uppercase(),
        }
    }
}

impl Attribute {
    /// Joins what holds for a value that is there with what its default makes of one that is not.
    fn with_default(&self, present: Logic, default_holds: bool) -> Logic {
        let missing = if default_holds { attribute::missing(&self.path) } else { Logic::FALSE };
        Logic::any([present, missing])
    }

    /// The attribute has the text at that place.
    pub fn has_text(&self, part: Part, text: &str) -> Logic {
        let present = match self.case {
            None => attribute::text(&self.path, part, text),
            Some(case) if case.convert(text) != text => Logic::FALSE,
            Some(_) => {
                let pattern = part.pattern(&pattern::escape_ascii_case(text));
                Logic::test(&self.path, "matches", pattern)
            }
        };
        let default = self.default.as_str().is_some_and(|default| match part {
            Part::Start => default.starts_with(text),
            Part::End => default.ends_with(text),
            Part::Anywhere => default.contains(text),
            Part::Whole => default == text,
        });
        self.with_default(present, default)
    }

    /// The attribute is a text.
    pub fn is_text(&self) -> Logic {
        self.with_default(attribute::is_text(&self.path), self.default.is_string())
    }

    pub fn is_truthy(&self) -> Logic {
        self.with_default(attribute::truthy(&self.path, true), is_truthy(&self.default))
    }

    pub fn equals(&self, value: &Value, strict: bool) -> Logic {
        let default_holds = equal(&self.default, value, strict);
        if self.case.is_some() {
            let text = value.as_str();
            return text.map_or(Logic::constant(false), |text| self.has_text(Part::Whole, text));
        }
        let path = self.path.as_str();
        let present = match value {
            Value::Null => Logic::FALSE,
            value if strict => attribute::equals(path, value),
            Value::String(text) => {
                let number = attribute::to_number(text);
                let as_number = number.map(|number| numbers_and_booleans(path, Compare::Equal, &number));
                Logic::any([attribute::equals(path, value)].into_iter().chain(as_number))
            }
            Value::Number(number) => attribute::number(path, Compare::Equal, number),
            Value::Bool(value) => attribute::number(path, Compare::Equal, &Number::from(u8::from(*value))),
            value => attribute::equals(path, value),
        };
        self.with_default(present, default_holds)
    }

    /// `None` if the value has no counterpart in a comparison by order.
    pub fn compares(&self, compare: Compare, value: &Value) -> Option<Logic> {
        if self.case.is_some() {
            return None;
        }
        let path = self.path.as_str();
        let present = match value {
            Value::Number(number) => attribute::number(path, compare, number),
            Value::Bool(value) => attribute::number(path, compare, &Number::from(u8::from(*value))),
            Value::Null => attribute::number(path, compare, &Number::from(0)),
            Value::String(text) => {
                let as_number =
                    attribute::to_number(text).map(|number| numbers_and_booleans(path, compare, &number));
                Logic::any([attribute::text_order(path, compare, text)?].into_iter().chain(as_number))
            }
            Value::Array(_) | Value::Object(_) => return None,
        };
        Some(self.with_default(present, compared(compare, &self.default, value)))
    }

    /// The attribute is one of the values, of the same type.
    pub fn is_one_of(&self, values: &[Value]) -> Logic {
        Logic::any(values.iter().map(|value| match (value, self.case) {
            (Value::String(text), Some(_)) => self.has_text(Part::Whole, text),
            (value, _) => self.with_default(
                if value.is_null() { Logic::FALSE } else { attribute::equals(&self.path, value) },
                self.default == *value,
            ),
        }))
    }

    /// The attribute is a text that contains the value, or a list that has it.
    pub fn contains(&self, value: &Value) -> Option<Logic> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        let in_text = self.has_text(Part::Anywhere, &text);
        let in_list = match self.case {
            None => attribute::list_with_any(&self.path, std::slice::from_ref(value)),
            Some(_) => Logic::FALSE,
        };
        Some(Logic::any([in_text, in_list]))
    }
}

/// The attribute is a number or a boolean that compares so; a text is compared as text by the caller.
fn numbers_and_booleans(path: &str, compare: Compare, bound: &Number) -> Logic {
    let double = bound.as_f64().unwrap_or(f64::NAN);
    let boolean = |value: bool| {
        let holds = compare.holds(f64::from(u8::from(value)), double);
        holds.then(|| attribute::equals(path, &json!(value)))
    };
    let number = Logic::test(path, compare.operator(), bound.clone());
    Logic::any([Some(number), boolean(true), boolean(false)].into_iter().flatten())
}

/// Whether the value counts as true in JsonLogic.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

/// Compares two values for equality.
pub fn equal(left: &Value, right: &Value, strict: bool) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (left, right) if strict || std::mem::discriminant(left) == std::mem::discriminant(right) => {
            left == right
        }
        (Value::Null, _) | (_, Value::Null) => false,
        (left, right) => match (as_number(left), as_number(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        },
    }
}

/// Compares two values by order: two texts as texts, everything else as numbers.
pub fn compared(compare: Compare, left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => compare.holds(left, right),
        (left, right) => match (as_number(left), as_number(right)) {
            (Some(left), Some(right)) => compare.holds(left, right),
            _ => false,
        },
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => attribute::to_number(text)?.as_f64(),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_converted_as_in_javascript() {
        for (left, right, loose, strict) in [
            (json!(1), json!("1"), true, false),
            (json!(1), json!(1.0), true, true),
            (json!(true), json!("1"), true, false),
            (json!(0), json!(""), true, false),
            (json!(null), json!(0), false, false),
            (json!(null), json!(null), true, true),
            (json!("1"), json!("1.0"), false, false),
        ] {
            assert_eq!(
                (equal(&left, &right, false), equal(&left, &right, true)),
                (loose, strict),
                "{left} {right}"
            );
        }
        assert!(compared(Compare::Below, &json!(null), &json!(5)));
        assert!(compared(Compare::Below, &json!("10"), &json!("9")));
        assert!(!compared(Compare::Below, &json!("10"), &json!(9)));
    }
}
