//! What is believed of one conversion rate: a Beta distribution, computed so that it keeps its
//! digits from no units at all to 10^9 (statrs' incomplete beta function does not converge beyond
//! a few hundred thousand).

use std::f64::consts::TAU;

use crate::{
    Alpha, Arm, Interval, Invalid, distributions::stirling_remainder, quadrature::GaussLegendre,
    terms::positive,
};

/// A Beta prior; both parameters above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaPrior {
    alpha: f64,
    beta: f64,
}

impl BetaPrior {
    /// Every rate equally likely: the platform's prior.
    pub const UNIFORM: BetaPrior = BetaPrior { alpha: 1.0, beta: 1.0 };

    /// `alpha` imagined conversions and `beta` imagined non-conversions.
    pub fn new(alpha: f64, beta: f64) -> Result<BetaPrior, Invalid> {
        Ok(BetaPrior { alpha: positive("prior alpha", alpha)?, beta: positive("prior beta", beta)? })
    }

    /// `Beta(alpha + x, beta + n - x)`; the prior itself for an empty arm.
    pub fn after(self, arm: Arm) -> BetaPosterior {
        BetaPosterior {
            alpha: self.alpha + arm.conversions() as f64,
            beta: self.beta + (arm.units() - arm.conversions()) as f64,
        }
    }
}

/// What is believed of one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaPosterior {
    alpha: f64,
    beta: f64,
}

impl BetaPosterior {
    /// (alpha, beta)
    pub fn parameters(&self) -> (f64, f64) {
        (self.alpha, self.beta)
    }

    /// The expected rate, between 0 and 1.
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// The equal-tailed credible interval.
    pub fn interval(&self, level: Alpha) -> Interval {
        let tail = level.get() / 2.0;
        Interval { lower: self.quantile(tail), upper: self.quantile(1.0 - tail) }
    }

    /// The rate below which a share `probability` lies, by bisection of the log odds.
    fn quantile(&self, probability: f64) -> f64 {
        let (mut low, mut high) = self.reach();
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            // The side with the smaller probability keeps the digits.
            let below = if probability < 0.5 {
                self.below(LogOdds(middle)) < probability
            } else {
                self.mirrored().below(LogOdds(-middle)) > 1.0 - probability
            };
            if below {
                low = middle;
            } else {
                high = middle;
            }
        }
        LogOdds(0.5 * (low + high)).rate()
    }

    /// P(rate <= p)
    pub(super) fn cdf(&self, p: f64) -> f64 {
        if p <= 0.0 {
            0.0
        } else if p >= 1.0 {
            1.0
        } else {
            self.below(LogOdds((p / (1.0 - p)).ln()))
        }
    }

    /// P(rate > p)
    pub(crate) fn sf(&self, p: f64) -> f64 {
        self.mirrored().cdf(1.0 - p)
    }

    /// The posterior of 1 - rate.
    fn mirrored(&self) -> BetaPosterior {
        BetaPosterior { alpha: self.beta, beta: self.alpha }
    }

    /// P(log odds <= x). The tail on the nearer side is computed; the other is its complement.
    fn below(&self, odds: LogOdds) -> f64 {
        let peak = self.peak();
        if odds.0 <= peak {
            self.lower_tail(odds)
        } else {
            1.0 - self.mirrored().lower_tail(LogOdds(-odds.0))
        }
    }

    /// The same below the peak: the integral of the density where both parameters are large and
    /// it is a short bell, a continued fraction where it may have a long tail.
    fn lower_tail(&self, odds: LogOdds) -> f64 {
        const LARGE: f64 = 500.0;
        if self.alpha.min(self.beta) > LARGE {
            let (from, _) = self.reach();
            if odds.0 <= from {
                return 0.0;
            }
            return piecewise(&[from, odds.0], |x| self.density_of_log_odds(LogOdds(x)));
        }
        let fraction = incomplete_beta_fraction(self.alpha, self.beta, odds.rate());
        self.density_of_log_odds(odds) * fraction / self.alpha
    }

    fn peak(&self) -> f64 {
        (self.alpha / self.beta).ln()
    }

    fn density_of_log_odds(&self, odds: LogOdds) -> f64 {
        self.log_density_of_log_odds(odds).exp()
    }

    /// The density of the log odds: a bell for every parameter, also where that of the rate itself
    /// is infinite at an end. Relative to the mean and with Stirling's remainder S, so that nothing
    /// large cancels: `a ln(p/m) + b ln((1-p)/(1-m)) + ln(a b / (2 pi (a + b))) / 2 + S(a + b) -
    /// S(a) - S(b)` with mean m.
    fn log_density_of_log_odds(&self, odds: LogOdds) -> f64 {
        let (a, b) = (self.alpha, self.beta);
        let mean = LogOdds((a / b).ln());
        a * (odds.log_rate() - mean.log_rate())
            + b * (odds.log_rest() - mean.log_rest())
            + 0.5 * (a / TAU * (b / (a + b))).ln()
            + stirling_remainder(a + b)
            - stirling_remainder(a)
            - stirling_remainder(b)
    }

    /// The log odds between which the density is within e^-60 of its peak.
    fn reach(&self) -> (f64, f64) {
        const NATS: f64 = 60.0;
        let peak = self.peak();
        let lowest = self.log_density_of_log_odds(LogOdds(peak)) - NATS;
        let edge = |direction: f64| {
            let mut step = direction * (1.0 / self.alpha + 1.0 / self.beta).sqrt();
            while self.log_density_of_log_odds(LogOdds(peak + step)) > lowest {
                step *= 1.25;
            }
            peak + step
        };
        (edge(-1.0), edge(1.0))
    }

    /// Rates at which this posterior begins, peaks and ends to matter.
    pub(super) fn marks(&self) -> [f64; 3] {
        let (start, end) = self.reach();
        [start, self.peak(), end].map(|x| LogOdds(x).rate())
    }

    /// The mean of `f` over this posterior; `breaks` are the rates between which `f` is smooth.
    pub(super) fn mean_of(&self, breaks: &[f64], f: impl Fn(f64) -> f64) -> f64 {
        let (from, to) = self.reach();
        let peak = self.peak();
        let inside = |&x: &f64| from < x && x < to;
        let log_odds = breaks.iter().map(|p| (p / (1.0 - p)).ln()).filter(inside);
        let mut edges: Vec<f64> = log_odds.chain([from, peak, to]).collect();
        edges.sort_by(f64::total_cmp);
        let integrand = |x: f64| {
            let odds = LogOdds(x);
            self.density_of_log_odds(odds) * f(odds.rate())
        };
        piecewise(&edges, integrand)
    }
}

/// The integral of a function that is smooth between ascending edges.
pub(super) fn piecewise(edges: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    const POINTS: usize = 64;
    let rule = GaussLegendre::shared(POINTS);
    edges.windows(2).map(|pair| rule.integrate(pair[0], pair[1], &f)).sum()
}

/// ln(p / (1 - p))
#[derive(Clone, Copy)]
struct LogOdds(f64);

impl LogOdds {
    fn rate(self) -> f64 {
        1.0 / (1.0 + (-self.0).exp())
    }

    /// ln p
    fn log_rate(self) -> f64 {
        if self.0 < 0.0 { self.0 - self.0.exp().ln_1p() } else { -(-self.0).exp().ln_1p() }
    }

    /// ln (1 - p)
    fn log_rest(self) -> f64 {
        LogOdds(-self.0).log_rate()
    }
}

/// The continued fraction of the incomplete beta function, for x below the mean: Abramowitz &
/// Stegun 26.5.8 by Lentz's method (Press et al., Numerical Recipes, section 6.4). It needs about
/// as many steps as the root of the smaller parameter.
fn incomplete_beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const STEPS: usize = 1000;
    const TINY: f64 = 1e-300;
    let away_from_0 = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_0(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..STEPS {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_0(1.0 + term * d);
            c = away_from_0(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
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

    /// Beta(a, 1) has cdf p^a, Beta(1, b) has 1 - (1 - p)^b.
    #[test]
    fn closed_forms() {
        for n in [0, 1, 7, 300, 100_000, 1_000_000_000] {
            let p: f64 = 1.0 / (n as f64 + 2.0);
            let expected = -((n as f64 + 1.0) * (-p).ln_1p()).exp_m1();
            let got = posterior(0, n).cdf(p);
            assert!((got / expected - 1.0).abs() < 1e-12, "{n}: {got} {expected}");
            let got = posterior(n, n).sf(1.0 - p);
            assert!((got / expected - 1.0).abs() < 1e-7, "{n}: {got} {expected}");
        }
    }

    /// The continued fraction and the integral meet where one hands over to the other.
    #[test]
    fn both_ways_agree_at_500() {
        for (a, b) in [(501.0, 501.0), (501.0, 1e4), (501.0, 1e8)] {
            let posterior = BetaPosterior { alpha: a, beta: b };
            for away in [-6.0, -2.0, -0.5] {
                let odds = LogOdds(posterior.peak() + away * (1.0 / a + 1.0 / b).sqrt());
                let integral = posterior.lower_tail(odds);
                let fraction =
                    posterior.density_of_log_odds(odds) * incomplete_beta_fraction(a, b, odds.rate()) / a;
                assert!((integral / fraction - 1.0).abs() < 1e-10, "{a} {b} {away}");
            }
        }
    }

    /// At 10^9 units the posterior is normal but for its skewness s, which takes
    /// `s (z^2 - 1) phi(z) / 6` from the cdf (Edgeworth).
    #[test]
    fn huge_counts_are_nearly_normal() {
        let n = 1_000_000_000;
        let huge = posterior(n / 20, n);
        let mean = huge.mean();
        let sd = (mean * (1.0 - mean) / n as f64).sqrt();
        let skewness = 2.0 * (1.0 - 2.0 * mean) / (n as f64 * mean * (1.0 - mean)).sqrt();
        for z in [-3.0, -1.0, 0.0, 2.0f64] {
            let got = huge.cdf(mean + z * sd);
            let expected = normal_sf(-z) - skewness * (z * z - 1.0) * normal_pdf(z) / 6.0;
            assert!((got - expected).abs() < 1e-8, "{z}: {got} {expected}");
        }
        let interval = huge.interval(Alpha::FIVE_PERCENT);
        let width = (interval.upper - interval.lower) / sd;
        assert!((width - 2.0 * 1.959964).abs() < 1e-5, "{width}");
    }
}
