//! Exponential waiting times: the difference of the medians and of the 90th percentiles, by Woodruff's
//! interval. The treatment makes all of them longer by one factor, which is planned for the median.

use stats::quantile::{self, ArmQuantile, Level};
use stats::random::Random;
use stats::{Alpha, Alternative, Invalid, Pair, Side};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_000;

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let levels = [Level::MEDIAN, Level::new(0.9)?];
    let at = |level: Level| -(1.0 - level.get()).ln();
    // A median of values with mean m has the standard error m / sqrt n: `sqrt(q (1 - q) / n) / density`.
    let mut lift = 0.0_f64;
    for _ in 0..50 {
        let sd = (0.5 * (1.0 + (1.0 + lift).powi(2))).sqrt();
        lift = pace.detectable(plan, sd)? / at(Level::MEDIAN);
    }
    let alpha = plan.alpha;
    let mut watchers = Vec::new();
    for (place, name) in ["quantile: median", "quantile: 90th percentile"].into_iter().enumerate() {
        watchers.extend(Estimator { name, place, true_effect: lift * at(levels[place]) }.all_ways(plan)?);
    }
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let scales = truth.arms(1.0, 1.0 + lift);
        let mut sorted = Pair::<Vec<f64>>::default();
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            for (arm, scale) in
                [(&mut sorted.control, scales.control), (&mut sorted.treatment, scales.treatment)]
            {
                arm.extend((0..pace.per_look).map(|_| scale * random.exponential()));
                // The stable sort merges runs that are already in order.
                arm.sort_by(f64::total_cmp);
            }
            let of = |level: Level| {
                compared(Pair { control: &sorted.control, treatment: &sorted.treatment }, level, alpha)
            };
            found.push(StudyLook { index, by: levels.map(of).to_vec() });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

/// Tests the difference of the quantiles; `None` while too few values are beyond the quantile.
fn compared(sorted: Pair<&Vec<f64>>, level: Level, alpha: Alpha) -> Option<Finding> {
    let arms = sorted.try_map(|side, values| arm(side, values, level).ok_or(())).ok()?;
    let test = quantile::compare(arms, Alternative::TwoSided).ok()?;
    Some(Finding { effect: test.effect, z: test.z, p_value: test.p_value, interval: test.interval(alpha) })
}

fn arm(side: Side, sorted: &[f64], level: Level) -> Option<ArmQuantile> {
    let error = quantile::share_error(side, level, sorted.len() as u64).ok()?;
    let levels = quantile::levels(level, error).ok()?;
    ArmQuantile::of_sorted(sorted, levels).ok()
}
