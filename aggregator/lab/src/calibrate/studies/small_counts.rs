//! Rates with few conversions and one look, where the normal tests and their intervals become inaccurate:
//! compares them with the platform's method.

use stats::power::{self, Plan};
use stats::random::{Binomial, Random};
use stats::{
    Alternative, Arm, Counts, Invalid, Power, fixed_horizon, proportion_interval,
    two_proportion::{self, ZTest},
};

use super::{Estimator, Finding, Study, StudyLook, at_the_end};
use crate::calibrate::{Planned, paths::Truth};

/// The units of each arm, with four expected conversions.
const UNITS: u64 = 80;
const RATE: f64 = 0.05;

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let even = Plan::even(plan.alpha);
    let detectable = power::rates_detectable(RATE, UNITS as f64, Power::EIGHTY_PERCENT, &even)?;
    let treatment = detectable.increase.expect("80 units find some rate below 100 %");
    let (none, some) = (Binomial::new(RATE)?, Binomial::new(treatment)?);
    let (alpha, looks) = (plan.alpha, plan.looks());
    let estimator = |name, place| Estimator { name, place, true_effect: treatment - RATE };
    let watchers = vec![
        estimator("4 conversions: z or Fisher, Mee", 0).once(plan),
        estimator("4 conversions: pooled z, Newcombe", 1).once(plan),
        estimator("4 conversions: unpooled z, Wald", 2).once(plan),
    ];
    let draw = move |truth: Truth, _: usize, random: &mut Random| -> Vec<StudyLook> {
        let rates = truth.arms(none, some);
        let arms = rates.map(|rate| {
            Arm::new(Counts { units: UNITS, conversions: rate.draw(UNITS, random) }).expect("not above")
        });
        let two_sided = Alternative::TwoSided;
        let finding = |test: ZTest, interval| Finding {
            effect: test.effect,
            z: test.z,
            p_value: test.p_value,
            interval,
        };
        let chosen = fixed_horizon::compare_rates(arms, alpha)
            .ok()
            .map(|of| Finding { p_value: of.p_value, ..finding(of.pooled, of.interval) });
        let pooled = || {
            let interval = proportion_interval::newcombe(arms, alpha, two_sided).ok()?;
            Some(finding(two_proportion::pooled_z(arms, two_sided).ok()?, interval))
        };
        let unpooled = || {
            let interval = proportion_interval::wald(arms, alpha, two_sided).ok()?;
            Some(finding(two_proportion::unpooled_z(arms, two_sided).ok()?, interval))
        };
        at_the_end(looks, vec![chosen, pooled(), unpooled()])
    };
    Ok(Study { every: 1, horizons: Some(1), watchers, draw: Box::new(draw) })
}
