//! Probability distributions of counts: binomial, hypergeometric, and sums of independent counts.

use crate::TreatmentShare;

/// Counts with less than this share of the most probable count's mass are dropped: they add far less to any
/// tail than the alpha that may be spent.
const NEGLIGIBLE_MASS: f64 = 1e-22;

/// The probabilities of a success and of a failure, both above 0. Both are kept, so that neither loses digits
/// when the other is close to 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    pub(crate) success: f64,
    pub(crate) failure: f64,
}

impl From<TreatmentShare> for Chance {
    fn from(share: TreatmentShare) -> Chance {
        Chance { success: share.get(), failure: share.of_control() }
    }
}

/// The probability of each count from `first` on; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Mass {
    first: u64,
    mass: Vec<f64>,
}

impl Mass {
    /// The distribution of a count that is certainly 0.
    pub(crate) fn none() -> Mass {
        Mass { first: 0, mass: vec![1.0] }
    }

    /// The distribution of the number of successes in `trials` trials.
    pub(crate) fn binomial(trials: u64, chance: Chance) -> Mass {
        let odds = chance.success / chance.failure;
        let mode = (((trials + 1) as f64 * chance.success) as u64).min(trials);
        Mass::around(mode, 0, trials, |k| (trials - k) as f64 / (k + 1) as f64 * odds)
    }

    /// The distribution on `smallest..=largest` in which `k + 1` is `up(k)` times as probable as `k`; `up`
    /// must fall with k. It is built outward from the mode, so that no factorial is evaluated.
    pub(crate) fn around(mode: u64, smallest: u64, largest: u64, up: impl Fn(u64) -> f64) -> Mass {
        let mut below = Vec::new();
        let mut weight = 1.0;
        for k in (smallest..mode).rev() {
            weight /= up(k);
            if weight < NEGLIGIBLE_MASS {
                break;
            }
            below.push(weight);
        }
        let first = mode - below.len() as u64;
        let mut mass: Vec<f64> = below.into_iter().rev().collect();
        mass.push(1.0);
        weight = 1.0;
        for k in mode..largest {
            weight *= up(k);
            if weight < NEGLIGIBLE_MASS {
                break;
            }
            mass.push(weight);
        }
        let all: f64 = mass.iter().sum();
        for weight in &mut mass {
            *weight /= all;
        }
        Mass { first, mass }
    }

    /// The smallest count that was not dropped.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// One above the largest count that was not dropped.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.mass.len() as u64
    }

    /// The probabilities of at most and of at least `count`, each from 0 to 1; without the dropped counts.
    pub(crate) fn tails(&self, count: u64) -> (f64, f64) {
        let place = |count: u64| (count.saturating_sub(self.first) as usize).min(self.mass.len());
        let at_most = self.mass[..place(count.saturating_add(1))].iter().sum::<f64>();
        let at_least = self.mass[place(count)..].iter().sum::<f64>();
        (at_most.min(1.0), at_least.min(1.0))
    }

    /// The distribution of the sum of this count and an independent one.
    pub(crate) fn after(&self, step: &Mass) -> Mass {
        let mut mass = vec![0.0; self.mass.len() + step.mass.len() - 1];
        for (i, a) in self.mass.iter().enumerate() {
            for (j, b) in step.mass.iter().enumerate() {
                mass[i + j] += a * b;
            }
        }
        Mass { first: self.first + step.first, mass }.trimmed()
    }

    fn trimmed(mut self) -> Mass {
        let largest = self.mass.iter().copied().fold(0.0, f64::max);
        let limit = largest * NEGLIGIBLE_MASS;
        let kept = |mass: &f64| *mass >= limit;
        let low = self.mass.iter().position(kept).unwrap_or(0);
        let high = self.mass.iter().rposition(kept).unwrap_or(0);
        self.mass.truncate(high + 1);
        self.mass.drain(..low);
        self.first += low as u64;
        self
    }

    /// Removes as many of the lowest counts as have at most this probability together, and returns their
    /// probability.
    pub(crate) fn cut_low(&mut self, at_most: f64) -> f64 {
        let (cut, crossed) = count_within(self.mass.iter(), at_most);
        self.mass.drain(..cut);
        self.first += cut as u64;
        crossed
    }

    /// Does the same with the highest counts.
    pub(crate) fn cut_high(&mut self, at_most: f64) -> f64 {
        let (cut, crossed) = count_within(self.mass.iter().rev(), at_most);
        self.mass.truncate(self.mass.len() - cut);
        crossed
    }
}

/// Returns how many of the first masses have at most this sum together, and their sum; the last one never
/// counts.
fn count_within<'a>(mass: impl ExactSizeIterator<Item = &'a f64>, at_most: f64) -> (usize, f64) {
    let last = mass.len() - 1;
    let mut sum = 0.0;
    for (index, of) in mass.enumerate() {
        if index == last || sum + of > at_most {
            return (index, sum);
        }
        sum += of;
    }
    unreachable!("the last one ends it")
}
