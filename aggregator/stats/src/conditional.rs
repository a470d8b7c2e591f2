//! Exact tests and intervals of two counts given their sum, for any counts, zero included.
//!
//! Given the number of conversions in both arms, the treatment's conversions are binomial with the
//! treatment's share of the units if units are assigned one by one and independently. Conversions may come
//! late: the arm of a conversion is not known before it comes. Given the units of both arms too, they are
//! hypergeometric (Fisher); that needs final outcomes. At low rates the two agree; at higher rates the
//! binomial test is more cautious, because its variance is larger by 1 / (1 - rate).

use crate::{
    Alpha, Alternative, Arm, Interval, Invalid, Missing, Pair,
    bayes::{BetaPosterior, BetaPrior},
    terms::between_0_and_1,
    two_proportion::fisher_exact,
};

/// Both tail probabilities of an observed count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tails {
    /// The probability of at most the observed count.
    pub at_most: f64,
    /// The probability of at least the observed count.
    pub at_least: f64,
}

impl Tails {
    /// Twice the smaller tail, at most 1: each side is tested at half of alpha.
    pub fn p_value(self) -> f64 {
        (2.0 * self.at_most.min(self.at_least)).min(1.0)
    }
}

/// Returns the tails of the treatment's count, as a binomial of the sum with the treatment's share of the
/// units.
pub fn binomial_tails(counts: Pair<u64>, treatment_share: f64) -> Result<Tails, Invalid> {
    let share = between_0_and_1("treatment share", treatment_share)?;
    let Pair { control, treatment } = counts;
    // P(X <= x) of n trials is the upper tail of Beta(x + 1, n - x).
    let at_most = if control == 0 { 1.0 } else { beta(treatment as f64 + 1.0, control as f64)?.sf(share) };
    let at_least =
        if treatment == 0 { 1.0 } else { beta(control as f64 + 1.0, treatment as f64)?.sf(1.0 - share) };
    Ok(Tails { at_most, at_least })
}

/// ln(treatment rate / control rate), from Clopper and Pearson's limits (1934, Biometrika 26(4)) of the
/// treatment's share theta: logit theta - logit share. `below` is the level of the lower limit and `above`
/// that of the upper one, each from 0 (no limit) to below 1/2. A limit excludes 0 where the tail of
/// [`binomial_tails`] is below its level.
pub fn log_rate_ratio(counts: Pair<u64>, treatment_share: f64, levels: Levels) -> Result<Interval, Invalid> {
    let share = between_0_and_1("treatment share", treatment_share)?;
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let Pair { control, treatment } = counts.map(|count| count as f64);
    let mut interval = Interval::EVERYTHING;
    if treatment > 0.0 && levels.below > 0.0 {
        let level = Alpha::new(2.0 * levels.below)?;
        interval.lower = logit(beta(treatment, control + 1.0)?.interval(level).lower) - logit(share);
    }
    if control > 0.0 && levels.above > 0.0 {
        // The other arm's share, so that the limit keeps its digits close to 1.
        let level = Alpha::new(2.0 * levels.above)?;
        interval.upper = logit(1.0 - share) - logit(beta(control, treatment + 1.0)?.interval(level).lower);
    }
    Ok(interval)
}

/// The probability that each limit of an interval is on the wrong side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// For the lower limit; 0 for no limit.
    pub below: f64,
    /// For the upper limit; 0 for no limit.
    pub above: f64,
}

impl Levels {
    /// Puts half of alpha on each side.
    pub fn central(alpha: Alpha) -> Levels {
        let half = alpha.get() / 2.0;
        Levels { below: half, above: half }
    }
}

fn beta(alpha: f64, beta: f64) -> Result<BetaPosterior, Invalid> {
    Ok(BetaPrior::new(alpha, beta)?.after(Arm::default()))
}

/// Returns the tails of the treatment's conversions as hypergeometric, given both arms' units: Fisher's exact
/// test (1935, JRSS 98(1)), one tail at a time.
pub fn fisher_tails(arms: Pair<Arm>) -> Result<Tails, Missing> {
    Ok(Tails {
        at_most: fisher_exact(arms, Alternative::Less)?,
        at_least: fisher_exact(arms, Alternative::Greater)?,
    })
}

/// The exact interval of the log odds ratio, treatment over control (Cornfield 1956, Proceedings of the Third
/// Berkeley Symposium 4; R's `fisher.test`): every odds ratio whose noncentral hypergeometric distribution
/// leaves both tails of the observed count at half of alpha or more. It excludes 0 exactly where
/// [`fisher_tails`]' p-value is below alpha.
pub fn log_odds_ratio(arms: Pair<Arm>, alpha: Alpha) -> Interval {
    let table = Noncentral::new(arms);
    let half = alpha.get() / 2.0;
    let lower = if table.observed == table.smallest {
        f64::NEG_INFINITY
    } else {
        crossing(-1.0, |log_odds| table.at_least(log_odds) < half)
    };
    let upper = if table.observed == table.largest {
        f64::INFINITY
    } else {
        crossing(1.0, |log_odds| table.at_most(log_odds) < half)
    };
    Interval { lower, upper }
}

/// Returns the point in `direction` from which `rejects` is true. It must be false before that point and true
/// from it on.
fn crossing(direction: f64, rejects: impl Fn(f64) -> bool) -> f64 {
    let (mut accepted, mut step) = (0.0, direction);
    while rejects(accepted) {
        accepted -= step;
        step *= 2.0;
    }
    step = direction;
    while !rejects(accepted + step) {
        accepted += step;
        step *= 2.0;
    }
    let mut rejected = accepted + step;
    for _ in 0..60 {
        let middle = 0.5 * (accepted + rejected);
        if rejects(middle) {
            rejected = middle;
        } else {
            accepted = middle;
        }
    }
    0.5 * (accepted + rejected)
}

/// The distribution of the treatment's conversions given all margins, at any odds ratio.
struct Noncentral {
    treated: u64,
    untreated: u64,
    converted: u64,
    smallest: u64,
    largest: u64,
    observed: u64,
}

impl Noncentral {
    fn new(arms: Pair<Arm>) -> Noncentral {
        let (treated, untreated) = (arms.treatment.units(), arms.control.units());
        let converted = arms.treatment.conversions() + arms.control.conversions();
        Noncentral {
            treated,
            untreated,
            converted,
            smallest: converted.saturating_sub(untreated),
            largest: converted.min(treated),
            observed: arms.treatment.conversions(),
        }
    }

    fn at_most(&self, log_odds: f64) -> f64 {
        let (below, above) = self.sides(log_odds);
        (1.0 + below) / (1.0 + below + above)
    }

    fn at_least(&self, log_odds: f64) -> f64 {
        let (below, above) = self.sides(log_odds);
        (1.0 + above) / (1.0 + below + above)
    }

    /// The mass below and above the observed count, relative to the mass at it; at most 1e300.
    fn sides(&self, log_odds: f64) -> (f64, f64) {
        let odds = log_odds.exp();
        let up = |k: u64| {
            let ways_up = (self.treated - k) as f64 * (self.converted - k) as f64;
            let ways_down = (k + 1) as f64 * (self.untreated + k + 1 - self.converted) as f64;
            odds * ways_up / ways_down
        };
        let below = sum_of_products((self.smallest..self.observed).rev().map(|k| 1.0 / up(k)));
        let above = sum_of_products((self.observed..self.largest).map(up));
        (below, above)
    }
}

/// Returns the sum of the running products of `ratios`. The ratios must fall, so that all products after a
/// negligible one are negligible too.
fn sum_of_products(ratios: impl Iterator<Item = f64>) -> f64 {
    const LARGEST: f64 = 1e300;
    let (mut weight, mut sum) = (1.0, 0.0);
    for ratio in ratios {
        weight *= ratio;
        sum += weight;
        if sum > LARGEST {
            return LARGEST;
        }
        if ratio < 1.0 && weight < 1e-18 * sum * (1.0 - ratio) {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counts;

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
    }

    /// 3 of 8 fair coins: 93 of 256 ways have at most 3, 219 at least 3.
    #[test]
    fn binomial_tails_are_those_of_coins() {
        let tails = binomial_tails(Pair { control: 5, treatment: 3 }, 0.5).unwrap();
        near(tails.at_most, 93.0 / 256.0);
        near(tails.at_least, 219.0 / 256.0);
        near(tails.p_value(), 93.0 / 128.0);
        let none = binomial_tails(Pair { control: 10, treatment: 0 }, 0.1).unwrap();
        near(none.at_most, 0.9_f64.powi(10));
        assert_eq!(none.at_least, 1.0);
        let nothing = binomial_tails(Pair { control: 0, treatment: 0 }, 0.1).unwrap();
        assert_eq!(nothing.p_value(), 1.0);
        assert!(binomial_tails(Pair { control: 1, treatment: 1 }, 1.0).is_err());
    }

    /// No conversion of the treatment among n: the upper limit of its share is 1 - level^(1/n).
    #[test]
    fn an_arm_without_conversions_bounds_one_side() {
        let levels = Levels::central(Alpha::FIVE_PERCENT);
        let interval = log_rate_ratio(Pair { control: 20, treatment: 0 }, 0.5, levels).unwrap();
        let limit = 1.0 - 0.025_f64.powf(1.0 / 20.0);
        assert_eq!(interval.lower, f64::NEG_INFINITY);
        near(interval.upper, (limit / (1.0 - limit)).ln());
        let mirrored = log_rate_ratio(Pair { control: 0, treatment: 20 }, 0.5, levels).unwrap();
        near(mirrored.lower, -interval.upper);
        assert_eq!(mirrored.upper, f64::INFINITY);
    }

    /// A limit is 0 where its level is the tail itself.
    #[test]
    fn limits_are_dual_to_the_tails() {
        for (control, treatment, share) in [(40, 9, 0.5), (3, 5, 0.5), (300, 4, 0.05), (2, 90, 0.9)] {
            let counts = Pair { control, treatment };
            let tails = binomial_tails(counts, share).unwrap();
            if tails.at_most < 0.5 {
                let levels = Levels { below: 0.0, above: tails.at_most };
                let interval = log_rate_ratio(counts, share, levels).unwrap();
                assert!(interval.upper.abs() < 1e-9 && interval.lower == f64::NEG_INFINITY, "{interval:?}");
            }
            if tails.at_least < 0.5 {
                let levels = Levels { below: tails.at_least, above: 0.0 };
                let interval = log_rate_ratio(counts, share, levels).unwrap();
                assert!(interval.lower.abs() < 1e-9 && interval.upper == f64::INFINITY, "{interval:?}");
            }
        }
    }

    /// Cups of 4 and 4, 3 and 1 of them named: the weights of 0 to 4 are 1, 16, 36, 16, 1 times powers of the
    /// odds.
    #[test]
    fn odds_ratios_of_the_lady_tasting_tea() {
        let cups = arms((1, 4), (3, 4));
        near(fisher_tails(cups).unwrap().at_least, 17.0 / 70.0);
        let interval = log_odds_ratio(cups, Alpha::FIVE_PERCENT);
        let weights = |odds: f64| {
            [1.0, 16.0, 36.0, 16.0, 1.0]
                .into_iter()
                .zip(0..)
                .map(move |(ways, power)| ways * odds.powi(power))
        };
        let tail =
            |odds: f64, from: usize| weights(odds).skip(from).sum::<f64>() / weights(odds).sum::<f64>();
        near(tail(interval.lower.exp(), 3), 0.025);
        near(1.0 - tail(interval.upper.exp(), 4), 0.025);
    }

    #[test]
    fn odds_ratios_exclude_1_exactly_where_fisher_rejects() {
        for (c, t) in [
            ((0, 20_000), (2_010, 20_000)),
            ((2_010, 20_000), (0, 20_000)),
            ((3, 20_000), (5, 20_000)),
            ((4, 200), (13, 200)),
            ((4, 200), (12, 200)),
            ((1, 950), (3, 50)),
            ((0, 950), (2, 50)),
            ((100, 100), (91, 100)),
        ] {
            let arms = arms(c, t);
            let rejects = fisher_tails(arms).unwrap().p_value() < 0.05;
            let interval = log_odds_ratio(arms, Alpha::FIVE_PERCENT);
            assert_eq!(!interval.contains(0.0), rejects, "{c:?} {t:?} {interval:?}");
        }
        assert_eq!(log_odds_ratio(arms((0, 5), (0, 5)), Alpha::FIVE_PERCENT), Interval::EVERYTHING);
    }
}
