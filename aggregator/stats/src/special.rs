//! Special functions that are accurate where the textbook form cancels: near 0, far out in a tail, and for
//! parameters of any size.

use std::f64::consts::TAU;

use statrs::function::gamma::ln_gamma;

/// `ln(1 + x) - x` for x > -1, to a few roundings. With `r = x / (2 + x)` it is
/// `-x r + 2 (r^3 / 3 + r^5 / 5 + ...)` (Abramowitz & Stegun 4.1.27), where nothing cancels.
pub(crate) fn log1p_minus(x: f64) -> f64 {
    if !(-0.25..=0.25).contains(&x) {
        return x.ln_1p() - x;
    }
    let r = x / (2.0 + x);
    let square = r * r;
    let series = (1..=10).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    2.0 * r * square * series - x * r
}

/// `e^x - 1 - x`, to a few roundings.
pub(crate) fn expm1_minus(x: f64) -> f64 {
    if x.abs() > 1.0 {
        return x.exp_m1() - x;
    }
    // x^2 / 2! + x^3 / 3! + ..., by Horner's rule: the 20th term is below 1e-17 of the first.
    let series = (3..=20).rev().fold(1.0, |sum, k| 1.0 + sum * x / f64::from(k));
    0.5 * x * x * series
}

/// `ln G(z) - [(z - 1/2) ln z - z + ln(2 pi)/2]` for z > 0: Abramowitz & Stegun 6.1.41, error
/// below 1e-16 from z = 12 on; by subtraction below that, where no large terms cancel.
pub(crate) fn stirling_remainder(z: f64) -> f64 {
    if z < 12.0 {
        return ln_gamma(z) - ((z - 0.5) * z.ln() - z + 0.5 * TAU.ln());
    }
    let inverse_square = 1.0 / (z * z);
    let series = [1.0 / 1188.0, -1.0 / 1680.0, 1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0];
    series.iter().fold(0.0, |sum, coefficient| sum * inverse_square + coefficient) / z
}

/// The arguments of the regularized incomplete beta function I_x(a, b), with a and b above 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BetaArguments {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// From 0 to 1, below the mean `a / (a + b)` or slightly above it.
    pub(crate) x: f64,
    /// `1 - x`, accurate to full precision.
    pub(crate) y: f64,
    /// `a y - b x`, which is `(a + b)(mean - x)`, with the digits that a subtraction would lose.
    pub(crate) lambda: f64,
}

/// The r with `I_x(a, b) = x^a y^b / B(a, b) r`: the continued fraction of Didonato & Morris (1992), ACM
/// Transactions on Mathematical Software 18(3), equation 9. The number of steps is about the square root of
/// the smaller parameter, however large the other is.
pub(crate) fn incomplete_beta_fraction(at: BetaArguments) -> f64 {
    let BetaArguments { a, b, x, y, lambda } = at;
    continued_fraction(a / (a + 1.0) * (lambda + 1.0), |n| {
        let before = a + 2.0 * n - 1.0;
        let odd = n * (b - n) * x / before;
        Term {
            over: (a + n - 1.0) / before * (a + b + n - 1.0) * odd * x,
            add: n + odd + (a + n) / (a + 2.0 * n + 1.0) * (lambda + 1.0 + n * (1.0 + y)),
        }
    })
}

/// The regularized upper incomplete gamma function Q(a, x), a > 0 and x >= 0, by its series below and its
/// continued fraction above `a + 1` (Abramowitz & Stegun 6.5.29, 6.5.31). Relative error below 1e-12 up to a
/// = 10^6, down to 1e-300.
pub(crate) fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x == f64::INFINITY {
        return 0.0;
    }
    // x^a e^-x / G(a), relative to its value at x = a, so that no terms of the size of a cancel.
    let scale = (a * log1p_minus((x - a) / a) + 0.5 * (a / TAU).ln() - stirling_remainder(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0, 1.0);
        for step in 1..STEPS {
            term *= x / (a + step as f64);
            sum += term;
            if term < 1e-17 * sum {
                break;
            }
        }
        return 1.0 - scale * sum / a;
    }
    scale * continued_fraction(x + 1.0 - a, |n| Term { over: n * (a - n), add: x + 1.0 - a + 2.0 * n })
}

/// A limit above the number of terms that any series or fraction here needs for its supported parameters.
const STEPS: usize = 100_000;

/// One level of a continued fraction: `over / (add + the next)`.
struct Term {
    over: f64,
    add: f64,
}

/// `1 / (first + over_1 / (add_1 + over_2 / (add_2 + ...)))`, by the method of Lentz (1976), Applied Optics
/// 15(3), with the guard against 0 of Thompson & Barnett (1986), Journal of Computational Physics 64(2).
fn continued_fraction(first: f64, term: impl Fn(f64) -> Term) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_0 = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut denominator = 1.0 / away_from_0(first);
    let mut numerator = 1.0 / TINY;
    let mut fraction = denominator;
    for step in 1..STEPS {
        let Term { over, add } = term(step as f64);
        denominator = 1.0 / away_from_0(over * denominator + add);
        numerator = away_from_0(add + over / numerator);
        let change = numerator * denominator;
        fraction *= change;
        if (change - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "got {got:e}, expected {expected:e}");
    }

    /// Values of mpmath 1.4.1 at 50 digits.
    #[test]
    fn small_arguments_do_not_cancel() {
        for (x, expected) in [
            (1e-12, -4.999_999_999_996_667e-25),
            (-1e-6, -5.000_003_333_335_833e-13),
            (0.2, -0.017_678_443_206_045_37),
            (-0.25, -0.037_682_072_451_780_93),
            (3.0, -1.613_705_638_880_109_4),
        ] {
            assert_close(log1p_minus(x), expected, 4e-16);
        }
        for (x, expected) in [
            (1e-12, 5.000_000_000_001_667e-25),
            (-1e-3, 4.998_333_749_916_681e-7),
            (1.0, 0.718_281_828_459_045_2),
            (-1.0, 0.367_879_441_171_442_3),
            (2.5, 8.682_493_960_703_473),
        ] {
            assert_close(expm1_minus(x), expected, 6e-16);
        }
    }

    /// I_x(1, b) = 1 - y^b and I_x(a, 1) = x^a, at sizes from a half to 10^15.
    #[test]
    fn the_fraction_has_the_closed_forms() {
        for b in [0.5, 3.0, 1e6, 1e15] {
            let x: f64 = 0.3 / (b + 1.0);
            let at = BetaArguments { a: 1.0, b, x, y: 1.0 - x, lambda: (1.0 - x) - b * x };
            let below = -(b * (-x).ln_1p()).exp_m1();
            let scale = x * (b * (-x).ln_1p()).exp() * b;
            assert_close(scale * incomplete_beta_fraction(at), below, 1e-14);
        }
    }
}
