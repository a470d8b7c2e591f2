//! Clusters and switchbacks.

use stats::{
    Alternative, Missing, Moments, Pair, Side,
    clusters::{self, ClusterTest, Clusters},
    permutation::{self, Design},
    switchback::{self, Window},
    welch,
};

use super::{Inputs, Output, Refused};

/// Determines the draws where a design has too many assignments to compare all.
const PERMUTATION_SEED: u64 = 1;

/// The largest carryover of a Horvitz-Thompson estimate, which then has a weight of 2^30 for a window's mean.
const CARRYOVER_MAX: u64 = 29;

pub fn cluster_randomized(inputs: &Inputs) -> Result<Output, Refused> {
    let (mut control, mut treatment) = (Vec::new(), Vec::new());
    for cluster in inputs.objects("clusters")? {
        let moments = if cluster.has("values") {
            cluster.check("values", Moments::of(cluster.measures("values")?))?
        } else {
            Moments::of_counts(cluster.arm("n", "sum")?)
        };
        if treated(&cluster)? { treatment.push(moments) } else { control.push(moments) }
    }
    let arms = Pair { control: &control[..], treatment: &treatment[..] };
    let naive = clusters::ignoring_clusters(arms).map(|effect| effect.standard_error);
    let means = arms.map(|arm| {
        let with_units = arm.iter().filter(|cluster| cluster.count() > 0);
        Moments::of(with_units.map(|cluster| cluster.mean()))
    });
    let means = Pair {
        control: inputs.check("clusters", means.control)?,
        treatment: inputs.check("clusters", means.treatment)?,
    };
    let icc = clusters::intraclass_correlation(arms);
    // Each count is up to 2^53; the sum saturates at 2^64.
    let units = |arm: &[Moments]| arm.iter().fold(0_u64, |sum, cluster| sum.saturating_add(cluster.count()));
    let error = clusters::delta(arms).map(|test| test.effect.standard_error);
    let mean_of_means = |arm, moments: Moments| match moments.count() {
        0 => Err(Missing::Clusters { arm, have: 0, need: 1 }),
        _ => Ok(moments.mean()),
    };
    let difference = mean_of_means(Side::Treatment, means.treatment)
        .and_then(|treatment| Ok(treatment - mean_of_means(Side::Control, means.control)?));
    Ok(tests(arms, inputs)?
        .with("clusters_c", control.len())
        .with("clusters_t", treatment.len())
        .with("n_c", units(&control))
        .with("n_t", units(&treatment))
        .with("se_naive_user_level", naive)
        .with("cluster_means_diff", difference)
        .with("cluster_means_p_welch", welch::test(means, Alternative::TwoSided).map(|test| test.p_value))
        .with("icc_anova", icc.map(|icc| icc.icc))
        .with("n0", icc.map(|icc| icc.size))
        .with(
            "design_effect_empirical",
            error.and_then(|error| match naive? {
                0.0 => Err(Missing::Variation),
                naive => Ok((error / naive).powi(2)),
            }),
        ))
}

/// Reads the field `arm`, which is 0 or 1.
fn treated(item: &Inputs) -> Result<bool, Refused> {
    match item.count("arm")? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(item.refuse("arm", format!("{other} is neither 0 nor 1"))),
    }
}

/// The fields of the three tests that both golden files have.
fn tests(arms: Clusters, inputs: &Inputs) -> Result<Output, Refused> {
    let alpha = inputs.alpha()?;
    let delta = clusters::delta(arms);
    let (cr1, cr2) = (clusters::clustered_ols(arms), clusters::bias_reduced(arms));
    let mean = |side, arm: &[Moments]| {
        let all = arm.iter().fold(Moments::EMPTY, |sum, &cluster| sum.merge(cluster));
        match all.count() {
            0 => Err(Missing::Units { arm: side, have: 0, need: 1 }),
            _ => Ok(all.mean()),
        }
    };
    let (mean_c, mean_t) = (mean(Side::Control, arms.control), mean(Side::Treatment, arms.treatment));
    let se = |test: Result<ClusterTest, Missing>| test.map(|test| test.effect.standard_error);
    // The degrees of freedom as whole numbers, for the methods where they are whole.
    let whole = |test: Result<ClusterTest, Missing>| test.map(|test| test.degrees as u64);
    Ok(Output::default()
        .with("mean_c", mean_c)
        .with("mean_t", mean_t)
        .with("diff", mean_t.and_then(|treatment| Ok(treatment - mean_c?)))
        .with("se_delta", se(delta))
        .with("df_delta", whole(delta))
        .with("t_delta", delta.map(|test| test.t))
        .with("p_value_delta", delta.map(|test| test.p_value))
        .with("ci_delta", delta.map(|test| test.interval(alpha)))
        .with("se_cr1", se(cr1))
        .with("df_cr1", whole(cr1))
        .with("p_value_cr1", cr1.map(|test| test.p_value))
        .with("se_cr2", se(cr2))
        .with("df_cr2", cr2.map(|test| test.degrees))
        .with("df_cr2_satterthwaite", cr2.map(|test| test.degrees))
        .with("p_value_cr2", cr2.map(|test| test.p_value)))
}

pub fn switchback(inputs: &Inputs) -> Result<Output, Refused> {
    let mut regions: Vec<&str> = Vec::new();
    let mut windows = Vec::new();
    for window in inputs.objects("windows")? {
        let name = window.text("region")?;
        let region = regions.iter().position(|known| *known == name).unwrap_or_else(|| {
            regions.push(name);
            regions.len() - 1
        });
        windows.push(Window {
            region: region as u32,
            period: window.check("period", u32::try_from(window.count("period")?))?,
            treated: treated(&window)?,
            units: window.count("n")?,
            sum: window.measure("sum")?,
            burn_in: window.flag("burn_in")?,
        });
    }
    let design = match inputs.text("design")? {
        "iid" => Design::FairCoins,
        "complete" => Design::FixedNumber,
        "pairs" => Design::Pairs,
        other => {
            return Err(inputs.refuse("design", format!("{other:?} is none of iid, complete, pairs")));
        }
    };
    let sides = switchback::clusters(&windows);
    let arms = Pair { control: &sides.control[..], treatment: &sides.treatment[..] };
    let permutation = permutation::test(&switchback::assigned(&windows), design, PERMUTATION_SEED);
    let fixed_effects = switchback::fixed_effects(&windows);
    let mut found = tests(arms, inputs)?
        .with("windows_used", arms.control.len() + arms.treatment.len())
        .with("permutation_p_value", permutation.map(|found| found.p_value))
        .with("permutation_assignments", permutation.map(|found| found.assignments))
        .with("fe_diff", fixed_effects.map(|effect| effect.estimate))
        .with("fe_se_hc1", fixed_effects.map(|effect| effect.standard_error));
    if inputs.has("ht_carryover_order") {
        let order = inputs.count("ht_carryover_order")?;
        if order > CARRYOVER_MAX {
            return Err(inputs.refuse("ht_carryover_order", format!("{order} is above {CARRYOVER_MAX}")));
        }
        found.put("ht_estimate", switchback::horvitz_thompson(&windows, order as usize));
    }
    Ok(found)
}
