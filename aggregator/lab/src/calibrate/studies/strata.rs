//! A rate that differs between three strata: the post-stratified difference and the one that ignores the
//! strata. The effect, the same relative lift in all strata, is planned for the former.

use stats::confidence_sequence::MIN_CONVERSIONS;
use stats::random::Random;
use stats::{
    Alternative, Arm, Counts, Invalid, Pair,
    proportion_interval::{self, Score},
    strata, two_proportion,
};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_500;

/// Shares of the units, and rates of the control.
const STRATA: [(f64, f64); 3] = [(0.5, 0.02), (0.3, 0.1), (0.2, 0.4)];

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let rate: f64 = STRATA.iter().map(|(share, rate)| share * rate).sum();
    let variance = |lift: f64| -> f64 {
        let of = |(share, rate): &(f64, f64)| share * rate * (1.0 + lift) * (1.0 - rate * (1.0 + lift));
        STRATA.iter().map(of).sum()
    };
    let mut lift = 0.0;
    for _ in 0..50 {
        lift = pace.detectable(plan, (0.5 * (variance(0.0) + variance(lift))).sqrt())? / rate;
    }
    let alpha = plan.alpha;
    let estimator = |name, place| Estimator { name, place, true_effect: lift * rate };
    let mut watchers = estimator("strata: post-stratified", 0).all_ways(plan)?;
    watchers.extend(estimator("strata: ignored", 1).all_ways(plan)?);
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let factors = [1.0, truth.treated(1.0, 1.0 + lift)];
        let mut counts = [[Counts { units: 0, conversions: 0 }; 2]; STRATA.len()];
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            for (arm, factor) in factors.iter().enumerate() {
                for _ in 0..pace.per_look {
                    let stratum = stratum_at(random.uniform());
                    let converts = random.uniform() < factor * STRATA[stratum].1;
                    counts[stratum][arm].units += 1;
                    counts[stratum][arm].conversions += u64::from(converts);
                }
            }
            let strata = counts.map(|arms| {
                let [control, treatment] = arms.map(|of| Arm::new(of).expect("each converts once"));
                Pair { control, treatment }
            });
            found.push(StudyLook { index, by: findings(&strata, alpha) });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

fn stratum_at(uniform: f64) -> usize {
    let mut rest = uniform;
    for (index, (share, _)) in STRATA.iter().enumerate() {
        if rest < *share {
            return index;
        }
        rest -= share;
    }
    STRATA.len() - 1
}

/// The results of both estimators, with the gate of [`stats::confidence_sequence::Design::look_at_rates`].
fn findings(strata: &[Pair<Arm>], alpha: stats::Alpha) -> Vec<Option<Finding>> {
    let all = strata.iter().fold(Pair::<Arm>::default(), |sum, of| Pair {
        control: sum.control.merge(of.control),
        treatment: sum.treatment.merge(of.treatment),
    });
    if all.control.conversions().min(all.treatment.conversions()) < MIN_CONVERSIONS {
        return vec![None, None];
    }
    let stratified = || {
        let found = strata::poststratify(strata).ok()?;
        let (z, p_value) = found.test().ok()?;
        Some(Finding { effect: found.poststratified, z, p_value, interval: found.interval(alpha) })
    };
    let ignored = || {
        let test = two_proportion::pooled_z(all, Alternative::TwoSided).ok()?;
        let interval = proportion_interval::score(all, alpha, Alternative::TwoSided, Score::Mee).ok()?;
        Some(Finding { effect: test.effect, z: test.z, p_value: test.p_value, interval })
    };
    vec![stratified(), ignored()]
}
