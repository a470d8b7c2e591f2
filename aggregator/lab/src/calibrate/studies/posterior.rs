//! Rates with Beta posteriors, and a decision as soon as one arm is better with a probability above 0.95. It
//! is not protected against repeated looks; this study measures how often it is wrong then.

use stats::bayes::{BetaPrior, Rates};
use stats::power::{self, Plan};
use stats::random::{Binomial, Random};
use stats::{Arm, Counts, Invalid, Pair, Power};

use super::{Finding, Pace, Study, StudyLook};
use crate::calibrate::methods::{PROBABLE, Watcher};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_000;
const RATE: f64 = 0.2;

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let even = Plan::even(plan.alpha);
    let detectable = power::rates_detectable(RATE, pace.planned(), Power::EIGHTY_PERCENT, &even)?;
    let treatment = detectable.increase.expect("1,000 units find some rate below 100 %");
    let (none, some) = (Binomial::new(RATE)?, Binomial::new(treatment)?);
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let rates = truth.arms(none, some);
        let mut arms = Pair::<Arm>::default();
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            let new = rates.map(|rate| {
                let conversions = rate.draw(pace.per_look, random);
                Arm::new(Counts { units: pace.per_look, conversions }).expect("not above")
            });
            arms = arms.with(new, |all, more| all.merge(more));
            let better = Rates(arms.map(|arm| BetaPrior::UNIFORM.after(arm))).probability_treatment_better();
            // The probability that the arm that looks better is not better.
            found.push(StudyLook { index, by: vec![Some(Finding::p_value(better.min(1.0 - better)))] });
        }
        found
    };
    let looks = plan.looks();
    let doubts = |found: &StudyLook| found.by[0].expect("there are units").p_value;
    let watcher = |name: &str, peeks: bool| Watcher {
        name: name.to_owned(),
        ends_at: Some(looks),
        rejects: Box::new(move |found: &StudyLook| {
            (peeks || found.index + 1 == looks) && doubts(found) < 1.0 - PROBABLE
        }),
        interval: None,
        true_effect: treatment - RATE,
        stagewise: None,
        gives_up: None,
    };
    let watchers = vec![
        watcher("Bayes, rates: P(better) > 0.95, once", false),
        watcher("Bayes, rates: P(better) > 0.95, not protected", true),
    ];
    Ok(Study { every: 20, horizons: Some(1), watchers, draw: Box::new(draw) })
}
