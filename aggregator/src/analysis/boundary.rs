//! The test of a plan with a horizon: looks as they come, each with a critical value for |z| so that all of
//! them together keep alpha, whatever phases the units came in. Pure; the looks taken before come in.

use std::collections::BTreeMap;

use schemas::definition::{Method, Plan};
use stats::group_sequential::{self, Bound, Spending, Stage};
use stats::phases::information_fraction;
use stats::{Alpha, Alternative, Effect, Missing, Pair};

use super::{Data, Past, Seen, exact, named};
use crate::document::{AfterStopping, Boundary, BoundaryLook, BoundaryMethod, BoundaryStage, Bounds};

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
    pub seen: &'a Seen<'a>,
    /// All that are compared, this one among them.
    pub treatments: &'a [&'a str],
    pub units_of_all_arms: u64,
    /// Whether the two arms have had more than one split.
    pub is_split_anew: bool,
    pub planned: Pair<u64>,
}

/// The test with this analysis, and the look that it took, if it did.
pub(super) struct Followed {
    pub result: Boundary,
    pub taken: Option<BoundaryLook>,
}

/// The test with this analysis, which takes a look if one is due and any of the plan's `alpha` is left.
pub(super) fn follow(asked: Asked, alpha: Alpha, now: &Now<'_>, past: &Past<'_>) -> Followed {
    let spent = past.frame.looks.alpha_spent_before(past.identity, alpha.get());
    let names = now.seen.names;
    let left = part_of(
        alpha.get() - spent,
        alpha.get(),
        &past.spent_by_treatment(),
        now.treatments,
        &names.treatment,
    );
    let mut result = Boundary {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        method: asked.method,
        alpha: left.map_or(0.0, Alpha::get),
        alpha_spent_before: spent,
        planned_units_control: now.planned.control,
        planned_units_treatment: now.planned.treatment,
        fraction: information_fraction(&now.seen.data.strata, now.planned).unwrap_or_default(),
        stage: BoundaryStage::BeforeFirstLook,
        looks: Vec::new(),
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
        return Followed { result, taken: None };
    };
    let taken = match look(asked, left, now, past, &mut result) {
        Ok(taken) => taken,
        Err(why) => {
            result.missing = Some(why);
            None
        }
    };
    result.crossed_at_look = result.looks.iter().find(|look| look.crossed).map(|look| look.look);
    let units = now.seen.data.units();
    result.stage = match result.looks.last() {
        None => BoundaryStage::BeforeFirstLook,
        Some(last) if !last.is_final => BoundaryStage::Interim,
        Some(last) if units.control + units.treatment > last.units_control + last.units_treatment => {
            BoundaryStage::PastEnd
        }
        Some(_) => BoundaryStage::Final,
    };
    Followed { result, taken }
}

/// The part of what is `left` of `alpha` that the boundary of `own` has; none where that is nothing but rounding. All treatments have the
/// same, but that what one has spent stays spent, whether it is compared no more or has spent more than its part by
/// the time when others came.
fn part_of(
    left: f64,
    alpha: f64,
    spent: &BTreeMap<&str, f64>,
    treatments: &[&str],
    own: &str,
) -> Option<Alpha> {
    // Of what there was: the rest is rounding.
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

/// Lays down the bounds of the looks before, adds this one if it is due, and estimates once it is settled.
fn look(
    asked: Asked,
    alpha: Alpha,
    now: &Now<'_>,
    past: &Past<'_>,
    result: &mut Boundary,
) -> Result<Option<BoundaryLook>, String> {
    if now.planned.control == 0 || now.planned.treatment == 0 {
        return Err("an arm has no planned units".to_owned());
    }
    let design = group_sequential::Design {
        alpha,
        alternative: Alternative::TwoSided,
        spending: Spending::OBrienFleming,
    };
    let mut plan = group_sequential::Boundary::new(design);
    let Laid { before, weight: weight_of_last_look } = lay_down(&mut plan, now, past)?;
    result.looks = before.iter().map(|before| before.look).collect();
    let mut taken = None;
    // After a phase was left out there may be less to look at than the last look saw, and all for that is spent.
    if !result.has_ended() && weight(now.seen.data) > weight_of_last_look {
        taken = take(asked, now, &mut plan, &before, result)?;
    }
    // After counts the normal estimate is none.
    if let Some(settled) = result.settled().filter(|settled| settled.exact.is_none()) {
        // Of those that have a bound.
        let index =
            result.looks.iter().filter(|look| look.fraction > 0.0 && look.look < settled.look).count();
        let stagewise = plan.looks().stagewise(index, settled.effect(), alpha);
        result.after_stopping = stagewise.map(|stagewise| AfterStopping {
            look: settled.look,
            p_value: stagewise.p_value,
            lift_absolute: stagewise.median_unbiased,
            interval_absolute: stagewise.interval.into(),
        });
    }
    Ok(taken)
}

/// The looks before.
struct Laid {
    before: Vec<exact::Before>,
    /// Of the last one as it was taken, in units.
    weight: f64,
}

/// The looks before, each with its bound. Where other phases counted then, a look is computed again from those that
/// count now; what it spent stays spent.
fn lay_down(plan: &mut group_sequential::Boundary, now: &Now<'_>, past: &Past<'_>) -> Result<Laid, String> {
    let invalid = |invalid: stats::Invalid| invalid.to_string();
    let mut laid = Laid { before: Vec::new(), weight: 0.0 };
    let mut fraction = 0.0_f64;
    for (kept, left_out) in past.looks() {
        let Some(look) = kept.planned else { continue };
        let then = Data::of(&kept.phases, left_out)?;
        laid.weight = weight(&then);
        laid.before.push(if past.left_out_since(kept, left_out).is_empty() {
            let bound = match look.is_final {
                true => plan.final_look(look.fraction),
                false => plan.look_having_spent(look.fraction, look.alpha_spent),
            };
            bound.map_err(invalid)?;
            fraction = look.fraction;
            let totals = look.exact.and_then(|_| then.few_at_a_planned_look());
            exact::Before { look, totals: totals.as_ref().map(exact::totals).unwrap_or_default() }
        } else {
            let data = Data::of(&kept.phases, past.frame.left_out)?;
            fraction = information_fraction(&data.strata, now.planned).map_err(invalid)?.max(fraction);
            // Where nothing of it remains there is no bound to lay down.
            let bound = match fraction > 0.0 {
                true => Some(plan.look_having_spent(fraction, look.alpha_spent).map_err(invalid)?),
                false => None,
            };
            exact::Before { look: again(&look, &data, fraction, bound), totals: Vec::new() }
        });
    }
    Ok(laid)
}

fn weight(data: &Data) -> f64 {
    data.strata.iter().map(|stratum| stratum.weight()).sum()
}

/// A look as the remaining phases show it. What was decided by counts then is not decided again.
fn again(look: &BoundaryLook, data: &Data, fraction: f64, bound: Option<Bound>) -> BoundaryLook {
    let effect = data.score().map_or(nothing_varies(data), |score| score.effect_of_z());
    let z = if effect.standard_error > 0.0 { effect.estimate / effect.standard_error } else { 0.0 };
    let units = data.units();
    let interval = match bound {
        Some(bound) if effect.standard_error > 0.0 => Bounds::from(bound.repeated_interval(effect)),
        _ => Bounds { lower: None, upper: None },
    };
    let control_mean = data.control_mean();
    BoundaryLook {
        units_control: units.control,
        units_treatment: units.treatment,
        fraction,
        critical_value: bound.map(|bound| bound.critical).filter(|critical| critical.is_finite()),
        z,
        crossed: data.few_at_a_planned_look().is_none() && bound.is_some_and(|bound| bound.rejects(z)),
        lift_absolute: effect.estimate,
        standard_error: effect.standard_error,
        lift_relative: control_mean.map(|mean| effect.estimate / mean),
        interval_absolute: interval,
        interval_relative_to_control: control_mean.map(|mean| interval.divided_by(mean)),
        exact: None,
        ..*look
    }
}

/// Takes a look if there is enough new information for one. Where an arm has too few conversions the look is at their
/// counts; both kinds spend the same alpha by the same share of the information.
fn take(
    asked: Asked,
    now: &Now<'_>,
    plan: &mut group_sequential::Boundary,
    before: &[exact::Before],
    result: &mut Boundary,
) -> Result<Option<BoundaryLook>, String> {
    let Seen { names, data, .. } = now.seen;
    let few = data.few_at_a_planned_look();
    let last = result.looks.last().map(|look| look.fraction);
    let is_final = match now.is_split_anew {
        false => now.units_of_all_arms >= asked.horizon,
        // Ending at units would let whoever chose the new split by the effect choose how much is seen of it.
        true => result.fraction >= 1.0,
    };
    let is_interim =
        asked.method == BoundaryMethod::GroupSequential && result.fraction >= last.unwrap_or(0.0) + STEP;
    if let Some(nothing) = few.as_ref().filter(|few| few.few.total() == 0 && !is_final) {
        return Err(exact::nothing(names, &nothing.few));
    }
    if !is_final && !is_interim {
        return Ok(None);
    }
    let effect = match data.score().map(|score| score.effect_of_z()) {
        Ok(effect) => effect,
        // Nothing varies, and at the end that decides too: nothing is shown.
        Err(_) if few.is_some() => nothing_varies(data),
        Err(Missing::Variation) if is_final && data.difference() == Some(0.0) => nothing_varies(data),
        Err(missing) => return Err(named(missing, names)),
    };
    let bound = if is_final {
        let fraction = last.map_or(result.fraction, |last| result.fraction.max(last + FINAL_STEP));
        plan.final_look(fraction)
    } else {
        plan.look(result.fraction)
    };
    let bound = bound.map_err(|invalid| invalid.to_string())?;
    let z = if effect.standard_error > 0.0 { effect.estimate / effect.standard_error } else { 0.0 };
    let exact = few
        .map(|few| {
            let planning = exact::Planning {
                method: asked.method,
                design: plan.design(),
                before,
                fraction: bound.fraction,
                is_final,
            };
            exact::at_a_look(&planning, data, &few)
        })
        .transpose()?;
    let interval = match &exact {
        None if effect.standard_error > 0.0 => Bounds::from(bound.repeated_interval(effect)),
        _ => Bounds { lower: None, upper: None },
    };
    let control_mean = data.control_mean();
    let units = data.units();
    let look = BoundaryLook {
        look: u32::try_from(result.looks.len()).unwrap_or(u32::MAX).saturating_add(1),
        units_control: units.control,
        units_treatment: units.treatment,
        fraction: bound.fraction,
        is_final: bound.stage == Stage::Final,
        critical_value: (exact.is_none() && bound.critical.is_finite()).then_some(bound.critical),
        alpha_spent: bound.alpha_spent,
        z,
        // Of a mean that is the same in both arms, the counts show no side.
        crossed: exact.map_or(bound.rejects(z), |exact| exact.rejects && effect.estimate != 0.0),
        lift_absolute: effect.estimate,
        standard_error: effect.standard_error,
        lift_relative: control_mean.map(|mean| effect.estimate / mean),
        interval_absolute: interval,
        interval_relative_to_control: match exact {
            Some(_) => None,
            None => control_mean.map(|mean| interval.divided_by(mean)),
        },
        exact,
    };
    result.looks.push(look);
    Ok(Some(look))
}

/// The difference, without an error that it could be held against.
fn nothing_varies(data: &Data) -> Effect {
    Effect { estimate: data.difference().unwrap_or_default(), standard_error: 0.0 }
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
        // What `c` has spent is gone with it.
        assert_eq!(part(&[("b", 0.01), ("c", 0.02)], &["b"], "b"), Some(0.05 - 0.02));
        // `b` had all of alpha to itself before `c` came.
        assert_eq!(part(&[("b", 0.04)], &["b", "c"], "b"), Some(0.04));
        assert!((part(&[("b", 0.04)], &["b", "c"], "c").unwrap() - 0.01).abs() < 1e-12);
        assert_eq!(part(&[("b", 0.05)], &["b", "c"], "c"), None);
        // However small alpha is, all of it is there at first.
        assert_eq!(part_of(1e-20, 1e-20, &BTreeMap::new(), &["b"], "b").map(Alpha::get), Some(1e-20));
    }
}
