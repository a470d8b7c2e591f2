//! Sample size, power and detectable effects.

use stats::{
    Alpha, Alternative, Invalid, Pair, Power,
    power::{self, NullVariance, Plan, SampleSize, ZValues},
};

use super::{Inputs, Output, Refused, inputs::COUNT_MAX};

/// Returns the field that an invalid input of the formulas comes from.
fn field_of(why: &Invalid) -> &'static str {
    match why.what() {
        "baseline rate" => "baseline",
        "treatment rate" => "treatment_rate",
        "treatment units" | "treatment units per control unit" => "ratio_t_over_c",
        "control units" => "n_c",
        "standard deviation" => "sd",
        "difference to detect" | "difference in standard deviations" => "mde_abs",
        "new units a day" => "daily_users",
        "cluster size" => "cluster_size",
        "intraclass correlation" => "icc",
        "normal quantile of the power" => "z_beta",
        other => other,
    }
}

fn checked<T>(inputs: &Inputs, result: Result<T, Invalid>) -> Result<T, Refused> {
    result.map_err(|why| inputs.refuse(field_of(&why), why))
}

/// Returns the size if it can be counted; otherwise the field `what` with this value is refused.
fn countable(
    inputs: &Inputs,
    size: SampleSize,
    what: &'static str,
    value: f64,
) -> Result<SampleSize, Refused> {
    checked(inputs, size.countable(what, value))
}

pub fn power(inputs: &Inputs) -> Result<Output, Refused> {
    match inputs.text("kind")? {
        "proportion_sample_size" => proportion_sample_size(inputs),
        "proportion_mde" => proportion_mde(inputs),
        "proportion_power" => proportion_power(inputs),
        "mean_sample_size" => mean_sample_size(inputs),
        "article_literal" => article_literal(inputs),
        other => {
            let kinds = "proportion_sample_size, proportion_mde, proportion_power, mean_sample_size, \
                         article_literal";
            Err(inputs.refuse("kind", format!("{other:?} is none of {kinds}")))
        }
    }
}

fn plan(inputs: &Inputs) -> Result<Plan, Refused> {
    let (alpha, sides, ratio) = (inputs.alpha()?, inputs.sides()?, inputs.number("ratio_t_over_c")?);
    checked(inputs, Plan::new(alpha, sides, ratio))
}

fn wanted_power(inputs: &Inputs) -> Result<Power, Refused> {
    inputs.check("power", Power::new(inputs.number("power")?))
}

fn rates(inputs: &Inputs) -> Result<Pair<f64>, Refused> {
    Ok(Pair { control: inputs.number("baseline")?, treatment: inputs.number("treatment_rate")? })
}

fn proportion_sample_size(inputs: &Inputs) -> Result<Output, Refused> {
    let (plan, wanted, rates) = (plan(inputs)?, wanted_power(inputs)?, rates(inputs)?);
    let size = |variance| {
        let size = checked(inputs, power::rates_sample_size(rates, wanted, &plan, variance))?;
        countable(inputs, size, "treatment rate", rates.treatment)
    };
    let (unpooled, pooled) = (size(NullVariance::Unpooled)?, size(NullVariance::Pooled)?);
    let arcsine = checked(inputs, power::rates_sample_size_arcsine(rates, wanted, &plan))?;
    let units = Pair { control: unpooled.control, treatment: unpooled.treatment };
    let mut found = Output::default()
        .with("n_c_unpooled_raw", unpooled.control_exact)
        .with("n_c_unpooled", unpooled.control)
        .with("n_t_unpooled", unpooled.treatment)
        .with("n_c_pooled_raw", pooled.control_exact)
        .with("n_c_pooled", pooled.control)
        .with("n_t_pooled", pooled.treatment)
        .with("n_c_arcsine_raw", arcsine.control_exact)
        .with("power_at_n_unpooled", power_of(inputs, rates, units, NullVariance::Unpooled)?);
    if inputs.has("daily_users") {
        let variants = if inputs.has("n_variants") { inputs.count("n_variants")? } else { 2 };
        if variants < 2 {
            return Err(inputs.refuse("n_variants", format!("{variants} is below 2")));
        }
        let total = unpooled.total(variants - 1);
        if total > COUNT_MAX {
            return Err(inputs.refuse("n_variants", format!("{variants} variants need more than 2^53 units")));
        }
        let run = checked(inputs, power::duration(total, inputs.number("daily_users")?))?;
        found.put("total_users", total);
        found.put("days", run.days);
    }
    Ok(found)
}

fn proportion_mde(inputs: &Inputs) -> Result<Output, Refused> {
    let (baseline, n) = (inputs.number("baseline")?, inputs.number("n_c")?);
    let (wanted, plan) = (wanted_power(inputs)?, plan(inputs)?);
    if n > COUNT_MAX as f64 {
        return Err(inputs.refuse("n_c", format!("{n} is above 2^53")));
    }
    let detectable = checked(inputs, power::rates_detectable(baseline, n, wanted, &plan))?;
    let mut found = Output::default();
    let not_even = |rate: f64| format!("not even a rate of {rate} would be found with this power");
    let downwards = match inputs.sides()? {
        Alternative::Greater => "a one-sided test that looks upwards finds no decrease".to_owned(),
        _ => not_even(0.0),
    };
    for (side, rate, difference, why) in [
        ("up", detectable.increase, detectable.difference_up, not_even(1.0)),
        ("down", detectable.decrease, detectable.difference_down, downwards),
    ] {
        let names = ["p2", "mde_abs", "mde_rel"].map(|name| format!("{name}_{side}"));
        let values = [rate, difference, difference.map(|difference| difference / baseline)];
        for (name, value) in names.iter().zip(values) {
            match value {
                Some(value) => found.put(name, value),
                None => found.lacking(name, &why),
            }
        }
    }
    Ok(found)
}

fn proportion_power(inputs: &Inputs) -> Result<Output, Refused> {
    let (rates, control) = (rates(inputs)?, inputs.count("n_c")?);
    let treatment = (control as f64 * inputs.number("ratio_t_over_c")?).round();
    if !(0.0..=COUNT_MAX as f64).contains(&treatment) {
        return Err(
            inputs.refuse("ratio_t_over_c", format!("{treatment} treatment units are not from 0 to 2^53"))
        );
    }
    let treatment = treatment as u64;
    let units = Pair { control, treatment };
    Ok(Output::default()
        .with("power_unpooled", power_of(inputs, rates, units, NullVariance::Unpooled)?)
        .with("power_pooled", power_of(inputs, rates, units, NullVariance::Pooled)?))
}

fn power_of(
    inputs: &Inputs,
    rates: Pair<f64>,
    units: Pair<u64>,
    variance: NullVariance,
) -> Result<f64, Refused> {
    checked(inputs, power::rates_power(rates, units, inputs.alpha()?, inputs.sides()?, variance))
}

fn mean_sample_size(inputs: &Inputs) -> Result<Output, Refused> {
    let (plan, wanted) = (plan(inputs)?, wanted_power(inputs)?);
    let (sd, difference) = (inputs.measure("sd")?, inputs.measure("mde_abs")?);
    let size = |size: Result<SampleSize, Invalid>| {
        countable(inputs, checked(inputs, size)?, "difference to detect", difference)
    };
    let normal = size(power::means_sample_size(sd, difference, wanted, &plan))?;
    let t = size(power::means_sample_size_t(sd, difference, wanted, &plan))?;
    let mut found = Output::default()
        .with("n_c_normal_raw", normal.control_exact)
        .with("n_c_normal", normal.control)
        .with("n_t_normal", normal.treatment)
        .with("n_c_t_raw", t.control_exact);
    if inputs.has("cuped_rho") {
        let rho = inputs.number("cuped_rho")?;
        // At 1 itself the remaining variance would be 0.
        if !(rho > -1.0 && rho < 1.0) {
            return Err(inputs.refuse("cuped_rho", format!("{rho} is not strictly between -1 and 1")));
        }
        let size = normal.inflated(1.0 - rho * rho, &plan);
        found.put("n_c_cuped_raw", size.control_exact);
        found.put("n_c_cuped", size.control);
    }
    if inputs.has("cluster_size") {
        let cluster = inputs.number("cluster_size")?;
        let effect = checked(inputs, power::design_effect(cluster, inputs.number("icc")?))?;
        let size = countable(inputs, normal.inflated(effect, &plan), "cluster size", cluster)?;
        found.put("design_effect", effect);
        found.put("n_c_cluster_raw", size.control_exact);
        found.put("clusters_c", (size.control_exact / cluster).ceil() as u64);
    }
    Ok(found)
}

fn article_literal(inputs: &Inputs) -> Result<Output, Refused> {
    let baseline = inputs.number("baseline")?;
    let rates = Pair { control: baseline, treatment: baseline * (1.0 + inputs.number("mde_rel")?) };
    let blamed = |why: Invalid| match field_of(&why) {
        "treatment_rate" => inputs.refuse("mde_rel", why),
        field => inputs.refuse(field, why),
    };
    let z = ZValues { alpha: inputs.number("z_alpha")?, power: inputs.number("z_beta")? };
    let plan = Plan::even(Alpha::FIVE_PERCENT);
    let size = power::rates_sample_size_at(rates, z, &plan, NullVariance::Unpooled).map_err(blamed)?;
    let size = size.countable("treatment rate", rates.treatment).map_err(blamed)?;
    Ok(Output::default().with("n", size.control))
}
