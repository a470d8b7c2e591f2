//! Metrics that are a ratio of two sums per unit, such as clicks per view, when whole units were
//! assigned: the delta method turns them into means, and everything for means applies.

use crate::{Missing, Moments, Pair, PairMoments, Side};

/// Both arms as moments of the linearised values: mean `R = sum x / sum y`, variance
/// `[var x - 2 R cov + R^2 var y] / mean(y)^2`. Feed them to [`crate::welch`], [`crate::lift`] or
/// [`crate::confidence_sequence`]. Deng, Knoblich & Lu (2018), KDD; GrowthBook
/// `RatioStatistic`.
///
/// Units without denominator stay in: nothing divides by a unit's own denominator. Neither test
/// x/y per unit (another quantity) nor per view (ignores that a unit's views resemble each other).
/// Good once the mean denominator is many standard errors from 0.
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

fn linearized_arm(side: Side, arm: PairMoments) -> Result<Moments, Missing> {
    let (x, y) = (arm.x(), arm.y());
    let (var_x, var_y) = (x.variance_of(side)?, y.variance_of(side)?);
    let covariance = arm.covariance().unwrap_or(0.0);
    let ratio = of_sums(side, arm)?;
    let variance = var_x - 2.0 * ratio * covariance + ratio * ratio * var_y;
    let variance = variance.max(0.0) / (y.mean() * y.mean());
    Ok(Moments::with_variance(arm.count(), ratio, variance))
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

    /// Denominators of 2 throughout: half the mean, a quarter of the variance.
    #[test]
    fn a_constant_denominator_only_scales() {
        let arm = PairMoments::of([(1.0, 2.0), (3.0, 2.0), (8.0, 2.0)]).unwrap();
        let linear = linearized(Pair { control: arm, treatment: arm }).unwrap().control;
        assert_eq!(linear.mean(), 2.0);
        assert!((linear.variance().unwrap() - 13.0 / 4.0).abs() < 1e-14);
    }
}
