//! The operator `sem_ver` of flagd. A version may lack its later parts, and may be a number.

use std::cmp::Ordering;

use serde_json::{Number, Value, json};

use crate::import::attribute;
use crate::import::javascript::Attribute;
use crate::import::logic::Logic;

/// A version's first two numbers, and how it compares with the release of only these two.
struct Bound {
    text: String,
    major: u64,
    minor: u64,
    /// How `major.minor.0` compares with it.
    release: Ordering,
}

/// An answer that may be none, which is neither true nor false.
pub struct Answer {
    pub is_true: Logic,
    pub is_known: Logic,
}

impl Answer {
    pub fn none() -> Answer {
        Answer { is_true: Logic::FALSE, is_known: Logic::FALSE }
    }
}

/// Compares the attribute, if it is a version, with the version `bound`.
pub fn compare(attribute: &Attribute, operator: &str, bound: &str) -> Answer {
    let Some(bound) = Bound::parse(bound) else { return Answer::none() };
    let Bound { text, major, minor, .. } = &bound;
    let path = attribute.path.as_str();
    let test = |operator, text: &str| Logic::test(path, operator, text);
    let from_to =
        |from: String, to: String| Logic::all([test("version_at_least", &from), test("version_below", &to)]);
    let is_true = match operator {
        "=" => test("version_equals", text),
        "!=" => Logic::all([attribute::is_version(path), test("version_equals", text).not()]),
        "<" => test("version_below", text),
        "<=" => test("version_at_most", text),
        ">" => test("version_above", text),
        ">=" => test("version_at_least", text),
        // The first version of all with these numbers is the lowest pre-release.
        "^" => from_to(format!("{major}.0.0-0"), format!("{}.0.0-0", major + 1)),
        "~" => from_to(format!("{major}.{minor}.0-0"), format!("{major}.{}.0-0", minor + 1)),
        _ => return Answer::none(),
    };
    let any_number = Logic::test(path, "at_least", 0);
    Answer {
        is_true: Logic::any([is_true, bound.as_number(path, operator)]),
        is_known: Logic::any([attribute::is_version(path), any_number]),
    }
}

impl Bound {
    fn parse(text: &str) -> Option<Bound> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let core = text.split(['-', '+']).next()?;
        let mut numbers = [0_u64; 3];
        for (index, number) in core.split('.').enumerate() {
            *numbers.get_mut(index)? = number.parse().ok()?;
        }
        let is_release = !text.split('+').next()?.contains('-');
        let release = match (numbers[2], is_release) {
            (0, true) => Ordering::Equal,
            (0, false) => Ordering::Greater,
            _ => Ordering::Less,
        };
        Some(Bound { text: text.to_owned(), major: numbers[0], minor: numbers[1], release })
    }

    /// The attribute is a number such as 1 or 1.2, which stands for 1.0.0 or 1.2.0, and compares so. This is right for numbers
    /// with one decimal at most.
    fn as_number(&self, path: &str, operator: &str) -> Logic {
        if self.minor > 9 {
            return Logic::FALSE;
        }
        let text = format!("{}.{}", self.major, self.minor);
        let both = text.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number);
        let test = |operator, bound: &Value| Logic::test(path, operator, bound.clone());
        let within = |from: Value, to: Value| Logic::all([test("at_least", &from), test("below", &to)]);
        let next_minor = format!("{}.{}", self.major, self.minor + 1).parse::<f64>();
        match (operator, self.release) {
            ("=", Ordering::Equal) => test("equals", &both),
            ("=", _) => Logic::FALSE,
            ("!=", Ordering::Equal) => Logic::all([test("at_least", &json!(0)), test("equals", &both).not()]),
            ("!=", _) => test("at_least", &json!(0)),
            ("<", Ordering::Less) | ("<=", Ordering::Less | Ordering::Equal) => {
                Logic::all([test("at_least", &json!(0)), test("at_most", &both)])
            }
            ("<" | "<=", _) => Logic::all([test("at_least", &json!(0)), test("below", &both)]),
            (">", Ordering::Greater) | (">=", Ordering::Greater | Ordering::Equal) => test("at_least", &both),
            (">" | ">=", _) => test("above", &both),
            ("^", _) => within(json!(self.major), json!(self.major + 1)),
            ("~", _) if self.minor < 9 => next_minor.map_or(Logic::FALSE, |next| within(both, json!(next))),
            ("~", _) => within(both, json!(self.major + 1)),
            _ => Logic::FALSE,
        }
    }
}
