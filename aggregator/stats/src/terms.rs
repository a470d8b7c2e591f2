//! The types that every method uses: a pair of arms, a significance level, the alternative,
//! an interval, an estimated effect. The constructors check each number once.

use std::fmt;

use crate::{Invalid, distributions::normal_quantile};

/// One of the two compared arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The arm with the existing behaviour.
    Control,
    /// The arm with the new behaviour.
    Treatment,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Control => "control",
            Side::Treatment => "treatment",
        })
    }
}

/// A value for each arm, which must not be exchanged. Every effect is treatment minus control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pair<T> {
    /// The value of the control.
    pub control: T,
    /// The value of the treatment.
    pub treatment: T,
}

impl<T> Pair<T> {
    /// Applies `f` to both, control first.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Pair<U> {
        Pair { control: f(self.control), treatment: f(self.treatment) }
    }

    /// Applies `f` to each arm and the same arm of `other`, control first.
    pub fn with<U, V>(self, other: Pair<U>, mut f: impl FnMut(T, U) -> V) -> Pair<V> {
        Pair { control: f(self.control, other.control), treatment: f(self.treatment, other.treatment) }
    }

    /// Applies `f` to both, control first, and stops at the first error.
    pub fn try_map<U, E>(self, mut f: impl FnMut(Side, T) -> Result<U, E>) -> Result<Pair<U>, E> {
        Ok(Pair { control: f(Side::Control, self.control)?, treatment: f(Side::Treatment, self.treatment)? })
    }
}

/// A significance level, strictly between 0 and 1. It is the whole level, two-sided unless an
/// [`Alternative`] is one-sided.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// 0.05, the platform's level.
    pub const FIVE_PERCENT: Alpha = Alpha(0.05);

    /// Accepts values strictly between 0 and 1 and at least 2.3e-308, the smallest number with full precision.
    pub fn new(value: f64) -> Result<Alpha, Invalid> {
        if value > 0.0 && value < f64::MIN_POSITIVE {
            return Err(Invalid::OutOfRange { what: "alpha", value, range: "at least 2.3e-308" });
        }
        between_0_and_1("alpha", value).map(Alpha)
    }

    /// Between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// `self / parts`: a Bonferroni share, or one of two tails. `parts` is at least 1.
    pub fn divided_by(self, parts: u32) -> Alpha {
        Alpha(self.0 / f64::from(parts.max(1)))
    }
}

/// The probability of finding the effect that was planned for: strictly between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Power(f64);

impl Power {
    /// 0.8, the platform's power.
    pub const EIGHTY_PERCENT: Power = Power(0.8);

    /// Strictly between 0 and 1.
    pub fn new(value: f64) -> Result<Power, Invalid> {
        between_0_and_1("power", value).map(Power)
    }

    /// Between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Returns `value` if it is strictly between 0 and 1.
pub(crate) fn between_0_and_1(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        Err(Invalid::OutOfRange { what, value, range: "strictly between 0 and 1" })
    }
}

/// Returns `value` if it is finite and above 0.
pub(crate) fn positive(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(Invalid::OutOfRange { what, value, range: "finite and above 0" })
    }
}

/// Returns `value` if it is neither infinite nor NaN.
pub(crate) fn finite(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value.is_finite() { Ok(value) } else { Err(Invalid::NotFinite { what, value }) }
}

/// The largest magnitude of a value in a metric's unit, see [`measured`].
pub(crate) const LARGEST_MAGNITUDE: f64 = 1e100;

/// The smallest magnitude other than 0.
pub(crate) const SMALLEST_MAGNITUDE: f64 = 1e-100;

/// Returns `value` if it is 0 or of a magnitude from 1e-100 to 1e100. Squares of such values, of their
/// differences, and the sums of 2^64 squares are all within a double's range: computations with them neither
/// overflow nor underflow. A metric outside this range has to be measured in a larger or a smaller unit.
pub fn measured(what: &'static str, value: f64) -> Result<f64, Invalid> {
    finite(what, value)?;
    if value == 0.0 || (SMALLEST_MAGNITUDE..=LARGEST_MAGNITUDE).contains(&value.abs()) {
        return Ok(value);
    }
    Err(Invalid::OutOfRange {
        what,
        value,
        range: "0, or of a magnitude from 1e-100 to 1e100 (choose another unit)",
    })
}

/// The alternative hypothesis of a test, against the null hypothesis of no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Alternative {
    /// The treatment differs from the control.
    #[default]
    TwoSided,
    /// The treatment is above the control.
    Greater,
    /// The treatment is below the control.
    Less,
}

impl Alternative {
    /// The share of alpha in one tail: half of it when two-sided, otherwise all.
    pub fn tail(self, alpha: Alpha) -> f64 {
        match self {
            Alternative::TwoSided => alpha.get() / 2.0,
            Alternative::Greater | Alternative::Less => alpha.get(),
        }
    }

    /// The normal quantile beyond which the test rejects, above 0 for alpha < 1.
    pub fn critical_z(self, alpha: Alpha) -> f64 {
        -normal_quantile(self.tail(alpha))
    }

    /// The p-value of a statistic symmetric about 0 with upper tail `sf`. Two-sided tails are
    /// doubled from `sf(|x|)`, never taken as `1 - cdf`, so that small p-values keep their digits.
    pub fn p_value(self, statistic: f64, sf: impl Fn(f64) -> f64) -> f64 {
        match self {
            Alternative::TwoSided => (2.0 * sf(statistic.abs())).min(1.0),
            Alternative::Greater => sf(statistic),
            Alternative::Less => sf(-statistic),
        }
    }

    /// Keeps the end of a two-sided interval that this alternative bounds, and makes the other infinite.
    pub fn of_interval(self, both: Interval) -> Interval {
        match self {
            Alternative::TwoSided => both,
            Alternative::Greater => Interval { upper: f64::INFINITY, ..both },
            Alternative::Less => Interval { lower: f64::NEG_INFINITY, ..both },
        }
    }
}

/// All values from `lower` to `upper`. The ends may be infinite, but are never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// At most `upper`; minus infinity where it is open.
    pub lower: f64,
    /// Infinite where it is open.
    pub upper: f64,
}

impl Interval {
    /// From minus infinity to infinity: nothing is known.
    pub const EVERYTHING: Interval = Interval { lower: f64::NEG_INFINITY, upper: f64::INFINITY };

    /// `center - half_width` to `center + half_width`.
    pub fn around(center: f64, half_width: f64) -> Interval {
        Interval { lower: center - half_width, upper: center + half_width }
    }

    /// Returns whether `value` is inside or at an end.
    pub fn contains(self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }

    /// Both ends moved by `by`.
    pub fn shifted(self, by: f64) -> Interval {
        Interval { lower: self.lower + by, upper: self.upper + by }
    }
}

/// An estimated difference and its standard error, in the metric's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Treatment minus control.
    pub estimate: f64,
    /// At least 0; 0 where nothing varies.
    pub standard_error: f64,
}

impl Effect {
    /// Estimate plus and minus `critical` standard errors.
    pub fn interval(self, critical: f64) -> Interval {
        Interval::around(self.estimate, critical * self.standard_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_strictly_between_0_and_1() {
        assert_eq!(Alpha::new(0.05), Ok(Alpha::FIVE_PERCENT));
        for value in [0.0, 1.0, -0.1, 1.1, f64::INFINITY] {
            assert!(matches!(Alpha::new(value), Err(Invalid::OutOfRange { what: "alpha", .. })), "{value}");
        }
        assert!(Alpha::new(f64::NAN).is_err());
    }

    #[test]
    fn one_sided_intervals_are_infinite_on_the_other_side() {
        let both = Interval { lower: 1.0, upper: 2.0 };
        assert_eq!(Alternative::Greater.of_interval(both), Interval { lower: 1.0, upper: f64::INFINITY });
        assert_eq!(Alternative::Less.of_interval(both), Interval { lower: f64::NEG_INFINITY, upper: 2.0 });
    }
}
