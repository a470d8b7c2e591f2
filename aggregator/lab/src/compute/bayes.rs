//! Bayesian posteriors of rates and of effects.

use serde_json::json;
use stats::{
    Alpha, Effect, Missing, Moments, Pair,
    bayes::{BetaPrior, NormalPosterior, NormalPrior, Rates, best_of},
    lift::{self, Mean},
    measured,
};

use super::{Inputs, Output, Refused};

pub fn beta_binomial(inputs: &Inputs) -> Result<Output, Refused> {
    let (a, b) = (inputs.number("prior_alpha")?, inputs.number("prior_beta")?);
    let prior = BetaPrior::new(a, b).map_err(|why| {
        let blamed = if why.what() == "prior alpha" { "prior_alpha" } else { "prior_beta" };
        inputs.refuse(blamed, why)
    })?;
    if inputs.has("arms") {
        let of = |arm: &Inputs| Ok(prior.after(arm.arm("n", "x")?));
        let all = inputs.objects("arms")?.iter().map(of).collect::<Result<Vec<_>, Refused>>()?;
        return Ok(Output::default().with("prob_best", inputs.check("arms", best_of(&all))?));
    }
    let rates = Rates(inputs.arms()?.map(|arm| prior.after(arm)));
    let Pair { control, treatment } = rates.0;
    let alpha = inputs.alpha()?;
    let parameters = |(a, b): (f64, f64)| vec![a, b];
    Ok(Output::default()
        .with("post_c", parameters(control.parameters()))
        .with("post_t", parameters(treatment.parameters()))
        .with("mean_c", control.mean())
        .with("mean_t", treatment.mean())
        .with("ci_c", control.interval(alpha))
        .with("ci_t", treatment.interval(alpha))
        .with("prob_treatment_better", rates.probability_treatment_better())
        .with("expected_loss_choose_treatment", rates.expected_loss_of_treatment())
        .with("expected_loss_choose_control", rates.expected_loss_of_control())
        .with("expected_diff", rates.expected_difference())
        .with("diff_ci", rates.interval_of_difference(alpha)))
}

pub fn gaussian_effect(inputs: &Inputs) -> Result<Output, Refused> {
    let arms =
        Pair { control: ArmMean::read(inputs, "control")?, treatment: ArmMean::read(inputs, "treatment")? };
    let alpha = inputs.alpha()?;
    let relative = is_relative(inputs, "difference_type")?;
    let inverse = inputs.flag("inverse")?;
    let baseline = arms.control.mean.mean;
    let refusal = if relative && baseline == 0.0 {
        Some("ZERO_NEGATIVE_BASELINE_VARIATION")
    } else if arms.control.units == 0 || arms.treatment.units == 0 {
        Some("NO_UNITS_IN_VARIATION")
    } else if arms.control.mean.variance <= 0.0 || arms.treatment.mean.variance <= 0.0 {
        Some("ZERO_NEGATIVE_VARIANCE")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Ok(refused(refusal));
    }
    let means = arms.map(|arm| arm.mean);
    if relative && baseline < 0.0 {
        return below_0(inputs, means, inverse);
    }
    let effect = if relative {
        Effect {
            estimate: inputs.check("control", lift::estimate(means))?,
            standard_error: inputs.check("control", lift::delta_standard_error(means))?,
        }
    } else {
        absolute(means)
    };
    match NormalPosterior::new(effect, prior(inputs, relative, baseline)?) {
        Some(posterior) => Ok(fields_of(posterior, alpha, inverse)),
        None => Ok(refused("ZERO_NEGATIVE_VARIANCE")),
    }
}

fn absolute(means: Pair<Mean>) -> Effect {
    Effect {
        estimate: means.treatment.mean - means.control.mean,
        standard_error: (means.control.variance + means.treatment.variance).sqrt(),
    }
}

/// The answer for a relative effect on a control below 0, which no method has, because its sign would be
/// wrong. Which arm is better does not depend on the scale, and is computed from the difference.
fn below_0(inputs: &Inputs, means: Pair<Mean>, inverse: bool) -> Result<Output, Refused> {
    let control_mean = means.control.mean;
    let posterior = NormalPosterior::new(absolute(means), prior(inputs, false, control_mean)?);
    let mut found = Output::default().with("error", "ZERO_NEGATIVE_BASELINE_VARIATION");
    for name in ["expected", "se", "ci", "risk_control", "risk_treatment"] {
        found.lacking(name, Missing::PositiveBaseline { control_mean });
    }
    match posterior {
        Some(posterior) if inverse => found.put("chance_to_win", posterior.probability_below_0()),
        Some(posterior) => found.put("chance_to_win", posterior.probability_above_0()),
        None => found.lacking("chance_to_win", Missing::Variation),
    }
    Ok(found)
}

/// The answer of the reference when it refuses, with its name for the refusal.
fn refused(refusal: &str) -> Output {
    Output::default()
        .with("error", refusal)
        .with("expected", 0.0)
        .with("se", 0.0)
        .with("ci", vec![0.0, 0.0])
        .with("chance_to_win", 0.5)
        .with("risk_control", 0.0)
        .with("risk_treatment", 0.0)
}

fn is_relative(inputs: &Inputs, name: &str) -> Result<bool, Refused> {
    match inputs.text(name)? {
        "relative" => Ok(true),
        "absolute" => Ok(false),
        other => Err(inputs.refuse(name, format!("{other:?} is neither relative nor absolute"))),
    }
}

/// One arm as a mean; as in the reference, the mean is 0 without units, and the variance 0 where it is unknown.
pub struct ArmMean {
    pub units: u64,
    pub mean: Mean,
    /// The counts, if the mean is a rate.
    pub rate: Option<stats::Arm>,
}

impl ArmMean {
    /// Reads `{kind: "prop", n, sum}` or `{kind: "mean", n, sum, ss}`.
    pub fn read(inputs: &Inputs, name: &str) -> Result<ArmMean, Refused> {
        let arm = inputs.object(name)?;
        let units = arm.count("n")?;
        let of_mean = |variance: f64| if units == 0 { 0.0 } else { variance / units as f64 };
        match arm.text("kind")? {
            "prop" => {
                let counts = arm.arm("n", "sum")?;
                let mean = counts.rate().unwrap_or(0.0);
                let mean = Mean { mean, variance: counts.variance_of_rate().unwrap_or(0.0) };
                Ok(ArmMean { units, mean, rate: Some(counts) })
            }
            "mean" => {
                let moments: Moments = arm.moments("n", "sum", "ss")?;
                let variance = of_mean(moments.variance().unwrap_or(0.0));
                Ok(ArmMean { units, mean: Mean { mean: moments.mean(), variance }, rate: None })
            }
            other => Err(arm.refuse("kind", format!("{other:?} is neither prop nor mean"))),
        }
    }
}

/// The prior in the unit of the effect; `None` when it is improper.
fn prior(inputs: &Inputs, relative: bool, control_mean: f64) -> Result<Option<NormalPrior>, Refused> {
    let given = inputs.object("prior")?;
    if !given.flag("proper")? {
        return Ok(None);
    }
    let variance = given.number("variance")?;
    if variance < 0.0 {
        return Err(given.refuse("variance", format!("{variance} is below 0")));
    }
    let sd = given.check("variance", measured("its root", variance.sqrt()))?;
    let prior = given.check("variance", NormalPrior::new(given.measure("mean")?, sd))?;
    let scaled = match (is_relative(inputs, "prior_type")?, relative) {
        (true, false) => prior.scaled(control_mean.abs()),
        (false, true) => prior.scaled(1.0 / control_mean.abs()),
        _ => Ok(prior),
    };
    given.check("variance", scaled).map(Some)
}

fn fields_of(posterior: NormalPosterior, alpha: Alpha, inverse: bool) -> Output {
    let above = posterior.probability_above_0();
    let (gain, loss) = (posterior.expected_gain(), posterior.expected_loss());
    let (win, risk_control, risk_treatment) =
        if inverse { (posterior.probability_below_0(), loss, gain) } else { (above, gain, loss) };
    Output::default()
        .with("error", json!(null))
        .with("expected", posterior.mean)
        .with("se", posterior.sd)
        .with("ci", posterior.interval(alpha))
        .with("chance_to_win", win)
        .with("risk_control", risk_control)
        .with("risk_treatment", risk_treatment)
}
