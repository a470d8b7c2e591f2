//! Relative lift, `treatment mean / control mean - 1`, with three intervals. The platform shows
//! Fieller's, with the quantile of the absolute test, and the log ratio's where Fieller's has no
//! finite ends. There is only one p-value, that of the absolute difference.

use crate::{
    Alpha, Alternative, Arm, Interval, Missing, Moments, Pair,
    distributions::{student_t_quantile, student_t_sf},
    proportion_interval::exchange_ends_below_0,
    two_proportion::rates,
    welch,
};

/// A mean and the variance of that mean (the squared standard error).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// In the metric's unit.
    pub mean: f64,
    /// The variance of the mean, not of one unit: its squared standard error, at least 0.
    pub variance: f64,
}

/// The formula of a lift's interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The set of ratios that a test would not reject (Fieller 1954).
    Fieller,
    /// Symmetric for the logarithm of the ratio; used where Fieller's set is unbounded.
    LogRatio,
}

/// A relative lift as a share: 0.1 is ten per cent more than the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// The treatment mean divided by the control mean, minus 1.
    pub estimate: f64,
    /// The interval of the lift, also as a share.
    pub interval: Interval,
    /// The formula of the interval.
    pub method: Method,
}

/// The lift of two conversion rates at a two-sided level. Undefined while either arm has no
/// conversions.
pub fn of_rates(arms: Pair<Arm>, alpha: Alpha) -> Result<Lift, Missing> {
    let means = means_of_rates(arms)?;
    arms.try_map(|arm, counts| match counts.conversions() {
        0 => Err(Missing::Conversions { arm, have: 0, need: 1 }),
        _ => Ok(()),
    })?;
    let z = Alternative::TwoSided.critical_z(alpha);
    with_fallback(means, z, || Ok(z))
}

/// The lift of two means at a two-sided level, with the quantile of Welch's t.
pub fn of_means(moments: Pair<Moments>, alpha: Alpha) -> Result<Lift, Missing> {
    let test = welch::test(moments, Alternative::TwoSided)?;
    let of_log_ratio = || log_ratio_critical(moments, alpha, Alternative::TwoSided);
    with_fallback(means_of_moments(moments)?, test.critical(alpha), of_log_ratio)
}

/// Returns the interval that the platform shows. Fieller's uses the critical value of the absolute test; the
/// log ratio's has its own, which may be missing.
fn with_fallback(
    means: Pair<Mean>,
    critical: f64,
    of_log_ratio: impl Fn() -> Result<f64, Missing>,
) -> Result<Lift, Missing> {
    let estimate = estimate(means)?;
    match fieller(means, critical) {
        Ok(interval) => Ok(Lift { estimate, interval, method: Method::Fieller }),
        Err(Missing::BoundedRatio) => {
            let interval = log_ratio(means, of_log_ratio()?)?;
            Ok(Lift { estimate, interval, method: Method::LogRatio })
        }
        Err(missing) => Err(missing),
    }
}

/// Returns each rate with the variance `p (1 - p) / n` of its estimate.
pub fn means_of_rates(arms: Pair<Arm>) -> Result<Pair<Mean>, Missing> {
    let mean = |rate: f64, arm: Arm| Mean { mean: rate, variance: arm.variance_of_rate().unwrap_or(0.0) };
    Ok(rates(arms)?.with(arms, mean))
}

/// Returns each mean with the variance `s^2 / n` of its estimate.
pub fn means_of_moments(moments: Pair<Moments>) -> Result<Pair<Mean>, Missing> {
    moments.try_map(|side, arm| {
        let variance = arm.variance_of(side)? / arm.count() as f64;
        Ok(Mean { mean: arm.mean(), variance })
    })
}

/// `m_t / m_c - 1`, for a control mean above 0. With a control mean below 0 an increase would have a negative
/// lift.
pub fn estimate(means: Pair<Mean>) -> Result<f64, Missing> {
    positive_baseline(means)?;
    // The difference first, so that it is accurate where two large means are nearly equal.
    let lift = (means.treatment.mean - means.control.mean) / means.control.mean;
    finite_or_unbounded(lift)
}

/// The standard error of the ratio by the delta method: `sqrt(V_t / m_c^2 + V_c m_t^2 / m_c^4)`
/// (Deng, Knoblich & Lu 2018, KDD; GrowthBook `frequentist_variance`). It is inaccurate when the
/// control mean is within a few standard errors of 0, and 0 when the treatment neither varies nor
/// differs from 0. For a control mean above 0.
pub fn delta_standard_error(means: Pair<Mean>) -> Result<f64, Missing> {
    positive_baseline(means)?;
    let errors = Relative::of(means);
    finite_or_unbounded(errors.treatment.hypot(errors.control * errors.ratio))
}

/// The delta-method interval, symmetric about the estimate. It implies a second p-value, [`delta_p_value`],
/// that may contradict the absolute test; the platform does not show it.
pub fn delta(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    Ok(Interval::around(estimate(means)?, critical * delta_standard_error(means)?))
}

/// The p-value that [`delta`] implies, from t with these degrees of freedom and on the side of the
/// alternative. It is below alpha exactly when the interval at the critical value of alpha excludes 0.
///
/// Returns [`Missing::Variation`] where the standard error is 0.
pub fn delta_p_value(means: Pair<Mean>, degrees: f64, alternative: Alternative) -> Result<f64, Missing> {
    let standard_error = delta_standard_error(means)?;
    if standard_error == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(alternative.p_value(estimate(means)? / standard_error, |t| student_t_sf(t, degrees)))
}

/// The interval of the log ratio, `m_t/m_c exp(+- critical sqrt(V_t/m_t^2 + V_c/m_c^2)) - 1` (Katz et al.
/// 1978, Biometrics 34(3)). Both means must be above 0. It is too wide on the side of a mean that is hardly
/// larger than its standard error; returns [`Missing::BoundedRatio`] where that end is beyond the largest
/// double.
pub fn log_ratio(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    positive_baseline(means)?;
    let Pair { control: c, treatment: t } = means;
    if t.mean <= 0.0 {
        return Err(Missing::PositiveTreatment { treatment_mean: t.mean });
    }
    let relative_error = |m: Mean| m.variance.sqrt() / m.mean;
    let spread = critical * relative_error(t).hypot(relative_error(c));
    let lift = estimate(means)?;
    let log = if lift.abs() < 0.5 { lift.ln_1p() } else { (t.mean / c.mean).ln() };
    let interval = Interval { lower: (log - spread).exp_m1(), upper: (log + spread).exp_m1() };
    if interval.upper.is_finite() && interval.lower.is_finite() {
        Ok(interval)
    } else {
        Err(Missing::BoundedRatio)
    }
}

/// The t quantile for [`log_ratio`] of two sample means, with Satterthwaite's degrees of freedom of
/// the relative variances (tea-tasting).
pub fn log_ratio_critical(
    moments: Pair<Moments>,
    alpha: Alpha,
    alternative: Alternative,
) -> Result<f64, Missing> {
    let means = means_of_moments(moments)?;
    positive_baseline(means)?;
    if means.treatment.mean <= 0.0 {
        return Err(Missing::PositiveTreatment { treatment_mean: means.treatment.mean });
    }
    let relative = means.map(|m| m.variance.sqrt() / m.mean);
    if relative.control == 0.0 && relative.treatment == 0.0 {
        return Err(Missing::Variation);
    }
    let degrees = welch::satterthwaite_of_errors(relative, moments.map(Moments::count));
    Ok(-student_t_quantile(alternative.tail(alpha), degrees))
}

/// Fieller's interval (1954, JRSS B 16(2)): the ratios R with
/// `(m_t - R m_c)^2 <= critical^2 (V_t + R^2 V_c)`, minus 1. Its set has finite ends only when the
/// control mean differs from 0 at the same level; otherwise [`Missing::BoundedRatio`].
pub fn fieller(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    positive_baseline(means)?;
    // Divided by m_c, with errors e_c and e_t relative to it: a R^2 - 2 r R + (r^2 - e_t^2) = 0.
    let Relative { ratio, control, treatment } = Relative::of(means);
    let (e_c, e_t) = (critical.abs() * control, critical.abs() * treatment);
    let a = (1.0 - e_c) * (1.0 + e_c);
    if a <= 0.0 {
        return Err(Missing::BoundedRatio);
    }
    // r^2 - a (r^2 - e_t^2), without the cancelling squares of the ratio.
    let root = (e_t * a.sqrt()).hypot(ratio * e_c);
    // r / a - 1, the centre of the interval.
    let centre = estimate(means)? + e_c * e_c;
    let both = Interval { lower: (centre - root) / a, upper: (centre + root) / a };
    let interval = exchange_ends_below_0(both, critical);
    if interval.lower.is_finite() && interval.upper.is_finite() {
        Ok(interval)
    } else {
        Err(Missing::BoundedRatio)
    }
}

/// All values divided by the control mean, so that no mean has to be squared: the square may be outside the
/// range of a double.
struct Relative {
    /// Treatment mean over control mean.
    ratio: f64,
    /// Standard error of the control mean.
    control: f64,
    /// Standard error of the treatment mean.
    treatment: f64,
}

impl Relative {
    fn of(means: Pair<Mean>) -> Relative {
        let error = |m: Mean| m.variance.sqrt() / means.control.mean;
        Relative {
            ratio: means.treatment.mean / means.control.mean,
            control: error(means.control),
            treatment: error(means.treatment),
        }
    }
}

/// Returns [`Missing::BoundedRatio`] where the control mean is so close to 0 that the quotient is not finite.
fn finite_or_unbounded(value: f64) -> Result<f64, Missing> {
    if value.is_finite() { Ok(value) } else { Err(Missing::BoundedRatio) }
}

fn positive_baseline(means: Pair<Mean>) -> Result<(), Missing> {
    let control_mean = means.control.mean;
    if control_mean > 0.0 { Ok(()) } else { Err(Missing::PositiveBaseline { control_mean }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(control: (f64, f64), treatment: (f64, f64)) -> Pair<Mean> {
        Pair { control, treatment }.map(|(mean, variance)| Mean { mean, variance })
    }

    /// Halving a loss of 10 to 5 is better by 5, but the quotient would be a decrease of 50 %.
    #[test]
    fn a_control_mean_below_0_has_no_lift() {
        let halved = means((-10.0, 0.1), (-5.0, 0.1));
        let missing = Missing::PositiveBaseline { control_mean: -10.0 };
        assert_eq!(estimate(halved), Err(missing));
        assert_eq!(delta_standard_error(halved), Err(missing));
        assert_eq!(delta(halved, 1.96), Err(missing));
        assert_eq!(delta_p_value(halved, 5.0, Alternative::Greater), Err(missing));
        assert_eq!(fieller(halved, 1.96), Err(missing));
        assert_eq!(log_ratio(halved, 1.96), Err(missing));
    }

    /// The p-value of the delta method is below alpha exactly when its interval excludes 0, on the same side.
    #[test]
    fn the_delta_p_value_is_dual_to_its_interval() {
        let degrees = 8.0;
        for treatment in [9.0, 9.9, 10.3, 11.5, 14.0] {
            let means = means((10.0, 0.3), (treatment, 0.5));
            for alternative in [Alternative::TwoSided, Alternative::Greater, Alternative::Less] {
                let p = delta_p_value(means, degrees, alternative).unwrap();
                let critical = -student_t_quantile(alternative.tail(Alpha::FIVE_PERCENT), degrees);
                let interval = alternative.of_interval(delta(means, critical).unwrap());
                assert_eq!(
                    p < 0.05,
                    !interval.contains(0.0),
                    "{treatment} {alternative:?}: {p} {interval:?}"
                );
            }
            let [up, down] = [Alternative::Greater, Alternative::Less]
                .map(|side| delta_p_value(means, degrees, side).unwrap());
            assert!((up + down - 1.0).abs() < 1e-12, "{up} {down}");
        }
    }

    /// Lifts do not depend on the unit of measure, from 1e-90 to 1e90.
    #[test]
    fn lifts_are_the_same_in_every_unit() {
        let at = |unit: f64| {
            let means = means((10.0 * unit, 0.3 * unit * unit), (11.0 * unit, 0.5 * unit * unit));
            (estimate(means), delta(means, 2.0), fieller(means, 2.0), log_ratio(means, 2.0))
        };
        let one = at(1.0);
        assert!((one.0.unwrap() - 0.1).abs() < 1e-15);
        for unit in [2_f64.powi(-300), 2_f64.powi(300)] {
            assert_eq!(at(unit), one);
        }
    }

    /// A treatment mean of 0 has no logarithm; Fieller's interval does not need one.
    #[test]
    fn a_treatment_mean_of_0_has_a_lift() {
        let moments = Pair {
            control: Moments::of([9.0, 10.0, 11.0, 10.0]).unwrap(),
            treatment: Moments::of([-1.0, 1.0, 0.5, -0.5]).unwrap(),
        };
        let lift = of_means(moments, Alpha::FIVE_PERCENT).unwrap();
        assert_eq!((lift.estimate, lift.method), (-1.0, Method::Fieller));
        assert!(lift.interval.contains(-1.0), "{lift:?}");
    }
}
