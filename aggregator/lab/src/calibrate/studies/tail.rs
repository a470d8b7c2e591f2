//! A metric with a heavy tail, uncapped and capped. The cap is computed once, from the time before the
//! experiment, and kept. The estimate is then the difference of the capped means, which the interval has to
//! cover; the difference of the plain means is larger and harder to find.

use stats::distributions::{normal_cdf, normal_sf};
use stats::random::Random;
use stats::winsorize::{Caps, QuantileRule, Rule};
use stats::{Alternative, Invalid, Moments, Pair, welch};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_000;

/// The standard deviation of the logarithm of a value; its mean is 0.
const SIGMA: f64 = 1.5;

const BEFORE: usize = 20_000;
const SEED_OF_BEFORE: u64 = 20;
const RULE: Rule =
    Rule { quantile: 0.99, reading: QuantileRule::Linear, both_sides: false, ignore_zeros: true };

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let mut before = Random::new(SEED_OF_BEFORE);
    let totals: Vec<f64> = (0..BEFORE).map(|_| value(&mut before)).collect();
    let caps = Caps::find(&totals, RULE)?.expect("no total is 0");
    let capped = |lift: f64| Capped::of(caps.upper, 1.0 + lift);
    // The lift whose capped difference is found with 80 % power, by bisection.
    let (mut low, mut high) = (0.0, 10.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let (without, with) = (capped(0.0), capped(middle));
        let sd = (0.5 * (without.variance + with.variance)).sqrt();
        if with.mean - without.mean < pace.detectable(plan, sd)? { low = middle } else { high = middle }
    }
    let lift = high;
    let plain_effect = lift * (SIGMA * SIGMA / 2.0).exp();
    let alpha = plan.alpha;
    let of_capped = Estimator {
        name: "heavy tail: winsorized, its own effect",
        place: 0,
        true_effect: capped(lift).mean - capped(0.0).mean,
    };
    let of_plain = Estimator { name: "heavy tail: plain mean", place: 1, true_effect: plain_effect };
    let mut watchers = of_capped.all_ways(plan)?;
    watchers.extend(of_plain.all_ways(plan)?);
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let factors = truth.arms(1.0, 1.0 + lift);
        let mut arms = Pair { control: [Moments::EMPTY; 2], treatment: [Moments::EMPTY; 2] };
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            let new = factors.map(|factor| {
                let totals: Vec<f64> = (0..pace.per_look).map(|_| factor * value(random)).collect();
                let cut = Moments::of(totals.iter().map(|&total| caps.apply(total)));
                [cut.expect("finite"), Moments::of(totals).expect("finite")]
            });
            let merged = |a: [Moments; 2], b: [Moments; 2]| [a[0].merge(b[0]), a[1].merge(b[1])];
            arms = Pair {
                control: merged(arms.control, new.control),
                treatment: merged(arms.treatment, new.treatment),
            };
            let of = |place: usize| {
                let test = welch::test(arms.map(|both| both[place]), Alternative::TwoSided).ok()?;
                Some(Finding::welch(test, alpha))
            };
            found.push(StudyLook { index, by: vec![of(0), of(1)] });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

fn value(random: &mut Random) -> f64 {
    (SIGMA * random.normal()).exp()
}

/// The moments of a lognormal value times a factor, cut at a cap, in closed form.
struct Capped {
    mean: f64,
    variance: f64,
}

impl Capped {
    fn of(cap: f64, factor: f64) -> Capped {
        let (s, log_cap) = (SIGMA, (cap / factor).ln());
        let moment = |power: f64| {
            let below = (power * power * s * s / 2.0).exp() * normal_cdf((log_cap - power * s * s) / s);
            factor.powf(power) * below + cap.powf(power) * normal_sf(log_cap / s)
        };
        let mean = moment(1.0);
        Capped { mean, variance: moment(2.0) - mean * mean }
    }
}
