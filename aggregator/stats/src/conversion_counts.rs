//! An anytime-valid test on conversions alone, exact from the first unit on: under the null each
//! conversion comes from the treatment with the probability of its assignment share. The
//! guardrail's kill switch, where rates are too low for normal approximations.
//!
//! It trusts the split: with a sample ratio mismatch, or a share that changed on the way, it tests
//! the wrong thing. Counts converting units, at low rates (rate ratio close to risk ratio).

use crate::{
    Alpha, Interval, Invalid, Pair,
    multinomial_mixture::{Cell, log_bayes_factor},
    terms::{between_0_and_1, positive},
};

mod one_sided;

pub use one_sided::OneSided;

/// The platform's concentration; 10 suits large effects, 1000 tiny ones.
pub const CONCENTRATION: f64 = 100.0;

/// The test as laid down before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    treatment_share: f64,
    concentration: f64,
    alpha: Alpha,
}

/// How strongly the conversions so far speak against the null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// 0 says nothing either way; minus infinity where it speaks for the null alone.
    pub log_e_value: f64,
    /// `min(1, 1/e)` of this look; the always-valid p-value is the smallest over all looks.
    pub p_value: f64,
}

impl Evidence {
    fn of(log_e_value: f64) -> Evidence {
        Evidence { log_e_value, p_value: (-log_e_value).exp().min(1.0) }
    }
}

/// What the conversions so far say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Logarithm of the Bayes factor against an unchanged share of conversions; 0 says nothing either way.
    pub log_bayes_factor: f64,
    /// `min(1, 1/BF)` of this look; the always-valid p-value is the smallest over all looks.
    pub p_value: f64,
    /// `ln(treatment rate / control rate)`; infinite while one arm has no conversions, none while
    /// neither has.
    pub log_rate_ratio: Option<f64>,
    /// Covers the log rate ratio at all looks at once; open towards an arm without conversions.
    pub interval: Interval,
}

impl Design {
    /// `treatment_share` is the treatment's share of both arms' units, strictly between 0 and 1.
    pub fn new(treatment_share: f64, concentration: f64, alpha: Alpha) -> Result<Design, Invalid> {
        Ok(Design {
            treatment_share: between_0_and_1("treatment share", treatment_share)?,
            concentration: positive("concentration", concentration)?,
            alpha,
        })
    }

    /// The test alone, without the interval of [`Design::look`].
    pub fn evidence(&self, conversions: Pair<u64>) -> Evidence {
        let pi = self.treatment_share;
        let cells = [
            Cell { share: pi, count: conversions.treatment as f64 },
            Cell { share: 1.0 - pi, count: conversions.control as f64 },
        ];
        Evidence::of(log_bayes_factor(&cells, self.concentration))
    }

    /// Lindon & Malek (2022), section 4, with the mixture Beta(k pi, k (1 - pi)):
    /// `log BF(theta) = log BF(pi) + x_t ln(pi/theta) + x_c ln((1 - pi)/(1 - theta))`; the interval
    /// is every `logit theta - logit pi` with `BF(theta) < 1/alpha`.
    pub fn look(&self, conversions: Pair<u64>) -> Look {
        let (x_c, x_t) = (conversions.control as f64, conversions.treatment as f64);
        let pi = self.treatment_share;
        let Evidence { log_e_value: log_bayes_factor, p_value } = self.evidence(conversions);
        let logit_pi = (pi / (1.0 - pi)).ln();
        let excess = |shift: f64| {
            let log_odds = logit_pi + shift;
            let log_theta = -(-log_odds).exp().ln_1p();
            let log_rest = -log_odds.exp().ln_1p();
            log_bayes_factor
                + x_t * (pi.ln() - log_theta)
                + x_c * ((1.0 - pi).ln() - log_rest)
                + self.alpha.get().ln()
        };
        let log_rate_ratio = (x_c + x_t > 0.0).then(|| (x_t / x_c).ln() - logit_pi);
        let inside = (x_t.max(0.5) / x_c.max(0.5)).ln() - logit_pi;
        Look {
            log_bayes_factor,
            p_value,
            log_rate_ratio,
            interval: Interval {
                lower: if x_t == 0.0 { f64::NEG_INFINITY } else { root(inside, -1.0, excess) },
                upper: if x_c == 0.0 { f64::INFINITY } else { root(inside, 1.0, excess) },
            },
        }
    }
}

/// Where `excess` turns positive, walking from `inside` in `direction` by doubled steps. The excess
/// grows at least linearly there, so the walk ends.
fn root(inside: f64, direction: f64, excess: impl Fn(f64) -> f64) -> f64 {
    let mut step = direction;
    while excess(inside + step) < 0.0 {
        step *= 2.0;
    }
    let (mut near, mut far) = (inside, inside + step);
    for _ in 0..100 {
        let middle = 0.5 * (near + far);
        if excess(middle) < 0.0 {
            near = middle;
        } else {
            far = middle;
        }
    }
    0.5 * (near + far)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn design() -> Design {
        Design::new(0.5, 10.0, Alpha::FIVE_PERCENT).unwrap()
    }

    /// One treatment conversion: BF(theta) = 0.5 / theta, so theta > 0.025.
    #[test]
    fn one_conversion_bounds_one_side() {
        let look = design().look(Pair { control: 0, treatment: 1 });
        let expected = (0.025f64 / 0.975).ln();
        assert!((look.interval.lower - expected).abs() < 1e-12);
        assert_eq!(look.interval.upper, f64::INFINITY);
        assert_eq!(look.log_rate_ratio, Some(f64::INFINITY));
    }

    #[test]
    fn no_conversions_say_nothing() {
        let look = design().look(Pair::default());
        assert_eq!((look.p_value, look.log_rate_ratio), (1.0, None));
        assert_eq!(look.interval, Interval::EVERYTHING);
    }

    #[test]
    fn shares_lie_strictly_between_0_and_1() {
        assert!(Design::new(0.0, 10.0, Alpha::FIVE_PERCENT).is_err());
        assert!(Design::new(0.5, 0.0, Alpha::FIVE_PERCENT).is_err());
    }
}
