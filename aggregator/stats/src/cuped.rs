//! Variance reduction by a covariate that was known before the experiment (CUPED): the part of the
//! outcome that a pre-exposure covariate predicts is subtracted from both arms alike.
//!
//! The covariate must be fixed before exposure, else the adjustment removes part of the effect. Units without
//! history have a covariate of 0 and stay in the analysis.

use crate::{
    Alpha, Alternative, Effect, Interval, Missing, Moments, Pair, PairMoments,
    distributions::student_t_quantile, linear::solve, welch,
};

/// The slope, and both arms after the adjustment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjusted {
    /// The slope of outcome on covariate over the pooled units of both arms; 0 without
    /// variation in the covariate.
    pub theta: f64,
    /// Moments of the adjusted outcomes, for [`welch`] or [`crate::confidence_sequence`].
    pub arms: Pair<Moments>,
}

/// Adjusts outcome y by covariate x (x and y of [`PairMoments`]): `theta = cov(x, y) / var(x)` pooled,
/// `mean' = ybar - theta (xbar - xbar pooled)`, `var' = var y + theta^2 var x - 2 theta cov` per arm. Deng,
/// Xu, Kohavi & Walker (2013), WSDM; as gbstats and tea-tasting. Theta per arm would be wrong in this
/// formula. The error of estimating theta is ignored, which is harmless from a few dozen units on.
pub fn adjust(arms: Pair<PairMoments>) -> Result<Adjusted, Missing> {
    let Pooled { theta, mean_x } = Pooled::of(arms);
    let arms = arms.try_map(|side, arm| {
        let (var_x, var_y) = (arm.x().variance_of(side)?, arm.y().variance_of(side)?);
        let covariance = arm.covariance().unwrap_or(0.0);
        let mean = arm.y().mean() - theta * (arm.x().mean() - mean_x);
        let variance = var_y + theta * (theta * var_x - 2.0 * covariance);
        Ok(Moments::with_variance(arm.count(), mean, variance.max(0.0)))
    })?;
    Ok(Adjusted { theta, arms })
}

/// The share of the variance of the difference that the adjustment removed: about rho^2, or slightly
/// below 0 when the covariate is useless.
pub fn variance_reduction(before: Pair<PairMoments>, after: &Adjusted) -> Result<f64, Missing> {
    let variance = |arms: Pair<Moments>| {
        let parts = arms.try_map(|side, arm| Ok(arm.variance_of(side)? / arm.count() as f64))?;
        Ok(parts.control + parts.treatment)
    };
    let raw = variance(before.map(PairMoments::y))?;
    if raw == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(1.0 - variance(after.arms)? / raw)
}

/// A relative lift after the adjustment, as a share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdjustedLift {
    /// The adjusted difference divided by the control mean: 0.1 is ten per cent more.
    pub estimate: f64,
    /// By the delta method.
    pub interval: Interval,
}

/// The relative lift: the adjusted difference divided by the UNADJUSTED control mean, with
/// [`lift_variance`].
pub fn lift(arms: Pair<PairMoments>, alpha: Alpha) -> Result<AdjustedLift, Missing> {
    let adjusted = adjust(arms)?.arms;
    let parts = lift_variance(arms)?;
    let control_mean = arms.control.y().mean();
    let estimate = (adjusted.treatment.mean() - adjusted.control.mean()) / control_mean;
    let standard_error = (parts.control + parts.treatment).sqrt();
    let degrees = welch::satterthwaite(parts, arms.map(PairMoments::count));
    let critical = -student_t_quantile(Alternative::TwoSided.tail(alpha), degrees);
    let interval = Interval::around(estimate, critical * standard_error);
    Ok(AdjustedLift { estimate, interval })
}

/// The contribution of each arm to the variance of the relative lift, by the delta method (GrowthBook):
/// treatment `[var y + theta^2 var x - 2 theta cov] / (n yc^2)`, control
/// `[var y r^2 - 2 theta cov r + theta^2 var x] / (n yc^2)` with raw means and `r = yt / yc`. Needs
/// a control mean well above 0.
pub fn lift_variance(arms: Pair<PairMoments>) -> Result<Pair<f64>, Missing> {
    let theta = Pooled::of(arms).theta;
    let (control_mean, treatment_mean) = (arms.control.y().mean(), arms.treatment.y().mean());
    if control_mean <= 0.0 {
        return Err(Missing::PositiveBaseline { control_mean });
    }
    let ratios = Pair { control: treatment_mean / control_mean, treatment: 1.0 };
    let part = |arm: PairMoments, var_x: f64, var_y: f64, r: f64| {
        let covariance = arm.covariance().unwrap_or(0.0);
        let variance = var_y * r * r + theta * (theta * var_x - 2.0 * covariance * r);
        variance.max(0.0) / (arm.count() as f64 * control_mean * control_mean)
    };
    let parts = arms.try_map(|side, arm| {
        let (var_x, var_y) = (arm.x().variance_of(side)?, arm.y().variance_of(side)?);
        let r = if side == crate::Side::Control { ratios.control } else { ratios.treatment };
        Ok(part(arm, var_x, var_y, r))
    })?;
    if parts.control + parts.treatment == 0.0 {
        return Err(Missing::Variation);
    }
    Ok(parts)
}

/// The difference when each arm has its own slope (Lin 2013, Annals of Applied Statistics 7(1)):
/// the best linear adjustment when slopes or arm sizes differ much. There is no standard
/// error, which would need every unit's residual. For comparison only.
pub fn lin_difference(arms: Pair<PairMoments>) -> f64 {
    let mean_x = Pooled::of(arms).mean_x;
    let at_common_x = arms.map(|arm| {
        let slope = slope(arm.covariance(), arm.x().variance());
        arm.y().mean() - slope * (arm.x().mean() - mean_x)
    });
    at_common_x.treatment - at_common_x.control
}

/// The difference when both arms share the within-arm slope (analysis of covariance), without a standard
/// error. For comparison only.
pub fn ancova_difference(arms: Pair<PairMoments>) -> f64 {
    let weighted = |f: fn(PairMoments) -> Option<f64>| {
        let sum = arms.map(|arm| f(arm).unwrap_or(0.0) * arm.count().saturating_sub(1) as f64);
        Some(sum.control + sum.treatment)
    };
    let slope = slope(weighted(PairMoments::covariance), weighted(|arm| arm.x().variance()));
    let of = |f: fn(PairMoments) -> f64| f(arms.treatment) - f(arms.control);
    of(|arm| arm.y().mean()) - slope * of(|arm| arm.x().mean())
}

/// [`ancova_difference`] with its error, from every unit's (covariate, outcome): ordinary least squares on
/// treatment and covariate, with HC2 errors (MacKinnon & White 1985, Journal of Econometrics 29(3)).
///
/// Returns [`Missing::Variation`] when the covariate does not vary, or is determined by the arm.
pub fn ancova(values: Pair<&[(f64, f64)]>) -> Result<Effect, Missing> {
    least_squares(values, |treated, x| vec![1.0, treated, x])
}

/// [`lin_difference`] with its error, computed like [`ancova`]: the regressors are treatment, covariate and
/// their product, with the covariate centred on its mean over both arms (Lin 2013).
pub fn lin(values: Pair<&[(f64, f64)]>) -> Result<Effect, Missing> {
    least_squares(values, |treated, x| vec![1.0, treated, x, treated * x])
}

/// The coefficient of the second regressor and its HC2 error; `row` makes the regressors of one unit from
/// whether it is treated (1 or 0) and its centred covariate.
fn least_squares(values: Pair<&[(f64, f64)]>, row: impl Fn(f64, f64) -> Vec<f64>) -> Result<Effect, Missing> {
    const TREATMENT: usize = 1;
    let count = values.control.len() + values.treatment.len();
    let all = || {
        let of = |treated: f64| move |&(x, y): &(f64, f64)| (treated, x, y);
        values.control.iter().map(of(0.0)).chain(values.treatment.iter().map(of(1.0)))
    };
    let mean_x = all().map(|(_, x, _)| x).sum::<f64>() / count as f64;
    let rows: Vec<Vec<f64>> = all().map(|(treated, x, _)| row(treated, x - mean_x)).collect();
    let columns = rows.first().map_or(0, Vec::len);
    if count <= columns {
        return Err(Missing::Variation);
    }
    let mut normal = vec![vec![0.0; columns]; columns];
    let mut right = vec![0.0; columns];
    for (row, (_, _, y)) in rows.iter().zip(all()) {
        for i in 0..columns {
            right[i] += row[i] * y;
            for j in 0..columns {
                normal[i][j] += row[i] * row[j];
            }
        }
    }
    let unit = |column: usize| (0..columns).map(|i| if i == column { 1.0 } else { 0.0 }).collect();
    let solved = |right: Vec<f64>| solve(normal.clone(), right).ok_or(Missing::Variation);
    let coefficients = solved(right)?;
    // The columns of the inverse, which is symmetric.
    let inverse = (0..columns).map(|column| solved(unit(column))).collect::<Result<Vec<_>, _>>()?;
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
    let mut variance = 0.0;
    for (row, (_, _, y)) in rows.iter().zip(all()) {
        let residual = y - dot(row, &coefficients);
        let leverage: f64 = (0..columns).map(|i| row[i] * dot(&inverse[i], row)).sum();
        // A unit with a leverage of 1 has no residual, so the divisor does not matter; it must only not be 0.
        let rest = (1.0 - leverage).max(f64::EPSILON);
        variance += (dot(&inverse[TREATMENT], row) * residual).powi(2) / rest;
    }
    Ok(Effect { estimate: coefficients[TREATMENT], standard_error: variance.sqrt() })
}

/// The slope, and the mean of the covariate, over the pooled units of both arms.
struct Pooled {
    theta: f64,
    mean_x: f64,
}

impl Pooled {
    fn of(arms: Pair<PairMoments>) -> Pooled {
        let pool = arms.control.merge(arms.treatment);
        Pooled { theta: slope(pool.covariance(), pool.x().variance()), mean_x: pool.x().mean() }
    }
}

/// covariance / variance, 0 without variation.
fn slope(covariance: Option<f64>, variance: Option<f64>) -> f64 {
    match (covariance, variance) {
        (Some(covariance), Some(variance)) if variance > 0.0 => covariance / variance,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms() -> Pair<PairMoments> {
        let of = |values: &[(f64, f64)]| PairMoments::of(values.iter().copied()).unwrap();
        Pair {
            control: of(&[(1.0, 5.0), (2.0, 6.0), (3.0, 9.0), (4.0, 8.0)]),
            treatment: of(&[(1.0, 6.0), (2.5, 9.0), (4.0, 12.0)]),
        }
    }

    /// The variance of the lift is g' S g, with the gradient g of
    /// `(yt - yc - theta (xt - xc)) / yc` taken numerically; the covariate means are equal here,
    /// where the formula is exact.
    #[test]
    fn the_lift_variance_is_the_delta_method() {
        let arms = arms();
        let theta = Pooled::of(arms).theta;
        let lift = |m: [f64; 4]| (m[3] - m[1] - theta * (m[2] - m[0])) / m[1];
        let (c, t) = (arms.control, arms.treatment);
        let at = [c.x().mean(), c.y().mean(), t.x().mean(), t.y().mean()];
        let slope = |i: usize| {
            let (mut up, mut down) = (at, at);
            up[i] += 1e-6;
            down[i] -= 1e-6;
            (lift(up) - lift(down)) / 2e-6
        };
        let part = |arm: PairMoments, i: usize| {
            let (gx, gy) = (slope(i), slope(i + 1));
            let variance = gx * gx * arm.x().variance().unwrap()
                + gy * gy * arm.y().variance().unwrap()
                + 2.0 * gx * gy * arm.covariance().unwrap();
            variance / arm.count() as f64
        };
        let found = lift_variance(arms).unwrap();
        assert!((found.control - part(c, 0)).abs() < 1e-9, "{found:?}");
        assert!((found.treatment - part(t, 2)).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_useless_covariate_changes_nothing() {
        let flat = |values: &[f64]| PairMoments::of(values.iter().map(|&y| (7.0, y))).unwrap();
        let arms = Pair { control: flat(&[1.0, 2.0, 4.0]), treatment: flat(&[2.0, 3.0]) };
        let adjusted = adjust(arms).unwrap();
        assert_eq!(adjusted.theta, 0.0);
        assert_eq!(adjusted.arms, arms.map(PairMoments::y));
    }
}
