//! Sample size, power and detectable effects.

use stats::{
    Alpha, Pair, Power,
    power::{self, NullVariance, Plan, ZValues},
};

use super::{Found, Inputs, Refused};

pub fn power(inputs: &Inputs) -> Result<Found, Refused> {
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
    inputs.check("ratio_t_over_c", Plan::new(alpha, sides, ratio))
}

fn wanted_power(inputs: &Inputs) -> Result<Power, Refused> {
    inputs.check("power", Power::new(inputs.number("power")?))
}

fn rates(inputs: &Inputs) -> Result<Pair<f64>, Refused> {
    let baseline = inputs.number("baseline")?;
    if !(baseline > 0.0 && baseline < 1.0) {
        return Err(inputs.refuse("baseline", format!("{baseline} is not strictly between 0 and 1")));
    }
    Ok(Pair { control: baseline, treatment: inputs.number("treatment_rate")? })
}

fn proportion_sample_size(inputs: &Inputs) -> Result<Found, Refused> {
    let (plan, wanted, rates) = (plan(inputs)?, wanted_power(inputs)?, rates(inputs)?);
    let size =
        |variance| inputs.check("treatment_rate", power::rates_sample_size(rates, wanted, &plan, variance));
    let (unpooled, pooled) = (size(NullVariance::Unpooled)?, size(NullVariance::Pooled)?);
    let arcsine = power::rates_sample_size_arcsine(rates, wanted, &plan);
    let arcsine = inputs.check("treatment_rate", arcsine)?;
    let units = Pair { control: unpooled.control, treatment: unpooled.treatment };
    let mut found = Found::default()
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
        let run = inputs.check("daily_users", power::duration(total, inputs.number("daily_users")?))?;
        found.put("total_users", total);
        found.put("days", run.days);
    }
    Ok(found)
}

fn proportion_mde(inputs: &Inputs) -> Result<Found, Refused> {
    let (baseline, n) = (inputs.number("baseline")?, inputs.number("n_c")?);
    let (wanted, plan) = (wanted_power(inputs)?, plan(inputs)?);
    let blamed = if n > 0.0 { "baseline" } else { "n_c" };
    let detectable = inputs.check(blamed, power::rates_detectable(baseline, n, wanted, &plan))?;
    let mut found = Found::default();
    match detectable.increase {
        Some(rate) => {
            found.put("p2_up", rate);
            found.put("mde_abs_up", rate - baseline);
            found.put("mde_rel_up", rate / baseline - 1.0);
        }
        None => {
            for name in ["p2_up", "mde_abs_up", "mde_rel_up"] {
                found.lacking(name, "not even a rate of 1 would be found with this power");
            }
        }
    }
    match detectable.decrease {
        Some(rate) => {
            found.put("p2_down", rate);
            found.put("mde_abs_down", rate - baseline);
            found.put("mde_rel_down", rate / baseline - 1.0);
        }
        None => {
            for name in ["p2_down", "mde_abs_down", "mde_rel_down"] {
                found.lacking(name, "not even a rate of 0 would be found with this power");
            }
        }
    }
    Ok(found)
}

fn proportion_power(inputs: &Inputs) -> Result<Found, Refused> {
    let (rates, control) = (rates(inputs)?, inputs.count("n_c")?);
    let treatment = (control as f64 * inputs.number("ratio_t_over_c")?).round() as u64;
    let units = Pair { control, treatment };
    Ok(Found::default()
        .with("power_unpooled", power_of(inputs, rates, units, NullVariance::Unpooled)?)
        .with("power_pooled", power_of(inputs, rates, units, NullVariance::Pooled)?))
}

fn power_of(
    inputs: &Inputs,
    rates: Pair<f64>,
    units: Pair<u64>,
    variance: NullVariance,
) -> Result<f64, Refused> {
    let blamed = if units.control == 0 || units.treatment == 0 { "n_c" } else { "treatment_rate" };
    let power = power::rates_power(rates, units, inputs.alpha()?, inputs.sides()?, variance);
    inputs.check(blamed, power)
}

fn mean_sample_size(inputs: &Inputs) -> Result<Found, Refused> {
    let (plan, wanted) = (plan(inputs)?, wanted_power(inputs)?);
    let (sd, difference) = (inputs.number("sd")?, inputs.number("mde_abs")?);
    let blamed = if sd > 0.0 { "mde_abs" } else { "sd" };
    let normal = inputs.check(blamed, power::means_sample_size(sd, difference, wanted, &plan))?;
    let t = inputs.check(blamed, power::means_sample_size_t(sd, difference, wanted, &plan))?;
    let mut found = Found::default()
        .with("n_c_normal_raw", normal.control_exact)
        .with("n_c_normal", normal.control)
        .with("n_t_normal", normal.treatment)
        .with("n_c_t_raw", t.control_exact);
    if inputs.has("cuped_rho") {
        let rho = inputs.number("cuped_rho")?;
        if !(-1.0..=1.0).contains(&rho) {
            return Err(inputs.refuse("cuped_rho", format!("{rho} is not from -1 to 1")));
        }
        let size = normal.inflated(1.0 - rho * rho, &plan);
        found.put("n_c_cuped_raw", size.control_exact);
        found.put("n_c_cuped", size.control);
    }
    if inputs.has("cluster_size") {
        let cluster = inputs.number("cluster_size")?;
        let effect = inputs.check("icc", power::design_effect(cluster, inputs.number("icc")?))?;
        let size = normal.inflated(effect, &plan);
        found.put("design_effect", effect);
        found.put("n_c_cluster_raw", size.control_exact);
        found.put("clusters_c", (size.control_exact / cluster).ceil() as u64);
    }
    Ok(found)
}

fn article_literal(inputs: &Inputs) -> Result<Found, Refused> {
    let baseline = inputs.number("baseline")?;
    let rates = Pair { control: baseline, treatment: baseline * (1.0 + inputs.number("mde_rel")?) };
    let z = ZValues { alpha: inputs.number("z_alpha")?, power: inputs.number("z_beta")? };
    let plan = Plan::even(Alpha::FIVE_PERCENT);
    let size = power::rates_sample_size_at(rates, z, &plan, NullVariance::Unpooled);
    Ok(Found::default().with("n", inputs.check("baseline", size)?.control))
}
