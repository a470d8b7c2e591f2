//! The Bayesian view.

use serde_json::{Value, json};
use stats::{
    Alpha, Arm, Counts, Effect, Moments, Pair,
    bayes::{BetaPrior, NormalPosterior, NormalPrior, Rates, best_of},
    lift::{self, Mean},
};

use super::{Answer, Inputs, interval, number, text};

fn arm(inputs: &Inputs, n: &str, x: &str) -> Result<Arm, String> {
    Arm::new(Counts { units: inputs.count(n)?, conversions: inputs.count(x)? }).map_err(text)
}

pub fn beta_binomial(inputs: &Inputs) -> Answer {
    let prior = BetaPrior::new(inputs.number("prior_alpha")?, inputs.number("prior_beta")?).map_err(text)?;
    if inputs.has("arms") {
        let of = |value: &Value| Ok(prior.after(arm(&Inputs::of(value, "arm")?, "n", "x")?));
        let all = inputs.list("arms")?.iter().map(of).collect::<Result<Vec<_>, String>>()?;
        return Ok(json!({ "prob_best": best_of(&all).map_err(text)? }));
    }
    let rates = Rates(Pair {
        control: prior.after(arm(inputs, "n_c", "x_c")?),
        treatment: prior.after(arm(inputs, "n_t", "x_t")?),
    });
    let Pair { control, treatment } = rates.0;
    let alpha = inputs.alpha()?;
    let parameters = |(a, b): (f64, f64)| json!([a, b]);
    Ok(json!({
        "post_c": parameters(control.parameters()),
        "post_t": parameters(treatment.parameters()),
        "mean_c": control.mean(),
        "mean_t": treatment.mean(),
        "ci_c": interval(control.interval(alpha)),
        "ci_t": interval(treatment.interval(alpha)),
        "prob_treatment_better": rates.probability_treatment_better(),
        "expected_loss_choose_treatment": rates.expected_loss_of_treatment(),
        "expected_loss_choose_control": rates.expected_loss_of_control(),
        "expected_diff": rates.expected_difference(),
        "diff_ci": interval(rates.interval_of_difference(alpha)),
    }))
}

pub fn gaussian_effect(inputs: &Inputs) -> Answer {
    let means =
        Pair { control: mean(&inputs.object("control")?)?, treatment: mean(&inputs.object("treatment")?)? };
    let alpha = inputs.alpha()?;
    let relative = inputs.text("difference_type")? == "relative";
    let prior = prior(inputs, relative, means.control.mean)?;
    let inverse = inputs.get("inverse")?.as_bool().unwrap_or(false);
    match posterior(means, relative, prior) {
        Some(posterior) => Ok(shown(posterior, alpha, inverse)),
        // What the reference shows when it refuses.
        None => Ok(json!({
            "error": "ZERO_NEGATIVE_BASELINE_VARIATION",
            "expected": 0.0,
            "se": 0.0,
            "ci": [0.0, 0.0],
            "chance_to_win": 0.5,
            "risk_control": 0.0,
            "risk_treatment": 0.0,
        })),
    }
}

fn mean(inputs: &Inputs) -> Result<Mean, String> {
    let n = inputs.count("n")?;
    if inputs.text("kind")? == "prop" {
        let arm = arm(inputs, "n", "sum")?;
        let p = arm.rate().ok_or("n is 0")?;
        return Ok(Mean { mean: p, variance: p * (1.0 - p) / n as f64 });
    }
    let moments = Moments::from_sums(n, inputs.number("sum")?, inputs.number("ss")?);
    let moments = moments.map_err(text)?;
    let variance = moments.variance().ok_or("n is below 2")?;
    Ok(Mean { mean: moments.mean(), variance: variance / n as f64 })
}

/// The prior in the unit of the effect; none when it is improper.
fn prior(inputs: &Inputs, relative: bool, control_mean: f64) -> Result<Option<NormalPrior>, String> {
    let given = inputs.object("prior")?;
    if !given.get("proper")?.as_bool().unwrap_or(false) {
        return Ok(None);
    }
    let prior = NormalPrior::new(given.number("mean")?, given.number("variance")?.sqrt());
    let prior = prior.map_err(text)?;
    let prior_relative = inputs.text("prior_type")? == "relative";
    let scaled = match (prior_relative, relative) {
        (true, false) => prior.scaled(control_mean),
        (false, true) => prior.scaled(1.0 / control_mean),
        _ => Ok(prior),
    };
    scaled.map(Some).map_err(text)
}

fn posterior(means: Pair<Mean>, relative: bool, prior: Option<NormalPrior>) -> Option<NormalPosterior> {
    let Pair { control, treatment } = means;
    let effect = if relative {
        Effect {
            estimate: lift::estimate(means).ok()?,
            standard_error: lift::delta_standard_error(means).ok()?,
        }
    } else {
        Effect {
            estimate: treatment.mean - control.mean,
            standard_error: (control.variance + treatment.variance).sqrt(),
        }
    };
    NormalPosterior::new(effect, prior)
}

fn shown(posterior: NormalPosterior, alpha: Alpha, inverse: bool) -> Value {
    let above = posterior.probability_above_0();
    let (gain, loss) = (posterior.expected_gain(), posterior.expected_loss());
    let (win, risk_control, risk_treatment) =
        if inverse { (1.0 - above, loss, gain) } else { (above, gain, loss) };
    json!({
        "error": null,
        "expected": posterior.mean,
        "se": posterior.sd,
        "ci": interval(posterior.interval(alpha)),
        "chance_to_win": number(win),
        "risk_control": number(risk_control),
        "risk_treatment": number(risk_treatment),
    })
}
