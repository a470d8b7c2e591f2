//! Sample ratio and balance.

use serde_json::{Value, json};
use stats::{
    Missing, NoAnswer,
    srm::{self, Share},
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
