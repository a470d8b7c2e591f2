//! An anytime-valid test on conversions alone, exact from the first unit on: under the null each
//! conversion comes from the treatment with the probability of its assignment share. It is the
//! guardrail's stopping rule where rates are too low for normal approximations.
//!
//! It trusts the split: with a sample ratio mismatch, or a share that changed during the experiment, it tests
//! the wrong hypothesis. It counts converting units, at low rates (rate ratio close to risk ratio).

use crate::{
    Alpha, Interval, Invalid, Pair,
    multinomial_mixture::{Cell, concentration, log_bayes_factor},
};

mod one_sided;

pub use one_sided::OneSided;

/// The platform's concentration; 10 suits large effects, 1000 suits tiny ones.
pub const CONCENTRATION: f64 = 100.0;

/// The plan of the test, fixed before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    treatment_share: f64,
    concentration: f64,
    alpha: Alpha,
}

/// The evidence of the conversions so far against the null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// 0 is no evidence either way; minus infinity where all evidence is for the null.
    pub log_e_value: f64,
    /// `min(1, 1/e)` of this look; the always-valid p-value is the smallest over all looks.
    pub p_value: f64,
}

impl Evidence {
    fn of(log_e_value: f64) -> Evidence {
        Evidence { log_e_value, p_value: (-log_e_value).exp().min(1.0) }
    }
}

/// The result of one look at the conversions so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The logarithm of the Bayes factor against an unchanged share of conversions; 0 is no evidence either
    /// way.
    pub log_bayes_factor: f64,
    /// `min(1, 1/BF)` of this look; the always-valid p-value is the smallest over all looks.
    pub p_value: f64,
    /// `ln(treatment rate / control rate)`; infinite while one arm has no conversions, `None` while
    /// neither has any.
    pub log_rate_ratio: Option<f64>,
    /// Covers the log rate ratio at all looks at once; infinite on the side of an arm without conversions.
    pub interval: Interval,
}

impl Design {
    /// `treatment_share` is the treatment's share of both arms' units, from 1e-15 to 1 - 1e-15; `mixture` is
    /// the concentration, from 1e-6 to 1e15.
    pub fn new(treatment_share: f64, mixture: f64, alpha: Alpha) -> Result<Design, Invalid> {
        if !(1e-15..=1.0 - 1e-15).contains(&treatment_share) {
            let (what, range) = ("treatment share", "strictly between 0 and 1, by 1e-15 at least");
            return Err(Invalid::OutOfRange { what, value: treatment_share, range });
        }
        Ok(Design { treatment_share, concentration: concentration(mixture)?, alpha })
    }

    /// Runs the test alone, without the interval of [`Design::look`].
    pub fn evidence(&self, conversions: Pair<u64>) -> Evidence {
        let pi = self.treatment_share;
        let cells = [
            Cell { share: pi, count: conversions.treatment as f64 },
            Cell { share: 1.0 - pi, count: conversions.control as f64 },
        ];
        Evidence::of(log_bayes_factor(&cells, self.concentration))
    }

    /// Runs the test and computes the interval: Lindon & Malek (2022), section 4, with the mixture Beta(k pi,
    /// k (1 - pi)): `log BF(theta) = log BF(pi) + x_t ln(pi/theta) + x_c ln((1 - pi)/(1 - theta))`; the
    /// interval is every `logit theta - logit pi` with `BF(theta) < 1/alpha`.
    pub fn look(&self, conversions: Pair<u64>) -> Look {
        let (x_c, x_t) = (conversions.control as f64, conversions.treatment as f64);
        let pi = self.treatment_share;
        let Evidence { log_e_value: log_bayes_factor, p_value } = self.evidence(conversions);
        let logit_pi = (pi / (1.0 - pi)).ln();
        // With the shift s of the log odds, ln(pi/theta) is ln(1 + pi (e^s - 1)) - s, and ln((1 - pi)/(1 -
        // theta)) is the first term alone. Both are small for a small s, where logarithms of theta would
        // cancel.
        let excess = |shift: f64| {
            let log_rest = (pi * shift.exp_m1()).ln_1p();
            log_bayes_factor + (x_t + x_c) * log_rest - x_t * shift + self.alpha.get().ln()
        };
        let log_rate_ratio = (x_c + x_t > 0.0).then(|| (x_t / x_c).ln() - logit_pi);
        // A value close to the most likely one, which is infinite where an arm has no conversions.
        const ALMOST_NONE: f64 = 1e-12;
        let inside = (x_t.max(ALMOST_NONE) / x_c.max(ALMOST_NONE)).ln() - logit_pi;
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

/// Returns where `excess` becomes positive in `direction` from `inside`, by doubled steps and bisection. The
/// excess grows at least linearly there, so the search ends.
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
    fn no_conversions_are_no_evidence() {
        let look = design().look(Pair::default());
        assert_eq!((look.p_value, look.log_rate_ratio), (1.0, None));
        assert_eq!(look.interval, Interval::EVERYTHING);
    }

    /// The Bayes factor of 2^52 + z sd of 2^53 conversions by Laplace's approximation, whose error is of the
    /// order 1 / n: z^2 / 2 - ln(1 + n/k) / 2. The interval is then normal too.
    #[test]
    fn counts_up_to_2_to_53_keep_their_digits() {
        let (k, n) = (100.0, (1_u64 << 53) as f64);
        let design = Design::new(0.5, k, Alpha::FIVE_PERCENT).unwrap();
        for z in [0.0, 3.0, 7.0] {
            let more = (z * n.sqrt() / 2.0_f64).round();
            let conversions = Pair { control: (n / 2.0 - more) as u64, treatment: (n / 2.0 + more) as u64 };
            let look = design.look(conversions);
            let z = 2.0 * more / n.sqrt();
            let expected = 0.5 * z * z - 0.5 * (n / k).ln_1p();
            // Stirling's remainders of the mixture, S(k) - 2 S(k / 2), remain: -1 / (4 k) to first order.
            assert!((look.log_bayes_factor - expected + 0.25 / k).abs() < 1e-6, "{z}: {look:?}");
            // The log rate ratio is normal with the error 2 / sqrt n; at the ends of the interval the Bayes
            // factor is 1 / alpha.
            let reach = (2.0 * (0.5 * (n / k).ln_1p() + 0.25 / k - 0.05_f64.ln())).sqrt() * 2.0 / n.sqrt();
            let half_width = 0.5 * (look.interval.upper - look.interval.lower);
            assert!((half_width / reach - 1.0).abs() < 1e-6, "{z}: {half_width:e} {reach:e}");
            assert_eq!(!look.interval.contains(0.0), look.p_value < 0.05, "{z}: {look:?}");
        }
    }

    /// Without conversions of the treatment any level has its upper end, whose likelihood ratio is (1 - pi) /
    /// (1 - theta).
    #[test]
    fn levels_near_1_have_an_upper_end() {
        let design = |alpha| Design::new(0.5, 10.0, Alpha::new(alpha).unwrap()).unwrap();
        let ends = [0.05, 0.7, 0.999]
            .map(|alpha| design(alpha).look(Pair { control: 1, treatment: 0 }).interval.upper);
        // BF = 0.5 / (1 - theta) = 1 / alpha.
        for (end, alpha) in ends.into_iter().zip([0.05_f64, 0.7, 0.999]) {
            let theta: f64 = 1.0 - 0.5 * alpha;
            assert!((end - (theta / (1.0 - theta)).ln()).abs() < 1e-9, "{alpha}: {end}");
        }
    }

    #[test]
    fn shares_must_be_strictly_between_0_and_1() {
        assert!(Design::new(0.0, 10.0, Alpha::FIVE_PERCENT).is_err());
        assert!(Design::new(0.5, 0.0, Alpha::FIVE_PERCENT).is_err());
    }
}
