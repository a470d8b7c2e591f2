//! Always-valid methods.

use serde_json::{Value, json};
use stats::{
    Alternative, Arm, Counts, Effect, Missing, Moments, Pair,
    confidence_sequence::{Design, Look, Mixing, Monitor},
    conversion_counts,
    lift::{self, Mean},
    two_proportion,
};

use super::{Answer, Inputs, interval, number, text};

pub fn msprt(inputs: &Inputs) -> Answer {
    let mixing = Mixing::EffectSd(inputs.number("tau")?);
    let alpha = inputs.alpha()?;
    let design = Design::new(alpha, inputs.alternative()?, mixing)
        .and_then(|design| design.against(inputs.number_or("theta0", 0.0).unwrap_or(0.0)))
        .map_err(text)?;
    if inputs.has("x_control") {
        return raw_pairs(inputs, &design);
    }
    let pooled = inputs.text("variance")? == "pooled";
    let (mut monitor, mut looks, mut first) = (Monitor::START, Vec::new(), Value::Null);
    for (index, value) in inputs.list("looks")?.iter().enumerate() {
        let (effect, units) = effect_at(&Inputs::of(value, "look")?, pooled)?;
        let look = design.look(effect, units);
        monitor = monitor.after(&look);
        if first.is_null() && monitor.p_value <= alpha.get() {
            first = json!(index);
        }
        looks.push(json!({
            "estimate": look.effect.estimate,
            "se": look.effect.standard_error,
            "log_lambda": look.log_e_value,
            "p_value_instant": look.p_value,
            "p_value": monitor.p_value,
            "ci": interval(look.interval),
            "ci_running": interval(monitor.interval),
        }));
    }
    Ok(json!({ "looks": looks, "first_significant_look_index": first }))
}

/// An estimate given as such, or from counts; without units there is no effect yet.
fn effect_at(look: &Inputs, pooled: bool) -> Result<(Effect, u64), String> {
    if look.has("estimate") {
        let (estimate, standard_error) = (look.number("estimate")?, look.number("se")?);
        return Ok((Effect { estimate, standard_error }, 1));
    }
    let arm = |n: &str, x: &str| {
        Arm::new(Counts { units: look.count(n)?, conversions: look.count(x)? }).map_err(text)
    };
    let arms = Pair { control: arm("n_c", "x_c")?, treatment: arm("n_t", "x_t")? };
    let effect = if pooled {
        two_proportion::pooled_z(arms, Alternative::TwoSided).map(|test| test.effect)
    } else {
        two_proportion::unpooled_effect(arms)
    };
    let nothing = Effect { estimate: 0.0, standard_error: 0.0 };
    Ok((effect.unwrap_or(nothing), arms.control.units() + arms.treatment.units()))
}

/// Units that arrive in pairs, looked at after each pair; the variance is known or, for 0 and 1,
/// that of the rates so far.
fn raw_pairs(inputs: &Inputs, design: &Design) -> Answer {
    let (x, y) = (inputs.numbers("x_control")?, inputs.numbers("y_treatment")?);
    let mut logs = Vec::new();
    for n in 1..=x.len().min(y.len()) {
        let mean = |values: &[f64]| values[..n].iter().sum::<f64>() / n as f64;
        let (mean_c, mean_t) = (mean(&x), mean(&y));
        let variance = if inputs.has("known_sigma") {
            2.0 * inputs.number("known_sigma")?.powi(2)
        } else {
            mean_c * (1.0 - mean_c) + mean_t * (1.0 - mean_t)
        };
        let standard_error = (variance / n as f64).sqrt();
        let effect = Effect { estimate: mean_t - mean_c, standard_error };
        logs.push(design.look(effect, 2 * n as u64).log_e_value);
    }
    Ok(json!({ "log_lambda_after_n_pairs": logs }))
}

/// One arm of the asymptotic file: its mean, and its counts where it is a rate.
struct OneArm {
    units: u64,
    mean: Mean,
    rate: Option<Arm>,
}

impl OneArm {
    fn read(inputs: &Inputs) -> Result<OneArm, String> {
        let units = inputs.count("n")?;
        if inputs.text("kind")? == "prop" {
            let arm = Arm::new(Counts { units, conversions: inputs.count("sum")? }).map_err(text)?;
            let p = arm.rate().ok_or("n is 0")?;
            let mean = Mean { mean: p, variance: p * (1.0 - p) / units as f64 };
            return Ok(OneArm { units, mean, rate: Some(arm) });
        }
        let moments = Moments::from_sums(units, inputs.number("sum")?, inputs.number("ss")?);
        let moments = moments.map_err(text)?;
        let variance = moments.variance().ok_or("n is below 2")? / units as f64;
        Ok(OneArm { units, mean: Mean { mean: moments.mean(), variance }, rate: None })
    }
}

pub fn asymptotic_cs(inputs: &Inputs) -> Answer {
    let arms = Pair {
        control: OneArm::read(&inputs.object("control")?)?,
        treatment: OneArm::read(&inputs.object("treatment")?)?,
    };
    let alpha = inputs.alpha()?;
    let tuned = Mixing::TunedForUnits(inputs.number("tuning_n_star")?);
    let design = |alternative| Design::new(alpha, alternative, tuned).map_err(text);
    let units = arms.control.units + arms.treatment.units;
    let two_sided = design(Alternative::TwoSided)?;
    let mut out = json!({ "rho": two_sided.rho_squared().map(f64::sqrt) });
    if let (Some(control), Some(treatment)) = (arms.control.rate, arms.treatment.rate) {
        let rates = Pair { control, treatment };
        let pooled = two_proportion::pooled_z(rates, Alternative::TwoSided).map_err(text)?.effect;
        let look = two_sided.look(pooled, units);
        out["se_pooled"] = number(pooled.standard_error);
        out["log_e_value_pooled"] = number(look.log_e_value);
        out["p_value_pooled"] = number(look.p_value);
    }
    let means = Pair { control: arms.control.mean, treatment: arms.treatment.mean };
    match effect_of(means, inputs.text("difference_type")? == "relative") {
        Ok(effect) => {
            let look = two_sided.look(effect, units);
            let one_sided = |side| Ok::<Look, String>(design(side)?.look(effect, units));
            out["estimate"] = number(effect.estimate);
            out["se"] = number(effect.standard_error);
            out["log_e_value"] = number(look.log_e_value);
            out["p_value"] = number(look.p_value);
            out["ci"] = interval(look.interval);
            out["one_sided_greater_ci_low"] = number(one_sided(Alternative::Greater)?.interval.lower);
            out["one_sided_less_ci_high"] = number(one_sided(Alternative::Less)?.interval.upper);
        }
        Err(refusal) => {
            out["error"] = json!(refusal);
            out["p_value"] = number(1.0);
            out["ci"] = Value::Null;
        }
    }
    Ok(out)
}

/// The effect with unpooled variances, or the reference's word for why it refuses one.
fn effect_of(means: Pair<Mean>, relative: bool) -> Result<Effect, &'static str> {
    let Pair { control, treatment } = means;
    if control.mean <= 0.0 {
        return Err("ZERO_NEGATIVE_BASELINE_VARIATION");
    }
    if control.variance <= 0.0 || treatment.variance <= 0.0 {
        return Err("ZERO_NEGATIVE_VARIANCE");
    }
    if relative {
        let of = |result: Result<f64, Missing>| result.map_err(|_| "ZERO_NEGATIVE_VARIANCE");
        return Ok(Effect {
            estimate: of(lift::estimate(means))?,
            standard_error: of(lift::delta_standard_error(means))?,
        });
    }
    Ok(Effect {
        estimate: treatment.mean - control.mean,
        standard_error: (control.variance + treatment.variance).sqrt(),
    })
}

pub fn conversion_counts(inputs: &Inputs) -> Answer {
    let alpha = inputs.alpha()?;
    let share = inputs.number("treatment_assignment_probability")?;
    let design =
        conversion_counts::Design::new(share, inputs.number("concentration")?, alpha).map_err(text)?;
    let mut total = Pair { control: 0, treatment: 0 };
    let (mut p_value, mut looks, mut first) = (1.0f64, Vec::new(), Value::Null);
    for (index, batch) in inputs.list("batches_new_conversions")?.iter().enumerate() {
        let batch = Inputs::of(batch, "batch")?;
        total.control += batch.count("c")?;
        total.treatment += batch.count("t")?;
        let look = design.look(total);
        p_value = p_value.min(look.p_value);
        if first.is_null() && p_value <= alpha.get() {
            first = json!(index);
        }
        let ratio = look.log_rate_ratio.filter(|ratio| ratio.is_finite());
        looks.push(json!({
            "x_c": total.control,
            "x_t": total.treatment,
            "log_bayes_factor": look.log_bayes_factor,
            "p_value": p_value,
            "log_rate_ratio": ratio,
            "log_rate_ratio_ci": interval(look.interval),
        }));
    }
    Ok(json!({ "looks": looks, "first_significant_look_index": first }))
}
