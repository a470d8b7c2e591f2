//! Clusters and switchbacks.

use serde_json::{Value, json};
use stats::{
    Alternative, Missing, Moments, Pair,
    clusters::{self, ClusterTest, Clusters},
    permutation::{self, Design},
    switchback::{self, Window},
    welch,
};

use super::{Answer, Inputs, interval, number, or_null, text};

pub fn cluster_randomized(inputs: &Inputs) -> Answer {
    let (mut control, mut treatment) = (Vec::new(), Vec::new());
    for value in inputs.list("clusters")? {
        let cluster = Inputs::of(value, "cluster")?;
        let moments = if cluster.has("values") {
            Moments::of(cluster.numbers("values")?)
        } else {
            // Conversions: every value is its own square.
            let sum = cluster.number("sum")?;
            Moments::from_sums(cluster.count("n")?, sum, sum)
        };
        let arm = if cluster.count("arm")? == 1 { &mut treatment } else { &mut control };
        arm.push(moments.map_err(text)?);
    }
    let arms = Pair { control: &control[..], treatment: &treatment[..] };
    let naive = clusters::ignoring_clusters(arms).map_err(text)?;
    let means = arms.map(|arm| Moments::of(arm.iter().map(|cluster| cluster.mean())));
    let means = means.try_map(|_, moments| moments).map_err(text)?;
    let icc = clusters::intraclass_correlation(arms);
    let units = |arm: &[Moments]| arm.iter().map(|cluster| cluster.count()).sum::<u64>();
    let mut out = tests(arms, inputs)?;
    out["clusters_c"] = json!(control.len());
    out["clusters_t"] = json!(treatment.len());
    out["n_c"] = json!(units(&control));
    out["n_t"] = json!(units(&treatment));
    out["se_naive_user_level"] = number(naive.standard_error);
    out["cluster_means_diff"] = number(means.treatment.mean() - means.control.mean());
    out["cluster_means_p_welch"] =
        or_null(welch::test(means, Alternative::TwoSided), |test| number(test.p_value));
    out["icc_anova"] = or_null(icc, |icc| number(icc.icc));
    out["n0"] = or_null(icc, |icc| number(icc.size));
    let effect = clusters::delta(arms).map(|test| test.effect.standard_error);
    out["design_effect_empirical"] = or_null(effect, |error| number((error / naive.standard_error).powi(2)));
    Ok(out)
}

/// What both files show of the three tests.
fn tests(arms: Clusters, inputs: &Inputs) -> Answer {
    let alpha = inputs.alpha()?;
    let delta = clusters::delta(arms);
    let (cr1, cr2) = (clusters::clustered_ols(arms), clusters::bias_reduced(arms));
    let show =
        |test: Result<ClusterTest, Missing>, f: fn(ClusterTest) -> f64| or_null(test, |test| number(f(test)));
    let mean = |arm: &[Moments]| arm.iter().fold(Moments::EMPTY, |sum, &cluster| sum.merge(cluster)).mean();
    Ok(json!({
        "mean_c": mean(arms.control),
        "mean_t": mean(arms.treatment),
        "diff": show(delta, |test| test.effect.estimate),
        "se_delta": show(delta, |test| test.effect.standard_error),
        "df_delta": or_null(delta, |test| json!(test.degrees as u64)),
        "t_delta": show(delta, |test| test.t),
        "p_value_delta": show(delta, |test| test.p_value),
        "ci_delta": or_null(delta, |test| interval(test.interval(alpha))),
        "se_cr1": show(cr1, |test| test.effect.standard_error),
        "df_cr1": or_null(cr1, |test| json!(test.degrees as u64)),
        "p_value_cr1": show(cr1, |test| test.p_value),
        "se_cr2": show(cr2, |test| test.effect.standard_error),
        "df_cr2": show(cr2, |test| test.degrees),
        "df_cr2_satterthwaite": show(cr2, |test| test.degrees),
        "p_value_cr2": show(cr2, |test| test.p_value),
    }))
}

pub fn switchback(inputs: &Inputs) -> Answer {
    let mut regions: Vec<&str> = Vec::new();
    let mut windows = Vec::new();
    for value in inputs.list("windows")? {
        let window = Inputs::of(value, "window")?;
        let name = window.text("region")?;
        let region = regions.iter().position(|known| *known == name).unwrap_or_else(|| {
            regions.push(name);
            regions.len() - 1
        });
        windows.push(Window {
            region: region as u32,
            period: u32::try_from(window.count("period")?).map_err(text)?,
            treated: window.count("arm")? == 1,
            units: window.count("n")?,
            sum: window.number("sum")?,
            burn_in: window.has("burn_in") && window.get("burn_in")? == &Value::Bool(true),
        });
    }
    let design = match inputs.text("design")? {
        "iid" => Design::FairCoins,
        "complete" => Design::FixedNumber,
        "pairs" => Design::Pairs,
        other => return Err(format!("design is {other:?}")),
    };
    let sides = switchback::clusters(&windows);
    let arms = Pair { control: &sides.control[..], treatment: &sides.treatment[..] };
    let mut out = tests(arms, inputs)?;
    out["windows_used"] = json!(arms.control.len() + arms.treatment.len());
    if let Ok(found) = permutation::test(&switchback::assigned(&windows), design, 1) {
        out["permutation_p_value"] = json!(found.p_value);
        out["permutation_assignments"] = json!(found.assignments);
    }
    if let Ok(effect) = switchback::fixed_effects(&windows) {
        out["fe_diff"] = json!(effect.estimate);
        out["fe_se_hc1"] = json!(effect.standard_error);
    }
    if inputs.has("ht_carryover_order") {
        let order = inputs.count("ht_carryover_order")? as usize;
        out["ht_estimate"] = or_null(switchback::horvitz_thompson(&windows, order), number);
    }
    Ok(out)
}
