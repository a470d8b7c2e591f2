//! The results to report after stopping at a boundary. The estimate at a crossing is biased away from 0,
//! so p-value, interval and estimate are computed from an ordering of the results by how extreme they are.

use super::{
    NEGLIGIBLE_SPENDING,
    looks::{Looks, Passage},
};
use crate::{Alpha, Alternative, Effect, Interval};

/// Inference that accounts for the stopping rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stagewise {
    /// From 0 to 1, one- or two-sided as the boundary; at most alpha exactly when it was crossed.
    pub p_value: f64,
    /// In the metric's unit; excludes 0 exactly when the boundary was crossed.
    pub interval: Interval,
    /// The effect under which results above and below this one are equally likely. In the metric's unit.
    pub median_unbiased: f64,
}

impl Looks {
    /// Inference after the analysis ended at look `last` (from 0) with this effect: at the first
    /// crossing, or at the final look. Results are ordered by stage first: an earlier crossing is
    /// more extreme, and within a look a larger z. Siegmund (1978, Biometrika 65(2)); Tsiatis,
    /// Rosner & Mehta (1984, Biometrics 40(3)); Jennison & Turnbull (2000), chapter 8.
    ///
    /// The standard error at that look converts the drift to the metric's unit. `None` if there was no
    /// such look, no variation, or an alpha so small that nothing can be spent.
    pub fn stagewise(&self, last: usize, effect: Effect, alpha: Alpha) -> Option<Stagewise> {
        let at = self.passages().get(last)?;
        let tail = self.alternative().tail(alpha);
        if effect.standard_error <= 0.0 || tail < NEGLIGIBLE_SPENDING {
            return None;
        }
        let z = effect.estimate / effect.standard_error;
        // Two bounds are mirror images: below 0 the p-value is computed from the mirrored result, where it is
        // accurate.
        let sign = match self.alternative() {
            Alternative::TwoSided if z < 0.0 => -1.0,
            Alternative::Less => -1.0,
            Alternative::TwoSided | Alternative::Greater => 1.0,
        };
        let z = sign * z;
        let toward = |drift: f64| self.more_extreme(last, z, drift).min(1.0);
        let away = |drift: f64| -self.less_extreme(last, z, drift).min(1.0);
        let unit = sign * at.fraction.sqrt() * effect.standard_error;
        let first = self.passages().iter().map(|passage| passage.fraction).fold(at.fraction, f64::min);
        // Each end is computed from the tail that is small there.
        let (a, b) = (drift_where(at, z, first, tail, toward), drift_where(at, z, first, -tail, away));
        let (a, b) = (unit * a, unit * b);
        let both = Interval { lower: a.min(b), upper: a.max(b) };
        let p = toward(0.0);
        Some(Stagewise {
            p_value: if self.alternative() == Alternative::TwoSided { (2.0 * p).min(1.0) } else { p },
            interval: self.alternative().of_interval(both),
            median_unbiased: unit * drift_where(at, z, first, 0.5, toward),
        })
    }

    /// The probability of a result further in the direction of the alternative than z at look `last`; it rises
    /// with the drift.
    fn more_extreme(&self, last: usize, z: f64, drift: f64) -> f64 {
        let before: f64 = self.crossing(drift).iter().take(last).map(|crossing| crossing.toward).sum();
        let Passage { fraction, from, .. } = &self.passages()[last];
        before + from.above(*fraction, z * fraction.sqrt(), drift).probability
    }

    /// The probability of all other results; it falls with the drift.
    fn less_extreme(&self, last: usize, z: f64, drift: f64) -> f64 {
        let before: f64 = self.crossing(drift).iter().take(last).map(|crossing| crossing.away).sum();
        let Passage { fraction, from, .. } = &self.passages()[last];
        before + from.below(*fraction, z * fraction.sqrt(), drift).probability
    }
}

/// Returns the drift at which a rising function reaches `target`, by bisection to 1e-12 of the bracket. The
/// bracket is around the naive estimate, and is widened for a result that hardly any drift explains: for a z
/// of 50 after looks that did not cross, those looks determine the drift, and their `first` fraction gives
/// the scale.
fn drift_where(at: &Passage, z: f64, first: f64, target: f64, rising: impl Fn(f64) -> f64) -> f64 {
    const WIDEST: f64 = 12.0;
    const WIDENED: usize = 60;
    let (root_time, mut step) = (at.fraction.sqrt(), WIDEST / first.sqrt());
    let (mut low, mut high) = ((z - WIDEST) / root_time, (z + WIDEST) / root_time);
    for _ in 0..WIDENED {
        if rising(low) < target {
            break;
        }
        (low, high, step) = (low - step, low, 2.0 * step);
    }
    step = WIDEST / first.sqrt();
    for _ in 0..WIDENED {
        if rising(high) > target {
            break;
        }
        (low, high, step) = (high, high + step, 2.0 * step);
    }
    for _ in 0..45 {
        let middle = 0.5 * (low + high);
        if rising(middle) < target {
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
    use crate::group_sequential::{Boundary, Design, Spending};

    fn looks(alternative: Alternative, fractions: &[f64]) -> Looks {
        let design = Design { alpha: Alpha::FIVE_PERCENT, alternative, spending: Spending::OBrienFleming };
        Boundary::planned(design, fractions).unwrap().looks().clone()
    }

    /// A result and its mirror image agree to the last digit, also where the p-value is far below a rounding
    /// of 1.
    #[test]
    fn a_result_and_its_mirror_image_have_the_same_p_value() {
        let looks = looks(Alternative::TwoSided, &[0.4, 0.7, 1.0]);
        for z in [0.3, 2.2, 7.0] {
            let of = |estimate| {
                looks.stagewise(0, Effect { estimate, standard_error: 1.0 }, Alpha::FIVE_PERCENT).unwrap()
            };
            let (up, down) = (of(z), of(-z));
            assert_eq!((up.p_value, up.median_unbiased), (down.p_value, -down.median_unbiased));
            assert_eq!((up.interval.lower, up.interval.upper), (-down.interval.upper, -down.interval.lower));
            // At the first look it is the ordinary normal p-value.
            let plain = 2.0 * crate::distributions::normal_sf(z);
            assert!((up.p_value / plain - 1.0).abs() < 1e-9, "{z}: {} {plain}", up.p_value);
        }
    }

    /// z = 60 at the second look, after a first look that did not cross: the drift that best explains both is
    /// near the first look's bound, far from the naive 60.
    #[test]
    fn results_that_no_drift_explains_have_an_interval() {
        let looks = looks(Alternative::TwoSided, &[0.5, 1.0]);
        let critical = looks.criticals()[0];
        let found =
            looks.stagewise(1, Effect { estimate: 60.0, standard_error: 1.0 }, Alpha::FIVE_PERCENT).unwrap();
        let expected = critical / 0.5_f64.sqrt();
        assert!((found.median_unbiased - expected).abs() < 1e-6, "{found:?} {expected}");
        let reach = 1.959_963_985 / 0.5_f64.sqrt();
        assert!((found.interval.lower - (expected - reach)).abs() < 1e-5, "{found:?}");
        assert!((found.interval.upper - (expected + reach)).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn a_tiny_alpha_has_no_interval() {
        let looks = looks(Alternative::TwoSided, &[1.0]);
        let effect = Effect { estimate: 3.0, standard_error: 1.0 };
        assert_eq!(looks.stagewise(0, effect, Alpha::new(1e-14).unwrap()), None);
        assert!(looks.stagewise(0, effect, Alpha::new(1e-10).unwrap()).is_some());
    }
}
