//! What to report after stopping at a boundary: the estimate at a crossing is biased away from 0,
//! so p-value, interval and estimate come from the order in which results are extreme.

use super::looks::{Looks, Passage};
use crate::{Alpha, Alternative, Effect, Interval};

/// Inference that accounts for the stopping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stagewise {
    /// From 0 to 1, one- or two-sided as the boundary; at most alpha exactly when it was crossed.
    pub p_value: f64,
    /// In the metric's unit; excludes 0 exactly when the boundary was crossed.
    pub interval: Interval,
    /// The effect for which the result would be as often below as above. In the metric's unit.
    pub median_unbiased: f64,
}

impl Looks {
    /// Inference after the analysis ended at look `last` (from 0) with this effect: at the first
    /// crossing, or at the final look. Results are ordered by stage first: an earlier crossing is
    /// more extreme, and within a look a larger z. Siegmund (1978, Biometrika 65(2)); Tsiatis,
    /// Rosner & Mehta (1984, Biometrics 40(3)); Jennison & Turnbull (2000), chapter 8.
    ///
    /// The standard error at that look turns drift into the metric's unit. `None` if there was no
    /// such look, or no variation.
    pub fn stagewise(&self, last: usize, effect: Effect, alpha: Alpha) -> Option<Stagewise> {
        let at = self.passages().get(last)?;
        if effect.standard_error <= 0.0 {
            return None;
        }
        let sign = if self.alternative() == Alternative::Less { -1.0 } else { 1.0 };
        let z = sign * effect.estimate / effect.standard_error;
        let more_extreme = |drift: f64| self.more_extreme(last, z, drift);
        let unit = sign * at.fraction.sqrt() * effect.standard_error;
        let effect_at = |probability: f64| unit * drift_where(at, z, probability, more_extreme);

        let tail = self.alternative().tail(alpha);
        let (a, b) = (effect_at(tail), effect_at(1.0 - tail));
        let both = Interval { lower: a.min(b), upper: a.max(b) };
        let toward = more_extreme(0.0);
        Some(Stagewise {
            p_value: match self.alternative() {
                Alternative::TwoSided => (2.0 * toward.min(1.0 - toward)).clamp(0.0, 1.0),
                Alternative::Greater | Alternative::Less => toward,
            },
            interval: self.alternative().of_interval(both),
            median_unbiased: effect_at(0.5),
        })
    }

    /// The probability of a result further towards the alternative than z at look `last`: rises
    /// with the drift.
    fn more_extreme(&self, last: usize, z: f64, drift: f64) -> f64 {
        let before: f64 = self.crossing(drift).iter().take(last).map(|crossing| crossing.toward).sum();
        let Passage { fraction, from, .. } = &self.passages()[last];
        before + from.above(*fraction, z * fraction.sqrt(), drift).probability
    }
}

/// The drift at which a rising probability reaches `target`, by bisection around the naive
/// estimate, to 1e-12 of its standard error.
fn drift_where(at: &Passage, z: f64, target: f64, probability: impl Fn(f64) -> f64) -> f64 {
    const WIDEST: f64 = 12.0;
    let root_time = at.fraction.sqrt();
    let (mut low, mut high) = ((z - WIDEST) / root_time, (z + WIDEST) / root_time);
    for _ in 0..45 {
        let middle = 0.5 * (low + high);
        if probability(middle) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
