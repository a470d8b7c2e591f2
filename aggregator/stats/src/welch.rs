//! Compares two means with unequal variances once, at the planned end.

use crate::{
    Alpha, Alternative, Effect, Interval, Missing, Moments, Pair,
    distributions::{normal_deviate_of_t, student_t_quantile, student_t_sf},
};

/// Welch's test of equal means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Treatment mean minus control mean, with `sqrt(v_c / n_c + v_t / n_t)`.
    pub effect: Effect,
    /// The difference minus the null, divided by the standard error.
    pub t: f64,
    /// Welch-Satterthwaite degrees of freedom; not a whole number.
    pub degrees: f64,
    /// From 0 to 1, by `alternative`.
    pub p_value: f64,
    /// The alternative of the test.
    pub alternative: Alternative,
}

/// Welch (1947), Biometrika 34(1-2), with Satterthwaite's degrees of freedom (1946, Biometrics
/// Bulletin 2(6)); as scipy `ttest_ind(equal_var=False)`.
///
/// Needs two units in each arm and some variation in one of them. The t approximation is good from
/// a few dozen units on for light tails; heavy-tailed revenue needs thousands, or winsorizing.
pub fn test(moments: Pair<Moments>, alternative: Alternative) -> Result<Welch, Missing> {
    test_against(moments, 0.0, alternative)
}

/// Welch's test against a difference of `null` instead of 0, in the metric's unit. One-sided with a margin,
/// it tests for non-inferiority.
pub fn test_against(moments: Pair<Moments>, null: f64, alternative: Alternative) -> Result<Welch, Missing> {
    let of_mean = moments.try_map(|side, arm| Ok(arm.variance_of(side)? / arm.count() as f64))?;
    let variance = of_mean.control + of_mean.treatment;
    if variance == 0.0 {
        return Err(Missing::Variation);
    }
    let effect = Effect {
        estimate: moments.treatment.mean() - moments.control.mean(),
        standard_error: variance.sqrt(),
    };
    let degrees = satterthwaite(of_mean, moments.map(Moments::count));
    let t = (effect.estimate - null) / effect.standard_error;
    let p_value = alternative.p_value(t, |t| student_t_sf(t, degrees));
    Ok(Welch { effect, t, degrees, p_value, alternative })
}

/// The degrees of freedom of the sum of two independent variance estimates from these units. Each arm must
/// have at least two units, and one variance must be above 0.
pub(crate) fn satterthwaite(variances: Pair<f64>, units: Pair<u64>) -> f64 {
    satterthwaite_of_errors(variances.map(f64::sqrt), units)
}

/// The same from the square roots of the variances, whose squares may be outside the range of a double.
pub(crate) fn satterthwaite_of_errors(errors: Pair<f64>, units: Pair<u64>) -> f64 {
    let whole = errors.control.hypot(errors.treatment);
    // Errors as shares of the whole, so that no power overflows or underflows.
    let part = |error: f64, units: u64| (error / whole).powi(4) / (units - 1) as f64;
    1.0 / (part(errors.control, units.control) + part(errors.treatment, units.treatment))
}

impl Welch {
    /// The t quantile beyond which the test rejects at `alpha`.
    pub fn critical(&self, alpha: Alpha) -> f64 {
        -student_t_quantile(self.alternative.tail(alpha), self.degrees)
    }

    /// The normal deviate with the same tail as t, for [`crate::group_sequential`]. It differs noticeably
    /// from t below about 100 degrees of freedom.
    pub fn as_z(&self) -> f64 {
        normal_deviate_of_t(self.t, self.degrees)
    }

    /// The differences that the test would not reject at `alpha`.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        self.alternative.of_interval(self.effect.interval(self.critical(alpha)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(control: &[f64], treatment: &[f64]) -> Pair<Moments> {
        Pair { control, treatment }.map(|values| Moments::of(values.iter().copied()).unwrap())
    }

    /// Student's sleep data, whose t, df and p are printed in textbooks.
    #[test]
    fn students_sleep_data() {
        let test = test(
            moments(
                &[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
                &[1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
            ),
            Alternative::TwoSided,
        )
        .unwrap();
        assert!((test.t - 1.8608).abs() < 5e-5, "{test:?}");
        assert!((test.degrees - 17.776).abs() < 5e-4, "{test:?}");
        assert!((test.p_value - 0.07939).abs() < 5e-6, "{test:?}");
        let tail = 2.0 * crate::distributions::normal_sf(test.as_z());
        assert!((tail / test.p_value - 1.0).abs() < 1e-9, "{tail}");
    }
}
