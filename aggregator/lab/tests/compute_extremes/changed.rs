//! Changes inputs to another unit of measure, to the opposite sign, or to exchanged arms, and compares the
//! answers.

use serde_json::{Map, Value, json};

/// Fields in the metric's unit, and the power of the unit.
const UNITS: [(&str, i32); 34] = [
    ("sum", 1),
    ("sum_c", 1),
    ("sum_t", 1),
    ("sum_sq", 2),
    ("sum_sq_c", 2),
    ("sum_sq_t", 2),
    ("ss", 2),
    ("sum_num", 1),
    ("sum_num_sq", 2),
    ("sum_num_den", 1),
    ("num", 1),
    ("sum_post", 1),
    ("sum_post_sq", 2),
    ("sum_pre_post", 1),
    ("post", 1),
    ("values_c", 1),
    ("values_t", 1),
    ("quantiles_c", 1),
    ("quantiles_t", 1),
    ("tau", 1),
    ("theta0", 1),
    ("estimate", 1),
    ("se", 1),
    ("values", 1),
    ("mean", 1),
    ("variance", 2),
    ("sd", 1),
    ("mde_abs", 1),
    ("x_control", 1),
    ("y_treatment", 1),
    ("known_sigma", 1),
    ("control", 1),
    ("treatment", 1),
    ("cells", 1),
];

/// Fields that are magnitudes, so that their sign does not change.
const MAGNITUDES: [&str; 5] = ["tau", "se", "variance", "sd", "known_sigma"];

/// Methods whose data are in a unit of measure, so that their answers must not depend on it.
pub const MEASURED: [&str; 10] = [
    "welch_t",
    "ratio_delta",
    "cuped",
    "winsorize",
    "quantile",
    "sequential_msprt",
    "sequential_asymptotic_cs",
    "interaction",
    "cluster_randomized",
    "switchback",
];

/// Methods whose answer is the mirror image for mirrored data.
pub const MIRRORED: [&str; 8] = [
    "welch_t",
    "ratio_delta",
    "cuped",
    "sequential_msprt",
    "sequential_asymptotic_cs",
    "interaction",
    "cluster_randomized",
    "switchback",
];

/// Methods whose answer is the mirror image for exchanged arms.
pub const EXCHANGED: [&str; 5] =
    ["two_proportion", "welch_t", "quantile", "simpson_poststrat", "group_sequential_analysis"];

/// Fields that have no unit and no sign.
const PLAIN: [&str; 30] = [
    "df",
    "p_value",
    "p_value_z",
    "p_value_unpooled",
    "p_value_instant",
    "p_value_fisher",
    "chi2",
    "df_delta",
    "df_cr1",
    "df_cr2",
    "p_value_delta",
    "p_value_cr1",
    "p_value_cr2",
    "permutation_p_value",
    "wald_chi2",
    "wald_p_value",
    "welch_df",
    "p_value_t",
    "log_e_value",
    "log_lambda",
    "n_capped_c",
    "n_capped_t",
    "variance_reduction",
    "icc_anova",
    "cmh_chi2",
    "cmh_p_value",
    "mix_p_value",
    "breslow_day_chi2",
    "p_value_stagewise",
    "reject",
];

/// Fields without a unit whose sign changes.
const SIGNED: [&str; 4] = ["t", "z", "t_delta", "poststrat_z"];

/// Returns whether the data are numbers in a unit; counts of conversions are not.
pub fn has_a_unit(inputs: &Map<String, Value>) -> bool {
    let first = |list: &str| inputs.get(list).and_then(|list| list.get(0)).cloned().unwrap_or(Value::Null);
    let rates = inputs.get("control").is_some_and(|arm| arm["kind"] == "prop");
    let counts = first("looks").get("n_c").is_some();
    let conversions = first("clusters").get("n").is_some();
    !(rates || counts || conversions)
}

/// Returns the inputs in a unit that is `1 / factor` as large.
pub fn rescaled(inputs: &Map<String, Value>, factor: f64) -> Map<String, Value> {
    each(inputs, &|name, value| {
        let (_, power) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        Some(value * factor.powi(*power))
    })
}

/// Returns the inputs with the opposite sign of all data, and with the other alternative.
pub fn negated(inputs: &Map<String, Value>) -> Map<String, Value> {
    let turned = each(inputs, &|name, value| {
        let (_, power) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        (power % 2 == 1 && !MAGNITUDES.contains(&name)).then_some(-value)
    });
    other_side(turned)
}

/// Returns the inputs with control and treatment exchanged, and with the other alternative.
pub fn exchanged(inputs: &Map<String, Value>) -> Map<String, Value> {
    fn renamed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields.iter().map(|(name, value)| (exchanged_name(name), renamed(value))).collect(),
            ),
            Value::Array(entries) => Value::Array(entries.iter().map(renamed).collect()),
            other => other.clone(),
        }
    }
    match renamed(&Value::Object(inputs.clone())) {
        Value::Object(inputs) => other_side(inputs),
        _ => unreachable!("an object stays one"),
    }
}

fn exchanged_name(name: &str) -> String {
    match name {
        "control" => "treatment".to_owned(),
        "treatment" => "control".to_owned(),
        name => match (name.strip_suffix("_c"), name.strip_suffix("_t")) {
            (Some(stem), _) => format!("{stem}_t"),
            (_, Some(stem)) => format!("{stem}_c"),
            _ => name.to_owned(),
        },
    }
}

fn other_side(mut inputs: Map<String, Value>) -> Map<String, Value> {
    match inputs.get("alternative").and_then(Value::as_str) {
        Some("greater") => inputs.insert("alternative".to_owned(), json!("less")),
        Some("less") => inputs.insert("alternative".to_owned(), json!("greater")),
        _ => None,
    };
    inputs
}

/// Applies `change` to every number, with the name of its field.
fn each(inputs: &Map<String, Value>, change: &impl Fn(&str, f64) -> Option<f64>) -> Map<String, Value> {
    fn walk(name: &str, value: &Value, change: &impl Fn(&str, f64) -> Option<f64>) -> Value {
        match value {
            Value::Object(fields) => Value::Object(each(fields, change)),
            Value::Array(entries) => {
                Value::Array(entries.iter().map(|entry| walk(name, entry, change)).collect())
            }
            Value::Number(number) => {
                let number = number.as_f64().expect("a double");
                change(name, number).map_or(value.clone(), |changed| json!(changed))
            }
            other => other.clone(),
        }
    }
    inputs.iter().map(|(name, value)| (name.clone(), walk(name, value, change))).collect()
}

/// Returns the differences of two answers that must agree; with `turn` -1 signed fields must have opposite
/// signs.
pub fn differences(one: &Value, other: &Value, turn: f64, slack: f64) -> Vec<String> {
    let mut found = Vec::new();
    compare(one, other, turn, slack, &mut found);
    found
}

fn compare(one: &Value, other: &Value, turn: f64, slack: f64, found: &mut Vec<String>) {
    let (Some(fields), Some(others)) = (one.as_object(), other.as_object()) else { return };
    for name in PLAIN {
        same(name, fields.get(name), others.get(name), 1.0, slack, found);
    }
    for name in SIGNED {
        same(name, fields.get(name), others.get(name), turn, slack, found);
    }
    for name in ["looks", "interaction"] {
        let entries =
            |of: &Map<String, Value>| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        for (one, other) in entries(fields).iter().zip(&entries(others)) {
            compare(one, other, turn, slack, found);
        }
    }
}

fn same(
    name: &str,
    one: Option<&Value>,
    other: Option<&Value>,
    turn: f64,
    slack: f64,
    found: &mut Vec<String>,
) {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    let close = match (number(one), number(other)) {
        (Some(one), Some(other)) => (one - turn * other).abs() <= slack * one.abs(),
        _ => one == other,
    };
    if !close {
        found.push(format!("{name}: {one:?} and {other:?}"));
    }
}
