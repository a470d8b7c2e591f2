//! Two experiments on the same units, evenly crossed: does the effect of one depend on the other?

use stats::interaction::Crossed;
use stats::random::Random;
use stats::{Invalid, Moments};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{
    Planned,
    paths::{Truth, normal_batch},
};

/// Units of each of the four cells.
const UNITS: u64 = 4_000;

/// The effect of each experiment alone.
const MAIN_EFFECTS: [f64; 2] = [0.1, -0.2];

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    // Four means instead of two.
    let effect = pace.detectable(plan, std::f64::consts::SQRT_2)?;
    let alpha = plan.alpha;
    let watchers = Estimator { name: "interaction", place: 0, true_effect: effect };
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let together = truth.treated(0.0, effect);
        let [a, b] = MAIN_EFFECTS;
        let means = [[0.0, b], [a, a + b + together]];
        let mut cells = [[Moments::EMPTY; 2]; 2];
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            for (row, means) in cells.iter_mut().zip(&means) {
                for (cell, &mean) in row.iter_mut().zip(means) {
                    *cell = cell.merge(normal_batch(mean, pace.per_look, random));
                }
            }
            let crossed = Crossed::new(cells.map(|row| row.to_vec()).to_vec()).expect("two by two");
            let finding = crossed.interactions().ok().map(|found| {
                let of = found[0];
                Finding { effect: of.effect, z: of.z, p_value: of.p_value, interval: of.interval(alpha) }
            });
            found.push(StudyLook { index, by: vec![finding] });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers: watchers.all_ways(plan)?, draw: Box::new(draw) })
}
