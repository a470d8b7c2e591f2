//! The methods that are measured, each by its public functions alone.

use stats::bayes::{NormalPosterior, NormalPrior};
use stats::confidence_sequence::{self, Mixing};
use stats::conversion_counts;
use stats::distributions::normal_quantile;
use stats::group_sequential::{Continued, Design, Futility, Reserve, Spending};
use stats::guardrail::{Better, Guardrail};
use stats::proportion_interval::{self, Score};
use stats::srm_sequential::{self, Phase};
use stats::{Alternative, Arm, Effect, Interval, Invalid, Pair, Power, srm};

use super::paths::At;
use super::{NULL_HORIZONS, Planned, boundary_at_looks};

pub const UNCORRECTED: &str = "rates: uncorrected z at every look";
pub const FIXED: &str = "rates: z once, at the planned end";
pub const OBRIEN_FLEMING: &str = "rates: boundary, O'Brien-Fleming spending";
pub const POCOCK: &str = "rates: boundary, Pocock spending";
pub const FUTILITY: &str = "rates: the same, stopped for futility";
pub const CONTINUED: &str = "rates: boundary, a fifth of alpha reserved for beyond";
pub const TWICE: &str = "rates: boundary, then a full second test";
pub const SEQUENCE: &str = "rates: confidence sequence";
pub const MSPRT: &str = "rates: mSPRT, sd the effect";
pub const COUNTS: &str = "rates: conversion counts";
pub const HARM: &str = "rates: guardrail, one-sided harm";
pub const MEANS_ONCE: &str = "means: Welch once, at the planned end";
pub const MEANS_BOUNDARY: &str = "means: boundary, O'Brien-Fleming spending";
pub const MEANS_SEQUENCE: &str = "means: confidence sequence";
pub const BAYES: &str = "Bayes, means: P(better) > 0.95, not protected";
pub const BAYES_WITH_PRIOR: &str = "Bayes, means: with a prior, not protected";
pub const NOT_WORSE_BOUNDARY: &str = "means: guardrail, non-inferiority, boundary";
pub const NOT_WORSE_SEQUENCE: &str = "means: guardrail, non-inferiority, sequence";
pub const SRM_DAILY: &str = "sample ratio: chi-square at every look, 0.001";
pub const SRM_SEQUENTIAL: &str = "sample ratio: sequential, 0.01";

/// The gamma of the beta spending, which spends little early.
const FUTILITY_GAMMA: f64 = -2.0;

/// The probability at which a Bayesian decision is made, as many tools suggest.
pub const PROBABLE: f64 = 0.95;

/// The result of a method for all data up to one look, `L`.
pub type AtLook<L, T> = Box<dyn Fn(&L) -> T + Sync>;

/// A method that is applied to looks of the type `L`.
pub struct Watcher<L> {
    pub name: String,
    /// The number of looks after which it ends; `None` if it never does.
    pub ends_at: Option<usize>,
    pub rejects: AtLook<L, bool>,
    /// Whether it ends without a decision, because none can be expected.
    pub gives_up: Option<AtLook<L, bool>>,
    /// The interval of the effect at a look, where the method has one.
    pub interval: Option<AtLook<L, Interval>>,
    pub true_effect: f64,
    /// The interval after stopping at a look of a boundary, where it is computed.
    pub stagewise: Option<AtLook<L, Option<Interval>>>,
}

pub fn watchers(plan: &Planned) -> Result<Vec<Watcher<At>>, Invalid> {
    let two_sided = Alternative::TwoSided;
    let looks = plan.looks();
    let units = 2 * plan.units;
    let difference = plan.settings.treatment - plan.settings.baseline;
    let design = |spending| Design { alpha: plan.alpha, alternative: two_sided, spending };
    let tuned = Mixing::TunedForUnits(units as f64);
    let sequence = |mixing| confidence_sequence::Design::new(plan.alpha, two_sided, mixing);
    let alpha = plan.alpha;
    let score = move |at: &At| {
        proportion_interval::score(at.arms, alpha, Alternative::TwoSided, Score::Mee).expect("units")
    };
    let counts = conversion_counts::Design::new(0.5, conversion_counts::CONCENTRATION, alpha)?;
    // An increase of the treatment's rate is harm where lower is better.
    let harm = Guardrail::new(Better::Lower, 0.0)?.harm().always_valid(alpha, tuned)?;

    let rates = |name: &str, ends_at, rejects, interval| Watcher {
        name: name.to_owned(),
        ends_at,
        rejects,
        interval: Some(interval),
        true_effect: difference,
        stagewise: None,
        gives_up: None,
    };
    let mut all = vec![
        rates(UNCORRECTED, None, Box::new(move |at: &At| at.rates.p_value <= alpha.get()), Box::new(score)),
        rates(
            FIXED,
            Some(looks),
            Box::new(move |at: &At| at.index + 1 == looks && at.rates.p_value <= alpha.get()),
            Box::new(score),
        ),
    ];
    for (name, spending) in [(OBRIEN_FLEMING, Spending::OBrienFleming), (POCOCK, Spending::Pocock)] {
        all.push(on_boundary(name, plan, design(spending), difference, |at| (at.rates.z, at.rates.effect))?);
    }
    all.push(futile(plan, design(Spending::OBrienFleming), difference)?);
    all.push(continued(plan, design(Spending::OBrienFleming), difference)?);
    all.push(twice(plan, design(Spending::OBrienFleming), sequence(tuned)?, difference)?);
    for (name, mixing) in [(SEQUENCE, tuned), (MSPRT, Mixing::EffectSd(difference.abs()))] {
        all.push(on_rates(name, sequence(mixing)?, difference));
    }
    let look = move |arms: Pair<Arm>| counts.look(arms.map(Arm::conversions));
    all.push(Watcher {
        name: COUNTS.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at| look(at.arms).p_value <= alpha.get()),
        interval: Some(Box::new(move |at| look(at.arms).interval)),
        // The logarithm of the odds that a conversion is the treatment's.
        true_effect: (plan.settings.treatment / plan.settings.baseline).ln(),
        stagewise: None,
        gives_up: None,
    });
    all.push(on_rates(HARM, harm, difference));
    all.push(Watcher {
        name: MEANS_ONCE.to_owned(),
        ends_at: Some(looks),
        rejects: Box::new(move |at| at.index + 1 == looks && at.means.p_value <= alpha.get()),
        interval: Some(Box::new(move |at| at.means.interval(alpha))),
        true_effect: plan.mean_effect,
        stagewise: None,
        gives_up: None,
    });
    let on_means = |at: &At| (at.means.as_z(), at.means.effect);
    all.push(on_boundary(MEANS_BOUNDARY, plan, design(Spending::OBrienFleming), plan.mean_effect, on_means)?);
    let of_means = sequence(tuned)?;
    let look = move |at: &At| of_means.look_at_means(at.moments).expect("normal values vary");
    all.push(Watcher {
        name: MEANS_SEQUENCE.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at| look(at).p_value <= alpha.get()),
        interval: Some(Box::new(move |at| look(at).interval)),
        true_effect: plan.mean_effect,
        stagewise: None,
        gives_up: None,
    });
    all.extend(not_worse(plan, tuned)?);
    let belief = NormalPrior::new(0.0, plan.mean_effect)?;
    for (name, prior) in [(BAYES, None), (BAYES_WITH_PRIOR, Some(belief))] {
        all.push(bayes(name, prior, alpha, plan.mean_effect));
    }
    all.extend(sample_ratio(looks));
    Ok(all)
}

/// A boundary up to the planned looks; `of` returns the statistic and the effect for it.
fn on_boundary(
    name: &'static str,
    plan: &Planned,
    design: Design,
    true_effect: f64,
    of: impl Fn(&At) -> (f64, Effect) + Sync + Copy + 'static,
) -> Result<Watcher<At>, Invalid> {
    let boundary = boundary_at_looks(plan, design)?;
    let bounds = boundary.bounds().to_vec();
    let again = bounds.clone();
    let rates = name.starts_with("rates");
    Ok(Watcher {
        name: name.to_owned(),
        ends_at: Some(plan.looks()),
        rejects: Box::new(move |at| bounds[at.index].rejects(of(at).0)),
        interval: Some(Box::new(move |at| again[at.index].repeated_interval(of(at).1))),
        true_effect,
        gives_up: None,
        stagewise: rates.then(|| -> AtLook<At, Option<Interval>> {
            Box::new(move |at| {
                let after = boundary.looks().stagewise(at.index, of(at).1, boundary.design().alpha);
                after.map(|after| after.interval)
            })
        }),
    })
}

/// The boundary with an end as soon as the planned effect is unlikely to be found any more. That costs power,
/// and adds no alarms.
fn futile(plan: &Planned, design: Design, true_effect: f64) -> Result<Watcher<At>, Invalid> {
    let of = |at: &At| (at.rates.z, at.rates.effect);
    let futility = Futility { power: Power::EIGHTY_PERCENT, spending: Spending::gamma(FUTILITY_GAMMA)? };
    let drift = design.alternative.critical_z(design.alpha) + normal_quantile(Power::EIGHTY_PERCENT.get());
    let bounds = boundary_at_looks(plan, design)?.looks().futility(futility, drift)?.bounds;
    let gives_up = move |at: &At| at.rates.z.abs() <= bounds[at.index];
    let watcher = on_boundary(FUTILITY, plan, design, true_effect, of)?;
    Ok(Watcher { gives_up: Some(Box::new(gives_up)), stagewise: None, ..watcher })
}

/// Tests whether the treatment is not worse than a margin, which is as large as the effect to be found. The
/// treatment's values are lowered by the margin: without an effect it is worse by the margin, with an effect
/// it is equally good.
fn not_worse(plan: &Planned, tuned: Mixing) -> Result<[Watcher<At>; 2], Invalid> {
    let margin = plan.mean_effect;
    let hypothesis = Guardrail::new(Better::Higher, margin)?.non_inferiority();
    let lower = move |at: &At| {
        let Effect { estimate, standard_error } = at.means.effect;
        Effect { estimate: estimate - margin, standard_error }
    };
    let design =
        Design { alpha: plan.alpha, alternative: hypothesis.alternative, spending: Spending::OBrienFleming };
    let z = move |at: &At| hypothesis.z(lower(at)).expect("normal values vary");
    let of = move |at: &At| (z(at), lower(at));
    let boundary = on_boundary(NOT_WORSE_BOUNDARY, plan, design, 0.0, of)?;
    let sequence = hypothesis.always_valid(plan.alpha, tuned)?;
    let alpha = plan.alpha.get();
    let look = move |at: &At| sequence.look(lower(at), at.units);
    let always = Watcher {
        name: NOT_WORSE_SEQUENCE.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at: &At| look(at).p_value <= alpha),
        gives_up: None,
        interval: Some(Box::new(move |at: &At| look(at).interval)),
        true_effect: 0.0,
        stagewise: None,
    };
    Ok([boundary, always])
}

/// The boundary with most of alpha, and past it the confidence sequence with the rest.
fn continued(plan: &Planned, design: Design, true_effect: f64) -> Result<Watcher<At>, Invalid> {
    let mut walked = Continued::new(design, Some(Reserve::FIFTH), 2 * plan.units)?;
    let nothing = Effect { estimate: 0.0, standard_error: 0.0 };
    // The bounds depend only on the looks, which are the same in every experiment.
    for index in 0..plan.looks() * NULL_HORIZONS {
        walked.look(plan.fraction_at(index), nothing, 2 * plan.units_at(index))?;
    }
    let again = walked.clone();
    Ok(Watcher {
        name: CONTINUED.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at| walked.at(at.index, at.rates.effect, at.units).rejects),
        interval: Some(Box::new(move |at| again.at(at.index, at.rates.effect, at.units).interval)),
        true_effect,
        stagewise: None,
        gives_up: None,
    })
}

/// A wrong method: all of alpha for the boundary, and all of it again beyond.
fn twice(
    plan: &Planned,
    design: Design,
    beyond: confidence_sequence::Design,
    true_effect: f64,
) -> Result<Watcher<At>, Invalid> {
    let bounds = boundary_at_looks(plan, design)?.bounds().to_vec();
    let again = bounds.clone();
    let alpha = design.alpha.get();
    Ok(Watcher {
        name: TWICE.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at| match bounds.get(at.index) {
            Some(bound) => bound.rejects(at.rates.z),
            None => beyond.look(at.rates.effect, at.units).p_value <= alpha,
        }),
        interval: Some(Box::new(move |at| match again.get(at.index) {
            Some(bound) => bound.repeated_interval(at.rates.effect),
            None => beyond.look(at.rates.effect, at.units).interval,
        })),
        true_effect,
        stagewise: None,
        gives_up: None,
    })
}

fn on_rates(name: &'static str, design: confidence_sequence::Design, true_effect: f64) -> Watcher<At> {
    let alpha = design.alpha().get();
    Watcher {
        name: name.to_owned(),
        ends_at: None,
        // The p-value and the gate of the score look, without its interval.
        rejects: Box::new(move |at| {
            let enough = at.arms.map(|arm| arm.conversions() >= confidence_sequence::MIN_CONVERSIONS);
            enough.control && enough.treatment && design.look(at.rates.effect, at.units).p_value <= alpha
        }),
        interval: Some(Box::new(move |at| {
            design.look_at_rates(at.arms).map_or(Interval::EVERYTHING, |look| look.interval)
        })),
        true_effect,
        stagewise: None,
        gives_up: None,
    }
}

/// A Bayesian decision as soon as one side is probable enough. Its probability is right over all the
/// experiments that its prior describes, but with many looks at experiments without an effect it is often
/// wrong.
fn bayes(
    name: &'static str,
    prior: Option<NormalPrior>,
    alpha: stats::Alpha,
    true_effect: f64,
) -> Watcher<At> {
    let posterior = move |at: &At| NormalPosterior::new(at.means.effect, prior).expect("normal values vary");
    Watcher {
        name: name.to_owned(),
        ends_at: None,
        rejects: Box::new(move |at| {
            let posterior = posterior(at);
            posterior.probability_above_0().max(posterior.probability_below_0()) > PROBABLE
        }),
        interval: Some(Box::new(move |at| posterior(at).interval(alpha))),
        true_effect,
        stagewise: None,
        gives_up: None,
    }
}

/// Alarms about the split; the effect is a split of 51/49 where 50/50 was planned.
fn sample_ratio(looks: usize) -> [Watcher<At>; 2] {
    let daily = |at: &At| {
        let shares = at.assigned.map(|units| srm::Share { weight: 1.0, units });
        matches!(srm::check(&shares), Ok(srm::Verdict::Mismatch(_)))
    };
    let sequential = |at: &At| {
        let phase = Phase { weights: &[1.0, 1.0], units: &at.assigned };
        let found = srm_sequential::evidence(&[phase], srm_sequential::CONCENTRATION);
        found.expect("two arms").p_value <= srm_sequential::ALARM_LEVEL
    };
    let watcher = |name: &str, rejects| Watcher {
        name: name.to_owned(),
        ends_at: Some(looks),
        rejects,
        interval: None,
        true_effect: 0.0,
        stagewise: None,
        gives_up: None,
    };
    [watcher(SRM_DAILY, Box::new(daily)), watcher(SRM_SEQUENTIAL, Box::new(sequential))]
}
