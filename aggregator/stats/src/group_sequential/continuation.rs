//! Tests past the planned maximum. The boundary has spent its alpha there, and continuing with any other test
//! at the full level would reject too often (5.6 % under the null for a confidence sequence up to four times
//! the maximum). So a part of alpha, reserved from the start, is spent on an always-valid test beyond.

use super::{Bound, Boundary, Design, Stage};
use crate::{
    Alpha, Effect, Interval, Invalid,
    confidence_sequence::{self, Mixing},
    terms::{between_0_and_1, positive},
};

/// The share of alpha that is reserved for looks past the planned maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reserve(f64);

impl Reserve {
    /// A fifth: of 5 %, 4 % is for the boundary and 1 % for the looks after it.
    pub const FIFTH: Reserve = Reserve(0.2);

    /// Strictly between 0 and 1.
    pub fn new(share: f64) -> Result<Reserve, Invalid> {
        between_0_and_1("reserved share of alpha", share).map(Reserve)
    }

    /// The share of alpha, between 0 and 1.
    pub fn share(self) -> f64 {
        self.0
    }
}

/// The test that gives a look its interval and its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The boundary: the interval is the repeated confidence interval.
    Boundary,
    /// Past the maximum, with the reserved part of alpha: the interval is that of a confidence sequence.
    Continuation,
    /// Past the maximum with nothing reserved: the estimate continues, but nothing can be decided.
    Spent,
}

/// One look, before or past the maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Monitored {
    /// Infinite past the maximum.
    pub bound: Bound,
    /// The test that `rejects` and `interval` come from.
    pub basis: Basis,
    /// Whether the test of `basis` rejects.
    pub rejects: bool,
    /// In the metric's unit; the whole line where nothing is known. All intervals of an experiment, on either
    /// basis, are valid at once with probability 1 - alpha of the whole plan.
    pub interval: Interval,
}

/// A boundary up to the planned maximum, and beyond it an always-valid test with the reserved alpha.
///
/// The probability ever to reject without an effect is at most alpha: the boundary rejects with at most
/// `alpha (1 - reserve)`, the confidence sequence, however long it runs, with at most `alpha reserve`
/// (Bonferroni's inequality; the two are far from exclusive, so the sum is an upper bound).
#[derive(Clone, Debug)]
pub struct Continued {
    boundary: Boundary,
    beyond: Option<confidence_sequence::Design>,
}

impl Continued {
    /// `design.alpha` is that of the whole plan, including the reserve. The confidence sequence is narrowest at
    /// `planned_units`, counted over both arms.
    pub fn new(design: Design, reserve: Option<Reserve>, planned_units: u64) -> Result<Continued, Invalid> {
        let Some(reserve) = reserve else {
            return Ok(Continued { boundary: Boundary::new(design), beyond: None });
        };
        let units = positive("planned units", planned_units as f64)?;
        let kept = Alpha::new(design.alpha.get() * reserve.share())?;
        let spendable = Alpha::new(design.alpha.get() * (1.0 - reserve.share()))?;
        let mixing = Mixing::TunedForUnits(units);
        let beyond = confidence_sequence::Design::new(kept, design.alternative, mixing)?;
        let boundary = Boundary::new(Design { alpha: spendable, ..design });
        Ok(Continued { boundary, beyond: Some(beyond) })
    }

    /// Adds a look at this share of the planned information, from `units` of both arms; as [`Boundary::look`]
    /// up to the planned maximum. The effect's standard error must be the test's (pooled for rates).
    pub fn look(&mut self, fraction: f64, effect: Effect, units: u64) -> Result<Monitored, Invalid> {
        let bound = self.boundary.look(fraction)?;
        Ok(self.monitored(bound, effect, units))
    }

    /// Adds the last planned look, whatever its share; see [`Boundary::final_look`].
    pub fn final_look(&mut self, fraction: f64, effect: Effect, units: u64) -> Result<Monitored, Invalid> {
        let bound = self.boundary.final_look(fraction)?;
        Ok(self.monitored(bound, effect, units))
    }

    /// The boundary alone, with its part of alpha: for the bounds so far, and estimates after stopping at one.
    pub fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    /// The test past the maximum, with the reserved alpha; `None` without a reserve.
    pub fn beyond(&self) -> Option<&confidence_sequence::Design> {
        self.beyond.as_ref()
    }

    /// Returns the result of look `index` (from 0) for this effect; [`Continued::look`] has computed its bound.
    ///
    /// # Panics
    /// When there was no such look.
    pub fn at(&self, index: usize, effect: Effect, units: u64) -> Monitored {
        self.monitored(self.boundary.bounds()[index], effect, units)
    }

    fn monitored(&self, bound: Bound, effect: Effect, units: u64) -> Monitored {
        if bound.stage != Stage::Past {
            let rejects =
                effect.standard_error > 0.0 && bound.rejects(effect.estimate / effect.standard_error);
            let interval = if effect.standard_error > 0.0 {
                bound.repeated_interval(effect)
            } else {
                Interval::EVERYTHING
            };
            return Monitored { bound, basis: Basis::Boundary, rejects, interval };
        }
        let Some(beyond) = &self.beyond else {
            return Monitored { bound, basis: Basis::Spent, rejects: false, interval: Interval::EVERYTHING };
        };
        let look = beyond.look(effect, units);
        let rejects = look.p_value <= beyond.alpha().get();
        Monitored { bound, basis: Basis::Continuation, rejects, interval: look.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Alternative,
        group_sequential::{Looks, Spending},
    };

    const PLANNED: u64 = 20_000;
    const LOOKS: usize = 14;

    fn design() -> Design {
        Design {
            alpha: Alpha::FIVE_PERCENT,
            alternative: Alternative::TwoSided,
            spending: Spending::OBrienFleming,
        }
    }

    /// Daily looks up to four times the maximum, each with the |z| from which it rejects.
    fn criticals(boundary: Design, beyond: &confidence_sequence::Design) -> (Vec<f64>, Vec<f64>) {
        let mut bounds = Boundary::new(boundary);
        let (mut fractions, mut criticals) = (Vec::new(), Vec::new());
        for k in 1..=4 * LOOKS {
            let fraction = k as f64 / LOOKS as f64;
            fractions.push(fraction);
            criticals.push(if k <= LOOKS {
                bounds.look(fraction).unwrap().critical
            } else {
                // The half width in standard errors.
                let units = (fraction * PLANNED as f64) as u64;
                beyond.look(Effect { estimate: 0.0, standard_error: 1.0 }, units).interval.upper
            });
        }
        (fractions, criticals)
    }

    fn type_1(boundary: Design, beyond: &confidence_sequence::Design) -> f64 {
        let (fractions, criticals) = criticals(boundary, beyond);
        let looks = Looks::with_bounds(&fractions, &criticals, Alternative::TwoSided).unwrap();
        looks.crossing_probability(0.0)
    }

    /// The exact level for a normal process: 14 looks up to the maximum and 42 beyond it.
    #[test]
    fn a_reserve_keeps_the_level_and_a_full_second_test_does_not() {
        let continued = Continued::new(design(), Some(Reserve::FIFTH), PLANNED).unwrap();
        let kept = type_1(continued.boundary().design(), continued.beyond().unwrap());
        assert!(kept < 0.05 && kept > 0.04, "{kept}");
        let mixing = Mixing::TunedForUnits(PLANNED as f64);
        let full =
            confidence_sequence::Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, mixing).unwrap();
        let twice = type_1(design(), &full);
        assert!((twice - 0.056).abs() < 0.001, "{twice}");
    }

    #[test]
    fn the_basis_changes_past_the_maximum() {
        let effect = Effect { estimate: 5.0, standard_error: 1.0 };
        let look = |continued: &mut Continued, fraction: f64| {
            continued.look(fraction, effect, (fraction * PLANNED as f64) as u64).unwrap()
        };
        let mut without = Continued::new(design(), None, PLANNED).unwrap();
        assert_eq!(look(&mut without, 1.0).basis, Basis::Boundary);
        let past = look(&mut without, 1.5);
        assert_eq!((past.basis, past.rejects, past.interval), (Basis::Spent, false, Interval::EVERYTHING));

        let mut with = Continued::new(design(), Some(Reserve::FIFTH), PLANNED).unwrap();
        assert_eq!(look(&mut with, 1.0).basis, Basis::Boundary);
        let past = look(&mut with, 1.5);
        assert_eq!((past.basis, past.rejects), (Basis::Continuation, true));
        assert!(!past.interval.contains(0.0));
        assert!((with.boundary().design().alpha.get() - 0.04).abs() < 1e-15);
    }

    #[test]
    fn a_look_without_variation_has_no_result() {
        let nothing = Effect { estimate: 0.0, standard_error: 0.0 };
        let mut continued = Continued::new(design(), Some(Reserve::FIFTH), PLANNED).unwrap();
        for fraction in [0.5, 1.0, 1.5] {
            let look = continued.look(fraction, nothing, 100).unwrap();
            assert_eq!((look.rejects, look.interval), (false, Interval::EVERYTHING));
        }
    }

    #[test]
    fn a_reserve_is_strictly_between_0_and_1() {
        assert!(Reserve::new(0.0).is_err() && Reserve::new(1.0).is_err() && Reserve::new(f64::NAN).is_err());
        assert!(Continued::new(design(), Some(Reserve::FIFTH), 0).is_err());
    }
}
