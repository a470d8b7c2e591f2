//! Cluster-randomized experiments, where the units of a cluster resemble each other (intraclass correlation
//! 0.1). One study has many clusters that arrive one after the other; the other has few clusters and one
//! look. A test of units, which is wrong here, is included for comparison.

use stats::clusters::{self, ClusterTest, FEW_CLUSTERS};
use stats::permutation::{self, Assigned};
use stats::random::Random;
use stats::{Alpha, Invalid, Missing, Moments, Pair};

use super::{Estimator, Finding, Pace, Study, StudyLook, at_the_end};
use crate::calibrate::{
    Planned,
    paths::{Truth, normal_batch},
};

/// The clusters of one arm.
const MANY: u64 = 56;
const FEW: usize = 6;

/// The units of a cluster; all numbers are equally likely.
const SIZES: std::ops::RangeInclusive<u64> = 10..=30;
const ICC: f64 = 0.1;

/// The standard deviation of the mean of an arm's units, per cluster: the root of
/// `icc E n^2 / (E n)^2 + (1 - icc) / E n`.
fn sd() -> f64 {
    let count = SIZES.count() as f64;
    let mean = SIZES.sum::<u64>() as f64 / count;
    let squares = SIZES.map(|n| n * n).sum::<u64>() as f64 / count;
    (ICC * squares / (mean * mean) + (1.0 - ICC) / mean).sqrt()
}

pub fn many(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, MANY);
    let effect = pace.detectable(plan, sd())?;
    let alpha = plan.alpha;
    let estimator = |name, place| Estimator { name, place, true_effect: effect };
    let mut watchers = estimator("clusters: 56 an arm, looks from 10", 0).all_ways(plan)?;
    watchers.push(estimator("clusters: as if units were assigned", 1).once(plan));
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let means = truth.arms(0.0, effect);
        let mut arms = Pair::<Vec<Moments>>::default();
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            for _ in 0..pace.per_look {
                arms.control.push(cluster(means.control, random));
                arms.treatment.push(cluster(means.treatment, random));
            }
            let all = Pair { control: &arms.control[..], treatment: &arms.treatment[..] };
            let enough = all.control.len() >= FEW_CLUSTERS;
            let tested = enough.then(|| of_test(clusters::compare(all), alpha)).flatten();
            let last = index + 1 == pace.looks;
            let as_units = || Finding::normal(clusters::ignoring_clusters(all).ok()?, alpha);
            found.push(StudyLook { index, by: vec![tested, last.then(as_units).flatten()] });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

pub fn few(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace { per_look: FEW as u64, looks: 1 };
    let effect = pace.detectable(plan, sd())?;
    let (alpha, looks) = (plan.alpha, plan.looks());
    let estimator = |name, place| Estimator { name, place, true_effect: effect };
    let watchers = vec![
        estimator("clusters: 6 an arm, CR2", 0).once(plan),
        estimator("clusters: 6 an arm, delta method", 1).once(plan),
        estimator("clusters: 6 an arm, permutation", 2).once_without_interval(plan),
    ];
    let draw = move |truth: Truth, _: usize, random: &mut Random| {
        let means = [0.0, truth.treated(0.0, effect)];
        let [control, treatment] = means.map(|mean| [(); FEW].map(|()| cluster(mean, random)));
        let all = Pair { control: &control[..], treatment: &treatment[..] };
        let of = |treated| move |of: &Moments| Assigned { treated, units: of.count(), sum: of.sum() };
        let items: Vec<Assigned> =
            control.iter().map(of(false)).chain(treatment.iter().map(of(true))).collect();
        let permuted = permutation::test(&items, permutation::Design::FixedNumber, 0);
        let by = vec![
            of_test(clusters::bias_reduced(all), alpha),
            of_test(clusters::delta(all), alpha),
            permuted.ok().map(|found| Finding::p_value(found.p_value)),
        ];
        at_the_end(looks, by)
    };
    Ok(Study { every: 1, horizons: Some(1), watchers, draw: Box::new(draw) })
}

/// Draws the moments of the units of one cluster.
fn cluster(mean: f64, random: &mut Random) -> Moments {
    let size = SIZES.start() + random.below(SIZES.end() - SIZES.start() + 1);
    let units = normal_batch(0.0, size, random);
    let shift = mean + ICC.sqrt() * random.normal();
    let (spread, variance) = ((1.0 - ICC).sqrt(), units.variance().unwrap_or(0.0));
    Moments::from_variance(size, shift + spread * units.mean(), (1.0 - ICC) * variance).expect("finite")
}

pub fn of_test(test: Result<ClusterTest, Missing>, alpha: Alpha) -> Option<Finding> {
    let test = test.ok()?;
    let (effect, p_value) = (test.effect, test.p_value);
    Some(Finding { effect, z: test.as_z(), p_value, interval: test.interval(alpha) })
}
