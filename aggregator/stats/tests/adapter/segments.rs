//! Strata of one experiment, and two experiments crossed.

use serde_json::{Value, json};
use stats::{Arm, Counts, Moments, Pair, interaction::Crossed, strata};

use super::{Answer, Inputs, interval, number, or_null, text};

pub fn simpson_poststrat(inputs: &Inputs) -> Answer {
    let stratum = |value: &Value| {
        let inputs = Inputs::of(value, "stratum")?;
        let arm = |n: &str, x: &str| {
            let counts = Counts { units: inputs.count(n)?, conversions: inputs.count(x)? };
            Arm::new(counts).map_err(text)
        };
        Ok(Pair { control: arm("n_c", "x_c")?, treatment: arm("n_t", "x_t")? })
    };
    let all: Vec<Pair<Arm>> = inputs.list("strata")?.iter().map(stratum).collect::<Result<_, String>>()?;
    let alpha = inputs.alpha()?;
    let found = strata::poststratify(&all).map_err(text)?;
    let test = found.test();
    let odds = strata::common_odds(&all);
    let mut out = json!({
        "aggregate_diff": found.aggregate.estimate,
        "aggregate_se": found.aggregate.standard_error,
        "stratum_diffs": found.differences,
        "poststrat_diff": found.poststratified.estimate,
        "poststrat_se": found.poststratified.standard_error,
        "poststrat_se_superpopulation": found.superpopulation_standard_error,
        "poststrat_z": or_null(test, |(z, _)| number(z)),
        "poststrat_p_value": or_null(test, |(_, p)| number(p)),
        "poststrat_ci": interval(found.interval(alpha)),
        "mh_odds_ratio": or_null(odds, |odds| number(odds.odds_ratio)),
        "cmh_chi2": or_null(odds, |odds| number(odds.cmh_chi2)),
        "cmh_p_value": or_null(odds, |odds| number(odds.cmh_p_value)),
        "mh_odds_ratio_ci": or_null(odds, |odds| interval(odds.interval(alpha))),
        "simpson_full_reversal": found.paradox.full_reversal,
        "simpson_sign_flip_after_stratification": found.paradox.sign_flip,
        "n_strata_used": found.differences.len(),
        "n_strata_dropped": found.dropped.len(),
    });
    if let Some(between) = odds.ok().and_then(|odds| odds.breslow_day) {
        out["breslow_day_chi2"] = number(between.chi2);
        out["breslow_day_p_value"] = number(between.p_value);
    }
    if let Some(mix) = found.mix {
        out["mix_chi2"] = number(mix.statistic);
        out["mix_df"] = json!(mix.degrees);
        out["mix_p_value"] = number(mix.p_value);
    }
    Ok(out)
}

pub fn interaction(inputs: &Inputs) -> Answer {
    let cell = |value: &Value| {
        let inputs = Inputs::of(value, "cell")?;
        Moments::from_sums(inputs.count("n")?, inputs.number("sum")?, inputs.number("sum_sq")?).map_err(text)
    };
    let row = |value: &Value| -> Result<Vec<Moments>, String> {
        value.as_array().ok_or("cells is not a list of lists")?.iter().map(cell).collect()
    };
    let cells = inputs.list("cells")?.iter().map(row).collect::<Result<Vec<_>, String>>()?;
    let two_by_two = cells.len() == 2 && cells[0].len() == 2;
    let crossed = Crossed::new(cells).map_err(text)?;
    let alpha = inputs.alpha()?;
    let interactions = crossed.interactions().map_err(text)?;
    let joint = crossed.joint().map_err(text)?;
    let independence = crossed.independence().map_err(text)?;
    let means: Vec<Vec<f64>> =
        crossed.cells().iter().map(|row| row.iter().map(|cell| cell.mean()).collect()).collect();
    let shown: Vec<Value> = interactions
        .iter()
        .map(|found| {
            json!({
                "a": found.a,
                "b": found.b,
                "estimate": found.effect.estimate,
                "se": found.effect.standard_error,
                "z": found.z,
                "p_value": found.p_value,
                "ci": interval(found.interval(alpha)),
            })
        })
        .collect();
    let mut out = json!({
        "cell_means": means,
        "interaction": shown,
        "wald_chi2": joint.chi2,
        "wald_df": joint.degrees,
        "wald_p_value": joint.p_value,
        "assignment_independence_chi2": independence.statistic,
        "assignment_independence_df": independence.degrees,
        "assignment_independence_p": independence.p_value,
    });
    if two_by_two {
        let within = crossed.effects_within(1);
        out["effect_of_A_equal_weight"] = json!((within[0] + within[1]) / 2.0);
        out["effect_of_A_within_B"] = json!(within);
        out["effect_of_A_marginal_pooled"] = json!(crossed.effect_marginal(1));
        out["welch_df"] = json!(interactions[0].degrees);
        out["p_value_t"] = json!(interactions[0].p_value_t);
    }
    Ok(out)
}
