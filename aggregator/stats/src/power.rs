//! Planning before the run: how many units, what can be detected with those there are, with what
//! power, and for how long. Power after the run is a function of the p-value and says nothing new.

use statrs::function::gamma::ln_gamma;

use crate::{
    Alpha, Alternative, Invalid, Pair, Power,
    distributions::{normal_cdf, normal_quantile, normal_sf, student_t_quantile},
    quadrature::GaussLegendre,
    terms::{between_0_and_1, finite, positive},
};

/// The test that will be run at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    alpha: Alpha,
    alternative: Alternative,
    treatment_per_control: f64,
}

impl Plan {
    /// `treatment_per_control` is the size of one treatment arm relative to the control, above 0.
    pub fn new(alpha: Alpha, alternative: Alternative, treatment_per_control: f64) -> Result<Plan, Invalid> {
        let ratio = positive("treatment units per control unit", treatment_per_control)?;
        Ok(Plan { alpha, alternative, treatment_per_control: ratio })
    }

    /// Two-sided at `alpha`, arms of one size.
    pub fn even(alpha: Alpha) -> Plan {
        Plan { alpha, alternative: Alternative::TwoSided, treatment_per_control: 1.0 }
    }

    fn of_units(units: Pair<u64>, alpha: Alpha, alternative: Alternative) -> Result<Plan, Invalid> {
        let control = positive("control units", units.control as f64)?;
        let treatment = positive("treatment units", units.treatment as f64)?;
        Plan::new(alpha, alternative, treatment / control)
    }

    fn critical_z(&self) -> f64 {
        self.alternative.critical_z(self.alpha)
    }

    fn arms(&self, control_exact: f64) -> SampleSize {
        SampleSize {
            control_exact,
            control: round_up(control_exact),
            treatment: round_up(control_exact * self.treatment_per_control),
        }
    }

    /// The probability to reject when z has mean `drift`, both tails counted where the test has two.
    pub fn power_of_drift(&self, drift: f64) -> f64 {
        self.power_at(drift, self.critical_z())
    }

    /// Both tails where the test has two: `sf(z - shift) + sf(z + shift)`, scaled.
    fn power_at(&self, shift: f64, critical: f64) -> f64 {
        let wrong_tail = match self.alternative {
            Alternative::TwoSided => normal_sf(critical + shift),
            Alternative::Greater | Alternative::Less => 0.0,
        };
        normal_sf(critical - shift) + wrong_tail
    }
}

/// Units that each arm needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSize {
    /// The control's units before rounding up.
    pub control_exact: f64,
    /// The control's units, rounded up.
    pub control: u64,
    /// Units of one treatment arm.
    pub treatment: u64,
}

impl SampleSize {
    /// The units of one control and `treatments` treatment arms; counts end at `u64::MAX`, more than there
    /// are units for anyway.
    pub fn total(&self, treatments: u64) -> u64 {
        self.control.saturating_add(self.treatment.saturating_mul(treatments))
    }

    /// The same plan for an outcome whose variance is `factor` times as large: 1 - rho^2 with a
    /// covariate of correlation rho (CUPED), [`design_effect`] for clusters, or a sequential
    /// design's inflation.
    pub fn inflated(&self, factor: f64, plan: &Plan) -> SampleSize {
        plan.arms(self.control_exact * factor)
    }
}

/// The variance under the null that the formula for rates assumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullVariance {
    /// Each arm's own, as under the alternative; the textbook formula and the platform's.
    Unpooled,
    /// That of the common rate, as the pooled z-test's (R `power.prop.test`, rpact).
    Pooled,
}

/// Units to find the difference between two true rates.
///
/// Unpooled: `n_c = (z_{1-a/2} + z_power)^2 (p_c q_c + p_t q_t / k) / d^2`, Fleiss, Levin & Paik
/// (2003), chapter 4. Pooled: the first z times `sqrt(pb qb (1 + 1/k))` instead, with
/// `pb = (p_c + k p_t) / (1 + k)`. Both ignore the wrong tail, whose share is below 1e-6 from 60 %
/// power on; both are optimistic when fewer than about 10 conversions are expected in an arm.
pub fn rates_sample_size(
    rates: Pair<f64>,
    power: Power,
    plan: &Plan,
    variance: NullVariance,
) -> Result<SampleSize, Invalid> {
    let z = ZValues { alpha: plan.critical_z(), power: normal_quantile(power.get()) };
    rates_sample_size_at(rates, z, plan, variance)
}

/// The two normal quantiles of a sample-size formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZValues {
    /// `z_{1 - alpha/2}`, or `z_{1 - alpha}` one-sided.
    pub alpha: f64,
    /// `z_power`; above 0 from 50 % power on.
    pub power: f64,
}

/// [`rates_sample_size`] with quantiles given by hand, to reproduce published numbers that rounded
/// them (1.96 and 0.84).
pub fn rates_sample_size_at(
    rates: Pair<f64>,
    z: ZValues,
    plan: &Plan,
    variance: NullVariance,
) -> Result<SampleSize, Invalid> {
    let spread = RateSpread::of(rates, plan)?;
    let null = match variance {
        NullVariance::Unpooled => spread.alternative,
        NullVariance::Pooled => spread.null,
    };
    let numerator = z.alpha * null + z.power * spread.alternative;
    Ok(plan.arms((numerator / spread.difference).powi(2)))
}

/// Units by Cohen's effect size h, the difference of the arcsines of the square roots (Cohen 1988,
/// chapter 6). For comparison.
pub fn rates_sample_size_arcsine(rates: Pair<f64>, power: Power, plan: &Plan) -> Result<SampleSize, Invalid> {
    RateSpread::of(rates, plan)?;
    let angle = |p: f64| 2.0 * p.sqrt().asin();
    let h = angle(rates.treatment) - angle(rates.control);
    let z = plan.critical_z() + normal_quantile(power.get());
    Ok(plan.arms((z / h).powi(2) * (1.0 + 1.0 / plan.treatment_per_control)))
}

/// The probability to find the difference between two true rates with so many units in each arm,
/// both tails counted.
pub fn rates_power(
    rates: Pair<f64>,
    units: Pair<u64>,
    alpha: Alpha,
    alternative: Alternative,
    variance: NullVariance,
) -> Result<f64, Invalid> {
    let plan = Plan::of_units(units, alpha, alternative)?;
    let spread = RateSpread::of(rates, &plan)?;
    let critical = match variance {
        NullVariance::Unpooled => plan.critical_z(),
        NullVariance::Pooled => plan.critical_z() * spread.null / spread.alternative,
    };
    let root_n = (units.control as f64).sqrt();
    Ok(plan.power_at(spread.difference * root_n / spread.alternative, critical))
}

/// The mean of z with so many control units (real, so that they may be divided by a design effect) and two true rates,
/// with the arms' own variances; also the drift of [`crate::group_sequential::Looks::crossing`] at fraction 1.
pub fn rates_drift(rates: Pair<f64>, control_units: f64, plan: &Plan) -> Result<f64, Invalid> {
    let spread = RateSpread::of(rates, plan)?;
    Ok(spread.difference * positive("control units", control_units)?.sqrt() / spread.alternative)
}

/// The same for a difference of means of units with standard deviation `sd`.
pub fn means_drift(sd: f64, difference: f64, control_units: f64, plan: &Plan) -> Result<f64, Invalid> {
    let n = positive("control units", control_units)?;
    Ok(effect_size(sd, difference)? * (n / (1.0 + 1.0 / plan.treatment_per_control)).sqrt())
}

/// The standard deviation that a ratio of two sums behaves like, per unit: the delta method on the parts of one unit,
/// as [`crate::ratio`]. Deng, Knoblich & Lu (2018), KDD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioParts {
    /// Sum of numerators over sum of denominators.
    pub ratio: f64,
    /// Standard deviation of a unit's numerator, at least 0.
    pub numerator_sd: f64,
    /// Above 0.
    pub denominator_mean: f64,
    /// Standard deviation of a unit's denominator, at least 0.
    pub denominator_sd: f64,
    /// Of numerator and denominator, from -1 to 1.
    pub correlation: f64,
}

impl RatioParts {
    /// `sqrt(s_x^2 - 2 R rho s_x s_y + R^2 s_y^2) / mean y`, for the formulas of means.
    pub fn sd(self) -> Result<f64, Invalid> {
        let RatioParts { ratio, numerator_sd, denominator_mean, denominator_sd, correlation } = self;
        finite("ratio", ratio)?;
        positive("denominator mean", denominator_mean)?;
        for (what, value) in [("numerator sd", numerator_sd), ("denominator sd", denominator_sd)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Invalid::OutOfRange { what, value, range: "finite and at least 0" });
            }
        }
        if !(-1.0..=1.0).contains(&correlation) {
            let range = "from -1 to 1";
            return Err(Invalid::OutOfRange { what: "correlation", value: correlation, range });
        }
        let (x, y) = (numerator_sd, ratio * denominator_sd);
        let variance = x * x - 2.0 * correlation * x * y + y * y;
        positive("standard deviation of the ratio", variance.max(0.0).sqrt() / denominator_mean)
    }
}

/// Standard deviations of the difference for one control unit, and the difference itself.
struct RateSpread {
    difference: f64,
    alternative: f64,
    null: f64,
}

impl RateSpread {
    fn of(rates: Pair<f64>, plan: &Plan) -> Result<RateSpread, Invalid> {
        let Pair { control: p_c, treatment: p_t } = rates;
        between_0_and_1("baseline rate", p_c)?;
        if !(0.0..=1.0).contains(&p_t) || p_t == p_c {
            let range = "from 0 to 1 and unlike the baseline";
            return Err(Invalid::OutOfRange { what: "treatment rate", value: p_t, range });
        }
        let k = plan.treatment_per_control;
        let pooled = (p_c + k * p_t) / (1.0 + k);
        Ok(RateSpread {
            difference: (p_t - p_c).abs(),
            alternative: (p_c * (1.0 - p_c) + p_t * (1.0 - p_t) / k).sqrt(),
            null: (pooled * (1.0 - pooled) * (1.0 + 1.0 / k)).sqrt(),
        })
    }
}

/// The treatment rates nearest to the baseline that a plan finds with the wanted power; `None`
/// where not even 100 % or 0 % would be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectableRates {
    /// Above the baseline, at most 1.
    pub increase: Option<f64>,
    /// Below the baseline, at least 0.
    pub decrease: Option<f64>,
}

/// Inverts the unpooled [`rates_sample_size`] in closed form: `n d^2 = A p_c q_c + (A/k) p_t q_t`
/// with `A = (z_{1-a/2} + z_power)^2` is a quadratic in the difference d.
pub fn rates_detectable(
    baseline: f64,
    control_units: f64,
    power: Power,
    plan: &Plan,
) -> Result<DetectableRates, Invalid> {
    let p = between_0_and_1("baseline rate", baseline)?;
    let n = positive("control units", control_units)?;
    let a = (plan.critical_z() + normal_quantile(power.get())).powi(2);
    let a_t = a / plan.treatment_per_control;
    let slope = a_t * (1.0 - 2.0 * p);
    let root = (slope * slope + 4.0 * (n + a_t) * (a + a_t) * p * (1.0 - p)).sqrt();
    let rate = |difference: f64| Some(p + difference).filter(|p| (0.0..=1.0).contains(p));
    Ok(DetectableRates {
        increase: rate((slope + root) / (2.0 * (n + a_t))),
        decrease: rate((slope - root) / (2.0 * (n + a_t))),
    })
}

/// Units to find a difference of means of `difference` when one unit's standard deviation is `sd`
/// in both arms: `n_c = (z_{1-a/2} + z_power)^2 sd^2 (1 + 1/k) / d^2`. One or two units short for
/// the t-test, see [`means_sample_size_t`].
pub fn means_sample_size(sd: f64, difference: f64, power: Power, plan: &Plan) -> Result<SampleSize, Invalid> {
    let effect_size = effect_size(sd, difference)?;
    let z = plan.critical_z() + normal_quantile(power.get());
    Ok(plan.arms((z / effect_size).powi(2) * (1.0 + 1.0 / plan.treatment_per_control)))
}

/// The same for the t-test with `n_c + n_t - 2` degrees of freedom, by the noncentral t
/// distribution (R `power.t.test(strict = TRUE)`, statsmodels `TTestIndPower`).
pub fn means_sample_size_t(
    sd: f64,
    difference: f64,
    power: Power,
    plan: &Plan,
) -> Result<SampleSize, Invalid> {
    let normal = means_sample_size(sd, difference, power, plan)?.control_exact;
    if normal > MOST_UNITS {
        // Beyond, t is normal to the last digit.
        return means_sample_size(sd, difference, power, plan);
    }
    let effect_size = effect_size(sd, difference)?;
    let enough = |n: f64| t_test_power(n, effect_size, plan) >= power.get();
    // Below 2 units in all there are no degrees of freedom; above, power grows with n.
    let mut low = 2.0 / (1.0 + plan.treatment_per_control);
    let mut high = normal.max(low) + 10.0;
    while !enough(high) && high < MOST_UNITS {
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

/// The probability to find a difference of means with so many units in each arm (normal
/// approximation), both tails counted.
pub fn means_power(
    sd: f64,
    difference: f64,
    units: Pair<u64>,
    alpha: Alpha,
    alternative: Alternative,
) -> Result<f64, Invalid> {
    let plan = Plan::of_units(units, alpha, alternative)?;
    let (n_c, n_t) = (units.control as f64, units.treatment as f64);
    let shift = effect_size(sd, difference)? / (1.0 / n_c + 1.0 / n_t).sqrt();
    Ok(plan.power_at(shift, plan.critical_z()))
}

/// The smallest difference of means that is found with the wanted power, in the metric's unit.
pub fn means_detectable(sd: f64, control_units: f64, power: Power, plan: &Plan) -> Result<f64, Invalid> {
    let n = positive("control units", control_units)?;
    let z = plan.critical_z() + normal_quantile(power.get());
    Ok(z * positive("standard deviation", sd)? * ((1.0 + 1.0 / plan.treatment_per_control) / n).sqrt())
}

/// More units than that are as good as infinitely many.
const MOST_UNITS: f64 = 1e12;

fn effect_size(sd: f64, difference: f64) -> Result<f64, Invalid> {
    positive("standard deviation", sd)?;
    Ok(positive("difference to detect", finite("difference to detect", difference)?.abs())? / sd)
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

/// P((Z + noncentrality) / S > t), with S^2 a chi-square over its degrees of freedom, as the
/// integral of the normal tail over the density of S. 12 standard deviations of S around 1 in 64
/// points; error below 1e-9 from 2 degrees of freedom on.
fn noncentral_t_sf(t: f64, degrees: f64, noncentrality: f64) -> f64 {
    let half = degrees / 2.0;
    let log_constant = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let density = |s: f64| (log_constant + (degrees - 1.0) * s.ln() - half * s * s).exp();
    let reach = 12.0 / (2.0 * degrees).sqrt();
    GaussLegendre::shared(64).integrate(f64::max(0.0, 1.0 - reach), 1.0 + reach, |s| {
        normal_cdf(noncentrality - t * s) * density(s)
    })
}

/// How much larger the variance of a mean is when whole clusters are assigned: `1 + (m - 1) icc`
/// for clusters of `size` units and intraclass correlation `icc` (Kish 1965, Survey Sampling).
/// Understates for clusters of very unequal size.
pub fn design_effect(size: f64, icc: f64) -> Result<f64, Invalid> {
    positive("cluster size", size)?;
    if !(0.0..=1.0).contains(&icc) {
        let range = "from 0 to 1";
        return Err(Invalid::OutOfRange { what: "intraclass correlation", value: icc, range });
    }
    Ok(1.0 + (size - 1.0) * icc)
}

/// How long an experiment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration {
    /// Days until enough units have been exposed.
    pub days: u64,
    /// The same in whole weeks, at least one, so that every weekday counts alike.
    pub whole_week_days: u64,
}

/// Days to collect `total` units when `new_units_a_day` are exposed for the first time each day
/// (new ones: daily active users come back and count once).
pub fn duration(total: u64, new_units_a_day: f64) -> Result<Duration, Invalid> {
    let days = round_up(total as f64 / positive("new units a day", new_units_a_day)?);
    Ok(Duration { days, whole_week_days: days.div_ceil(7).max(1) * 7 })
}

fn round_up(units: f64) -> u64 {
    units.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_the_shortest_run() {
        let run = |total, daily| duration(total, daily).unwrap();
        assert_eq!(run(62_462, 10_000.0), Duration { days: 7, whole_week_days: 7 });
        assert_eq!(run(70_001, 10_000.0), Duration { days: 8, whole_week_days: 14 });
        assert_eq!(run(1, 10_000.0), Duration { days: 1, whole_week_days: 7 });
        assert!(duration(1, 0.0).is_err());
    }

    /// What is detectable with n units needs n units.
    #[test]
    fn detectable_rates_invert_the_sample_size() {
        let plan = Plan::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, 0.25).unwrap();
        let power = Power::EIGHTY_PERCENT;
        let rates = rates_detectable(0.1, 20_000.0, power, &plan).unwrap();
        for treatment in [rates.increase.unwrap(), rates.decrease.unwrap()] {
            let rates = Pair { control: 0.1, treatment };
            let size = rates_sample_size(rates, power, &plan, NullVariance::Unpooled).unwrap();
            assert!((size.control_exact - 20_000.0).abs() < 1e-6, "{size:?}");
        }
    }

    #[test]
    fn equal_rates_cannot_be_told_apart() {
        let rates = Pair { control: 0.05, treatment: 0.05 };
        let plan = Plan::even(Alpha::FIVE_PERCENT);
        let power = Power::EIGHTY_PERCENT;
        assert!(rates_sample_size(rates, power, &plan, NullVariance::Unpooled).is_err());
        assert!(means_sample_size(1.0, 0.0, power, &plan).is_err());
    }

    /// A bound on the search: an effect that no number of units finds ended it never.
    #[test]
    fn a_vanishing_effect_needs_endlessly_many_units() {
        let plan = Plan::even(Alpha::FIVE_PERCENT);
        let size = means_sample_size_t(1e300, 1.0, Power::EIGHTY_PERCENT, &plan).unwrap();
        assert_eq!((size.control, size.total(1)), (u64::MAX, u64::MAX));
    }

    /// The parts of a unit: 3 views (sd 2), 0.6 clicks (sd 1), correlation 0.5, so that R is 0.2 and the variance
    /// (1 - 2 * 0.2 * 0.5 * 2 + 0.04 * 4) / 9.
    #[test]
    fn a_ratio_behaves_like_a_mean() {
        let parts = RatioParts {
            ratio: 0.2,
            numerator_sd: 1.0,
            denominator_mean: 3.0,
            denominator_sd: 2.0,
            correlation: 0.5,
        };
        assert!((parts.sd().unwrap() - 0.76_f64.sqrt() / 3.0).abs() < 1e-15);
        assert!(RatioParts { correlation: 1.1, ..parts }.sd().is_err());
        assert!(RatioParts { denominator_mean: 0.0, ..parts }.sd().is_err());
    }

    /// Power by way of the drift is power.
    #[test]
    fn the_drift_has_the_power() {
        let plan = Plan::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, 0.5).unwrap();
        let rates = Pair { control: 0.1, treatment: 0.12 };
        let units = Pair { control: 4_000, treatment: 2_000 };
        let direct =
            rates_power(rates, units, Alpha::FIVE_PERCENT, Alternative::TwoSided, NullVariance::Unpooled);
        let drift = rates_drift(rates, 4_000.0, &plan).unwrap();
        assert!((plan.power_of_drift(drift) - direct.unwrap()).abs() < 1e-12);
        let direct = means_power(2.0, 0.1, units, Alpha::FIVE_PERCENT, Alternative::TwoSided).unwrap();
        let drift = means_drift(2.0, 0.1, 4_000.0, &plan).unwrap();
        assert!((plan.power_of_drift(drift) - direct).abs() < 1e-12);
    }
}
