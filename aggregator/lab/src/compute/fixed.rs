//! Fixed-horizon tests.

use stats::{
    Alternative, Interval, Missing, Moments, Pair, PairMoments, Side,
    distributions::normal_sf,
    lift::{self, Mean},
    proportion_interval::{self as intervals, Score},
    ratio, two_proportion,
    welch::{self, Welch},
    winsorize::{Caps, QuantileRule, Rule},
};

use super::{Inputs, Output, Refused};

/// Up to this many units of both arms Fisher's p-value is computed too. Above, it has many outcomes and
/// agrees with the pooled z.
const FISHER_UNITS_MAX: u64 = 100_000;

pub fn two_proportion(inputs: &Inputs) -> Result<Output, Refused> {
    let arms = inputs.arms()?;
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);
    let critical = side.critical_z(alpha);
    let pooled = two_proportion::pooled_z(arms, side);
    let unpooled = two_proportion::unpooled_z(arms, side);
    let means = lift::means_of_rates(arms);
    let relative = |of: fn(Pair<Mean>, f64) -> Result<Interval, Missing>| match means {
        // Where all units convert, or none, the estimated errors are 0, and an interval of width 0 would
        // claim certainty.
        Ok(means) if standard_error(means) == 0.0 => Err(Missing::Variation),
        means => means.and_then(|means| of(means, critical)).map(|interval| side.of_interval(interval)),
    };
    let rate = |arm: Side, counts: stats::Arm| counts.rate().ok_or(Missing::Units { arm, have: 0, need: 1 });
    let mut found = Output::default()
        .with("p_c", rate(Side::Control, arms.control))
        .with("p_t", rate(Side::Treatment, arms.treatment))
        .with("diff", pooled.map(|test| test.effect.estimate))
        .with("rel_lift", means.and_then(lift::estimate))
        .with("se_pooled", pooled.map(|test| test.effect.standard_error))
        .with("se_unpooled", two_proportion::unpooled_effect(arms).map(|effect| effect.standard_error))
        .with("z", pooled.map(|test| test.z))
        .with("p_value", pooled.map(|test| test.p_value))
        .with("chi2", pooled.map(|test| test.z * test.z))
        .with("z_unpooled", unpooled.map(|test| test.z))
        .with("p_value_unpooled", unpooled.map(|test| test.p_value))
        .with("ci_wald", intervals::wald(arms, alpha, side))
        .with("ci_newcombe", intervals::newcombe(arms, alpha, side))
        .with("ci_agresti_caffo", intervals::agresti_caffo(arms, alpha, side))
        .with("ci_score_mee", intervals::score(arms, alpha, side, Score::Mee))
        .with("ci_score_mn", intervals::score(arms, alpha, side, Score::MiettinenNurminen))
        .with("rel_se_delta", means.and_then(lift::delta_standard_error))
        .with("rel_ci_delta", relative(lift::delta))
        .with("rel_ci_fieller", relative(lift::fieller))
        .with("rel_ci_log", relative(lift::log_ratio));
    if arms.control.units() + arms.treatment.units() <= FISHER_UNITS_MAX {
        found.put("p_value_fisher", two_proportion::fisher_exact(arms, side));
    }
    Ok(found)
}

pub fn welch_t(inputs: &Inputs) -> Result<Output, Refused> {
    let arm = |values: &str, [count, sum, squares]: [&str; 3]| {
        if inputs.has(values) {
            inputs.check(values, Moments::of(inputs.measures(values)?))
        } else {
            inputs.moments(count, sum, squares)
        }
    };
    let moments = Pair {
        control: arm("control", ["n_c", "sum_c", "sum_sq_c"])?,
        treatment: arm("treatment", ["n_t", "sum_t", "sum_sq_t"])?,
    };
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);
    let test = welch::test(moments, side);
    let critical = test.map(|test| test.critical(alpha));
    let means = lift::means_of_moments(moments);
    let relative = |means: Result<Pair<Mean>, Missing>,
                    of: fn(Pair<Mean>, f64) -> Result<Interval, Missing>| {
        let interval = means.and_then(|means| of(means, critical?));
        interval.map(|interval| side.of_interval(interval))
    };
    // The fields of the delta method are GrowthBook's, also below 0: treatment over control, minus 1, which
    // has the opposite sign there. For a one-sided test that would be the wrong side.
    let turned = side == Alternative::TwoSided && means.is_ok_and(|means| means.control.mean < 0.0);
    let by_growthbook = if turned { means.map(|means| means.map(negated)) } else { means };
    let log_ratio = lift::log_ratio_critical(moments, alpha, side)
        .and_then(|critical| lift::log_ratio(means?, critical))
        .map(|interval| side.of_interval(interval));
    let (mean_c, mean_t) = (mean(Side::Control, moments.control), mean(Side::Treatment, moments.treatment));
    let relative_lift = lift_of(mean_t, mean_c);
    let relative_p = test.and_then(|test| lift::delta_p_value(by_growthbook?, test.degrees, side));
    let mut found = Output::default()
        .with("mean_c", mean_c)
        .with("mean_t", mean_t)
        .with("var_c", variance(Side::Control, moments.control))
        .with("var_t", variance(Side::Treatment, moments.treatment))
        .with("diff", mean_t.and_then(|treatment| Ok(treatment - mean_c?)))
        .with("se", means.map(standard_error))
        .with("df", test.map(|test| test.degrees))
        .with("t", test.map(|test| test.t))
        .with("p_value", p_value(test, mean_c, mean_t))
        .with("ci", test.map(|test| test.interval(alpha)))
        .with("rel_lift", if turned { by_growthbook.and_then(lift::estimate) } else { relative_lift })
        .with("rel_se_delta", by_growthbook.and_then(lift::delta_standard_error))
        .with("rel_ci_delta", relative(by_growthbook, lift::delta))
        .with("rel_ci_fieller", relative(means, lift::fieller))
        .with("rel_ci_log", log_ratio)
        .with("rel_p_value_delta", relative_p);
    if let (true, Ok(lift)) = (turned, by_growthbook.and_then(lift::estimate)) {
        let sign = format!(
            "the control mean is below 0, where this is not the sign of diff; over |control| it is {}",
            -lift
        );
        found.warn("rel_lift", &sign);
        found.warn("rel_ci_delta", &sign);
    }
    Ok(found)
}

fn negated(of: Mean) -> Mean {
    Mean { mean: -of.mean, ..of }
}

/// The p-value of a test. Where nothing varies and the means are equal it is 1, by the golden files'
/// convention.
pub fn p_value(
    test: Result<Welch, Missing>,
    control: Result<f64, Missing>,
    treatment: Result<f64, Missing>,
) -> Result<f64, Missing> {
    match test {
        Err(Missing::Variation) if control == treatment => Ok(1.0),
        test => test.map(|test| test.p_value),
    }
}

pub fn mean(arm: Side, moments: Moments) -> Result<f64, Missing> {
    if moments.count() == 0 { Err(Missing::Units { arm, have: 0, need: 1 }) } else { Ok(moments.mean()) }
}

pub fn variance(arm: Side, moments: Moments) -> Result<f64, Missing> {
    moments.variance().ok_or(Missing::Units { arm, have: moments.count(), need: 2 })
}

fn standard_error(means: Pair<Mean>) -> f64 {
    (means.control.variance + means.treatment.variance).sqrt()
}

/// Computes `treatment / control - 1`, for a control above 0; it needs no variance.
pub fn lift_of(treatment: Result<f64, Missing>, control: Result<f64, Missing>) -> Result<f64, Missing> {
    let mean = |mean: f64| Mean { mean, variance: 0.0 };
    lift::estimate(Pair { control: mean(control?), treatment: mean(treatment?) })
}

pub fn ratio_delta(inputs: &Inputs) -> Result<Output, Refused> {
    let names = ["n", "sum_num", "sum_num_sq", "sum_den", "sum_den_sq", "sum_num_den"];
    let arms = inputs.pairs("num", "den", names)?;
    let (alpha, side) = (inputs.alpha()?, inputs.alternative()?);
    for (raw, sums, side, arm) in [
        ("control_raw", "control.sum_den", Side::Control, arms.control),
        ("treatment_raw", "treatment.sum_den", Side::Treatment, arms.treatment),
    ] {
        inputs.check(if inputs.has(raw) { raw } else { sums }, ratio::check_size(side, arm))?;
    }
    let ratio = |side, arm: PairMoments| ratio::of_sums(side, arm);
    let (ratio_c, ratio_t) = (ratio(Side::Control, arms.control), ratio(Side::Treatment, arms.treatment));
    let linear = ratio::linearized(arms);
    let means = linear.and_then(lift::means_of_moments);
    let test = linear.and_then(|linear| welch::test(linear, side));
    let delta = test.and_then(|test| lift::delta(means?, test.critical(alpha)));
    let log_ratio = linear
        .and_then(|linear| lift::log_ratio_critical(linear, alpha, side))
        .and_then(|critical| lift::log_ratio(means?, critical));
    let bounded = |interval: Result<Interval, Missing>| interval.map(|interval| side.of_interval(interval));
    Ok(Output::default()
        .with("ratio_c", ratio_c)
        .with("ratio_t", ratio_t)
        .with("var_lin_c", linear.and_then(|linear| variance(Side::Control, linear.control)))
        .with("var_lin_t", linear.and_then(|linear| variance(Side::Treatment, linear.treatment)))
        .with("diff", ratio_t.and_then(|treatment| Ok(treatment - ratio_c?)))
        .with("se", means.map(standard_error))
        .with("df", test.map(|test| test.degrees))
        .with("t", test.map(|test| test.t))
        .with("p_value", p_value(test, ratio_c, ratio_t))
        .with("p_value_z", test.map(|test| side.p_value(test.t, normal_sf)))
        .with("ci", test.map(|test| test.interval(alpha)))
        .with("rel_lift", lift_of(ratio_t, ratio_c))
        .with("rel_se_delta", means.and_then(lift::delta_standard_error))
        .with("rel_ci_delta", bounded(delta))
        .with("rel_ci_log", bounded(log_ratio)))
}

pub fn winsorize(inputs: &Inputs) -> Result<Output, Refused> {
    let (control, treatment) = (inputs.measures("control")?, inputs.measures("treatment")?);
    let (alpha, alternative) = (inputs.alpha()?, inputs.alternative()?);
    let rule = rule(inputs)?;
    let find = |totals: &[f64]| inputs.check("percentile", Caps::find(totals, rule));
    let (caps_c, caps_t) = match inputs.text("scope")? {
        "per_arm" => (find(&control)?, find(&treatment)?),
        "pooled" => {
            let pooled = find(&[control.clone(), treatment.clone()].concat())?;
            (pooled, pooled)
        }
        other => {
            return Err(inputs.refuse("scope", format!("{other:?} is neither pooled nor per_arm")));
        }
    };
    let mut found = Output::default();
    for (suffix, caps) in [("c", caps_c), ("t", caps_t)] {
        match caps {
            None => {
                found.lacking(&format!("cap_{suffix}"), "no totals to find a cap in");
                found.lacking(&format!("floor_{suffix}"), "no totals to find a floor in");
            }
            Some(caps) => {
                found.put(&format!("cap_{suffix}"), caps.upper);
                if rule.both_sides {
                    found.put(&format!("floor_{suffix}"), caps.lower);
                } else {
                    found.lacking(&format!("floor_{suffix}"), "only the upper side is cut");
                }
            }
        }
    }
    // Without a cap nothing is cut.
    let unbounded = Caps { lower: f64::NEG_INFINITY, upper: f64::INFINITY };
    let mut moments = Vec::new();
    for (suffix, side, values, caps) in
        [("c", Side::Control, &control, caps_c), ("t", Side::Treatment, &treatment, caps_t)]
    {
        let caps = caps.unwrap_or(unbounded);
        let capped: Vec<f64> = values.iter().map(|&value| caps.apply(value)).collect();
        let arm = inputs.check(&side.to_string(), Moments::of(capped.iter().copied()))?;
        let cut = values.iter().filter(|&&value| caps.cuts(value)).count();
        found.put(&format!("n_capped_{suffix}"), cut);
        found.put(&format!("sum_{suffix}"), capped.iter().sum::<f64>());
        found.put(&format!("sum_sq_{suffix}"), capped.iter().map(|value| value * value).sum::<f64>());
        found.put(&format!("mean_{suffix}"), mean(side, arm));
        found.put(&format!("var_{suffix}"), variance(side, arm));
        moments.push(arm);
    }
    let moments = Pair { control: moments[0], treatment: moments[1] };
    let test = welch::test(moments, alternative);
    let (mean_c, mean_t) = (mean(Side::Control, moments.control), mean(Side::Treatment, moments.treatment));
    Ok(found
        .with("t", test.map(|test| test.t))
        .with("df", test.map(|test| test.degrees))
        .with("p_value", p_value(test, mean_c, mean_t))
        .with("ci", test.map(|test| test.interval(alpha))))
}

fn rule(inputs: &Inputs) -> Result<Rule, Refused> {
    let method = inputs.text("quantile_method")?;
    // The golden files explain the method after its name.
    let reading = match method.split_whitespace().next() {
        Some("linear") => QuantileRule::Linear,
        Some("inverted_cdf") => QuantileRule::InvertedCdf,
        _ => {
            let why = format!("{method:?} is neither linear nor inverted_cdf");
            return Err(inputs.refuse("quantile_method", why));
        }
    };
    let both_sides = match inputs.text_or("side", "upper")? {
        "upper" => false,
        "both" => true,
        other => return Err(inputs.refuse("side", format!("{other:?} is neither upper nor both"))),
    };
    Ok(Rule {
        quantile: inputs.number("percentile")?,
        reading,
        both_sides,
        ignore_zeros: inputs.flag("ignore_zeros")?,
    })
}

impl Inputs<'_> {
    /// The moments of two values per unit in both arms: from `control_raw` and `treatment_raw` where they are
    /// given, which is more accurate, else from the sums.
    pub fn pairs(&self, x: &str, y: &str, names: [&str; 6]) -> Result<Pair<PairMoments>, Refused> {
        let arm = |sums: &str, raw: &str| {
            if self.has(raw) {
                let values = self.pairs_of_values(raw, x, y)?;
                self.check(raw, PairMoments::of(values))
            } else {
                self.object(sums)?.pair_moments(names)
            }
        };
        Ok(Pair { control: arm("control", "control_raw")?, treatment: arm("treatment", "treatment_raw")? })
    }
}
