//! Conditions, compiled once, and tested on a unit's attributes. An attribute that is absent, or of another type than the
//! test is about, fails the test: the text `"2"` is no number.

use std::cmp::Ordering;
use std::collections::HashMap;

use memchr::memmem::Finder;
use regex::Regex;
use schemas::Micros;
use schemas::definition::{Bound, Condition, Definitions, Operator, Test};
use schemas::time::micros_of_any_year;
use serde_json::Value as Json;

use crate::context::{Context, Path, Value, View};
use crate::lists::{CompiledList, ListSource, Lists};
use crate::number::Number;
use crate::text::{Ends, Text};
use crate::version::{Version, VersionBound};

/// Longest text that a regular expression is tried on, in bytes; a longer one does not match.
const MATCHED_BYTES_MAX: usize = 4_096;
/// Largest compiled regular expression, in bytes; a larger one is refused.
const PATTERN_BYTES_MAX: usize = 256 * 1_024;
/// From this number of values on, `in` searches among them instead of comparing with each.
const SEARCHED_FROM: usize = 8;

/// A condition whose patterns, versions, times and sets are ready.
#[derive(Clone, Debug)]
pub struct CompiledCondition(Conditions);

/// Conditions of which the first that holds is sought. `all`, `any` and `not` are gone: each test names what is asked next
/// if it is passed and if it is not.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    /// In the reverse of the order in which they are asked.
    links: Box<[Link]>,
    first: Next,
}

#[derive(Clone, Debug)]
struct Link {
    attribute: Path,
    /// The same for all tests of the same attribute.
    attribute_number: u32,
    test: CompiledTest,
    passed: Next,
    failed: Next,
}

/// The index of the link that is asked next; or, counted down from the highest number, the end: that no condition holds, or
/// the number of the one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next(u32);

impl Next {
    const NONE_HOLDS: Next = Next(u32::MAX);

    fn link(index: usize) -> Next {
        Next(
            u32::try_from(index)
                .ok()
                .filter(|index| *index < 1 << 31)
                .expect("a definition has fewer than 2^31 tests"),
        )
    }

    fn holds(number: usize) -> Next {
        Next(u32::MAX - 1 - Next::link(number).0)
    }

    /// The number of the condition that holds; if none does, one that no condition has.
    fn number(self) -> usize {
        (u32::MAX - 1).wrapping_sub(self.0) as usize
    }
}

/// One operator with its operand.
#[derive(Clone, Debug)]
enum CompiledTest {
    EqualsText(Text),
    Equals(Box<Json>),
    /// Of texts alone, as most are.
    InTexts(Texts),
    In(Box<Choices>),
    InList(Box<CompiledList>),
    HasAny(Box<Choices>),
    HasAll(Box<[Json]>),
    /// No value passes it.
    Never,
    Integer {
        bound: i64,
        is: Orders,
    },
    Number(Box<(Number, Orders)>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<Finder<'static>>),
    Matches(Regex),
    Version {
        bound: Box<VersionBound>,
        is: Orders,
    },
    Time {
        bound: Micros,
        is: Orders,
    },
    Exists(bool),
}

/// The orders that a value may have to a bound: bits of [`Orders::bit`].
#[derive(Clone, Copy, Debug)]
struct Orders(u8);

impl Orders {
    const BELOW: Orders = Orders(Orders::bit(Ordering::Less));
    const EQUAL: Orders = Orders(Orders::bit(Ordering::Equal));
    const ABOVE: Orders = Orders(Orders::bit(Ordering::Greater));
    const AT_MOST: Orders = Orders(Orders::BELOW.0 | Orders::EQUAL.0);
    const AT_LEAST: Orders = Orders(Orders::ABOVE.0 | Orders::EQUAL.0);

    const fn bit(order: Ordering) -> u8 {
        1 << (order as i8 + 1)
    }

    #[inline]
    fn has(self, order: Ordering) -> bool {
        self.0 & Orders::bit(order) != 0
    }

    fn have(self, order: Option<Ordering>) -> bool {
        order.is_some_and(|order| self.has(order))
    }

    #[inline(never)]
    fn have_of(self, value: Option<Number>, bound: Number) -> bool {
        self.have(value.and_then(|value| value.compare(bound)))
    }
}

/// Texts of which a value may be any, sorted.
#[derive(Clone, Debug)]
struct Texts(Box<[Text]>);

/// Values of which a value may be any.
#[derive(Clone, Debug)]
struct Choices {
    texts: Texts,
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
    /// passed; the writers of definitions refuse one, so only a log that another program wrote to can hold it. A test of
    /// the targeting key is one of the id of the unit of `unit_type`.
    pub fn compile(source: &ListSource<'_>, unit_type: &str, condition: &Condition) -> CompiledCondition {
        CompiledCondition(Conditions::compile(source, unit_type, &[condition]))
    }

    pub fn holds(&self, context: &Context<'_>) -> bool {
        self.0.first_that_holds(context) == 0
    }
}

impl Conditions {
    pub(crate) fn compile(source: &ListSource<'_>, unit_type: &str, conditions: &[&Condition]) -> Conditions {
        let mut chain = Chain { source, unit_type, links: Vec::new() };
        let mut first = Next::NONE_HOLDS;
        for (number, condition) in conditions.iter().enumerate().rev() {
            first = chain.append(condition, (Next::holds(number), first));
        }
        number_attributes(&mut chain.links);
        Conditions { links: chain.links.into(), first }
    }

    /// Returns the number of the first condition that holds, or one that none has. It is a call of its own, so that its loop
    /// has the registers for itself.
    #[inline(never)]
    pub(crate) fn first_that_holds(&self, context: &Context<'_>) -> usize {
        let mut next = self.first;
        // Tests of one attribute often follow each other: it is looked up for the first of them.
        let (mut number, mut value, mut place) = (u32::MAX, None, None);
        // An end is no index.
        while let Some(link) = self.links.get(next.0 as usize) {
            if link.attribute_number != number {
                number = link.attribute_number;
                value = context.find(&link.attribute, &mut place);
            }
            next = if link.test.holds(value) { link.passed } else { link.failed };
        }
        next.number()
    }
}

/// Links that are being made.
struct Chain<'a> {
    source: &'a ListSource<'a>,
    unit_type: &'a str,
    links: Vec<Link>,
}

impl Chain<'_> {
    /// Appends the tests of a condition, the last one first, and returns where it begins.
    fn append(&mut self, condition: &Condition, (mut passed, mut failed): (Next, Next)) -> Next {
        match condition {
            Condition::All(inner) => {
                for condition in inner.iter().rev() {
                    passed = self.append(condition, (passed, failed));
                }
                passed
            }
            Condition::Any(inner) => {
                for condition in inner.iter().rev() {
                    failed = self.append(condition, (passed, failed));
                }
                failed
            }
            Condition::Not(inner) => self.append(inner, (failed, passed)),
            Condition::Test(Test { attribute, operator }) => {
                let test = CompiledTest::compile(self.source, operator).unwrap_or(CompiledTest::Never);
                let attribute = Path::of(attribute, self.unit_type);
                self.links.push(Link { attribute, attribute_number: 0, test, passed, failed });
                Next::link(self.links.len() - 1)
            }
        }
    }
}

fn number_attributes(links: &mut [Link]) {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for link in links {
        let next = u32::try_from(numbers.len()).expect("a definition has fewer than 2^31 tests");
        link.attribute_number = *numbers.entry(link.attribute.as_str().to_owned()).or_insert(next);
    }
}

impl CompiledTest {
    /// Returns why the test can never be evaluated.
    fn problem(operator: &Operator) -> Option<String> {
        let nothing = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
        CompiledTest::compile(&nothing, operator).err()
    }

    fn compile(source: &ListSource<'_>, operator: &Operator) -> Result<CompiledTest, String> {
        let number = |bound: &Bound, is| CompiledTest::number(Number::from(bound), is);
        let version = |text: &str, is| match Version::parse(text) {
            Some(bound) => Ok(CompiledTest::Version { bound: Box::new(bound.into()), is }),
            None => Err(format!("`{text}` is not a semantic version")),
        };
        let time = |text: &str, is| match Micros::parse(text) {
            Ok(bound) => Ok(CompiledTest::Time { bound, is }),
            Err(error) => Err(error.to_string()),
        };
        Ok(match operator {
            Operator::Equals(Json::String(text)) => CompiledTest::EqualsText(Text::of(text)),
            Operator::Equals(Json::Number(number)) => CompiledTest::number(Number::of(number), Orders::EQUAL),
            Operator::Equals(value) => CompiledTest::Equals(Box::new(value.clone())),
            Operator::In(values) if values.iter().all(Json::is_string) => {
                CompiledTest::InTexts(Texts::of(values))
            }
            Operator::In(values) => CompiledTest::In(Box::new(Choices::of(values))),
            Operator::InList(list) => CompiledTest::InList(Box::new(source.compile(list))),
            Operator::HasAny(values) => CompiledTest::HasAny(Box::new(Choices::of(values))),
            Operator::HasAll(values) => CompiledTest::HasAll(values.as_slice().into()),
            Operator::Above(bound) => number(bound, Orders::ABOVE),
            Operator::AtLeast(bound) => number(bound, Orders::AT_LEAST),
            Operator::Below(bound) => number(bound, Orders::BELOW),
            Operator::AtMost(bound) => number(bound, Orders::AT_MOST),
            Operator::StartsWith(text) => CompiledTest::StartsWith(text.as_str().into()),
            Operator::EndsWith(text) => CompiledTest::EndsWith(text.as_str().into()),
            Operator::Contains(text) => CompiledTest::Contains(Box::new(Finder::new(text).into_owned())),
            Operator::Matches(pattern) => {
                let pattern = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
                CompiledTest::Matches(pattern.map_err(|error| error.to_string())?)
            }
            Operator::VersionEquals(text) => version(text, Orders::EQUAL)?,
            Operator::VersionAbove(text) => version(text, Orders::ABOVE)?,
            Operator::VersionAtLeast(text) => version(text, Orders::AT_LEAST)?,
            Operator::VersionBelow(text) => version(text, Orders::BELOW)?,
            Operator::VersionAtMost(text) => version(text, Orders::AT_MOST)?,
            Operator::Before(text) => time(text, Orders::BELOW)?,
            Operator::After(text) => time(text, Orders::ABOVE)?,
            Operator::Exists(expected) => CompiledTest::Exists(*expected),
        })
    }

    fn number(bound: Number, is: Orders) -> CompiledTest {
        match bound.whole() {
            Number::Integer(bound) => CompiledTest::Integer { bound, is },
            bound => CompiledTest::Number(Box::new((bound, is))),
        }
    }

    /// Tests the value of the attribute, if it has one.
    #[inline(always)]
    fn holds(&self, value: Option<&Value<'_>>) -> bool {
        match value {
            Some(value) => self.passes(value),
            None => matches!(self, CompiledTest::Exists(false)),
        }
    }

    /// The tests that are asked most come first, and are small enough to be part of the loop.
    #[inline(always)]
    fn passes(&self, value: &Value<'_>) -> bool {
        match self {
            CompiledTest::EqualsText(expected) => value.text().is_some_and(|text| expected.is(text)),
            CompiledTest::Integer { bound, is } => match value {
                Value::Integer(value) => is.has(value.cmp(bound)),
                other => is.have_of(other.number(), Number::Integer(*bound)),
            },
            CompiledTest::InTexts(choices) => choices.have_value(value),
            other => other.passes_otherwise(value),
        }
    }

    #[inline(never)]
    fn passes_otherwise(&self, value: &Value<'_>) -> bool {
        let items = value.items().unwrap_or_default();
        match self {
            CompiledTest::EqualsText(_) | CompiledTest::Integer { .. } | CompiledTest::InTexts(_) => {
                unreachable!("the test is part of the loop")
            }
            CompiledTest::Number(test) => test.1.have_of(value.number(), test.0),
            CompiledTest::Equals(expected) => value.view().same(View::of(expected)),
            CompiledTest::In(choices) => choices.have(value),
            CompiledTest::InList(list) => value.text().is_some_and(|id| list.has(id)),
            CompiledTest::HasAny(choices) => items.iter().any(|item| choices.have(&Value::Json(item))),
            CompiledTest::HasAll(values) => {
                let has = |value: &Json| items.iter().any(|item| View::of(item).same(View::of(value)));
                value.items().is_some() && values.iter().all(has)
            }
            CompiledTest::Never => false,
            CompiledTest::StartsWith(start) => value.text().is_some_and(|text| text.starts_with(&**start)),
            CompiledTest::EndsWith(end) => value.text().is_some_and(|text| text.ends_with(&**end)),
            CompiledTest::Contains(part) => {
                value.text().is_some_and(|text| part.find(text.as_bytes()).is_some())
            }
            CompiledTest::Matches(pattern) => {
                value.text().is_some_and(|text| text.len() <= MATCHED_BYTES_MAX && pattern.is_match(text))
            }
            CompiledTest::Version { bound, is } => {
                is.have(value.text().and_then(|text| Version::compare_text(text, bound)))
            }
            CompiledTest::Time { bound, is } => {
                let micros = value.text().and_then(micros_of_any_year);
                is.have(micros.map(|micros| micros.cmp(&bound.get())))
            }
            CompiledTest::Exists(expected) => *expected,
        }
    }
}

impl Texts {
    fn of(values: &[Json]) -> Texts {
        let mut texts: Vec<Text> = values.iter().filter_map(|value| value.as_str().map(Text::of)).collect();
        texts.sort_unstable_by(|left, right| left.compare(right.ends(), right.as_str()));
        Texts(texts.into())
    }

    /// A call of its own for the sake of the loop that asks it; it calls nothing where texts are few and short.
    #[inline(never)]
    fn have_value(&self, value: &Value<'_>) -> bool {
        let Some(text) = value.text() else { return false };
        let ends = Ends::of(text);
        if self.0.len() >= SEARCHED_FROM || !ends.are_all() {
            return self.search(ends, text);
        }
        self.0.iter().any(|choice| choice.ends() == ends)
    }

    fn have(&self, text: &str) -> bool {
        self.search(Ends::of(text), text)
    }

    #[inline(never)]
    fn search(&self, ends: Ends, text: &str) -> bool {
        self.0.binary_search_by(|choice| choice.compare(ends, text)).is_ok()
    }
}

impl Choices {
    fn of(values: &[Json]) -> Choices {
        let others = values.iter().filter(|value| !value.is_string()).cloned().collect();
        Choices { texts: Texts::of(values), others }
    }

    fn have(&self, value: &Value<'_>) -> bool {
        match value.text() {
            Some(text) => self.texts.have(text),
            None => self.others.iter().any(|choice| value.view().same(View::of(choice))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Name;
    use serde_json::json;

    fn check(condition: &str, attributes: &str) -> bool {
        let attributes: serde_json::Map<String, Json> = serde_json::from_str(attributes).unwrap();
        let attributes: Vec<(Name<'_>, Value<'_>)> =
            attributes.iter().map(|(name, value)| (Name::of(name), Value::Json(value))).collect();
        // What a program passes as a value of its own.
        let plain: Vec<(Name<'_>, Value<'_>)> =
            attributes.iter().map(|(name, value)| (*name, plain(*value))).collect();
        let source = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
        let condition =
            CompiledCondition::compile(&source, "user", &serde_json::from_str(condition).unwrap());
        let holds = |attributes| condition.holds(&Context { targeting_key: None, attributes });
        assert_eq!(holds(&attributes), holds(&plain), "{condition:?} of {plain:?}");
        holds(&attributes)
    }

    fn plain(value: Value<'_>) -> Value<'_> {
        match value.view() {
            View::Boolean(value) => Value::Boolean(value),
            View::Number(Number::Integer(value)) => Value::Integer(value),
            View::Number(Number::Double(value)) => Value::Number(value),
            View::Text(text) => Value::Text(text),
            _ => value,
        }
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
            // Births and ends of contracts: values of any year are compared, though a bound has its range.
            (r#""before": "1990-01-01T00:00:00Z""#, r#""1965-01-01T00:00:00Z""#, r#""9999-12-31T23:59:59Z""#),
            (r#""before": "1990-01-01T00:00:00Z""#, r#""0000-01-01T00:00:00Z""#, r#""yesterday""#),
            (r#""after": "1990-01-01T00:00:00Z""#, r#""9999-12-31T23:59:59-23:00""#, r#""1965-01-01""#),
            (r#""after": "1990-01-01T00:00:00Z""#, r#""2262-01-01T00:00:00Z""#, r#""1969-12-31T23:59:59Z""#),
            (
                r#""before": "1970-01-01T00:00:00Z""#,
                r#""1969-12-31T23:59:59.9999999Z""#,
                r#""1970-01-01T00:00:00.0000001Z""#,
            ),
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
    fn many_texts_are_searched_as_few_are_compared() {
        let texts: Vec<String> =
            (0..40).map(|length| ('A'..).take(length).collect()).chain(["AXC".to_owned()]).collect();
        for count in [1, SEARCHED_FROM - 1, SEARCHED_FROM, texts.len()] {
            let condition = json!({"attribute": "a", "in": texts[..count]}).to_string();
            for (index, text) in texts.iter().enumerate() {
                let attributes = json!({"a": text}).to_string();
                assert_eq!(check(&condition, &attributes), index < count, "{condition} {attributes}");
            }
        }
    }

    #[test]
    fn a_test_that_is_not_asked_changes_nothing() {
        let test = |name: &str| json!({"attribute": name, "equals": 1});
        // Every nesting of three tests, of every values, beside the connectives of the language.
        for values in 0..8_u32 {
            let [a, b, c] = [0, 1, 2].map(|bit| values >> bit & 1 == 1);
            let attributes = json!({"a": u32::from(a), "b": u32::from(b), "c": u32::from(c)}).to_string();
            for (condition, expected) in [
                (json!({"all": [test("a"), {"any": [test("b"), test("c")]}]}), a && (b || c)),
                (json!({"any": [{"all": [test("a"), test("b")]}, test("c")]}), a && b || c),
                (json!({"not": {"all": [test("a"), {"not": test("b")}]}}), !a || b),
                (json!({"all": [{"not": {"any": [test("a"), test("b")]}}, test("c")]}), !(a || b) && c),
                (json!({"any": [{"all": []}, test("a")]}), true),
                (
                    json!({"any": [{"all": [test("a"), test("b")]}, {"all": [test("b"), test("c")]}]}),
                    b && (a || c),
                ),
                (json!({"all": [{"any": [test("a"), test("b")]}, {"not": test("b")}, test("b")]}), false),
                (json!({"any": [{"not": test("a")}, {"all": [test("a"), test("c")]}]}), !a || c),
                (json!({"not": {"any": [{"any": []}, test("a")]}}), !a),
            ] {
                assert_eq!(check(&condition.to_string(), &attributes), expected, "{condition} {attributes}");
            }
        }
    }

    #[test]
    fn empty_all_holds_and_empty_any_does_not() {
        assert!(check(r#"{"all": []}"#, "{}"));
        assert!(!check(r#"{"any": []}"#, "{}"));
    }
}
