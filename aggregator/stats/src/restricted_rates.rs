//! The most likely two rates with a given difference, on which the score test and the score interval rest.

use crate::{Arm, Pair};

/// The variance of the difference at the most likely rates (pc, pc + delta). They solve a cubic, whose root
/// in closed form is from Miettinen & Nurminen (1985), appendix I. For small rates that root has only the
/// absolute accuracy of a number close to 1; Newton's method on the cubic makes it accurate.
pub(crate) fn restricted_variance(arms: Pair<Arm>, delta: f64) -> f64 {
    let rest = |arm: Arm| arm.units() - arm.conversions();
    // The variance does not depend on which arm or which outcome is which. So the cubic is solved for the
    // rate of the smaller arm, which contributes most of the variance, and of its rarer outcome, which is the
    // more accurate one.
    let Pair { control: mut one, treatment: mut other } = arms;
    let mut delta = delta;
    if other.units() < one.units() {
        (one, other, delta) = (other, one, -delta);
    }
    let (mut x_c, mut x_t) = (one.conversions() as f64, other.conversions() as f64);
    if rest(one) < one.conversions() {
        (x_c, x_t, delta) = (rest(one) as f64, rest(other) as f64, -delta);
    }
    let (n_c, n_t) = (one.units() as f64, other.units() as f64);
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

    let cubic = |p: f64| ((l3 * p + l2) * p + l1) * p + l0;
    let slope = |p: f64| (3.0 * l3 * p + 2.0 * l2) * p + l1;
    let possible = ((-delta).max(0.0), (1.0 - delta).min(1.0));
    let pc = refine_root(2.0 * b * a.cos() - shift, possible, cubic, slope);
    let pt = (pc + delta).clamp(0.0, 1.0);
    pt * (1.0 - pt) / n_t + pc * (1.0 - pc) / n_c
}

/// Returns the root between two ends of a function that is positive before it, starting from a guess: by
/// Newton's method, or by bisection where a step leaves the bracket. One or two steps are enough unless the
/// guess is inaccurate.
fn refine_root(guess: f64, ends: (f64, f64), f: impl Fn(f64) -> f64, slope: impl Fn(f64) -> f64) -> f64 {
    const STEPS: usize = 100;
    let (mut low, mut high) = (ends.0, ends.1.max(ends.0));
    // Does not start at the lower end itself, which may be a root too.
    let mut root = guess.clamp(low, high).max(low + 1e-18 * (high - low));
    for _ in 0..STEPS {
        let at = f(root);
        if at > 0.0 {
            low = root
        } else {
            high = root
        }
        let mut next = root - at / slope(root);
        if !(low <= next && next <= high) {
            next = 0.5 * (low + high);
        }
        let step = (next - root).abs();
        root = next;
        if step <= 1e-15 * root || high - low <= 1e-15 * high {
            break;
        }
    }
    root
}
