//! Tests of one attribute as JavaScript makes them, which the foreign formats take over: a number may be written as text,
//! nothing counts as zero, and some values count as false. Each is built from the operators of a definition.

use serde_json::{Number, Value, json};

pub use schemas::definition::TARGETING_KEY;

use super::logic::Logic;
use super::pattern::{self, Compare};

/// What a finding says of [`number`] and [`number_or_text`].
pub const PLAIN_NUMBERS: &str =
    "a text counts as a number if it is a plain decimal number, unlike `1e3` and `0x10`";

/// The attribute is absent or null.
pub fn missing(attribute: &str) -> Logic {
    Logic::any([Logic::test(attribute, "exists", false), Logic::test(attribute, "in", json!([null]))])
}

/// The attribute is this value, of the same type.
pub fn equals(attribute: &str, value: &Value) -> Logic {
    match value {
        Value::Null => missing(attribute),
        value => Logic::test(attribute, "equals", value.clone()),
    }
}

/// The attribute is one of these values, of the same type. A null among them stands for an absent attribute too.
pub fn one_of(attribute: &str, values: &[Value]) -> Logic {
    Logic::any(values.iter().map(|value| equals(attribute, value)))
}

/// The attribute is a list that has one of these values.
pub fn list_with_any(attribute: &str, values: &[Value]) -> Logic {
    if values.is_empty() { Logic::FALSE } else { Logic::test(attribute, "has_any", json!(values)) }
}

pub fn is_text(attribute: &str) -> Logic {
    Logic::test(attribute, "starts_with", "")
}

pub fn is_version(attribute: &str) -> Logic {
    Logic::test(attribute, "version_at_least", "0.0.0-0")
}

/// The attribute has the id of a unit: a text that is not empty.
pub fn is_unit(attribute: &str) -> Logic {
    match attribute {
        TARGETING_KEY => Logic::test(attribute, "exists", true),
        attribute => Logic::test(attribute, "matches", "(?s)."),
    }
}

/// The attribute is there and does not count as false; JavaScript counts an empty list as true, JsonLogic as false.
pub fn truthy(attribute: &str, empty_list_is_false: bool) -> Logic {
    let mut nothing = vec![Value::Null, json!(false), json!(0), json!("")];
    if empty_list_is_false {
        nothing.push(json!([]));
    }
    Logic::all([
        Logic::test(attribute, "exists", true),
        Logic::test(attribute, "in", Value::Array(nothing)).not(),
    ])
}

/// The attribute, converted to a number, compares so with the bound. True and false are 1 and 0, an empty text is 0; whether
/// nothing is 0 too is up to the caller, who knows what an absent attribute is.
pub fn number(attribute: &str, compare: Compare, bound: &Number) -> Logic {
    let double = bound.as_f64().unwrap_or(f64::NAN);
    let mut parts = vec![Logic::test(attribute, compare.operator(), bound.clone())];
    parts.extend(pattern::decimal(compare, bound).map(|pattern| Logic::test(attribute, "matches", pattern)));
    if compare.holds(1.0, double) {
        parts.push(equals(attribute, &json!(true)));
    }
    if compare.holds(0.0, double) {
        parts.push(equals(attribute, &json!(false)));
        parts.push(equals(attribute, &json!("")));
    }
    Logic::any(parts)
}

/// As [`number`], for an attribute that is a number or a number as text and nothing else.
pub fn number_or_text(attribute: &str, compare: Compare, bound: &Number) -> Logic {
    let as_text = pattern::decimal(compare, bound).map(|pattern| Logic::test(attribute, "matches", pattern));
    Logic::any([Logic::test(attribute, compare.operator(), bound.clone())].into_iter().chain(as_text))
}

/// The attribute, a text, comes so in the order of texts. `None` if the bound is too long.
pub fn text_order(attribute: &str, compare: Compare, bound: &str) -> Option<Logic> {
    if compare == Compare::Equal {
        return Some(Logic::test(attribute, "equals", bound));
    }
    pattern::order(compare, bound).map(|pattern| Logic::test(attribute, "matches", pattern))
}

/// Where a text test looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Start,
    End,
    Anywhere,
    Whole,
}

impl Part {
    pub fn operator(self) -> &'static str {
        match self {
            Part::Start => "starts_with",
            Part::End => "ends_with",
            Part::Anywhere => "contains",
            Part::Whole => "equals",
        }
    }

    /// Anchors a pattern.
    pub fn pattern(self, pattern: &str) -> String {
        match self {
            Part::Start => format!("^{pattern}"),
            Part::End => format!("{pattern}$"),
            Part::Anywhere => pattern.to_owned(),
            Part::Whole => format!("^{pattern}$"),
        }
    }
}

/// The attribute has this text at that place.
pub fn text(attribute: &str, part: Part, text: &str) -> Logic {
    Logic::test(attribute, part.operator(), text)
}

/// As [`text`], without regard to case.
pub fn text_in_any_case(attribute: &str, part: Part, text: &str) -> Logic {
    let pattern = part.pattern(&pattern::escape(text));
    Logic::test(attribute, "matches", format!("(?i){pattern}"))
}

/// Reads a text as JavaScript converts it to a number: only plain decimal numbers and nothing but blanks, which is 0.
pub fn to_number(text: &str) -> Option<Number> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Number::from(0));
    }
    let is_plain = text.contains(|digit: char| digit.is_ascii_digit())
        && text.chars().all(|character| character.is_ascii_digit() || matches!(character, '+' | '-' | '.'));
    if !is_plain {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let whole = text.parse::<i64>().map(Number::from).ok();
    whole.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

/// Returns whether the text is how a number is usually written, so that the number stands for the text.
pub fn as_usual_number(text: &str) -> Option<Number> {
    to_number(text).filter(|number| number.to_string() == text)
}

/// Whether a path leads into a list, where a definition's path leads nowhere.
pub fn leads_into_a_list(path: &str) -> bool {
    path.split('.').skip(1).any(|step| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_javascript_does() {
        for (text, number) in [
            ("12", Some(json!(12))),
            (" 1.5 ", Some(json!(1.5))),
            ("", Some(json!(0))),
            ("1e3", None),
            ("x", None),
            ("1.2.3", None),
            ("+3", Some(json!(3))),
        ] {
            assert_eq!(to_number(text).map(Value::Number), number, "{text:?}");
        }
        assert_eq!(as_usual_number("8"), Some(Number::from(8)));
        assert_eq!(as_usual_number("08"), None);
    }

    #[test]
    fn only_later_steps_of_a_path_lead_into_a_list() {
        assert!(leads_into_a_list("tags.0"));
        assert!(!leads_into_a_list("404.page"));
        assert!(!leads_into_a_list("father.age"));
    }
}
