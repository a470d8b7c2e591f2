//! Checks of the assignment: do the arms have their planned shares of the units (sample ratio), and the same
//! mix of units? A failure makes every effect of the experiment doubtful.

use crate::{Invalid, Missing, NoAnswer, distributions::chi_square_sf};

/// The smallest expected count of an arm for a verdict (GrowthBook: 8 users a variation).
pub const MIN_EXPECTED: f64 = 8.0;

/// The platform's alarm level. Looking daily for 28 days at 0.001 raises a false alarm in 0.88 %
/// of correct experiments; at 0.01 it would in 7.1 %, at 0.05 in 27 % (simulated).
pub const ALARM_LEVEL: f64 = 0.001;

/// An absolute standardised difference above this is called an imbalance (Austin 2009, Statistics
/// in Medicine 28(25)).
pub const LARGE_SMD: f64 = 0.1;

/// Pearson's chi-square of counts against planned weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ChiSquare {
    /// Planned share times total, one per arm.
    pub expected: Vec<f64>,
    /// The chi-square statistic, at least 0.
    pub statistic: f64,
    /// The number of arms with a positive weight, minus 1.
    pub degrees: usize,
    /// From 0 to 1.
    pub p_value: f64,
}

/// The platform's verdict on the ratio of the arms.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// p is at least [`ALARM_LEVEL`].
    AsPlanned(ChiSquare),
    /// p is below [`ALARM_LEVEL`]: do not read the effects.
    Mismatch(ChiSquare),
    /// An arm has units though its weight is 0.
    UnplannedArm {
        /// The index of the arm, from 0.
        arm: usize,
        /// The units of the arm, above 0.
        units: u64,
    },
}

/// One arm's planned weight (any scale) and its units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// At least 0, in any scale.
    pub weight: f64,
    /// The units of the arm.
    pub units: u64,
}

/// Checks the ratio of the arms. Every planned arm must have at least [`MIN_EXPECTED`] expected units. Units
/// in an arm of weight 0 are an alarm by themselves, also where only one arm is planned and there is no ratio
/// to test.
pub fn check(arms: &[Share]) -> Result<Verdict, NoAnswer> {
    if let Some(arm) = first_unplanned(arms)? {
        return Ok(Verdict::UnplannedArm { arm, units: arms[arm].units });
    }
    let test = chi_square(arms)?;
    let planned = arms.iter().zip(&test.expected).filter(|(arm, _)| arm.weight > 0.0);
    let smallest = planned.map(|(_, &expected)| expected).fold(f64::INFINITY, f64::min);
    if smallest < MIN_EXPECTED {
        return Err(Missing::ExpectedCount { smallest, need: MIN_EXPECTED }.into());
    }
    Ok(if test.p_value < ALARM_LEVEL { Verdict::Mismatch(test) } else { Verdict::AsPlanned(test) })
}

/// Pearson (1900), Philosophical Magazine 50: `sum (O - E)^2 / E`, with arms of weight 0 left out.
/// Accurate when every expected count is at least 5; no gate is applied here, see [`check`].
///
/// Returns [`Missing::ExpectedCount`] when the planned arms have no units at all.
pub fn chi_square(arms: &[Share]) -> Result<ChiSquare, NoAnswer> {
    let shares = shares_of(arms, 2)?;
    let planned = || arms.iter().filter(|arm| arm.weight > 0.0);
    let degrees = planned().count() - 1;
    let total: f64 = planned().map(|arm| arm.units as f64).sum();
    if total == 0.0 {
        return Err(Missing::ExpectedCount { smallest: 0.0, need: MIN_EXPECTED }.into());
    }
    let expected: Vec<f64> = shares.iter().map(|share| total * share).collect();
    let statistic = arms
        .iter()
        .zip(&expected)
        .filter(|(arm, _)| arm.weight > 0.0)
        .map(|(arm, expected)| (arm.units as f64 - expected).powi(2) / expected)
        .sum();
    let p_value = chi_square_sf(statistic, degrees as f64);
    Ok(ChiSquare { expected, statistic, degrees, p_value })
}

/// Returns the index (from 0) of the first arm that has units and a weight of 0. Whatever the other counts
/// are, such units cannot come from the planned weights. At least one weight must be above 0.
pub fn first_unplanned(arms: &[Share]) -> Result<Option<usize>, Invalid> {
    shares_of(arms, 1)?;
    Ok(arms.iter().position(|arm| arm.weight == 0.0 && arm.units > 0))
}

fn shares_of(arms: &[Share], need: usize) -> Result<Vec<f64>, Invalid> {
    let weights: Vec<f64> = arms.iter().map(|arm| arm.weight).collect();
    shares(&weights, need)
}

/// Returns the weights divided by their sum. Each must be finite and at least 0, and at least `need` of them
/// above 0. A positive weight must be at least 1e-15 of the largest, as in any real plan, so that every
/// expected count is above 0.
pub(crate) fn shares(weights: &[f64], need: usize) -> Result<Vec<f64>, Invalid> {
    const SMALLEST: f64 = 1e-15;
    let largest = weights.iter().copied().fold(0.0, f64::max);
    for &weight in weights {
        if !(weight >= 0.0 && weight.is_finite()) {
            let range = "finite and at least 0";
            return Err(Invalid::OutOfRange { what: "weight", value: weight, range });
        }
        if weight > 0.0 && weight < SMALLEST * largest {
            let range = "0, or at least 1e-15 of the largest weight";
            return Err(Invalid::OutOfRange { what: "weight", value: weight, range });
        }
    }
    let have = weights.iter().filter(|&&weight| weight > 0.0).count();
    if have < need {
        return Err(Invalid::TooFew { what: "arms with a positive weight", have, need });
    }
    // Divided by the largest first: the plain sum may exceed the largest double.
    let total: f64 = weights.iter().map(|weight| weight / largest).sum();
    Ok(weights.iter().map(|weight| weight / largest / total).collect())
}

/// The distribution of one attribute over the arms, with its test.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// `shares[arm][level]`, each arm summing to 1.
    pub shares: Vec<Vec<f64>>,
    /// The chi-square statistic, at least 0.
    pub statistic: f64,
    /// (arms - 1)(levels - 1)
    pub degrees: usize,
    /// From 0 to 1.
    pub p_value: f64,
}

/// Contingency chi-square of arm by level, without continuity correction, on counts of units (not
/// of events): `counts[arm][level]`. Levels without units do not count in the degrees.
pub fn balance(counts: &[Vec<u64>]) -> Result<Balance, NoAnswer> {
    if counts.len() < 2 {
        return Err(Invalid::TooFew { what: "arms", have: counts.len(), need: 2 }.into());
    }
    let levels = counts[0].len();
    if let Some(odd) = counts.iter().find(|arm| arm.len() != levels) {
        let what = "level counts";
        return Err(Invalid::Lengths { what, left: levels, right: odd.len() }.into());
    }
    let of_arm: Vec<f64> = counts.iter().map(|arm| arm.iter().map(|&units| units as f64).sum()).collect();
    if let Some(index) = of_arm.iter().position(|&units| units == 0.0) {
        return Err(Missing::EmptyArm { index }.into());
    }
    let of_level: Vec<f64> =
        (0..levels).map(|level| counts.iter().map(|arm| arm[level] as f64).sum()).collect();
    let present = of_level.iter().filter(|&&units| units > 0.0).count();
    if present < 2 {
        return Err(Missing::Variation.into());
    }
    let total: f64 = of_arm.iter().sum();
    let mut statistic = 0.0;
    for (arm, &arm_units) in counts.iter().zip(&of_arm) {
        for (&observed, &level_units) in arm.iter().zip(&of_level) {
            let expected = arm_units * (level_units / total);
            if expected > 0.0 {
                statistic += (observed as f64 - expected).powi(2) / expected;
            }
        }
    }
    let degrees = (counts.len() - 1) * (present - 1);
    let share = |arm: &Vec<u64>, units: f64| arm.iter().map(|&n| n as f64 / units).collect();
    Ok(Balance {
        shares: counts.iter().zip(&of_arm).map(|(arm, &units)| share(arm, units)).collect(),
        statistic,
        degrees,
        p_value: chi_square_sf(statistic, degrees as f64),
    })
}

/// The standardised mean difference of one level's shares, treatment minus control:
/// `(p_t - p_c) / sqrt((p_t q_t + p_c q_c) / 2)`. Austin (2009). It does not grow with the sample. It is
/// 0 when neither arm varies and both are equal, and infinite when neither varies and they differ.
pub fn standardized_difference(control_share: f64, treatment_share: f64) -> f64 {
    let variance = |p: f64| p * (1.0 - p);
    let difference = treatment_share - control_share;
    let sd = ((variance(treatment_share) + variance(control_share)) / 2.0).sqrt();
    if difference == 0.0 { 0.0 } else { difference / sd }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(units: &[u64]) -> Vec<Share> {
        units.iter().map(|&units| Share { weight: 1.0, units }).collect()
    }

    #[test]
    fn few_units_get_no_verdict() {
        let few = |smallest| Err(Missing::ExpectedCount { smallest, need: 8.0 }.into());
        assert_eq!(check(&shares(&[0, 0])), few(0.0));
        assert_eq!(check(&shares(&[0, 15])), few(7.5));
        assert!(matches!(check(&shares(&[0, 16])), Ok(Verdict::Mismatch(_))));
        assert!(matches!(check(&shares(&[8, 8])), Ok(Verdict::AsPlanned(_))));
    }

    #[test]
    fn units_in_an_arm_without_weight_are_a_finding_of_their_own() {
        let mut arms = shares(&[500, 500, 1]);
        arms[2].weight = 0.0;
        assert_eq!(check(&arms), Ok(Verdict::UnplannedArm { arm: 2, units: 1 }));
    }

    /// Where one arm is planned to get all units there is no ratio, but units in another arm are still wrong.
    #[test]
    fn units_outside_the_only_planned_arm_are_a_finding_too() {
        let arms = |units: [u64; 2]| {
            [Share { weight: 10_000.0, units: units[0] }, Share { weight: 0.0, units: units[1] }]
        };
        assert_eq!(check(&arms([300, 50])), Ok(Verdict::UnplannedArm { arm: 1, units: 50 }));
        assert_eq!(check(&arms([0, 1])), Ok(Verdict::UnplannedArm { arm: 1, units: 1 }));
        let one_arm = Invalid::TooFew { what: "arms with a positive weight", have: 1, need: 2 };
        assert_eq!(check(&arms([300, 0])), Err(one_arm.into()));
        let nothing_planned = Invalid::TooFew { what: "arms with a positive weight", have: 0, need: 1 };
        assert_eq!(check(&[Share { weight: 0.0, units: 5 }; 2]), Err(nothing_planned.into()));
    }

    #[test]
    fn weights_must_leave_two_arms() {
        let pair = |weight| [Share { weight: 1.0, units: 5 }, Share { weight, units: 5 }];
        let error = chi_square(&pair(0.0)).unwrap_err();
        assert!(matches!(error, NoAnswer::Invalid(Invalid::TooFew { have: 1, .. })));
        for weight in [-1.0, f64::NAN, f64::INFINITY, 1e-300] {
            let error = chi_square(&pair(weight)).unwrap_err();
            assert!(matches!(error, NoAnswer::Invalid(Invalid::OutOfRange { .. })));
        }
    }

    /// Weights in any scale, also where their sum exceeds the largest double, and counts whose sum exceeds 64
    /// bits.
    #[test]
    fn huge_weights_and_counts_have_a_test() {
        let arms = |weight, units| [Share { weight, units }, Share { weight, units: units - units / 10 }];
        let small = chi_square(&arms(1.0, 1_000)).unwrap();
        assert_eq!(chi_square(&arms(f64::MAX, 1_000)).unwrap(), small);
        assert_eq!(chi_square(&arms(1e-300, 1_000)).unwrap(), small);
        let most = chi_square(&arms(1.0, u64::MAX)).unwrap();
        assert!(most.statistic > 1e16 && most.p_value == 0.0, "{most:?}");
        assert!(balance(&[vec![u64::MAX, u64::MAX], vec![u64::MAX, u64::MAX]]).unwrap().p_value > 0.99);
    }

    #[test]
    fn balance_needs_units_in_every_arm_and_two_levels() {
        assert_eq!(balance(&[vec![3, 4], vec![5, 6]]).unwrap().degrees, 1);
        let empty = balance(&[vec![3, 4], vec![0, 0]]);
        assert_eq!(empty, Err(Missing::EmptyArm { index: 1 }.into()));
        let one_level = balance(&[vec![3, 0], vec![5, 0]]);
        assert_eq!(one_level, Err(Missing::Variation.into()));
        assert!(balance(&[vec![3, 4], vec![5]]).is_err());
    }
}
