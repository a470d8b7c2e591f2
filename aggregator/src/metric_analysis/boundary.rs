//! The test of a plan with a horizon: each look has a critical value for |z|, so that all looks together keep
//! alpha, whatever phases the units came in. Pure; the earlier looks are an argument.

use std::collections::BTreeMap;

use schemas::Micros;
use schemas::definition::{Method, Plan};
use stats::group_sequential::{self, Bound, Stage};
use stats::phases::information_fraction;
use stats::{Alpha, Effect, Missing, Pair};

use super::{Data, Names, PastLooks, exact};
use crate::document::{
    AfterStopping, Boundary, BoundaryLook, BoundaryMethod, BoundaryStage, Bounds, ExactTest, FinalLookDue,
};
use crate::look::planned_boundary;

/// An analysis is another interim look if it has at least this much more of the planned information, so that a
/// schedule of seconds takes a hundred looks and not a hundred thousand.
const STEP: f64 = 0.01;

/// The final look counts as at least this far from the one before, because a boundary has no closer bound.
/// Overstating its information only raises the bound.
const FINAL_STEP: f64 = 2e-4;

/// The test that a plan defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTest {
    pub method: BoundaryMethod,
    /// Planned units of all arms.
    pub horizon: u64,
}

impl PlannedTest {
    /// Returns the plan's test; none where the always-valid interval decides.
    pub fn of(plan: &Plan) -> Option<PlannedTest> {
        let method = match plan.method {
            Method::AlwaysValid => return None,
            Method::Auto | Method::GroupSequential => BoundaryMethod::GroupSequential,
            Method::FixedHorizon => BoundaryMethod::FixedHorizon,
        };
        plan.horizon_units.map(|horizon| PlannedTest { method, horizon })
    }
}

/// The counts of this analysis.
pub(super) struct Current<'a> {
    pub names: &'a Names,
    pub data: &'a Data,
    /// All treatments that are compared, including this one.
    pub treatments: &'a [&'a str],
    pub units_of_all_arms: u64,
    /// Those of all arms whose window is open.
    pub open: u64,
    /// Until the last of them, if it was exposed just now, has matured.
    pub matured_at_latest: Option<Micros>,
    /// Whether the two arms have had more than one split.
    pub is_split_anew: bool,
    pub planned: Pair<u64>,
}

/// The test after this analysis, and the look that it took, if any.
pub(super) struct Analyzed {
    pub result: Boundary,
    pub taken: Option<BoundaryLook>,
}

/// Analyzes the test. It takes a look if one is due and any of the plan's `alpha` is left.
pub(super) fn analyze(
    test: PlannedTest,
    alpha: Alpha,
    current: &Current<'_>,
    past: &PastLooks<'_>,
) -> Analyzed {
    let spent = past.frame.looks.alpha_spent_before(past.identity, alpha.get());
    let names = current.names;
    let left = part_of(
        alpha.get() - spent,
        alpha.get(),
        &past.spent_by_treatment(),
        current.treatments,
        &names.treatment,
    );
    let mut result = Boundary {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        method: test.method,
        alpha: left.map_or(0.0, Alpha::get),
        alpha_spent_before: spent,
        planned_units_control: current.planned.control,
        planned_units_treatment: current.planned.treatment,
        fraction: information_fraction(&current.data.strata, current.planned).unwrap_or_default(),
        stage: BoundaryStage::BeforeFirstLook,
        looks: Vec::new(),
        information_fell: false,
        final_look_due: None,
        crossed_at_look: None,
        crossed_with_phases_left_out: past
            .looks()
            .iter()
            .filter(|(kept, left_out)| !past.left_out_since(kept, left_out).is_empty())
            .find_map(|(kept, _)| kept.planned.filter(|look| look.crossed))
            .map(|look| look.look),
        after_stopping: None,
        missing: None,
    };
    let Some(left) = left else {
        result.stage = BoundaryStage::AlphaSpent;
        return Analyzed { result, taken: None };
    };
    let taken = match look(test, left, current, past, &mut result) {
        Ok(taken) => taken,
        Err(why) => {
            result.missing = Some(why);
            None
        }
    };
    result.crossed_at_look = result.looks.iter().find(|look| look.crossed).map(|look| look.look);
    let units = current.data.units();
    result.stage = match result.looks.last() {
        None => BoundaryStage::BeforeFirstLook,
        Some(last) if !last.is_final => BoundaryStage::Interim,
        Some(last) if units.control + units.treatment > last.units_control + last.units_treatment => {
            BoundaryStage::PastEnd
        }
        Some(_) => BoundaryStage::Final,
    };
    result.final_look_due = final_look_due(test, current, past, &result);
    Analyzed { result, taken }
}

/// Returns what the final look waits for, if that is only that windows close.
fn final_look_due(
    test: PlannedTest,
    current: &Current<'_>,
    past: &PastLooks<'_>,
    result: &Boundary,
) -> Option<FinalLookDue> {
    let units = current.units_of_all_arms + current.open;
    // After a new split the information decides, which the open units may have or not.
    let is_reached = !current.is_split_anew && units >= test.horizon;
    let waits = current.open > 0 && !result.has_ended() && (is_reached || past.frame.is_stopped());
    waits.then_some(FinalLookDue { units, at_latest: current.matured_at_latest })
}

/// Returns the part of what is `left` of `alpha` for the boundary of `own`; none if that is only rounding
/// error. All treatments have equal parts. But what a treatment has spent stays spent, even if it is no longer
/// compared or had spent more than its part before others were added.
fn part_of(
    left: f64,
    alpha: f64,
    spent: &BTreeMap<&str, f64>,
    treatments: &[&str],
    own: &str,
) -> Option<Alpha> {
    // Relative to the original alpha: anything less is rounding error.
    let nothing = alpha * 1e-9;
    let spent_by = |treatment: &str| spent.get(treatment).copied().unwrap_or_default();
    let dropped: f64 = spent.iter().filter(|(of, _)| !treatments.contains(of)).map(|(_, spent)| spent).sum();
    let mut sharing: Vec<&str> = treatments.to_vec();
    let mut left = left - dropped;
    loop {
        let part = left / sharing.len() as f64;
        let Some(more) = sharing.iter().position(|of| spent_by(of) > part * (1.0 + 1e-12)) else {
            let part = if sharing.contains(&own) { part } else { spent_by(own) };
            return Alpha::new(part).ok().filter(|part| part.get() > nothing);
        };
        left -= spent_by(sharing.swap_remove(more));
    }
}

/// Repeats the earlier looks, takes this one if it is due, and estimates once the test is settled.
fn look(
    test: PlannedTest,
    alpha: Alpha,
    current: &Current<'_>,
    past: &PastLooks<'_>,
    result: &mut Boundary,
) -> Result<Option<BoundaryLook>, String> {
    if current.planned.control == 0 || current.planned.treatment == 0 {
        return Err("an arm has no planned units".to_owned());
    }
    let mut bounds = planned_boundary(alpha);
    let Repeated { looks: earlier, weight_of_last_look } = repeat(&mut bounds, current, past)?;
    result.looks = earlier.iter().map(|earlier| earlier.look).collect();
    let mut taken = None;
    // After a phase was left out there may be less information than the last look saw; the alpha for that is
    // already spent.
    let weight = weight(current.data);
    // When the experiment is stopped, the last look may see what the one before has seen.
    let has_news = weight > weight_of_last_look
        || (is_stopped_early(current, past) && weight > 0.0 && weight == weight_of_last_look);
    let same_phases =
        past.looks().iter().all(|(kept, left_out)| past.left_out_since(kept, left_out).is_empty());
    result.information_fell = !result.has_ended() && same_phases && weight < weight_of_last_look;
    if !result.has_ended() && has_news {
        taken = take(test, current, past, &mut bounds, &earlier, result)?;
        result.looks.extend(taken);
    }
    // After a look at counts there is no normal estimate.
    if let Some(settled) = result.settled().filter(|settled| settled.exact.is_none()) {
        // The index counts only looks that have a bound.
        let index =
            result.looks.iter().filter(|look| look.fraction > 0.0 && look.look < settled.look).count();
        let stagewise = bounds.looks().stagewise(index, settled.effect(), alpha);
        result.after_stopping = stagewise.map(|stagewise| AfterStopping {
            look: settled.look,
            p_value: stagewise.p_value,
            lift_absolute: stagewise.median_unbiased,
            interval_absolute: stagewise.interval.into(),
        });
    }
    Ok(taken)
}

/// The earlier looks, recomputed for the phases that count now.
struct Repeated {
    looks: Vec<exact::EarlierLook>,
    /// The weight of the last look as it was taken, in units.
    weight_of_last_look: f64,
}

/// Returns the earlier looks, each with its bound. A look at which other phases counted is computed from those
/// that count now; what it spent stays spent.
fn repeat(
    bounds: &mut group_sequential::Boundary,
    current: &Current<'_>,
    past: &PastLooks<'_>,
) -> Result<Repeated, String> {
    let invalid = |invalid: stats::Invalid| invalid.to_string();
    let mut repeated = Repeated { looks: Vec::new(), weight_of_last_look: 0.0 };
    let mut fraction = 0.0_f64;
    for (kept, left_out) in past.looks() {
        let Some(look) = kept.planned else { continue };
        let then = Data::of(&kept.phases, left_out)?;
        repeated.weight_of_last_look = weight(&then);
        repeated.looks.push(if past.left_out_since(kept, left_out).is_empty() {
            let bound = match look.is_final {
                true => bounds.final_look(look.fraction),
                false => bounds.look_having_spent(look.fraction, look.alpha_spent),
            };
            bound.map_err(invalid)?;
            fraction = look.fraction;
            let totals = look.exact.and_then(|_| then.few_at_a_planned_look());
            exact::EarlierLook { look, totals: totals.as_ref().map(exact::totals).unwrap_or_default() }
        } else {
            let remaining = Data::of(&kept.phases, past.frame.left_out)?;
            fraction =
                information_fraction(&remaining.strata, current.planned).map_err(invalid)?.max(fraction);
            // Where no information of the look remains there is no bound.
            let bound = match fraction > 0.0 {
                true => Some(bounds.look_having_spent(fraction, look.alpha_spent).map_err(invalid)?),
                false => None,
            };
            let effect = effect(&remaining).unwrap_or(without_variation(&remaining));
            let z = z(effect);
            let look = Shown { data: &remaining, effect, fraction, bound, exact: None }.look(Taken {
                look: look.look,
                is_final: look.is_final,
                is_early: look.is_early,
                alpha_spent: look.alpha_spent,
                // Where counts would decide, the look is not decided again.
                crossed: remaining.few_at_a_planned_look().is_none()
                    && bound.is_some_and(|bound| bound.rejects(z)),
            });
            exact::EarlierLook { look, totals: Vec::new() }
        });
    }
    Ok(repeated)
}

/// Returns whether the experiment was stopped and no unit is awaited any more, so that nothing will be added.
fn is_stopped_early(current: &Current<'_>, past: &PastLooks<'_>) -> bool {
    past.frame.is_stopped() && current.open == 0
}

fn weight(data: &Data) -> f64 {
    data.strata.iter().map(|stratum| stratum.weight()).sum()
}

/// Takes a look if there is enough new information for one. Where an arm has too few conversions the look tests
/// their counts; both kinds spend the same alpha for the same share of the information.
fn take(
    test: PlannedTest,
    current: &Current<'_>,
    past: &PastLooks<'_>,
    bounds: &mut group_sequential::Boundary,
    earlier: &[exact::EarlierLook],
    result: &Boundary,
) -> Result<Option<BoundaryLook>, String> {
    let Current { names, data, .. } = current;
    let few = data.few_at_a_planned_look();
    let last = result.looks.last().map(|look| look.fraction);
    let is_at_the_planned_end = match current.is_split_anew {
        false => current.units_of_all_arms >= test.horizon,
        // With an end at a number of units, a split changed because of the effect would determine how much of
        // it is seen.
        true => result.fraction >= 1.0,
    };
    // An early end spends all that is left (Lan & DeMets 1983, Biometrika 70(3)): the looks together keep alpha at whatever
    // information the last one comes, as long as the stop was not chosen by the effect.
    let is_early = !is_at_the_planned_end && is_stopped_early(current, past);
    let is_final = is_at_the_planned_end || is_early;
    let is_interim =
        test.method == BoundaryMethod::GroupSequential && result.fraction >= last.unwrap_or(0.0) + STEP;
    if let Some(nothing) = few.as_ref().filter(|few| few.few.total() == 0 && !is_final) {
        return Err(exact::nothing(names, &nothing.few));
    }
    if !is_final && !is_interim {
        return Ok(None);
    }
    let effect = match effect(data) {
        Ok(effect) => effect,
        // Nothing varies. At the end that is decided too: no effect is shown.
        Err(_) if few.is_some() => without_variation(data),
        Err(Missing::Variation) if is_final && data.difference() == Some(0.0) => without_variation(data),
        Err(missing) => return Err(names.sentence(missing)),
    };
    let bound = if is_final {
        let fraction = last.map_or(result.fraction, |last| result.fraction.max(last + FINAL_STEP));
        bounds.final_look(fraction)
    } else {
        bounds.look(result.fraction)
    };
    let bound = bound.map_err(|invalid| invalid.to_string())?;
    let exact = few
        .map(|few| {
            let planned = exact::PlannedLook {
                method: test.method,
                design: bounds.design(),
                earlier,
                fraction: bound.fraction,
                is_final,
            };
            exact::at_a_look(&planned, data, &few)
        })
        .transpose()?;
    let taken = Taken {
        look: u32::try_from(result.looks.len()).unwrap_or(u32::MAX).saturating_add(1),
        is_final: bound.stage == Stage::Final,
        is_early,
        alpha_spent: bound.alpha_spent,
        // If a mean is the same in both arms, the counts show no side.
        crossed: exact.map_or(bound.rejects(z(effect)), |exact| exact.rejects && effect.estimate != 0.0),
    };
    let shown = Shown { data, effect, fraction: bound.fraction, bound: Some(bound), exact };
    Ok(Some(shown.look(taken)))
}

/// The number of the look, the alpha spent, and the outcome.
struct Taken {
    /// The number of the look, from 1.
    look: u32,
    is_final: bool,
    is_early: bool,
    alpha_spent: f64,
    crossed: bool,
}

/// The data of a look and what they show.
struct Shown<'a> {
    data: &'a Data,
    effect: Effect,
    fraction: f64,
    bound: Option<Bound>,
    exact: Option<ExactTest>,
}

impl Shown<'_> {
    fn look(self, taken: Taken) -> BoundaryLook {
        let Shown { data, effect, fraction, bound, exact } = self;
        let Taken { look, is_final, is_early, alpha_spent, crossed } = taken;
        // Where counts decide, z is compared with no bound.
        let bound = bound.filter(|_| exact.is_none());
        let interval = bound
            .filter(|_| effect.standard_error > 0.0)
            .map_or(Bounds::NONE, |bound| bound.repeated_interval(effect).into());
        let units = data.units();
        let control_mean = data.control_mean();
        BoundaryLook {
            look,
            units_control: units.control,
            units_treatment: units.treatment,
            fraction,
            is_final,
            is_early,
            critical_value: bound.map(|bound| bound.critical).filter(|critical| critical.is_finite()),
            alpha_spent,
            z: z(effect),
            crossed,
            lift_absolute: effect.estimate,
            standard_error: effect.standard_error,
            lift_relative: control_mean.map(|mean| effect.estimate / mean),
            interval_absolute: interval,
            interval_relative_to_control: control_mean
                .filter(|_| exact.is_none())
                .map(|mean| interval.divided_by(mean)),
            exact,
        }
    }
}

fn effect(data: &Data) -> Result<Effect, Missing> {
    data.score().map(|score| score.effect_of_z())
}

/// Returns the difference with a standard error of 0.
fn without_variation(data: &Data) -> Effect {
    Effect { estimate: data.difference().unwrap_or_default(), standard_error: 0.0 }
}

fn z(effect: Effect) -> f64 {
    if effect.standard_error > 0.0 { effect.estimate / effect.standard_error } else { 0.0 }
}

impl BoundaryLook {
    fn effect(&self) -> Effect {
        Effect { estimate: self.lift_absolute, standard_error: self.standard_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_alpha_never_add_up_to_more() {
        let part = |spent: &[(&'static str, f64)], treatments: &[&str], own: &str| {
            part_of(0.05, 0.05, &spent.iter().copied().collect(), treatments, own).map(Alpha::get)
        };
        assert_eq!(part(&[], &["b", "c"], "b"), Some(0.025));
        assert_eq!(part(&[("b", 0.01), ("c", 0.02)], &["b", "c"], "b"), Some(0.025));
        // The alpha that `c` spent is gone with it.
        assert_eq!(part(&[("b", 0.01), ("c", 0.02)], &["b"], "b"), Some(0.05 - 0.02));
        // `b` had all of alpha to itself before `c` was added.
        assert_eq!(part(&[("b", 0.04)], &["b", "c"], "b"), Some(0.04));
        assert!((part(&[("b", 0.04)], &["b", "c"], "c").unwrap() - 0.01).abs() < 1e-12);
        assert_eq!(part(&[("b", 0.05)], &["b", "c"], "c"), None);
        // However small alpha is, all of it is available at first.
        assert_eq!(part_of(1e-20, 1e-20, &BTreeMap::new(), &["b"], "b").map(Alpha::get), Some(1e-20));
    }
}
