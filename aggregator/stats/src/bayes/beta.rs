//! The prior and the posterior of one conversion rate: Beta distributions, computed so that they are accurate
//! from no units at all to 2^53 (statrs' incomplete beta function does not converge beyond a few hundred
//! thousand).

use super::log_odds::{Bell, Rate};
use crate::{Alpha, Arm, Interval, Invalid};

/// A Beta prior; both parameters from 1e-6 to 1e20.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaPrior {
    alpha: f64,
    beta: f64,
}

impl BetaPrior {
    /// The platform's prior, under which every rate is equally likely.
    pub const UNIFORM: BetaPrior = BetaPrior { alpha: 1.0, beta: 1.0 };

    /// `alpha` imagined conversions and `beta` imagined non-conversions, each from 1e-6 to 1e20.
    pub fn new(alpha: f64, beta: f64) -> Result<BetaPrior, Invalid> {
        for (what, value) in [("prior alpha", alpha), ("prior beta", beta)] {
            if !(1e-6..=1e20).contains(&value) {
                return Err(Invalid::OutOfRange { what, value, range: "from 1e-6 to 1e20" });
            }
        }
        Ok(BetaPrior { alpha, beta })
    }

    /// Returns the posterior `Beta(alpha + x, beta + n - x)`; for an empty arm that is the prior itself.
    pub fn after(self, arm: Arm) -> BetaPosterior {
        BetaPosterior {
            alpha: self.alpha + arm.conversions() as f64,
            beta: self.beta + (arm.units() - arm.conversions()) as f64,
        }
    }
}

/// The posterior distribution of one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaPosterior {
    alpha: f64,
    beta: f64,
}

impl BetaPosterior {
    /// The pair (alpha, beta).
    pub fn parameters(&self) -> (f64, f64) {
        (self.alpha, self.beta)
    }

    /// The expected rate, between 0 and 1.
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// The equal-tailed credible interval.
    pub fn interval(&self, level: Alpha) -> Interval {
        let (bell, tail) = (self.bell(), level.get() / 2.0);
        let end = |place: f64| bell.rate_at(place).p;
        let (lower, upper) = (end(bell.lower_quantile(tail)), end(bell.upper_quantile(tail)));
        // At an alpha of almost 1 both ends are the median, and rounding may exchange them.
        Interval { lower: lower.min(upper), upper: upper.max(lower) }
    }

    /// P(rate > p), for p from 0 to 1.
    pub(crate) fn sf(&self, p: f64) -> f64 {
        if p <= 0.0 {
            return 1.0;
        }
        if p >= 1.0 {
            return 0.0;
        }
        let bell = self.bell();
        bell.above(bell.place_of_rate(Rate { p, rest: 1.0 - p }))
    }

    pub(super) fn bell(&self) -> Bell {
        Bell::new(self.alpha, self.beta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Counts,
        distributions::{normal_pdf, normal_sf},
    };

    fn posterior(conversions: u64, units: u64) -> BetaPosterior {
        BetaPrior::UNIFORM.after(Arm::new(Counts { units, conversions }).unwrap())
    }

    fn cdf(of: BetaPosterior, p: f64) -> f64 {
        let bell = of.bell();
        bell.below(bell.place_of_rate(Rate { p, rest: 1.0 - p }))
    }

    /// Beta(a, 1) has cdf p^a, Beta(1, b) has 1 - (1 - p)^b.
    #[test]
    fn closed_forms() {
        for n in [0, 1, 7, 300, 100_000, 1_000_000_000] {
            let p: f64 = 1.0 / (n as f64 + 2.0);
            let expected = -((n as f64 + 1.0) * (-p).ln_1p()).exp_m1();
            let got = cdf(posterior(0, n), p);
            assert!((got / expected - 1.0).abs() < 1e-12, "{n}: {got} {expected}");
            let got = posterior(n, n).sf(1.0 - p);
            assert!((got / expected - 1.0).abs() < 1e-7, "{n}: {got} {expected}");
        }
    }

    /// At 10^9 units the posterior is normal except for its skewness s, which lowers the cdf by
    /// `s (z^2 - 1) phi(z) / 6` (Edgeworth).
    #[test]
    fn huge_counts_are_nearly_normal() {
        let n = 1_000_000_000;
        let huge = posterior(n / 20, n);
        let mean = huge.mean();
        let sd = (mean * (1.0 - mean) / n as f64).sqrt();
        let skewness = 2.0 * (1.0 - 2.0 * mean) / (n as f64 * mean * (1.0 - mean)).sqrt();
        for z in [-3.0, -1.0, 0.0, 2.0f64] {
            let got = cdf(huge, mean + z * sd);
            let expected = normal_sf(-z) - skewness * (z * z - 1.0) * normal_pdf(z) / 6.0;
            assert!((got - expected).abs() < 1e-8, "{z}: {got} {expected}");
        }
        let interval = huge.interval(Alpha::FIVE_PERCENT);
        let width = (interval.upper - interval.lower) / sd;
        assert!((width - 2.0 * 1.959964).abs() < 1e-5, "{width}");
    }
}
