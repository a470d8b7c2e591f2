//! The sums that every method takes instead of events: counts of an arm, and moments that can be merged.
//! Merging is associative and commutative within rounding, and exact sums stay exact until a single division.

use crate::{
    Invalid, Missing, Side,
    terms::{LARGEST_MAGNITUDE, SMALLEST_MAGNITUDE, finite, measured},
    wide::Wide,
};

/// The units of an arm and the number that converted, not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Exposed units, each counted once.
    pub units: u64,
    /// Units that converted, at most `units`.
    pub conversions: u64,
}

/// The counts of one arm, with at most one conversion a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Arm {
    units: u64,
    conversions: u64,
}

impl Arm {
    /// Refuses more conversions than units.
    pub fn new(Counts { units, conversions }: Counts) -> Result<Arm, Invalid> {
        if conversions > units {
            return Err(Invalid::ConversionsAboveUnits { units, conversions });
        }
        Ok(Arm { units, conversions })
    }

    /// The number of units.
    pub fn units(self) -> u64 {
        self.units
    }

    /// The number of units that converted.
    pub fn conversions(self) -> u64 {
        self.conversions
    }

    /// The share of units that converted; `None` without units.
    pub fn rate(self) -> Option<f64> {
        (self.units > 0).then(|| self.conversions as f64 / self.units as f64)
    }

    /// The variance of the rate as an estimate, `p (1 - p) / n`, accurate also for rates close to 0 or 1;
    /// `None` without units.
    pub fn variance_of_rate(self) -> Option<f64> {
        let (x, n) = (self.conversions as f64, self.units as f64);
        let rest = (self.units - self.conversions) as f64;
        (self.units > 0).then(|| (x / n) * (rest / n) / n)
    }

    /// Adds the counts of two disjoint sets of units; the sums saturate at `u64::MAX`.
    pub fn merge(self, other: Arm) -> Arm {
        Arm {
            units: self.units.saturating_add(other.units),
            conversions: self.conversions.saturating_add(other.conversions),
        }
    }

    /// The rate, or [`Missing::Units`] if the arm has none.
    pub(crate) fn rate_of(self, side: Side) -> Result<f64, Missing> {
        self.rate().ok_or(Missing::Units { arm: side, have: 0, need: 1 })
    }
}

/// Integer sums from a database, where each value is a decimal multiplied by
/// 10^`decimals`. A u128 can hold the squares of 10^9 units of 5.8 * 10^14 each (580 million with
/// six decimals).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactSums {
    /// The number of units; each has one value, which may be 0.
    pub count: u64,
    /// The sum of the values, multiplied by 10^`decimals`.
    pub sum: i128,
    /// The sum of the squared values, multiplied by 10^(2 `decimals`).
    pub sum_of_squares: u128,
    /// The number of decimal places of the integers.
    pub decimals: u32,
}

/// Count, mean and second central moment of one value per unit.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Moments {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Moments {
    /// The moments of no values: the neutral element of [`Moments::merge`].
    pub const EMPTY: Moments = Moments { count: 0, mean: 0.0, m2: 0.0 };

    /// Computes the moments from integer sums. The central moment is `(n * sum of squares - sum^2) / n`, whose
    /// numerator is computed in 256-bit integers: nothing cancels, however large the offset.
    pub fn from_exact(sums: ExactSums) -> Result<Moments, Invalid> {
        if sums.count == 0 {
            return if sums.sum == 0 && sums.sum_of_squares == 0 {
                Ok(Moments::EMPTY)
            } else {
                Err(Invalid::ImpossibleSums { what: "sums of no units" })
            };
        }
        let n = sums.count as f64;
        let scale = 10f64.powi(sums.decimals as i32);
        let numerator = Wide::product(u128::from(sums.count), sums.sum_of_squares)
            .checked_sub(Wide::square(sums.sum))
            .ok_or(Invalid::ImpossibleSums { what: "sum and sum of squares" })?;
        Ok(Moments {
            count: sums.count,
            mean: sums.sum as f64 / n / scale,
            m2: numerator.to_f64() / n / scale / scale,
        })
    }

    /// Computes the moments from floating-point sums of [`measured`] values. About `2 log10(mean / sd)` of
    /// the 16 digits of the variance cancel; prefer [`Moments::from_exact`] or [`Moments::of`] where the data
    /// allow. A variation of at most four units in the last place of the sum of squares, which rounding alone
    /// may produce, is set to 0.
    pub fn from_sums(count: u64, sum: f64, sum_of_squares: f64) -> Result<Moments, Invalid> {
        sums_of_measured(count, sum, sum_of_squares)?;
        if count == 0 {
            return Ok(Moments::EMPTY);
        }
        let mean = sum / count as f64;
        // One rounding less than sum_of_squares - sum * mean.
        let m2 = sum.mul_add(-mean, sum_of_squares);
        if m2 < -8.0 * f64::EPSILON * sum_of_squares {
            return Err(Invalid::ImpossibleSums { what: "sum and sum of squares" });
        }
        let noise = 4.0 * f64::EPSILON * sum_of_squares;
        Ok(Moments { count, mean, m2: if m2 <= noise { 0.0 } else { m2 } })
    }

    /// The moments of a value that is 1 for units that converted and 0 for the others.
    pub fn of_counts(arm: Arm) -> Moments {
        let Some(mean) = arm.rate() else { return Moments::EMPTY };
        let rest = (arm.units - arm.conversions) as f64;
        Moments { count: arm.units, mean, m2: mean * rest }
    }

    /// The moments of a [`measured`] mean and a variance with denominator n - 1, as papers and other tools
    /// print them.
    pub fn from_variance(count: u64, mean: f64, variance: f64) -> Result<Moments, Invalid> {
        measured("mean", mean)?;
        let largest = LARGEST_MAGNITUDE * LARGEST_MAGNITUDE;
        let smallest = SMALLEST_MAGNITUDE * SMALLEST_MAGNITUDE;
        if !(variance == 0.0 || (smallest..=largest).contains(&variance)) {
            let range = "0, or from 1e-200 to 1e200";
            return Err(Invalid::OutOfRange { what: "variance", value: variance, range });
        }
        Ok(Moments::with_variance(count, mean, variance))
    }

    /// The same without checks, for a finite mean and a variance that is at least 0.
    pub(crate) fn with_variance(count: u64, mean: f64, variance: f64) -> Moments {
        Moments { count, mean, m2: variance * count.saturating_sub(1) as f64 }
    }

    /// Computes the moments of the values themselves, each [`measured`]. Welford (1962), Technometrics 4(3):
    /// one pass, no cancellation.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Result<Moments, Invalid> {
        let mut moments = Moments::EMPTY;
        for value in values {
            measured("value", value)?;
            moments.count += 1;
            let delta = value - moments.mean;
            moments.mean += delta / moments.count as f64;
            moments.m2 += delta * (value - moments.mean);
        }
        Ok(moments)
    }

    /// The moments of both sets of units together. Chan, Golub & LeVeque (1983), The American
    /// Statistician 37(3).
    pub fn merge(self, other: Moments) -> Moments {
        if self.count == 0 {
            return other;
        }
        if other.count == 0 {
            return self;
        }
        // Starts from the mean of the larger count: it would otherwise be lost in the rounding of a large
        // mean of few.
        let (most, least) = if self.count < other.count { (other, self) } else { (self, other) };
        let share = least.count as f64 / (most.count as f64 + least.count as f64);
        let delta = least.mean - most.mean;
        Moments {
            count: most.count.saturating_add(least.count),
            mean: most.mean + delta * share,
            m2: most.m2 + least.m2 + delta * delta * most.count as f64 * share,
        }
    }

    /// The moments of the values multiplied by `factor`.
    pub(crate) fn times(self, factor: f64) -> Moments {
        Moments { count: self.count, mean: factor * self.mean, m2: factor * factor * self.m2 }
    }

    /// The number of units.
    pub fn count(self) -> u64 {
        self.count
    }

    /// The mean of the values; 0 without units.
    pub fn mean(self) -> f64 {
        self.mean
    }

    /// The sum of the values.
    pub fn sum(self) -> f64 {
        self.mean * self.count as f64
    }

    /// The variance with denominator n - 1; `None` below two units.
    pub fn variance(self) -> Option<f64> {
        (self.count >= 2).then(|| self.m2 / (self.count - 1) as f64)
    }

    /// The sum of the squared deviations from the mean.
    pub fn sum_of_squared_deviations(self) -> f64 {
        self.m2
    }

    /// The variance, or [`Missing::Units`] below two units.
    pub(crate) fn variance_of(self, side: Side) -> Result<f64, Missing> {
        self.variance().ok_or(Missing::Units { arm: side, have: self.count, need: 2 })
    }
}

/// Integer sums of two values per unit; see [`ExactSums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactPairSums {
    /// The sums of the first value.
    pub x: ExactSums,
    /// The sums of the second value, over the same units.
    pub y: ExactSums,
    /// The sum of x times y, multiplied by 10 to the power of the sum of their decimals.
    pub sum_of_products: i128,
}

/// The moments of two values per unit and their cross moment: the parts of a ratio, or a
/// covariate and an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct PairMoments {
    x: Moments,
    y: Moments,
    /// The sum of the products of the deviations from both means.
    cross: f64,
}

impl PairMoments {
    /// The moments of no units: the neutral element of [`PairMoments::merge`].
    pub const EMPTY: PairMoments = PairMoments { x: Moments::EMPTY, y: Moments::EMPTY, cross: 0.0 };

    /// Computes the moments from integer sums; the cross moment `(n * sum xy - sum x * sum y) / n` does not
    /// cancel.
    pub fn from_exact(sums: ExactPairSums) -> Result<PairMoments, Invalid> {
        let ExactPairSums { x: sx, y: sy, sum_of_products } = sums;
        if sx.count != sy.count {
            return Err(Invalid::ImpossibleSums { what: "sums over different numbers of units" });
        }
        let (x, y) = (Moments::from_exact(sx)?, Moments::from_exact(sy)?);
        if sx.count == 0 {
            return if sum_of_products == 0 {
                Ok(PairMoments::EMPTY)
            } else {
                Err(Invalid::ImpossibleSums { what: "sums of no units" })
            };
        }
        let scale = 10f64.powi(sx.decimals as i32) * 10f64.powi(sy.decimals as i32);
        let numerator = Wide::signed_difference((i128::from(sx.count), sum_of_products), (sx.sum, sy.sum));
        PairMoments { x, y, cross: numerator / sx.count as f64 / scale }.checked()
    }

    /// Computes the moments from floating-point sums of [`measured`] values, with the cancellation that
    /// [`Moments::from_sums`] describes.
    pub fn from_sums(
        count: u64,
        (sum_x, sum_xx): (f64, f64),
        (sum_y, sum_yy): (f64, f64),
        sum_xy: f64,
    ) -> Result<PairMoments, Invalid> {
        finite("sum of products", sum_xy)?;
        let x = Moments::from_sums(count, sum_x, sum_xx)?;
        let y = Moments::from_sums(count, sum_y, sum_yy)?;
        PairMoments { x, y, cross: sum_x.mul_add(-y.mean, sum_xy) }.checked()
    }

    /// Computes the moments of the values themselves, in one pass as [`Moments::of`].
    pub fn of(values: impl IntoIterator<Item = (f64, f64)>) -> Result<PairMoments, Invalid> {
        let mut pair = PairMoments::EMPTY;
        for (x, y) in values {
            let one = PairMoments {
                x: Moments { count: 1, mean: measured("x", x)?, m2: 0.0 },
                y: Moments { count: 1, mean: measured("y", y)?, m2: 0.0 },
                cross: 0.0,
            };
            pair = pair.merge(one);
        }
        Ok(pair)
    }

    /// The moments of both sets of units together; source as [`Moments::merge`].
    pub fn merge(self, other: PairMoments) -> PairMoments {
        let (left, right) = (self.count() as f64, other.count() as f64);
        if left + right == 0.0 {
            return PairMoments::EMPTY;
        }
        let between = (other.x.mean - self.x.mean) * (other.y.mean - self.y.mean);
        let weight = left * (right / (left + right));
        PairMoments {
            x: self.x.merge(other.x),
            y: self.y.merge(other.y),
            cross: self.cross + other.cross + between * weight,
        }
    }

    /// The number of units.
    pub fn count(self) -> u64 {
        self.x.count
    }

    /// The moments of the first value: a numerator, a covariate.
    pub fn x(self) -> Moments {
        self.x
    }

    /// The moments of the second value: a denominator, an outcome.
    pub fn y(self) -> Moments {
        self.y
    }

    /// The covariance with denominator n - 1; `None` below two units.
    pub fn covariance(self) -> Option<f64> {
        (self.count() >= 2).then(|| self.cross / (self.count() - 1) as f64)
    }

    /// Checks the Cauchy-Schwarz inequality, |cross| <= sqrt(m2 x * m2 y); a cross moment that exceeds it by
    /// no more than a rounding is cut to the limit.
    fn checked(self) -> Result<PairMoments, Invalid> {
        let largest = self.x.m2.sqrt() * self.y.m2.sqrt();
        let magnitude = self.count() as f64 * (self.x.mean * self.y.mean).abs();
        if self.cross.abs() <= largest + 1e-9 * (largest + magnitude) {
            Ok(PairMoments { cross: self.cross.clamp(-largest, largest), ..self })
        } else {
            Err(Invalid::ImpossibleSums { what: "sums of squares and products" })
        }
    }
}

/// Checks that [`measured`] values can have these sums: the largest magnitude is between the root of the mean
/// square and the root of the sum of squares.
fn sums_of_measured(count: u64, sum: f64, sum_of_squares: f64) -> Result<(), Invalid> {
    const RANGE: &str =
        "the sum of values that are 0 or of a magnitude from 1e-100 to 1e100 (choose another unit)";
    finite("sum", sum)?;
    finite("sum of squares", sum_of_squares)?;
    if count == 0 {
        let nothing = sum == 0.0 && sum_of_squares == 0.0;
        return if nothing { Ok(()) } else { Err(Invalid::ImpossibleSums { what: "sums of no units" }) };
    }
    if sum != 0.0 && sum.abs() < SMALLEST_MAGNITUDE {
        return Err(Invalid::OutOfRange { what: "sum", value: sum, range: RANGE });
    }
    if sum_of_squares < 0.0 || (sum_of_squares == 0.0 && sum != 0.0) {
        return Err(Invalid::ImpossibleSums { what: "sum and sum of squares" });
    }
    let root = sum_of_squares.sqrt();
    if root != 0.0 && (root < SMALLEST_MAGNITUDE || root / (count as f64).sqrt() > LARGEST_MAGNITUDE) {
        return Err(Invalid::OutOfRange { what: "sum of squares", value: sum_of_squares, range: RANGE });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conversions_cannot_exceed_units() {
        assert!(Arm::new(Counts { units: 3, conversions: 3 }).is_ok());
        assert_eq!(
            Arm::new(Counts { units: 3, conversions: 4 }),
            Err(Invalid::ConversionsAboveUnits { units: 3, conversions: 4 })
        );
    }

    /// 1, 2, 3, 4 shifted by 10^9: variance 5/3, mean 10^9 + 2.5. A double of the sum of squares
    /// holds 4 * 10^18 to within 512, so the shifted variance would be noise there.
    #[test]
    fn integer_sums_keep_the_variance_behind_a_large_offset() {
        let values = [1, 2, 3, 4].map(|v: i128| v + 1_000_000_000);
        let sums = ExactSums {
            count: 4,
            sum: values.iter().sum(),
            sum_of_squares: values.iter().map(|v| (v * v) as u128).sum(),
            decimals: 0,
        };
        let moments = Moments::from_exact(sums).unwrap();
        assert_eq!(moments.variance(), Some(5.0 / 3.0));
        assert_eq!(moments.mean(), 1_000_000_002.5);
    }

    #[test]
    fn decimals_scale_mean_and_variance() {
        let sums = ExactSums { count: 2, sum: 350, sum_of_squares: 72_500, decimals: 2 };
        let moments = Moments::from_exact(sums).unwrap();
        assert_eq!(moments.mean(), 1.75); // 2.50 and 1.00
        assert_eq!(moments.variance(), Some(1.125));
    }

    /// One unit with 10.7 and 2^53 others with 0: the small mean was computed from a rounding of 10.7.
    #[test]
    fn a_merge_with_few_units_keeps_the_mean_of_many() {
        let (one, many) = (Moments::of([10.7]).unwrap(), Moments::with_variance(1 << 53, 0.0, 0.0));
        let expected = 10.7 / ((1_u64 << 53) as f64 + 1.0);
        for merged in [one.merge(many), many.merge(one)] {
            assert!((merged.mean() / expected - 1.0).abs() < 1e-15, "{merged:?}");
            assert!((merged.sum_of_squared_deviations() / (10.7 * 10.7) - 1.0).abs() < 1e-15, "{merged:?}");
        }
    }

    #[test]
    fn impossible_sums_are_refused() {
        let sums = ExactSums { count: 2, sum: 10, sum_of_squares: 49, decimals: 0 };
        assert!(Moments::from_exact(sums).is_err());
        assert!(Moments::from_exact(ExactSums { sum_of_squares: 50, ..sums }).is_ok());
        assert!(Moments::from_exact(ExactSums { count: 0, ..sums }).is_err());
        assert!(Moments::from_sums(2, 10.0, 49.0).is_err());
        assert!(Moments::from_sums(2, f64::NAN, 49.0).is_err());
        assert!(Moments::of([1.0, f64::INFINITY]).is_err());
        let x = ExactSums { count: 2, sum: 1, sum_of_squares: 1, decimals: 0 };
        let pair = ExactPairSums { x, y: x, sum_of_products: 1 };
        assert!(PairMoments::from_exact(pair).is_ok());
        assert!(PairMoments::from_exact(ExactPairSums { sum_of_products: 2, ..pair }).is_err());
    }

    /// Beyond the range a square would be infinite or 0, and so would the variance.
    #[test]
    fn values_whose_squares_cannot_be_summed_are_refused() {
        for value in [1e101, -1e154, 1e300, 1e-101, -1e-300, f64::MIN_POSITIVE / 4.0] {
            assert!(
                matches!(Moments::of([1.0, value]), Err(Invalid::OutOfRange { what: "value", .. })),
                "{value}"
            );
            assert!(PairMoments::of([(1.0, value)]).is_err() && PairMoments::of([(value, 1.0)]).is_err());
            assert!(
                Moments::from_sums(2, value, 1.0).is_err() && Moments::from_variance(2, value, 1.0).is_err()
            );
        }
        for squares in [1e201, 1e-201, -1.0] {
            assert!(Moments::from_sums(1, 0.0, squares).is_err(), "{squares}");
            assert!(Moments::from_variance(3, 0.0, squares).is_err(), "{squares}");
        }
        for value in [1e100, -1e-100, 0.0] {
            let variance = Moments::of([value, 2.0 * value, 0.0]).ok().and_then(Moments::variance);
            assert_eq!(
                variance.is_some_and(|v| v.is_normal()),
                value != 0.0 && value.abs() < 1e100,
                "{value}"
            );
        }
        assert!(Moments::from_sums(0, 1.0, 1.0).is_err() && Moments::from_sums(0, 0.0, 0.0).is_ok());
        assert!(Moments::from_sums(2, 1.0, 0.0).is_err());
    }

    /// Three values of 0.1: the sums are off by a rounding, which is no variation.
    #[test]
    fn rounding_of_the_sums_is_no_variation() {
        let sums = Moments::from_sums(3, 0.1 + 0.1 + 0.1, 0.1 * 0.1 + 0.1 * 0.1 + 0.1 * 0.1).unwrap();
        assert_eq!(sums.variance(), Some(0.0));
        let varied = Moments::from_sums(2, 2.0, 2.0 + 2e-12).unwrap();
        assert!((varied.variance().unwrap() / 2e-12 - 1.0).abs() < 1e-3);
    }

    /// All but one of 2^53 units convert: the variance is that of the one.
    #[test]
    fn counts_keep_the_digits_of_the_rarer_outcome() {
        let units = 1 << 53;
        let arm = Arm::new(Counts { units, conversions: units - 1 }).unwrap();
        let one = 1.0 / units as f64;
        assert!((arm.variance_of_rate().unwrap() / (one * one) - 1.0).abs() < 1e-15);
        assert!((Moments::of_counts(arm).variance().unwrap() / one - 1.0).abs() < 1e-15);
        assert_eq!(Moments::of_counts(Arm::default()), Moments::EMPTY);
        let most = Arm::new(Counts { units: u64::MAX, conversions: 1 }).unwrap();
        assert_eq!(most.merge(most).units(), u64::MAX);
    }

    #[test]
    fn covariance_of_three_pairs() {
        let pair = PairMoments::of([(1.0, 10.0), (2.0, 14.0), (6.0, 18.0)]).unwrap();
        assert_eq!(pair.covariance(), Some(10.0)); // (-2)(-4) + (-1)(0) + (3)(4) = 20, over 2
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-9 * scale
    }

    fn pairs() -> impl Strategy<Value = Vec<(i32, i32)>> {
        prop::collection::vec((-1_000_000..1_000_000, -1_000_000..1_000_000), 0..40)
    }

    fn moments_of(values: &[(i32, i32)]) -> PairMoments {
        PairMoments::of(values.iter().map(|&(x, y)| (f64::from(x), f64::from(y)))).unwrap()
    }

    fn same(a: PairMoments, b: PairMoments) -> bool {
        a.count() == b.count()
            && close(a.x.mean, b.x.mean, 1e6)
            && close(a.x.m2, b.x.m2, 1e14)
            && close(a.y.m2, b.y.m2, 1e14)
            && close(a.cross, b.cross, 1e14)
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(a in pairs(), b in pairs(), c in pairs()) {
            let (ma, mb, mc) = (moments_of(&a), moments_of(&b), moments_of(&c));
            prop_assert!(same(ma.merge(mb), mb.merge(ma)));
            prop_assert!(same(ma.merge(mb).merge(mc), ma.merge(mb.merge(mc))));
            let whole = moments_of(&[a, b, c].concat());
            prop_assert!(same(ma.merge(mb).merge(mc), whole));
        }

        #[test]
        fn exact_sums_equal_the_values_moments(values in pairs()) {
            let exact = |f: fn(&(i32, i32)) -> i32| ExactSums {
                count: values.len() as u64,
                sum: values.iter().map(|v| i128::from(f(v))).sum(),
                sum_of_squares: values.iter().map(|v| (i128::from(f(v)).pow(2)) as u128).sum(),
                decimals: 0,
            };
            let sum_of_products = values.iter().map(|&(x, y)| i128::from(x) * i128::from(y)).sum();
            let pair = ExactPairSums { x: exact(|v| v.0), y: exact(|v| v.1), sum_of_products };
            prop_assert!(same(PairMoments::from_exact(pair).unwrap(), moments_of(&values)));
        }
    }
}
