//! Planning before the run: how many units each arm needs and for how long. Pure; never asked of an
//! experiment that has run, whose power is a function of its p-value and says nothing new.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use stats::power::{self, NullVariance, Plan, SampleSize};
use stats::{Alpha, Alternative, Invalid, Pair, Power};

/// How many times the sample an always-valid interval needs for 80 % power, looked at daily over two
/// weeks (simulated). For 90 % it is more than this.
pub const ALWAYS_VALID_FACTOR: f64 = 1.79;

/// What is planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub outcome: Outcome,
    pub alpha: f64,
    pub power: f64,
    pub split: Split,
    /// Units that are exposed for the first time each day.
    pub daily_units: Option<f64>,
}

/// What is compared, and the effect to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Rates of conversion, from 0 to 1.
    Rates { baseline: f64, treatment: f64 },
    /// Means, with the standard deviation of one unit.
    Means { mean: f64, sd: f64, difference: f64 },
}

/// Shares of the units, the control first: at least two, all above 0, in any scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Split(Vec<f64>);

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    pub metric: &'static str,
    pub baseline: f64,
    pub treatment: f64,
    pub effect_absolute: f64,
    /// Null where the baseline is 0.
    pub effect_relative: Option<f64>,
    /// Two-sided, of the experiment as a whole.
    pub alpha: f64,
    /// Of each comparison: alpha shared among the treatments.
    pub alpha_per_comparison: f64,
    pub power: f64,
    /// For one look, at the planned end.
    pub fixed_horizon: Size,
    /// For looking at any time, which is how verdicts are reached where no horizon is planned.
    pub always_valid: Size,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    /// The control first, in the order of the split.
    pub units_per_arm: Vec<u64>,
    pub units_total: u64,
    /// Null if the daily units are not given.
    pub days: Option<u64>,
    /// `days` in whole weeks, so that every weekday counts alike.
    pub whole_week_days: Option<u64>,
}

/// The sample for which every treatment is found with the wanted power if it has the effect.
pub fn plan(request: &Request) -> Result<Answer, Invalid> {
    let alpha = Alpha::new(request.alpha)?;
    let power = Power::new(request.power)?;
    let treatments = u32::try_from(request.split.0.len() - 1).unwrap_or(u32::MAX);
    let each = alpha.divided_by(treatments);
    let control_share = request.split.0[0];
    let mut neediest: Option<(SampleSize, Plan)> = None;
    for share in &request.split.0[1..] {
        let plan = Plan::new(each, Alternative::TwoSided, share / control_share)?;
        let size = match request.outcome {
            Outcome::Rates { baseline, treatment } => power::rates_sample_size(
                Pair { control: baseline, treatment },
                power,
                &plan,
                NullVariance::Unpooled,
            )?,
            Outcome::Means { sd, difference, .. } => power::means_sample_size(sd, difference, power, &plan)?,
        };
        if neediest.as_ref().is_none_or(|(so_far, _)| size.control_exact > so_far.control_exact) {
            neediest = Some((size, plan));
        }
    }
    let (size, _) = neediest.expect("a split has at least one treatment");
    let (metric, baseline, treatment) = match request.outcome {
        Outcome::Rates { baseline, treatment } => ("conversion", baseline, treatment),
        Outcome::Means { mean, difference, .. } => ("mean", mean, mean + difference),
    };
    Ok(Answer {
        metric,
        baseline,
        treatment,
        effect_absolute: treatment - baseline,
        effect_relative: (baseline != 0.0).then(|| treatment / baseline - 1.0),
        alpha: request.alpha,
        alpha_per_comparison: each.get(),
        power: request.power,
        fixed_horizon: request.size(size.control_exact)?,
        always_valid: request.size(size.control_exact * ALWAYS_VALID_FACTOR)?,
    })
}

impl Request {
    fn size(&self, control_units: f64) -> Result<Size, Invalid> {
        let control_share = self.split.0[0];
        let units_per_arm: Vec<u64> = self
            .split
            .0
            .iter()
            .map(|share| (control_units * (share / control_share)).ceil() as u64)
            .collect();
        let units_total = units_per_arm.iter().sum();
        let duration = self.daily_units.map(|daily| power::duration(units_total, daily)).transpose()?;
        Ok(Size {
            units_per_arm,
            units_total,
            days: duration.map(|duration| duration.days),
            whole_week_days: duration.map(|duration| duration.whole_week_days),
        })
    }
}

impl FromStr for Split {
    type Err = String;

    /// From "50/50", "90/10", "50/25/25", ...
    fn from_str(text: &str) -> Result<Split, String> {
        let refusal = || {
            format!(
                "`{text}` is not a split: shares above 0 with slashes between, the control first, as in 50/50"
            )
        };
        let shares: Vec<f64> = text
            .split('/')
            .map(|share| share.trim().parse().map_err(|_| refusal()))
            .collect::<Result<_, _>>()?;
        if shares.len() < 2 || shares.iter().any(|share| !(share.is_finite() && *share > 0.0)) {
            return Err(refusal());
        }
        Ok(Split(shares))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares: Vec<String> = self.0.iter().map(f64::to_string).collect();
        formatter.write_str(&shares.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(outcome: Outcome, split: &str) -> Request {
        Request { outcome, alpha: 0.05, power: 0.8, split: split.parse().unwrap(), daily_units: None }
    }

    #[test]
    fn five_percent_and_a_lift_of_ten_percent_need_31_231_units_a_variant() {
        let outcome = Outcome::Rates { baseline: 0.05, treatment: 0.055 };
        let answer = plan(&Request { daily_units: Some(10_000.0), ..request(outcome, "50/50") }).unwrap();
        assert_eq!(answer.fixed_horizon.units_per_arm, [31_231, 31_231]);
        assert_eq!(answer.fixed_horizon.units_total, 62_462);
        assert_eq!((answer.fixed_horizon.days, answer.fixed_horizon.whole_week_days), (Some(7), Some(7)));
        // 31,230.2 times 1.79.
        assert_eq!(answer.always_valid.units_per_arm, [55_903, 55_903]);
    }

    #[test]
    fn an_uneven_split_needs_more_and_several_treatments_share_alpha() {
        let outcome = Outcome::Rates { baseline: 0.05, treatment: 0.055 };
        let uneven = plan(&request(outcome, "90/10")).unwrap();
        assert_eq!(uneven.fixed_horizon.units_total, 176_637);
        let three = plan(&request(outcome, "1/1/1")).unwrap();
        assert_eq!(three.alpha_per_comparison, 0.025);
        assert_eq!(three.fixed_horizon.units_per_arm, [37_820; 3]);
    }

    #[test]
    fn means_need_their_standard_deviation() {
        // (1.95996 + 0.84162)^2 * 10^2 * 2 / 1^2
        let outcome = Outcome::Means { mean: 20.0, sd: 10.0, difference: 1.0 };
        assert_eq!(plan(&request(outcome, "50/50")).unwrap().fixed_horizon.units_per_arm, [1_570, 1_570]);
    }

    #[test]
    fn what_cannot_be_planned_is_named() {
        let refusal = |baseline, treatment| {
            plan(&request(Outcome::Rates { baseline, treatment }, "50/50")).unwrap_err().to_string()
        };
        assert_eq!(refusal(5.0, 5.5), "baseline rate is 5, it must be strictly between 0 and 1");
        assert_eq!(
            refusal(0.6, 1.2),
            "treatment rate is 1.2, it must be from 0 to 1 and unlike the baseline"
        );
        for text in ["100", "50/0", "50/x", "-1/2", "1/NaN", ""] {
            let expected = format!(
                "`{text}` is not a split: shares above 0 with slashes between, the control first, as in 50/50"
            );
            assert_eq!(text.parse::<Split>().unwrap_err(), expected);
        }
    }
}
