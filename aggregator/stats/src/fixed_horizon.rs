//! Compares two arms once, at the planned end: everything that the platform shows beside a test that holds at every
//! look. None of this is valid under repeated looks; see [`crate::confidence_sequence`].

use crate::{
    Alpha, Alternative, Arm, Interval, Lift, Missing, Moments, Pair, lift,
    proportion_interval::{self, Score},
    two_proportion::{ZTest, fisher_exact, pooled_z, rates, smallest_expected_cell},
    welch::{self, Welch},
};

/// Below this expected count in any of the four cells the platform's p-value is Fisher's exact
/// one (Cochran's rule, 1954, Biometrics 10(4)).
pub const SMALL_EXPECTED_CELL: f64 = 5.0;

/// Everything the platform shows about two rates after a fixed-horizon experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateComparison {
    /// The rate of each arm, from 0 to 1.
    pub rates: Pair<f64>,
    /// The pooled z-test, also where `p_value` is Fisher's.
    pub pooled: ZTest,
    /// Two-sided, from 0 to 1.
    pub p_value: f64,
    /// The test of `p_value`.
    pub test: RateTest,
    /// Mee's score interval for the difference.
    pub interval: Interval,
    /// The relative lift with its interval, or the reason why there is none.
    pub lift: Result<Lift, Missing>,
}

/// The test that the p-value of a [`RateComparison`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateTest {
    /// [`pooled_z`].
    PooledZ,
    /// [`fisher_exact`].
    FisherExact,
}

/// Pooled z (Fisher when an expected cell is below [`SMALL_EXPECTED_CELL`]), Mee's interval and
/// the relative lift, all two-sided. Fails only when an arm has no units. Fisher's p-value is the
/// more cautious one: it may stay above alpha where the interval excludes 0.
pub fn compare_rates(arms: Pair<Arm>, alpha: Alpha) -> Result<RateComparison, Missing> {
    let pooled = pooled_z(arms, Alternative::TwoSided)?;
    let small = smallest_expected_cell(arms) < SMALL_EXPECTED_CELL;
    let (test, p_value) = if small {
        (RateTest::FisherExact, fisher_exact(arms, Alternative::TwoSided)?)
    } else {
        (RateTest::PooledZ, pooled.p_value)
    };
    Ok(RateComparison {
        rates: rates(arms)?,
        pooled,
        p_value,
        test,
        interval: proportion_interval::score(arms, alpha, Alternative::TwoSided, Score::Mee)?,
        lift: lift::of_rates(arms, alpha),
    })
}

/// Everything the platform shows about two means after a fixed-horizon experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanComparison {
    /// The mean of each arm, in the metric's unit.
    pub means: Pair<f64>,
    /// The two-sided test.
    pub test: Welch,
    /// The interval of the difference, in the metric's unit.
    pub interval: Interval,
    /// The relative lift with its interval, or the reason why there is none.
    pub lift: Result<Lift, Missing>,
}

/// Welch's test, its interval and the relative lift, all two-sided.
pub fn compare_means(moments: Pair<Moments>, alpha: Alpha) -> Result<MeanComparison, Missing> {
    let test = welch::test(moments, Alternative::TwoSided)?;
    Ok(MeanComparison {
        means: moments.map(Moments::mean),
        test,
        interval: test.interval(alpha),
        lift: lift::of_means(moments, alpha),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counts, Side};

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    fn moments(control: &[f64], treatment: &[f64]) -> Pair<Moments> {
        Pair { control, treatment }.map(|values| Moments::of(values.iter().copied()).unwrap())
    }

    #[test]
    fn an_arm_without_units_is_named() {
        let found = compare_rates(arms((0, 0), (1, 2)), Alpha::FIVE_PERCENT);
        let missing = Missing::Units { arm: Side::Control, have: 0, need: 1 };
        assert_eq!(found, Err(missing));
    }

    /// 4.5 conversions of 9 units are expected in each arm: below 5 the exact test is used.
    #[test]
    fn small_cells_are_tested_exactly() {
        let small = compare_rates(arms((3, 90), (6, 90)), Alpha::FIVE_PERCENT).unwrap();
        assert_eq!(small.test, RateTest::FisherExact);
        let large = compare_rates(arms((3, 90), (7, 90)), Alpha::FIVE_PERCENT).unwrap();
        assert_eq!(large.test, RateTest::PooledZ);
    }

    #[test]
    fn an_arm_without_variance_is_named() {
        let found = compare_means(moments(&[1.0, 2.0], &[1.0]), Alpha::FIVE_PERCENT);
        let missing = Missing::Units { arm: Side::Treatment, have: 1, need: 2 };
        assert_eq!(found, Err(missing));
        let found = compare_means(moments(&[1.0, 1.0], &[2.0, 2.0]), Alpha::FIVE_PERCENT);
        assert_eq!(found, Err(Missing::Variation));
    }
}
