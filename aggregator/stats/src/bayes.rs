//! The Bayesian view of an effect: the probability that the treatment is better, and the expected
//! cost of a wrong choice. It adds to the tests and does not replace them: it is not protected against
//! peeking.

mod beta;
mod log_odds;
mod rates;

pub use beta::{BetaPosterior, BetaPrior};
pub use rates::{Rates, best_of};

use crate::{
    Alpha, Alternative, Effect, Interval, Invalid,
    distributions::{normal_pdf, normal_sf},
    terms::{finite, positive},
};

/// The prior distribution of the effect: normal, in the unit of the effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalPrior {
    mean: f64,
    sd: f64,
}

impl NormalPrior {
    /// GrowthBook's default for a relative lift when a proper prior is asked for: N(0, 0.3^2).
    pub const LIFT: NormalPrior = NormalPrior { mean: 0.0, sd: 0.3 };

    /// `mean` and `sd` in the unit of the effect; `mean` finite, `sd` finite and above 0.
    pub fn new(mean: f64, sd: f64) -> Result<NormalPrior, Invalid> {
        Ok(NormalPrior { mean: finite("prior mean", mean)?, sd: positive("prior sd", sd)? })
    }

    /// Converts the prior to a unit that is `factor` times smaller. With the control mean as the factor, a
    /// prior of the relative effect becomes one of the absolute effect.
    pub fn scaled(self, factor: f64) -> Result<NormalPrior, Invalid> {
        NormalPrior::new(self.mean * factor, self.sd * factor)
    }
}

/// The posterior distribution of the effect: normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalPosterior {
    /// In the unit of the effect.
    pub mean: f64,
    /// In the unit of the effect, above 0.
    pub sd: f64,
}

impl NormalPosterior {
    /// Returns the precision-weighted mean of prior and estimate (Gelman et al., Bayesian Data Analysis,
    /// section 2.5); without a prior, the estimate unchanged. `None` without variation. The
    /// likelihood is taken as normal, so it is as accurate as the normality of the estimate.
    pub fn new(effect: Effect, prior: Option<NormalPrior>) -> Option<NormalPosterior> {
        let Effect { estimate, standard_error } = effect;
        if standard_error <= 0.0 {
            return None;
        }
        let Some(prior) = prior else {
            return Some(NormalPosterior { mean: estimate, sd: standard_error });
        };
        // The weight of the prior, from the ratio: the precisions of prior and data may be outside the range
        // of a double.
        let weight = 1.0 / (1.0 + (prior.sd / standard_error).powi(2));
        Some(NormalPosterior {
            mean: estimate + weight * (prior.mean - estimate),
            sd: standard_error * (prior.sd / prior.sd.hypot(standard_error)),
        })
    }

    /// P(effect > 0).
    pub fn probability_above_0(&self) -> f64 {
        normal_sf(-self.mean / self.sd)
    }

    /// P(effect < 0), accurate also where it is small.
    pub fn probability_below_0(&self) -> f64 {
        normal_sf(self.mean / self.sd)
    }

    /// The equal-tailed credible interval.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        Interval::around(self.mean, Alternative::TwoSided.critical_z(alpha) * self.sd)
    }

    /// E[max(effect, 0)], the expected loss of keeping the control when more is better:
    /// `s phi(m/s) + m Phi(m/s)`.
    pub fn expected_gain(&self) -> f64 {
        let z = self.mean / self.sd;
        (self.sd * (normal_pdf(z) + z * normal_sf(-z))).max(0.0)
    }

    /// E[max(-effect, 0)], the expected loss of choosing the treatment when more is better:
    /// `s phi(m/s) - m Phi(-m/s)`.
    pub fn expected_loss(&self) -> f64 {
        let z = self.mean / self.sd;
        (self.sd * (normal_pdf(z) - z * normal_sf(z))).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECT: Effect = Effect { estimate: 0.2, standard_error: 0.1 };

    /// A prior as precise as the data pulls the mean half way and halves the variance.
    #[test]
    fn a_prior_as_precise_as_the_data_has_the_same_weight() {
        let prior = NormalPrior::new(0.0, 0.1).unwrap();
        let posterior = NormalPosterior::new(EFFECT, Some(prior)).unwrap();
        assert!((posterior.mean - 0.1).abs() < 1e-15);
        assert!((posterior.sd - 0.1 / 2f64.sqrt()).abs() < 1e-15);
    }

    /// A prior with a tiny spread determines the posterior; one with an enormous spread does not change the
    /// estimate.
    #[test]
    fn extreme_priors_and_errors_have_finite_posteriors() {
        let of = |sd, standard_error| {
            NormalPosterior::new(
                Effect { estimate: 0.2, standard_error },
                Some(NormalPrior { mean: 1.0, sd }),
            )
            .unwrap()
        };
        assert_eq!(of(1e-100, 1e90), NormalPosterior { mean: 1.0, sd: 1e-100 });
        assert_eq!(of(1e100, 1e-120), NormalPosterior { mean: 0.2, sd: 1e-120 });
        for posterior in [of(1e-100, 1e90), of(1e100, 1e-120)] {
            assert_eq!((posterior.probability_above_0(), posterior.expected_loss()), (1.0, 0.0));
            assert_eq!(posterior.expected_gain(), posterior.mean);
        }
    }

    #[test]
    fn gain_minus_loss_is_the_mean() {
        let posterior = NormalPosterior::new(EFFECT, None).unwrap();
        let difference = posterior.expected_gain() - posterior.expected_loss();
        assert!((difference - 0.2).abs() < 1e-15);
    }

    #[test]
    fn no_variation_has_no_posterior() {
        assert_eq!(NormalPosterior::new(Effect { standard_error: 0.0, ..EFFECT }, None), None);
        assert!(NormalPrior::new(0.0, 0.0).is_err());
    }
}
