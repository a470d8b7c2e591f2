//! Student's t for any degrees of freedom and any t: the tail by its continued fraction, the quantile by
//! Newton's method on the logarithm of the tail. statrs' own quantile is wrong by a factor of 10^8 at one
//! degree of freedom and a tail of 1e-9, loses digits from 50,000 degrees on, and does not return at 50
//! million.

use std::f64::consts::{LN_2, PI};

use super::{normal_log_quantile, normal_quantile, normal_sf};
use crate::special::{BetaArguments, incomplete_beta_fraction, stirling_remainder};

/// The degrees of freedom from which t is normal to the last digit, down to tails of 1e-300.
const NORMAL_DEGREES: f64 = 1e21;

/// Up to this t the probability between 0 and t is computed, beyond it the tail: each where its fraction
/// converges fast.
const CENTRE_END: f64 = 1.7;

/// The logarithm of the largest double.
const LOG_MAX: f64 = 709.782;

/// Upper tail of Student's t with `degrees` > 0 degrees of freedom, also infinitely many. Relative error below
/// 1e-12 until it underflows.
///
/// # Panics
/// When `degrees` is not above 0.
pub fn student_t_sf(t: f64, degrees: f64) -> f64 {
    assert!(degrees > 0.0, "{degrees} degrees of freedom");
    if degrees >= NORMAL_DEGREES {
        return normal_sf(t);
    }
    if t < 0.0 {
        return 1.0 - student_t_sf(-t, degrees);
    }
    if t == f64::INFINITY {
        return 0.0;
    }
    if t <= CENTRE_END {
        0.5 - Centre::at(t, degrees).half_probability
    } else {
        Tail::at(t, degrees).log_sf.exp()
    }
}

/// The t with P(T <= t) = `p`, for `p` in 0..=1 and `degrees` > 0. Relative error below 1e-13, or that of `p`
/// itself. Infinite at the ends, and where t is beyond the largest double (tails of 1e-155 and below at half
/// a degree of freedom).
///
/// # Panics
/// When `degrees` is not above 0.
pub fn student_t_quantile(p: f64, degrees: f64) -> f64 {
    assert!(degrees > 0.0, "{degrees} degrees of freedom");
    if p <= 0.0 || p >= 1.0 || degrees >= NORMAL_DEGREES {
        return normal_quantile(p);
    }
    magnitude(p.min(1.0 - p), degrees).copysign(p - 0.5)
}

/// The z with the same tail as `t`, for use with a boundary; far below t while the degrees are few. Finite
/// for finite t, also where the tail underflows.
pub(crate) fn normal_deviate_of_t(t: f64, degrees: f64) -> f64 {
    let far = t.abs();
    if degrees >= NORMAL_DEGREES || !far.is_finite() {
        return t;
    }
    let z = if far <= CENTRE_END {
        -normal_quantile(student_t_sf(far, degrees))
    } else {
        normal_log_quantile(Tail::at(far, degrees).log_sf)
    };
    z.copysign(t)
}

/// The quantile's magnitude at a tail from 0 (exclusive) to a half.
fn magnitude(tail: f64, degrees: f64) -> f64 {
    if tail == 0.5 {
        return 0.0;
    }
    // Closed forms: Abramowitz & Stegun 26.7.3 and 26.7.4 solved for t.
    if degrees == 1.0 {
        return if tail < 0.25 { (PI * tail).tan().recip() } else { (PI * (0.5 - tail)).tan() };
    }
    if degrees == 2.0 {
        return (1.0 - 2.0 * tail) / (2.0 * tail * (1.0 - tail)).sqrt();
    }
    if 0.5 - Centre::at(CENTRE_END, degrees).half_probability < tail {
        quantile_in_centre(tail, degrees)
    } else {
        quantile_in_tail(tail, degrees)
    }
}

/// Newton's method on the probability between 0 and t, starting at 0. The density falls, so the iterates rise
/// to the root without passing it.
fn quantile_in_centre(tail: f64, degrees: f64) -> f64 {
    const STEPS: usize = 50;
    let wanted = 0.5 - tail;
    let mut t = 0.0;
    for _ in 0..STEPS {
        let Centre { half_probability, density } = Centre::at(t, degrees);
        let step = (wanted - half_probability) / density;
        t += step;
        if step.abs() <= 1e-15 * t {
            break;
        }
    }
    t
}

/// Newton's method on the logarithm of the tail as a function of ln t. It is concave, so from the second step
/// on the iterates fall to the root without passing it.
fn quantile_in_tail(tail: f64, degrees: f64) -> f64 {
    const STEPS: usize = 100;
    let log_tail = tail.ln();
    let mut log_t = first_guess(tail, degrees).clamp(CENTRE_END.ln(), LOG_MAX);
    for _ in 0..STEPS {
        let Tail { log_sf, hazard } = Tail::at(log_t.exp(), degrees);
        let step = (log_sf - log_tail) / hazard;
        if log_t == LOG_MAX && step > 0.0 {
            return f64::INFINITY;
        }
        log_t = (log_t + step).clamp(CENTRE_END.ln(), LOG_MAX);
        if step.abs() <= 1e-15 {
            break;
        }
    }
    log_t.exp()
}

/// Returns the logarithm of a t near the quantile. For few degrees it uses the power law of the tail, which
/// begins early there; else Wallace's normal deviate (1959, Annals of Mathematical Statistics 30(4)) solved
/// for t.
fn first_guess(tail: f64, degrees: f64) -> f64 {
    if degrees < 3.0 {
        return 0.5 * degrees.ln() - (tail.ln() + LN_2 + log_a_beta(0.5 * degrees)) / degrees;
    }
    let z = normal_quantile(tail);
    let shrunk = (8.0 * degrees + 3.0) / (8.0 * degrees + 1.0);
    let exponent = shrunk * shrunk * z * z / degrees;
    let log_square = if exponent > 30.0 { exponent } else { exponent.exp_m1().ln() };
    0.5 * (degrees.ln() + log_square)
}

/// `ln(a B(a, 1/2))`, by Stirling's formula with its remainder.
fn log_a_beta(a: f64) -> f64 {
    let log_ratio =
        -0.5 * a.ln() - a * (0.5 / a).ln_1p() + 0.5 + stirling_remainder(a) - stirling_remainder(a + 0.5);
    a.ln() + log_ratio + 0.5 * PI.ln()
}

/// `x^a y^(1/2) / B(a, 1/2)` with a = v/2, x = v / (v + t^2) and `square` = t^2 / v, in logarithms: it is t
/// times the density at t.
fn log_density_times_t(square: f64, a: f64) -> f64 {
    -a * square.ln_1p() - 0.5 * square.recip().ln_1p() + a.ln() - log_a_beta(a)
}

/// The tail beyond a large t: I_x(v/2, 1/2) / 2 (Abramowitz & Stegun 26.7.1, 26.5.27).
struct Tail {
    log_sf: f64,
    /// Minus the derivative of `log_sf` with respect to ln t.
    hazard: f64,
}

impl Tail {
    fn at(t: f64, degrees: f64) -> Tail {
        let a = 0.5 * degrees;
        let w = t / degrees.sqrt();
        // Beyond this, 1 + w^2 equals w^2, and both may overflow.
        if w > 1e100 {
            let log_sf = degrees * (0.5 * degrees.ln() - t.ln()) - log_a_beta(a) - LN_2;
            return Tail { log_sf, hazard: degrees };
        }
        let square = w * w;
        let (x, y) = (1.0 / (1.0 + square), square / (1.0 + square));
        let fraction = incomplete_beta_fraction(BetaArguments { a, b: 0.5, x, y, lambda: a * y - 0.5 * x });
        let log_sf = log_density_times_t(square, a) + fraction.ln() - LN_2;
        Tail { log_sf, hazard: 2.0 / fraction }
    }
}

/// The centre of the distribution, from 0 to a small t.
struct Centre {
    /// P(0 < T < t)
    half_probability: f64,
    density: f64,
}

impl Centre {
    fn at(t: f64, degrees: f64) -> Centre {
        let a = 0.5 * degrees;
        let square = t * (t / degrees);
        let (x, y) = (square / (1.0 + square), 1.0 / (1.0 + square));
        // The density: (1 + t^2/v)^-(v+1)/2 / (sqrt(v) B(v/2, 1/2)).
        let density = (-(a + 0.5) * square.ln_1p() - 0.5 * degrees.ln() + a.ln() - log_a_beta(a)).exp();
        let fraction =
            incomplete_beta_fraction(BetaArguments { a: 0.5, b: a, x, y, lambda: 0.5 * y - a * x });
        Centre { half_probability: 0.5 * t * density * fraction, density }
    }
}
