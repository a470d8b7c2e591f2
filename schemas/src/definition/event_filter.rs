//! Filters of events: which of a metric's events count, by their metadata and their value. This module decides
//! about one event; it does not know where events are stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Problem;
use super::reading::{WrittenDecimal, present};
use crate::event::{Decimal6, TEXT_BYTES_MAX};
use crate::key::Key;

/// The most tests of a filter.
const TESTS_MAX: usize = 16;

/// The most texts that a test compares metadata with.
const TEXTS_MAX: usize = 100;

/// The tests that an event must pass, all of them. A filter without tests lets every event pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventFilter {
    tests: Vec<EventTest>,
}

/// A test of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum EventTest {
    /// The event has the metadata, and it is one of the texts.
    In { metadata: Key, texts: Vec<String> },
    /// The event lacks the metadata, or it is none of the texts.
    NotIn { metadata: Key, texts: Vec<String> },
    /// Whether the event has the metadata.
    Exists { metadata: Key, exists: bool },
    /// The event has a value, and it is this one or a greater one.
    ValueAtLeast(Decimal6),
    /// The event has a value, and it is less than this one.
    ValueBelow(Decimal6),
}

impl EventFilter {
    pub fn new(tests: Vec<EventTest>) -> EventFilter {
        EventFilter { tests }
    }

    pub fn tests(&self) -> &[EventTest] {
        &self.tests
    }

    /// Returns whether it has no test, so that every event passes.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// Returns whether an event passes every test. `metadata` returns what the event has under a key;
    /// `value_millionths` is its value, `None` if it has none.
    pub fn passes<'a>(
        &self,
        metadata: impl Fn(&str) -> Option<&'a str>,
        value_millionths: Option<i64>,
    ) -> bool {
        self.tests.iter().all(|test| test.passes(&metadata, value_millionths))
    }

    /// Lists what is out of range; `field` is the filter's own.
    pub(super) fn check(&self, field: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.tests.len() > TESTS_MAX {
            let what = format!("{} tests is more than {TESTS_MAX}", self.tests.len());
            problems.push(Problem::new(field, what));
        }
        for (index, test) in self.tests.iter().enumerate() {
            match test {
                EventTest::In { texts, .. } => {
                    check_texts(&format!("{field}[{index}].in"), texts, &mut problems);
                }
                EventTest::NotIn { texts, .. } => {
                    check_texts(&format!("{field}[{index}].not_in"), texts, &mut problems);
                }
                EventTest::Exists { .. } | EventTest::ValueAtLeast(_) | EventTest::ValueBelow(_) => {}
            }
        }
        problems
    }
}

impl EventTest {
    fn passes<'a>(&self, metadata: impl Fn(&str) -> Option<&'a str>, value_millionths: Option<i64>) -> bool {
        let is_one_of = |key: &Key, texts: &[String]| {
            metadata(key.as_str()).is_some_and(|found| texts.iter().any(|text| text == found))
        };
        match self {
            EventTest::In { metadata: key, texts } => is_one_of(key, texts),
            EventTest::NotIn { metadata: key, texts } => !is_one_of(key, texts),
            EventTest::Exists { metadata: key, exists } => metadata(key.as_str()).is_some() == *exists,
            EventTest::ValueAtLeast(bound) => {
                value_millionths.is_some_and(|value| value >= bound.millionths())
            }
            EventTest::ValueBelow(bound) => value_millionths.is_some_and(|value| value < bound.millionths()),
        }
    }
}

fn check_texts(field: &str, texts: &[String], problems: &mut Vec<Problem>) {
    if texts.is_empty() || texts.len() > TEXTS_MAX {
        problems.push(Problem::new(field, format!("{} texts is not in 1 to {TEXTS_MAX}", texts.len())));
    }
    let mut seen = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if text.len() > TEXT_BYTES_MAX {
            let what = format!("{} bytes is more than {TEXT_BYTES_MAX}, the most of an event", text.len());
            problems.push(Problem::new(field, what));
        } else if !seen.insert(text) {
            problems.push(Problem::new(field, format!("`{text}` is named twice")));
        }
    }
}

/// The form in JSON and YAML.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    metadata: Option<Key>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    r#in: Option<Vec<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    not_in: Option<Vec<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value_at_least: Option<WrittenDecimal>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value_below: Option<WrittenDecimal>,
}

const SHAPE: &str = "a test is `metadata` with exactly one of `in`, `not_in` and `exists`, or `value_at_least` alone, or \
                     `value_below` alone";

impl TryFrom<Written> for EventTest {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<EventTest, &'static str> {
        let Written { metadata, r#in, not_in, exists, value_at_least, value_below } = written;
        match (metadata, r#in, not_in, exists, value_at_least, value_below) {
            (Some(metadata), Some(texts), None, None, None, None) => Ok(EventTest::In { metadata, texts }),
            (Some(metadata), None, Some(texts), None, None, None) => Ok(EventTest::NotIn { metadata, texts }),
            (Some(metadata), None, None, Some(exists), None, None) => {
                Ok(EventTest::Exists { metadata, exists })
            }
            (None, None, None, None, Some(WrittenDecimal(bound)), None) => Ok(EventTest::ValueAtLeast(bound)),
            (None, None, None, None, None, Some(WrittenDecimal(bound))) => Ok(EventTest::ValueBelow(bound)),
            _ => Err(SHAPE),
        }
    }
}

impl From<EventTest> for Written {
    fn from(test: EventTest) -> Written {
        let nothing = Written::default();
        match test {
            EventTest::In { metadata, texts } => {
                Written { metadata: Some(metadata), r#in: Some(texts), ..nothing }
            }
            EventTest::NotIn { metadata, texts } => {
                Written { metadata: Some(metadata), not_in: Some(texts), ..nothing }
            }
            EventTest::Exists { metadata, exists } => {
                Written { metadata: Some(metadata), exists: Some(exists), ..nothing }
            }
            EventTest::ValueAtLeast(bound) => {
                Written { value_at_least: Some(WrittenDecimal(bound)), ..nothing }
            }
            EventTest::ValueBelow(bound) => Written { value_below: Some(WrittenDecimal(bound)), ..nothing },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An event with the metadata `plan: pro` and `note: ""`, and with this value.
    fn passes(tests: Value, value_millionths: Option<i64>) -> bool {
        let filter: EventFilter = serde_json::from_value(tests).unwrap();
        let metadata = |key: &str| match key {
            "plan" => Some("pro"),
            "note" => Some(""),
            _ => None,
        };
        filter.passes(metadata, value_millionths)
    }

    #[test]
    fn metadata_passes_by_its_text() {
        for (test, expected) in [
            (json!({"metadata": "plan", "in": ["free", "pro"]}), true),
            (json!({"metadata": "plan", "in": ["free", "Pro", "pro ", "p"]}), false),
            (json!({"metadata": "plan", "not_in": ["free"]}), true),
            (json!({"metadata": "plan", "not_in": ["free", "pro"]}), false),
            (json!({"metadata": "plan", "exists": true}), true),
            (json!({"metadata": "plan", "exists": false}), false),
            // An empty text is there.
            (json!({"metadata": "note", "in": [""]}), true),
            (json!({"metadata": "note", "exists": true}), true),
        ] {
            assert_eq!(passes(json!([test]), None), expected, "{test}");
        }
    }

    #[test]
    fn metadata_that_the_event_lacks_is_in_no_list() {
        for (test, expected) in [
            (json!({"metadata": "region", "in": ["DE"]}), false),
            (json!({"metadata": "region", "in": [""]}), false),
            (json!({"metadata": "region", "not_in": ["DE"]}), true),
            (json!({"metadata": "region", "exists": true}), false),
            (json!({"metadata": "region", "exists": false}), true),
        ] {
            assert_eq!(passes(json!([test]), None), expected, "{test}");
        }
    }

    #[test]
    fn a_value_is_compared_exactly() {
        let at_least = json!([{"value_at_least": "12.5"}]);
        let below = json!([{"value_below": "12.5"}]);
        for (millionths, is_at_least) in [
            (12_499_999, false),
            (12_500_000, true),
            (12_500_001, true),
            (-12_500_000, false),
            (i64::MIN, false),
            (i64::MAX, true),
        ] {
            assert_eq!(passes(at_least.clone(), Some(millionths)), is_at_least, "{millionths}");
            assert_eq!(passes(below.clone(), Some(millionths)), !is_at_least, "{millionths}");
        }
        assert!(passes(json!([{"value_at_least": "-0.000001"}]), Some(-1)));
        assert!(!passes(json!([{"value_at_least": "-0.000001"}]), Some(-2)));
        // Above 2^53 millionths a double would not tell the two apart.
        let large = json!([{"value_below": "9007199254.740993"}]);
        assert!(passes(large.clone(), Some(9_007_199_254_740_992)));
        assert!(!passes(large, Some(9_007_199_254_740_993)));
    }

    #[test]
    fn an_event_without_a_value_fails_every_test_of_the_value() {
        for test in [
            json!({"value_at_least": "0"}),
            json!({"value_at_least": "-999999999999.999999"}),
            json!({"value_below": "0"}),
            json!({"value_below": "999999999999.999999"}),
        ] {
            assert!(!passes(json!([test]), None), "{test}");
        }
    }

    #[test]
    fn an_event_must_pass_all_tests() {
        let (plan, region) =
            (json!({"metadata": "plan", "in": ["pro"]}), json!({"metadata": "region", "in": ["DE"]}));
        let between = json!([{"value_at_least": "1"}, {"value_below": "2"}]);
        assert!(passes(json!([]), None));
        assert!(!passes(json!([plan, region]), None));
        assert!(!passes(json!([region, plan]), None));
        assert!(passes(json!([plan, {"value_at_least": "1"}]), Some(1_000_000)));
        assert!(!passes(json!([plan, {"value_at_least": "1"}]), Some(999_999)));
        for (millionths, expected) in
            [(999_999, false), (1_000_000, true), (1_999_999, true), (2_000_000, false)]
        {
            assert_eq!(passes(between.clone(), Some(millionths)), expected, "{millionths}");
        }
    }

    #[test]
    fn a_test_is_written_as_it_was_read_with_six_decimal_places() {
        for (read, written) in [
            (r#"{"metadata":"plan","in":["pro",""]}"#, None),
            (r#"{"metadata":"plan","not_in":["pro"]}"#, None),
            (r#"{"metadata":"plan","exists":false}"#, None),
            (r#"{"value_at_least":"-12.500000"}"#, None),
            (r#"{"value_below":"7"}"#, Some(r#"{"value_below":"7.000000"}"#)),
        ] {
            let test: EventTest = serde_json::from_str(read).unwrap();
            assert_eq!(serde_json::to_string(&test).unwrap(), written.unwrap_or(read));
        }
    }

    #[test]
    fn a_test_has_exactly_one_form() {
        for text in [
            "{}",
            r#"{"metadata":"plan"}"#,
            r#"{"in":["pro"]}"#,
            r#"{"exists":true}"#,
            r#"{"metadata":"plan","in":["pro"],"not_in":["free"]}"#,
            r#"{"metadata":"plan","in":["pro"],"exists":true}"#,
            r#"{"metadata":"plan","value_below":"1"}"#,
            r#"{"metadata":"plan","in":["pro"],"value_below":"1"}"#,
            r#"{"value_at_least":"1","value_below":"2"}"#,
        ] {
            let error = serde_json::from_str::<EventTest>(text).unwrap_err().to_string();
            assert!(error.starts_with(SHAPE), "{text}: {error}");
        }
    }
}
