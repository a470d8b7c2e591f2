//! Sample ratio and balance.

use serde_json::{Value, json};
use stats::{
    Missing, NoAnswer,
    multiple_testing::{Correction, adjust},
    srm::{self, Share},
    srm_sequential::{Phase, evidence},
};

use super::{Answer, Inputs, number, text};

pub fn srm_chi_square(inputs: &Inputs) -> Answer {
    if inputs.has("kind") && inputs.text("kind")? == "covariate_balance" {
        return covariate_balance(inputs);
    }
    let (observed, weights) = (inputs.counts("observed")?, inputs.numbers("weights")?);
    let arms: Vec<Share> =
        observed.iter().zip(&weights).map(|(&units, &weight)| Share { weight, units }).collect();
    let total: u64 = observed.iter().sum();
    match srm::chi_square(&arms) {
        Ok(test) => Ok(json!({
            "total": total,
            "expected_counts": test.expected,
            "chi2": test.statistic,
            "df": test.degrees,
            "p_value": number(test.p_value),
            "srm_at_0.001": test.p_value < 0.001,
        })),
        // Nobody was assigned: p is 1 by the file's convention.
        Err(NoAnswer::Missing(Missing::ExpectedCount { .. })) => Ok(json!({
            "total": total,
            "chi2": 0.0,
            "df": weights.iter().filter(|&&weight| weight > 0.0).count() - 1,
            "p_value": 1.0,
            "srm_at_0.001": false,
        })),
        Err(other) => Err(text(other)),
    }
}

fn covariate_balance(inputs: &Inputs) -> Answer {
    let arm = |value: &Value| -> Result<Vec<u64>, String> {
        let counts = value.as_array().ok_or("counts_by_arm is not a list of lists")?;
        let count = |v: &Value| v.as_u64().ok_or("counts_by_arm has an entry that is no count");
        Ok(counts.iter().map(count).collect::<Result<_, _>>()?)
    };
    let counts: Vec<Vec<u64>> = inputs.list("counts_by_arm")?.iter().map(arm).collect::<Result<_, _>>()?;
    let balance = srm::balance(&counts).map_err(text)?;
    let differences: Vec<f64> = balance.shares[0]
        .iter()
        .zip(&balance.shares[1])
        .map(|(&control, &treatment)| srm::standardized_difference(control, treatment))
        .collect();
    Ok(json!({
        "proportions": balance.shares,
        "chi2": balance.statistic,
        "df": balance.degrees,
        "p_value": number(balance.p_value),
        "smd_treatment_minus_control": differences,
    }))
}

pub fn srm_sequential(inputs: &Inputs) -> Answer {
    let weights = inputs.numbers("null_probabilities")?;
    let concentration = inputs.number("concentration")?;
    let mut units = vec![0; weights.len()];
    let mut p = 1.0f64;
    let (mut cumulative, mut logs, mut p_values, mut posteriors) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for batch in inputs.list("batches")? {
        let batch = batch.as_array().ok_or("batches is not a list of lists")?;
        for (total, new) in units.iter_mut().zip(batch) {
            *total += new.as_u64().ok_or("batches has an entry that is no count")?;
        }
        let phase = Phase { weights: &weights, units: &units };
        let found = evidence(&[phase], concentration).map_err(text)?;
        p = p.min(found.p_value);
        cumulative.push(units.clone());
        logs.push(found.log_bayes_factor);
        p_values.push(p);
        posteriors.push(found.posterior_probability());
    }
    let first = |level: f64| p_values.iter().position(|&p| p <= level);
    Ok(json!({
        "cumulative": cumulative,
        "log_bayes_factor": logs,
        "p_value": p_values,
        "posterior_probability_prior_odds_1": posteriors,
        "first_alarm_index_at_0_01": first(0.01),
        "first_alarm_index_at_0_001": first(0.001),
    }))
}

pub fn multiple_testing(inputs: &Inputs) -> Answer {
    let (p_values, alpha) = (inputs.numbers("p_values")?, inputs.alpha()?.get());
    let all = [
        ("bonferroni", Correction::Bonferroni),
        ("holm", Correction::Holm),
        ("hochberg", Correction::Hochberg),
        ("benjamini_hochberg", Correction::BenjaminiHochberg),
        ("benjamini_yekutieli", Correction::BenjaminiYekutieli),
    ];
    let mut out = json!({});
    for (name, correction) in all {
        let adjusted = adjust(&p_values, correction).map_err(text)?;
        let reject: Vec<bool> = adjusted.iter().map(|&p| p <= alpha).collect();
        out[name] = json!({ "adjusted": adjusted, "reject": reject });
    }
    Ok(out)
}
