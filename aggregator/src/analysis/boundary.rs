//! The test of a plan with a horizon: looks as they come, each with a critical value for |z| so that all of
//! them together keep alpha. Pure; the looks taken before come in with the previous analysis.

use schemas::definition::{Method, Plan};
use stats::group_sequential::{Continued, Stage, information_fraction};
use stats::monitoring::Monitoring;
use stats::{Alpha, Alternative, Effect, Missing, Pair, two_proportion, welch};

use super::{Data, Frame, Names, exact, named};
use crate::document::{
    AfterStopping, Boundary, BoundaryLook, BoundaryMethod, BoundaryStage, Bounds, ExperimentResult,
    MetricResult,
};

/// An analysis is another interim look from this much more of the planned information on, so that a
/// schedule of seconds takes a hundred looks and not a hundred thousand.
const STEP: f64 = 0.01;

/// The final look counts as at least this far from the one before, for a boundary has no bound closer. To take
/// it for further than it is only raises the bound.
const FINAL_STEP: f64 = 2e-4;

/// The test that a plan asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: BoundaryMethod,
    /// Units of all arms.
    pub horizon: u64,
}

impl Asked {
    /// None where the always-valid interval decides.
    pub fn by(plan: &Plan) -> Option<Asked> {
        let method = match plan.method {
            Method::AlwaysValid => return None,
            Method::Auto | Method::GroupSequential => BoundaryMethod::GroupSequential,
            Method::FixedHorizon => BoundaryMethod::FixedHorizon,
        };
        plan.horizon_units.map(|horizon| Asked { method, horizon })
    }
}

/// What this analysis sees.
pub(super) struct Now<'a> {
    pub names: &'a Names,
    pub data: &'a Data,
    pub units: Pair<u64>,
    pub units_of_all_arms: u64,
    pub planned: Pair<u64>,
    /// Of both arms' units.
    pub treatment_share: f64,
}

/// What was looked at before.
pub(super) struct Past<'a> {
    /// With the looks of the same sequence, one a treatment; none at its start.
    boundaries: &'a [Boundary],
    /// Of the plan's alpha, by sequences that have ended.
    pub alpha_spent: f64,
}

impl<'a> Past<'a> {
    /// Looks are one sequence as long as the units, what is counted of them and the control are the same; a new
    /// description of the metric does not start another. A new sequence has only what all before it left of alpha,
    /// so that however often the weights change the probability of a false alarm stays below it (Bonferroni's
    /// inequality; as for every look, the change must not depend on the effect seen).
    pub fn of(frame: &Frame<'a>, now: &MetricResult, control: &str) -> Past<'a> {
        let goes_on = |metric: &&MetricResult| {
            let same = metric.key == now.key && counts_the_same(metric, now);
            same && metric.boundaries.first().is_some_and(|of| of.control == control)
        };
        let same_units = frame.previous.filter(|previous| previous.metrics.iter().any(|of| goes_on(&of)));
        match same_units {
            Some(previous) => Past {
                boundaries: previous.metrics.iter().find(goes_on).map_or(&[], |of| &of.boundaries),
                alpha_spent: previous.alpha_spent_before,
            },
            None => {
                Past { boundaries: &[], alpha_spent: frame.latest.map_or(0.0, ExperimentResult::alpha_spent) }
            }
        }
    }

    fn looks(&self, treatment: &str) -> &'a [BoundaryLook] {
        let of_treatment = self.boundaries.iter().find(|of| of.treatment == treatment);
        of_treatment.map_or(&[], |of| &of.looks)
    }

    /// Each treatment's part of what is left; none where that is nothing but rounding.
    fn left(&self, alpha: Alpha, treatments: u32) -> Option<Alpha> {
        const NOTHING: f64 = 1e-9;
        let left = alpha.get() - self.alpha_spent;
        Alpha::new(left).ok().filter(|left| left.get() > NOTHING).map(|left| left.divided_by(treatments))
    }
}

fn counts_the_same(a: &MetricResult, b: &MetricResult) -> bool {
    (a.metric_type, &a.event, a.window_hours) == (b.metric_type, &b.event, b.window_hours)
}

/// The test with this analysis, which takes a look if one is due and any of the plan's `alpha` is left.
pub(super) fn follow(
    asked: Asked,
    alpha: Alpha,
    treatments: u32,
    now: &Now<'_>,
    past: &Past<'_>,
) -> Boundary {
    let left = past.left(alpha, treatments);
    let mut result = Boundary {
        metric: now.names.metric.clone(),
        control: now.names.control.clone(),
        treatment: now.names.treatment.clone(),
        method: asked.method,
        alpha: left.map_or(0.0, Alpha::get),
        alpha_spent_before: past.alpha_spent,
        planned_units_control: now.planned.control,
        planned_units_treatment: now.planned.treatment,
        fraction: information_fraction(now.units, now.planned).unwrap_or_default(),
        stage: BoundaryStage::BeforeFirstLook,
        looks: past.looks(&now.names.treatment).to_vec(),
        crossed_at_look: None,
        after_stopping: None,
        missing: None,
    };
    let Some(left) = left else {
        result.stage = BoundaryStage::AlphaSpent;
        return result;
    };
    if let Err(why) = look(asked, left, now, &mut result) {
        result.missing = Some(why);
    }
    result.crossed_at_look = result.looks.iter().find(|look| look.crossed).map(|look| look.look);
    result.stage = match result.looks.last() {
        None => BoundaryStage::BeforeFirstLook,
        Some(last) if !last.is_final => BoundaryStage::Interim,
        Some(last) if now.units.control + now.units.treatment > last.units_control + last.units_treatment => {
            BoundaryStage::PastEnd
        }
        Some(_) => BoundaryStage::Final,
    };
    result
}

/// Lays down the bounds of the looks before, adds this one if it is due, and estimates once it is settled.
fn look(asked: Asked, alpha: Alpha, now: &Now<'_>, result: &mut Boundary) -> Result<(), String> {
    let invalid = |invalid: stats::Invalid| invalid.to_string();
    let monitoring = Monitoring::default_for(Some(now.planned), alpha, Alternative::TwoSided, None);
    let Monitoring::Planned { mut plan, planned } = monitoring.map_err(invalid)? else {
        unreachable!("planned units were given");
    };
    result.fraction = information_fraction(now.units, planned).map_err(invalid)?;
    for look in &result.looks {
        let (effect, units) = (look.effect(), look.units_control + look.units_treatment);
        let laid_down = if look.is_final {
            plan.final_look(look.fraction, effect, units)
        } else {
            plan.look(look.fraction, effect, units)
        };
        laid_down.map_err(invalid)?;
    }
    if !result.has_ended() {
        take(asked, now, &mut plan, result)?;
    }
    // After counts the normal estimate is none.
    if let Some(settled) = result.settled().filter(|settled| settled.exact.is_none()) {
        let index = settled.look as usize - 1;
        let stagewise = plan.boundary().looks().stagewise(index, settled.effect(), alpha);
        result.after_stopping = stagewise.map(|stagewise| AfterStopping {
            look: settled.look,
            p_value: stagewise.p_value,
            lift_absolute: stagewise.median_unbiased,
            interval_absolute: stagewise.interval.into(),
        });
    }
    Ok(())
}

/// Takes a look if there is enough new information for one. Where an arm has too few conversions the look is at their
/// counts; both kinds spend the same alpha by the same share of the information.
fn take(asked: Asked, now: &Now<'_>, plan: &mut Continued, result: &mut Boundary) -> Result<(), String> {
    let few = now.data.few_at_a_planned_look(now.treatment_share);
    let last = result.looks.last().map(|look| look.fraction);
    let is_final = now.units_of_all_arms >= asked.horizon;
    let is_interim =
        asked.method == BoundaryMethod::GroupSequential && result.fraction >= last.unwrap_or(0.0) + STEP;
    if let Some(nothing) = few.filter(|few| few.total() == 0 && !is_final) {
        return Err(exact::nothing(now.names, &nothing));
    }
    if !is_final && !is_interim {
        return Ok(());
    }
    let effect = match now.data.effect() {
        Ok(effect) => effect,
        // Nothing varies, and at the end that decides too: nothing is shown.
        Err(_) if few.is_some() => nothing_varies(now.data),
        Err(Missing::Variation) if is_final && now.data.difference() == Some(0.0) => nothing_varies(now.data),
        Err(missing) => return Err(named(missing, now.names)),
    };
    let units = now.units.control + now.units.treatment;
    let monitored = if is_final {
        let fraction = last.map_or(result.fraction, |last| result.fraction.max(last + FINAL_STEP));
        plan.final_look(fraction, effect, units)
    } else {
        plan.look(result.fraction, effect, units)
    };
    let monitored = monitored.map_err(|invalid| invalid.to_string())?;
    let bound = monitored.bound;
    let exact = few
        .map(|few| {
            let planning = exact::Planning {
                method: asked.method,
                treatment_share: now.treatment_share,
                design: plan.boundary().design(),
                before: &result.looks,
                fraction: bound.fraction,
                is_final,
            };
            exact::at_a_look(&planning, now.data.arms(), &few)
        })
        .transpose()?;
    let interval = match exact {
        Some(_) => Bounds { lower: None, upper: None },
        None => Bounds::from(monitored.interval),
    };
    let control_mean = now.data.control_mean();
    result.looks.push(BoundaryLook {
        look: u32::try_from(result.looks.len()).unwrap_or(u32::MAX).saturating_add(1),
        units_control: now.units.control,
        units_treatment: now.units.treatment,
        fraction: bound.fraction,
        is_final: bound.stage == Stage::Final,
        critical_value: (exact.is_none() && bound.critical.is_finite()).then_some(bound.critical),
        alpha_spent: bound.alpha_spent,
        z: if effect.standard_error > 0.0 { effect.estimate / effect.standard_error } else { 0.0 },
        // Of a mean that is the same in both arms, the counts show no side.
        crossed: exact.map_or(monitored.rejects, |exact| exact.rejects && effect.estimate != 0.0),
        lift_absolute: effect.estimate,
        standard_error: effect.standard_error,
        lift_relative: control_mean.map(|mean| effect.estimate / mean),
        interval_absolute: interval,
        interval_relative_to_control: match exact {
            Some(_) => None,
            None => control_mean.map(|mean| interval.divided_by(mean)),
        },
        exact,
    });
    Ok(())
}

/// The difference, without an error that it could be held against.
fn nothing_varies(data: &Data) -> Effect {
    Effect { estimate: data.difference().unwrap_or_default(), standard_error: 0.0 }
}

impl Data {
    /// The effect with the standard error of its z: pooled for rates; for means that of the normal deviate with
    /// the tail of Welch's t.
    fn effect(&self) -> Result<Effect, stats::Missing> {
        match self {
            Data::Rates(arms) => Ok(two_proportion::pooled_z(*arms, Alternative::TwoSided)?.effect),
            Data::Means { moments, .. } => {
                let welch = welch::test(*moments, Alternative::TwoSided)?;
                let Effect { estimate, standard_error } = welch.effect;
                let z = welch.as_z();
                let standard_error = if z == 0.0 { standard_error } else { estimate / z };
                Ok(Effect { estimate, standard_error })
            }
        }
    }
}

impl BoundaryLook {
    fn effect(&self) -> Effect {
        Effect { estimate: self.lift_absolute, standard_error: self.standard_error }
    }
}
