//! Planning before an experiment: the units that are needed, the effect that can be detected with given
//! units, the power and the duration. Power computed after the run is a function of the p-value and adds no
//! information.

mod means;

use crate::{
    Alpha, Alternative, Invalid, Pair, Power,
    distributions::{normal_quantile, normal_sf},
    terms::{between_0_and_1, finite, positive},
};

pub use means::{means_detectable, means_drift, means_power, means_sample_size, means_sample_size_t};

/// The largest number of units that is reported; [`SampleSize::countable`] refuses more.
pub const UNITS_MAX: u64 = 1 << 53;

/// The test that will be run at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    alpha: Alpha,
    alternative: Alternative,
    treatment_per_control: f64,
}

impl Plan {
    /// `treatment_per_control` is the size of one treatment arm relative to the control, from 1e-20 to 1e20.
    pub fn new(alpha: Alpha, alternative: Alternative, treatment_per_control: f64) -> Result<Plan, Invalid> {
        if !(1e-20..=1e20).contains(&treatment_per_control) {
            let (what, range) = ("treatment units per control unit", "from 1e-20 to 1e20");
            return Err(Invalid::OutOfRange { what, value: treatment_per_control, range });
        }
        Ok(Plan { alpha, alternative, treatment_per_control })
    }

    /// A two-sided test at `alpha` with arms of equal size.
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

    /// The sum of the two quantiles of a sample size, `z_{1-a/2} + z_power`. The wanted power must be above
    /// alpha, so the sum is above 0.
    fn wanted_z(&self, power: Power) -> Result<f64, Invalid> {
        if power.get() <= self.alpha.get() {
            let range = "above alpha: without any effect the test rejects as often";
            return Err(Invalid::OutOfRange { what: "power", value: power.get(), range });
        }
        Ok(self.critical_z() + normal_quantile(power.get()))
    }

    /// Converts a difference (treatment minus control) to the direction of the alternative: below 0 where a
    /// one-sided test looks in the other direction.
    fn toward(&self, difference: f64) -> f64 {
        match self.alternative {
            Alternative::TwoSided => difference.abs(),
            Alternative::Greater => difference,
            Alternative::Less => -difference,
        }
    }

    /// Does the same for a sample size, and refuses a difference that the test does not look for, because no
    /// number of units finds it. `value`, named `what`, is the input that gave the difference.
    fn findable(&self, difference: f64, what: &'static str, value: f64) -> Result<f64, Invalid> {
        let toward = self.toward(difference);
        if toward > 0.0 {
            return Ok(toward);
        }
        let range = match self.alternative {
            Alternative::TwoSided => "unlike the baseline",
            Alternative::Greater => "an increase: a one-sided test that looks upwards finds no decrease",
            Alternative::Less => "a decrease: a one-sided test that looks downwards finds no increase",
        };
        Err(Invalid::OutOfRange { what, value, range })
    }

    fn arms(&self, control_exact: f64) -> SampleSize {
        SampleSize {
            control_exact,
            control: round_up(control_exact),
            treatment: round_up(control_exact * self.treatment_per_control),
        }
    }

    /// The probability to reject when z has mean `drift` in the direction of the alternative; two-sided, both
    /// tails count.
    pub fn power_of_drift(&self, drift: f64) -> f64 {
        self.power_at(drift, self.critical_z())
    }

    /// Returns `sf(critical - shift)`, plus `sf(critical + shift)` when two-sided.
    fn power_at(&self, shift: f64, critical: f64) -> f64 {
        let wrong_tail = match self.alternative {
            Alternative::TwoSided => normal_sf(critical + shift),
            Alternative::Greater | Alternative::Less => 0.0,
        };
        (normal_sf(critical - shift) + wrong_tail).min(1.0)
    }
}

/// The units that each arm needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSize {
    /// The control's units before rounding up.
    pub control_exact: f64,
    /// The control's units, rounded up.
    pub control: u64,
    /// The units of one treatment arm, rounded up.
    pub treatment: u64,
}

impl SampleSize {
    /// The units of one control and `treatments` treatment arms, at most `u64::MAX`.
    pub fn total(&self, treatments: u64) -> u64 {
        self.control.saturating_add(self.treatment.saturating_mul(treatments))
    }

    /// Returns the sample size, or an error that names the input `what` where an arm would need more than
    /// [`UNITS_MAX`].
    pub fn countable(self, what: &'static str, value: f64) -> Result<SampleSize, Invalid> {
        if self.control.max(self.treatment) <= UNITS_MAX {
            return Ok(self);
        }
        let range = "large enough to be found by 2^53 units of an arm";
        Err(Invalid::OutOfRange { what, value, range })
    }

    /// The same plan for an outcome whose variance is `factor` times as large: 1 - rho^2 with a
    /// covariate of correlation rho (CUPED), [`design_effect`] for clusters, or a sequential
    /// design's inflation.
    pub fn inflated(&self, factor: f64, plan: &Plan) -> SampleSize {
        plan.arms(self.control_exact * factor)
    }
}

/// The variance under the null in the formula for rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullVariance {
    /// Each arm's own, as under the alternative; the textbook formula and the platform's.
    Unpooled,
    /// That of the common rate, as in the pooled z-test (R `power.prop.test`, rpact).
    Pooled,
}

/// The units needed to find the difference between two true rates.
///
/// Unpooled: `n_c = (z_{1-a/2} + z_power)^2 (p_c q_c + p_t q_t / k) / d^2`, Fleiss, Levin & Paik (2003),
/// chapter 4. Pooled: the first z times `sqrt(pb qb (1 + 1/k))` instead, with `pb = (p_c + k p_t) / (1 + k)`.
/// Both ignore the wrong tail, whose share is below 1e-6 from 60 % power on; both are optimistic when fewer
/// than about 10 conversions are expected in an arm. An effect that a one-sided test does not look for is an
/// error, and so is a power not above alpha.
pub fn rates_sample_size(
    rates: Pair<f64>,
    power: Power,
    plan: &Plan,
    variance: NullVariance,
) -> Result<SampleSize, Invalid> {
    plan.wanted_z(power)?;
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

/// [`rates_sample_size`] with given quantiles, to reproduce published numbers that were computed with rounded
/// ones (1.96 and 0.84). Their sum must be above 0, which means a power above alpha.
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
    let difference = plan.findable(spread.difference, "treatment rate", rates.treatment)?;
    let numerator = z.alpha * null + z.power * spread.alternative;
    if !(numerator > 0.0 && numerator.is_finite()) {
        let range = "such that it and that of alpha have a sum above 0";
        return Err(Invalid::OutOfRange { what: "normal quantile of the power", value: z.power, range });
    }
    Ok(plan.arms((numerator / difference).powi(2)))
}

/// The units by Cohen's effect size h, the difference of the arcsines of the square roots (Cohen 1988,
/// chapter 6). For comparison only.
pub fn rates_sample_size_arcsine(rates: Pair<f64>, power: Power, plan: &Plan) -> Result<SampleSize, Invalid> {
    let difference =
        plan.findable(RateSpread::of(rates, plan)?.difference, "treatment rate", rates.treatment)?;
    // From the sine of the difference, so that nearly equal angles do not cancel.
    let Pair { control: c, treatment: t } = rates;
    let h = 2.0 * (difference / ((t * (1.0 - c)).sqrt() + (c * (1.0 - t)).sqrt())).min(1.0).asin();
    let z = plan.wanted_z(power)?;
    Ok(plan.arms((z / h).powi(2) * (1.0 + 1.0 / plan.treatment_per_control)))
}

/// The probability to find the difference between two true rates with these units in each arm. Two-sided,
/// both tails count; the power is below alpha where a one-sided test looks in the other direction.
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
    Ok(plan.power_at(plan.toward(spread.difference) * root_n / spread.alternative, critical))
}

/// The mean of z under two true rates with `control_units` control units, with the arms' own variances, in
/// the direction of the alternative (below 0 where a one-sided test looks in the other direction). The units
/// are a real number, so that they may be divided by a design effect. It is also the drift of
/// [`crate::group_sequential::Looks::crossing`] at fraction 1.
pub fn rates_drift(rates: Pair<f64>, control_units: f64, plan: &Plan) -> Result<f64, Invalid> {
    let spread = RateSpread::of(rates, plan)?;
    let toward = plan.toward(spread.difference);
    Ok(toward * positive("control units", control_units)?.sqrt() / spread.alternative)
}

/// The parts of a ratio of two sums, from which the delta method computes a standard deviation per unit, as in
/// [`crate::ratio`]. Deng, Knoblich & Lu (2018), KDD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioParts {
    /// The sum of the numerators divided by the sum of the denominators.
    pub ratio: f64,
    /// Standard deviation of a unit's numerator, at least 0.
    pub numerator_sd: f64,
    /// Above 0.
    pub denominator_mean: f64,
    /// Standard deviation of a unit's denominator, at least 0.
    pub denominator_sd: f64,
    /// The correlation of numerator and denominator, from -1 to 1.
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

/// The difference of the rates, treatment minus control, and its standard deviations for one control unit.
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
            difference: p_t - p_c,
            alternative: (p_c * (1.0 - p_c) + p_t * (1.0 - p_t) / k).sqrt(),
            null: (pooled * (1.0 - pooled) * (1.0 + 1.0 / k)).sqrt(),
        })
    }
}

/// The treatment rates closest to the baseline that a plan finds with the wanted power; `None`
/// where not even 100 % or 0 % would be found, and on the side that a one-sided test does not look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectableRates {
    /// Above the baseline, at most 1.
    pub increase: Option<f64>,
    /// Below the baseline, at least 0.
    pub decrease: Option<f64>,
    /// `increase` minus the baseline, without the rounding of a subtraction; above 0.
    pub difference_up: Option<f64>,
    /// `decrease` minus the baseline; below 0.
    pub difference_down: Option<f64>,
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
    let a = plan.wanted_z(power)?.powi(2);
    let a_t = a / plan.treatment_per_control;
    let slope = a_t * (1.0 - 2.0 * p);
    let product = (a + a_t) * p * (1.0 - p);
    let root = slope.hypot(2.0 * (n + a_t).sqrt() * product.sqrt());
    // The larger root by the formula and the other from the roots' product, so that nothing cancels.
    let (up, down) = if slope >= 0.0 {
        let up = (slope + root) / (2.0 * (n + a_t));
        (up, -product / ((n + a_t) * up))
    } else {
        let down = (slope - root) / (2.0 * (n + a_t));
        (-product / ((n + a_t) * down), down)
    };
    let possible =
        |difference: &f64| (0.0..=1.0).contains(&(p + difference)) && plan.toward(*difference) > 0.0;
    let (difference_up, difference_down) = (Some(up).filter(possible), Some(down).filter(possible));
    Ok(DetectableRates {
        increase: difference_up.map(|difference| p + difference),
        decrease: difference_down.map(|difference| p + difference),
        difference_up,
        difference_down,
    })
}

/// The factor by which the variance of a mean is larger when whole clusters are assigned: `1 + (m - 1) icc`
/// for clusters of `size` >= 1 units and intraclass correlation `icc` (Kish 1965, Survey Sampling).
/// It is too small for clusters of very unequal size.
pub fn design_effect(size: f64, icc: f64) -> Result<f64, Invalid> {
    if !(size >= 1.0 && size.is_finite()) {
        return Err(Invalid::OutOfRange {
            what: "cluster size",
            value: size,
            range: "finite and at least 1",
        });
    }
    if !(0.0..=1.0).contains(&icc) {
        let range = "from 0 to 1";
        return Err(Invalid::OutOfRange { what: "intraclass correlation", value: icc, range });
    }
    Ok(1.0 + (size - 1.0) * icc)
}

/// The duration of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration {
    /// Days until enough units have been exposed.
    pub days: u64,
    /// The days rounded up to whole weeks, at least one, so that every weekday has the same weight.
    pub whole_week_days: u64,
}

/// The days to collect `total` units when `new_units_a_day` units are exposed for the first time each day
/// (daily active users who come back count only once). More than 2^53 days are an error.
pub fn duration(total: u64, new_units_a_day: f64) -> Result<Duration, Invalid> {
    let days = round_up(total as f64 / positive("new units a day", new_units_a_day)?);
    if days > UNITS_MAX {
        let (what, range) = ("new units a day", "enough for 2^53 days");
        return Err(Invalid::OutOfRange { what, value: new_units_a_day, range });
    }
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
        assert!(duration(u64::MAX, 1e-9).is_err() && duration(u64::MAX, 1e9).is_ok());
    }

    /// The effect that n units detect needs n units.
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

    const SIDES: [Alternative; 3] = [Alternative::TwoSided, Alternative::Greater, Alternative::Less];

    /// 4 % after 5 % is a decrease: a two-sided test and one that looks for a decrease find it, and a test
    /// that looks for an increase rejects less often than without any effect.
    #[test]
    fn one_sided_power_counts_one_direction() {
        let (alpha, units) = (Alpha::FIVE_PERCENT, Pair { control: 10_000, treatment: 10_000 });
        let rates = Pair { control: 0.05, treatment: 0.04 };
        let power = |side| rates_power(rates, units, alpha, side, NullVariance::Unpooled).unwrap();
        let [two, up, down] = SIDES.map(power);
        assert!(two > 0.9 && down > two && up < 1e-6, "{two} {up} {down}");
        // P(Z > 1.6449 + 3.4119), by mpmath.
        assert!((up / 2.131_642_535_664_2e-7 - 1.0).abs() < 1e-9, "{up}");
        let means = |side| means_power(1.0, -0.5, Pair { control: 50, treatment: 50 }, alpha, side).unwrap();
        let [two, up, down] = SIDES.map(means);
        assert!(two > 0.7 && down > two && up < 1e-4, "{two} {up} {down}");
        for side in SIDES {
            let plan = Plan::new(alpha, side, 1.0).unwrap();
            let drift = rates_drift(rates, 10_000.0, &plan).unwrap();
            assert_eq!(drift < 0.0, side == Alternative::Greater);
            assert!((plan.power_of_drift(drift) - power(side)).abs() < 1e-15);
            let drift = means_drift(1.0, -0.5, 50.0, &plan).unwrap();
            assert!((plan.power_of_drift(drift) - means(side)).abs() < 1e-15);
        }
    }

    /// No number of units finds an effect that the test does not look for.
    #[test]
    fn the_wrong_direction_has_no_sample_size() {
        let power = Power::EIGHTY_PERCENT;
        for (side, treatment, mean) in [(Alternative::Greater, 0.04, -0.5), (Alternative::Less, 0.06, 0.5)] {
            let plan = Plan::new(Alpha::FIVE_PERCENT, side, 1.0).unwrap();
            let (wrong, right) =
                (Pair { control: 0.05, treatment }, Pair { control: 0.05, treatment: 0.1 - treatment });
            for variance in [NullVariance::Unpooled, NullVariance::Pooled] {
                let refused = rates_sample_size(wrong, power, &plan, variance).unwrap_err();
                assert!(matches!(refused, Invalid::OutOfRange { what: "treatment rate", .. }), "{refused}");
                assert!(rates_sample_size(right, power, &plan, variance).is_ok());
            }
            assert!(rates_sample_size_arcsine(wrong, power, &plan).is_err());
            assert!(rates_sample_size_arcsine(right, power, &plan).is_ok());
            for size in [means_sample_size, means_sample_size_t] {
                let refused = size(1.0, mean, power, &plan).unwrap_err();
                assert!(
                    matches!(refused, Invalid::OutOfRange { what: "difference to detect", .. }),
                    "{refused}"
                );
                assert!(size(1.0, -mean, power, &plan).is_ok());
            }
            let found = rates_detectable(0.05, 10_000.0, power, &plan).unwrap();
            assert_eq!(found.increase.is_some(), side == Alternative::Greater);
            assert_eq!(found.decrease.is_some(), side == Alternative::Less);
        }
    }

    /// A test rejects with probability alpha without any effect, so a power up to alpha needs no units.
    #[test]
    fn a_power_up_to_alpha_is_refused() {
        let rates = Pair { control: 0.05, treatment: 0.06 };
        for side in [Alternative::TwoSided, Alternative::Greater] {
            let plan = Plan::new(Alpha::FIVE_PERCENT, side, 1.0).unwrap();
            for (power, refused) in [(0.01, true), (0.05, true), (0.051, false)] {
                let power = Power::new(power).unwrap();
                let sizes = [
                    rates_sample_size(rates, power, &plan, NullVariance::Unpooled)
                        .map(|size| size.control_exact),
                    rates_sample_size_arcsine(rates, power, &plan).map(|size| size.control_exact),
                    means_sample_size(1.0, 0.5, power, &plan).map(|size| size.control_exact),
                    means_detectable(1.0, 100.0, power, &plan),
                    rates_detectable(0.05, 100.0, power, &plan).map(|found| found.increase.unwrap()),
                ];
                for size in sizes {
                    assert_eq!(size.is_err(), refused, "{power:?}: {size:?}");
                    assert!(size.unwrap_or(1.0) > 0.0);
                }
            }
        }
    }

    /// 2^53 units find a difference of 1.6e-9 from 5 %, of which the rates themselves keep only seven digits.
    #[test]
    fn tiny_detectable_differences_are_accurate() {
        let plan = Plan::even(Alpha::FIVE_PERCENT);
        let n = UNITS_MAX as f64;
        let found = rates_detectable(0.05, n, Power::EIGHTY_PERCENT, &plan).unwrap();
        let z = 1.959_963_984_540_054 + 0.841_621_233_572_914_3;
        let expected = z * (2.0 * 0.05 * 0.95 / n).sqrt();
        for difference in [found.difference_up.unwrap(), -found.difference_down.unwrap()] {
            // The variance at the other rate differs by a part in 10^8.
            assert!((difference / expected - 1.0).abs() < 1e-7, "{difference:e} {expected:e}");
        }
    }

    /// The parts of a unit: 3 views (sd 2), 0.6 clicks (sd 1), correlation 0.5, so that R is 0.2 and the
    /// variance (1 - 2 * 0.2 * 0.5 * 2 + 0.04 * 4) / 9.
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

    /// The power of the drift is the power of the rates.
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
