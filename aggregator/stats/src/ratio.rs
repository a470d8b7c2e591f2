//! Metrics that are a ratio of two sums per unit, such as clicks per view, when whole units were
//! assigned. The delta method converts them to means, so every method for means applies.

use crate::{Invalid, Missing, Moments, Pair, PairMoments, Side, terms::measured};

/// Returns both arms as moments of the linearised values: mean `R = sum x / sum y`, variance
/// `[var x - 2 R cov + R^2 var y] / mean(y)^2`. Use them in [`crate::welch`], [`crate::lift`] or
/// [`crate::confidence_sequence`]. Deng, Knoblich & Lu (2018), KDD; GrowthBook
/// `RatioStatistic`.
///
/// Units without a denominator stay in, because no unit's own denominator is divided by. Do not test x/y per
/// unit (another quantity) or per view (which ignores that a unit's views resemble each other). Accurate once
/// the mean denominator is many standard errors from 0.
pub fn linearized(arms: Pair<PairMoments>) -> Result<Pair<Moments>, Missing> {
    arms.try_map(linearized_arm)
}

/// `R = sum x / sum y` of one arm, which needs no variance.
pub fn of_sums(side: Side, arm: PairMoments) -> Result<f64, Missing> {
    if arm.count() == 0 {
        return Err(Missing::Units { arm: side, have: 0, need: 1 });
    }
    if arm.y().mean() == 0.0 {
        return Err(Missing::Denominator { arm: side });
    }
    Ok(arm.x().mean() / arm.y().mean())
}

/// The parts of the variance of the linearised values, in the unit of the ratio.
struct Parts {
    ratio: f64,
    /// `sd x / mean y` and `R sd y / mean y`.
    of_x: f64,
    of_y: f64,
    /// From -1 to 1; 0 where one of the two does not vary.
    correlation: f64,
}

fn parts(side: Side, arm: PairMoments) -> Result<Parts, Missing> {
    let (x, y) = (arm.x(), arm.y());
    let (sd_x, sd_y) = (x.variance_of(side)?.sqrt(), y.variance_of(side)?.sqrt());
    let ratio = of_sums(side, arm)?;
    let correlation = arm.covariance().unwrap_or(0.0) / sd_x / sd_y;
    let correlation = if correlation.is_finite() { correlation.clamp(-1.0, 1.0) } else { 0.0 };
    Ok(Parts { ratio, of_x: sd_x / y.mean(), of_y: ratio * (sd_y / y.mean()), correlation })
}

/// Checks that the ratio and its variation are [`measured`], so that their squares are within the range of a
/// double. An arm without a ratio passes.
pub fn check_size(side: Side, arm: PairMoments) -> Result<(), Invalid> {
    let Ok(Parts { ratio, of_x, of_y, .. }) = parts(side, arm) else { return Ok(()) };
    for value in [ratio, of_x, of_y] {
        measured("ratio of the sums, or what it varies by", value)?;
    }
    Ok(())
}

/// Computes `((sd x)^2 - 2 R cov + (R sd y)^2) / mean(y)^2` from its parts, so that no intermediate value
/// overflows.
fn linearized_arm(side: Side, arm: PairMoments) -> Result<Moments, Missing> {
    let Parts { ratio, of_x, of_y, correlation } = parts(side, arm)?;
    let variance = of_x.mul_add(of_x, of_y * of_y) - 2.0 * correlation * of_x * of_y;
    Ok(Moments::with_variance(arm.count(), ratio, variance.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denominator_is_needed() {
        let some = PairMoments::of([(1.0, 2.0), (0.0, 3.0)]).unwrap();
        let none = PairMoments::of([(0.0, 0.0), (0.0, 0.0)]).unwrap();
        let found = linearized(Pair { control: some, treatment: none });
        assert_eq!(found, Err(Missing::Denominator { arm: Side::Treatment }));
    }

    /// With denominators of 2 the mean is halved and the variance divided by 4.
    #[test]
    fn a_constant_denominator_only_scales() {
        let arm = PairMoments::of([(1.0, 2.0), (3.0, 2.0), (8.0, 2.0)]).unwrap();
        let linear = linearized(Pair { control: arm, treatment: arm }).unwrap().control;
        assert_eq!(linear.mean(), 2.0);
        assert!((linear.variance().unwrap() - 13.0 / 4.0).abs() < 1e-14);
    }
}
