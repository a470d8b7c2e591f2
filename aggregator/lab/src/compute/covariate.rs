//! Adjustment by a covariate from before the experiment.

use stats::{Pair, PairMoments, Side, cuped, lift, welch};

use super::{Inputs, Output, Refused, fixed};

pub fn cuped(inputs: &Inputs) -> Result<Output, Refused> {
    let names = ["n", "sum_pre", "sum_pre_sq", "sum_post", "sum_post_sq", "sum_pre_post"];
    let arms = inputs.pairs("pre", "post", names)?;
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);
    let adjusted = cuped::adjust(arms);
    let after = adjusted.map(|adjusted| adjusted.arms);
    let raw = arms.map(PairMoments::y);
    let test = after.and_then(|after| welch::test(after, side));
    let unadjusted = welch::test(raw, side);
    // The fields named after GrowthBook are those of the lift without adjustment.
    let means = lift::means_of_moments(raw);
    let raw_lift_interval = unadjusted.and_then(|test| lift::delta(means?, test.critical(alpha)));
    let (mean_c, mean_t) =
        (fixed::mean(Side::Control, raw.control), fixed::mean(Side::Treatment, raw.treatment));
    // Results that need no variance need only a unit in each arm.
    let of_units = |of: fn(Pair<PairMoments>) -> f64| mean_c.and_then(|_| mean_t.map(|_| of(arms)));
    let mean = |side| {
        after.map(|after| match side {
            Side::Control => after.control.mean(),
            Side::Treatment => after.treatment.mean(),
        })
    };
    let mut found = Output::default()
        .with("theta", adjusted.map(|adjusted| adjusted.theta))
        .with("mean_post_c", mean_c)
        .with("mean_post_t", mean_t)
        .with("adj_mean_c", after.map(|after| after.control.mean()))
        .with("adj_mean_t", after.map(|after| after.treatment.mean()))
        .with("var_adj_c", after.and_then(|after| fixed::variance(Side::Control, after.control)))
        .with("var_adj_t", after.and_then(|after| fixed::variance(Side::Treatment, after.treatment)))
        .with("diff", after.map(|after| after.treatment.mean() - after.control.mean()))
        .with("se", test.map(|test| test.effect.standard_error))
        .with("df", test.map(|test| test.degrees))
        .with("t", test.map(|test| test.t))
        .with("p_value", fixed::p_value(test, mean(Side::Control), mean(Side::Treatment)))
        .with("ci", test.map(|test| test.interval(alpha)))
        .with("diff_unadjusted", of_units(|arms| arms.treatment.y().mean() - arms.control.y().mean()))
        .with("se_unadjusted", unadjusted.map(|test| test.effect.standard_error))
        .with("variance_reduction", adjusted.and_then(|adjusted| cuped::variance_reduction(arms, &adjusted)))
        .with("rel_lift_growthbook", fixed::lift_of(mean_t, mean_c))
        .with("rel_se_growthbook", means.and_then(lift::delta_standard_error))
        .with("rel_ci_growthbook", raw_lift_interval.map(|interval| side.of_interval(interval)))
        .with("ancova_diff", of_units(cuped::ancova_difference))
        .with("lin_diff", of_units(cuped::lin_difference));
    // Their errors need every unit's residual, which sums do not contain.
    if inputs.has("control_raw") && inputs.has("treatment_raw") {
        let (control, treatment) = (
            inputs.pairs_of_values("control_raw", "pre", "post")?,
            inputs.pairs_of_values("treatment_raw", "pre", "post")?,
        );
        let values = Pair { control: &control[..], treatment: &treatment[..] };
        found.put("ancova_se_hc2", cuped::ancova(values).map(|effect| effect.standard_error));
        found.put("lin_se_hc2", cuped::lin(values).map(|effect| effect.standard_error));
    }
    Ok(found)
}
