//! Tests of two conversion rates, each for one look: the pooled z-test, the score test against a margin, and
//! Fisher's exact test where counts are small.
//!
//! Intervals for the difference are in [`crate::proportion_interval`], relative lifts in [`crate::lift`]; what the
//! platform shows of all of them is [`crate::fixed_horizon`].

use crate::{
    Alternative, Arm, Effect, Invalid, Missing, NoAnswer, Pair, Side, distributions::normal_sf,
    restricted_rates::restricted_variance,
};

/// A test of equal rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZTest {
    /// Treatment rate minus control rate, and the standard error that the test used.
    pub effect: Effect,
    /// The difference minus the null, divided by the standard error.
    pub z: f64,
    /// From 0 to 1, for the given alternative.
    pub p_value: f64,
}

/// Returns both rates, or [`Missing::Units`] for an arm without units.
pub fn rates(arms: Pair<Arm>) -> Result<Pair<f64>, Missing> {
    arms.try_map(|side, arm| arm.rate_of(side))
}

/// Returns the treatment rate minus the control rate, `(x_t n_c - x_c n_t) / (n_c n_t)`, with an exact
/// numerator: nothing cancels, however close the rates are.
pub(crate) fn difference(arms: Pair<Arm>) -> Result<f64, Missing> {
    rates(arms)?;
    let Pair { control, treatment } = arms;
    let product = |conversions: u64, units: u64| u128::from(conversions) * u128::from(units);
    let up = product(treatment.conversions(), control.units());
    let down = product(control.conversions(), treatment.units());
    let magnitude = up.abs_diff(down) as f64 / control.units() as f64 / treatment.units() as f64;
    Ok(if up >= down { magnitude } else { -magnitude })
}

/// `z = (p_t - p_c) / sqrt(pbar (1 - pbar) (1/n_c + 1/n_t))`, with pbar the rate of both arms
/// together. z^2 is Pearson's chi-square without continuity correction. Source: Fleiss, Levin &
/// Paik (2003), Statistical Methods for Rates and Proportions, chapter 3; statsmodels
/// `proportions_ztest`.
///
/// When no unit or every unit converted in both arms, z is 0 and p is 1, as in the
/// exact test: these data are possible only under equal rates. The normal
/// tail is inaccurate below about 10 conversions in the smaller arm.
pub fn pooled_z(arms: Pair<Arm>, alternative: Alternative) -> Result<ZTest, Missing> {
    let effect = Effect { estimate: difference(arms)?, standard_error: pooled_standard_error(arms) };
    if effect.standard_error == 0.0 {
        return Ok(ZTest { effect, z: 0.0, p_value: 1.0 });
    }
    Ok(z_test(effect, alternative))
}

/// The test that the rates differ by exactly `null` (strictly between -1 and 1; 0 is
/// [`pooled_z`]): the variance is that at the most likely rates with this difference. Farrington & Manning
/// (1990), Statistics in Medicine 9(12). One-sided with a margin, it tests for non-inferiority.
pub fn score_z(arms: Pair<Arm>, null: f64, alternative: Alternative) -> Result<ZTest, NoAnswer> {
    if !(null > -1.0 && null < 1.0) {
        let range = "strictly between -1 and 1";
        return Err(Invalid::OutOfRange { what: "null difference", value: null, range }.into());
    }
    if null == 0.0 {
        return Ok(pooled_z(arms, alternative)?);
    }
    let effect =
        Effect { estimate: difference(arms)?, standard_error: restricted_variance(arms, null).sqrt() };
    if effect.standard_error == 0.0 {
        return Err(Missing::Variation.into());
    }
    let z = (effect.estimate - null) / effect.standard_error;
    Ok(ZTest { effect, z, p_value: alternative.p_value(z, normal_sf) })
}

/// The same as [`pooled_z`] with the arms' own variances, `sqrt(p_c q_c / n_c + p_t q_t / n_t)`: the test that
/// Wald's interval is dual to. For comparison only: it rejects too often when counts are small
/// (Newcombe 1998), and it has no result when neither arm varies.
pub fn unpooled_z(arms: Pair<Arm>, alternative: Alternative) -> Result<ZTest, Missing> {
    let effect = unpooled_effect(arms)?;
    if effect.standard_error == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(z_test(effect, alternative))
}

fn z_test(effect: Effect, alternative: Alternative) -> ZTest {
    let z = effect.estimate / effect.standard_error;
    ZTest { effect, z, p_value: alternative.p_value(z, normal_sf) }
}

/// The difference of the rates with the standard error `sqrt(p_c q_c / n_c + p_t q_t / n_t)`.
pub fn unpooled_effect(arms: Pair<Arm>) -> Result<Effect, Missing> {
    let estimate = difference(arms)?;
    let variances = arms.map(|arm| arm.variance_of_rate().unwrap_or(0.0));
    let total = variances.control + variances.treatment;
    Ok(Effect { estimate, standard_error: total.sqrt() })
}

/// The standard error of the difference if both arms had the common rate; both have units.
fn pooled_standard_error(arms: Pair<Arm>) -> f64 {
    let Pooled { units, conversions, rest } = Pooled::of(arms);
    let (n_c, n_t) = (arms.control.units() as f64, arms.treatment.units() as f64);
    (conversions / units * (rest / units) * (1.0 / n_c + 1.0 / n_t)).sqrt()
}

/// The smallest count in the two-by-two table that is expected under equal rates.
pub fn smallest_expected_cell(arms: Pair<Arm>) -> f64 {
    let Pooled { units, conversions, rest } = Pooled::of(arms);
    let smaller = arms.control.units().min(arms.treatment.units()) as f64;
    if units == 0.0 { 0.0 } else { conversions.min(rest) * (smaller / units) }
}

/// The counts of both arms together, which may exceed 64 bits.
struct Pooled {
    units: f64,
    conversions: f64,
    rest: f64,
}

impl Pooled {
    fn of(arms: Pair<Arm>) -> Pooled {
        let both = |of: fn(Arm) -> u64| of(arms.control) as f64 + of(arms.treatment) as f64;
        let (units, conversions) = (both(Arm::units), both(Arm::conversions));
        Pooled { units, conversions, rest: both(|arm| arm.units() - arm.conversions()) }
    }
}

/// Fisher's exact p-value: the treatment's conversions are hypergeometric given both margins.
/// Two-sided sums every outcome at most as probable as the observed one (with a relative slack of
/// 1e-7, as R's `fisher.test`). Fisher (1935), JRSS 98(1); conservative by construction.
///
/// Probabilities are computed outward from the mode by their ratios, so no factorial is evaluated
/// and totals of 10^9 lose no accuracy. The cost is the number of outcomes, which is small whenever an
/// expected cell is small.
pub fn fisher_exact(arms: Pair<Arm>, alternative: Alternative) -> Result<f64, Missing> {
    rates(arms)?;
    let outcomes = Hypergeometric::new(arms);
    let observed = arms.treatment.conversions();
    let at_observed = outcomes.relative_weight(observed);
    let limit = at_observed * (1.0 + 1e-7);
    let counts = |k: u64, weight: f64| match alternative {
        Alternative::TwoSided => weight <= limit,
        Alternative::Greater => k >= observed,
        Alternative::Less => k <= observed,
    };
    let (mut extreme, mut all) = (0.0, 0.0);
    outcomes.for_each(|k, weight| {
        all += weight;
        if counts(k, weight) {
            extreme += weight;
        }
    });
    Ok(f64::min(extreme / all, 1.0))
}

/// The possible conversions of the treatment, given all margins.
struct Hypergeometric {
    treated: u64,
    untreated: u64,
    converted: u64,
    smallest: u64,
    largest: u64,
    mode: u64,
}

impl Hypergeometric {
    fn new(arms: Pair<Arm>) -> Hypergeometric {
        let (treated, untreated) = (arms.treatment.units(), arms.control.units());
        let converted = arms.treatment.conversions().saturating_add(arms.control.conversions());
        let smallest = converted.saturating_sub(untreated);
        let largest = converted.min(treated);
        // In 128 bits: the product of two counts, and a sum of them, may exceed 64 bits.
        let above = |count: u64| u128::from(count) + 1;
        let mode = above(converted) * above(treated) / (above(treated) + above(untreated));
        let mode = (mode as u64).clamp(smallest, largest);
        Hypergeometric { treated, untreated, converted, smallest, largest, mode }
    }

    /// P(k + 1) / P(k), for `smallest <= k < largest`.
    fn ratio_up(&self, k: u64) -> f64 {
        let ways_up = (self.treated - k) as f64 * (self.converted - k) as f64;
        let ways_down = (k + 1) as f64 * (self.untreated + k + 1 - self.converted) as f64;
        ways_up / ways_down
    }

    /// Visits every outcome with its probability relative to the mode's, until that is below 1e-300.
    fn for_each(&self, mut visit: impl FnMut(u64, f64)) {
        const NEGLIGIBLE: f64 = 1e-300;
        visit(self.mode, 1.0);
        let mut weight = 1.0;
        for k in self.mode..self.largest {
            weight *= self.ratio_up(k);
            if weight < NEGLIGIBLE {
                break;
            }
            visit(k + 1, weight);
        }
        weight = 1.0;
        for k in (self.smallest..self.mode).rev() {
            weight /= self.ratio_up(k);
            if weight < NEGLIGIBLE {
                break;
            }
            visit(k, weight);
        }
    }

    fn relative_weight(&self, observed: u64) -> f64 {
        let mut found = 0.0;
        self.for_each(|k, weight| {
            if k == observed {
                found = weight;
            }
        });
        found
    }
}

/// Returns the arm with the smaller share of the units, and that share (0 to 0.5).
pub fn smaller_share(arms: Pair<Arm>) -> (Side, f64) {
    let (n_c, n_t) = (arms.control.units() as f64, arms.treatment.units() as f64);
    if n_c + n_t == 0.0 {
        return (Side::Control, 0.0);
    }
    if n_c <= n_t { (Side::Control, n_c / (n_c + n_t)) } else { (Side::Treatment, n_t / (n_c + n_t)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proportion_interval::{Score, score};
    use crate::{Alpha, Counts};

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    /// 2^52 + 1 of 2^53 against one half: the rates differ by exactly 2^-53.
    #[test]
    fn the_difference_of_close_rates_is_exact() {
        let half = ((1 << 62) - 1, (1 << 63) - 2);
        let more = ((1 << 52) + 1, 1 << 53);
        assert_eq!(difference(arms(half, more)), Ok(0.5_f64.powi(53)));
        assert_eq!(difference(arms(more, half)), Ok(-0.5_f64.powi(53)));
        assert_eq!(difference(arms(half, (1, 2))), Ok(0.0));
        // A third against a little more than a third. The difference of the two rounded rates is wrong in its eighth
        // digit.
        let (third, above) = ((1_000_000_000, 3_000_000_000), (1_000_000_001, 3_000_000_002));
        let exact = 1e9 / 3e9 / 3_000_000_002.0;
        assert_eq!(difference(arms(third, above)), Ok(exact));
        let of_rounded_rates = 1_000_000_001.0 / 3_000_000_002.0 - 1e9 / 3e9;
        assert!((of_rounded_rates / exact - 1.0_f64).abs() > 1e-8);
    }

    /// The lady tasting tea: 3 of 4 against 1 of 4 has a one-sided p of 17/70 and a two-sided p of 34/70.
    #[test]
    fn the_lady_tasting_tea() {
        let cups = arms((1, 4), (3, 4));
        let p = |alternative| fisher_exact(cups, alternative).unwrap();
        assert!((p(Alternative::Greater) - 17.0 / 70.0).abs() < 1e-15);
        assert!((p(Alternative::TwoSided) - 34.0 / 70.0).abs() < 1e-15);
        assert!((p(Alternative::Less) - 69.0 / 70.0).abs() < 1e-15);
    }

    /// The ends of the score interval are the differences that are just not rejected.
    #[test]
    fn the_score_test_is_dual_to_the_score_interval() {
        let arms = arms((48, 80), (56, 70));
        let interval = score(arms, Alpha::FIVE_PERCENT, Alternative::TwoSided, Score::Mee).unwrap();
        for end in [interval.lower, interval.upper] {
            let test = score_z(arms, end, Alternative::TwoSided).unwrap();
            assert!((test.p_value - 0.05).abs() < 1e-9, "{end}: {test:?}");
        }
        assert!(score_z(arms, 1.0, Alternative::Greater).is_err());
    }
}
