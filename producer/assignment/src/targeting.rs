//! Conditions, compiled once, and tested on a unit's attributes. An attribute that is absent, or of another type than the
//! test is about, fails the test: the text `"2"` is no number.

use std::cmp::Ordering;

use regex::Regex;
use schemas::Micros;
use schemas::definition::{Condition, Definitions, Operator, Test};
use serde_json::Value as Json;

use crate::context::{Context, Path, View};
use crate::lists::{CompiledList, ListSource, Lists};
use crate::number::Number;
use crate::version::Version;

/// Longest text that a regular expression is tried on, in bytes; a longer one does not match.
const MATCHED_BYTES_MAX: usize = 4_096;
/// Largest compiled regular expression, in bytes; a larger one is refused.
const PATTERN_BYTES_MAX: usize = 256 * 1_024;
/// From this number of values on, `in` looks texts up instead of comparing with each.
const SORTED_FROM: usize = 8;

/// A condition whose patterns, versions, times and sets are ready.
#[derive(Clone, Debug)]
pub struct CompiledCondition(Compiled);

#[derive(Clone, Debug)]
enum Compiled {
    All(Box<[Compiled]>),
    Any(Box<[Compiled]>),
    Not(Box<Compiled>),
    Test { attribute: Path, test: CompiledTest },
}

/// One operator with its operand.
#[derive(Clone, Debug)]
enum CompiledTest {
    EqualsText(Box<str>),
    EqualsNumber(Number),
    Equals(Json),
    In(Choices),
    InList(CompiledList),
    HasAny(Choices),
    HasAll(Box<[Json]>),
    /// No value passes it.
    Never,
    Above(Number),
    AtLeast(Number),
    Below(Number),
    AtMost(Number),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Matches(Regex),
    /// The order that the value's version has to the bound.
    Version {
        bound: Box<str>,
        is: fn(Ordering) -> bool,
    },
    Before(Micros),
    After(Micros),
    Exists(bool),
}

/// The values of `in`: texts sorted if they are many, and everything else.
#[derive(Clone, Debug)]
struct Choices {
    texts: Box<[Box<str>]>,
    others: Box<[Json]>,
}

/// Returns why the condition can never be evaluated: a pattern, version or time in it is none.
pub(crate) fn condition_problem(condition: &Condition) -> Option<String> {
    match condition {
        Condition::All(inner) | Condition::Any(inner) => inner.iter().find_map(condition_problem),
        Condition::Not(inner) => condition_problem(inner),
        Condition::Test(Test { operator, .. }) => CompiledTest::problem(operator),
    }
}

impl CompiledCondition {
    /// Compiles the condition. A test that can never be evaluated, because its pattern, version or time is none, is never
    /// passed; the writers of definitions refuse one, so only a log that another program wrote to can hold it.
    pub fn compile(source: &ListSource<'_>, condition: &Condition) -> CompiledCondition {
        CompiledCondition(Compiled::of(source, condition))
    }

    pub fn holds(&self, context: &Context<'_>) -> bool {
        self.0.holds(context)
    }
}

impl Compiled {
    fn of(source: &ListSource<'_>, condition: &Condition) -> Compiled {
        let all = |inner: &[Condition]| inner.iter().map(|inner| Compiled::of(source, inner)).collect();
        match condition {
            Condition::All(inner) => Compiled::All(all(inner)),
            Condition::Any(inner) => Compiled::Any(all(inner)),
            Condition::Not(inner) => Compiled::Not(Box::new(Compiled::of(source, inner))),
            Condition::Test(Test { attribute, operator }) => Compiled::Test {
                attribute: Path::of(attribute),
                test: CompiledTest::compile(source, operator).unwrap_or(CompiledTest::Never),
            },
        }
    }

    fn holds(&self, context: &Context<'_>) -> bool {
        match self {
            Compiled::All(inner) => inner.iter().all(|condition| condition.holds(context)),
            Compiled::Any(inner) => inner.iter().any(|condition| condition.holds(context)),
            Compiled::Not(inner) => !inner.holds(context),
            Compiled::Test { attribute, test } => match (context.find(attribute), test) {
                (value, CompiledTest::Exists(expected)) => value.is_some() == *expected,
                (None, _) => false,
                (Some(value), test) => test.passes(value),
            },
        }
    }
}

impl CompiledTest {
    /// Returns why the test can never be evaluated.
    fn problem(operator: &Operator) -> Option<String> {
        let nothing = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
        CompiledTest::compile(&nothing, operator).err()
    }

    fn compile(source: &ListSource<'_>, operator: &Operator) -> Result<CompiledTest, String> {
        let version = |text: &str, is: fn(Ordering) -> bool| match Version::parse(text) {
            Some(_) => Ok(CompiledTest::Version { bound: text.into(), is }),
            None => Err(format!("`{text}` is not a semantic version")),
        };
        let time = |text: &str| Micros::parse(text).map_err(|error| error.to_string());
        Ok(match operator {
            Operator::Equals(Json::String(text)) => CompiledTest::EqualsText(text.as_str().into()),
            Operator::Equals(Json::Number(number)) => CompiledTest::EqualsNumber(Number::of(number)),
            Operator::Equals(value) => CompiledTest::Equals(value.clone()),
            Operator::In(values) => CompiledTest::In(Choices::of(values)),
            Operator::InList(list) => CompiledTest::InList(source.compile(list)),
            Operator::HasAny(values) => CompiledTest::HasAny(Choices::of(values)),
            Operator::HasAll(values) => CompiledTest::HasAll(values.as_slice().into()),
            Operator::Above(bound) => CompiledTest::Above(bound.into()),
            Operator::AtLeast(bound) => CompiledTest::AtLeast(bound.into()),
            Operator::Below(bound) => CompiledTest::Below(bound.into()),
            Operator::AtMost(bound) => CompiledTest::AtMost(bound.into()),
            Operator::StartsWith(text) => CompiledTest::StartsWith(text.as_str().into()),
            Operator::EndsWith(text) => CompiledTest::EndsWith(text.as_str().into()),
            Operator::Contains(text) => CompiledTest::Contains(text.as_str().into()),
            Operator::Matches(pattern) => {
                let pattern = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
                CompiledTest::Matches(pattern.map_err(|error| error.to_string())?)
            }
            Operator::VersionEquals(text) => version(text, Ordering::is_eq)?,
            Operator::VersionAbove(text) => version(text, Ordering::is_gt)?,
            Operator::VersionAtLeast(text) => version(text, Ordering::is_ge)?,
            Operator::VersionBelow(text) => version(text, Ordering::is_lt)?,
            Operator::VersionAtMost(text) => version(text, Ordering::is_le)?,
            Operator::Before(text) => CompiledTest::Before(time(text)?),
            Operator::After(text) => CompiledTest::After(time(text)?),
            Operator::Exists(expected) => CompiledTest::Exists(*expected),
        })
    }

    fn passes(&self, value: View<'_>) -> bool {
        let number = |bound: &Number| match value {
            View::Number(number) => number.compare(*bound),
            _ => None,
        };
        let text = || match value {
            View::Text(text) => Some(text),
            _ => None,
        };
        let items = || match value {
            View::List(items) => items,
            _ => &[],
        };
        let version = |bound: &str| Some(Version::parse(text()?)?.compare(Version::parse(bound)?));
        let time = |bound: &Micros| Some(Micros::parse(text()?).ok()?.cmp(bound));
        match self {
            CompiledTest::EqualsText(expected) => text() == Some(expected),
            CompiledTest::EqualsNumber(expected) => number(expected) == Some(Ordering::Equal),
            CompiledTest::Equals(expected) => value.same(View::of(expected)),
            CompiledTest::In(choices) => choices.have(value),
            CompiledTest::InList(list) => text().is_some_and(|id| list.has(id)),
            CompiledTest::HasAny(choices) => items().iter().any(|item| choices.have(View::of(item))),
            CompiledTest::HasAll(values) => {
                let has = |value: &Json| items().iter().any(|item| View::of(item).same(View::of(value)));
                matches!(value, View::List(_)) && values.iter().all(has)
            }
            CompiledTest::Never => false,
            CompiledTest::Above(bound) => number(bound) == Some(Ordering::Greater),
            CompiledTest::AtLeast(bound) => {
                matches!(number(bound), Some(Ordering::Greater | Ordering::Equal))
            }
            CompiledTest::Below(bound) => number(bound) == Some(Ordering::Less),
            CompiledTest::AtMost(bound) => matches!(number(bound), Some(Ordering::Less | Ordering::Equal)),
            CompiledTest::StartsWith(start) => text().is_some_and(|text| text.starts_with(&**start)),
            CompiledTest::EndsWith(end) => text().is_some_and(|text| text.ends_with(&**end)),
            CompiledTest::Contains(part) => text().is_some_and(|text| text.contains(&**part)),
            CompiledTest::Matches(pattern) => {
                text().is_some_and(|text| text.len() <= MATCHED_BYTES_MAX && pattern.is_match(text))
            }
            CompiledTest::Version { bound, is } => version(bound).is_some_and(is),
            CompiledTest::Before(bound) => time(bound) == Some(Ordering::Less),
            CompiledTest::After(bound) => time(bound) == Some(Ordering::Greater),
            CompiledTest::Exists(expected) => *expected,
        }
    }
}

impl Choices {
    fn of(values: &[Json]) -> Choices {
        let mut texts: Vec<Box<str>> =
            values.iter().filter_map(|value| value.as_str().map(Box::from)).collect();
        if texts.len() >= SORTED_FROM {
            texts.sort_unstable();
        }
        let others = values.iter().filter(|value| !value.is_string()).cloned().collect();
        Choices { texts: texts.into(), others }
    }

    fn have(&self, value: View<'_>) -> bool {
        match value {
            View::Text(text) if self.texts.len() >= SORTED_FROM => {
                self.texts.binary_search_by(|choice| (**choice).cmp(text)).is_ok()
            }
            View::Text(text) => self.texts.iter().any(|choice| **choice == *text),
            value => self.others.iter().any(|choice| value.same(View::of(choice))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Value;

    fn check(condition: &str, attributes: &str) -> bool {
        let attributes: serde_json::Map<String, Json> = serde_json::from_str(attributes).unwrap();
        let attributes: Vec<(&str, Value<'_>)> =
            attributes.iter().map(|(name, value)| (name.as_str(), Value::Json(value))).collect();
        let context = Context { targeting_key: None, attributes: &attributes };
        let source = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
        CompiledCondition::compile(&source, &serde_json::from_str(condition).unwrap()).holds(&context)
    }

    #[test]
    fn each_operator_holds_on_one_side_of_its_bound_only() {
        for (test, yes, no) in [
            (r#""equals": 1"#, "1.0", "2"),
            (r#""equals": 1"#, "1", r#""1""#),
            (r#""equals": "1""#, r#""1""#, "1"),
            (r#""equals": 9007199254740993"#, "9007199254740993", "9007199254740992"),
            (r#""equals": 9007199254740992"#, "9007199254740992.0", "9007199254740993"),
            (
                r#""equals": [1, {"b": 9007199254740993}]"#,
                r#"[1.0, {"b": 9007199254740993}]"#,
                r#"[1, {"b": 9007199254740992}]"#,
            ),
            (r#""in": [1, 18446744073709551615]"#, "18446744073709551615", "18446744073709551614"),
            (r#""above": 9007199254740992"#, "9007199254740993", "9007199254740992"),
            (r#""above": 9007199254740993"#, "9007199254740994.0", "9007199254740993"),
            (r#""at_least": 9007199254740993"#, "9007199254740993", "9007199254740992"),
            (r#""below": -9007199254740992"#, "-9007199254740993", "-9007199254740992"),
            (r#""at_most": 18446744073709551614"#, "18446744073709551614", "18446744073709551615"),
            (r#""in": ["pro", "team"]"#, r#""team""#, r#""free""#),
            (r#""above": 18"#, "18.5", "18"),
            (r#""at_least": 18"#, "18", "17.9"),
            (r#""below": 18"#, "17", "18"),
            (r#""at_most": 18"#, "18", "19"),
            (r#""starts_with": "ab""#, r#""abc""#, r#""cab""#),
            (r#""ends_with": "bc""#, r#""abc""#, r#""bca""#),
            (r#""contains": "b""#, r#""abc""#, r#""ac""#),
            (r#""matches": "^a.c$""#, r#""abc""#, r#""abbc""#),
            (r#""version_at_least": "2.10""#, r#""2.10.0""#, r#""2.9.9""#),
            (r#""version_below": "2.0.0""#, r#""2.0.0-rc.1""#, r#""2""#),
            (r#""version_equals": "2.0.0""#, r#""v2+build""#, r#""2.0.0-rc.1""#),
            (r#""version_above": "2.0.0""#, r#""2.0.1""#, r#""2.0.0""#),
            (r#""version_at_most": "2.0.0""#, r#""2.0.0""#, r#""2.0.1""#),
            (r#""version_at_most": "2.0.0""#, r#""1""#, r#""no version""#),
            (r#""has_any": ["a", 1]"#, r#"["b", 1.0]"#, r#"["b", "1"]"#),
            (r#""has_any": ["a"]"#, r#"["a"]"#, r#""a""#),
            (r#""has_all": ["a", 1]"#, r#"[1, "b", "a"]"#, r#"["a"]"#),
            (r#""has_all": []"#, "[]", r#""a""#),
            (r#""before": "2026-01-01T00:00:00Z""#, r#""2025-12-31T23:59:59Z""#, r#""2026-01-01T00:00:00Z""#),
            (r#""after": "2026-01-01T00:00:00Z""#, r#""2026-01-01T00:00:01Z""#, r#""2026-01-01T00:00:00Z""#),
            (r#""exists": true"#, "null", ""),
        ] {
            let condition = format!(r#"{{"attribute": "a", {test}}}"#);
            let attributes = |value: &str| match value {
                "" => "{}".to_owned(),
                value => format!(r#"{{"a": {value}}}"#),
            };
            assert!(check(&condition, &attributes(yes)), "{condition} {yes}");
            assert!(!check(&condition, &attributes(no)), "{condition} {no}");
        }
    }

    #[test]
    fn an_absent_attribute_or_another_type_fails() {
        assert!(!check(r#"{"attribute": "a", "equals": 1}"#, "{}"));
        assert!(!check(r#"{"attribute": "a", "above": 1}"#, r#"{"a": "2"}"#));
        assert!(check(r#"{"attribute": "a", "exists": false}"#, "{}"));
        assert!(check(r#"{"not": {"attribute": "a", "equals": 1}}"#, "{}"));
    }

    #[test]
    fn empty_all_holds_and_empty_any_does_not() {
        assert!(check(r#"{"all": []}"#, "{}"));
        assert!(!check(r#"{"any": []}"#, "{}"));
    }
}
