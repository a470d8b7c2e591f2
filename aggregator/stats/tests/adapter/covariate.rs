//! Adjustment by a covariate from before the experiment.

use serde_json::json;
use stats::{Alternative, Pair, cuped, lift, welch};

use super::{Answer, Inputs, interval, number, or_null, text};

pub fn cuped(inputs: &Inputs) -> Answer {
    let names = ["n", "sum_pre", "sum_pre_sq", "sum_post", "sum_post_sq", "sum_pre_post"];
    let arms = Pair {
        control: inputs.object("control")?.pair_moments(names)?,
        treatment: inputs.object("treatment")?.pair_moments(names)?,
    };
    let alpha = inputs.alpha()?;
    let adjusted = cuped::adjust(arms).map_err(text)?;
    let raw = arms.map(|arm| arm.y());
    let test = welch::test(adjusted.arms, Alternative::TwoSided);
    let unadjusted = welch::test(raw, Alternative::TwoSided);
    let raw_lift = raw.treatment.mean() / raw.control.mean() - 1.0;
    // The fields named after GrowthBook are those of the lift without adjustment.
    let means = lift::means_of_moments(raw).map_err(text)?;
    let raw_interval = unadjusted.and_then(|test| lift::delta(means, test.critical(alpha)));
    Ok(json!({
        "theta": adjusted.theta,
        "mean_post_c": raw.control.mean(),
        "mean_post_t": raw.treatment.mean(),
        "adj_mean_c": adjusted.arms.control.mean(),
        "adj_mean_t": adjusted.arms.treatment.mean(),
        "var_adj_c": adjusted.arms.control.variance(),
        "var_adj_t": adjusted.arms.treatment.variance(),
        "diff": adjusted.arms.treatment.mean() - adjusted.arms.control.mean(),
        "se": or_null(test, |test| number(test.effect.standard_error)),
        "df": or_null(test, |test| number(test.degrees)),
        "t": or_null(test, |test| number(test.t)),
        "p_value": or_null(test, |test| number(test.p_value)),
        "ci": or_null(test, |test| interval(test.interval(alpha))),
        "diff_unadjusted": raw.treatment.mean() - raw.control.mean(),
        "se_unadjusted": or_null(unadjusted, |test| number(test.effect.standard_error)),
        "variance_reduction": or_null(cuped::variance_reduction(arms, &adjusted), number),
        "rel_lift_growthbook": number(raw_lift),
        "rel_se_growthbook": or_null(lift::delta_standard_error(means), number),
        "rel_ci_growthbook": or_null(raw_interval, interval),
        "ancova_diff": number(cuped::ancova_difference(arms)),
        "lin_diff": number(cuped::lin_difference(arms)),
    }))
}
