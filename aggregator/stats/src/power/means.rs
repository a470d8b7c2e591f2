//! Sample size and power for differences of means, by the normal approximation and by the t-test.

use super::{Plan, SampleSize};
use crate::{
    Alpha, Alternative, Invalid, Pair, Power,
    distributions::{normal_cdf, student_t_quantile},
    quadrature::GaussLegendre,
    special::{log1p_minus, stirling_remainder},
    terms::{finite, positive},
};

/// The units needed to find a difference of means of `difference` when one unit's standard deviation is `sd`
/// in both arms: `n_c = (z_{1-a/2} + z_power)^2 sd^2 (1 + 1/k) / d^2`. The t-test needs one or two units
/// more, see [`means_sample_size_t`]. An effect that a one-sided test does not look for is an error, and so
/// is a power not above alpha.
pub fn means_sample_size(sd: f64, difference: f64, power: Power, plan: &Plan) -> Result<SampleSize, Invalid> {
    let difference = plan.findable(finite(DIFFERENCE, difference)?, DIFFERENCE, difference)?;
    let effect_size = effect_size(sd, difference)?;
    let z = plan.wanted_z(power)?;
    Ok(plan.arms((z / effect_size).powi(2) * (1.0 + 1.0 / plan.treatment_per_control)))
}

/// The units needed by the t-test with `n_c + n_t - 2` degrees of freedom, from the noncentral t
/// distribution (R `power.t.test(strict = TRUE)`, statsmodels `TTestIndPower`).
pub fn means_sample_size_t(
    sd: f64,
    difference: f64,
    power: Power,
    plan: &Plan,
) -> Result<SampleSize, Invalid> {
    let normal = means_sample_size(sd, difference, power, plan)?.control_exact;
    if normal > NORMAL_UNITS {
        return means_sample_size(sd, difference, power, plan);
    }
    let effect_size = effect_size(sd, plan.toward(difference))?;
    let enough = |n: f64| t_test_power(n, effect_size, plan) >= power.get();
    // Up to 2 units in total there are no degrees of freedom; above that, power grows with n.
    let mut low = 2.0 / (1.0 + plan.treatment_per_control);
    let mut high = normal.max(low) + 10.0;
    while !enough(high) && high < NORMAL_UNITS {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(plan.arms(high))
}

/// The probability to find a difference of means with these units in each arm (normal approximation).
/// Two-sided, both tails count; the power is below alpha where a one-sided test looks in the other direction.
pub fn means_power(
    sd: f64,
    difference: f64,
    units: Pair<u64>,
    alpha: Alpha,
    alternative: Alternative,
) -> Result<f64, Invalid> {
    let plan = Plan::of_units(units, alpha, alternative)?;
    let (n_c, n_t) = (units.control as f64, units.treatment as f64);
    let shift = effect_size(sd, plan.toward(difference))? / (1.0 / n_c + 1.0 / n_t).sqrt();
    Ok(plan.power_at(shift, plan.critical_z()))
}

/// The smallest difference of means that is found with the wanted power, in the metric's unit: a magnitude,
/// in the direction of the alternative.
pub fn means_detectable(sd: f64, control_units: f64, power: Power, plan: &Plan) -> Result<f64, Invalid> {
    let n = positive("control units", control_units)?;
    let z = plan.wanted_z(power)?;
    Ok(z * positive("standard deviation", sd)? * ((1.0 + 1.0 / plan.treatment_per_control) / n).sqrt())
}

/// [`rates_drift`] for a difference of means of units with standard deviation `sd`.
pub fn means_drift(sd: f64, difference: f64, control_units: f64, plan: &Plan) -> Result<f64, Invalid> {
    let n = positive("control units", control_units)?;
    Ok(effect_size(sd, plan.toward(difference))? * (n / (1.0 + 1.0 / plan.treatment_per_control)).sqrt())
}

/// The number of units from which t is normal to the last digit.
const NORMAL_UNITS: f64 = 1e12;

const DIFFERENCE: &str = "difference to detect";

/// The difference in standard deviations, with its sign; it must not be 0.
fn effect_size(sd: f64, difference: f64) -> Result<f64, Invalid> {
    positive("standard deviation", sd)?;
    if finite(DIFFERENCE, difference)? == 0.0 {
        return Err(Invalid::OutOfRange { what: DIFFERENCE, value: difference, range: "unlike 0" });
    }
    finite("difference in standard deviations", difference / sd)
}

/// Power of the two-sample t-test with `n` units in the control arm, n real.
fn t_test_power(n: f64, effect_size: f64, plan: &Plan) -> f64 {
    let k = plan.treatment_per_control;
    let degrees = n * (1.0 + k) - 2.0;
    if degrees <= 0.0 {
        return 0.0;
    }
    let noncentrality = effect_size * (n / (1.0 + 1.0 / k)).sqrt();
    let critical = -student_t_quantile(plan.alternative.tail(plan.alpha), degrees);
    let right = noncentral_t_sf(critical, degrees, noncentrality);
    match plan.alternative {
        Alternative::TwoSided => right + noncentral_t_sf(critical, degrees, -noncentrality),
        Alternative::Greater | Alternative::Less => right,
    }
}

/// P((Z + noncentrality) / S > t), where S^2 is a chi-square divided by its degrees of freedom, as the
/// integral of the normal tail over the density of S. The range is 12 standard deviations of S around 1,
/// split where the normal tail falls from 1 to 0, with 64 points a piece; the error is below 1e-9 from 2
/// degrees of freedom on.
fn noncentral_t_sf(t: f64, degrees: f64, noncentrality: f64) -> f64 {
    let half = degrees / 2.0;
    // ln of the density of S, with h half the degrees: ln 2 + ln(h / 2 pi) / 2 - remainder - ln s - h (s^2 -
    // 1 - 2 ln s).
    let constant = 0.5 * (half * std::f64::consts::FRAC_2_PI).ln() - stirling_remainder(half);
    let density = |s: f64| {
        let e = s - 1.0;
        (constant - s.ln() - half * (e * e - 2.0 * log1p_minus(e))).exp()
    };
    let reach = 12.0 / (2.0 * degrees).sqrt();
    let (from, to) = (f64::max(0.0, 1.0 - reach), 1.0 + reach);
    let cuts = [-8.0, 0.0, 8.0].map(|z| ((noncentrality + z) / t).clamp(from, to));
    let mut edges = [from, cuts[0], cuts[1], cuts[2], to];
    edges.sort_by(f64::total_cmp);
    let rule = GaussLegendre::shared(64);
    edges
        .windows(2)
        .filter(|pair| pair[0] < pair[1])
        .map(|pair| rule.integrate(pair[0], pair[1], |s| normal_cdf(noncentrality - t * s) * density(s)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search is bounded: it never ended for an effect that no number of units finds.
    #[test]
    fn a_vanishing_effect_needs_more_units_than_can_be_counted() {
        let plan = Plan::even(Alpha::FIVE_PERCENT);
        let size = means_sample_size_t(1e300, 1.0, Power::EIGHTY_PERCENT, &plan).unwrap();
        assert_eq!((size.control, size.total(1)), (u64::MAX, u64::MAX));
        assert!(size.countable("difference to detect", 1.0).is_err());
        assert!(means_sample_size_t(1e-300, 1e300, Power::EIGHTY_PERCENT, &plan).is_err());
    }
}
