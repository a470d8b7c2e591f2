//! Planning before an experiment: the units of each arm and the duration, the effect that given units find,
//! and the power. Pure. Do not use it after the run: the power is then a function of the p-value and adds no
//! information.

use serde::Serialize;
use stats::always_valid_power::AlwaysValidPower;
use stats::group_sequential::{Boundary, Design, Looks, Spending};
use stats::power::{self, NullVariance, Plan, RatioParts, UNITS_MAX};
use stats::{Alpha, Alternative, Invalid, Pair, Power, measured};

mod accuracy;
mod split;
mod variance;

pub use split::Split;
pub use variance::Variance;

/// The largest number of looks of a planned boundary.
pub const LOOKS_MAX: u32 = 500;

/// The points of the power curve, evenly spaced up to [`CURVE_END`] times the units of one look.
const CURVE_POINTS: u32 = 40;
const CURVE_END: f64 = 2.0;

/// A question about a planned experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub outcome: Outcome,
    pub question: Question,
    pub alpha: f64,
    pub power: f64,
    pub split: Split,
    pub correction: Correction,
    pub sequential: Sequential,
    pub variance: Variance,
    /// The units that are exposed for the first time each day.
    pub daily_units: Option<f64>,
}

impl Request {
    /// The inputs in the metric's unit, with their names.
    fn measured(&self) -> Vec<(&'static str, f64)> {
        let mut all = match self.outcome {
            Outcome::Rates { .. } => Vec::new(),
            Outcome::Means { mean, sd } => vec![("mean", mean), ("standard deviation", sd)],
            Outcome::Ratio(parts) => vec![
                ("ratio", parts.ratio),
                ("numerator sd", parts.numerator_sd),
                ("denominator mean", parts.denominator_mean),
                ("denominator sd", parts.denominator_sd),
            ],
        };
        if let Question::Units { difference } | Question::Power { difference, .. } = self.question {
            all.push(("difference to detect", difference));
        }
        all
    }
}

/// The outcome to compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Conversion rates, from 0 to 1.
    Rates { baseline: f64 },
    /// Means, with the standard deviation of one unit.
    Means { mean: f64, sd: f64 },
    /// A ratio of two sums, given by the parts of one unit.
    Ratio(RatioParts),
}

/// Two of units, effect and power are given, and the third is computed. Effects are absolute, in the metric's
/// unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Question {
    /// The units that find the effect with the wanted power.
    Units { difference: f64 },
    /// The effect that `units_total` units of all arms find with the wanted power.
    Effect { units_total: u64 },
    /// The power with which `units_total` units of all arms find the effect.
    Power { difference: f64, units_total: u64 },
}

/// How alpha is shared among several treatments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// In equal parts: the error rate of all of them together is alpha.
    Bonferroni,
    /// The error rate of each is alpha.
    None,
}

/// The boundary with looks before the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequential {
    /// The number of equally spaced looks, from 1 to [`LOOKS_MAX`].
    pub looks: u32,
    pub spending: Spending,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The computed quantity: `units`, `effect` or `power`.
    pub asked: &'static str,
    pub metric: &'static str,
    pub baseline: f64,
    /// The two-sided alpha of the experiment as a whole.
    pub alpha: f64,
    /// The alpha of each comparison, after sharing among the treatments.
    pub alpha_per_comparison: f64,
    /// The variance of the difference relative to independent units without a covariate.
    pub variance_factor: f64,
    pub looks: u32,
    /// For one look, at the planned end.
    pub fixed_horizon: Row,
    /// For a boundary with `looks` looks, which is how verdicts are reached where a horizon is planned.
    pub group_sequential: Row,
    /// For looks at any time, as often as the boundary's, with the interval tuned for the units of one look,
    /// as in a plan with the method `always_valid` and that horizon. Without a planned horizon it is tuned
    /// for 5,000 units, and needs more units.
    pub always_valid: Row,
    /// The power over units; empty where the effect was computed.
    pub curve: Vec<CurvePoint>,
    /// The cases in which the formulas, all of them normal approximations, are too optimistic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The effect, treatment minus control; null where none can be found.
    pub effect_absolute: Option<f64>,
    /// The effect as a share of the baseline; null also where the baseline is not above 0.
    pub effect_relative: Option<f64>,
    pub power: f64,
    /// The units of each arm in the order of the split, the control first.
    pub units_per_arm: Vec<u64>,
    pub units_total: u64,
    /// The largest number of units relative to one look.
    pub inflation: f64,
    /// The expected number of used units with the effect and without any; null where the experiment cannot
    /// end early, or where the number is unknown.
    pub expected_units_if_effect: Option<f64>,
    pub expected_units_if_none: Option<f64>,
    /// Null if the daily units are not given.
    pub days: Option<u64>,
    /// `days` rounded up to whole weeks, so that every weekday has the same weight.
    pub whole_week_days: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    pub units_total: u64,
    pub power_fixed_horizon: f64,
    pub power_group_sequential: f64,
    pub power_always_valid: f64,
}

/// Answers the question for the treatment that needs the most units; effects of the others are found more
/// easily.
pub fn plan(request: &Request) -> Result<Answer, Invalid> {
    let planner = Planner::of(request)?;
    let (asked, effects, units) = match request.question {
        Question::Units { difference } => {
            let units = planner.units(difference)?;
            ("units", [Some(difference); 3], planner.factors.map(|factor| units * factor))
        }
        Question::Effect { units_total } => {
            let units = planner.control_units(units_total)?;
            let mut effects = [None; 3];
            for (effect, factor) in effects.iter_mut().zip(planner.factors) {
                *effect = planner.effect(units / factor)?;
            }
            ("effect", effects, [units; 3])
        }
        Question::Power { difference, units_total } => {
            ("power", [Some(difference); 3], [planner.control_units(units_total)?; 3])
        }
    };
    let mut rows = Vec::new();
    for (method, (effect, units)) in effects.into_iter().zip(units).enumerate() {
        let power = match (request.question, effect) {
            (Question::Power { .. }, Some(difference)) => planner.powers(difference, units)?[method],
            _ => request.power,
        };
        rows.push(planner.row(method, effect, power, units)?);
    }
    let [fixed_horizon, group_sequential, always_valid] = <[Row; 3]>::try_from(rows).expect("three methods");
    let warnings = accuracy::warnings(&fixed_horizon, planner.baseline, planner.sd.is_none());
    Ok(Answer {
        warnings,
        asked,
        metric: planner.metric,
        baseline: planner.baseline,
        alpha: request.alpha,
        alpha_per_comparison: planner.each.get(),
        variance_factor: planner.variance,
        looks: request.sequential.looks,
        fixed_horizon,
        group_sequential,
        always_valid,
        curve: match request.question {
            Question::Units { difference } | Question::Power { difference, .. } => {
                planner.curve(difference)?
            }
            Question::Effect { .. } => Vec::new(),
        },
    })
}

/// The values that all questions share.
struct Planner<'a> {
    request: &'a Request,
    metric: &'static str,
    baseline: f64,
    /// The standard deviation; `None` for rates, which determine their own.
    sd: Option<f64>,
    wanted: Power,
    each: Alpha,
    /// The plan of the treatment with the smallest share.
    plan: Plan,
    variance: f64,
    looks: Looks,
    cost: stats::group_sequential::Cost,
    always_valid: AlwaysValidPower,
    /// The largest number of units relative to one look, for one look, boundary and always valid.
    factors: [f64; 3],
}

impl<'a> Planner<'a> {
    fn of(request: &'a Request) -> Result<Planner<'a>, Invalid> {
        let Sequential { looks, spending } = request.sequential;
        if !(1..=LOOKS_MAX).contains(&looks) {
            let value = f64::from(looks);
            return Err(Invalid::OutOfRange { what: "looks", value, range: "from 1 to 500" });
        }
        for (what, value) in request.measured() {
            measured(what, value)?;
        }
        let (metric, baseline, sd) = match request.outcome {
            Outcome::Rates { baseline } => ("conversion", baseline, None),
            Outcome::Means { mean, sd } => ("mean", mean, Some(sd)),
            Outcome::Ratio(parts) => ("ratio", parts.ratio, Some(parts.sd()?)),
        };
        let (alpha, wanted) = (Alpha::new(request.alpha)?, Power::new(request.power)?);
        let shares = &request.split.shares();
        let treatments = u32::try_from(shares.len() - 1).unwrap_or(u32::MAX);
        let each = match request.correction {
            Correction::Bonferroni => alpha.divided_by(treatments),
            Correction::None => alpha,
        };
        if wanted.get() <= each.get() {
            let range = "above alpha: without any effect a test rejects as often";
            return Err(Invalid::OutOfRange { what: "power", value: wanted.get(), range });
        }
        let smallest = shares[1..].iter().copied().fold(f64::INFINITY, f64::min);
        let design = Design { alpha: each, alternative: Alternative::TwoSided, spending };
        let fractions: Vec<f64> = (1..=looks).map(|k| f64::from(k) / f64::from(looks)).collect();
        let looks = Boundary::planned(design, &fractions)?.looks().clone();
        let cost = looks.cost(each, wanted);
        if cost.inflation.is_infinite() {
            let range = "large enough to leave the boundary something to spend";
            return Err(Invalid::OutOfRange { what: "alpha", value: each.get(), range });
        }
        let always_valid = AlwaysValidPower::new(each, wanted, request.sequential.looks, CURVE_END)?;
        Ok(Planner {
            request,
            metric,
            baseline,
            sd,
            wanted,
            each,
            plan: Plan::new(each, Alternative::TwoSided, smallest / shares[0])?,
            variance: request.variance.factor()?,
            looks,
            cost,
            factors: [1.0, cost.inflation, always_valid.inflation()],
            always_valid,
        })
    }

    /// The control units for one look, not rounded.
    fn units(&self, difference: f64) -> Result<f64, Invalid> {
        let size = match self.sd {
            None => power::rates_sample_size(
                self.rates(difference),
                self.wanted,
                &self.plan,
                NullVariance::Unpooled,
            )?,
            Some(sd) => power::means_sample_size(sd, difference, self.wanted, &self.plan)?,
        };
        Ok(size.control_exact * self.variance)
    }

    fn rates(&self, difference: f64) -> Pair<f64> {
        Pair { control: self.baseline, treatment: self.baseline + difference }
    }

    /// The smallest increase that `control_units` units find at one look.
    fn effect(&self, control_units: f64) -> Result<Option<f64>, Invalid> {
        let independent = control_units / self.variance;
        match self.sd {
            None => {
                let found = power::rates_detectable(self.baseline, independent, self.wanted, &self.plan)?;
                Ok(found.increase.map(|rate| rate - self.baseline))
            }
            Some(sd) => power::means_detectable(sd, independent, self.wanted, &self.plan).map(Some),
        }
    }

    /// The powers of one look, boundary and always valid.
    fn powers(&self, difference: f64, control_units: f64) -> Result<[f64; 3], Invalid> {
        let drift = |control_units: f64| match self.sd {
            None => power::rates_drift(self.rates(difference), control_units / self.variance, &self.plan),
            Some(sd) => power::means_drift(sd, difference, control_units / self.variance, &self.plan),
        };
        let at_end = drift(control_units)?;
        Ok([
            self.plan.power_of_drift(at_end),
            self.looks.crossing_probability(at_end).min(1.0),
            self.always_valid_power(control_units / self.units(difference)?)?,
        ])
    }

    /// The power at `units`, a multiple of the units of one look.
    fn always_valid_power(&self, units: f64) -> Result<f64, Invalid> {
        if units <= CURVE_END {
            return Ok(self.always_valid.by(units));
        }
        let looks = self.request.sequential.looks;
        Ok(AlwaysValidPower::new(self.each, self.wanted, looks, units)?.by(units))
    }

    fn curve(&self, difference: f64) -> Result<Vec<CurvePoint>, Invalid> {
        let whole = self.units(difference)?;
        let mut points = Vec::new();
        for point in 1..=CURVE_POINTS {
            let units = whole * CURVE_END * f64::from(point) / f64::from(CURVE_POINTS);
            let [fixed, sequential, always] = self.powers(difference, units)?;
            points.push(CurvePoint {
                units_total: self.per_arm(units)?.iter().sum(),
                power_fixed_horizon: fixed,
                power_group_sequential: sequential,
                power_always_valid: always,
            });
        }
        Ok(points)
    }

    fn control_units(&self, units_total: u64) -> Result<f64, Invalid> {
        if !(1..=UNITS_MAX).contains(&units_total) {
            let value = units_total as f64;
            return Err(Invalid::OutOfRange { what: "units", value, range: "from 1 to 2^53" });
        }
        let shares = &self.request.split.shares();
        Ok(units_total as f64 * shares[0] / shares.iter().sum::<f64>())
    }

    /// Returns the units of each arm, rounded up; more than 2^53 in total are an error.
    fn per_arm(&self, control_units: f64) -> Result<Vec<u64>, Invalid> {
        // With 70/30 and 700 control units the treatment has 300, but in doubles it may be slightly more.
        const ROUNDING: f64 = 1e-12;
        let shares = &self.request.split.shares();
        let units: Vec<f64> = shares.iter().map(|share| control_units * (share / shares[0])).collect();
        let whole: Vec<f64> = units.iter().map(|units| (units * (1.0 - ROUNDING)).ceil()).collect();
        let total: f64 = whole.iter().sum();
        if total > UNITS_MAX as f64 {
            let range = "at most 2^53: the effect is too small to be found";
            return Err(Invalid::OutOfRange { what: "units needed", value: total, range });
        }
        Ok(whole.into_iter().map(|units| units as u64).collect())
    }

    fn row(&self, method: usize, effect: Option<f64>, power: f64, units: f64) -> Result<Row, Invalid> {
        const BOUNDARY: usize = 1;
        let units_per_arm = self.per_arm(units)?;
        let units_total = units_per_arm.iter().sum();
        let daily = self.request.daily_units;
        let duration = daily.map(|daily| power::duration(units_total, daily)).transpose()?;
        // The plan's cost is relative to one look with the wanted power.
        let expected = |share: f64| match self.request.question {
            Question::Power { .. } => None,
            _ if method == BOUNDARY => Some(units_total as f64 * share / self.cost.inflation),
            _ => None,
        };
        Ok(Row {
            effect_absolute: effect,
            effect_relative: effect.filter(|_| self.baseline > 0.0).map(|effect| effect / self.baseline),
            power,
            units_per_arm,
            units_total,
            inflation: self.factors[method],
            expected_units_if_effect: expected(self.cost.expected_if_effect),
            expected_units_if_none: expected(self.cost.expected_if_none),
            days: duration.map(|duration| duration.days),
            whole_week_days: duration.map(|duration| duration.whole_week_days),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_PERCENT: Outcome = Outcome::Rates { baseline: 0.05 };

    fn request(outcome: Outcome, question: Question, split: &str) -> Request {
        Request {
            outcome,
            question,
            alpha: 0.05,
            power: 0.8,
            split: split.parse().unwrap(),
            correction: Correction::Bonferroni,
            sequential: Sequential { looks: 14, spending: Spending::OBrienFleming },
            variance: Variance::PLAIN,
            daily_units: None,
        }
    }

    fn units(outcome: Outcome, difference: f64, split: &str) -> Request {
        request(outcome, Question::Units { difference }, split)
    }

    #[test]
    fn five_percent_and_a_lift_of_ten_percent_need_31_231_units_a_variant() {
        let answer =
            plan(&Request { daily_units: Some(10_000.0), ..units(FIVE_PERCENT, 0.005, "50/50") }).unwrap();
        let fixed = &answer.fixed_horizon;
        assert_eq!((&fixed.units_per_arm[..], fixed.units_total), (&[31_231, 31_231][..], 62_462));
        assert_eq!((fixed.days, fixed.whole_week_days), (Some(7), Some(7)));
        // 1.731 times (8,000,000 paths drawn by numpy, 14 looks up to one look's units).
        let always_valid = &answer.always_valid;
        assert!((always_valid.inflation - 1.731).abs() < 0.002, "{always_valid:?}");
        let units = always_valid.units_per_arm[0] as f64;
        assert!((units - 31_230.2 * always_valid.inflation).abs() < 2.0, "{always_valid:?}");
        // 14 looks of O'Brien-Fleming spending: 1.042 times, and a fourth less on average if the effect is
        // there.
        let sequential = &answer.group_sequential;
        assert!((sequential.inflation - 1.042).abs() < 0.0005, "{sequential:?}");
        let expected = sequential.expected_units_if_effect.unwrap() / 62_462.0;
        assert!((expected - 0.783).abs() < 0.005, "{expected}");
    }

    #[test]
    fn an_uneven_split_needs_more_and_several_treatments_share_alpha() {
        let uneven = plan(&units(FIVE_PERCENT, 0.005, "90/10")).unwrap();
        assert_eq!(uneven.fixed_horizon.units_total, 179_749);
        let three = plan(&units(FIVE_PERCENT, 0.005, "1/1/1")).unwrap();
        assert_eq!(three.alpha_per_comparison, 0.025);
        assert_eq!(three.fixed_horizon.units_per_arm, [37_821; 3]);
        let alone = Request { correction: Correction::None, ..units(FIVE_PERCENT, 0.005, "1/1/1") };
        assert_eq!(plan(&alone).unwrap().fixed_horizon.units_per_arm, [31_231; 3]);
    }

    #[test]
    fn means_need_their_standard_deviation_and_ratios_their_parts() {
        // (1.95996 + 0.84162)^2 * 10^2 * 2 / 1^2
        let mean = plan(&units(Outcome::Means { mean: 20.0, sd: 10.0 }, 1.0, "50/50")).unwrap();
        assert_eq!(mean.fixed_horizon.units_per_arm, [1_570, 1_570]);
        // A constant denominator of 2: the mean of half the numerator.
        let parts = RatioParts {
            ratio: 20.0,
            numerator_sd: 20.0,
            denominator_mean: 2.0,
            denominator_sd: 0.0,
            correlation: 0.0,
        };
        let ratio = plan(&units(Outcome::Ratio(parts), 1.0, "50/50")).unwrap();
        assert_eq!(ratio.fixed_horizon.units_per_arm, [1_570, 1_570]);
    }

    /// Far more units than one look needs find the effect almost always.
    #[test]
    fn power_still_rises_past_the_curve() {
        let of = |units_total| {
            let power = Question::Power { difference: 0.005, units_total };
            plan(&request(FIVE_PERCENT, power, "50/50")).unwrap().always_valid.power
        };
        let (twice, thrice, most) = (of(124_924), of(187_386), of(62_462_000));
        assert!(twice > 0.86 && twice < 0.88, "{twice}");
        assert!(thrice > 0.97 && most > 0.999_9, "{thrice} {most}");
    }

    /// Clusters of 21 with icc 0.05 double the variance; a covariate with rho^2 = 0.5 halves it.
    #[test]
    fn clusters_and_covariates_change_the_variance() {
        let outcome = Outcome::Means { mean: 20.0, sd: 10.0 };
        let of = |variance| plan(&Request { variance, ..units(outcome, 1.0, "50/50") });
        let clusters = Variance { cluster_size: 21.0, intraclass_correlation: 0.05, ..Variance::PLAIN };
        assert_eq!(of(clusters).unwrap().fixed_horizon.units_per_arm, [3_140, 3_140]);
        let both = Variance { covariate_correlation: 0.5_f64.sqrt(), ..clusters };
        assert_eq!(of(both).unwrap().fixed_horizon.units_per_arm, [1_570, 1_570]);
        assert!(of(Variance { covariate_correlation: 1.0, ..clusters }).is_err());
    }

    /// The three questions are inverse to each other, for each method.
    #[test]
    fn units_effect_and_power_agree() {
        for outcome in [FIVE_PERCENT, Outcome::Means { mean: 20.0, sd: 3.0 }] {
            for split in ["50/50", "80/20", "50/25/25"] {
                let planned = plan(&units(outcome, 0.005, split)).unwrap();
                let rows = [&planned.fixed_horizon, &planned.group_sequential, &planned.always_valid];
                for (method, row) in rows.into_iter().enumerate() {
                    let units_total = row.units_total;
                    let effect = plan(&request(outcome, Question::Effect { units_total }, split)).unwrap();
                    let power = Question::Power { difference: 0.005, units_total };
                    let power = plan(&request(outcome, power, split)).unwrap();
                    let of = |answer: &Answer| {
                        let rows = [&answer.fixed_horizon, &answer.group_sequential, &answer.always_valid];
                        rows[method].clone()
                    };
                    let found = of(&effect).effect_absolute.unwrap();
                    assert!((found / 0.005 - 1.0).abs() < 1e-4, "{outcome:?} {split} {method}: {found}");
                    assert!((of(&power).power - 0.8).abs() < 2e-4, "{outcome:?} {split} {method}: {power:?}");
                }
            }
        }
    }

    #[test]
    fn the_curve_reaches_the_wanted_power_at_the_planned_units() {
        let answer = plan(&units(FIVE_PERCENT, 0.005, "50/50")).unwrap();
        let middle = answer.curve[19];
        assert_eq!(middle.units_total, 62_462);
        assert!((middle.power_fixed_horizon - 0.8).abs() < 1e-4, "{middle:?}");
        assert!(middle.power_group_sequential < 0.8 && middle.power_always_valid < 0.6, "{middle:?}");
        let rising = answer.curve.windows(2);
        assert!({ rising }.all(|pair| pair[0].power_group_sequential < pair[1].power_group_sequential));
    }

    /// A tiny effect, alpha or power is an error that names it, not the largest possible number.
    #[test]
    fn extremes_are_refused_by_name() {
        let refusal = |request: Request| plan(&request).unwrap_err().to_string();
        let of = |difference| units(Outcome::Means { mean: 20.0, sd: 3.0 }, difference, "50/50");
        assert!(refusal(of(1e-30)).starts_with("units needed is "), "{}", refusal(of(1e-30)));
        assert!(refusal(of(1e-300)).starts_with("difference to detect is 1e-300, "));
        assert!(refusal(of(0.0)).starts_with("difference to detect is 0, "));
        assert!(refusal(Request { power: 0.05, ..of(0.1) }).starts_with("power is 0.05, "));
        assert!(refusal(Request { alpha: 1e-300, ..of(0.1) }).starts_with("alpha is 1e-300, "));
        assert!(
            refusal(Request { daily_units: Some(1e-300), ..of(0.1) })
                .starts_with("new units a day is 1e-300, ")
        );
        let most = Question::Effect { units_total: u64::MAX };
        assert!(refusal(Request { question: most, ..of(0.1) }).starts_with("units is "));
        // A two-sided test finds a decrease like an increase.
        assert_eq!(
            plan(&of(-0.1)).unwrap().fixed_horizon.units_per_arm,
            plan(&of(0.1)).unwrap().fixed_horizon.units_per_arm
        );
    }

    /// The arms have exactly the given units in total, not one more because a share in doubles is slightly
    /// too large.
    #[test]
    fn the_arms_of_given_units_are_no_more_than_these() {
        for split in ["50/50", "90/10", "70/30", "60/20/20", "34/33/33"] {
            for units_total in [1_000, 10_000, 123_400] {
                let question = Question::Effect { units_total };
                let answer = plan(&request(FIVE_PERCENT, question, split)).unwrap();
                assert_eq!(answer.fixed_horizon.units_total, units_total, "{split}");
            }
        }
    }

    #[test]
    fn an_error_names_the_invalid_input() {
        let refusal = |baseline, treatment: f64| {
            let of = units(Outcome::Rates { baseline }, treatment - baseline, "50/50");
            plan(&of).unwrap_err().to_string()
        };
        assert_eq!(refusal(5.0, 5.5), "baseline rate is 5, it must be strictly between 0 and 1");
        assert_eq!(
            refusal(0.6, 1.2),
            "treatment rate is 1.2, it must be from 0 to 1 and unlike the baseline"
        );
        let never = request(Outcome::Rates { baseline: 0.9 }, Question::Effect { units_total: 40 }, "50/50");
        assert_eq!(plan(&never).unwrap().fixed_horizon.effect_absolute, None);
    }
}
