//! The Bayesian view of an effect: how probable it is that the treatment is better, and what a
//! wrong choice costs. An addition to the tests, not a replacement: it is not protected against
//! peeking.

mod beta;
mod rates;

pub use beta::{BetaPosterior, BetaPrior};
pub use rates::{Rates, best_of};

use crate::{
    Alpha, Alternative, Effect, Interval, Invalid,
    distributions::{normal_pdf, normal_sf},
    terms::{finite, positive},
};

/// What is believed of the effect before the data: normal, in the unit of the effect.
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

    /// The same belief in a unit `factor` times smaller: a relative prior turned into an absolute
    /// one by the control mean.
    pub fn scaled(self, factor: f64) -> Result<NormalPrior, Invalid> {
        NormalPrior::new(self.mean * factor, self.sd * factor)
    }
}

/// What is believed of the effect after the data: normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalPosterior {
    /// In the unit of the effect.
    pub mean: f64,
    /// In the unit of the effect, above 0.
    pub sd: f64,
}

impl NormalPosterior {
    /// The precision-weighted mean of prior and estimate (Gelman et al., Bayesian Data Analysis,
    /// section 2.5); without a prior the estimate as it is. `None` without variation. The
    /// likelihood is normal, as good as the estimate's normality.
    pub fn new(effect: Effect, prior: Option<NormalPrior>) -> Option<NormalPosterior> {
        let Effect { estimate, standard_error } = effect;
        if standard_error <= 0.0 {
            return None;
        }
        let Some(prior) = prior else {
            return Some(NormalPosterior { mean: estimate, sd: standard_error });
        };
        let (data, before) = (standard_error.powi(-2), prior.sd.powi(-2));
        Some(NormalPosterior {
            mean: (data * estimate + before * prior.mean) / (data + before),
            sd: (data + before).powf(-0.5),
        })
    }

    /// P(effect > 0).
    pub fn probability_above_0(&self) -> f64 {
        normal_sf(-self.mean / self.sd)
    }

    /// P(effect < 0), with its digits where it is small.
    pub fn probability_below_0(&self) -> f64 {
        normal_sf(self.mean / self.sd)
    }

    /// The equal-tailed credible interval.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        Interval::around(self.mean, Alternative::TwoSided.critical_z(alpha) * self.sd)
    }

    /// E[max(effect, 0)]: what is lost by keeping the control when more is better,
    /// `s phi(m/s) + m Phi(m/s)`.
    pub fn expected_gain(&self) -> f64 {
        let z = self.mean / self.sd;
        self.sd * (normal_pdf(z) + z * normal_sf(-z))
    }

    /// E[max(-effect, 0)]: what is lost by choosing the treatment when more is better,
    /// `s phi(m/s) - m Phi(-m/s)`.
    pub fn expected_loss(&self) -> f64 {
        let z = self.mean / self.sd;
        self.sd * (normal_pdf(z) - z * normal_sf(z))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECT: Effect = Effect { estimate: 0.2, standard_error: 0.1 };

    /// A prior as precise as the data pulls the mean half way and halves the variance.
    #[test]
    fn a_prior_as_precise_as_the_data_weighs_as_much() {
        let prior = NormalPrior::new(0.0, 0.1).unwrap();
        let posterior = NormalPosterior::new(EFFECT, Some(prior)).unwrap();
        assert!((posterior.mean - 0.1).abs() < 1e-15);
        assert!((posterior.sd - 0.1 / 2f64.sqrt()).abs() < 1e-15);
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
