//! Confidence intervals for the difference of two rates. The platform shows Mee's score interval,
//! because it excludes 0 exactly when the pooled z-test rejects; the others are for comparison.

use crate::{
    Alpha, Alternative, Arm, Effect, Interval, Missing, Pair,
    two_proportion::{rates, unpooled_effect},
};

/// Which variance the score interval uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Mee (1984), Biometrics 40(4): exact dual of the pooled z-test.
    Mee,
    /// Miettinen & Nurminen (1985), Statistics in Medicine 4(2): Mee's variance times N/(N-1).
    MiettinenNurminen,
}

/// The score interval: every difference `delta` for which `(d - delta)^2 <= z^2 V(delta)`, where V
/// is the variance at the most likely rates that differ by exactly delta. Defined at 0 and at
/// 100 % conversion; the recommended interval at any size above a few units. Checked against
/// Newcombe (1998), table II.
pub fn score(
    arms: Pair<Arm>,
    alpha: Alpha,
    alternative: Alternative,
    variance: Score,
) -> Result<Interval, Missing> {
    let both = score_at(arms, alternative.critical_z(alpha), variance)?;
    Ok(alternative.of_interval(both))
}

/// The score interval for any critical value of |z|, also one of a confidence sequence.
pub(crate) fn score_at(arms: Pair<Arm>, critical: f64, variance: Score) -> Result<Interval, Missing> {
    let rates = rates(arms)?;
    let d = rates.treatment - rates.control;
    let units = (arms.control.units() + arms.treatment.units()) as f64;
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

/// The last delta from `inside` towards `outside` at which there is room, which falls once; `outside` if it never
/// does. Chandrupatla (1997), Advances in Engineering Software 28(3): inverse quadratic steps where they are safe,
/// else halving, about ten in all; never more than 100, which halving alone would need at most 60 of.
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

/// The variance of the difference at the most likely rates (pc, pc + delta). They solve a cubic,
/// whose root in closed form is from Miettinen & Nurminen (1985), appendix I.
pub(crate) fn restricted_variance(arms: Pair<Arm>, delta: f64) -> f64 {
    let (n_c, n_t) = (arms.control.units() as f64, arms.treatment.units() as f64);
    let (x_c, x_t) = (arms.control.conversions() as f64, arms.treatment.conversions() as f64);
    let (n, x) = (n_c + n_t, x_c + x_t);

    let l3 = n;
    let l2 = (n_t + 2.0 * n_c) * delta - n - x;
    let l1 = (n_c * delta - n - 2.0 * x_c) * delta + x;
    let l0 = x_c * delta * (1.0 - delta);
    let shift = l2 / (3.0 * l3);
    let c = shift.powi(3) - l1 * l2 / (6.0 * l3 * l3) + l0 / (2.0 * l3);
    let b = (shift * shift - l1 / (3.0 * l3)).max(0.0).sqrt().copysign(c);
    let cosine = if b == 0.0 { 0.0 } else { (c / b.powi(3)).clamp(-1.0, 1.0) };
    let a = (std::f64::consts::PI + cosine.acos()) / 3.0;

    let pc = (2.0 * b * a.cos() - shift).clamp(0.0, 1.0);
    let pt = (pc + delta).clamp(0.0, 1.0);
    pt * (1.0 - pt) / n_t + pc * (1.0 - pc) / n_c
}

/// Newcombe's hybrid score interval (1998, Statistics in Medicine 17(8), method 10): the distances
/// from each rate to its own Wilson limits, combined as a square root of squares. Never collapses,
/// never leaves [-1, 1]; no test is its exact dual.
pub fn newcombe(arms: Pair<Arm>, alpha: Alpha, alternative: Alternative) -> Result<Interval, Missing> {
    let rates = rates(arms)?;
    let z = alternative.critical_z(alpha);
    let (c, t) = (wilson_at(arms.control, z), wilson_at(arms.treatment, z));
    let d = rates.treatment - rates.control;
    let both = Interval {
        lower: d - (rates.treatment - t.lower).hypot(c.upper - rates.control),
        upper: d + (t.upper - rates.treatment).hypot(rates.control - c.lower),
    };
    Ok(alternative.of_interval(both))
}

/// Wilson's score interval for one rate (1927, JASA 22); `None` without units.
pub fn wilson(arm: Arm, alpha: Alpha) -> Option<Interval> {
    (arm.units() > 0).then(|| wilson_at(arm, Alternative::TwoSided.critical_z(alpha)))
}

fn wilson_at(arm: Arm, z: f64) -> Interval {
    let n = arm.units() as f64;
    let p = arm.conversions() as f64 / n;
    let center = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half_width = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Interval {
        lower: if arm.conversions() == 0 { 0.0 } else { center - half_width },
        upper: if arm.conversions() == arm.units() { 1.0 } else { center + half_width },
    }
}

/// Wald's interval, `d +- z sqrt(p_c q_c / n_c + p_t q_t / n_t)`. For comparison only: its coverage
/// is far below nominal for small counts, and it does not exist when neither arm varies.
pub fn wald(arms: Pair<Arm>, alpha: Alpha, alternative: Alternative) -> Result<Interval, Missing> {
    let effect = unpooled_effect(arms)?;
    if effect.standard_error == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(alternative.of_interval(effect.interval(alternative.critical_z(alpha))))
}

/// Wald's interval after one imagined conversion and one non-conversion in each arm (Agresti &
/// Caffo 2000, The American Statistician 54(4)). Centred off the estimate; its ends may leave
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
