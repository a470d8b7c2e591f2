//! Metrics that must not get worse. There are two questions, each a one-sided hypothesis with its own null:
//! did the metric get worse (harm), and is it at least not worse than an acceptable margin (non-inferiority)?
//! Every test of this package accepts these hypotheses: fixed horizon, boundary, confidence sequence.

use crate::{
    Alpha, Alternative, Arm, Effect, Invalid, Missing, Moments, NoAnswer, Pair,
    confidence_sequence::{self, Mixing},
    terms::finite,
    two_proportion::{self, ZTest},
    welch::{self, Welch},
};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Revenue, conversions.
    Higher,
    /// Errors, latency.
    Lower,
}

/// A guardrail metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guardrail {
    better: Better,
    margin: f64,
}

/// A one-sided hypothesis: the effect (treatment minus control) is beyond `null` in the direction of the
/// alternative. Test it at a one-sided alpha.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hypothesis {
    /// In the metric's unit.
    pub null: f64,
    /// The side of the null on which the test rejects.
    pub alternative: Alternative,
}

impl Guardrail {
    /// `margin`, in the metric's unit and at least 0, is the acceptable loss.
    pub fn new(better: Better, margin: f64) -> Result<Guardrail, Invalid> {
        if finite("margin", margin)? < 0.0 {
            return Err(Invalid::OutOfRange { what: "margin", value: margin, range: "at least 0" });
        }
        Ok(Guardrail { better, margin })
    }

    /// The hypothesis that the metric got worse at all: null 0.
    pub fn harm(self) -> Hypothesis {
        let alternative = match self.better {
            Better::Higher => Alternative::Less,
            Better::Lower => Alternative::Greater,
        };
        Hypothesis { null: 0.0, alternative }
    }

    /// The hypothesis that the metric lost less than the margin: null `-margin` (or `+margin` where lower is
    /// better). With margin 0 it is the hypothesis that the metric got better.
    pub fn non_inferiority(self) -> Hypothesis {
        match self.better {
            Better::Higher => Hypothesis { null: -self.margin, alternative: Alternative::Greater },
            Better::Lower => Hypothesis { null: self.margin, alternative: Alternative::Less },
        }
    }
}

impl Hypothesis {
    /// The score test of two rates against the null: Farrington & Manning (1990), Statistics in Medicine 9(12);
    /// see [`two_proportion::score_z`]. Its z may be compared with a one-sided boundary.
    pub fn test_rates(self, arms: Pair<Arm>) -> Result<ZTest, NoAnswer> {
        two_proportion::score_z(arms, self.null, self.alternative)
    }

    /// Welch's test of two means against the null; [`Welch::as_z`] may be compared with a one-sided boundary.
    pub fn test_means(self, moments: Pair<Moments>) -> Result<Welch, Missing> {
        welch::test_against(moments, self.null, self.alternative)
    }

    /// Returns z of any estimate that is normal in the limit.
    pub fn z(self, effect: Effect) -> Result<f64, Missing> {
        if effect.standard_error <= 0.0 {
            return Err(Missing::Variation);
        }
        Ok((effect.estimate - self.null) / effect.standard_error)
    }

    /// The always-valid test; its interval is one-sided and valid at all looks at once.
    pub fn always_valid(self, alpha: Alpha, mixing: Mixing) -> Result<confidence_sequence::Design, Invalid> {
        confidence_sequence::Design::new(alpha, self.alternative, mixing)?.against(self.null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Counts,
        group_sequential::{Boundary, Design, Spending},
    };

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(units, conversions)| Arm::new(Counts { units, conversions }).unwrap())
    }

    /// A loss of 0.4 points of 10 % in 20,000 units an arm: no proof of harm, and not worse than one point.
    #[test]
    fn a_small_loss_is_neither_proven_harm_nor_beyond_the_margin() {
        let guardrail = Guardrail::new(Better::Higher, 0.01).unwrap();
        let arms = arms((20_000, 2_000), (20_000, 1_920));
        let harm = guardrail.harm().test_rates(arms).unwrap();
        assert!(harm.p_value > 0.05 && harm.p_value < 0.2, "{harm:?}");
        let kept = guardrail.non_inferiority().test_rates(arms).unwrap();
        assert!(kept.z > 0.0 && kept.p_value < 0.05, "{kept:?}");
        let strict = Guardrail::new(Better::Higher, 0.005).unwrap().non_inferiority();
        assert!(strict.test_rates(arms).unwrap().p_value > 0.05);
    }

    /// Lower is better: the same question about the complement.
    #[test]
    fn the_direction_mirrors() {
        let higher = Guardrail::new(Better::Higher, 0.01).unwrap();
        let lower = Guardrail::new(Better::Lower, 0.01).unwrap();
        let (converted, not) = (arms((1_000, 400), (1_000, 370)), arms((1_000, 600), (1_000, 630)));
        for question in [Guardrail::harm, Guardrail::non_inferiority] {
            let up = question(higher).test_rates(converted).unwrap();
            let down = question(lower).test_rates(not).unwrap();
            assert!(
                (up.z + down.z).abs() < 1e-9 && (up.p_value - down.p_value).abs() < 1e-9,
                "{up:?} {down:?}"
            );
        }
    }

    /// Means of 10 and 9.5 with variance 4 in 100 units: against a margin of 1, t is 0.5 / sqrt(0.08).
    #[test]
    fn means_are_tested_against_the_margin() {
        let moments = Pair { control: 10.0, treatment: 9.5 }
            .map(|mean| Moments::from_variance(100, mean, 4.0).unwrap());
        let kept = Guardrail::new(Better::Higher, 1.0).unwrap().non_inferiority();
        let test = kept.test_means(moments).unwrap();
        assert!((test.t - 0.5 / 0.08_f64.sqrt()).abs() < 1e-12);
        assert!((test.degrees - 198.0).abs() < 1e-9);
        // The interval is of the effect, whatever the null: it excludes -1 exactly when the test rejects.
        let interval = test.interval(Alpha::FIVE_PERCENT);
        assert_eq!(interval.lower > -1.0, test.p_value < 0.05);
    }

    /// The same z on a one-sided boundary and in a confidence sequence.
    #[test]
    fn sequential_versions_take_the_same_hypothesis() {
        let guardrail = Guardrail::new(Better::Higher, 0.01).unwrap();
        let kept = guardrail.non_inferiority();
        let design = Design {
            alpha: Alpha::FIVE_PERCENT,
            alternative: kept.alternative,
            spending: Spending::OBrienFleming,
        };
        let mut boundary = Boundary::new(design);
        let bound = boundary.look(0.5).unwrap();
        let good = kept.test_rates(arms((50_000, 5_000), (50_000, 5_050))).unwrap();
        assert!(bound.rejects(good.z), "{} {}", good.z, bound.critical);
        let sequence = kept.always_valid(Alpha::FIVE_PERCENT, Mixing::TunedForUnits(100_000.0)).unwrap();
        let look = sequence.look_at_rates(arms((50_000, 5_000), (50_000, 5_050))).unwrap();
        assert!(look.p_value < 0.05 && look.interval.lower > -0.01, "{look:?}");
        assert_eq!(look.interval.upper, f64::INFINITY);
    }

    #[test]
    fn a_margin_is_at_least_0() {
        assert!(Guardrail::new(Better::Higher, -0.1).is_err());
        assert!(Guardrail::new(Better::Higher, f64::NAN).is_err());
        let nothing = Effect { estimate: 1.0, standard_error: 0.0 };
        let harm = Guardrail::new(Better::Higher, 0.0).unwrap().harm();
        assert_eq!(harm.z(nothing), Err(Missing::Variation));
    }
}
