//! Looks with any bounds on the z scale: the probability to cross under a true
//! effect, the cost in sample size, and the classical and the uncorrected boundaries.

use super::brownian::Survivors;
use crate::{Alpha, Alternative, Invalid, Power, distributions::normal_quantile};

/// The smallest step between two looks that both have bounds, as a share of the planned
/// information. The integration grid grows with its inverse square root.
pub(super) const SMALLEST_STEP: f64 = 1e-4;

/// The largest drift that is searched.
const DRIFT_MAX: f64 = 1e9;

/// The shape of a classical boundary, up to the constant c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `c / sqrt(t)` (O'Brien & Fleming 1979, Biometrics 35(3)).
    OBrienFleming,
    /// `c` (Pocock 1977, Biometrika 64(2)).
    Pocock,
}

/// The probability of the first crossing at one look, per side.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Crossing {
    /// On the side of the alternative (up when two-sided).
    pub toward: f64,
    /// On the other side; 0 when one-sided.
    pub away: f64,
}

/// The cost and the saving of a sequence of looks, relative to one test at the end with the same power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The largest information.
    pub inflation: f64,
    /// Expected information under the effect for which the power was planned.
    pub expected_if_effect: f64,
    /// Expected information when there is no effect.
    pub expected_if_none: f64,
}

/// Looks at rising shares of the information, with their bounds.
#[derive(Clone, Debug)]
pub struct Looks {
    alternative: Alternative,
    passages: Vec<Passage>,
}

/// One look, with the paths that reach it.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) fraction: f64,
    /// In the direction of the alternative; infinite where the look has no bound.
    pub(super) critical: f64,
    /// The survivors of the last look before that had a bound.
    pub(super) from: Survivors,
}

impl Looks {
    pub(super) fn none(alternative: Alternative) -> Looks {
        Looks { alternative, passages: Vec::new() }
    }

    /// Looks with given bounds, for instance 1.96 at every look to compute the effect of peeking.
    pub fn with_bounds(
        fractions: &[f64],
        criticals: &[f64],
        alternative: Alternative,
    ) -> Result<Looks, Invalid> {
        if fractions.len() != criticals.len() {
            let (left, right) = (fractions.len(), criticals.len());
            return Err(Invalid::Lengths { what: "fractions and bounds", left, right });
        }
        let mut looks = Looks::none(alternative);
        for (&fraction, &critical) in fractions.iter().zip(criticals) {
            let last = looks.passages.last().map_or(0.0, |passage| passage.fraction);
            if !(fraction >= last + SMALLEST_STEP && fraction.is_finite()) {
                let range = "0.0001 or more above the one before";
                let what = "information fraction";
                return Err(Invalid::OutOfRange { what, value: fraction, range });
            }
            if critical.is_nan() || (alternative == Alternative::TwoSided && critical <= 0.0) {
                let range = "above 0 when two-sided, and a number";
                return Err(Invalid::OutOfRange { what: "bound", value: critical, range });
            }
            let from = looks.survivors_for(fraction);
            looks.push(Passage { fraction, critical, from });
        }
        Ok(looks)
    }

    /// The classical boundary of a family with overall level `alpha`; its constant is accurate to 1e-12.
    /// Alpha must be at least 1e-12, whose bounds the grid of the recursion still reaches.
    pub fn classical(
        family: Family,
        fractions: &[f64],
        alpha: Alpha,
        alternative: Alternative,
    ) -> Result<Looks, Invalid> {
        let Some(&end) = fractions.last() else {
            return Err(Invalid::TooFew { what: "looks", have: 0, need: 1 });
        };
        const SMALLEST_ALPHA: f64 = 1e-12;
        if alpha.get() < SMALLEST_ALPHA {
            return Err(Invalid::OutOfRange { what: "alpha", value: alpha.get(), range: "at least 1e-12" });
        }
        let with_constant = |constant: f64| {
            let bound = |&t: &f64| match family {
                Family::OBrienFleming => constant / (t / end).sqrt(),
                Family::Pocock => constant,
            };
            let criticals: Vec<f64> = fractions.iter().map(bound).collect();
            Looks::with_bounds(fractions, &criticals, alternative)
        };
        // The constant is between the bound of a single look and Bonferroni's, which no family exceeds at the
        // end.
        let tail = alternative.tail(alpha);
        let mut low = -normal_quantile(tail);
        let mut high = -normal_quantile(tail / fractions.len() as f64);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if with_constant(middle)?.crossing_probability(0.0) > alpha.get() {
                low = middle;
            } else {
                high = middle;
            }
        }
        with_constant(high)
    }

    /// The bounds, one per look.
    pub fn criticals(&self) -> Vec<f64> {
        self.passages.iter().map(|passage| passage.critical).collect()
    }

    /// Returns the crossing probability of each look when Z has mean `drift sqrt(t)` in the direction of
    /// the alternative; drift 0 is the null.
    pub fn crossing(&self, drift: f64) -> Vec<Crossing> {
        let of = |passage: &Passage| {
            if passage.critical.is_infinite() {
                return Crossing::default();
            }
            let time = passage.fraction;
            let level = passage.critical * time.sqrt();
            Crossing {
                toward: passage.from.above(time, level, drift).probability,
                away: match self.alternative {
                    Alternative::TwoSided => passage.from.below(time, -level, drift).probability,
                    Alternative::Greater | Alternative::Less => 0.0,
                },
            }
        };
        self.passages.iter().map(of).collect()
    }

    /// Returns the probability to cross at any look: the type I error at drift 0, else the power, including a
    /// rejection on the wrong side.
    pub fn crossing_probability(&self, drift: f64) -> f64 {
        self.crossing(drift).iter().map(|look| look.toward + look.away).sum::<f64>().min(1.0)
    }

    /// Returns the cost of these looks for a test of level `alpha` with this power, relative to one look whose
    /// information is `((z_{1-a/2} + z_power) / effect)^2`. Jennison & Turnbull (2000), chapter 2.
    ///
    /// Infinite where no effect reaches the power: a tiny alpha leaves no bound. The power must be above alpha.
    pub fn cost(&self, alpha: Alpha, power: Power) -> Cost {
        let fixed = self.alternative.critical_z(alpha) + normal_quantile(power.get());
        let (mut low, mut high) = (0.0, 2.0 * fixed.abs() + 1.0);
        // It may be that only early looks have bounds, with hardly any information.
        while self.crossing_probability(high) < power.get() {
            high *= 2.0;
            if high > DRIFT_MAX {
                let infinite = f64::INFINITY;
                return Cost {
                    inflation: infinite,
                    expected_if_effect: infinite,
                    expected_if_none: infinite,
                };
            }
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.crossing_probability(middle) < power.get() {
                low = middle;
            } else {
                high = middle;
            }
        }
        let end = self.passages.last().map_or(1.0, |passage| passage.fraction);
        let per_information = (high / fixed).powi(2);
        Cost {
            inflation: end * per_information,
            expected_if_effect: self.expected_fraction(high) * per_information,
            expected_if_none: self.expected_fraction(0.0) * per_information,
        }
    }

    /// The mean share of information at the end. Paths that never cross end at the last look.
    fn expected_fraction(&self, drift: f64) -> f64 {
        let (mut expected, mut remaining) = (0.0, 1.0);
        let mut fraction = 0.0;
        for (passage, look) in self.passages.iter().zip(self.crossing(drift)) {
            // All remaining paths collect the information from the last look to this one.
            expected += remaining * (passage.fraction - fraction);
            remaining -= look.toward + look.away;
            fraction = passage.fraction;
        }
        expected
    }

    pub(super) fn alternative(&self) -> Alternative {
        self.alternative
    }

    pub(super) fn passages(&self) -> &[Passage] {
        &self.passages
    }

    pub(super) fn push(&mut self, passage: Passage) {
        self.passages.push(passage);
    }

    /// The survivors of the last look that had a bound, on a grid fine enough to step to `fraction`.
    pub(super) fn survivors_for(&self, fraction: f64) -> Survivors {
        let bounded = self.passages.iter().rfind(|passage| passage.critical.is_finite());
        let Some(Passage { fraction: time, critical, from }) = bounded else {
            return Survivors::start();
        };
        let upper = critical * time.sqrt();
        let lower = match self.alternative {
            Alternative::TwoSided => -upper,
            Alternative::Greater | Alternative::Less => f64::NEG_INFINITY,
        };
        from.inside(*time, lower, upper, fraction.max(time + SMALLEST_STEP))
    }
}
