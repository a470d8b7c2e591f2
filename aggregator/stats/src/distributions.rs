//! The few distribution functions that the methods need, with statrs' rough edges filed off.
//! Upper tails are always survival functions, never `1 - cdf`, so that they keep their digits.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

use statrs::{
    distribution::{ChiSquared, Continuous, ContinuousCDF, Normal, StudentsT},
    function::gamma::ln_gamma,
};

use crate::error_function::{erfc, erfc_from};

/// Above this many degrees of freedom Student's t is computed from normal expansions: statrs'
/// inverse loses digits from 50,000 on and never returns at 50 million.
const LARGE_DEGREES: f64 = 1000.0;

/// Standard normal upper tail, P(Z > z). Relative error below 1e-14 up to z = 8 and below 1e-12
/// until it underflows at z = 37.5.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z * FRAC_1_SQRT_2)
}

/// Standard normal lower tail, P(Z <= z).
pub fn normal_cdf(z: f64) -> f64 {
    normal_sf(-z)
}

/// Upper tail and density at z from one exponential; relative error below 1e-13 up to |z| = 10.
pub(crate) fn normal_tail_and_density(z: f64) -> (f64, f64) {
    const INVERSE_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
    let exponential = (-0.5 * z * z).exp();
    (0.5 * erfc_from(z * FRAC_1_SQRT_2, exponential), INVERSE_SQRT_TAU * exponential)
}

/// Standard normal density.
pub fn normal_pdf(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The z below which a share `p` lies; `p` in 0..=1, infinite at the ends.
pub fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Upper tail of chi-square with `degrees` > 0 degrees of freedom.
pub fn chi_square_sf(x: f64, degrees: f64) -> f64 {
    ChiSquared::new(degrees).expect("degrees of freedom are positive").sf(x)
}

/// Upper tail of Student's t with `degrees` > 0 degrees of freedom.
///
/// Above 1000 degrees by the normal deviate of Hill (1970), Algorithm 395, Communications of the
/// ACM 13(10), whose neglected terms are below 1e-15 there.
pub fn student_t_sf(t: f64, degrees: f64) -> f64 {
    if degrees > LARGE_DEGREES {
        return normal_sf(hill_deviate(t, degrees));
    }
    student_t(degrees).sf(t)
}

/// The t below which a share `p` lies, for `p` in 0..=1. Exact to the precision of the tail up to
/// 1000 degrees: statrs' answer, off by up to 1e-8, is refined by Newton's method.
///
/// Above 1000 degrees by the expansion of Fisher and Cornish in powers of 1/degrees (Abramowitz
/// and Stegun 26.7.5); error below 1e-12 for 1e-5 < p < 1 - 1e-5.
pub fn student_t_quantile(p: f64, degrees: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 || degrees.is_infinite() {
        return normal_quantile(p);
    }
    if degrees <= LARGE_DEGREES {
        return t_quantile_magnitude(p.min(1.0 - p), degrees).copysign(p - 0.5);
    }
    let z = normal_quantile(p);
    let z2 = z * z;
    let g1 = (z2 + 1.0) * z / 4.0;
    let g2 = ((5.0 * z2 + 16.0) * z2 + 3.0) * z / 96.0;
    let g3 = (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) * z / 384.0;
    let g4 = ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) * z / 92_160.0;
    z + (g1 + (g2 + (g3 + g4 / degrees) / degrees) / degrees) / degrees
}

/// The magnitude of the quantile at `tail` <= 0.5.
fn t_quantile_magnitude(tail: f64, degrees: f64) -> f64 {
    let distribution = student_t(degrees);
    let mut t = -distribution.inverse_cdf(tail);
    for _ in 0..2 {
        let step = (distribution.sf(t) - tail) / distribution.pdf(t);
        if step.is_finite() {
            t += step;
        }
    }
    t
}

fn student_t(degrees: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees).expect("degrees of freedom are positive")
}

/// The z with the same tail as `t`: by the tail itself up to 1000 degrees, above by Hill
/// (1970), Algorithm 395.
pub(crate) fn normal_deviate_of_t(t: f64, degrees: f64) -> f64 {
    if degrees <= LARGE_DEGREES {
        return (-normal_quantile(student_t_sf(t.abs(), degrees))).copysign(t);
    }
    hill_deviate(t, degrees)
}

fn hill_deviate(t: f64, degrees: f64) -> f64 {
    if degrees.is_infinite() {
        return t;
    }
    let a = degrees - 0.5;
    let b = 48.0 * a * a;
    let w2 = a * (t * t / degrees).ln_1p();
    let w = w2.sqrt();
    let correction = (((0.4 * w2 + 3.3) * w2 + 24.0) * w2 + 85.5) / (0.8 * w2 * w2 + 100.0 + b);
    (w * ((w2 + 3.0 - correction) / b + 1.0)).copysign(t)
}

/// `ln G(z) - [(z - 1/2) ln z - z + ln(2 pi)/2]` for z > 0: Abramowitz & Stegun 6.1.41, error
/// below 1e-16 from z = 12 on; by subtraction below, where nothing large cancels.
pub(crate) fn stirling_remainder(z: f64) -> f64 {
    if z < 12.0 {
        return ln_gamma(z) - ((z - 0.5) * z.ln() - z + 0.5 * TAU.ln());
    }
    let inverse_square = 1.0 / (z * z);
    let series = [1.0 / 1188.0, -1.0 / 1680.0, 1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0];
    series.iter().fold(0.0, |sum, coefficient| sum * inverse_square + coefficient) / z
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "got {got:e}, expected {expected:e}");
    }

    /// The two ways to compute the tail meet where one hands over to the other.
    #[test]
    fn the_tail_of_t_is_continuous_at_1000_degrees() {
        for t in [0.3, 1.0, 1.96, 3.0, 5.0] {
            let exact = student_t(1000.0).sf(t);
            assert_close(normal_sf(hill_deviate(t, 1000.0)), exact, 1e-12);
            assert_close(1.0 - normal_sf(hill_deviate(-t, 1000.0)), exact, 1e-9);
        }
    }

    /// Tail and quantile are inverse to each other, at sizes where statrs alone would not return.
    #[test]
    fn tail_and_quantile_of_t_agree_at_any_size() {
        for degrees in [1.0, 2.5, 30.0, 999.0, 1001.0, 2e4, 5e4, 1e6, 5e7, 1e10] {
            for p in [0.2, 0.025, 0.005, 1e-5] {
                let t = -student_t_quantile(p, degrees);
                assert_close(student_t_sf(t, degrees), p, 1e-11);
            }
        }
    }

    /// Percentage points from Fisher and Yates' table III.
    #[test]
    fn quantiles_of_t_match_the_printed_table() {
        for (degrees, expected) in [(1.0, 12.706), (10.0, 2.228), (60.0, 2.000), (120.0, 1.980)] {
            let t = student_t_quantile(0.975, degrees);
            assert!((t - expected).abs() < 5.1e-4, "{degrees}: {t}");
        }
    }
}
