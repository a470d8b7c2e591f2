//! Always-valid methods.

use stats::{
    Alternative, Effect, Invalid, Missing, Pair,
    confidence_sequence::{Design, Look, Mixing, Monitor},
    conversion_counts,
    lift::{self, Mean},
    two_proportion,
};

use super::{Inputs, Output, Refused, bayes::ArmMean, output::Open};

pub fn msprt(inputs: &Inputs) -> Result<Output, Refused> {
    let mixing = Mixing::EffectSd(inputs.measure("tau")?);
    let alpha = inputs.alpha()?;
    let null = if inputs.has("theta0") { inputs.measure("theta0")? } else { 0.0 };
    let design = inputs.check("tau", Design::new(alpha, inputs.alternative()?, mixing))?;
    let design = inputs.check("theta0", design.against(null))?;
    if inputs.has("x_control") {
        return raw_pairs(inputs, &design);
    }
    let pooled = match inputs.text_or("variance", "unpooled")? {
        "pooled" => true,
        "unpooled" => false,
        other => {
            return Err(inputs.refuse("variance", format!("{other:?} is neither pooled nor unpooled")));
        }
    };
    let (mut monitor, mut looks, mut first) = (Monitor::START, Vec::new(), None);
    for (index, inputs) in inputs.objects("looks")?.iter().enumerate() {
        let (effect, units) = effect_at(inputs, pooled)?;
        let look = design.look(effect, units);
        monitor = monitor.after(&look);
        if first.is_none() && monitor.p_value <= alpha.get() {
            first = Some(index);
        }
        looks.push(
            Output::default()
                .with("estimate", look.effect.estimate)
                .with("se", look.effect.standard_error)
                .with("log_lambda", look.log_e_value)
                .with("p_value_instant", look.p_value)
                .with("p_value", monitor.p_value)
                .with("ci", look.interval)
                .with("ci_running", monitor.interval),
        );
    }
    Ok(first_significant(Output::default().with("looks", looks), first))
}

fn first_significant(mut found: Output, index: Option<usize>) -> Output {
    const NAME: &str = "first_significant_look_index";
    match index {
        Some(index) => found.put(NAME, index),
        None => found.lacking(NAME, "no look was significant"),
    }
    found
}

/// Reads an effect that is given directly, or computes it from counts; without units there is no effect yet.
fn effect_at(look: &Inputs, pooled: bool) -> Result<(Effect, u64), Refused> {
    if look.has("estimate") {
        let (estimate, standard_error) = (look.measure("estimate")?, look.measure("se")?);
        if standard_error < 0.0 {
            return Err(look.refuse("se", format!("{standard_error} is below 0")));
        }
        return Ok((Effect { estimate, standard_error }, 1));
    }
    let arms = look.arms()?;
    let effect = if pooled {
        two_proportion::pooled_z(arms, Alternative::TwoSided).map(|test| test.effect)
    } else {
        two_proportion::unpooled_effect(arms)
    };
    let nothing = Effect { estimate: 0.0, standard_error: 0.0 };
    // At most 2^54.
    Ok((effect.unwrap_or(nothing), arms.control.units() + arms.treatment.units()))
}

/// Units that arrive in pairs, with a look after each pair; the variance is known or, for 0 and 1,
/// that of the rates so far.
fn raw_pairs(inputs: &Inputs, design: &Design) -> Result<Output, Refused> {
    let (x, y) = (inputs.measures("x_control")?, inputs.measures("y_treatment")?);
    if x.len() != y.len() {
        let (what, left, right) = ("the values of the pairs", x.len(), y.len());
        return Err(inputs.refuse("y_treatment", Invalid::Lengths { what, left, right }));
    }
    let known = if inputs.has("known_sigma") { Some(inputs.measure("known_sigma")?) } else { None };
    if let Some(sigma) = known.filter(|sigma| *sigma < 0.0) {
        return Err(inputs.refuse("known_sigma", format!("{sigma} is below 0")));
    }
    for (name, values) in [("x_control", &x), ("y_treatment", &y)] {
        let odd = values.iter().position(|&value| value != 0.0 && value != 1.0);
        if let (None, Some(index)) = (known, odd) {
            let why = "it is neither 0 nor 1, and known_sigma is not given";
            return Err(inputs.refuse(&format!("{name}[{index}]"), why));
        }
    }
    let mut logs = Vec::new();
    let (mut sum_c, mut sum_t) = (0.0, 0.0);
    for (pairs, (x, y)) in (1_u64..).zip(x.iter().zip(&y)) {
        (sum_c, sum_t) = (sum_c + x, sum_t + y);
        let n = pairs as f64;
        let (mean_c, mean_t) = (sum_c / n, sum_t / n);
        let variance = match known {
            Some(sigma) => 2.0 * sigma * sigma,
            None => mean_c * (1.0 - mean_c) + mean_t * (1.0 - mean_t),
        };
        let effect = Effect { estimate: mean_t - mean_c, standard_error: (variance / n).sqrt() };
        logs.push(design.look(effect, 2 * pairs).log_e_value);
    }
    Ok(Output::default().with("log_lambda_after_n_pairs", logs))
}

pub fn asymptotic_cs(inputs: &Inputs) -> Result<Output, Refused> {
    let arms =
        Pair { control: ArmMean::read(inputs, "control")?, treatment: ArmMean::read(inputs, "treatment")? };
    let alpha = inputs.alpha()?;
    let tuned = Mixing::TunedForUnits(inputs.number("tuning_n_star")?);
    let design = |alternative| inputs.check("tuning_n_star", Design::new(alpha, alternative, tuned));
    let relative = match inputs.text_or("difference_type", "absolute")? {
        "relative" => true,
        "absolute" => false,
        other => {
            let why = format!("{other:?} is neither relative nor absolute");
            return Err(inputs.refuse("difference_type", why));
        }
    };
    let units = arms.control.units + arms.treatment.units;
    let two_sided = design(Alternative::TwoSided)?;
    let mut found = Output::default();
    if let Some(rho_squared) = two_sided.rho_squared() {
        found.put("rho", rho_squared.sqrt());
    }
    if let (Some(control), Some(treatment)) = (arms.control.rate, arms.treatment.rate) {
        let rates = Pair { control, treatment };
        let pooled = two_proportion::pooled_z(rates, Alternative::TwoSided).map(|test| test.effect);
        let look = pooled.map(|effect| two_sided.look(effect, units));
        found.put("se_pooled", pooled.map(|effect| effect.standard_error));
        found.put("log_e_value_pooled", look.map(|look| look.log_e_value));
        found.put("p_value_pooled", look.map(|look| look.p_value));
    }
    let means = Pair { control: arms.control.mean, treatment: arms.treatment.mean };
    match effect_of(means, relative) {
        Ok(effect) => {
            let look = two_sided.look(effect, units);
            let one_sided = |side| Ok::<Look, Refused>(design(side)?.look(effect, units));
            found.put("estimate", effect.estimate);
            found.put("se", effect.standard_error);
            found.put("log_e_value", look.log_e_value);
            found.put("p_value", look.p_value);
            found.put("ci", look.interval);
            found.put("one_sided_greater_ci_low", Open(one_sided(Alternative::Greater)?.interval.lower));
            found.put("one_sided_less_ci_high", Open(one_sided(Alternative::Less)?.interval.upper));
        }
        Err(refusal) => {
            found.put("error", refusal);
            // The reference returns 1 where nothing varies; below 0 there is a difference, but no lift.
            if relative && means.control.mean < 0.0 {
                found.lacking("p_value", refusal);
            } else {
                found.put("p_value", 1.0);
            }
            for name in
                ["estimate", "se", "log_e_value", "ci", "one_sided_greater_ci_low", "one_sided_less_ci_high"]
            {
                found.lacking(name, refusal);
            }
        }
    }
    Ok(found)
}

/// The effect with unpooled variances, or the reference's name for the reason why it refuses one.
fn effect_of(means: Pair<Mean>, relative: bool) -> Result<Effect, &'static str> {
    let Pair { control, treatment } = means;
    // The reference uses the same name when it refuses a control of nothing but zeros.
    let nothing = control.mean == 0.0 && control.variance <= 0.0;
    if nothing || (relative && control.mean <= 0.0) {
        return Err("ZERO_NEGATIVE_BASELINE_VARIATION");
    }
    if control.variance <= 0.0 || treatment.variance <= 0.0 {
        return Err("ZERO_NEGATIVE_VARIANCE");
    }
    if relative {
        let beyond = |_: Missing| "ZERO_NEGATIVE_BASELINE_VARIATION";
        return Ok(Effect {
            estimate: lift::estimate(means).map_err(beyond)?,
            standard_error: lift::delta_standard_error(means).map_err(beyond)?,
        });
    }
    Ok(Effect {
        estimate: treatment.mean - control.mean,
        standard_error: (control.variance + treatment.variance).sqrt(),
    })
}

pub fn conversion_counts(inputs: &Inputs) -> Result<Output, Refused> {
    let alpha = inputs.alpha()?;
    let share = inputs.number("treatment_assignment_probability")?;
    let concentration = inputs.number("concentration")?;
    let design = conversion_counts::Design::new(share, concentration, alpha).map_err(|why| {
        let blamed =
            if why.what() == "concentration" { "concentration" } else { "treatment_assignment_probability" };
        inputs.refuse(blamed, why)
    })?;
    let mut total = Pair { control: 0_u64, treatment: 0_u64 };
    let (mut p_value, mut looks, mut first) = (1.0_f64, Vec::new(), None);
    for (index, batch) in inputs.objects("batches_new_conversions")?.iter().enumerate() {
        total.control = total.control.saturating_add(batch.count("c")?);
        total.treatment = total.treatment.saturating_add(batch.count("t")?);
        let look = design.look(total);
        p_value = p_value.min(look.p_value);
        if first.is_none() && p_value <= alpha.get() {
            first = Some(index);
        }
        let mut fields = Output::default()
            .with("x_c", total.control)
            .with("x_t", total.treatment)
            .with("log_bayes_factor", look.log_bayes_factor)
            .with("p_value", p_value)
            .with("log_rate_ratio_ci", look.interval);
        match look.log_rate_ratio.filter(|ratio| ratio.is_finite()) {
            Some(ratio) => fields.put("log_rate_ratio", ratio),
            None => fields.lacking("log_rate_ratio", "an arm has no conversions"),
        }
        looks.push(fields);
    }
    Ok(first_significant(Output::default().with("looks", looks), first))
}
