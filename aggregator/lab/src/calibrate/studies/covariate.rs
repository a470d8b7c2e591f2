//! An outcome that has a correlation of 0.65 with a covariate from before the experiment: CUPED and the plain
//! mean on the same units. The effect is planned for CUPED.

use stats::random::Random;
use stats::{Alternative, Invalid, Pair, PairMoments, cuped, welch};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_000;
const CORRELATION: f64 = 0.65;

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let unexplained = (1.0 - CORRELATION * CORRELATION).sqrt();
    let effect = pace.detectable(plan, unexplained)?;
    let alpha = plan.alpha;
    let estimator = |name, place| Estimator { name, place, true_effect: effect };
    let mut watchers = estimator("CUPED: correlation 0.65", 0).all_ways(plan)?;
    watchers.extend(estimator("CUPED: left out, the plain mean", 1).all_ways(plan)?);
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let means = truth.arms(0.0, effect);
        let mut arms = Pair::<PairMoments>::default();
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            let new = means.map(|mean| {
                let mut unit = || {
                    let before = random.normal();
                    (before, mean + CORRELATION * before + unexplained * random.normal())
                };
                PairMoments::of((0..pace.per_look).map(|_| unit())).expect("finite")
            });
            arms = arms.with(new, |all, more| all.merge(more));
            let of = |moments| {
                let test = welch::test(moments, Alternative::TwoSided).ok()?;
                Some(Finding::welch(test, alpha))
            };
            let adjusted = cuped::adjust(arms).ok().and_then(|adjusted| of(adjusted.arms));
            found.push(StudyLook { index, by: vec![adjusted, of(arms.map(PairMoments::y))] });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}
