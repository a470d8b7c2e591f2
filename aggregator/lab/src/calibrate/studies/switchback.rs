//! Switchback experiments: regions are switched at random, window by window. The outcome depends on the
//! region's outcome before (autocorrelation 0.5), on the region and on the hour. In the first half of a
//! window the previous window still has its effect, so that half is burn-in. A wrong method, which analyses
//! burn-in as windows of its own, is included for comparison.

use stats::clusters;
use stats::permutation;
use stats::random::Random;
use stats::switchback::{self, Window};
use stats::{Invalid, Missing, Pair, Side};

use super::{Estimator, Finding, Pace, Study, StudyLook, at_the_end, clustered::of_test};
use crate::calibrate::{Planned, paths::Truth};

const REGIONS: u32 = 4;

/// The periods of each region by the planned end.
const PERIODS: u64 = 28;

/// The windows of a single region with one look.
const FEW_WINDOWS: usize = 12;

const AUTOCORRELATION: f64 = 0.5;
const REGION_SD: f64 = 0.5;
const HOUR_SD: f64 = 0.7;
const NOISE_SD: f64 = 1.0;

/// The standard deviation of one window's mean.
fn sd() -> f64 {
    (REGION_SD * REGION_SD + HOUR_SD * HOUR_SD + NOISE_SD * NOISE_SD).sqrt()
}

/// The length of the experiment, and its planned effect.
#[derive(Clone, Copy)]
struct Course {
    /// The number of periods between two looks.
    per_look: u64,
    regions: u32,
    /// In the metric's unit.
    effect: f64,
}

impl Course {
    fn of(plan: &Planned) -> Result<Course, Invalid> {
        let pace = Pace::of(plan, PERIODS);
        let half = Pace { per_look: pace.per_look * u64::from(REGIONS), ..pace };
        // Half of the windows are treated.
        let effect = half.detectable(plan, sd() * std::f64::consts::SQRT_2)?;
        Ok(Course { per_look: pace.per_look, regions: REGIONS, effect })
    }
}

pub fn many(plan: &Planned) -> Result<Study, Invalid> {
    let course = Course::of(plan)?;
    let (alpha, planned) = (plan.alpha, plan.looks());
    let estimator = |name, place| Estimator { name, place, true_effect: course.effect };
    let mut watchers = estimator("switchback: windows without burn-in", 0).all_ways(plan)?;
    watchers.push(estimator("switchback: burn-in kept as windows", 1).once(plan));
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let mut city = City::new(course, truth, random);
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            (0..course.per_look).for_each(|_| city.switch(random));
            let last = index + 1 == planned;
            let kept = last.then(|| {
                let all: Vec<Window> =
                    city.windows.iter().map(|&of| Window { burn_in: false, ..of }).collect();
                of_test(compare(&all), alpha)
            });
            let by = vec![of_test(compare(&city.windows), alpha), kept.flatten()];
            found.push(StudyLook { index, by });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

/// Fixed effects remove the differences between regions and between hours; their least squares take long.
/// With the first few windows they leave almost no degrees of freedom, so looks at that time are a wrong
/// method.
pub fn fixed(plan: &Planned) -> Result<Study, Invalid> {
    let course = Course::of(plan)?;
    let alpha = plan.alpha;
    let estimator = |name, place| Estimator { name, place, true_effect: course.effect };
    let mut watchers = estimator("switchback: fixed effects, from 40 windows", 0).all_ways(plan)?;
    watchers.push(estimator("switchback: fixed effects, from too few", 1).by_sequence(plan)?);
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let mut city = City::new(course, truth, random);
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            (0..course.per_look).for_each(|_| city.switch(random));
            let counted = city.windows.iter().filter(|window| window.counts()).count();
            let effect = switchback::fixed_effects(&city.windows).ok();
            let finding = effect.and_then(|effect| Finding::normal(effect, alpha));
            let enough = counted >= switchback::FIXED_EFFECTS_WINDOWS;
            found.push(StudyLook { index, by: vec![finding.filter(|_| enough), finding] });
        }
        found
    };
    Ok(Study { every: 10, horizons: Some(1), watchers, draw: Box::new(draw) })
}

pub fn few(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace { per_look: FEW_WINDOWS as u64, looks: 1 };
    let spread = (HOUR_SD * HOUR_SD + NOISE_SD * NOISE_SD).sqrt();
    let effect = pace.detectable(plan, spread * std::f64::consts::SQRT_2)?;
    let course = Course { per_look: 1, regions: 1, effect };
    let (alpha, looks) = (plan.alpha, plan.looks());
    let estimator = |name, place| Estimator { name, place, true_effect: effect };
    let watchers = vec![
        estimator("switchback: 12 windows, CR2", 0).once(plan),
        estimator("switchback: 12 windows, permutation", 1).once_without_interval(plan),
    ];
    let draw = move |truth: Truth, _: usize, random: &mut Random| {
        let city = loop {
            let mut city = City::new(course, truth, random);
            (0..FEW_WINDOWS).for_each(|_| city.switch(random));
            // A design of fair coins is drawn again if all coins have the same result.
            if city.windows.iter().any(|of| of.treated) && city.windows.iter().any(|of| !of.treated) {
                break city;
            }
        };
        let items = switchback::assigned(&city.windows);
        let permuted = permutation::test(&items, permutation::Design::FairCoins, 0);
        let by = vec![
            of_test(compare(&city.windows), alpha),
            permuted.ok().map(|found| Finding::p_value(found.p_value)),
        ];
        at_the_end(looks, by)
    };
    Ok(Study { every: 1, horizons: Some(1), watchers, draw: Box::new(draw) })
}

/// The platform's test of clusters; it needs two windows in each arm.
fn compare(windows: &[Window]) -> Result<clusters::ClusterTest, Missing> {
    let arms = switchback::clusters(windows);
    if let Some(have) = [&arms.control, &arms.treatment].map(Vec::len).into_iter().find(|&have| have < 2) {
        return Err(Missing::Clusters { arm: Side::Control, have, need: 2 });
    }
    clusters::compare(Pair { control: &arms.control, treatment: &arms.treatment })
}

/// All regions with their windows so far.
struct City {
    /// The effect of the treatment on a window's mean.
    effect: f64,
    regions: Vec<Region>,
    period: u32,
    windows: Vec<Window>,
}

struct Region {
    level: f64,
    noise: f64,
    treated: bool,
}

impl City {
    fn new(course: Course, truth: Truth, random: &mut Random) -> City {
        let region = |_| Region {
            level: REGION_SD * random.normal(),
            noise: NOISE_SD * random.normal(),
            treated: random.below(2) == 1,
        };
        City {
            effect: truth.treated(0.0, course.effect),
            regions: (0..course.regions).map(region).collect(),
            period: 0,
            windows: Vec::new(),
        }
    }

    /// Draws one more window of each region, in two halves.
    fn switch(&mut self, random: &mut Random) {
        let hour = HOUR_SD * random.normal();
        for (region, of) in (0..).zip(&mut self.regions) {
            let before = std::mem::replace(&mut of.treated, random.below(2) == 1);
            for (half, acts) in [(0, before), (1, of.treated)] {
                let fresh = (1.0 - AUTOCORRELATION * AUTOCORRELATION).sqrt() * NOISE_SD;
                of.noise = AUTOCORRELATION * of.noise + fresh * random.normal();
                let units = 20 + random.below(21);
                let mean = of.level + hour + of.noise + if acts { self.effect } else { 0.0 };
                self.windows.push(Window {
                    region,
                    period: 2 * self.period + half,
                    treated: of.treated,
                    units,
                    sum: mean * units as f64,
                    burn_in: half == 0,
                });
            }
        }
        self.period += 1;
    }
}
