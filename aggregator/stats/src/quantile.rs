//! Quantile metrics, such as the median or the 95th percentile of latency. A database sorts the values; from
//! three of its quantiles this module computes the estimate and the standard error of an arm, and the
//! difference of two arms.
//!
//! The three quantiles are those at the level itself and at the two levels between which it is with known
//! probability ([`levels`]). They give Woodruff's interval, which is converted to a standard error.

use crate::{
    Alpha, Alternative, Arm, Effect, Interval, Invalid, Missing, Pair, Side,
    bayes::BetaPrior,
    distributions::normal_sf,
    terms::{between_0_and_1, finite, positive},
};

/// The level of Woodruff's interval, whatever level the test uses.
const WOODRUFF_ALPHA: Alpha = Alpha::FIVE_PERCENT;

/// The number of units that must be expected beyond a quantile on either side. With fewer, the normal
/// approximation of their number is poor, and there is no result.
pub const MIN_BEYOND: f64 = 10.0;

/// The level of a quantile, strictly between 0 and 1; 0.5 is the median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level(f64);

impl Level {
    /// The median: half of the values are below.
    pub const MEDIAN: Level = Level(0.5);

    /// Strictly between 0 and 1.
    pub fn new(level: f64) -> Result<Level, Invalid> {
        between_0_and_1("quantile", level).map(Level)
    }

    /// The share of the values below, between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The three levels of an arm's quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// From 0 to `level`.
    pub lower: f64,
    /// The wanted level.
    pub level: f64,
    /// From `level` to 1.
    pub upper: f64,
}

/// Returns the levels for a 95 % interval of the quantile: `q +- 1.96 se(share below the quantile)`, within 0
/// to 1. Woodruff (1952), JASA 47(260). If each unit has one value, the share's standard error is
/// [`share_error`]; where values are not the assigned units (requests of users), it is that of the ratio
/// "values below the quantile / values" by [`crate::ratio`] (Liu, Sun, Varshney & Xu 2019, arXiv 1903.08762).
pub fn levels(level: Level, share_error: f64) -> Result<Levels, Invalid> {
    let reach = positive("standard error of the share", share_error)?
        * Alternative::TwoSided.critical_z(WOODRUFF_ALPHA);
    Ok(Levels { lower: (level.0 - reach).max(0.0), level: level.0, upper: (level.0 + reach).min(1.0) })
}

/// The standard error of the share of `units` independent values below the quantile: `sqrt(q (1 - q) / n)`.
/// Returns [`Missing::Units`] while fewer than [`MIN_BEYOND`] are expected on either side.
pub fn share_error(side: Side, level: Level, units: u64) -> Result<f64, Missing> {
    let tail = level.0.min(1.0 - level.0);
    // 1 - 0.9 is below 0.1 by a rounding, which must not require one unit more. The cast saturates at u64::MAX.
    let need = (MIN_BEYOND / tail * (1.0 - 1e-12)).ceil() as u64;
    if units < need {
        return Err(Missing::Units { arm: side, have: units, need });
    }
    Ok((level.0 * (1.0 - level.0) / units as f64).sqrt())
}

/// The rank, from 1 to `count` >= 1, of the smallest value that at least the share `level` of `count` values
/// does not exceed: `level * count` rounded up (type 1 of Hyndman & Fan 1996).
///
/// A level means the decimal that people write: 0.55 of 100 values is the 55th, although the nearest double
/// and the rounding of the product make it slightly more. Both errors together, also those of a level
/// computed as `1 - q`, are below `count * 2^-52`, and a product that close to a whole number is rounded to
/// it. A level of d decimals whose product is not a whole number is at least 10^-d away from one, which is
/// more than that for 10^9 values and six decimals.
pub fn rank(level: f64, count: usize) -> usize {
    let product = level * count as f64;
    let whole = product.round();
    let rank = if (product - whole).abs() <= count as f64 * f64::EPSILON { whole } else { product.ceil() };
    (rank as usize).clamp(1, count)
}

/// One arm's quantiles at [`Levels`], in the metric's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmQuantile {
    lower: f64,
    estimate: f64,
    upper: f64,
}

impl ArmQuantile {
    /// Accepts finite quantiles in ascending order, ties included.
    pub fn new(lower: f64, estimate: f64, upper: f64) -> Result<ArmQuantile, Invalid> {
        for value in [lower, estimate, upper] {
            finite("quantile of the values", value)?;
        }
        if !(lower <= estimate && estimate <= upper) {
            let range = "between those at the lower and the upper level";
            return Err(Invalid::OutOfRange { what: "quantile of the values", value: estimate, range });
        }
        Ok(ArmQuantile { lower, estimate, upper })
    }

    /// Computes the quantiles from all values of the arm, in ascending order and at least one: the smallest
    /// value that at least the share `level` does not exceed (type 1 of Hyndman & Fan 1996), and the same at
    /// both other levels.
    pub fn of_sorted(values: &[f64], levels: Levels) -> Result<ArmQuantile, Invalid> {
        if values.is_empty() {
            return Err(Invalid::TooFew { what: "values", have: 0, need: 1 });
        }
        let at = |level: f64| values[rank(level, values.len()) - 1];
        ArmQuantile::new(at(levels.lower), at(levels.level), at(levels.upper))
    }

    /// Does the same with distinct values in ascending order, each with the number of its units, at least one in all.
    pub fn of_counts(values: &[(f64, u64)], levels: Levels) -> Result<ArmQuantile, Invalid> {
        let all: u64 = values.iter().map(|(_, units)| units).sum();
        let Some(&(largest, _)) = values.last().filter(|_| all > 0) else {
            return Err(Invalid::TooFew { what: "values", have: 0, need: 1 });
        };
        let at = |level: f64| {
            // The cast is exact: there are fewer than 2^53 units.
            let rank = rank(level, all as usize) as u64;
            let mut passed = 0;
            let found = values.iter().find(|(_, units)| {
                passed += units;
                passed >= rank
            });
            found.map_or(largest, |(value, _)| *value)
        };
        ArmQuantile::new(at(levels.lower), at(levels.level), at(levels.upper))
    }

    /// The quantile, in the metric's unit.
    pub fn estimate(self) -> f64 {
        self.estimate
    }

    /// Woodruff's 95 % interval of this arm's quantile.
    pub fn interval(self) -> Interval {
        Interval { lower: self.lower, upper: self.upper }
    }

    /// Half the width of Woodruff's interval divided by 1.96. It estimates `sqrt(q (1 - q) / n) / f` with the
    /// density f at the quantile (Francisco & Fuller 1991, Annals of Statistics 19(1)). It is coarse where
    /// values are rounded, and 0 where all three quantiles are equal, although the next unit may change the
    /// quantile.
    pub fn standard_error(self) -> f64 {
        (self.upper - self.lower) / (2.0 * Alternative::TwoSided.critical_z(WOODRUFF_ALPHA))
    }
}

/// A normal test of equal quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileTest {
    /// Treatment minus control, for use in [`crate::confidence_sequence`] or, as `z`, in
    /// [`crate::group_sequential`].
    pub effect: Effect,
    /// The estimate divided by the standard error.
    pub z: f64,
    /// From 0 to 1, by `alternative`.
    pub p_value: f64,
    /// The alternative of the test.
    pub alternative: Alternative,
}

/// Tests the difference of the arms' quantiles with the errors of both, by a normal z. It is valid once both
/// arms have a few hundred values beyond the quantile's rarer side; for smooth distributions the level is
/// kept within half a point from [`MIN_BEYOND`] on (see the tests).
///
/// With repeated looks it rejects a little too often: the standard error is computed from few order
/// statistics, and is not accurate enough in the far tails of early bounds. A boundary of 28 looks up to
/// 1,000 units an arm rejects in 6.0 % for exponential medians and in 5.8 % for 90th percentiles instead of 5
/// %, and up to 8,000 units in 5.7 and 5.6 % (each within 0.3); the confidence sequence rejects in 3.3 %
/// (`splitstream calibrate`).
///
/// Returns [`Missing::Variation`] when in both arms the three quantiles are equal.
pub fn compare(arms: Pair<ArmQuantile>, alternative: Alternative) -> Result<QuantileTest, Missing> {
    let errors = arms.map(ArmQuantile::standard_error);
    let standard_error = errors.control.hypot(errors.treatment);
    if standard_error == 0.0 {
        return Err(Missing::Variation);
    }
    let effect = Effect { estimate: arms.treatment.estimate - arms.control.estimate, standard_error };
    let z = effect.estimate / standard_error;
    Ok(QuantileTest { effect, z, p_value: alternative.p_value(z, normal_sf), alternative })
}

impl QuantileTest {
    /// The differences that the test would not reject at `alpha`.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        self.alternative.of_interval(self.effect.interval(self.alternative.critical_z(alpha)))
    }
}

/// Returns the ranks (from 1, the smallest value) between whose values the true quantile is with probability
/// at least 1 - alpha, whatever the distribution: the narrowest such pair with at most alpha/2 on each side.
/// `None` when there are too few units for both ends. Conover (1999), Practical Nonparametric Statistics,
/// 3.2; exact for distributions without ties, conservative with them.
pub fn exact_ranks(units: u64, level: Level, alpha: Alpha) -> Option<(u64, u64)> {
    let tail = alpha.get() / 2.0;
    // The quantile is below the r-th smallest value when fewer than r values are below it.
    let below_rank = |rank: u64| binomial_below(rank, units, level.0);
    // The largest r with P(fewer than r) <= tail.
    let lower = last_true(units, |rank| below_rank(rank) <= tail)?;
    // The smallest s with P(at least s) <= tail, that is P(fewer than s) >= 1 - tail.
    let upper = last_true(units, |rank| below_rank(rank) < 1.0 - tail).map_or(1, |rank| rank + 1);
    (lower >= 1 && upper <= units).then_some((lower, upper))
}

/// Returns the largest rank from 1 to `most` for which `holds` is true; it must change from true to false at
/// most once.
fn last_true(most: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if most == 0 || !holds(1) {
        return None;
    }
    let (mut yes, mut no) = (1, most + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle) { yes = middle } else { no = middle }
    }
    Some(yes)
}

/// P(fewer than `count` of `units` events happen), each with probability `p`: the r-th smallest of n uniforms
/// is Beta(r, n - r + 1).
fn binomial_below(count: u64, units: u64, p: f64) -> f64 {
    if count > units {
        return 1.0;
    }
    let (a, b) = (count as f64, (units - count + 1) as f64);
    BetaPrior::new(a, b).expect("ranks are positive").after(Arm::default()).sf(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn of_values(mut values: Vec<f64>, level: Level) -> ArmQuantile {
        values.sort_by(f64::total_cmp);
        let error = share_error(Side::Control, level, values.len() as u64).unwrap();
        let levels = levels(level, error).unwrap();
        ArmQuantile::of_sorted(&values, levels).unwrap()
    }

    #[test]
    fn counted_values_have_the_quantiles_of_the_single_ones() {
        let counted = [(1.0, 7), (2.0, 1), (5.0, 40), (6.0, 2), (9.0, 50)];
        let single: Vec<f64> =
            counted.iter().flat_map(|(value, units)| vec![*value; *units as usize]).collect();
        for q in [0.05, 0.08, 0.09, 0.5, 0.51, 0.99] {
            let levels = Levels { lower: q - 0.02, level: q, upper: (q + 0.3f64).min(1.0) };
            assert_eq!(ArmQuantile::of_counts(&counted, levels), ArmQuantile::of_sorted(&single, levels));
        }
        assert!(ArmQuantile::of_counts(&[], Levels { lower: 0.1, level: 0.5, upper: 0.9 }).is_err());
    }

    /// First method: the asymptotic error `sqrt(q (1 - q) / n) / f(x_q)` in closed form, on values that are
    /// exactly exponential quantiles (density 1 - q at the quantile q). Ranks are whole numbers: at 0.99 one
    /// of the 390 between the two ends is a fourth of a per cent.
    #[test]
    fn the_standard_error_is_that_of_the_density() {
        let n = 1_000_000;
        let values: Vec<f64> = (0..n).map(|i| -(-(i as f64 + 0.5) / n as f64).ln_1p()).collect();
        for q in [0.5, 0.9, 0.99] {
            let arm = of_values(values.clone(), Level::new(q).unwrap());
            let closed_form = (q * (1.0 - q) / n as f64).sqrt() / (1.0 - q);
            assert!((arm.estimate() + (1.0 - q).ln()).abs() < 1e-3, "{q}: {arm:?}");
            assert!((arm.standard_error() / closed_form - 1.0).abs() < 3e-3, "{q}: {arm:?} {closed_form}");
        }
    }

    /// Second method: simulation of two exponential arms with equal scale. The test rejects in 5 %, and the
    /// interval covers 0 otherwise; with 4,000 runs three standard errors are 1.1 points.
    #[test]
    fn the_level_holds_in_simulation() {
        const SEED: u64 = 11;
        const RUNS: u32 = 4_000;
        println!("seed {SEED}");
        let mut random = Random::new(SEED);
        for (q, units) in [(0.5, 200), (0.9, 400)] {
            let level = Level::new(q).unwrap();
            let mut rejected = 0;
            for _ in 0..RUNS {
                let mut arm = || of_values((0..units).map(|_| random.exponential()).collect(), level);
                let arms = Pair { control: arm(), treatment: arm() };
                let test = compare(arms, Alternative::TwoSided).unwrap();
                if test.p_value <= 0.05 {
                    rejected += 1;
                }
                assert_eq!(test.p_value <= 0.05, !test.interval(Alpha::FIVE_PERCENT).contains(0.0));
            }
            let share = f64::from(rejected) / f64::from(RUNS);
            assert!((share - 0.05).abs() < 0.011, "{q}: {share}");
        }
    }

    /// The sign test's ranks for the median (Conover, table A3): the 2nd and the 9th of 10 values, the 6th
    /// and the 15th of 20; 5 values are too few for 95 %.
    #[test]
    fn ranks_for_the_median_are_the_printed_ones() {
        let ranks = |units| exact_ranks(units, Level::MEDIAN, Alpha::FIVE_PERCENT);
        assert_eq!(ranks(5), None);
        assert_eq!(ranks(6), Some((1, 6)));
        assert_eq!(ranks(10), Some((2, 9)));
        assert_eq!(ranks(20), Some((6, 15)));
        // scipy 1.17.1, binom.cdf
        assert_eq!(ranks(1_000_000), Some((499_020, 500_981)));
        let tail = Level::new(0.99).unwrap();
        assert_eq!(exact_ranks(400_000, tail, Alpha::FIVE_PERCENT), Some((395_876, 396_124)));
    }

    /// The ranks agree with the sum of binomial probabilities, term by term.
    #[test]
    fn ranks_cover_by_the_plain_binomial_sum() {
        let (n, q) = (120_u64, 0.9_f64);
        let (lower, upper) = exact_ranks(n, Level::new(q).unwrap(), Alpha::FIVE_PERCENT).unwrap();
        let mut term = (1.0 - q).powi(n as i32);
        let (mut below_lower, mut below_upper) = (0.0, 0.0);
        for k in 0..n {
            if k < lower {
                below_lower += term;
            }
            if k < upper {
                below_upper += term;
            }
            term *= (n - k) as f64 / (k + 1) as f64 * q / (1.0 - q);
        }
        assert!(below_lower <= 0.025 && 1.0 - below_upper <= 0.025, "{lower} {upper}");
        assert!(below_upper - below_lower >= 0.95 && below_upper - below_lower < 0.98, "{lower} {upper}");
    }

    /// The rank of every whole per cent of up to a thousand values is that of integer arithmetic; plain
    /// doubles give one too high for 55 of 100.
    #[test]
    fn ranks_are_those_of_the_decimal() {
        for count in 1..=1_000_usize {
            for percent in 1..100_usize {
                let exact = (count * percent).div_ceil(100);
                let level = percent as f64 / 100.0;
                assert_eq!(rank(level, count), exact, "{level} of {count}");
                // The mirrored level, as a lower cap computes it.
                assert_eq!(
                    rank(1.0 - level, count),
                    (count * (100 - percent)).div_ceil(100),
                    "1 - {level} of {count}"
                );
            }
        }
        assert_eq!(rank(0.999, 1_000_000_000), 999_000_000);
        assert_eq!(rank(0.999_001, 1_000_000_000), 999_001_000);
        assert_eq!(rank(0.550_000_1, 1_000), 551);
        assert_eq!((rank(1e-300, 5), rank(1.0, 5)), (1, 5));
    }

    #[test]
    fn too_few_units_beyond_the_quantile_are_missing() {
        let level = Level::new(0.99).unwrap();
        let missing = Missing::Units { arm: Side::Treatment, have: 999, need: 1_000 };
        assert_eq!(share_error(Side::Treatment, level, 999), Err(missing));
        assert!(share_error(Side::Treatment, level, 1_000).is_ok());
    }

    #[test]
    fn quantiles_must_be_in_order_and_vary() {
        assert!(ArmQuantile::new(2.0, 1.0, 3.0).is_err());
        assert!(ArmQuantile::new(0.0, f64::NAN, 3.0).is_err());
        let same = ArmQuantile::new(1.0, 1.0, 1.0).unwrap();
        let arms = Pair { control: same, treatment: same };
        assert_eq!(compare(arms, Alternative::TwoSided), Err(Missing::Variation));
    }
}
