//! Intervals and p-values that are valid at every moment, however often and for whatever reason one
//! looks. The mixture sequential probability ratio test (mSPRT) and the asymptotic confidence
//! sequence are one formula with different mixing ratios, so one function computes both.
//!
//! Validity is asymptotic. For conversions the plug-in variance fails while an arm has few of
//! them, hence the pooled variance and the gate of [`Design::look_at_rates`].

use crate::{
    Alpha, Alternative, Arm, Effect, Interval, Invalid, Missing, Moments, NoAnswer, Pair,
    few_conversions::Few,
    lift::means_of_moments,
    proportion_interval::{Score, score_at},
    terms::{finite, measured, positive},
    two_proportion::score_z,
};

pub use crate::few_conversions::{MIN_CONVERSIONS, MIN_CONVERSIONS_UNEVEN, UNEVEN_SHARE};

/// The total units for which the interval is tuned when no horizon is planned (GrowthBook's
/// default).
pub const DEFAULT_TUNING_UNITS: f64 = 5000.0;

/// The largest distance in standard errors; larger ones are cut to it.
const ERRORS_MAX: f64 = 1e150;

/// The mixing distribution over effect sizes. It is fixed before the first look and never changes during the
/// experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixing {
    /// mSPRT: the prior standard deviation of the effect, in the metric's unit. The minimum
    /// detectable effect is a good choice; a fourth of it costs nearly all power, 2.5 times it
    /// costs little.
    EffectSd(f64),
    /// Asymptotic confidence sequence: narrowest near this many units of both arms together (the
    /// planned total).
    TunedForUnits(f64),
}

/// The plan of an always-valid analysis, fixed before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    alpha: Alpha,
    alternative: Alternative,
    mixing: Mixing,
    null: f64,
}

/// The result of one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Treatment minus control in the metric's unit, with the error that this look used.
    pub effect: Effect,
    /// The logarithm of the e-value, which measures the evidence against the null; 0 at the start. Two-sided
    /// only.
    pub log_e_value: f64,
    /// The p-value of this look; [`Monitor`] keeps the smallest.
    pub p_value: f64,
    /// Covers the effect at all looks at once with probability 1 - alpha.
    pub interval: Interval,
}

impl Design {
    /// `alpha` is the level over all looks together; the mixing's number must be [`measured`] and above 0.
    pub fn new(alpha: Alpha, alternative: Alternative, mixing: Mixing) -> Result<Design, Invalid> {
        let (what, value) = match mixing {
            Mixing::EffectSd(sd) => ("prior sd of the effect", sd),
            Mixing::TunedForUnits(units) => ("units to tune for", units),
        };
        positive(what, measured(what, value)?)?;
        Ok(Design { alpha, alternative, mixing, null: 0.0 })
    }

    /// The error probability of [`Look::interval`].
    pub fn alpha(&self) -> Alpha {
        self.alpha
    }

    /// Returns the design with `null`, in the metric's unit, as the null instead of 0.
    pub fn against(self, null: f64) -> Result<Design, Invalid> {
        Ok(Design { null: finite("null effect", null)?, ..self })
    }

    /// Looks at an estimate that is normal in the limit, from `units` in both arms together.
    ///
    /// With Z = (estimate - null) / se and mixing ratio r:
    /// `log e = r Z^2 / (2 (1 + r)) - ln(1 + r) / 2`, `p = min(1, 1/e)`,
    /// `half width = se sqrt((1 + 1/r) (2 ln(1/alpha) + ln(1 + r)))`.
    /// Robbins (1970), Annals of Mathematical Statistics 41(5); Johari, Koomen, Pekelis & Walsh
    /// (2022), Operations Research 70(3), with r = tau^2 / se^2; Waudby-Smith et al. (2024),
    /// Annals of Statistics 52(6) (equation 9 of arXiv 2103.06476v7), with r = N rho^2.
    ///
    /// Without variation (se = 0) nothing is known yet: e = 1 and the interval is everything. A distance of
    /// more than 10^150 standard errors is cut to that number, whose square is still finite.
    pub fn look(&self, effect: Effect, units: u64) -> Look {
        if effect.standard_error <= 0.0 || units == 0 {
            return Look { effect, log_e_value: 0.0, p_value: 1.0, interval: Interval::EVERYTHING };
        }
        let ratio = self.mixing_ratio(effect.standard_error, units);
        let z = ((effect.estimate - self.null) / effect.standard_error).clamp(-ERRORS_MAX, ERRORS_MAX);
        Look {
            effect,
            log_e_value: log_e_value(z, ratio),
            p_value: self.p_value(z, ratio),
            interval: self.alternative.of_interval(effect.interval(self.critical(ratio))),
        }
    }

    /// Looks at two conversion rates, with the variance under the null (the pooled one for no difference).
    /// The interval contains every difference that the score statistic does not reject at the
    /// sequence's critical value, so it excludes the null exactly when the p-value is at most alpha.
    ///
    /// Returns [`Missing::Conversions`] while an arm has fewer than [`MIN_CONVERSIONS`]
    /// ([`MIN_CONVERSIONS_UNEVEN`] for splits beyond 80/20), and [`Missing::Unconverted`] while it has fewer
    /// units without a conversion and they are the rarer ones. No asymptotic result is valid then, see
    /// [`crate::few_conversions`].
    pub fn look_at_rates(&self, arms: Pair<Arm>) -> Result<Look, Missing> {
        if let Some(few) = Few::of_rates(arms) {
            return Err(few.missing());
        }
        let score = match score_z(arms, self.null, Alternative::TwoSided) {
            Ok(score) if score.effect.standard_error > 0.0 => score,
            Err(NoAnswer::Missing(missing)) => return Err(missing),
            // No variation, or a null that is no possible difference of two rates.
            Ok(_) | Err(NoAnswer::Invalid(_)) => return Err(Missing::Variation),
        };
        let units = arms.control.units().saturating_add(arms.treatment.units());
        let ratio = self.mixing_ratio(score.effect.standard_error, units);
        let interval = score_at(arms, self.critical(ratio), Score::Mee)?;
        Ok(Look {
            effect: score.effect,
            log_e_value: log_e_value(score.z, ratio),
            p_value: self.p_value(score.z, ratio),
            interval: self.alternative.of_interval(interval),
        })
    }

    /// Looks at two means, with each arm's own variance.
    pub fn look_at_means(&self, moments: Pair<Moments>) -> Result<Look, Missing> {
        let means = means_of_moments(moments)?;
        let variance = means.control.variance + means.treatment.variance;
        if variance == 0.0 {
            return Err(Missing::Variation);
        }
        let effect =
            Effect { estimate: means.treatment.mean - means.control.mean, standard_error: variance.sqrt() };
        Ok(self.look(effect, moments.control.count().saturating_add(moments.treatment.count())))
    }

    /// rho^2 of the asymptotic confidence sequence, `(-2 ln a + ln(-2 ln a + 1)) / N*`, where a is
    /// the level, doubled when one-sided: equation 161 of arXiv 2103.06476v7. `None` for mSPRT.
    pub fn rho_squared(&self) -> Option<f64> {
        match self.mixing {
            Mixing::EffectSd(_) => None,
            Mixing::TunedForUnits(tuned) => {
                let a = match self.alternative {
                    Alternative::TwoSided => self.alpha.get(),
                    // A doubled level of 1 or more has no tuning, so it is cut below 1.
                    _ => (2.0 * self.alpha.get()).min(0.999),
                };
                let b = -2.0 * a.ln();
                Some((b + b.ln_1p()) / tuned)
            }
        }
    }

    fn mixing_ratio(&self, standard_error: f64, units: u64) -> f64 {
        match self.mixing {
            Mixing::EffectSd(sd) => (sd / standard_error).min(ERRORS_MAX).powi(2),
            Mixing::TunedForUnits(_) => units as f64 * self.rho_squared().expect("tuned for units"),
        }
    }

    /// The |Z| from which a look at these units rejects, for a sequence tuned for units.
    pub(crate) fn critical_at(&self, units: f64) -> f64 {
        self.critical(units * self.rho_squared().expect("tuned for units"))
    }

    /// The |Z| from which the look rejects. One-sided: equation 134 of arXiv 2103.06476v7,
    /// `sqrt(2 (1 + 1/r) ln(1 + sqrt(1 + r) / (2 alpha)))`.
    fn critical(&self, ratio: f64) -> f64 {
        let alpha = self.alpha.get();
        let squared = match self.alternative {
            Alternative::TwoSided => (1.0 + 1.0 / ratio) * (ratio.ln_1p() - 2.0 * alpha.ln()),
            _ => 2.0 * (1.0 + 1.0 / ratio) * ((1.0 + ratio).sqrt() / (2.0 * alpha)).ln_1p(),
        };
        squared.sqrt()
    }

    /// The smallest level at which [`Design::critical`] would reject.
    fn p_value(&self, z: f64, ratio: f64) -> f64 {
        let toward = match self.alternative {
            Alternative::TwoSided => return (-log_e_value(z, ratio)).exp().min(1.0),
            Alternative::Greater => z,
            Alternative::Less => -z,
        };
        if toward <= 0.0 {
            return 1.0;
        }
        let exponent = z * z / (2.0 * (1.0 + 1.0 / ratio));
        ((1.0 + ratio).sqrt() / (2.0 * exponent.exp_m1())).min(1.0)
    }
}

/// The logarithm of the normal mixture likelihood ratio at mixing ratio `ratio`.
fn log_e_value(z: f64, ratio: f64) -> f64 {
    0.5 * (z * z / (1.0 + 1.0 / ratio) - ratio.ln_1p())
}

/// The summary of all looks so far. An always-valid p-value never rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Monitor {
    /// The smallest p-value of any look.
    pub p_value: f64,
    /// The intersection of all intervals so far. It is valid only for an effect that does not change
    /// over time, and empty (lower above upper) when the effect did change; show the current interval instead.
    pub interval: Interval,
}

impl Monitor {
    /// The state before the first look.
    pub const START: Monitor = Monitor { p_value: 1.0, interval: Interval::EVERYTHING };

    /// Adds one look.
    pub fn after(self, look: &Look) -> Monitor {
        Monitor {
            p_value: self.p_value.min(look.p_value),
            interval: Interval {
                lower: self.interval.lower.max(look.interval.lower),
                upper: self.interval.upper.min(look.interval.upper),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Counts, Side};

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(units, conversions)| Arm::new(Counts { units, conversions }).unwrap())
    }

    fn tuned(alternative: Alternative) -> Design {
        Design::new(Alpha::FIVE_PERCENT, alternative, Mixing::TunedForUnits(5000.0)).unwrap()
    }

    #[test]
    fn too_few_conversions_give_no_look() {
        let design = tuned(Alternative::TwoSided);
        let early = design.look_at_rates(arms((500, 9), (500, 40)));
        let missing = Missing::Conversions { arm: Side::Control, have: 9, need: 10 };
        assert_eq!(early, Err(missing));
        assert!(design.look_at_rates(arms((500, 10), (500, 40))).is_ok());
    }

    #[test]
    fn a_split_beyond_80_to_20_needs_25_conversions() {
        let design = tuned(Alternative::TwoSided);
        assert!(design.look_at_rates(arms((800, 50), (200, 10))).is_ok());
        let early = design.look_at_rates(arms((801, 50), (199, 24)));
        let missing = Missing::Conversions { arm: Side::Treatment, have: 24, need: 25 };
        assert_eq!(early, Err(missing));
        assert!(design.look_at_rates(arms((801, 50), (199, 25))).is_ok());
    }

    #[test]
    fn mixing_parameters_must_be_positive() {
        for mixing in [Mixing::EffectSd(0.0), Mixing::TunedForUnits(f64::NAN), Mixing::EffectSd(1e-300)] {
            assert!(Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, mixing).is_err());
        }
    }

    /// However far the estimate is from 0 or the prior from the error, only an open end is infinite.
    #[test]
    fn extreme_ratios_have_finite_results() {
        for alternative in [Alternative::TwoSided, Alternative::Greater, Alternative::Less] {
            for (sd, estimate, standard_error) in
                [(1e100, 1e100, 1e-120), (1e-100, 1.0, 1e100), (1.0, -1e200, 1e-99)]
            {
                let design = Design::new(Alpha::FIVE_PERCENT, alternative, Mixing::EffectSd(sd)).unwrap();
                let look = design.look(Effect { estimate, standard_error }, 10);
                assert!(look.log_e_value.is_finite() && (0.0..=1.0).contains(&look.p_value), "{look:?}");
                assert!(!look.interval.lower.is_nan() && !look.interval.upper.is_nan(), "{look:?}");
                assert_eq!(look.p_value < 0.05, !look.interval.contains(0.0), "{look:?}");
            }
        }
    }

    #[test]
    fn the_p_value_never_rises_again() {
        let design = Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, Mixing::EffectSd(1.0)).unwrap();
        let look = |estimate| design.look(Effect { estimate, standard_error: 0.5 }, 100);
        let monitor = Monitor::START.after(&look(2.0)).after(&look(0.1));
        assert_eq!(monitor.p_value, look(2.0).p_value);
        assert!(look(0.1).p_value > monitor.p_value);
    }

    proptest! {
        /// Interval and p-value never contradict each other, on either side of alpha.
        #[test]
        fn the_interval_excludes_the_null_exactly_when_p_is_at_most_alpha(
            n_c in 1000u64..20_000,
            n_t in 1000u64..20_000,
            rates in (0.05f64..0.95, -0.05f64..0.05),
            side in 0..3,
        ) {
            let alternative =
                [Alternative::TwoSided, Alternative::Greater, Alternative::Less][side as usize];
            let conversions = |n: u64, p: f64| (n as f64 * p).round() as u64;
            let arms = arms(
                (n_c, conversions(n_c, rates.0)),
                (n_t, conversions(n_t, (rates.0 + rates.1).clamp(0.03, 0.97))),
            );
            for null in [0.0, -0.01] {
                let design = tuned(alternative).against(null).unwrap();
                let look = design.look_at_rates(arms).unwrap();
                prop_assume!((look.p_value - 0.05).abs() > 1e-9);
                prop_assert_eq!(look.p_value < 0.05, !look.interval.contains(null));
            }
        }
    }
}
