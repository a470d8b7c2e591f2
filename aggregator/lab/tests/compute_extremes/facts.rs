//! Properties of every answer, whatever the inputs.

use serde_json::{Map, Value};

/// Names, or their parts, of fields whose number is a probability.
const PROBABILITIES: [&str; 12] = [
    "p_value",
    "wald_p",
    "independence_p",
    "prob_",
    "chance_to_win",
    "power_",
    "overall_type1",
    "nominal_p",
    "posterior_probability",
    "alpha_spent",
    "expected_loss",
    "p_bound",
];

/// Whole names of further fields whose number is a probability.
const PROBABILITY_NAMES: [&str; 4] = ["p_c", "p_t", "adjusted", "power"];

/// Fields that may be infinite: ends of intervals, bounds that nothing reaches, evidence of impossible counts.
const OPEN: [&str; 6] = ["ci", "one_sided_", "futility_z", "smd_", "interval", "log_bayes_factor"];

/// An interval, its estimate, and the p-value that must agree with it.
pub struct Dual {
    pub interval: &'static str,
    pub estimate: &'static str,
    pub p_value: Option<&'static str>,
}

const fn dual(interval: &'static str, estimate: &'static str, p_value: &'static str) -> Dual {
    Dual { interval, estimate, p_value: Some(p_value) }
}

const fn around(interval: &'static str, estimate: &'static str) -> Dual {
    Dual { interval, estimate, p_value: None }
}

/// Returns the intervals of a method, or of each look or interaction if it has these.
pub fn duals(method: &str) -> &'static [Dual] {
    match method {
        "two_proportion" => {
            &const {
                [
                    dual("ci_wald", "diff", "p_value_unpooled"),
                    dual("ci_score_mee", "diff", "p_value"),
                    dual("rel_ci_fieller", "rel_lift", "p_value_unpooled"),
                    around("ci_newcombe", "diff"),
                    around("ci_score_mn", "diff"),
                    around("rel_ci_delta", "rel_lift"),
                    around("rel_ci_log", "rel_lift"),
                ]
            }
        }
        "welch_t" => {
            &const {
                [
                    dual("ci", "diff", "p_value"),
                    dual("rel_ci_delta", "rel_lift", "rel_p_value_delta"),
                    dual("rel_ci_fieller", "rel_lift", "p_value"),
                    around("rel_ci_log", "rel_lift"),
                ]
            }
        }
        "ratio_delta" => {
            &const {
                [
                    dual("ci", "diff", "p_value"),
                    around("rel_ci_delta", "rel_lift"),
                    around("rel_ci_log", "rel_lift"),
                ]
            }
        }
        "cuped" => {
            &const { [dual("ci", "diff", "p_value"), around("rel_ci_growthbook", "rel_lift_growthbook")] }
        }
        "winsorize" => &const { [dual("ci", "", "p_value")] },
        "quantile" => {
            &const {
                [
                    dual("ci", "diff", "p_value"),
                    around("ci95_c", "quantile_c"),
                    around("ci95_t", "quantile_t"),
                ]
            }
        }
        "sequential_msprt" => &const { [dual("ci", "estimate", "p_value_instant")] },
        "sequential_asymptotic_cs" => &const { [dual("ci", "estimate", "p_value")] },
        "sequential_conversion_counts" => &const { [around("log_rate_ratio_ci", "log_rate_ratio")] },
        "group_sequential_analysis" => &const { [around("repeated_ci", "estimate")] },
        "simpson_poststrat" => {
            &const {
                [
                    dual("poststrat_ci", "poststrat_diff", "poststrat_p_value"),
                    around("mh_odds_ratio_ci", "mh_odds_ratio"),
                ]
            }
        }
        "interaction" => &const { [dual("ci", "estimate", "p_value")] },
        "cluster_randomized" | "switchback" => &const { [dual("ci_delta", "diff", "p_value_delta")] },
        "bayes_gaussian_effect" => &const { [around("ci", "expected")] },
        _ => &[],
    }
}

/// Returns everything that is wrong with the answer to `inputs`.
pub fn wrong(method: &str, inputs: &Map<String, Value>, answer: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(fields) = answer.as_object() else { return vec!["it is no object".to_owned()] };
    if let (Some(why), Some(field)) = (answer["error"].as_str(), answer["field"].as_str()) {
        // The named field must be one that was given, or one that is missing.
        let name = field.split(['.', '[']).next().unwrap_or_default();
        if field == "line" || !(inputs.contains_key(name) || why.contains("missing")) {
            wrong.push(format!("the error names {field}, which was not given: {why}"));
        }
        return wrong;
    }
    unexplained(fields, "", &mut wrong);
    numbers(answer, "", &mut wrong);
    let alpha = inputs.get("alpha").and_then(Value::as_f64).unwrap_or(0.05);
    for list in [None, Some("looks"), Some("interaction")] {
        let parts: Vec<&Value> = match list {
            None => vec![answer],
            Some(name) => answer[name].as_array().into_iter().flatten().collect(),
        };
        for part in parts {
            for of in duals(method) {
                agree(of, part, inputs, alpha, &mut wrong);
            }
        }
    }
    wrong
}

/// Collects nulls without a reason.
fn unexplained(fields: &Map<String, Value>, path: &str, wrong: &mut Vec<String>) {
    let missing = fields.get("missing");
    for (name, value) in fields {
        let has_reason = || missing.is_some_and(|missing| missing[name].is_string());
        match value {
            _ if name == "missing" || name == "warnings" || name == "error" => {}
            Value::Null if !has_reason() => wrong.push(format!("{path}{name} is null without a reason")),
            Value::Array(entries) if entries.iter().any(Value::is_null) && !has_reason() => {
                wrong.push(format!("{path}{name} has nulls without a reason"));
            }
            Value::Array(entries) => {
                for entry in entries.iter().filter_map(Value::as_object) {
                    unexplained(entry, &format!("{path}{name}."), wrong);
                }
            }
            _ => {}
        }
    }
}

/// Checks that probabilities are from 0 to 1, and that only fields in [`OPEN`] are infinite.
fn numbers(value: &Value, name: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields
                .iter()
                .filter(|(name, _)| *name != "missing")
                .for_each(|(name, value)| numbers(value, name, wrong));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| numbers(entry, name, wrong)),
        Value::String(text) if text.ends_with("inf") && !OPEN.iter().any(|open| name.contains(open)) => {
            wrong.push(format!("{name} is infinite"));
        }
        Value::Number(number) => {
            let number = number.as_f64().expect("a double");
            let probability =
                PROBABILITIES.iter().any(|part| name.contains(part)) || PROBABILITY_NAMES.contains(&name);
            if probability && !(0.0..=1.0).contains(&number) {
                wrong.push(format!("{name} is {number}, which is not a probability"));
            }
        }
        _ => {}
    }
}

/// Returns the ends of an interval, which may be infinite.
pub fn ends(interval: &Value) -> Option<(f64, f64)> {
    let end = |value: &Value| match value.as_str() {
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    };
    Some((end(&interval[0])?, end(&interval[1])?))
}

fn agree(of: &Dual, part: &Value, inputs: &Map<String, Value>, alpha: f64, wrong: &mut Vec<String>) {
    let Some((lower, upper)) = ends(&part[of.interval]) else { return };
    let what = || format!("{} [{lower:e}, {upper:e}]", of.interval);
    if lower > upper {
        wrong.push(format!("{}: its ends are exchanged", what()));
    }
    let one_sided = matches!(inputs.get("alternative").and_then(Value::as_str), Some("greater" | "less"))
        || inputs.get("sides").and_then(Value::as_u64) == Some(1);
    // A bound at a level above a half is on the other side of the estimate.
    let estimate = part[of.estimate].as_f64();
    if let Some(estimate) = estimate.filter(|_| !(one_sided && alpha > 0.5)) {
        let slack = 1e-12 * (1.0 + estimate.abs());
        let slack = if of.estimate.contains("rel") || of.estimate.contains("lift") {
            slack
        } else {
            1e-12 * estimate.abs()
        };
        if lower > estimate + slack || estimate - slack > upper {
            wrong.push(format!("{}: it leaves out the estimate {estimate:e}", what()));
        }
    }
    let Some(p) = of.p_value.and_then(|name| part[name].as_f64()) else { return };
    // At the level itself rounding decides. Where nothing varies p is 1 by convention, also for one-sided
    // levels above a half.
    if (p / alpha - 1.0).abs() < 1e-6 || (one_sided && alpha > 0.5 && p == 1.0) {
        return;
    }
    let null = inputs.get("theta0").and_then(Value::as_f64).unwrap_or(0.0);
    let excluded = lower > null || upper < null;
    if (p < alpha) != excluded {
        wrong.push(format!("{}: p is {p:e} at alpha {alpha:e}", what()));
    }
}
