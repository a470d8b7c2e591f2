//! The constraints of Unleash, which segments and strategies consist of. An attribute is a text there, so that a number is read
//! from its text; an absent one fails every test, and passes the inverted test.

use schemas::Micros;
use serde_json::{Value, json};

use crate::import::attribute::{self, Part, TARGETING_KEY};
use crate::import::finding::{Findings, Inexpressible};
use crate::import::logic::Logic;
use crate::import::pattern::{self, Compare};

/// The beginning of a semantic version with all its parts and without a `v`.
const STRICT_VERSION: &str = r"^[0-9]+\.[0-9]+\.[0-9]+(?:[-+]|$)";

/// Returns what a field of Unleash's context is called here.
pub fn attribute_of(context_name: &str) -> &str {
    if context_name == "userId" { TARGETING_KEY } else { context_name }
}

/// Reads a constraint.
pub fn read(constraint: &Value, path: &str, findings: &mut Findings) -> Result<Logic, Inexpressible> {
    let text = |field: &str| constraint.get(field).and_then(Value::as_str);
    let lost = |what: String| Inexpressible::new(path, what, "");
    let name = text("contextName").ok_or_else(|| lost("has no contextName".to_owned()))?;
    let operator = text("operator").ok_or_else(|| lost("has no operator".to_owned()))?;
    let inverted = constraint.get("inverted") == Some(&json!(true));
    let logic = match operator {
        "DATE_AFTER" | "DATE_BEFORE" => date(name, operator, text("value"), path, findings)?,
        operator => test(attribute_of(name), operator, constraint, path)?,
    };
    if operator.starts_with("NUM_") {
        findings.changed(path, attribute::PLAIN_NUMBERS, "");
    }
    if logic.is_false() && inverted {
        return Err(lost("inverts a test that can never be made".to_owned()));
    }
    Ok(if inverted { logic.not() } else { logic })
}

fn test(name: &str, operator: &str, constraint: &Value, path: &str) -> Result<Logic, Inexpressible> {
    let lost = |what: String| Inexpressible::new(path, what, "");
    let any_case = constraint.get("caseInsensitive") == Some(&json!(true));
    let values = texts(constraint.get("values"));
    let value = constraint.get("value").and_then(Value::as_str);
    let text_test = |part: Part| {
        Logic::any(values.iter().map(|value| {
            if any_case {
                attribute::text_in_any_case(name, part, value)
            } else {
                attribute::text(name, part, value)
            }
        }))
    };
    let number_test = |compare: Compare| -> Result<Logic, Inexpressible> {
        let bound = value.filter(|value| !value.trim().is_empty()).and_then(attribute::to_number);
        let bound = bound.ok_or_else(|| lost("its value is no plain number".to_owned()))?;
        Ok(attribute::number_or_text(name, compare, &bound))
    };
    let version_test = |operator: &'static str| {
        let strict = regex::Regex::new(STRICT_VERSION).expect("the pattern is one");
        match value {
            // Unleash compares nothing with what is no complete version.
            Some(version) if strict.is_match(version) && super::super::growthbook::is_version(version) => {
                Ok(Logic::all([
                    Logic::test(name, "matches", STRICT_VERSION),
                    Logic::test(name, operator, version),
                ]))
            }
            Some(_) => Ok(Logic::FALSE),
            None => Err(lost("has no value".to_owned())),
        }
    };
    match operator {
        "IN" if any_case => Ok(text_test(Part::Whole)),
        "NOT_IN" if any_case => Ok(text_test(Part::Whole).not()),
        "IN" => Ok(is_in(name, &values)),
        "NOT_IN" => Ok(is_in(name, &values).not()),
        "STR_STARTS_WITH" => Ok(text_test(Part::Start)),
        "STR_ENDS_WITH" => Ok(text_test(Part::End)),
        "STR_CONTAINS" => Ok(text_test(Part::Anywhere)),
        "NUM_EQ" => number_test(Compare::Equal),
        "NUM_GT" => number_test(Compare::Above),
        "NUM_GTE" => number_test(Compare::AtLeast),
        "NUM_LT" => number_test(Compare::Below),
        "NUM_LTE" => number_test(Compare::AtMost),
        "SEMVER_EQ" => version_test("version_equals"),
        "SEMVER_GT" => version_test("version_above"),
        "SEMVER_GTE" => version_test("version_at_least"),
        "SEMVER_LT" => version_test("version_below"),
        "SEMVER_LTE" => version_test("version_at_most"),
        "REGEX" => {
            let value = value.ok_or_else(|| lost("has no value".to_owned()))?;
            let pattern = if any_case { format!("(?i){value}") } else { value.to_owned() };
            regex::Regex::new(&pattern).map_err(|_| {
                lost(format!("`{value}` is not a pattern here: no look-around, no back-references"))
            })?;
            Ok(Logic::test(name, "matches", pattern))
        }
        "IN_CIDR" => addresses(name, &values, path),
        operator => Err(lost(format!("the operator `{operator}` has no counterpart here"))),
    }
}

/// The attribute is one of the texts, or a number or boolean with such a text.
pub fn is_in(name: &str, values: &[String]) -> Logic {
    let mut all = Vec::new();
    for value in values {
        all.push(json!(value));
        if name != TARGETING_KEY {
            all.extend(attribute::as_usual_number(value).map(Value::Number));
            all.extend(value.parse::<bool>().ok().map(Value::Bool));
        }
    }
    attribute::one_of(name, &all)
}

/// The attribute is an address in one of the ranges. What is neither a range nor an address matches nothing.
pub fn addresses(name: &str, values: &[String], path: &str) -> Result<Logic, Inexpressible> {
    let mut all = Vec::new();
    for value in values {
        let (address, bits) = value.split_once('/').unwrap_or((value, "0"));
        if address.parse::<std::net::IpAddr>().is_err() || bits.parse::<u8>().is_err() {
            continue;
        }
        let pattern = pattern::address(value).ok_or_else(|| {
            Inexpressible::new(
                path,
                format!("the range `{value}` cannot be told by the text of an address"),
                "",
            )
        })?;
        all.push(Logic::test(name, "matches", pattern));
    }
    Ok(Logic::any(all))
}

/// Compares the time: now for `currentTime`, otherwise an attribute.
fn date(
    name: &str,
    operator: &str,
    value: Option<&str>,
    path: &str,
    findings: &mut Findings,
) -> Result<Logic, Inexpressible> {
    let lost = |what: &str| Inexpressible::new(path, what, "");
    let time = value.and_then(|value| Micros::parse(value).ok());
    let time = time.ok_or_else(|| lost("its value is no time from 1970 to 2261"))?;
    if name != "currentTime" {
        let operator = if operator == "DATE_AFTER" { "after" } else { "before" };
        return Ok(Logic::test(name, operator, time.to_string()));
    }
    findings.changed(path, "the time is now: a `currentTime` in the context is not read", "");
    if operator == "DATE_BEFORE" {
        return Ok(Logic::From(time).not());
    }
    Ok(Micros::new(time.get() + 1).map_or(Logic::FALSE, Logic::From))
}

/// The texts of a list.
pub fn texts(values: Option<&Value>) -> Vec<String> {
    let values = values.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.iter().map(text).collect()
}
