//! Conversion rates with independent Beta posteriors, compared. Every probability is one integral of
//! positive terms, so small ones keep their digits.

use super::beta::{BetaPosterior, piecewise};
use crate::{Alpha, Interval, Invalid, Pair};

/// Two rates side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates(pub Pair<BetaPosterior>);

impl Rates {
    /// P(treatment rate > control rate). The other side is this of the exchanged pair: `1 - P`
    /// would lose the digits of a small one.
    pub fn probability_treatment_better(&self) -> f64 {
        let Pair { control, treatment } = self.0;
        treatment.mean_of(&control.marks(), |p| control.cdf(p))
    }

    /// What choosing the treatment loses in rate, E[max(p_c - p_t, 0)].
    pub fn expected_loss_of_treatment(&self) -> f64 {
        expected_excess(self.0.control, self.0.treatment)
    }

    /// What keeping the control loses in rate, E[max(p_t - p_c, 0)].
    pub fn expected_loss_of_control(&self) -> f64 {
        expected_excess(self.0.treatment, self.0.control)
    }

    /// The posterior mean of p_t - p_c, from -1 to 1.
    pub fn expected_difference(&self) -> f64 {
        self.0.treatment.mean() - self.0.control.mean()
    }

    /// The equal-tailed credible interval of p_t - p_c, its ends by bisection to 1e-12.
    pub fn interval_of_difference(&self, level: Alpha) -> Interval {
        let tail = level.get() / 2.0;
        Interval { lower: self.quantile(tail), upper: self.quantile(1.0 - tail) }
    }

    /// The d with P(p_t - p_c <= d) = `probability`.
    fn quantile(&self, probability: f64) -> f64 {
        let Pair { control, treatment } = self.0;
        let (mut low, mut high) = (-1.0, 1.0);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            let [start, peak, end] = treatment.marks();
            let moved = [0.0, start, peak, end, 1.0].map(|rate| rate - middle);
            let below = control.mean_of(&moved, |p| treatment.cdf(p + middle));
            if below < probability {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}

/// E[max(higher - lower, 0)] as the integral of P(higher > u) P(lower < u) over the rate u.
fn expected_excess(higher: BetaPosterior, lower: BetaPosterior) -> f64 {
    let mut edges = vec![0.0, 1.0];
    edges.extend(higher.marks());
    edges.extend(lower.marks());
    edges.sort_by(f64::total_cmp);
    piecewise(&edges, |u| higher.sf(u) * lower.cdf(u))
}

/// The probability of each of at least two rates to be the largest, in the order given.
pub fn best_of(posteriors: &[BetaPosterior]) -> Result<Vec<f64>, Invalid> {
    if posteriors.len() < 2 {
        return Err(Invalid::TooFew { what: "arms", have: posteriors.len(), need: 2 });
    }
    let of = |index: usize| {
        let others: Vec<BetaPosterior> =
            posteriors.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, p)| *p).collect();
        let breaks: Vec<f64> = others.iter().flat_map(BetaPosterior::marks).collect();
        posteriors[index].mean_of(&breaks, |p| others.iter().map(|other| other.cdf(p)).product())
    };
    Ok((0..posteriors.len()).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arm, Counts, bayes::BetaPrior};

    fn rates(control: (u64, u64), treatment: (u64, u64)) -> Rates {
        Rates(Pair { control, treatment }.map(|(conversions, units)| {
            BetaPrior::UNIFORM.after(Arm::new(Counts { units, conversions }).unwrap())
        }))
    }

    /// Against Beta(1, 1) the probability is the other's mean: P(p > uniform) = E[p].
    #[test]
    fn against_a_uniform_rate_the_mean_decides() {
        let found = rates((0, 0), (3, 8)).probability_treatment_better();
        assert!((found - 0.4).abs() < 1e-12, "{found}");
    }

    /// A million units against two: the step of one posterior is 1000 times narrower.
    #[test]
    fn posteriors_of_very_different_width() {
        let found = rates((200_000, 1_000_000), (0, 0));
        let p = found.0.control.mean();
        let got = found.probability_treatment_better();
        assert!((got - (1.0 - p)).abs() < 1e-9, "{got} {p}");
        let exchanged = rates((0, 0), (200_000, 1_000_000));
        assert!((exchanged.probability_treatment_better() - p).abs() < 1e-9);
        // E[max(u - p, 0)] = E[(1 - p)^2] / 2 for u uniform.
        let expected = (1.0 - p).powi(2) / 2.0;
        assert!((found.expected_loss_of_control() - expected).abs() < 1e-6);
    }

    #[test]
    fn the_best_of_equals_share() {
        let one = BetaPrior::UNIFORM.after(Arm::default());
        for share in best_of(&[one, one, one]).unwrap() {
            assert!((share - 1.0 / 3.0).abs() < 1e-12);
        }
        assert!(best_of(&[one]).is_err());
    }
}
