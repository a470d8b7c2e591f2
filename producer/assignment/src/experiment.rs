//! An experiment, compiled, and what it serves to a unit: while it runs a variant by the unit's buckets, and afterwards
//! what its owner has chosen. A unit that takes no part is served the control.

use schemas::definition::{
    Assignment, Condition, Definitions, Experiment, Serve, ServeTo, State, Switchback, Variant,
};
use schemas::{Buckets, Key, Micros, Reason as ExposureReason, SwitchbackUnit};
use serde_json::Value as Json;

use crate::Environment;
use crate::context::Context;
use crate::evaluation::{
    Evaluation, EvaluationError, ExperimentEvaluation, Exposed, HoldoutSide, NotExposed, Reason, Versions,
};
use crate::hash::{Salts, Seeds};
use crate::lists::ListSource;
use crate::placement::Placement;
use crate::rollout::{Rollout, Switches};
use crate::snapshot::{Snapshot, unit};
use crate::targeting::Conditions;
use crate::trace::{Step, Trace};
use crate::units::UnitLists;

#[derive(Debug)]
pub(crate) struct CompiledExperiment {
    versions: Versions,
    /// Nothing but its targeting and the unit's buckets ever decides: it is open at all times, and has no lists and no holdouts.
    is_plain: bool,
    never_open: Option<NotExposed>,
    /// It takes units at some times only: the placement knows which.
    is_scheduled: bool,
    control: usize,
    /// By variant: its value, or its key where it has none.
    values: Box<[Json]>,
    seeds: Seeds,
    placement: Placement,
    /// The indexes in the snapshot of the holdouts that cover it, at most one of the whole and one of its layer.
    holdouts: Box<[u32]>,
    lists: UnitLists,
    /// The keys of the rules, and their conditions; everybody may take part where there is none.
    rules: Box<[Key]>,
    targeting: Conditions,
    serves: Option<CompiledServe>,
}

/// What it serves once it is over.
#[derive(Debug)]
struct CompiledServe {
    variant: usize,
    only_targeted: bool,
    rollout: Rollout,
}

/// The parts of an evaluation that all its outcomes share.
#[derive(Clone, Copy)]
struct Asked<'s> {
    compiled: &'s CompiledExperiment,
    experiment: &'s Experiment,
}

impl<'s> Asked<'s> {
    /// Serves the control to a unit that takes no part.
    #[inline(never)]
    fn takes_no_part(
        self,
        rule: Option<&'s Key>,
        why: NotExposed,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        self.answer(self.compiled.control, Reason::Default, rule, Err(why))
    }

    /// Builds the answer where the caller wants it, from its parts: they fit into registers, and the answer does not.
    #[inline(always)]
    fn answer(
        self,
        variant: usize,
        reason: Reason,
        rule: Option<&'s Key>,
        outcome: Result<Exposed<'s>, NotExposed>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Asked { compiled, experiment } = self;
        let Variant { key, .. } = &experiment.variants[variant];
        Ok(Evaluation {
            key: &experiment.key,
            definition_version: compiled.versions.definition_version,
            variant: key,
            value: &compiled.values[variant],
            reason,
            rule,
            experiment: Some(ExperimentEvaluation {
                experiment,
                versions: &compiled.versions,
                rule,
                outcome,
            }),
            holdouts: [None, None],
        })
    }
}

impl CompiledExperiment {
    /// `holdout_of` gives the index of a holdout in the snapshot, if it runs in the environment.
    pub(crate) fn compile(
        source: &ListSource<'_>,
        experiment: &Experiment,
        versions: Versions,
        holdout_of: impl Fn(&Key) -> Option<u32>,
    ) -> CompiledExperiment {
        let definitions: &Definitions = source.definitions;
        let environment = Environment(&versions.environment);
        let value =
            |variant: &Variant| variant.value.clone().unwrap_or_else(|| Json::from(variant.key.as_str()));
        let index_of = |key: &Key| experiment.variants.iter().position(|variant| variant.key == *key);
        let targeting = experiment.in_environment(environment.0).targeting;
        let conditions: Vec<&Condition> = targeting.iter().map(|rule| &rule.when).collect();
        let covering = definitions.holdouts_over(experiment).filter(|span| span.until.is_none());
        let serves = |serve: &Serve| CompiledServe {
            variant: index_of(&serve.variant).expect("the rule checks that a variant is served"),
            only_targeted: serve.to == ServeTo::Targeted,
            rollout: Rollout::of(serve.rollout, &serve.ramp),
        };
        let placement = Placement::of(experiment, environment);
        let is_scheduled = placement.instants().next().is_some();
        let never_open = never_open(experiment, &placement);
        let holdouts: Box<[u32]> = covering.filter_map(|span| holdout_of(&span.holdout().key)).collect();
        let lists = UnitLists::compile(source, &experiment.allow, &experiment.deny, index_of);
        CompiledExperiment {
            is_plain: never_open.is_none() && !is_scheduled && holdouts.is_empty() && lists.are_empty(),
            never_open,
            is_scheduled,
            control: index_of(&experiment.control).expect("the rule checks that the control is a variant"),
            values: experiment.variants.iter().map(value).collect(),
            seeds: Salts::of(definitions, experiment).seeds(),
            placement,
            holdouts,
            lists,
            rules: targeting.iter().map(|rule| rule.key.clone()).collect(),
            targeting: Conditions::compile(source, experiment.unit_type.as_str(), &conditions),
            serves: experiment.serve.as_ref().map(serves),
            versions,
        }
    }

    /// The instants at which an answer changes by time alone.
    pub(crate) fn instants(&self) -> impl Iterator<Item = Micros> {
        let ramp = self.serves.iter().flat_map(|serves| serves.rollout.instants());
        self.placement.instants().chain(ramp)
    }

    /// The instants at which a switchback's answers change besides these; `None` if they never change.
    pub(crate) fn switches(experiment: &Experiment, environment: Environment<'_>) -> Option<Switches> {
        let runs = experiment.state == State::Running && experiment.in_environment(environment.0).enabled;
        let switchback = experiment.switchback.filter(|_| runs)?;
        Some(Switches::of(switchback, experiment.plan.schedule.as_ref()))
    }

    #[inline]
    pub(crate) fn evaluate<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        experiment: &'s Experiment,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let asked = Asked { compiled: self, experiment };
        if self.is_plain {
            return self.evaluate_plain(asked, context, now, trace);
        }
        self.evaluate_step_by_step(snapshot, asked, context, now, trace)
    }

    /// As [`CompiledExperiment::evaluate`], of one in which more may decide than its targeting and its buckets.
    #[inline(never)]
    fn evaluate_step_by_step<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        asked: Asked<'s>,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let mut closed = self.never_open;
        if closed.is_none() && self.is_scheduled {
            closed = self.placement.is_open(now).err();
        }
        if let Some(why) = closed {
            trace.step(|| Step::Closed(why));
            if self.serves.is_none() {
                return asked.takes_no_part(None, why);
            }
        }
        if self.holdouts.is_empty() {
            return self.evaluate_beside(asked, closed, context, now, trace);
        }
        let sides = self.sides(snapshot, asked.experiment, context, trace);
        let mut answer = if sides.iter().flatten().any(HoldoutSide::is_held_out) {
            asked.takes_no_part(None, NotExposed::HeldOut)
        } else {
            self.evaluate_beside(asked, closed, context, now, trace)
        };
        if let Ok(evaluation) = &mut answer {
            evaluation.holdouts = sides;
        }
        answer
    }

    /// As [`CompiledExperiment::evaluate`], of a unit that no holdout holds out.
    fn evaluate_beside<'s>(
        &'s self,
        asked: Asked<'s>,
        closed: Option<NotExposed>,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Asked { experiment, .. } = asked;
        if let Some(unit_id) = self.lists.asked_of(context, &experiment.unit_type) {
            if self.lists.deny(unit_id, trace) {
                return asked.takes_no_part(None, NotExposed::Denied);
            }
            let key_of = |variant: usize| &experiment.variants[variant].key;
            if let Some(index) = self.lists.allow(unit_id, key_of, trace) {
                let variant = &experiment.variants[index];
                let outcome = match closed {
                    Some(why) => Err(why),
                    None => {
                        let windows = experiment.switchback;
                        let window =
                            windows.map(|windows| window_of(experiment, windows, unit_id, now, trace));
                        let window_start_s = window.transpose()?.map(SwitchbackUnit::window_start_s);
                        Ok(Exposed { variant, reason: ExposureReason::Forced, buckets: None, window_start_s })
                    }
                };
                return asked.answer(index, Reason::TargetingMatch, None, outcome);
            }
        }
        if let (Some(why), Some(serves)) = (closed, &self.serves) {
            return self.after_the_end(asked, (why, serves), context, now, trace);
        }
        self.evaluate_plain(asked, context, now, trace)
    }

    /// As [`CompiledExperiment::evaluate`], where only its targeting and the unit's buckets are left to decide.
    #[inline(always)]
    fn evaluate_plain<'s>(
        &'s self,
        asked: Asked<'s>,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Asked { experiment, .. } = asked;
        let rule = self.targeting_rule(context, trace);
        if rule.is_none() && !self.rules.is_empty() {
            return asked.takes_no_part(None, NotExposed::NotTargeted);
        }
        let unit_id = unit(context, &experiment.unit_type)?;
        if let Some(windows) = experiment.switchback {
            return self.evaluate_in_window(asked, windows, rule, unit_id, now, trace);
        }
        self.placed(asked, rule, self.seeds.buckets(unit_id), None)
    }

    /// As [`CompiledExperiment::evaluate`], of a switchback's cluster that takes part in this window.
    #[inline(never)]
    fn evaluate_in_window<'s>(
        &'s self,
        asked: Asked<'s>,
        windows: Switchback,
        rule: Option<&'s Key>,
        cluster: &str,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let window = window_of(asked.experiment, windows, cluster, now, trace)?;
        self.placed(asked, rule, self.seeds.switchback_buckets(window), Some(window.window_start_s()))
    }

    /// The answer for a unit with these buckets.
    #[inline(always)]
    fn placed<'s>(
        &'s self,
        asked: Asked<'s>,
        rule: Option<&'s Key>,
        buckets: Buckets,
        window_start_s: Option<u64>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        match self.placement.owner(buckets) {
            Ok(index) => {
                let variant = &asked.experiment.variants[index];
                let reason = ExposureReason::Split;
                let exposed = Exposed { variant, reason, buckets: Some(buckets), window_start_s };
                asked.answer(index, Reason::Split, rule, Ok(exposed))
            }
            Err(why) => asked.takes_no_part(rule, why),
        }
    }

    /// Serves what the owner has chosen for the time after the experiment.
    #[inline(never)]
    fn after_the_end<'s>(
        &'s self,
        asked: Asked<'s>,
        (why, serves): (NotExposed, &'s CompiledServe),
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Asked { experiment, .. } = asked;
        let below = serves.rollout.at(now);
        trace.step(|| Step::Serves { variant: &experiment.variants[serves.variant].key, below });
        let mut rule = None;
        if serves.only_targeted {
            rule = self.targeting_rule(context, trace);
            trace.step(|| Step::OnlyTargeted { targeted: rule.is_some() });
            if rule.is_none() {
                return asked.takes_no_part(None, why);
            }
        }
        if serves.rollout.is_everybody() {
            let reason = if serves.only_targeted { Reason::TargetingMatch } else { Reason::Static };
            return asked.answer(serves.variant, reason, rule, Err(why));
        }
        let buckets = self.seeds.buckets(unit(context, &experiment.unit_type)?);
        // Nobody who had the variant loses it while it is shipped step by step; a cluster of a switchback had each of them.
        let targeted =
            rule.is_some() || self.rules.is_empty() || self.targeting_rule(context, trace).is_some();
        let kept = experiment.switchback.is_none()
            && targeted
            && self.placement.is_enabled()
            && self.placement.owner(buckets) == Ok(serves.variant);
        let (variant, reason) = if buckets.rollout < below || kept {
            (serves.variant, Reason::Split)
        } else {
            (self.control, Reason::Default)
        };
        asked.answer(variant, reason, rule, Err(why))
    }

    /// Returns the unit's side of each holdout. A context without the unit is on no side.
    fn sides<'s>(
        &self,
        snapshot: &'s Snapshot,
        experiment: &Experiment,
        context: &Context<'_>,
        trace: &mut impl Trace<'s>,
    ) -> [Option<HoldoutSide<'s>>; 2] {
        let mut sides = [None, None];
        let Ok(unit_id) = unit(context, &experiment.unit_type) else { return sides };
        for (side, index) in sides.iter_mut().zip(&self.holdouts) {
            *side = Some(snapshot.holdout_side(*index, unit_id, trace));
        }
        sides
    }

    /// Returns the first rule whose condition holds.
    #[inline]
    fn targeting_rule<'s>(&'s self, context: &Context<'_>, trace: &mut impl Trace<'s>) -> Option<&'s Key> {
        let first = self.targeting.first_that_holds(context);
        // Those before the first do not hold, and nobody asks those after it.
        for (number, key) in self.rules.iter().enumerate().take_while(|(number, _)| *number <= first) {
            trace.step(|| Step::Rule { key, holds: number == first });
        }
        self.rules.get(first)
    }
}

/// Returns why it never takes units, if it never does, whoever they are.
fn never_open(experiment: &Experiment, placement: &Placement) -> Option<NotExposed> {
    if experiment.state != State::Running {
        return Some(NotExposed::NotRunning(experiment.state));
    }
    if experiment.assignment == Assignment::External {
        return Some(NotExposed::External);
    }
    if placement.is_enabled() { None } else { Some(NotExposed::Disabled) }
}

/// Returns the unit of a switchback that a cluster is at `now`.
fn window_of<'a, 's>(
    experiment: &Experiment,
    switchback: Switchback,
    cluster: &'a str,
    now: Micros,
    trace: &mut impl Trace<'s>,
) -> Result<SwitchbackUnit<'a>, EvaluationError> {
    let unit = SwitchbackUnit::new(cluster, switchback.window_start_s(now))
        .map_err(|why| EvaluationError::Cluster { unit_type: experiment.unit_type.clone(), why })?;
    trace.step(|| Step::window(switchback, unit, now));
    Ok(unit)
}
