//! Sample size, power and detectable effects.

use serde_json::{Value, json};
use stats::{
    Alternative, Pair, Power,
    power::{self, NullVariance, Plan, ZValues},
};

use super::{Answer, Inputs, number, text};

pub fn power(inputs: &Inputs) -> Answer {
    match inputs.text("kind")? {
        "proportion_sample_size" => proportion_sample_size(inputs),
        "proportion_mde" => proportion_mde(inputs),
        "proportion_power" => proportion_power(inputs),
        "mean_sample_size" => mean_sample_size(inputs),
        "article_literal" => article_literal(inputs),
        other => Err(format!("kind is {other:?}")),
    }
}

fn sides(inputs: &Inputs) -> Result<Alternative, String> {
    match inputs.count("sides")? {
        2 => Ok(Alternative::TwoSided),
        1 => Ok(Alternative::Greater),
        other => Err(format!("sides is {other}")),
    }
}

fn plan(inputs: &Inputs) -> Result<Plan, String> {
    Plan::new(inputs.alpha()?, sides(inputs)?, inputs.number("ratio_t_over_c")?).map_err(text)
}

fn wanted_power(inputs: &Inputs) -> Result<Power, String> {
    Power::new(inputs.number("power")?).map_err(text)
}

fn rates(inputs: &Inputs) -> Result<Pair<f64>, String> {
    let (control, treatment) = (inputs.number("baseline")?, inputs.number("treatment_rate")?);
    Ok(Pair { control, treatment })
}

fn proportion_sample_size(inputs: &Inputs) -> Answer {
    let (plan, wanted, rates) = (plan(inputs)?, wanted_power(inputs)?, rates(inputs)?);
    let size = |variance| power::rates_sample_size(rates, wanted, &plan, variance).map_err(text);
    let (unpooled, pooled) = (size(NullVariance::Unpooled)?, size(NullVariance::Pooled)?);
    let arcsine = power::rates_sample_size_arcsine(rates, wanted, &plan).map_err(text)?;
    let units = Pair { control: unpooled.control, treatment: unpooled.treatment };
    let reached = power_of(inputs, rates, units, NullVariance::Unpooled)?;
    let mut out = json!({
        "n_c_unpooled_raw": unpooled.control_exact,
        "n_c_unpooled": unpooled.control,
        "n_t_unpooled": unpooled.treatment,
        "n_c_pooled_raw": pooled.control_exact,
        "n_c_pooled": pooled.control,
        "n_t_pooled": pooled.treatment,
        "n_c_arcsine_raw": arcsine.control_exact,
        "power_at_n_unpooled": reached,
    });
    if inputs.has("daily_users") {
        let total = unpooled.total(inputs.count("n_variants")?.saturating_sub(1));
        let run = power::duration(total, inputs.number("daily_users")?).map_err(text)?;
        out["total_users"] = json!(total);
        out["days"] = json!(run.days);
    }
    Ok(out)
}

fn proportion_mde(inputs: &Inputs) -> Answer {
    let (baseline, n) = (inputs.number("baseline")?, inputs.number("n_c")?);
    let found = power::rates_detectable(baseline, n, wanted_power(inputs)?, &plan(inputs)?).map_err(text)?;
    let show = |rate: Option<f64>, f: &dyn Fn(f64) -> f64| rate.map_or(Value::Null, |rate| number(f(rate)));
    Ok(json!({
        "p2_up": show(found.increase, &|p| p),
        "mde_abs_up": show(found.increase, &|p| p - baseline),
        "mde_rel_up": show(found.increase, &|p| p / baseline - 1.0),
        "p2_down": show(found.decrease, &|p| p),
        "mde_abs_down": show(found.decrease, &|p| p - baseline),
    }))
}

fn proportion_power(inputs: &Inputs) -> Answer {
    let (rates, control) = (rates(inputs)?, inputs.count("n_c")?);
    let treatment = (control as f64 * inputs.number("ratio_t_over_c")?).round() as u64;
    let units = Pair { control, treatment };
    Ok(json!({
        "power_unpooled": power_of(inputs, rates, units, NullVariance::Unpooled)?,
        "power_pooled": power_of(inputs, rates, units, NullVariance::Pooled)?,
    }))
}

fn power_of(
    inputs: &Inputs,
    rates: Pair<f64>,
    units: Pair<u64>,
    variance: NullVariance,
) -> Result<f64, String> {
    power::rates_power(rates, units, inputs.alpha()?, sides(inputs)?, variance).map_err(text)
}

fn mean_sample_size(inputs: &Inputs) -> Answer {
    let (plan, wanted) = (plan(inputs)?, wanted_power(inputs)?);
    let (sd, difference) = (inputs.number("sd")?, inputs.number("mde_abs")?);
    let normal = power::means_sample_size(sd, difference, wanted, &plan).map_err(text)?;
    let t = power::means_sample_size_t(sd, difference, wanted, &plan).map_err(text)?;
    let mut out = json!({
        "n_c_normal_raw": normal.control_exact,
        "n_c_normal": normal.control,
        "n_t_normal": normal.treatment,
        "n_c_t_raw": t.control_exact,
    });
    if inputs.has("cuped_rho") {
        let size = normal.inflated(1.0 - inputs.number("cuped_rho")?.powi(2), &plan);
        out["n_c_cuped_raw"] = json!(size.control_exact);
        out["n_c_cuped"] = json!(size.control);
    }
    if inputs.has("cluster_size") {
        let cluster = inputs.number("cluster_size")?;
        let effect = power::design_effect(cluster, inputs.number("icc")?).map_err(text)?;
        let size = normal.inflated(effect, &plan);
        out["design_effect"] = json!(effect);
        out["n_c_cluster_raw"] = json!(size.control_exact);
        out["clusters_c"] = json!((size.control_exact / cluster).ceil() as u64);
    }
    Ok(out)
}

fn article_literal(inputs: &Inputs) -> Answer {
    let baseline = inputs.number("baseline")?;
    let rates = Pair { control: baseline, treatment: baseline * (1.0 + inputs.number("mde_rel")?) };
    let z = ZValues { alpha: inputs.number("z_alpha")?, power: inputs.number("z_beta")? };
    let plan = Plan::even(stats::Alpha::FIVE_PERCENT);
    let size = power::rates_sample_size_at(rates, z, &plan, NullVariance::Unpooled).map_err(text)?;
    Ok(json!({ "n": size.control }))
}
