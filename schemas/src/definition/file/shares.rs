//! Shares in definition files: a percentage such as `50%`, with up to two decimals, or basis points. The
//! types and the log know only basis points, so percentages are converted before the definition is read.

use serde_json::Value;

use crate::bucket::BasisPoints;
use crate::definition::Kind;
use crate::definition::check::Problem;
use crate::definition::reading::describe_value;

const WANTED: &str =
    "a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything";

/// Converts every share of the definition to basis points, and returns the problems of those that cannot be.
pub fn in_basis_points(kind: Kind, definition: &mut Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, share) in shares(kind, definition) {
        let what = match &*share {
            Value::String(text) => match parse(text) {
                Ok(basis_points) => {
                    *share = Value::from(basis_points);
                    continue;
                }
                Err(what) => what,
            },
            Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() != 0.0) => {
                format!("must be {WANTED}, not {}", describe_value(share))
            }
            _ => continue,
        };
        problems.push(Problem::new(path, what));
    }
    problems
}

/// Finds the shares of a definition, each with its path. Parts that do not have the form of a definition are
/// ignored.
fn shares(kind: Kind, definition: &mut Value) -> Vec<(String, &mut Value)> {
    let steps: &[&[&str]] = match kind {
        Kind::Experiment => &[
            &["slots"],
            &["rollout"],
            &["variants", "[]", "weight"],
            &["environments", "{}", "rollout"],
            &["serve", "rollout"],
            &["serve", "ramp", "[]", "rollout"],
        ],
        Kind::Flag => &[
            &["rules", "[]", "rollout"],
            &["rules", "[]", "ramp", "[]", "rollout"],
            &["rules", "[]", "split", "[]", "weight"],
            &["environments", "{}", "rules", "[]", "rollout"],
            &["environments", "{}", "rules", "[]", "ramp", "[]", "rollout"],
            &["environments", "{}", "rules", "[]", "split", "[]", "weight"],
        ],
        Kind::Layer | Kind::Metric | Kind::List | Kind::Settings => &[],
    };
    let mut found = Vec::new();
    collect(String::new(), definition, steps, &mut found);
    found
}

/// Follows all `ways` at once; `[]` is every item of a list, `{}` every field of a map.
fn collect<'a>(
    path: String,
    value: &'a mut Value,
    ways: &[&[&str]],
    found: &mut Vec<(String, &'a mut Value)>,
) {
    if ways.iter().any(|way| way.is_empty()) {
        found.push((path, value));
        return;
    }
    let onward = |step: &str, name: &str| -> Vec<&[&str]> {
        let fits = |first: &str| first == step || first == name;
        ways.iter().filter(|way| fits(way[0])).map(|way| &way[1..]).collect()
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let ways = onward("{}", name);
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if !ways.is_empty() {
                    collect(inner, value, &ways, found);
                }
            }
        }
        Value::Array(items) => {
            let ways = onward("[]", "[]");
            for (index, item) in items.iter_mut().enumerate().filter(|_| !ways.is_empty()) {
                collect(format!("{path}[{index}]"), item, &ways, found);
            }
        }
        _ => {}
    }
}

/// Reads a share as it may be written in a definition file: `50%`, or `5000` basis points.
///
/// # Errors
/// What a share looks like, if the text is none.
pub fn parse_share(text: &str) -> Result<BasisPoints, String> {
    let share = match text.parse() {
        Ok(basis_points) => basis_points,
        Err(_) => parse(text)?,
    };
    BasisPoints::new(share).map_err(|error| error.to_string())
}

/// Parses a percentage to basis points.
fn parse(text: &str) -> Result<u32, String> {
    let other = || format!("must be {WANTED}, not {}", describe_value(&Value::from(text)));
    let number = text.strip_suffix('%').ok_or_else(other)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || (whole.len() > 2 && whole.starts_with('0')) {
        return Err(other());
    }
    if decimals.len() > 2 {
        return Err(format!("{} has more than two decimals", describe_value(&Value::from(text))));
    }
    let whole: u32 = if whole.len() > 3 { 101 } else { whole.parse().map_err(|_| other())? };
    let hundredths: u32 = format!("{decimals:0<2}").parse().map_err(|_| other())?;
    let basis_points = whole * 100 + hundredths;
    if basis_points > 10_000 {
        return Err(format!("{} is more than 100%", describe_value(&Value::from(text))));
    }
    Ok(basis_points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_basis_points() {
        assert_eq!(parse_share("50%").map(BasisPoints::get), Ok(5_000));
        assert_eq!(parse_share("5000").map(BasisPoints::get), Ok(5_000));
        assert!(parse_share("10001").unwrap_err().starts_with("10001 is not a share"));
        assert!(parse_share("half").unwrap_err().starts_with("must be a percentage such as 50%"));
    }

    #[test]
    fn a_percentage_has_up_to_two_decimals() {
        for (text, basis_points) in [
            ("0%", 0),
            ("0.01%", 1),
            ("0.1%", 10),
            ("1%", 100),
            ("33.33%", 3_333),
            ("50.5%", 5_050),
            ("05%", 500),
            ("100%", 10_000),
            ("100.00%", 10_000),
        ] {
            assert_eq!(parse(text), Ok(basis_points), "{text}");
        }
        for (text, error) in [
            ("33.333%", "the text `33.333%` has more than two decimals"),
            ("100.01%", "the text `100.01%` is more than 100%"),
            ("10000%", "the text `10000%` is more than 100%"),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
        for text in ["", "%", "50", "50 %", "-1%", "+1%", "1e1%", ".5%", "5.%", "½%", "5_0%", "005%"] {
            assert_eq!(parse(text), Err(format!("must be {WANTED}, not the text `{text}`")), "{text}");
        }
    }
}
