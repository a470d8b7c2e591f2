//! The density of a Beta distribution over the log odds, relative to the log odds of its mean. It is a bell
//! for all parameters, also where the density of the rate itself is infinite at an end. The log odds are
//! relative because a bell of 10^15 units is a hundred millionth wide, and an absolute position would use up
//! the digits.

use std::f64::consts::TAU;

use crate::{
    quadrature::GaussLegendre,
    special::{BetaArguments, expm1_minus, incomplete_beta_fraction, log1p_minus, stirling_remainder},
};

/// The density is followed down to e^-60 of its peak.
const NATS: f64 = 60.0;

/// Where both parameters are above this, tails below the peak are computed as integrals.
const LARGE: f64 = 500.0;

/// One Beta distribution. A place is a log odds minus the log odds of the mean, where the peak is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bell {
    a: f64,
    b: f64,
    /// `a / (a + b)`
    mean: f64,
    /// `b / (a + b)`
    rest: f64,
    /// The logarithm of the density at the peak.
    log_peak: f64,
    /// The places below and above the peak where the density is e^-60 of the peak's.
    reach: (f64, f64),
}

/// A rate p and 1 - p, each accurate to full precision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) p: f64,
    pub(super) rest: f64,
}

impl Bell {
    /// Both `a` and `b` must be above 0.
    pub(super) fn new(a: f64, b: f64) -> Bell {
        // Relative to the mean and with Stirling's remainder S, so that no large terms cancel:
        // ln(a b / (2 pi (a + b))) / 2 + S(a + b) - S(a) - S(b).
        let log_peak = 0.5 * (a / TAU * (b / (a + b))).ln() + stirling_remainder(a + b)
            - stirling_remainder(a)
            - stirling_remainder(b);
        let mut bell = Bell { a, b, mean: a / (a + b), rest: b / (a + b), log_peak, reach: (0.0, 0.0) };
        bell.reach = bell.reach_of(NATS);
        bell
    }

    /// The places between which the density is within `e^-nats` of its peak.
    pub(super) fn reach_of(&self, nats: f64) -> (f64, f64) {
        let edge = |direction: f64| {
            let mut place = direction * (1.0 / self.a + 1.0 / self.b).sqrt();
            while self.fall(place) < nats {
                place *= 1.25;
            }
            place
        };
        (edge(-1.0), edge(1.0))
    }

    /// The distribution of 1 - rate; its places are those of this one with the opposite sign.
    fn mirrored(&self) -> Bell {
        let (from, to) = self.reach;
        Bell { a: self.b, b: self.a, mean: self.rest, rest: self.mean, reach: (-to, -from), ..*self }
    }

    /// Returns by how much the logarithm of the density at a place is below its peak.
    ///
    /// With mean m and place u it is `(a + b) (ln(1 + m (e^u - 1)) - m u)`, for m up to a half (else
    /// mirrored). For a small u it is computed from the terms that remain after the cancelling ones are
    /// removed.
    fn fall(&self, place: f64) -> f64 {
        let (m, u) = if self.mean <= 0.5 { (self.mean, place) } else { (self.rest, -place) };
        let y = m * u.exp_m1();
        let each = if u.abs() < 1.0 {
            log1p_minus(y) + m * expm1_minus(u)
        } else {
            Self::log_odds_ratio(m, u, y) - m * u
        };
        (self.a + self.b) * each
    }

    /// `ln(1 + y)` with `y = m (e^u - 1)`, also where the exponential overflows.
    fn log_odds_ratio(m: f64, u: f64, y: f64) -> f64 {
        if u < 700.0 { y.ln_1p() } else { u + m.ln() }
    }

    pub(super) fn density(&self, place: f64) -> f64 {
        (self.log_peak - self.fall(place)).exp()
    }

    pub(super) fn rate_at(&self, place: f64) -> Rate {
        if place <= 0.0 {
            let odds = self.mean * place.exp();
            let whole = self.rest + odds;
            Rate { p: odds / whole, rest: self.rest / whole }
        } else {
            let odds = self.rest * (-place).exp();
            let whole = self.mean + odds;
            Rate { p: self.mean / whole, rest: odds / whole }
        }
    }

    /// The rate at a place minus the mean.
    pub(super) fn distance_from_mean(&self, place: f64) -> f64 {
        let Bell { mean, rest, .. } = *self;
        if place <= 0.0 {
            mean * rest * place.exp_m1() / (rest + mean * place.exp())
        } else {
            -mean * rest * (-place).exp_m1() / (mean + rest * (-place).exp())
        }
    }

    /// The place of the rate that is the mean plus `difference`; infinite where that is no rate between 0 and
    /// 1.
    pub(super) fn place_of(&self, difference: f64) -> f64 {
        if difference <= -self.mean {
            f64::NEG_INFINITY
        } else if difference >= self.rest {
            f64::INFINITY
        } else {
            (difference / self.mean).ln_1p() - (-difference / self.rest).ln_1p()
        }
    }

    /// The place of a rate between 0 and 1.
    pub(super) fn place_of_rate(&self, rate: Rate) -> f64 {
        (rate.p / self.mean).ln() - (rate.rest / self.rest).ln()
    }

    /// The place of these log odds.
    pub(super) fn place_of_log_odds(&self, log_odds: f64) -> f64 {
        log_odds - (self.a / self.b).ln()
    }

    /// The place in `other` of this bell's peak.
    pub(super) fn peak_in(&self, other: &Bell) -> f64 {
        log_ratio(self.a, other.a) - log_ratio(self.b, other.b)
    }

    /// This mean minus the other one.
    pub(super) fn mean_minus(&self, other: &Bell) -> f64 {
        // The difference of the rarer outcome's shares is the more accurate one.
        if self.mean <= 0.5 { self.mean - other.mean } else { other.rest - self.rest }
    }

    /// P(log odds <= place). The tail on the nearer side is computed; the other is its complement.
    pub(super) fn below(&self, place: f64) -> f64 {
        if place <= 0.0 { self.lower_tail(place) } else { 1.0 - self.mirrored().lower_tail(-place) }
    }

    /// P(log odds > place)
    pub(super) fn above(&self, place: f64) -> f64 {
        if place >= 0.0 { self.mirrored().lower_tail(-place) } else { 1.0 - self.lower_tail(place) }
    }

    /// P(log odds <= place) for places up to the peak: the integral of the density where both parameters are
    /// large and the bell is narrow, and a continued fraction where it may have a long tail.
    fn lower_tail(&self, place: f64) -> f64 {
        if place == f64::NEG_INFINITY {
            return 0.0;
        }
        if self.a.min(self.b) <= LARGE {
            return self.lower_tail_by_fraction(place);
        }
        // ln of the density is concave: to the left it falls at least as fast as here, which is not at all at
        // the peak.
        let slope = -(self.a + self.b) * self.distance_from_mean(place);
        let far = if slope > 0.0 { place - NATS / slope } else { f64::NEG_INFINITY };
        let (start, _) = self.reach;
        let from = if place > start { far.max(start) } else { far };
        piecewise(&[from, place], |x| self.density(x))
    }

    fn lower_tail_by_fraction(&self, place: f64) -> f64 {
        let Bell { a, b, .. } = *self;
        let Rate { p: x, rest: y } = self.rate_at(place);
        let lambda = -(a + b) * self.distance_from_mean(place);
        self.density(place) * incomplete_beta_fraction(BetaArguments { a, b, x, y, lambda })
    }

    /// The place below which the probability is `tail`, at most a half; by bisection.
    pub(super) fn lower_quantile(&self, tail: f64) -> f64 {
        let (mut low, mut high) = self.reach_of(NATS - tail.ln());
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.below(middle) < tail {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }

    /// The place above which the probability is `tail`, at most a half.
    pub(super) fn upper_quantile(&self, tail: f64) -> f64 {
        -self.mirrored().lower_quantile(tail)
    }

    /// The places where the bell begins, bends, peaks and ends, in ascending order. Its sides bend within a
    /// few units of the peak, however far they reach.
    pub(super) fn marks(&self) -> Vec<f64> {
        const BENT: f64 = 30.0;
        let (start, end) = self.reach;
        let bends = [-BENT, BENT].into_iter().filter(|&bend| start < bend && bend < end);
        let mut marks: Vec<f64> = bends.chain([start, 0.0, end]).collect();
        marks.sort_by(f64::total_cmp);
        marks
    }

    /// Returns the mean of `f` over this distribution. `f` is smooth between the places in `breaks`; `peaks`
    /// are the places of its own peaks, which may be out of reach.
    pub(super) fn mean_of(&self, peaks: &[f64], breaks: &[f64], f: impl Fn(f64) -> f64) -> f64 {
        let (from, to) = peaks.iter().fold(self.reach, |(from, to), &peak| (from.min(peak), to.max(peak)));
        let inside = |place: &f64| from < *place && *place < to;
        let mut edges = vec![from, to];
        edges.extend(self.marks().into_iter().chain(breaks.iter().copied()).filter(inside));
        edges.sort_by(f64::total_cmp);
        piecewise(&edges, |place| self.density(place) * f(place))
    }
}

/// `ln(x / y)`, computed from the difference where x and y are close.
fn log_ratio(x: f64, y: f64) -> f64 {
    if 0.5 * y < x && x < 2.0 * y { ((x - y) / y).ln_1p() } else { x.ln() - y.ln() }
}

/// The integral of a function that is smooth between ascending edges.
pub(super) fn piecewise(edges: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    const POINTS: usize = 64;
    let rule = GaussLegendre::shared(POINTS);
    edges.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| rule.integrate(pair[0], pair[1], &f)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The continued fraction and the integral agree where one replaces the other.
    #[test]
    fn fraction_and_integral_agree_at_500() {
        for (a, b) in [(501.0, 501.0), (501.0, 1e4), (501.0, 1e8)] {
            let bell = Bell::new(a, b);
            for away in [-30.0, -6.0, -2.0, -0.5] {
                let place = away * (1.0 / a + 1.0_f64 / b).sqrt();
                let (integral, fraction) = (bell.lower_tail(place), bell.lower_tail_by_fraction(place));
                assert!(
                    (integral / fraction - 1.0).abs() < 1e-12,
                    "{a} {b} {away}: {integral:e} {fraction:e}"
                );
            }
        }
    }

    /// Converting a place to a rate and back returns the place, at the mean and far from it.
    #[test]
    fn places_and_rates_convert_both_ways() {
        for (a, b) in [(1.0, 1.0), (3.0, 1e15), (1e15, 0.5), (2e14, 7e15)] {
            let bell = Bell::new(a, b);
            for place in [-20.0, -1.0, -1e-9, 0.0, 1e-9, 2.0] {
                let rate = bell.rate_at(place);
                assert!(
                    (bell.place_of_rate(rate) - place).abs() < 2e-15 * (1.0 + place.abs()),
                    "{a} {b} {place}"
                );
                let difference = bell.distance_from_mean(place);
                // A rate close to 1 loses digits as a difference.
                let back = bell.place_of(difference);
                assert!(
                    (back - place).abs() <= 1e-15 * place.abs() * place.abs().exp(),
                    "{a} {b} {place}: {back}"
                );
                assert!((difference - (rate.p - bell.mean)).abs() <= 2.3e-16, "{a} {b} {place}");
            }
        }
        assert_eq!(Bell::new(1.0, 1.0).place_of(0.5), f64::INFINITY);
        assert_eq!(Bell::new(1.0, 1.0).place_of(-0.5), f64::NEG_INFINITY);
    }
}
