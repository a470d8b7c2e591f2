//! The calculator for machines: it takes one JSON object and returns one, so that anybody can check any
//! number of the statistics without a stream. There is one function for each method; its fields are those of
//! the golden files, `inputs` in and `expected` out. Pure; it knows no experiment and reads nothing.
//!
//! A result that the data do not contain is null, and `missing` has the reason for each null; `warnings` has
//! notes that are needed to read a field. An invalid input is answered by an `error` and the `field` to
//! correct. An input that the method does not read is listed in the warnings; it is refused if its name is
//! almost that of a field that the method looked for. An infinite end of an interval is "inf" or "-inf", and
//! so is infinite evidence. Numbers in a metric's unit are 0 or of a magnitude from 1e-100 to 1e100; counts
//! are at most 2^53.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use serde_json::{Map, Value, json};

mod bayes;
mod clustered;
mod covariate;
mod fixed;
mod group_sequential;
mod inputs;
mod output;
mod planning;
mod quantile;
mod segments;
mod sequential;
mod trust;

use inputs::{Inputs, Refused, Sides};
use output::Output;

/// A method, with the name of its golden file.
#[derive(Clone, Copy)]
pub struct Method {
    pub name: &'static str,
    sides: Sides,
    run: fn(&Inputs) -> Result<Output, Refused>,
}

/// All methods.
pub const METHODS: [Method; 23] = [
    Method { name: "two_proportion", sides: Sides::Alternative, run: fixed::two_proportion },
    Method { name: "welch_t", sides: Sides::Alternative, run: fixed::welch_t },
    Method { name: "ratio_delta", sides: Sides::Alternative, run: fixed::ratio_delta },
    Method { name: "winsorize", sides: Sides::Alternative, run: fixed::winsorize },
    Method { name: "quantile", sides: Sides::Alternative, run: quantile::quantile },
    Method { name: "cuped", sides: Sides::Alternative, run: covariate::cuped },
    Method { name: "power", sides: Sides::Number, run: planning::power },
    Method { name: "sequential_msprt", sides: Sides::Alternative, run: sequential::msprt },
    Method { name: "sequential_asymptotic_cs", sides: Sides::Both, run: sequential::asymptotic_cs },
    Method { name: "sequential_conversion_counts", sides: Sides::Both, run: sequential::conversion_counts },
    Method { name: "group_sequential_bounds", sides: Sides::Number, run: group_sequential::bounds },
    Method { name: "group_sequential_analysis", sides: Sides::Number, run: group_sequential::analysis },
    Method { name: "futility", sides: Sides::Number, run: group_sequential::futility },
    Method { name: "srm_chi_square", sides: Sides::Both, run: trust::srm_chi_square },
    Method { name: "srm_sequential", sides: Sides::Both, run: trust::srm_sequential },
    Method { name: "multiple_testing", sides: Sides::Both, run: trust::multiple_testing },
    Method { name: "bayes_beta_binomial", sides: Sides::Both, run: bayes::beta_binomial },
    Method { name: "bayes_gaussian_effect", sides: Sides::Both, run: bayes::gaussian_effect },
    Method { name: "simpson_poststrat", sides: Sides::Both, run: segments::simpson_poststrat },
    Method { name: "interaction", sides: Sides::Both, run: segments::interaction },
    Method { name: "cluster_randomized", sides: Sides::Both, run: clustered::cluster_randomized },
    Method { name: "switchback", sides: Sides::Both, run: clustered::switchback },
    Method { name: "peeking_type1", sides: Sides::Both, run: group_sequential::peeking },
];

impl Method {
    /// Answers one line of text with one line. A line that is not a JSON object, or that lacks a
    /// field, is answered by an error; it never panics and never returns NaN.
    ///
    /// It also accepts a whole case of a golden file: `inputs` are read from inside it, and its `id` is
    /// returned.
    pub fn answer(self, line: &str) -> String {
        let object = match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Refused::whole_line("it is not a JSON object").to_json().to_string(),
            Err(error) => return Refused::whole_line(error).to_json().to_string(),
        };
        let (inputs, id) = match object.get("inputs") {
            Some(Value::Object(inputs)) => (inputs, object.get("id")),
            _ => (&object, None),
        };
        let mut answer = self.compute(inputs);
        if let Some(id) = id {
            answer["id"] = id.clone();
        }
        answer.to_string()
    }

    /// Answers one object. A fault of the program itself is answered too, so that the next line still gets an
    /// answer.
    pub fn compute(self, inputs: &Map<String, Value>) -> Value {
        let inputs = Inputs::top(inputs);
        let run = || -> Result<Output, Refused> {
            inputs.check_sides(self.sides)?;
            let mut found = (self.run)(&inputs)?;
            for field in inputs.unread()? {
                found.warn(&field, "this input is not read here");
            }
            Ok(found)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(found)) => found.into_json(),
            Ok(Err(refused)) => refused.to_json(),
            Err(_) => Refused::whole_line("the program failed at it; please report this").to_json(),
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> Result<Method, String> {
        let known = METHODS.iter().find(|method| method.name == name).copied();
        known.ok_or_else(|| {
            let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
            format!("`{name}` is none of {}", names.join(", "))
        })
    }
}

impl Refused {
    fn to_json(&self) -> Value {
        json!({ "error": self.to_string(), "field": self.field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, line: &str) -> String {
        method.parse::<Method>().unwrap().answer(line)
    }

    #[test]
    fn a_bad_input_is_an_error_that_names_the_field() {
        assert_eq!(
            answer("two_proportion", r#"{"n_c": 10, "x_c": 11, "n_t": 5, "x_t": 1, "alpha": 0.05}"#),
            r#"{"error":"x_c: 11 conversions cannot come from 10 units","field":"x_c"}"#
        );
        assert_eq!(answer("peeking_type1", "{}"), r#"{"error":"looks: it is missing","field":"looks"}"#);
        assert_eq!(
            answer("sequential_msprt", r#"{"tau": 1, "alpha": 0.05, "looks": [{"estimate": 1, "se": "x"}]}"#),
            r#"{"error":"looks[0].se: \"x\" is not a number","field":"looks[0].se"}"#
        );
    }

    #[test]
    fn quantiles_and_spending_are_refused_by_their_fields() {
        let line = r#"{"level": 0.5, "alpha": 0.05, "quantiles_c": [1, 2], "quantiles_t": [1, 2, 3]}"#;
        assert_eq!(
            answer("quantile", line),
            r#"{"error":"quantiles_c: three quantiles differ in length: 3 and 2","field":"quantiles_c"}"#
        );
        let line = r#"{"level": 0.5, "alpha": 0.05, "quantiles_c": [1, 3, 2], "quantiles_t": [1, 2, 3]}"#;
        assert!(answer("quantile", line).ends_with(r#""field":"quantiles_c"}"#));
        let line = r#"{"information_fractions": [1], "alpha": 0.05, "sides": 2, "spending": "obf", "power": 0.8,
            "futility_spending": "classic_obf"}"#;
        assert_eq!(
            answer("futility", line),
            r#"{"error":"futility_spending: \"classic_obf\" is none of obf, pocock, kim_demets, hsd","field":"futility_spending"}"#
        );
    }

    /// A two-sided p-value is not an answer to a one-sided question.
    #[test]
    fn a_side_that_a_method_does_not_look_at_is_refused() {
        let refusal =
            |method: &str, field: &str, value: Value| answer(method, &json!({ field: value }).to_string());
        assert_eq!(
            refusal("interaction", "alternative", json!("greater")),
            r#"{"error":"alternative: this method is two-sided","field":"alternative"}"#
        );
        assert_eq!(
            refusal("power", "alternative", json!("less")),
            r#"{"error":"alternative: this method takes its side from `sides`","field":"alternative"}"#
        );
        assert_eq!(
            refusal("welch_t", "sides", json!(1)),
            r#"{"error":"sides: this method takes its side from `alternative`","field":"sides"}"#
        );
        assert!(refusal("interaction", "alternative", json!("two-sided")).ends_with(r#""field":"cells"}"#));
        assert!(refusal("welch_t", "sides", json!(2)).ends_with(r#""field":"n_c"}"#));
    }

    /// `alternativ` once returned the two-sided p-value without a warning.
    #[test]
    fn an_input_that_is_not_read_is_named() {
        let with = |field: &str, value: Value| {
            let mut line = json!({"n_c": 100, "x_c": 10, "n_t": 100, "x_t": 20, "alpha": 0.05});
            line[field] = value;
            serde_json::from_str::<Value>(&answer("two_proportion", &line.to_string())).unwrap()
        };
        assert_eq!(
            with("alternativ", json!("greater")),
            json!({"error": "alternativ: there is no such field; `alternative` is meant?", "field": "alternativ"})
        );
        assert_eq!(
            with("note", json!("from the report"))["warnings"],
            json!({"note": "this input is not read here"})
        );
        assert_eq!(with("alternative", json!("greater"))["warnings"], Value::Null);
        let line = r#"{"tau": 1, "alpha": 0.05, "looks": [{"estimate": 1, "se": 1}, {"estimate": 1, "se": 1, "day": 2}]}"#;
        let answer: Value = serde_json::from_str(&answer("sequential_msprt", line)).unwrap();
        assert_eq!(answer["warnings"], json!({"looks[].day": "this input is not read here"}));
    }

    #[test]
    fn a_line_that_is_no_object_is_an_error_of_the_line() {
        assert_eq!(answer("power", "[]"), r#"{"error":"line: it is not a JSON object","field":"line"}"#);
        assert!(answer("power", "").starts_with(r#"{"error":"line: EOF"#));
    }

    #[test]
    fn a_result_that_the_data_do_not_contain_is_null_with_a_reason() {
        let line = r#"{"n_c": 0, "x_c": 0, "n_t": 5, "x_t": 1, "alpha": 0.05}"#;
        let answer: Value = serde_json::from_str(&answer("two_proportion", line)).unwrap();
        assert_eq!(answer["z"], Value::Null);
        assert_eq!(answer["missing"]["z"], "the control arm has 0 units, 1 are needed");
        assert_eq!((&answer["p_t"], &answer["p_c"]), (&json!(0.2), &Value::Null));
    }

    #[test]
    fn a_whole_case_is_answered_under_its_id() {
        let case = r#"{"id": "five", "inputs": {"looks": 1, "alpha": 0.05, "critical_value": null}, "expected": {}}"#;
        let answer: Value = serde_json::from_str(&answer("peeking_type1", case)).unwrap();
        assert_eq!(answer["id"], "five");
        assert!((answer["overall_type1"].as_f64().unwrap() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn the_error_of_an_unknown_method_lists_the_known_ones() {
        let refusal = "t_test".parse::<Method>().err().unwrap();
        assert!(refusal.starts_with("`t_test` is none of two_proportion, welch_t, "), "{refusal}");
    }
}
