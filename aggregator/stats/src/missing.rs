//! The reasons why there is no result. [`Missing`] means that the data do not contain the answer (yet);
//! [`Invalid`] means that the input contradicts itself or its bounds and must be corrected.

use std::fmt;

use crate::{Pair, Side};

/// The data do not contain the answer. Each variant names what is lacking, so that nobody reads "p = 1" where
/// nothing was tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Missing {
    /// The arm has fewer units than the method needs. More traffic resolves it.
    Units {
        /// The arm that lacks it.
        arm: Side,
        /// The available number.
        have: u64,
        /// The required number.
        need: u64,
    },
    /// The arm has fewer conversions than the method needs. More traffic resolves it.
    Conversions {
        /// The arm that lacks it.
        arm: Side,
        /// The available number.
        have: u64,
        /// The required number.
        need: u64,
    },
    /// The arm has fewer units that did not convert than the method needs, where they are the rarer ones.
    /// More traffic resolves it, unless all units convert.
    Unconverted {
        /// The arm that lacks it.
        arm: Side,
        /// The available number.
        have: u64,
        /// The required number.
        need: u64,
    },
    /// No arm shows any variation, so no standard error exists.
    Variation,
    /// The control mean is not above 0, so a relative lift has no meaning.
    PositiveBaseline {
        /// In the metric's unit, at most 0.
        control_mean: f64,
    },
    /// The treatment mean is not above 0, so its logarithm does not exist.
    PositiveTreatment {
        /// In the metric's unit, at most 0.
        treatment_mean: f64,
    },
    /// The denominators of a ratio metric sum to 0 in this arm.
    Denominator {
        /// The arm.
        arm: Side,
    },
    /// The control mean is too uncertain: the interval of the ratio has no finite ends.
    BoundedRatio,
    /// Too few units over all arms for the approximation: the smallest expected count of an arm is too small.
    ExpectedCount {
        /// Units expected in the smallest arm.
        smallest: f64,
        /// The required number.
        need: f64,
    },
    /// The arm has fewer clusters with units than the method needs.
    Clusters {
        /// The arm that lacks it.
        arm: Side,
        /// The available number.
        have: usize,
        /// The required number.
        need: usize,
    },
    /// A cell of two crossed experiments has fewer units than the method needs; variants count
    /// from 0, the controls.
    Cell {
        /// Variant of the first experiment.
        a: usize,
        /// Variant of the second experiment.
        b: usize,
        /// The available number.
        have: u64,
        /// The required number.
        need: u64,
    },
    /// One of many arms has no units; `index` counts from 0, which is the control.
    EmptyArm {
        /// The index of the arm.
        index: usize,
    },
}

/// A [`Missing`] to be printed, with the names of the two arms.
struct Sentence<'a> {
    missing: Missing,
    arms: Pair<&'a str>,
}

impl Sentence<'_> {
    fn arm(&self, side: Side) -> &str {
        match side {
            Side::Control => self.arms.control,
            Side::Treatment => self.arms.treatment,
        }
    }
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missing {
            Missing::Units { arm, have, need } => {
                write!(f, "{} has {have} unit{}, {need} are needed", self.arm(arm), plural(have))
            }
            Missing::Conversions { arm, have, need } => {
                write!(f, "{} has {have} conversion{}, {need} are needed", self.arm(arm), plural(have))
            }
            Missing::Unconverted { arm, have, need } => {
                write!(
                    f,
                    "{} has {have} unit{} that did not convert, {need} are needed",
                    self.arm(arm),
                    plural(have)
                )
            }
            Missing::Variation => f.write_str("no variation in either arm"),
            Missing::PositiveBaseline { control_mean } => {
                write!(f, "the control mean is {}, a lift needs one above 0", Short(control_mean))
            }
            Missing::PositiveTreatment { treatment_mean } => {
                write!(f, "the treatment mean is {}, its logarithm needs one above 0", Short(treatment_mean))
            }
            Missing::Denominator { arm } => write!(f, "the denominators of {} sum to 0", self.arm(arm)),
            Missing::BoundedRatio => {
                f.write_str("the control mean is too uncertain to bound the relative lift")
            }
            Missing::ExpectedCount { smallest, need } => {
                write!(f, "an arm is expected to have {smallest:.1} units, {need} are needed")
            }
            Missing::Clusters { arm, have, need } => {
                write!(f, "{} has {have} cluster{}, {need} are needed", self.arm(arm), plural(have as u64))
            }
            Missing::Cell { a, b, have, need } => {
                write!(f, "variants {a} and {b} together have {have} unit{}, {need} are needed", plural(have))
            }
            Missing::EmptyArm { index } => write!(f, "arm {index} has no units"),
        }
    }
}

fn plural(number: u64) -> &'static str {
    if number == 1 { "" } else { "s" }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arms = Pair { control: "the control arm", treatment: "the treatment arm" };
        Sentence { missing: *self, arms }.fmt(f)
    }
}

impl Missing {
    /// Returns the sentence with these names for the two arms, instead of "the control arm" and "the
    /// treatment arm".
    pub fn sentence(self, arms: Pair<&str>) -> String {
        Sentence { missing: self, arms }.to_string()
    }
}

impl std::error::Error for Missing {}

/// A number in a sentence; printed with an exponent where it would otherwise have many zeros.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Short(value) = *self;
        if value == 0.0 || !value.is_finite() || (1e-7..1e16).contains(&value.abs()) {
            write!(f, "{value}")
        } else {
            write!(f, "{value:e}")
        }
    }
}

/// The input cannot be right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Invalid {
    /// More units converted than there are.
    ConversionsAboveUnits {
        /// The given value.
        units: u64,
        /// The given conversions, above `units`.
        conversions: u64,
    },
    /// A value outside its bounds (NaN included).
    OutOfRange {
        /// The name of the input, for messages.
        what: &'static str,
        /// The given value.
        value: f64,
        /// The allowed range, for messages.
        range: &'static str,
    },
    /// An infinite value or NaN among the data.
    NotFinite {
        /// The name of the input, for messages.
        what: &'static str,
        /// The given value.
        value: f64,
    },
    /// The sums cannot come from real values: n times the sum of squares is below the square of
    /// the sum, or the covariance exceeds what the variances allow.
    ImpossibleSums {
        /// The name of the input, for messages.
        what: &'static str,
    },
    /// Two lists that belong together differ in length.
    Lengths {
        /// The name of the input, for messages.
        what: &'static str,
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// A list has fewer entries than the method needs.
    TooFew {
        /// The name of the input, for messages.
        what: &'static str,
        /// The available number.
        have: usize,
        /// The required number.
        need: usize,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::ConversionsAboveUnits { units, conversions } => {
                write!(f, "{conversions} conversions cannot come from {units} units")
            }
            Invalid::OutOfRange { what, value, range } => {
                write!(f, "{what} is {}, it must be {range}", Short(*value))
            }
            Invalid::NotFinite { what, value } => write!(f, "{what} is {}, not a number", Short(*value)),
            Invalid::ImpossibleSums { what } => {
                write!(f, "the {what} cannot be the sums of any values")
            }
            Invalid::Lengths { what, left, right } => {
                write!(f, "{what} differ in length: {left} and {right}")
            }
            Invalid::TooFew { what, have, need } => {
                write!(f, "{have} {what} given, at least {need} are needed")
            }
        }
    }
}

impl std::error::Error for Invalid {}

impl Invalid {
    /// The name of the input, for messages.
    pub fn what(&self) -> &'static str {
        match *self {
            Invalid::ConversionsAboveUnits { .. } => "conversions",
            Invalid::OutOfRange { what, .. }
            | Invalid::NotFinite { what, .. }
            | Invalid::ImpossibleSums { what }
            | Invalid::Lengths { what, .. }
            | Invalid::TooFew { what, .. } => what,
        }
    }
}

/// Either kind of failure, for functions that take lists which they have to check themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoAnswer {
    /// The data do not contain the answer.
    Missing(Missing),
    /// The input cannot be right.
    Invalid(Invalid),
}

impl From<Missing> for NoAnswer {
    fn from(missing: Missing) -> NoAnswer {
        NoAnswer::Missing(missing)
    }
}

impl From<Invalid> for NoAnswer {
    fn from(invalid: Invalid) -> NoAnswer {
        NoAnswer::Invalid(invalid)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Missing(missing) => missing.fmt(f),
            NoAnswer::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for NoAnswer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_by_the_caller() {
        let missing = Missing::Units { arm: Side::Treatment, have: 3, need: 10 };
        assert_eq!(missing.to_string(), "the treatment arm has 3 units, 10 are needed");
        let arms = Pair { control: "`a`", treatment: "`the control arm`" };
        assert_eq!(missing.sentence(arms), "`the control arm` has 3 units, 10 are needed");
        assert_eq!(
            Missing::Denominator { arm: Side::Control }.sentence(arms),
            "the denominators of `a` sum to 0"
        );
    }

    /// 10^154 written out fills two lines.
    #[test]
    fn numbers_in_sentences_are_short() {
        let message = |value| Invalid::NotFinite { what: "it", value }.to_string();
        assert_eq!(message(5.0), "it is 5, not a number");
        assert_eq!(message(1e154), "it is 1e154, not a number");
        assert_eq!(message(-2.5e-300), "it is -2.5e-300, not a number");
        assert_eq!(message(f64::NAN), "it is NaN, not a number");
    }
}
