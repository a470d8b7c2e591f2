//! The few distribution functions that the methods need, correct also where statrs is not.
//! Upper tails are always survival functions, never `1 - cdf`, so that small ones are accurate.
//! `tests/far_tails.rs` compares them with 50-digit values, out to tails of 1e-300.

mod student_t;

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use statrs::distribution::{ContinuousCDF, Normal};

pub(crate) use student_t::normal_deviate_of_t;
pub use student_t::{student_t_quantile, student_t_sf};

use crate::{
    error_function::{erfc, erfc_from, log_erfc},
    special::upper_gamma,
};

/// Standard normal upper tail, P(Z > z). Relative error below 1e-14 up to z = 8 and below 1e-12
/// until it underflows at z = 37.5.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z * FRAC_1_SQRT_2)
}

/// Standard normal lower tail, P(Z <= z).
pub fn normal_cdf(z: f64) -> f64 {
    normal_sf(-z)
}

/// Computes the upper tail and the density at z from one exponential; relative error below 1e-13 up to |z| =
/// 10.
pub(crate) fn normal_tail_and_density(z: f64) -> (f64, f64) {
    const INVERSE_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
    let exponential = (-0.5 * z * z).exp();
    (0.5 * erfc_from(z * FRAC_1_SQRT_2, exponential), INVERSE_SQRT_TAU * exponential)
}

/// Standard normal density.
pub fn normal_pdf(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The z with P(Z <= z) = `p`; `p` in 0..=1, infinite at the ends.
pub fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// The z > 0 whose upper tail has this logarithm, at most `ln(1/2)`; also where the tail itself underflows.
pub(crate) fn normal_log_quantile(log_tail: f64) -> f64 {
    const STEPS: usize = 50;
    // The logarithm of the smallest tail that keeps its digits as a double.
    const SMALLEST: f64 = -700.0;
    if log_tail > SMALLEST {
        return -normal_quantile(log_tail.exp());
    }
    // Newton's method on the logarithm, which is concave; its slope is about -z for such a tail.
    let mut z = (-2.0 * log_tail).sqrt();
    for _ in 0..STEPS {
        let log_sf = log_erfc(z * FRAC_1_SQRT_2) - std::f64::consts::LN_2;
        let step = (log_sf - log_tail) / (z + 1.0 / z);
        z += step;
        if step.abs() <= 1e-15 * z {
            break;
        }
    }
    z
}

/// Upper tail of chi-square with `degrees` > 0 degrees of freedom. Relative error below 1e-12 up to a million
/// degrees, until the tail underflows.
///
/// # Panics
/// When `degrees` is not above 0.
pub fn chi_square_sf(x: f64, degrees: f64) -> f64 {
    assert!(degrees > 0.0, "{degrees} degrees of freedom");
    upper_gamma(0.5 * degrees, 0.5 * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "got {got:e}, expected {expected:e}");
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
