//! Conditions on the attributes of a unit: one test of one attribute, or several joined by `all`, `any` and
//! `not`. This module only defines their form; `targeting.rs` of the package `assignment` evaluates them. A
//! new operator must be added here, there, in `definition.schema.json`, and to a rule (`rule.rs`).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

use super::reading::present;
use crate::key::Key;

/// The maximum depth of a condition.
pub const CONDITION_DEPTH_MAX: usize = 8;

/// The name by which a test asks for the id of the unit that is evaluated instead of an attribute.
pub const TARGETING_KEY: &str = "targetingKey";

/// A condition that is true or false for a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Condition {
    /// All conditions are true; true if there is none.
    All(Vec<Condition>),
    /// At least one condition is true; false if there is none.
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Test),
}

/// A test of one attribute, or of the unit's id if it is named [`TARGETING_KEY`]: that of the `unit_type` of the flag or
/// experiment. An attribute that is absent fails every test but `exists: false`.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub attribute: String,
    pub operator: Operator,
}

/// The number that an attribute is compared with. Each value has one representation, so that bounds of equal
/// value are equal: an integer if its magnitude is above 2^53 and it fits 64 bits (there not every integer is a
/// double), otherwise a double.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound(Number);

impl Bound {
    pub fn new(number: Number) -> Bound {
        /// 2^53: up to it every integer is a double.
        const DOUBLES_TO: u128 = 9_007_199_254_740_992;
        // A double above 2^53 is whole. Beyond 64 bits it is not an integer of JSON.
        let integer = number.as_i128().or_else(|| number.as_f64().map(|double| double as i128));
        let form = match integer {
            Some(integer) if integer.unsigned_abs() > DOUBLES_TO => Number::from_i128(integer),
            _ => number.as_f64().and_then(Number::from_f64),
        };
        Bound(form.unwrap_or(number))
    }

    pub fn number(&self) -> &Number {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bound, D::Error> {
        Number::deserialize(deserializer).map(Bound::new)
    }
}

/// Declares each operator once: its field in JSON and YAML, its variant, and the type of its operand.
macro_rules! operators {
    ($($(#[doc = $doc:literal])* $field:ident => $variant:ident($operand:ty),)*) => {
        /// What a test asks of an attribute.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Operator {
            $($(#[doc = $doc])* $variant($operand),)*
        }

        /// The form in JSON and YAML: `{all: [...]}`, `{any: [...]}`, `{not: {...}}` or an attribute with exactly one
        /// operator.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Written {
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            all: Option<Vec<Condition>>,
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            any: Option<Vec<Condition>>,
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            not: Option<Box<Condition>>,
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            attribute: Option<String>,
            $(
                #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
                $field: Option<$operand>,
            )*
        }

        impl Written {
            fn operators(&mut self) -> Vec<Operator> {
                [$(self.$field.take().map(Operator::$variant),)*].into_iter().flatten().collect()
            }

            fn set(&mut self, operator: Operator) {
                match operator {
                    $(Operator::$variant(operand) => self.$field = Some(operand),)*
                }
            }
        }
    };
}

operators! {
    equals => Equals(Value),
    r#in => In(Vec<Value>),
    /// A list that has at least one of the values.
    has_any => HasAny(Vec<Value>),
    /// A list that has all of the values.
    has_all => HasAll(Vec<Value>),
    /// A text that is a member of the list with this key.
    in_list => InList(Key),
    above => Above(Bound),
    at_least => AtLeast(Bound),
    below => Below(Bound),
    at_most => AtMost(Bound),
    starts_with => StartsWith(String),
    ends_with => EndsWith(String),
    contains => Contains(String),
    /// A regular expression, unanchored. A text of more than 4,096 bytes fails the test.
    matches => Matches(String),
    /// Semantic versions, by their precedence.
    version_equals => VersionEquals(String),
    version_above => VersionAbove(String),
    version_at_least => VersionAtLeast(String),
    version_below => VersionBelow(String),
    version_at_most => VersionAtMost(String),
    /// RFC 3339 times: the bound from 1970 to 2261, the attribute of any year.
    before => Before(String),
    after => After(String),
    exists => Exists(bool),
}

const SHAPE: &str =
    "a condition is {all: [...]}, {any: [...]}, {not: {...}} or an attribute with exactly one operator";

const NOTHING_TO_EQUAL: &str = "`equals` needs a value; whether an attribute is there is what `exists` asks";

impl TryFrom<Written> for Condition {
    type Error = &'static str;

    fn try_from(mut written: Written) -> Result<Condition, &'static str> {
        let mut operators = written.operators();
        let Written { all, any, not, attribute, .. } = written;
        match (all, any, not, attribute, operators.pop(), operators.is_empty()) {
            (Some(all), None, None, None, None, true) => Ok(Condition::All(all)),
            (None, Some(any), None, None, None, true) => Ok(Condition::Any(any)),
            (None, None, Some(not), None, None, true) => Ok(Condition::Not(not)),
            (None, None, None, Some(_), Some(Operator::Equals(Value::Null)), true) => Err(NOTHING_TO_EQUAL),
            (None, None, None, Some(attribute), Some(operator), true) => {
                Ok(Condition::Test(Test { attribute, operator }))
            }
            _ => Err(SHAPE),
        }
    }
}

impl From<Condition> for Written {
    fn from(condition: Condition) -> Written {
        let mut written = Written::default();
        match condition {
            Condition::All(all) => written.all = Some(all),
            Condition::Any(any) => written.any = Some(any),
            Condition::Not(not) => written.not = Some(not),
            Condition::Test(Test { attribute, operator }) => {
                written.attribute = Some(attribute);
                written.set(operator);
            }
        }
        written
    }
}

impl Condition {
    /// The lists that its tests name.
    pub fn lists(&self) -> Vec<&Key> {
        match self {
            Condition::Test(Test { operator: Operator::InList(list), .. }) => vec![list],
            Condition::Test(_) => Vec::new(),
            Condition::Not(inner) => inner.lists(),
            Condition::All(inner) | Condition::Any(inner) => {
                inner.iter().flat_map(Condition::lists).collect()
            }
        }
    }

    /// Returns the depth: 1 for a single test.
    pub fn depth(&self) -> usize {
        match self {
            Condition::Test(_) => 1,
            Condition::Not(inner) => 1 + inner.depth(),
            Condition::All(inner) | Condition::Any(inner) => {
                1 + inner.iter().map(Condition::depth).max().unwrap_or(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_as_it_was_read() {
        let text = r#"{"all":[{"attribute":"plan","in":["pro"]},{"not":{"attribute":"age","below":18.0}}]}"#;
        let condition: Condition = serde_json::from_str(text).unwrap();
        assert_eq!(condition.depth(), 3);
        assert_eq!(serde_json::to_string(&condition).unwrap(), text);
    }

    #[test]
    fn two_operators_or_none_are_refused() {
        for text in [
            r#"{"attribute":"age","above":1,"below":9}"#,
            r#"{"attribute":"age"}"#,
            r#"{"below":9}"#,
            r#"{"all":[],"any":[]}"#,
            "{}",
        ] {
            let error = serde_json::from_str::<Condition>(text).unwrap_err().to_string();
            assert!(error.starts_with(SHAPE), "{text}: {error}");
        }
    }

    #[test]
    fn a_bound_keeps_its_value_and_equal_ones_are_equal() {
        let bound = |json: &str| serde_json::from_str::<Bound>(json).unwrap();
        for (json, kept) in [
            ("18", "18.0"),
            ("18.0", "18.0"),
            ("-0.5", "-0.5"),
            ("9007199254740992", "9007199254740992.0"),
            ("9007199254740993", "9007199254740993"),
            ("-9007199254740993", "-9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("9.223372036854775808e18", "9223372036854775808"),
            ("1.8446744073709552e19", "1.8446744073709552e+19"),
            ("-1e300", "-1e+300"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            assert_eq!(serde_json::to_string(&bound(json)).unwrap(), kept, "{json}");
            assert_eq!(bound(kept), bound(json), "{json}");
        }
        assert_eq!(bound("18"), bound("18.0"));
        assert_ne!(bound("9007199254740993"), bound("9007199254740992"));
        assert_ne!(bound("18446744073709551615"), bound("18446744073709551616.0"));
    }
}
