//! Two means with unequal variances, compared once at the planned end.

use crate::{
    Alpha, Alternative, Effect, Interval, Lift, Missing, Moments, Pair,
    distributions::{student_t_quantile, student_t_sf},
    lift,
};

/// Welch's test of equal means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Treatment mean minus control mean, with `sqrt(v_c / n_c + v_t / n_t)`.
    pub effect: Effect,
    pub t: f64,
    /// Welch-Satterthwaite degrees of freedom; not a whole number.
    pub degrees: f64,
    pub p_value: f64,
    pub alternative: Alternative,
}

/// Everything the platform shows of two means after a fixed-horizon experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    pub means: Pair<f64>,
    pub test: Welch,
    pub interval: Interval,
    pub lift: Result<Lift, Missing>,
}

/// Welch's test, its interval and the relative lift, all two-sided.
pub fn compare(moments: Pair<Moments>, alpha: Alpha) -> Result<Comparison, Missing> {
    let test = test(moments, Alternative::TwoSided)?;
    Ok(Comparison {
        means: moments.map(Moments::mean),
        test,
        interval: test.interval(alpha),
        lift: lift::of_means(moments, alpha),
    })
}

/// Welch (1947), Biometrika 34(1-2), with Satterthwaite's degrees of freedom (1946, Biometrics
/// Bulletin 2(6)); as scipy `ttest_ind(equal_var=False)`.
///
/// Needs two units in each arm and some variation in one of them. The t approximation is good from
/// a few dozen units on for light tails; heavy-tailed revenue needs thousands, or winsorizing.
pub fn test(moments: Pair<Moments>, alternative: Alternative) -> Result<Welch, Missing> {
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
    let t = effect.estimate / effect.standard_error;
    let p_value = alternative.p_value(t, |t| student_t_sf(t, degrees));
    Ok(Welch { effect, t, degrees, p_value, alternative })
}

/// The degrees of freedom of a sum of two independent variance estimates, each from so many units;
/// at least two units in each, and one variance above 0.
pub(crate) fn satterthwaite(variances: Pair<f64>, units: Pair<u64>) -> f64 {
    let whole = variances.control + variances.treatment;
    // As shares of the whole, so that tiny variances do not underflow when squared.
    let part = |variance: f64, units: u64| (variance / whole).powi(2) / (units - 1) as f64;
    1.0 / (part(variances.control, units.control) + part(variances.treatment, units.treatment))
}

impl Welch {
    /// The t quantile beyond which the test rejects at `alpha`.
    pub fn critical(&self, alpha: Alpha) -> f64 {
        -student_t_quantile(self.alternative.tail(alpha), self.degrees)
    }

    /// The differences that the test would not reject at `alpha`.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        self.alternative.of_interval(self.effect.interval(self.critical(alpha)))
    }
}
