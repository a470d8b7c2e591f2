//! From the golden files' JSON to the library and back: one function a method, `inputs` in,
//! `expected` out. Undefined is null, infinite is "inf" or "-inf", NaN is a bug.

use serde_json::{Map, Value, json};
use stats::{Alpha, Alternative, Interval, Missing, Moments, PairMoments};

mod bayes;
mod clustered;
mod covariate;
mod fixed;
mod group_sequential;
mod planning;
mod segments;
mod sequential;
mod trust;

pub type Answer = Result<Value, String>;
pub type Method = fn(&Inputs) -> Answer;

/// The functions by the name of their file.
pub const METHODS: &[(&str, Method)] = &[
    ("two_proportion", fixed::two_proportion),
    ("welch_t", fixed::welch_t),
    ("ratio_delta", fixed::ratio_delta),
    ("winsorize", fixed::winsorize),
    ("cuped", covariate::cuped),
    ("sequential_msprt", sequential::msprt),
    ("sequential_asymptotic_cs", sequential::asymptotic_cs),
    ("sequential_conversion_counts", sequential::conversion_counts),
    ("group_sequential_bounds", group_sequential::bounds),
    ("group_sequential_analysis", group_sequential::analysis),
    ("peeking_type1", group_sequential::peeking),
    ("srm_chi_square", trust::srm_chi_square),
    ("srm_sequential", trust::srm_sequential),
    ("bayes_beta_binomial", bayes::beta_binomial),
    ("bayes_gaussian_effect", bayes::gaussian_effect),
    ("simpson_poststrat", segments::simpson_poststrat),
    ("interaction", segments::interaction),
    ("cluster_randomized", clustered::cluster_randomized),
    ("switchback", clustered::switchback),
    ("multiple_testing", trust::multiple_testing),
    ("power", planning::power),
];

/// One JSON object, read field by field with errors that name the field.
pub struct Inputs<'a>(pub &'a Map<String, Value>);

impl<'a> Inputs<'a> {
    pub fn of(value: &'a Value, what: &str) -> Result<Inputs<'a>, String> {
        value.as_object().map(Inputs).ok_or(format!("{what} is not an object"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    pub fn get(&self, name: &str) -> Result<&'a Value, String> {
        self.0.get(name).ok_or(format!("{name} is missing"))
    }

    pub fn object(&self, name: &str) -> Result<Inputs<'a>, String> {
        Inputs::of(self.get(name)?, name)
    }

    pub fn list(&self, name: &str) -> Result<&'a Vec<Value>, String> {
        self.get(name)?.as_array().ok_or(format!("{name} is not a list"))
    }

    pub fn number(&self, name: &str) -> Result<f64, String> {
        self.get(name)?.as_f64().ok_or(format!("{name} is not a number"))
    }

    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, String> {
        if self.has(name) { self.number(name) } else { Ok(default) }
    }

    pub fn count(&self, name: &str) -> Result<u64, String> {
        self.get(name)?.as_u64().ok_or(format!("{name} is not a count"))
    }

    pub fn text(&self, name: &str) -> Result<&'a str, String> {
        self.get(name)?.as_str().ok_or(format!("{name} is not a text"))
    }

    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, String> {
        let number = |v: &Value| v.as_f64().ok_or(format!("{name} has an entry that is no number"));
        self.list(name)?.iter().map(number).collect()
    }

    pub fn counts(&self, name: &str) -> Result<Vec<u64>, String> {
        let count = |v: &Value| v.as_u64().ok_or(format!("{name} has an entry that is no count"));
        self.list(name)?.iter().map(count).collect()
    }

    pub fn alpha(&self) -> Result<Alpha, String> {
        Alpha::new(self.number("alpha")?).map_err(|e| e.to_string())
    }

    pub fn alternative(&self) -> Result<Alternative, String> {
        if !self.has("alternative") {
            return Ok(Alternative::TwoSided);
        }
        match self.text("alternative")? {
            "two-sided" => Ok(Alternative::TwoSided),
            "greater" => Ok(Alternative::Greater),
            "less" => Ok(Alternative::Less),
            other => Err(format!("alternative is {other:?}")),
        }
    }

    /// The moments of two values per unit from their sums; `names` are those of count, sums, sums of squares and sum of products.
    pub fn pair_moments(&self, names: [&str; 6]) -> Result<PairMoments, String> {
        let [count, x, xx, y, yy, xy] = names;
        let of = |name: &str| self.number(name);
        PairMoments::from_sums(self.count(count)?, (of(x)?, of(xx)?), (of(y)?, of(yy)?), of(xy)?)
            .map_err(text)
    }

    /// The moments of one arm, from the values or from count, sum and sum of squares.
    pub fn moments(&self, values: &str, suffix: &str) -> Result<Moments, String> {
        let moments = if self.has(values) {
            Moments::of(self.numbers(values)?)
        } else {
            let sum = self.number(&format!("sum{suffix}"))?;
            let squares = self.number(&format!("sum_sq{suffix}"))?;
            Moments::from_sums(self.count(&format!("n{suffix}"))?, sum, squares)
        };
        moments.map_err(|e| e.to_string())
    }
}

pub fn number(value: f64) -> Value {
    assert!(!value.is_nan(), "a result is NaN");
    if value.is_finite() {
        json!(value)
    } else if value > 0.0 {
        json!("inf")
    } else {
        json!("-inf")
    }
}

pub fn interval(interval: Interval) -> Value {
    json!([number(interval.lower), number(interval.upper)])
}

/// The value, or null for what the data do not hold.
pub fn or_null<T>(result: Result<T, Missing>, show: impl Fn(T) -> Value) -> Value {
    result.map_or(Value::Null, show)
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
