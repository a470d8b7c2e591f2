//! Fixed-horizon tests.

use serde_json::{Value, json};
use stats::{
    Alternative, Arm, Counts, Missing, Moments, Pair,
    distributions::{normal_sf, student_t_sf},
    lift,
    proportion_interval::{self as intervals, Score},
    ratio, two_proportion, welch,
    winsorize::{Caps, QuantileRule, Rule},
};

use super::{Answer, Inputs, interval, number, or_null, text};

pub fn two_proportion(inputs: &Inputs) -> Answer {
    let arm = |n: &str, x: &str| {
        Arm::new(Counts { units: inputs.count(n)?, conversions: inputs.count(x)? }).map_err(text)
    };
    let arms = Pair { control: arm("n_c", "x_c")?, treatment: arm("n_t", "x_t")? };
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);

    let rates = two_proportion::rates(arms).map_err(text)?;
    let means = lift::means_of_rates(arms).map_err(text)?;
    let pooled = two_proportion::pooled_z(arms, side).map_err(text)?;
    let own = two_proportion::unpooled_effect(arms).map_err(text)?;
    let unpooled = two_proportion::unpooled_z(arms, side);
    let critical = side.critical_z(alpha);
    let mut out = json!({
        "p_c": rates.control,
        "p_t": rates.treatment,
        "diff": pooled.effect.estimate,
        "rel_lift": or_null(lift::estimate(means), number),
        "se_pooled": pooled.effect.standard_error,
        "se_unpooled": own.standard_error,
        "z": pooled.z,
        "p_value": pooled.p_value,
        "chi2": pooled.z * pooled.z,
        "z_unpooled": or_null(unpooled, |test| number(test.z)),
        "p_value_unpooled": or_null(unpooled, |test| number(test.p_value)),
        "ci_wald": or_null(intervals::wald(arms, alpha, side), interval),
        "ci_newcombe": or_null(intervals::newcombe(arms, alpha, side), interval),
        "ci_agresti_caffo": or_null(intervals::agresti_caffo(arms, alpha, side), interval),
        "ci_score_mee": or_null(intervals::score(arms, alpha, side, Score::Mee), interval),
        "ci_score_mn":
            or_null(intervals::score(arms, alpha, side, Score::MiettinenNurminen), interval),
        "rel_se_delta": or_null(lift::delta_standard_error(means), number),
        "rel_ci_delta":
            or_null(lift::delta(means, critical).map(|ci| side.of_interval(ci)), interval),
        "rel_ci_fieller":
            or_null(lift::fieller(means, critical).map(|ci| side.of_interval(ci)), interval),
        "rel_ci_log":
            or_null(lift::log_ratio(means, critical).map(|ci| side.of_interval(ci)), interval),
    });
    if arms.control.units() + arms.treatment.units() <= 100_000 {
        out["p_value_fisher"] = or_null(two_proportion::fisher_exact(arms, side), number);
    }
    Ok(out)
}

pub fn welch_t(inputs: &Inputs) -> Answer {
    let moments =
        Pair { control: inputs.moments("control", "_c")?, treatment: inputs.moments("treatment", "_t")? };
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);
    let means = lift::means_of_moments(moments).map_err(text)?;
    let variance = |m: Moments| m.variance().map_or(Value::Null, number);
    let difference = moments.treatment.mean() - moments.control.mean();
    let test = welch::test(moments, side);
    let critical = test.map(|test| test.critical(alpha));
    let relative = |f: fn(Pair<lift::Mean>, f64) -> Result<stats::Interval, Missing>| {
        let found = critical.and_then(|critical| f(means, critical));
        or_null(found.map(|ci| side.of_interval(ci)), interval)
    };
    // Nothing varies: p is 1 where the means are equal too, by the files' convention.
    let p_value = match test {
        Ok(test) => number(test.p_value),
        Err(Missing::Variation) if difference == 0.0 => number(1.0),
        Err(_) => Value::Null,
    };
    let log_ratio =
        lift::log_ratio_critical(moments, alpha, side).and_then(|critical| lift::log_ratio(means, critical));
    let ratio = means.treatment.mean / means.control.mean - 1.0;
    let relative_p = test.and_then(|test| {
        let t = ratio / lift::delta_standard_error(means)?;
        Ok(2.0 * student_t_sf(t.abs(), test.degrees))
    });
    Ok(json!({
        "mean_c": moments.control.mean(),
        "mean_t": moments.treatment.mean(),
        "var_c": variance(moments.control),
        "var_t": variance(moments.treatment),
        "diff": difference,
        "se": (means.control.variance + means.treatment.variance).sqrt(),
        "df": or_null(test, |test| number(test.degrees)),
        "t": or_null(test, |test| number(test.t)),
        "p_value": p_value,
        "ci": or_null(test, |test| interval(test.interval(alpha))),
        "rel_lift": if means.control.mean == 0.0 { Value::Null } else {
            number(ratio)
        },
        "rel_se_delta": or_null(lift::delta_standard_error(means), number),
        "rel_ci_delta": relative(lift::delta),
        "rel_ci_fieller": relative(lift::fieller),
        "rel_ci_log": or_null(log_ratio.map(|ci| side.of_interval(ci)), interval),
        "rel_p_value_delta": or_null(relative_p, number),
    }))
}

pub fn ratio_delta(inputs: &Inputs) -> Answer {
    let names = ["n", "sum_num", "sum_num_sq", "sum_den", "sum_den_sq", "sum_num_den"];
    let arms = Pair {
        control: inputs.object("control")?.pair_moments(names)?,
        treatment: inputs.object("treatment")?.pair_moments(names)?,
    };
    let alpha = inputs.alpha()?;
    let linear = ratio::linearized(arms).map_err(text)?;
    let means = lift::means_of_moments(linear).map_err(text)?;
    let test = welch::test(linear, Alternative::TwoSided);
    let delta = test.and_then(|test| lift::delta(means, test.critical(alpha)));
    let log_ratio = lift::log_ratio_critical(linear, alpha, Alternative::TwoSided)
        .and_then(|critical| lift::log_ratio(means, critical));
    Ok(json!({
        "ratio_c": linear.control.mean(),
        "ratio_t": linear.treatment.mean(),
        "var_lin_c": linear.control.variance(),
        "var_lin_t": linear.treatment.variance(),
        "diff": linear.treatment.mean() - linear.control.mean(),
        "se": (means.control.variance + means.treatment.variance).sqrt(),
        "df": or_null(test, |test| number(test.degrees)),
        "t": or_null(test, |test| number(test.t)),
        "p_value": or_null(test, |test| number(test.p_value)),
        "p_value_z": or_null(test, |test| number(2.0 * normal_sf(test.t.abs()))),
        "ci": or_null(test, |test| interval(test.interval(alpha))),
        "rel_lift": or_null(lift::estimate(means), number),
        "rel_se_delta": or_null(lift::delta_standard_error(means), number),
        "rel_ci_delta": or_null(delta, interval),
        "rel_ci_log": or_null(log_ratio, interval),
    }))
}

pub fn winsorize(inputs: &Inputs) -> Answer {
    let (control, treatment) = (inputs.numbers("control")?, inputs.numbers("treatment")?);
    let both_sides = inputs.text("side")? == "both";
    let rule = Rule {
        quantile: inputs.number("percentile")?,
        reading: if inputs.text("quantile_method")?.starts_with("linear") {
            QuantileRule::Linear
        } else {
            QuantileRule::InvertedCdf
        },
        both_sides,
        ignore_zeros: inputs.get("ignore_zeros")?.as_bool().unwrap_or(false),
    };
    let find = |totals: &[f64]| {
        Caps::find(totals, rule).map_err(text)?.ok_or("no totals to find a cap in".to_owned())
    };
    let (caps_c, caps_t) = if inputs.text("scope")? == "per_arm" {
        (find(&control)?, find(&treatment)?)
    } else {
        let pooled = find(&[control.clone(), treatment.clone()].concat())?;
        (pooled, pooled)
    };
    let capped =
        |values: &[f64], caps: Caps| -> Vec<f64> { values.iter().map(|&value| caps.apply(value)).collect() };
    let cut = |values: &[f64], caps: Caps| values.iter().filter(|&&v| caps.cuts(v)).count();
    let (values_c, values_t) = (capped(&control, caps_c), capped(&treatment, caps_t));
    let moments = Pair {
        control: Moments::of(values_c.iter().copied()).map_err(text)?,
        treatment: Moments::of(values_t.iter().copied()).map_err(text)?,
    };
    let test = welch::test(moments, Alternative::TwoSided);
    let alpha = inputs.alpha()?;
    let floor = |caps: Caps| if both_sides { number(caps.lower) } else { Value::Null };
    let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
    Ok(json!({
        "cap_c": caps_c.upper,
        "cap_t": caps_t.upper,
        "floor_c": floor(caps_c),
        "floor_t": floor(caps_t),
        "n_capped_c": cut(&control, caps_c),
        "n_capped_t": cut(&treatment, caps_t),
        "sum_c": values_c.iter().sum::<f64>(),
        "sum_t": values_t.iter().sum::<f64>(),
        "sum_sq_c": squares(&values_c),
        "sum_sq_t": squares(&values_t),
        "mean_c": moments.control.mean(),
        "mean_t": moments.treatment.mean(),
        "var_c": moments.control.variance(),
        "var_t": moments.treatment.variance(),
        "t": or_null(test, |test| number(test.t)),
        "df": or_null(test, |test| number(test.degrees)),
        "p_value": or_null(test, |test| number(test.p_value)),
        "ci": or_null(test, |test| interval(test.interval(alpha))),
    }))
}
