//! Confidence intervals for the difference of two rates. The platform shows Mee's score interval,
//! because it excludes 0 exactly when the pooled z-test rejects; the others are for comparison.

use crate::{
    Alpha, Alternative, Arm, Effect, Interval, Missing, Pair,
    restricted_rates::restricted_variance,
    two_proportion::{difference, rates, unpooled_effect},
};

/// The variance of the score interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Mee (1984), Biometrics 40(4): the exact dual of the pooled z-test.
    Mee,
    /// Miettinen & Nurminen (1985), Statistics in Medicine 4(2): Mee's variance times N/(N-1).
    MiettinenNurminen,
}

/// The score interval: every difference `delta` for which `(d - delta)^2 <= z^2 V(delta)`, where V
/// is the variance at the most likely rates that differ by exactly delta. It is defined at 0 and at
/// 100 % conversion, and is the recommended interval at any size above a few units. Checked against
/// Newcombe (1998), table II.
pub fn score(
    arms: Pair<Arm>,
    alpha: Alpha,
    alternative: Alternative,
    variance: Score,
) -> Result<Interval, Missing> {
    let critical = alternative.critical_z(alpha);
    let both = score_at(arms, critical.abs(), variance)?;
    Ok(alternative.of_interval(exchange_ends_below_0(both, critical)))
}

/// Exchanges the ends if the critical value is below 0, as it is for a one-sided level above a half: the
/// bound is then on the other side of the estimate, as in [`Effect::interval`].
pub(crate) fn exchange_ends_below_0(both: Interval, critical: f64) -> Interval {
    if critical < 0.0 { Interval { lower: both.upper, upper: both.lower } } else { both }
}

/// The score interval for any critical value of |z|, at least 0, for example of a confidence sequence.
pub(crate) fn score_at(arms: Pair<Arm>, critical: f64, variance: Score) -> Result<Interval, Missing> {
    let d = difference(arms)?;
    let units = arms.control.units() as f64 + arms.treatment.units() as f64;
    let inflation = match variance {
        Score::Mee => 1.0,
        Score::MiettinenNurminen => units / (units - 1.0),
    };
    // At least 0 where delta is accepted.
    let room = |delta: f64| {
        let v = restricted_variance(arms, delta) * inflation;
        critical * critical * v - (d - delta).powi(2)
    };
    Ok(Interval { lower: boundary(d, -1.0, room), upper: boundary(d, 1.0, room) })
}

/// Returns the last delta from `inside` towards `outside` at which `room` is at least 0, or `outside` if it
/// always is; `room` must change its sign at most once. Chandrupatla (1997), Advances in Engineering Software
/// 28(3): inverse quadratic steps where they are safe, else halving, about ten steps in total. There are
/// never more than 100 steps; halving alone would need at most 60.
fn boundary(inside: f64, outside: f64, room: impl Fn(f64) -> f64) -> f64 {
    const STEPS: usize = 100;
    let room_outside = room(outside);
    if room_outside >= 0.0 {
        return outside;
    }
    // The bracket is from the newest point a to b; c is the point before.
    let (mut a, mut at_a) = (outside, room_outside);
    let (mut b, mut at_b) = (inside, room(inside).max(f64::MIN_POSITIVE));
    let mut share = 0.5;
    for _ in 0..STEPS {
        let middle = a + share * (b - a);
        let at_middle = room(middle);
        let (c, at_c);
        if (at_middle >= 0.0) == (at_a >= 0.0) {
            (c, at_c) = (a, at_a);
        } else {
            (c, at_c) = (b, at_b);
            (b, at_b) = (a, at_a);
        }
        (a, at_a) = (middle, at_middle);
        let width = (b - a).abs();
        let nearer = if at_a.abs() < at_b.abs() { a } else { b };
        let smallest = (2.0 * f64::EPSILON * nearer.abs()).max(f64::MIN_POSITIVE);
        if at_a == 0.0 || width <= 2.0 * smallest {
            return nearer;
        }
        let xi = (a - b) / (c - b);
        let phi = (at_a - at_b) / (at_c - at_b);
        share = if phi * phi < xi && (1.0 - phi) * (1.0 - phi) < 1.0 - xi {
            at_a / (at_b - at_a) * at_c / (at_b - at_c)
                + (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
        } else {
            0.5
        };
        let least = smallest / width;
        share = share.clamp(least, 1.0 - least);
    }
    if at_a >= 0.0 { a } else { b }
}

/// Newcombe's hybrid score interval (1998, Statistics in Medicine 17(8), method 10): the distances
/// from each rate to its own Wilson limits, combined as a square root of squares. It never has width 0 and
/// never leaves [-1, 1]; no test is its exact dual.
pub fn newcombe(arms: Pair<Arm>, alpha: Alpha, alternative: Alternative) -> Result<Interval, Missing> {
    let d = difference(arms)?;
    let z = alternative.critical_z(alpha);
    let (c, t) = (wilson_reach(arms.control, z.abs()), wilson_reach(arms.treatment, z.abs()));
    let both = Interval { lower: d - t.down.hypot(c.up), upper: d + t.up.hypot(c.down) };
    Ok(alternative.of_interval(exchange_ends_below_0(both, z)))
}

/// Wilson's score interval for one rate (1927, JASA 22); `None` without units.
pub fn wilson(arm: Arm, alpha: Alpha) -> Option<Interval> {
    let rate = arm.rate()?;
    let reach = wilson_reach(arm, Alternative::TwoSided.critical_z(alpha));
    let lower = if arm.conversions() == 0 { 0.0 } else { rate - reach.down };
    let upper = if arm.conversions() == arm.units() { 1.0 } else { rate + reach.up };
    Some(Interval { lower, upper })
}

/// The distances of Wilson's limits from the rate, each accurate to full precision; 0 at a rate of 0 or 1.
struct Reach {
    down: f64,
    up: f64,
}

/// With `k = z^2 / n` the limits are the rate minus and plus `(root -+ k (1 - 2 p) / 2) / (1 + k)`, where the
/// root is `sqrt(k p (1 - p) + k^2 / 4)`. The distance that would cancel is computed from the product of
/// both.
fn wilson_reach(arm: Arm, z: f64) -> Reach {
    let n = arm.units() as f64;
    let (p, q) = (arm.conversions() as f64 / n, (arm.units() - arm.conversions()) as f64 / n);
    let k = z * (z / n);
    let root = (k * p * q + 0.25 * k * k).sqrt();
    let skew = 0.5 * k * (q - p);
    // (root - |skew|) (root + |skew|) = k p q + k^2 (1 - (q - p)^2) / 4 = k p q (1 + k), so the product of
    // both distances is k p q / (1 + k).
    let far = (root + skew.abs()) / (1.0 + k);
    let near = if far == 0.0 { 0.0 } else { k * p * q / (far * (1.0 + k)) };
    if skew >= 0.0 { Reach { down: near, up: far } } else { Reach { down: far, up: near } }
}

/// Wald's interval, `d +- z sqrt(p_c q_c / n_c + p_t q_t / n_t)`. For comparison only: its coverage
/// is far below the nominal level for small counts, and it does not exist when neither arm varies.
pub fn wald(arms: Pair<Arm>, alpha: Alpha, alternative: Alternative) -> Result<Interval, Missing> {
    let effect = unpooled_effect(arms)?;
    if effect.standard_error == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(alternative.of_interval(effect.interval(alternative.critical_z(alpha))))
}

/// Wald's interval with one added conversion and one added non-conversion in each arm (Agresti &
/// Caffo 2000, The American Statistician 54(4)). It is not centred on the estimate, and its ends may be outside
/// [-1, 1].
pub fn agresti_caffo(arms: Pair<Arm>, alpha: Alpha, alternative: Alternative) -> Result<Interval, Missing> {
    rates(arms)?;
    let rate = |arm: Arm| (arm.conversions() as f64 + 1.0) / (arm.units() as f64 + 2.0);
    let variance = |arm: Arm| rate(arm) * (1.0 - rate(arm)) / (arm.units() as f64 + 2.0);
    let effect = Effect {
        estimate: rate(arms.treatment) - rate(arms.control),
        standard_error: (variance(arms.treatment) + variance(arms.control)).sqrt(),
    };
    Ok(alternative.of_interval(effect.interval(alternative.critical_z(alpha))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Counts,
        distributions::normal_sf,
        two_proportion::{pooled_z, score_z},
    };

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    const SIDES: [Alternative; 3] = [Alternative::TwoSided, Alternative::Greater, Alternative::Less];

    /// From a few units to 2^53, for rates from 1e-15 to nearly 1, at levels from 1e-12 to 0.99: Mee's
    /// interval excludes 0 exactly when the pooled z rejects, and its ends are just not rejected.
    #[test]
    fn the_score_interval_is_dual_to_the_pooled_z_at_every_size() {
        let n = 1 << 53;
        for arms in [
            arms((3, n), (8, n)),
            arms((n - 3, n), (n - 8, n)),
            arms((3, n), (1, 4)),
            arms((5, 1_000_000_000_000), (40, 1_000_000_000_000)),
            arms((n / 2, n), (n / 2 + 200_000_000, n)),
            arms((1, 3), (2, 5)),
            arms((0, 1), (n / 3, n)),
            arms((n / 3, n), (2, 2)),
        ] {
            for side in SIDES {
                for alpha in [1e-12, 0.01, 0.05, 0.2, 0.7, 0.99].map(|alpha| Alpha::new(alpha).unwrap()) {
                    let p = pooled_z(arms, side).unwrap().p_value;
                    let interval = score(arms, alpha, side, Score::Mee).unwrap();
                    let what = format!("{arms:?} {side:?} {alpha:?}: {p} {interval:?}");
                    assert_eq!(p < alpha.get(), !interval.contains(0.0), "{what}");
                    for end in [interval.lower, interval.upper].into_iter().filter(|end| end.abs() < 1.0) {
                        let at_end = score_z(arms, end, side).unwrap().p_value;
                        assert!((at_end / alpha.get() - 1.0).abs() < 1e-6, "{what}: {at_end}");
                    }
                }
            }
        }
    }

    /// Newcombe's table II, row a: 56 of 70 against 48 of 80 is 0.0524 to 0.3339; and its mirror image.
    #[test]
    fn newcombes_interval_is_the_printed_one() {
        let found = newcombe(arms((48, 80), (56, 70)), Alpha::FIVE_PERCENT, Alternative::TwoSided).unwrap();
        assert!((found.lower - 0.0524).abs() < 5e-5 && (found.upper - 0.3339).abs() < 5e-5, "{found:?}");
        let mirrored =
            newcombe(arms((32, 80), (14, 70)), Alpha::FIVE_PERCENT, Alternative::TwoSided).unwrap();
        assert!((found.lower + mirrored.upper).abs() < 1e-15 && (found.upper + mirrored.lower).abs() < 1e-15);
    }

    /// Wilson's limits are the rates that a z-test of the observed rate just does not reject.
    #[test]
    fn wilsons_limits_are_just_not_rejected() {
        for (conversions, units) in [(0, 10), (3, 10), (10, 10), (2, 1 << 53), (1_000_000, 2_000_001)] {
            let arm = Arm::new(Counts { units, conversions }).unwrap();
            let interval = wilson(arm, Alpha::FIVE_PERCENT).unwrap();
            let rate = arm.rate().unwrap();
            for end in [interval.lower, interval.upper].into_iter().filter(|end| *end > 0.0 && *end < 1.0) {
                let z = (rate - end) / (end * (1.0 - end) / units as f64).sqrt();
                assert!((2.0 * normal_sf(z.abs()) - 0.05).abs() < 1e-9, "{arm:?} {end}");
            }
        }
    }
}
