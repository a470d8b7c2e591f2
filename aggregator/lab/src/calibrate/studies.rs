//! Experiments on the other kinds of metric. Each study draws its own experiments, unit by unit, and its
//! estimators compute an effect with a standard error from all data so far. Every estimator can be tested in
//! three ways: once, at the planned end; by the boundary; by the confidence sequence.

use stats::confidence_sequence::{self, Mixing};
use stats::distributions::{normal_quantile, normal_sf};
use stats::group_sequential::{Boundary, Design, Spending};
use stats::power::{self, Plan};
use stats::random::Random;
use stats::welch::Welch;
use stats::{Alpha, Alternative, Effect, Interval, Invalid, Power};

use super::Planned;
use super::methods::Watcher;
use super::paths::Truth;

mod clustered;
mod covariate;
mod interaction;
mod posterior;
mod quantile;
mod ratio;
mod small_counts;
mod strata;
mod switchback;
mod tail;

/// One kind of experiment, with its methods.
pub struct Study {
    /// It is drawn in one of this many runs; more than 1 where drawing or estimating takes long.
    pub every: u64,
    /// It runs up to this many times the planned looks, where that differs from the other studies.
    pub horizons: Option<usize>,
    pub watchers: Vec<Watcher<StudyLook>>,
    /// Draws the given number of looks at one experiment.
    pub draw: Draw,
}

pub type Draw = Box<dyn Fn(Truth, usize, &mut Random) -> Vec<StudyLook> + Sync>;

/// The results of all estimators at one look; `None` while an estimator has too few data.
pub struct StudyLook {
    pub index: usize,
    pub by: Vec<Option<Finding>>,
}

/// The result of an estimator.
#[derive(Clone, Copy)]
pub struct Finding {
    pub effect: Effect,
    /// The normal deviate with the tail of the estimator's own test.
    pub z: f64,
    /// The p-value of a single look.
    pub p_value: f64,
    /// The interval of a single look, at the level of the plan.
    pub interval: Interval,
}

impl Finding {
    /// The result for an estimate whose own test is normal.
    fn normal(effect: Effect, alpha: Alpha) -> Option<Finding> {
        if effect.standard_error <= 0.0 {
            return None;
        }
        let z = effect.estimate / effect.standard_error;
        let interval = effect.interval(Alternative::TwoSided.critical_z(alpha));
        Some(Finding { effect, z, p_value: 2.0 * normal_sf(z.abs()), interval })
    }

    fn welch(test: Welch, alpha: Alpha) -> Finding {
        Finding { effect: test.effect, z: test.as_z(), p_value: test.p_value, interval: test.interval(alpha) }
    }

    /// The result of a test without an estimate.
    fn p_value(p_value: f64) -> Finding {
        Finding {
            effect: Effect { estimate: 0.0, standard_error: 0.0 },
            z: -normal_quantile(p_value / 2.0),
            p_value,
            interval: Interval::EVERYTHING,
        }
    }

    /// The effect with the standard error that matches z, for use with a boundary.
    fn as_normal(&self) -> Effect {
        let Effect { estimate, standard_error } = self.effect;
        let standard_error = if self.z == 0.0 { standard_error } else { estimate / self.z };
        Effect { estimate, standard_error }
    }
}

/// All studies, each with the same planned looks.
pub fn studies(plan: &Planned) -> Result<Vec<Study>, Invalid> {
    let mut all =
        vec![ratio::study(plan)?, covariate::study(plan)?, tail::study(plan)?, quantile::study(plan)?];
    all.extend([clustered::many(plan)?, clustered::few(plan)?]);
    all.extend([switchback::many(plan)?, switchback::fixed(plan)?, switchback::few(plan)?]);
    all.extend([strata::study(plan)?, interaction::study(plan)?, small_counts::study(plan)?]);
    all.push(posterior::study(plan)?);
    Ok(all)
}

/// One estimator of a study.
#[derive(Clone, Copy)]
struct Estimator {
    name: &'static str,
    /// Its index in [`StudyLook::by`].
    place: usize,
    true_effect: f64,
}

impl Estimator {
    fn all_ways(self, plan: &Planned) -> Result<Vec<Watcher<StudyLook>>, Invalid> {
        Ok(vec![self.once(plan), self.on_boundary(plan)?, self.by_sequence(plan)?])
    }

    /// The estimator's own test and interval at the planned end.
    fn once(self, plan: &Planned) -> Watcher<StudyLook> {
        let (looks, alpha) = (plan.looks(), plan.alpha.get());
        let place = self.place;
        let rejects = move |found: &StudyLook| {
            found.index + 1 == looks && found.by[place].is_some_and(|of| of.p_value <= alpha)
        };
        Watcher {
            name: format!("{}, once", self.name),
            ends_at: Some(looks),
            rejects: Box::new(rejects),
            interval: Some(Box::new(move |found| {
                found.by[place].map_or(Interval::EVERYTHING, |of| of.interval)
            })),
            true_effect: self.true_effect,
            stagewise: None,
            gives_up: None,
        }
    }

    /// The same for an estimator that is only a test.
    fn once_without_interval(self, plan: &Planned) -> Watcher<StudyLook> {
        Watcher { interval: None, ..self.once(plan) }
    }

    /// The boundary with O'Brien-Fleming spending up to the planned end.
    fn on_boundary(self, plan: &Planned) -> Result<Watcher<StudyLook>, Invalid> {
        let looks = plan.looks();
        let fractions: Vec<f64> = (1..=looks).map(|look| look as f64 / looks as f64).collect();
        let design = Design {
            alpha: plan.alpha,
            alternative: Alternative::TwoSided,
            spending: Spending::OBrienFleming,
        };
        let bounds = Boundary::planned(design, &fractions)?.bounds().to_vec();
        let again = bounds.clone();
        let place = self.place;
        Ok(Watcher {
            name: format!("{}, boundary", self.name),
            ends_at: Some(looks),
            rejects: Box::new(move |found| {
                found.by[place].is_some_and(|of| bounds[found.index].rejects(of.z))
            }),
            interval: Some(Box::new(move |found| {
                let interval = |of: Finding| again[found.index].repeated_interval(of.as_normal());
                found.by[place].map_or(Interval::EVERYTHING, interval)
            })),
            true_effect: self.true_effect,
            stagewise: None,
            gives_up: None,
        })
    }

    /// The confidence sequence, tuned for the planned end. A study's units arrive at an even pace, so the share
    /// of the looks is that of the units.
    fn by_sequence(self, plan: &Planned) -> Result<Watcher<StudyLook>, Invalid> {
        const PER_LOOK: u64 = 100;
        let tuned = Mixing::TunedForUnits((PER_LOOK * plan.looks() as u64) as f64);
        let design = confidence_sequence::Design::new(plan.alpha, Alternative::TwoSided, tuned)?;
        let place = self.place;
        let look = move |found: &StudyLook| {
            found.by[place].map(|of| design.look(of.effect, PER_LOOK * (found.index as u64 + 1)))
        };
        let alpha = plan.alpha.get();
        Ok(Watcher {
            name: format!("{}, confidence sequence", self.name),
            ends_at: None,
            rejects: Box::new(move |found| look(found).is_some_and(|look| look.p_value <= alpha)),
            interval: Some(Box::new(move |found| {
                look(found).map_or(Interval::EVERYTHING, |look| look.interval)
            })),
            true_effect: self.true_effect,
            stagewise: None,
            gives_up: None,
        })
    }
}

/// The pace at which units arrive: the same number in each arm at every look.
#[derive(Clone, Copy)]
struct Pace {
    per_look: u64,
    looks: usize,
}

impl Pace {
    /// A pace with at least `units` units of each arm by the planned end.
    fn of(plan: &Planned, units: u64) -> Pace {
        Pace { per_look: units.div_ceil(plan.looks() as u64).max(2), looks: plan.looks() }
    }

    fn planned(self) -> f64 {
        (self.per_look * self.looks as u64) as f64
    }

    /// The difference of means that is found with 80 % power at the planned end, for units with this standard
    /// deviation.
    fn detectable(self, plan: &Planned, sd: f64) -> Result<f64, Invalid> {
        power::means_detectable(sd, self.planned(), Power::EIGHTY_PERCENT, &Plan::even(plan.alpha))
    }
}

/// An experiment with only one look, at the planned end.
fn at_the_end(looks: usize, by: Vec<Option<Finding>>) -> Vec<StudyLook> {
    let nothing = by.iter().map(|_| None).collect::<Vec<Option<Finding>>>();
    let mut all: Vec<StudyLook> = (0..looks).map(|index| StudyLook { index, by: nothing.clone() }).collect();
    if let Some(last) = all.last_mut() {
        last.by = by;
    }
    all
}
