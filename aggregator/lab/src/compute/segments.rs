//! Strata of one experiment, and two experiments crossed.

use stats::{Arm, Missing, Moments, Pair, interaction::Crossed, strata};

use super::{Inputs, Output, Refused};

pub fn simpson_poststrat(inputs: &Inputs) -> Result<Output, Refused> {
    let stratum = |stratum: &Inputs| stratum.arms();
    let all: Vec<Pair<Arm>> = inputs.objects("strata")?.iter().map(stratum).collect::<Result<_, _>>()?;
    let alpha = inputs.alpha()?;
    let stratified = strata::poststratify(&all);
    let of = |field: fn(&strata::Stratified) -> f64| stratified.as_ref().map(field).map_err(|why| *why);
    let test = stratified.as_ref().map_err(|why| *why).and_then(|found| found.test());
    let odds = strata::common_odds(&all);
    let mut found = Output::default()
        .with("aggregate_diff", of(|found| found.aggregate.estimate))
        .with("aggregate_se", of(|found| found.aggregate.standard_error))
        .with("poststrat_diff", of(|found| found.poststratified.estimate))
        .with("poststrat_se", of(|found| found.poststratified.standard_error))
        .with("poststrat_se_superpopulation", of(|found| found.superpopulation_standard_error))
        .with("poststrat_z", test.map(|(z, _)| z))
        .with("poststrat_p_value", test.map(|(_, p)| p))
        .with("mh_odds_ratio", odds.map(|odds| odds.odds_ratio))
        .with("cmh_chi2", odds.map(|odds| odds.cmh_chi2))
        .with("cmh_p_value", odds.map(|odds| odds.cmh_p_value))
        .with("mh_odds_ratio_ci", odds.map(|odds| odds.interval(alpha)));
    match odds.map(|odds| odds.breslow_day) {
        Ok(Some(between)) => {
            found.put("breslow_day_chi2", between.chi2);
            found.put("breslow_day_p_value", between.p_value);
        }
        other => {
            let why = match other {
                Err(missing) => missing.to_string(),
                Ok(_) => "fewer than two strata have both arms and both outcomes, or a cell is nearly empty"
                    .to_owned(),
            };
            found.lacking("breslow_day_chi2", &why);
            found.lacking("breslow_day_p_value", &why);
        }
    }
    let stratified = match stratified {
        Ok(stratified) => stratified,
        Err(missing) => {
            for name in [
                "stratum_diffs",
                "poststrat_ci",
                "mix_chi2",
                "mix_df",
                "mix_p_value",
                "simpson_full_reversal",
                "simpson_sign_flip_after_stratification",
            ] {
                found.lacking(name, missing);
            }
            let dropped = all.len();
            return Ok(found.with("n_strata_used", 0_usize).with("n_strata_dropped", dropped));
        }
    };
    match &stratified.mix {
        Some(mix) => {
            found.put("mix_chi2", mix.statistic);
            found.put("mix_df", mix.degrees);
            found.put("mix_p_value", mix.p_value);
        }
        None => {
            for name in ["mix_chi2", "mix_df", "mix_p_value"] {
                found.lacking(name, "fewer than two strata have both arms");
            }
        }
    }
    Ok(found
        .with("poststrat_ci", test.map(|_| stratified.interval(alpha)))
        .with("n_strata_used", stratified.differences.len())
        .with("n_strata_dropped", stratified.dropped.len())
        .with("stratum_diffs", stratified.differences)
        .with("simpson_full_reversal", stratified.paradox.full_reversal)
        .with("simpson_sign_flip_after_stratification", stratified.paradox.sign_flip))
}

pub fn interaction(inputs: &Inputs) -> Result<Output, Refused> {
    let mut cells = Vec::new();
    for row in inputs.rows_of_objects("cells")? {
        let cell = |cell: &Inputs| cell.moments("n", "sum", "sum_sq");
        cells.push(row.iter().map(cell).collect::<Result<Vec<Moments>, Refused>>()?);
    }
    let crossed = inputs.check("cells", Crossed::new(cells))?;
    let alpha = inputs.alpha()?;
    let mut found = Output::default();
    let cell_mean = |a: usize, b: usize, cell: &Moments| {
        let have = cell.count();
        if have == 0 { Err(Missing::Cell { a, b, have, need: 1 }) } else { Ok(cell.mean()) }
    };
    let mut means = Vec::new();
    for (a, row) in crossed.cells().iter().enumerate() {
        let of_row = row.iter().enumerate().map(|(b, cell)| cell_mean(a, b, cell));
        means.push(of_row.collect::<Result<Vec<f64>, Missing>>());
    }
    let means: Result<Vec<Vec<f64>>, Missing> = means.into_iter().collect();
    let all_have_units = means.as_ref().err().copied();
    found.put("cell_means", means);
    let interactions = crossed.interactions();
    let fields = interactions.as_ref().map_err(|why| *why).map(|interactions| {
        let one = |of: &stats::interaction::Interaction| {
            Output::default()
                .with("a", of.a)
                .with("b", of.b)
                .with("estimate", of.effect.estimate)
                .with("se", of.effect.standard_error)
                .with("z", of.z)
                .with("p_value", of.p_value)
                .with("ci", of.interval(alpha))
        };
        interactions.iter().map(one).collect::<Vec<Output>>()
    });
    found.put("interaction", fields);
    let joint = crossed.joint();
    found.put("wald_chi2", joint.map(|joint| joint.chi2));
    found.put("wald_df", joint.map(|joint| joint.degrees));
    found.put("wald_p_value", joint.map(|joint| joint.p_value));
    let independence = crossed.independence();
    let of = |field: fn(&stats::srm::Balance) -> f64| independence.as_ref().map(field).map_err(|why| *why);
    found.put("assignment_independence_chi2", of(|test| test.statistic));
    found.put("assignment_independence_p", of(|test| test.p_value));
    found.put(
        "assignment_independence_df",
        independence.as_ref().map(|test| test.degrees).map_err(|why| *why),
    );
    if crossed.cells().len() == 2 && crossed.cells()[0].len() == 2 {
        let first = interactions.map(|interactions| interactions[0]);
        found.put("welch_df", first.map(|first| first.degrees));
        found.put("p_value_t", first.map(|first| first.p_value_t));
        let within = crossed.effects_within(1);
        let when_full = |value: f64| all_have_units.map_or(Ok(value), Err);
        found.put("effect_of_A_equal_weight", when_full((within[0] + within[1]) / 2.0));
        found.put("effect_of_A_marginal_pooled", when_full(crossed.effect_marginal(1)));
        found.put("effect_of_A_within_B", all_have_units.map_or(Ok(within), Err));
    }
    Ok(found)
}
