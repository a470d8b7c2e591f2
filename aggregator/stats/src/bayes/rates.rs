//! Compares conversion rates with independent Beta posteriors. Every probability is one integral of positive
//! terms, so small ones are accurate too. At 2^53 units the rounding of the counts' logarithms is a part in
//! 10^8 of a standard deviation; that is the error of all results of this module, in the units of z.

use super::{
    beta::BetaPosterior,
    log_odds::{Bell, piecewise},
};
use crate::{Alpha, Interval, Invalid, Pair, distributions::normal_quantile};

/// The posteriors of both arms' rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates(pub Pair<BetaPosterior>);

impl Rates {
    /// P(treatment rate > control rate). For the opposite probability exchange the pair: `1 - P`
    /// would lose the digits of a small one.
    pub fn probability_treatment_better(&self) -> f64 {
        let Pair { control, treatment } = self.bells();
        largest(&treatment, &[control])
    }

    /// The expected loss of rate by choosing the treatment, E[max(p_c - p_t, 0)].
    pub fn expected_loss_of_treatment(&self) -> f64 {
        let Pair { control, treatment } = self.bells();
        expected_excess(&control, &treatment)
    }

    /// The expected loss of rate by keeping the control, E[max(p_t - p_c, 0)].
    pub fn expected_loss_of_control(&self) -> f64 {
        let Pair { control, treatment } = self.bells();
        expected_excess(&treatment, &control)
    }

    /// The posterior mean of p_t - p_c, from -1 to 1.
    pub fn expected_difference(&self) -> f64 {
        let Pair { control, treatment } = self.bells();
        treatment.mean_minus(&control)
    }

    /// The equal-tailed credible interval of p_t - p_c; its ends are accurate to 1e-12 of its width.
    pub fn interval_of_difference(&self, level: Alpha) -> Interval {
        let (Pair { control, treatment }, tail) = (self.bells(), level.get() / 2.0);
        let lower = lower_quantile_of_difference(&treatment, &control, tail);
        let upper = -lower_quantile_of_difference(&control, &treatment, tail);
        // See `BetaPosterior::interval`.
        Interval { lower: lower.min(upper), upper: upper.max(lower) }
    }

    fn bells(&self) -> Pair<Bell> {
        self.0.map(|posterior| posterior.bell())
    }
}

/// P(the rate of `one` is above those of all `others`).
fn largest(one: &Bell, others: &[Bell]) -> f64 {
    let shifts: Vec<f64> = others.iter().map(|other| other.peak_in(one)).collect();
    let marks = others.iter().zip(&shifts).flat_map(|(other, &shift)| {
        let own = other.marks();
        own.into_iter().map(move |mark| mark + shift)
    });
    let breaks: Vec<f64> = marks.collect();
    let below_all =
        |place: f64| others.iter().zip(&shifts).map(|(other, shift)| other.below(place - shift)).product();
    one.mean_of(&shifts, &breaks, below_all).min(1.0)
}

/// E[max(higher - lower, 0)] as the integral of P(higher > r) P(lower < r) over the rate r, which is given by
/// its place in `lower`.
fn expected_excess(higher: &Bell, lower: &Bell) -> f64 {
    let shift = higher.peak_in(lower);
    let mut edges = lower.marks();
    edges.extend(higher.marks().into_iter().map(|mark| mark + shift));
    // A rate changes with its place only around log odds of 0, which may be between the two peaks.
    edges.extend([-30.0, -10.0, 0.0, 10.0, 30.0].map(|log_odds| lower.place_of_log_odds(log_odds)));
    edges.sort_by(f64::total_cmp);
    piecewise(&edges, |place| {
        let rate = lower.rate_at(place);
        higher.above(place - shift) * lower.below(place) * rate.p * rate.rest
    })
}

/// The d with P(y - x <= d) = `tail`, which is at most a half.
fn lower_quantile_of_difference(y: &Bell, x: &Bell, tail: f64) -> f64 {
    let means = x.mean_minus(y);
    // P(y <= x + d), over x: the rate x + d by its distance from the mean of y.
    let probability = |d: f64| {
        let place_in_y = |place: f64| y.place_of(x.distance_from_mean(place) + means + d);
        let breaks: Vec<f64> =
            y.marks().into_iter().map(|mark| x.place_of(y.distance_from_mean(mark) - means - d)).collect();
        x.mean_of(&[], &breaks, |place| y.below(place_in_y(place)))
    };
    let nats = 60.0 - tail.ln();
    let ((x_low, x_high), (y_low, y_high)) = (x.reach_of(nats), y.reach_of(nats));
    let low = y.distance_from_mean(y_low) - x.distance_from_mean(x_high) - means;
    let high = y.distance_from_mean(y_high) - x.distance_from_mean(x_low) - means;
    // As normal deviates, which are nearly a straight line over d.
    let wanted = normal_quantile(tail);
    let deviate = |d: f64| normal_quantile(probability(d).clamp(f64::MIN_POSITIVE, 1.0)).min(40.0) - wanted;
    rising_root(low, high, deviate)
}

/// Returns where a rising function is 0, to 1e-13 of the bracket: by the secant method, and by bisection
/// where that is slow.
fn rising_root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const STEPS: usize = 100;
    let width = high - low;
    let (mut at_low, mut at_high) = (f(low), f(high));
    let mut halve = false;
    for _ in 0..STEPS {
        let before = high - low;
        if before <= 1e-13 * width {
            break;
        }
        let share = if halve || at_high - at_low <= 0.0 {
            0.5
        } else {
            (-at_low / (at_high - at_low)).clamp(0.0, 1.0)
        };
        // Slightly towards the middle, so that both ends close in.
        let middle = low + (share + 1e-9 * (0.5 - share).signum()) * before;
        let at = f(middle);
        if at < 0.0 {
            (low, at_low) = (middle, at);
        } else {
            (high, at_high) = (middle, at);
        }
        halve = high - low > 0.5 * before;
    }
    0.5 * (low + high)
}

/// Returns, for each of at least two rates, the probability that it is the largest, in the order given.
pub fn best_of(posteriors: &[BetaPosterior]) -> Result<Vec<f64>, Invalid> {
    if posteriors.len() < 2 {
        return Err(Invalid::TooFew { what: "arms", have: posteriors.len(), need: 2 });
    }
    let bells: Vec<Bell> = posteriors.iter().map(BetaPosterior::bell).collect();
    let of = |index: usize| {
        let others: Vec<Bell> =
            bells.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, bell)| *bell).collect();
        largest(&bells[index], &others)
    };
    Ok((0..bells.len()).map(of).collect())
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
    fn the_probability_to_exceed_a_uniform_rate_is_the_mean() {
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

    /// A rate of nearly 1 against one of nearly 0: the rates between them are out of reach of both densities.
    #[test]
    fn rates_far_apart_lose_their_whole_difference() {
        let n = 1 << 53;
        let found = rates((n - 3, n), (0, 1 << 28));
        assert!((found.expected_loss_of_treatment() / -found.expected_difference() - 1.0).abs() < 1e-12);
        assert_eq!(found.expected_loss_of_control(), 0.0);
        // Each rate is almost surely 0 or 1: a quarter of the pairs are 1 and 0.
        let prior = BetaPrior::new(1e-6, 1e-6).unwrap().after(Arm::default());
        let undecided = Rates(Pair { control: prior, treatment: prior });
        assert!((undecided.probability_treatment_better() - 0.5).abs() < 1e-9);
        assert!((undecided.expected_loss_of_treatment() - 0.25).abs() < 1e-5);
    }

    #[test]
    fn equal_rates_are_equally_likely_to_be_the_best() {
        let one = BetaPrior::UNIFORM.after(Arm::default());
        for share in best_of(&[one, one, one]).unwrap() {
            assert!((share - 1.0 / 3.0).abs() < 1e-12);
        }
        assert!(best_of(&[one]).is_err());
    }
}
