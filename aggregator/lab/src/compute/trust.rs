//! Sample ratio, balance, and several tests at once.

use serde_json::json;
use stats::{
    Missing, NoAnswer,
    multiple_testing::{Correction, adjust},
    srm::{self, Share},
    srm_sequential::{Phase, evidence},
};

use super::{Inputs, Output, Refused, output::Open};

pub fn srm_chi_square(inputs: &Inputs) -> Result<Output, Refused> {
    match inputs.text_or("kind", "srm")? {
        "covariate_balance" => return covariate_balance(inputs),
        "srm" => {}
        other => return Err(inputs.refuse("kind", format!("{other:?} is not covariate_balance"))),
    }
    let (observed, weights) = (inputs.counts("observed")?, inputs.numbers("weights")?);
    if observed.len() != weights.len() {
        let why = format!("{} weights for {} counts", weights.len(), observed.len());
        return Err(inputs.refuse("weights", why));
    }
    let arms: Vec<Share> =
        observed.iter().zip(&weights).map(|(&units, &weight)| Share { weight, units }).collect();
    let Some(total) = observed.iter().try_fold(0_u64, |sum, units| sum.checked_add(*units)) else {
        return Err(inputs.refuse("observed", "the sum of the counts is above 2^64"));
    };
    let found = Output::default().with("total", total);
    let unplanned = inputs.check("weights", srm::first_unplanned(&arms))?;
    let planned = arms.iter().filter(|arm| arm.weight > 0.0).count();
    let found = match srm::chi_square(&arms) {
        Ok(test) => found
            .with("expected_counts", test.expected)
            .with("chi2", test.statistic)
            .with("df", test.degrees)
            .with("p_value", test.p_value)
            .with("srm_at_0.001", unplanned.is_some() || test.p_value < srm::ALARM_LEVEL),
        // One planned arm has no ratio; units in another arm are the alarm.
        Err(_) if unplanned.is_some() && planned == 1 => {
            let expected: Vec<u64> =
                arms.iter().map(|arm| if arm.weight > 0.0 { arm.units } else { 0 }).collect();
            let mut found = found.with("expected_counts", expected);
            for name in ["chi2", "p_value"] {
                found.lacking(name, "one arm alone has a positive weight: there is no ratio to test");
            }
            found.with("df", 0_u64).with("srm_at_0.001", true)
        }
        // No unit was assigned: p is 1 by the golden file's convention.
        Err(NoAnswer::Missing(Missing::ExpectedCount { .. })) => found
            .with("expected_counts", vec![0.0; weights.len()])
            .with("chi2", 0.0)
            .with("df", planned - 1)
            .with("p_value", 1.0)
            .with("srm_at_0.001", unplanned.is_some()),
        Err(other) => return Err(inputs.refuse("weights", other)),
    };
    Ok(match unplanned {
        Some(arm) => found.with("unplanned_arm", arm),
        None => found,
    })
}

fn covariate_balance(inputs: &Inputs) -> Result<Output, Refused> {
    let counts = inputs.rows_of_counts("counts_by_arm")?;
    let balance = match srm::balance(&counts) {
        Ok(balance) => Ok(balance),
        Err(NoAnswer::Missing(missing)) => Err(missing),
        Err(NoAnswer::Invalid(invalid)) => return Err(inputs.refuse("counts_by_arm", invalid)),
    };
    let differences = balance.as_ref().map_err(|why| *why).map(|balance| {
        let pairs = balance.shares[0].iter().zip(&balance.shares[1]);
        let each = pairs.map(|(&control, &treatment)| srm::standardized_difference(control, treatment));
        // Infinite where neither arm varies and they differ.
        each.map(Open).collect()
    });
    let differences: Result<Vec<Open>, Missing> = differences;
    Ok(Output::default()
        .with("chi2", balance.as_ref().map(|balance| balance.statistic).map_err(|why| *why))
        .with("df", balance.as_ref().map(|balance| balance.degrees).map_err(|why| *why))
        .with("p_value", balance.as_ref().map(|balance| balance.p_value).map_err(|why| *why))
        .with("smd_treatment_minus_control", differences)
        .with("proportions", balance.map(|balance| balance.shares)))
}

pub fn srm_sequential(inputs: &Inputs) -> Result<Output, Refused> {
    let weights = inputs.numbers("null_probabilities")?;
    let concentration = inputs.number("concentration")?;
    let mut units = vec![0_u64; weights.len()];
    let mut p = 1.0_f64;
    let (mut cumulative, mut logs, mut p_values, mut posteriors) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, batch) in inputs.rows_of_counts("batches")?.into_iter().enumerate() {
        if batch.len() != units.len() {
            let why = format!("{} counts for {} arms", batch.len(), units.len());
            return Err(inputs.refuse(&format!("batches[{index}]"), why));
        }
        for (total, new) in units.iter_mut().zip(batch) {
            *total = total.saturating_add(new);
        }
        let phase = Phase { weights: &weights, units: &units };
        let found = evidence(&[phase], concentration).map_err(|why| {
            let blamed = if why.what() == "concentration" { "concentration" } else { "null_probabilities" };
            inputs.refuse(blamed, why)
        })?;
        p = p.min(found.p_value);
        cumulative.push(units.clone());
        logs.push(Open(found.log_bayes_factor));
        p_values.push(p);
        posteriors.push(found.posterior_probability());
    }
    let mut found = Output::default();
    for (name, level) in [("first_alarm_index_at_0_01", 0.01), ("first_alarm_index_at_0_001", 0.001)] {
        match p_values.iter().position(|&p| p <= level) {
            Some(index) => found.put(name, index),
            None => found.lacking(name, "there was no alarm"),
        }
    }
    Ok(found
        .with("cumulative", cumulative)
        .with("log_bayes_factor", logs)
        .with("p_value", p_values)
        .with("posterior_probability_prior_odds_1", posteriors))
}

/// Adjusts p-values. A null was not tested: it is not counted and stays null.
pub fn multiple_testing(inputs: &Inputs) -> Result<Output, Refused> {
    let (p_values, alpha) = (inputs.numbers_or_null("p_values")?, inputs.alpha()?.get());
    let tested: Vec<f64> = p_values.iter().flatten().copied().collect();
    let all = [
        ("bonferroni", Correction::Bonferroni),
        ("holm", Correction::Holm),
        ("hochberg", Correction::Hochberg),
        ("benjamini_hochberg", Correction::BenjaminiHochberg),
        ("benjamini_yekutieli", Correction::BenjaminiYekutieli),
    ];
    let mut found = Output::default();
    for (name, correction) in all {
        let adjusted = inputs.check("p_values", adjust(&tested, correction))?;
        let mut next = adjusted.into_iter();
        let in_order: Vec<Option<f64>> =
            p_values.iter().map(|given| given.and_then(|_| next.next())).collect();
        let reject: Vec<bool> = in_order.iter().map(|p| p.is_some_and(|p| p <= alpha)).collect();
        let of = json!({ "adjusted": in_order, "reject": reject });
        found.put(name, of);
        if tested.len() < p_values.len() {
            found.note(name, "null: it was not tested");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::compute::Method;

    fn answer(method: &str, line: &str) -> Value {
        serde_json::from_str(&method.parse::<Method>().unwrap().answer(line)).unwrap()
    }

    /// One planned arm has no ratio to test, but units in another arm are a mismatch.
    #[test]
    fn units_where_none_were_planned_are_a_mismatch_and_not_a_refusal() {
        let one_arm = answer("srm_chi_square", r#"{"observed": [300, 50], "weights": [10000, 0]}"#);
        let expected = json!({
            "total": 350, "expected_counts": [300, 0], "chi2": null, "df": 0, "p_value": null,
            "srm_at_0.001": true, "unplanned_arm": 1,
            "missing": {
                "chi2": "one arm alone has a positive weight: there is no ratio to test",
                "p_value": "one arm alone has a positive weight: there is no ratio to test",
            },
        });
        assert_eq!(one_arm, expected);
        let three = answer("srm_chi_square", r#"{"observed": [334, 333, 333], "weights": [1, 1, 0]}"#);
        assert_eq!((&three["srm_at_0.001"], &three["unplanned_arm"]), (&json!(true), &json!(2)));
        let line = r#"{"batches": [[300, 0], [0, 50]], "null_probabilities": [1, 0], "concentration": 100}"#;
        let sequential = answer("srm_sequential", line);
        assert_eq!(sequential["log_bayes_factor"], json!([0.0, "inf"]));
        assert_eq!(sequential["p_value"], json!([1.0, 0.0]));
        assert_eq!(sequential["first_alarm_index_at_0_001"], json!(1));
    }
}
