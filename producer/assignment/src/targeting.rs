//! Evaluates targeting conditions on the attributes of a unit. A test fails if the attribute is absent or has
//! another type than the test needs: the text `"2"` is no number.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use schemas::Micros;
use schemas::definition::{Bound, Condition, Operator, Test};
use serde_json::Value;

use crate::number::compare;

/// The known attributes of a unit, by name.
pub type Attributes = BTreeMap<String, serde_json::Value>;

/// The longest text that a regular expression is applied to, in bytes; a longer one does not match.
const MATCHED_BYTES_MAX: usize = 4_096;
/// The largest compiled regular expression, in bytes; a larger one matches nothing.
const PATTERN_BYTES_MAX: usize = 256 * 1_024;

/// Returns whether the condition holds for the attributes.
pub fn holds(condition: &Condition, attributes: &Attributes) -> bool {
    match condition {
        Condition::All(inner) => inner.iter().all(|condition| holds(condition, attributes)),
        Condition::Any(inner) => inner.iter().any(|condition| holds(condition, attributes)),
        Condition::Not(inner) => !holds(inner, attributes),
        Condition::Test(Test { attribute, operator }) => match (attributes.get(attribute), operator) {
            (value, Operator::Exists(expected)) => value.is_some() == *expected,
            (None, _) => false,
            (Some(value), operator) => passes(value, operator),
        },
    }
}

fn passes(value: &Value, operator: &Operator) -> bool {
    let number = |bound: &Bound| Some(compare(value.as_number()?, bound.number()));
    let text = |test: &dyn Fn(&str) -> bool| value.as_str().is_some_and(test);
    let version = |bound: &str| Some(parse_version(value.as_str()?)?.cmp_precedence(&parse_version(bound)?));
    let time = |bound: &str| Some(Micros::parse(value.as_str()?).ok()?.cmp(&Micros::parse(bound).ok()?));
    match operator {
        Operator::Equals(expected) => json_equal(value, expected),
        Operator::In(allowed) => allowed.iter().any(|expected| json_equal(value, expected)),
        // Accepted definitions contain no such test; see the check of conditions.
        Operator::InList(_) => false,
        Operator::Above(bound) => number(bound) == Some(Ordering::Greater),
        Operator::AtLeast(bound) => matches!(number(bound), Some(Ordering::Greater | Ordering::Equal)),
        Operator::Below(bound) => number(bound) == Some(Ordering::Less),
        Operator::AtMost(bound) => matches!(number(bound), Some(Ordering::Less | Ordering::Equal)),
        Operator::StartsWith(start) => text(&|text| text.starts_with(start.as_str())),
        Operator::EndsWith(end) => text(&|text| text.ends_with(end.as_str())),
        Operator::Contains(part) => text(&|text| text.contains(part.as_str())),
        Operator::Matches(pattern) => text(&|text| matches_pattern(text, pattern)),
        Operator::VersionAtLeast(bound) => {
            matches!(version(bound), Some(Ordering::Greater | Ordering::Equal))
        }
        Operator::VersionBelow(bound) => version(bound) == Some(Ordering::Less),
        Operator::Before(bound) => time(bound) == Some(Ordering::Less),
        Operator::After(bound) => time(bound) == Some(Ordering::Greater),
        Operator::Exists(expected) => *expected,
    }
}

/// Returns why the condition can never be evaluated: an invalid pattern, version or time.
pub(crate) fn condition_problem(condition: &Condition) -> Option<String> {
    match condition {
        Condition::All(inner) | Condition::Any(inner) => inner.iter().find_map(condition_problem),
        Condition::Not(inner) => condition_problem(inner),
        Condition::Test(Test { operator, .. }) => match operator {
            Operator::Matches(pattern) => compile(pattern).err().map(|error| error.to_string()),
            Operator::VersionAtLeast(version) | Operator::VersionBelow(version) => {
                parse_version(version).is_none().then(|| format!("`{version}` is not a semantic version"))
            }
            Operator::Before(time) | Operator::After(time) => {
                Micros::parse(time).err().map(|error| error.to_string())
            }
            Operator::Equals(_)
            | Operator::In(_)
            | Operator::InList(_)
            | Operator::Above(_)
            | Operator::AtLeast(_)
            | Operator::Below(_)
            | Operator::AtMost(_)
            | Operator::StartsWith(_)
            | Operator::EndsWith(_)
            | Operator::Contains(_)
            | Operator::Exists(_) => None,
        },
    }
}

/// Returns whether two JSON values are equal. Numbers are compared by value at any depth: 1 and 1.0 are equal,
/// 2^53 and 2^53 + 1 are not.
fn json_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right).is_eq(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| json_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same_field = |(name, left)| right.get(name).is_some_and(|right| json_equal(left, right));
            left.len() == right.len() && left.iter().all(same_field)
        }
        _ => left == right,
    }
}

/// Parses a semantic version. Missing parts are zero and a leading `v` is ignored.
fn parse_version(text: &str) -> Option<semver::Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, tail) = match text.find(['-', '+']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let missing = 2_usize.checked_sub(core.matches('.').count())?;
    semver::Version::parse(&format!("{core}{}{tail}", ".0".repeat(missing))).ok()
}

fn matches_pattern(text: &str, pattern: &str) -> bool {
    text.len() <= MATCHED_BYTES_MAX && compile(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(condition: &str, attributes: &str) -> bool {
        holds(&serde_json::from_str(condition).unwrap(), &serde_json::from_str(attributes).unwrap())
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
