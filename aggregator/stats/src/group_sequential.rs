//! Interim looks at an experiment with a planned number of units, at which it may be stopped: the boundary
//! spends alpha as information arrives. The times of the looks need not be planned, but must not
//! depend on the effect seen. This is the platform's method wherever a horizon is planned.
//!
//! Z must be normal with independent increments: the pooled z of rates, or Welch's t converted to z,
//! also after winsorizing with a fixed cap or CUPED. Two-sided boundaries are symmetric.

mod brownian;
mod continuation;
mod count_boundary;
mod futility;
mod looks;
mod spending;
mod stagewise;

pub use continuation::{Basis, Continued, Monitored, Reserve};
pub use count_boundary::{CountBound, CountBoundary, PhaseTotal};
pub use futility::{Futility, FutilityBounds, FutilityPlan};
pub use looks::{Cost, Crossing, Family, Looks};
pub use spending::Spending;
pub use stagewise::Stagewise;

use brownian::Survivors;
use looks::{Passage, SMALLEST_STEP};

use crate::{
    Alpha, Alternative, Effect, Interval, Invalid, Pair,
    distributions::{normal_quantile, normal_sf},
};

/// A look at which less than this may be spent on one side gets no bound: only a z of at least
/// 7.6 standard deviations could reach it. The unspent alpha goes to the next look, also where a
/// look follows the last one by less than 0.0001 of the planned information.
const NEGLIGIBLE_SPENDING: f64 = 1e-14;

/// The plan of the analysis, fixed before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// The level over all looks together, of both sides when two-sided.
    pub alpha: Alpha,
    /// Whether the boundary has one side or two.
    pub alternative: Alternative,
    /// How much of alpha may be spent by which share of the information.
    pub spending: Spending,
}

impl Design {
    fn alpha_of_a_side(&self) -> f64 {
        self.alternative.tail(self.alpha)
    }

    fn sides(&self) -> f64 {
        match self.alternative {
            Alternative::TwoSided => 2.0,
            Alternative::Greater | Alternative::Less => 1.0,
        }
    }
}

/// The position of a look in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// More looks may follow.
    Interim,
    /// The look that spent all remaining alpha.
    Final,
    /// After the final look: estimates continue, but no decision can be made any more.
    Past,
}

/// The bound of one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The share of the planned information, above 1 when overrun.
    pub fraction: f64,
    /// Whether more looks may follow.
    pub stage: Stage,
    /// The test rejects when z reaches this (|z| when two-sided, -z for [`Alternative::Less`]). Infinite where
    /// there is nothing to spend: too early, too close to the last look, or past the end.
    pub critical: f64,
    /// Alpha spent up to and including this look, of both sides when two-sided. Alpha that a look was
    /// too early to use is counted here and goes to the next look.
    pub alpha_spent: f64,
    alternative: Alternative,
}

impl Bound {
    /// The p-value that a single test would need to reject at this look; 0 for an infinite bound.
    pub fn nominal_p(&self) -> f64 {
        let sides = if self.alternative == Alternative::TwoSided { 2.0 } else { 1.0 };
        sides * normal_sf(self.critical)
    }

    /// Returns whether this z reaches the bound; never true for an infinite bound.
    pub fn rejects(&self, z: f64) -> bool {
        match self.alternative {
            Alternative::TwoSided => z.abs() >= self.critical,
            Alternative::Greater => z >= self.critical,
            Alternative::Less => -z >= self.critical,
        }
    }

    /// Estimate plus and minus `critical` standard errors: all such intervals are valid at once
    /// (Jennison & Turnbull 1989, JRSS B 51(3)). It is wider than needed after stopping, see
    /// [`Looks::stagewise`]; the whole line where the bound is infinite.
    pub fn repeated_interval(&self, effect: Effect) -> Interval {
        if self.critical.is_infinite() {
            return Interval::EVERYTHING;
        }
        self.alternative.of_interval(effect.interval(self.critical))
    }
}

/// The boundary of the looks so far. Each look adds its bound; earlier bounds never change.
#[derive(Clone, Debug)]
pub struct Boundary {
    design: Design,
    bounds: Vec<Bound>,
    looks: Looks,
    /// The alpha spent on one side by looks that had a bound.
    used: f64,
}

impl Boundary {
    /// The boundary before the first look.
    pub fn new(design: Design) -> Boundary {
        let looks = Looks::none(design.alternative);
        Boundary { design, bounds: Vec::new(), looks, used: 0.0 }
    }

    /// The boundary of looks that are known in advance, the last of which is final.
    pub fn planned(design: Design, fractions: &[f64]) -> Result<Boundary, Invalid> {
        let mut boundary = Boundary::new(design);
        for (i, &fraction) in fractions.iter().enumerate() {
            if i + 1 == fractions.len() {
                boundary.final_look(fraction)?;
            } else {
                boundary.look(fraction)?;
            }
        }
        Ok(boundary)
    }

    /// Adds an interim look at this share of the planned information, which must not fall. At 1 and
    /// above the look is final: it spends all remaining alpha, and the true share is kept for the
    /// correlations (overrun).
    pub fn look(&mut self, fraction: f64) -> Result<Bound, Invalid> {
        self.look_as(fraction, fraction >= 1.0, None)
    }

    /// Adds an interim look up to which `alpha_spent` has been spent, of both sides when two-sided, whatever
    /// the spending function gives. It is for a look that was taken at another share, for example because a
    /// phase was left out since. The look is final if `alpha_spent` is all of alpha.
    pub fn look_having_spent(&mut self, fraction: f64, alpha_spent: f64) -> Result<Bound, Invalid> {
        let alpha = self.design.alpha.get();
        if !(alpha_spent >= 0.0 && alpha_spent <= alpha * (1.0 + 1e-12)) {
            return Err(Invalid::OutOfRange {
                what: "alpha spent",
                value: alpha_spent,
                range: "from 0 to alpha",
            });
        }
        let is_final = alpha_spent >= alpha * (1.0 - 1e-12);
        self.look_as(fraction, is_final, Some(alpha_spent / self.design.sides()))
    }

    /// Adds the last look, whatever its share (underrun included): it spends all remaining alpha.
    pub fn final_look(&mut self, fraction: f64) -> Result<Bound, Invalid> {
        self.look_as(fraction, true, None)
    }

    /// The plan, as fixed before the first look.
    pub fn design(&self) -> Design {
        self.design
    }

    /// The bounds of all looks so far.
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds
    }

    /// The same bounds as plain looks, for crossing probabilities, cost and inference after stopping.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    fn look_as(&mut self, fraction: f64, last: bool, spent: Option<f64>) -> Result<Bound, Invalid> {
        let previous = self.bounds.last();
        let lowest = previous.map_or(0.0, |bound| bound.fraction);
        if !(fraction.is_finite() && fraction > 0.0 && fraction >= lowest) {
            let range = "above 0 and not below that of the last look";
            let what = "information fraction";
            return Err(Invalid::OutOfRange { what, value: fraction, range });
        }
        let over = previous.is_some_and(|bound| bound.stage != Stage::Interim);
        let alpha = self.design.alpha_of_a_side();
        let target = match spent {
            _ if last || over => alpha,
            Some(spent) => spent,
            None => self.design.spending.spent(fraction, alpha),
        };
        // Spent alpha stays spent.
        let target = previous.map_or(target, |before| target.max(before.alpha_spent / self.design.sides()));
        let from = self.looks.survivors_for(fraction);
        let increment = target - self.used;
        let step = fraction - from.time();
        let critical = if over || increment < NEGLIGIBLE_SPENDING || step < SMALLEST_STEP {
            f64::INFINITY
        } else {
            self.used = target;
            let guess = previous.map_or(f64::INFINITY, |bound| bound.critical);
            let critical = critical_z(&from, fraction, increment, guess);
            // Two bounds meet at 0, where all that remains of an alpha close to 1 may be spent.
            match self.design.alternative {
                Alternative::TwoSided => critical.max(0.0),
                Alternative::Greater | Alternative::Less => critical,
            }
        };
        let bound = Bound {
            fraction,
            stage: match (over, last) {
                (true, _) => Stage::Past,
                (false, true) => Stage::Final,
                (false, false) => Stage::Interim,
            },
            critical,
            alpha_spent: target * self.design.sides(),
            alternative: self.design.alternative,
        };
        self.bounds.push(bound);
        self.looks.push(Passage { fraction, critical, from });
        Ok(bound)
    }
}

/// Returns the z that survivors exceed at `time` with probability `increment`, starting from a guess.
///
/// Newton's method on the logarithm of the tail. It is concave (Brownian motion preserves
/// log-concavity), so from the second step on the iterates fall to the root without passing
/// it. They are limited by two levels that the root cannot exceed: the bound without earlier looks, and the
/// bound if all survivors were as high as the highest.
fn critical_z(from: &Survivors, time: f64, increment: f64, guess: f64) -> f64 {
    const STEPS: usize = 50;
    // Convergence is quadratic: the step after one this small would be below 1e-11.
    const SMALL: f64 = 1e-6;
    let root_time = time.sqrt();
    let alone = -normal_quantile(increment);
    let highest = from.highest() + alone * (time - from.time()).sqrt();
    let highest = highest.min(alone * root_time);
    let mut level = highest.min(guess * root_time);
    for _ in 0..STEPS {
        let tail = from.above(time, level, 0.0);
        let down = (increment / tail.probability).ln() * tail.probability / tail.density;
        level = highest.min(level - down);
        if down.abs() < SMALL * root_time {
            break;
        }
    }
    level / root_time
}

/// The share of the planned information about a difference that these units carry:
/// `n_c n_t / (n_c + n_t)` divided by the planned value. 0 while an arm is empty.
pub fn information_fraction(units: Pair<u64>, planned: Pair<u64>) -> Result<f64, Invalid> {
    let information = |units: Pair<u64>| {
        let (c, t) = (units.control as f64, units.treatment as f64);
        if c + t == 0.0 { 0.0 } else { c * (t / (c + t)) }
    };
    let plan = information(planned);
    if plan == 0.0 {
        let range = "above 0 in both arms";
        return Err(Invalid::OutOfRange { what: "planned units", value: plan, range });
    }
    Ok(information(units) / plan)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn design(alternative: Alternative) -> Design {
        let spending = Spending::OBrienFleming;
        Design { alpha: Alpha::FIVE_PERCENT, alternative, spending }
    }

    /// After the final look all alpha is spent: no look can reject any more.
    #[test]
    fn a_look_past_the_final_one_has_no_bound() {
        let mut boundary = Boundary::new(design(Alternative::TwoSided));
        assert_eq!(boundary.look(0.5).unwrap().stage, Stage::Interim);
        let last = boundary.look(1.07).unwrap();
        assert_eq!((last.stage, last.alpha_spent), (Stage::Final, 0.05));
        let past = boundary.look(1.3).unwrap();
        assert_eq!((past.stage, past.critical), (Stage::Past, f64::INFINITY));
        assert!(!past.rejects(100.0));
        let effect = Effect { estimate: 1.0, standard_error: 0.1 };
        assert_eq!(past.repeated_interval(effect), Interval::EVERYTHING);
    }

    #[test]
    fn falling_information_is_an_error() {
        let mut boundary = Boundary::new(design(Alternative::TwoSided));
        boundary.look(0.5).unwrap();
        for fraction in [0.4, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(boundary.look(fraction).is_err(), "{fraction}");
        }
        assert_eq!(boundary.bounds().len(), 1);
    }

    /// A repeated look spends nothing and leaves the alpha of the next one unchanged.
    #[test]
    fn looking_twice_at_the_same_data_costs_nothing() {
        let plain = Boundary::planned(design(Alternative::TwoSided), &[0.5, 1.0]).unwrap();
        let twice = Boundary::planned(design(Alternative::TwoSided), &[0.5, 0.5, 0.50005, 1.0]).unwrap();
        assert_eq!(twice.bounds()[1].critical, f64::INFINITY);
        assert_eq!(twice.bounds()[2].critical, f64::INFINITY);
        assert_eq!(twice.bounds()[3].critical, plain.bounds()[1].critical);
    }

    #[test]
    fn the_lower_boundary_mirrors_the_upper_one() {
        let fractions = [0.3, 0.6, 1.0];
        let greater = Boundary::planned(design(Alternative::Greater), &fractions).unwrap();
        let less = Boundary::planned(design(Alternative::Less), &fractions).unwrap();
        let effect = Effect { estimate: 2.3, standard_error: 1.0 };
        let mirrored = Effect { estimate: -2.3, ..effect };
        for k in 0..3 {
            assert_eq!(greater.bounds()[k].critical, less.bounds()[k].critical);
            let of = |boundary: &Boundary, effect| {
                boundary.looks().stagewise(k, effect, Alpha::FIVE_PERCENT).unwrap()
            };
            let (up, down) = (of(&greater, effect), of(&less, mirrored));
            assert_eq!(up.p_value, down.p_value);
            assert_eq!(up.interval.lower, -down.interval.upper);
            assert_eq!(up.median_unbiased, -down.median_unbiased);
        }
        assert!(less.bounds()[2].rejects(-2.3) && !less.bounds()[2].rejects(2.3));
    }

    #[test]
    fn fractions_count_the_information_of_both_arms() {
        let planned = Pair { control: 900, treatment: 100 };
        let of = |control, treatment| information_fraction(Pair { control, treatment }, planned).unwrap();
        assert_eq!(of(900, 100), 1.0);
        assert_eq!(of(450, 50), 0.5);
        assert_eq!(of(0, 50), 0.0);
        assert!(information_fraction(planned, Pair { control: 5, treatment: 0 }).is_err());
    }

    /// The probability to cross at each look, by a simple independent method: Simpson's rule on a
    /// fixed grid of z from bound to bound.
    fn crossing_by_simpson(fractions: &[f64], criticals: &[f64]) -> Vec<f64> {
        const STEPS: usize = 800;
        let grid = |bound: f64| -> Vec<(f64, f64)> {
            let h = 2.0 * bound / STEPS as f64;
            let weight = |i: usize| match i {
                0 | STEPS => h / 3.0,
                i if i % 2 == 1 => 4.0 * h / 3.0,
                _ => 2.0 * h / 3.0,
            };
            (0..=STEPS).map(|i| (-bound + h * i as f64, weight(i))).collect()
        };
        let mut leaving = vec![2.0 * normal_sf(criticals[0])];
        let first = grid(criticals[0]);
        let mut mass: Vec<(f64, f64)> =
            first.iter().map(|&(z, w)| (z, w * crate::distributions::normal_pdf(z))).collect();
        for k in 1..fractions.len() {
            let (before, now) = (fractions[k - 1], fractions[k]);
            let sd = (now - before).sqrt();
            let standardized = |y: f64, x: f64| (y * now.sqrt() - x * before.sqrt()) / sd;
            let above = |(x, m): &(f64, f64)| m * normal_sf(standardized(criticals[k], *x));
            leaving.push(2.0 * mass.iter().map(above).sum::<f64>());
            let density = |y: f64| -> f64 {
                let pdf = crate::distributions::normal_pdf;
                mass.iter().map(|(x, m)| m * pdf(standardized(y, *x))).sum::<f64>()
            };
            let scale = now.sqrt() / sd;
            mass = grid(criticals[k]).iter().map(|&(y, w)| (y, w * scale * density(y))).collect();
        }
        leaving
    }

    /// Bounds at uneven looks spend the right alpha, by a method that shares nothing with theirs.
    #[test]
    fn bounds_agree_with_simpsons_rule() {
        let fractions = [0.3, 0.42, 0.7, 0.75, 1.0];
        let boundary = Boundary::planned(design(Alternative::TwoSided), &fractions).unwrap();
        let criticals = boundary.looks().criticals();
        let mut spent = 0.0;
        for (k, leaving) in crossing_by_simpson(&fractions, &criticals).iter().enumerate() {
            spent += leaving;
            let expected = boundary.bounds()[k].alpha_spent;
            assert!((spent - expected).abs() < 1e-9, "{k}: {spent} {expected}");
        }
    }

    proptest! {
        /// Any looks spend exactly alpha: the crossing probabilities of their bounds add up to it.
        #[test]
        fn any_looks_spend_exactly_alpha(
            steps in prop::collection::vec(0.001f64..1.0, 1..30),
            side in 0..3usize,
            spending in 0..3usize,
        ) {
            let alternative = [Alternative::TwoSided, Alternative::Greater, Alternative::Less][side];
            let spending = [
                Spending::OBrienFleming,
                Spending::Pocock,
                Spending::power(2.0).unwrap(),
            ][spending];
            let total: f64 = steps.iter().sum();
            let mut sum = 0.0;
            let mut fractions: Vec<f64> = steps.iter().map(|step| { sum += step; sum / total }).collect();
            *fractions.last_mut().unwrap() = 1.0;
            prop_assume!(fractions.windows(2).all(|pair| pair[1] - pair[0] >= SMALLEST_STEP));
            let design = Design { spending, ..design(alternative) };
            let boundary = Boundary::planned(design, &fractions).unwrap();
            let level = boundary.looks().crossing_probability(0.0);
            prop_assert!((level - 0.05).abs() < 1e-10, "{}", level);
        }
    }
}
