//! Relative lift, `treatment mean / control mean - 1`, with three intervals. The platform shows
//! Fieller's, with the quantile of the absolute test, and the log ratio's where Fieller's has no
//! finite ends; there is one p-value, that of the absolute difference.

use crate::{
    Alpha, Alternative, Arm, Interval, Missing, Moments, Pair, distributions::student_t_quantile,
    two_proportion::rates, welch,
};

/// A mean and the variance of that mean (the squared standard error).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// In the metric's unit.
    pub mean: f64,
    /// Of the mean, not of one unit: its standard error squared, at least 0.
    pub variance: f64,
}

/// Which formula gave a lift's interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The set of ratios that a test would not reject (Fieller 1954).
    Fieller,
    /// Symmetric for the logarithm of the ratio, where Fieller's set is unbounded.
    LogRatio,
}

/// A relative lift as a share: 0.1 is ten per cent more than the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// Treatment mean over control mean, minus 1.
    pub estimate: f64,
    /// Of the lift, as a share too.
    pub interval: Interval,
    /// Which formula gave the interval.
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
    shown(means, Critical { absolute: z, log_ratio: z })
}

/// The lift of two means at a two-sided level, with the quantile of Welch's t.
pub fn of_means(moments: Pair<Moments>, alpha: Alpha) -> Result<Lift, Missing> {
    let test = welch::test(moments, Alternative::TwoSided)?;
    let critical = Critical {
        absolute: test.critical(alpha),
        log_ratio: log_ratio_critical(moments, alpha, Alternative::TwoSided)?,
    };
    shown(means_of_moments(moments)?, critical)
}

/// The quantiles that Fieller's interval shares with the absolute test, and the log ratio's own.
struct Critical {
    absolute: f64,
    log_ratio: f64,
}

fn shown(means: Pair<Mean>, critical: Critical) -> Result<Lift, Missing> {
    let estimate = estimate(means)?;
    match fieller(means, critical.absolute) {
        Ok(interval) => Ok(Lift { estimate, interval, method: Method::Fieller }),
        Err(Missing::BoundedRatio) => {
            let interval = log_ratio(means, critical.log_ratio)?;
            Ok(Lift { estimate, interval, method: Method::LogRatio })
        }
        Err(missing) => Err(missing),
    }
}

/// Each rate with the variance `p (1 - p) / n` of its estimate.
pub fn means_of_rates(arms: Pair<Arm>) -> Result<Pair<Mean>, Missing> {
    let rates = rates(arms)?;
    let mean = |p: f64, arm: Arm| Mean { mean: p, variance: p * (1.0 - p) / arm.units() as f64 };
    Ok(Pair { control: mean(rates.control, arms.control), treatment: mean(rates.treatment, arms.treatment) })
}

/// Each mean with the variance `s^2 / n` of its estimate.
pub fn means_of_moments(moments: Pair<Moments>) -> Result<Pair<Mean>, Missing> {
    moments.try_map(|side, arm| {
        let variance = arm.variance_of(side)? / arm.count() as f64;
        Ok(Mean { mean: arm.mean(), variance })
    })
}

/// `m_t / m_c - 1`, for a control mean above 0.
pub fn estimate(means: Pair<Mean>) -> Result<f64, Missing> {
    positive_baseline(means)?;
    Ok(means.treatment.mean / means.control.mean - 1.0)
}

/// The standard error of the ratio by the delta method: `sqrt(V_t / m_c^2 + V_c m_t^2 / m_c^4)`
/// (Deng, Knoblich & Lu 2018, KDD; GrowthBook `frequentist_variance`). Wanting when the
/// control mean is within a few standard errors of 0, and 0 when the treatment neither varies nor
/// differs from 0.
pub fn delta_standard_error(means: Pair<Mean>) -> Result<f64, Missing> {
    let Pair { control: c, treatment: t } = means;
    if c.mean == 0.0 {
        return Err(Missing::PositiveBaseline { control_mean: c.mean });
    }
    let share = t.mean / c.mean;
    Ok((t.variance + c.variance * share * share).sqrt() / c.mean.abs())
}

/// The delta-method interval, symmetric about the estimate. It implies a second p-value that may
/// contradict the absolute test; the platform does not show it.
pub fn delta(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    let standard_error = delta_standard_error(means)?;
    let estimate = means.treatment.mean / means.control.mean - 1.0;
    Ok(Interval::around(estimate, critical * standard_error))
}

/// The interval of the log ratio, `m_t/m_c exp(+- critical sqrt(V_t/m_t^2 + V_c/m_c^2)) - 1` (Katz
/// et al. 1978, Biometrics 34(3)). Always finite; both means must be above 0. Too wide on the side
/// of a mean that is hardly larger than its standard error.
pub fn log_ratio(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    positive_baseline(means)?;
    let Pair { control: c, treatment: t } = means;
    if t.mean <= 0.0 {
        return Err(Missing::PositiveTreatment { treatment_mean: t.mean });
    }
    let relative_variance = |m: Mean| m.variance / (m.mean * m.mean);
    let spread = (critical * (relative_variance(t) + relative_variance(c)).sqrt()).exp();
    let ratio = t.mean / c.mean;
    Ok(Interval { lower: ratio / spread - 1.0, upper: ratio * spread - 1.0 })
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
    let relative = means.map(|m| m.variance / (m.mean * m.mean));
    if relative.control + relative.treatment == 0.0 {
        return Err(Missing::Variation);
    }
    let degrees = welch::satterthwaite(relative, moments.map(Moments::count));
    Ok(-student_t_quantile(alternative.tail(alpha), degrees))
}

/// Fieller's interval (1954, JRSS B 16(2)): the ratios R with
/// `(m_t - R m_c)^2 <= critical^2 (V_t + R^2 V_c)`, minus 1. Its set has finite ends only when the
/// control mean differs from 0 at the same level; otherwise [`Missing::BoundedRatio`].
pub fn fieller(means: Pair<Mean>, critical: f64) -> Result<Interval, Missing> {
    positive_baseline(means)?;
    let Pair { control: c, treatment: t } = means;
    let k2 = critical * critical;
    // a R^2 - 2 b R + c0 = 0
    let a = c.mean * c.mean - k2 * c.variance;
    let b = c.mean * t.mean;
    if a <= 0.0 {
        return Err(Missing::BoundedRatio);
    }
    // b^2 - a c0, without the cancelling product of the means.
    let under_root =
        k2 * (c.mean * c.mean * t.variance + t.mean * t.mean * c.variance - k2 * c.variance * t.variance);
    let root = under_root.max(0.0).sqrt();
    Ok(Interval { lower: (b - root) / a - 1.0, upper: (b + root) / a - 1.0 })
}

fn positive_baseline(means: Pair<Mean>) -> Result<(), Missing> {
    let control_mean = means.control.mean;
    if control_mean > 0.0 { Ok(()) } else { Err(Missing::PositiveBaseline { control_mean }) }
}
