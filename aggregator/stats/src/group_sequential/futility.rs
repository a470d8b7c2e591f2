//! Futility bounds: a look below its bound means that the planned effect is unlikely to be found any more.
//! They are non-binding: the boundary that rejects is computed as if they did not exist, so an experiment that
//! continues in spite of one keeps the level of the test, and loses nothing but time.
//!
//! They spend beta (1 - power) under the planned effect, as the boundary spends alpha under no effect:
//! Pampallona, Tsiatis & Kim (2001), Drug Information Journal 35(4); non-binding as in Anderson (gsDesign,
//! test type 4).

use super::{
    NEGLIGIBLE_SPENDING, Spending,
    brownian::Survivors,
    looks::{Looks, SMALLEST_STEP},
};
use crate::{Alpha, Alternative, Invalid, Power, distributions::normal_quantile, terms::positive};

/// How beta is spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Futility {
    /// The power of the boundary and the futility bounds together: 1 - beta.
    pub power: Power,
    /// How much of beta may be spent by which share of the information.
    pub spending: Spending,
}

/// A boundary with futility bounds that together have the wanted power.
#[derive(Clone, Debug, PartialEq)]
pub struct FutilityPlan {
    /// The mean of z at the planned information (fraction 1) under the planned effect.
    pub drift: f64,
    /// The largest information, relative to one test at the end with the same power.
    pub inflation: f64,
    /// One z a look, in the direction of the alternative; the last is the boundary's own.
    pub bounds: Vec<f64>,
}

/// Futility bounds for a given drift.
#[derive(Clone, Debug, PartialEq)]
pub struct FutilityBounds {
    /// One z a look, in the direction of the alternative.
    pub bounds: Vec<f64>,
    /// The probability under the drift that no look is below its bound, so that the test rejects; two-sided,
    /// a rejection on the wrong side counts as a loss. Between 0 and 1.
    pub power: f64,
}

impl Looks {
    /// Returns the z at or below which each look is futile, in the direction of the alternative, when the
    /// planned effect gives z the mean `drift` > 0 at fraction 1. The bound is minus infinity where nothing
    /// may be spent yet; it is the bound of rejection itself from fraction 1 on, where the test ends, and
    /// wherever beta allows that.
    ///
    /// Two-sided, a look is futile when neither z nor -z is above the bound; the probability to stop for
    /// futility under the planned effect is then below beta, by the probability that z is below minus the
    /// bound.
    pub fn futility(&self, futility: Futility, drift: f64) -> Result<FutilityBounds, Invalid> {
        let drift = positive("drift", drift)?;
        let Bounded { bounds, lost } = self.with_futility(futility, drift);
        Ok(FutilityBounds { bounds, power: (1.0 - lost).clamp(0.0, 1.0) })
    }

    /// Returns the plan in which the last look, as the final one, spends exactly the remaining beta: its
    /// drift makes the last futility bound equal to the bound of rejection. `alpha` is the boundary's; the
    /// power must be above it.
    ///
    /// Drift and inflation are infinite where no effect reaches the power: a tiny alpha leaves no bound.
    pub fn plan_with_futility(&self, futility: Futility, alpha: Alpha) -> FutilityPlan {
        let beta = 1.0 - futility.power.get();
        let fixed = self.alternative().critical_z(alpha) + normal_quantile(futility.power.get());
        let (mut low, mut high) = (1e-3, 4.0 * fixed.abs() + 2.0);
        if self.with_futility(futility, high).lost > beta {
            let bounds = self.with_futility(futility, high).bounds;
            return FutilityPlan { drift: f64::INFINITY, inflation: f64::INFINITY, bounds };
        }
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if self.with_futility(futility, middle).lost > beta {
                low = middle;
            } else {
                high = middle;
            }
        }
        let end = self.passages().last().map_or(1.0, |passage| passage.fraction);
        FutilityPlan {
            drift: high,
            inflation: end * (high / fixed).powi(2),
            bounds: self.with_futility(futility, high).bounds,
        }
    }

    fn with_futility(&self, futility: Futility, drift: f64) -> Bounded {
        let beta = 1.0 - futility.power.get();
        let two_sided = self.alternative() == Alternative::TwoSided;
        let last = self.passages().len().saturating_sub(1);
        let mut from = Survivors::start();
        let mut found = Bounded { bounds: Vec::new(), lost: 0.0 };
        for (k, passage) in self.passages().iter().enumerate() {
            let (time, critical) = (passage.fraction, passage.critical);
            let root_time = time.sqrt();
            if time - from.time() < SMALLEST_STEP {
                found.bounds.push(f64::NEG_INFINITY);
                continue;
            }
            let below = |z: f64| from.below(time, z * root_time, drift).probability;
            let bound = if k == last || time >= 1.0 {
                critical
            } else {
                let increment = futility.spending.spent(time, beta) - found.lost;
                bound_for(increment, drift * root_time, critical, below)
            };
            found.bounds.push(bound);
            if bound == f64::NEG_INFINITY && critical.is_infinite() {
                continue;
            }
            found.lost += below(bound);
            if let Some(next) = self.passages().get(k + 1) {
                let lower = if two_sided { bound.max(-critical) } else { bound };
                // Where no path continues, an almost empty interval keeps the region valid.
                let upper = critical.max(lower + 1e-9);
                let next_time = next.fraction.max(time + SMALLEST_STEP);
                from = from.inside(time, lower * root_time, upper * root_time, next_time);
            }
        }
        found
    }
}

/// Futility bounds and the probability to miss the planned effect with them.
struct Bounded {
    bounds: Vec<f64>,
    lost: f64,
}

/// Returns the z below which the share `increment` of the paths is, by bisection around the expected z;
/// `below` must rise. The result is never above the bound of rejection.
fn bound_for(increment: f64, expected: f64, critical: f64, below: impl Fn(f64) -> f64) -> f64 {
    const WIDEST: f64 = 9.0;
    if increment < NEGLIGIBLE_SPENDING {
        return f64::NEG_INFINITY;
    }
    if critical.is_finite() && below(critical) <= increment {
        return critical;
    }
    let (mut low, mut high) = (expected - WIDEST, critical.min(expected + WIDEST));
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if below(middle) < increment {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group_sequential::{Boundary, Design},
        random::Random,
    };

    fn looks(alternative: Alternative, alpha: f64, spending: Spending, fractions: &[f64]) -> Looks {
        let design = Design { alpha: Alpha::new(alpha).unwrap(), alternative, spending };
        Boundary::planned(design, fractions).unwrap().looks().clone()
    }

    fn ninety(gamma: f64) -> Futility {
        Futility { power: Power::new(0.9).unwrap(), spending: Spending::gamma(gamma).unwrap() }
    }

    /// The example that R's gsDesign prints without arguments (Anderson, gsDesign manual): three looks,
    /// one-sided 2.5 %, 90 % power, Hwang-Shih-DeCani with -4 for alpha and -2 for beta.
    #[test]
    fn the_printed_example_of_gsdesign() {
        let alpha = Alpha::new(0.025).unwrap();
        let thirds = [1.0 / 3.0, 2.0 / 3.0, 1.0];
        let looks = looks(Alternative::Greater, 0.025, Spending::gamma(-4.0).unwrap(), &thirds);
        let plan = looks.plan_with_futility(ninety(-2.0), alpha);
        for (got, printed) in looks.criticals().iter().zip([3.01, 2.55, 2.00]) {
            assert!((got - printed).abs() < 0.005, "{got} {printed}");
        }
        for (got, printed) in plan.bounds.iter().zip([-0.24, 0.94, 2.00]) {
            assert!((got - printed).abs() < 0.005, "{got} {printed}");
        }
        assert!((plan.inflation - 1.070).abs() < 0.0005, "{}", plan.inflation);
    }

    /// A second method: paths drawn step by step stop for futility as often as beta was spent, and have the
    /// wanted power. Four standard errors of 100,000 paths.
    #[test]
    fn simulated_paths_stop_as_often_as_beta_is_spent() {
        const SEED: u64 = 20;
        const PATHS: u64 = 100_000;
        println!("seed {SEED}");
        let fractions = [0.25, 0.5, 0.8, 1.0];
        let looks = looks(Alternative::Greater, 0.05, Spending::OBrienFleming, &fractions);
        let futility = ninety(1.0);
        let plan = looks.plan_with_futility(futility, Alpha::FIVE_PERCENT);
        let criticals = looks.criticals();
        let mut random = Random::new(SEED);
        let (mut futile, mut rejected) = ([0_u64; 4], 0_u64);
        for _ in 0..PATHS {
            let (mut time, mut level) = (0.0_f64, 0.0);
            for k in 0..fractions.len() {
                let step = fractions[k] - time;
                level += plan.drift * step + step.sqrt() * random.normal();
                time = fractions[k];
                let z = level / time.sqrt();
                if z >= criticals[k] {
                    rejected += 1;
                    break;
                }
                if z < plan.bounds[k] {
                    futile[k] += 1;
                    break;
                }
            }
        }
        let share = |count: u64| count as f64 / PATHS as f64;
        let mut spent_before = 0.0;
        for (k, &count) in futile.iter().enumerate() {
            let spent = futility.spending.spent(fractions[k], 0.1);
            let expected = spent - spent_before;
            let error = (expected * (1.0 - expected) / PATHS as f64).sqrt();
            assert!((share(count) - expected).abs() < 4.0 * error, "{k}: {} {expected}", share(count));
            spent_before = spent;
        }
        assert!((share(rejected) - 0.9).abs() < 4.0 * (0.09 / PATHS as f64).sqrt(), "{}", share(rejected));
    }

    /// An experiment that does not stop keeps the level: the boundary does not depend on the futility bounds.
    #[test]
    fn bounds_are_not_binding() {
        let looks = looks(Alternative::TwoSided, 0.05, Spending::OBrienFleming, &[0.5, 1.0]);
        let before = looks.criticals();
        looks.futility(ninety(-2.0), 3.3).unwrap();
        assert_eq!(looks.criticals(), before);
        assert!((looks.crossing_probability(0.0) - 0.05).abs() < 1e-10);
    }

    #[test]
    fn the_last_look_either_rejects_or_is_futile() {
        let looks = looks(Alternative::TwoSided, 0.05, Spending::OBrienFleming, &[0.5, 1.0]);
        let FutilityBounds { bounds, power } = looks.futility(ninety(-2.0), 3.3).unwrap();
        assert_eq!(bounds[1], looks.criticals()[1]);
        assert!(bounds[0] < 1.0 && bounds[0] > -1.0, "{bounds:?}");
        assert!(power > 0.85 && power < 0.9, "{power}");
        assert!(looks.futility(ninety(-2.0), 0.0).is_err());
    }
}
