//! An experiment, compiled, and what it serves to a unit: while it runs a variant by the unit's buckets, and afterwards
//! what its owner has chosen. A unit that takes no part is served the control.

use schemas::definition::{
    Assignment, Definitions, Experiment, Serve, ServeTo, State, TargetingRule, Variant, Version,
};
use schemas::{Buckets, Key, Micros, Reason as ExposureReason, SwitchbackUnit};
use serde_json::Value as Json;

use crate::Environment;
use crate::context::Context;
use crate::evaluation::{
    Evaluation, EvaluationError, ExperimentEvaluation, Exposed, HoldoutSide, NotExposed, Reason,
};
use crate::hash::{Salts, Seeds};
use crate::lists::ListSource;
use crate::placement::Placement;
use crate::rollout::{Rollout, Switches};
use crate::snapshot::{Snapshot, unit};
use crate::targeting::CompiledCondition;
use crate::trace::{Step, Trace};
use crate::units::UnitLists;

#[derive(Debug)]
pub(crate) struct CompiledExperiment {
    control: usize,
    /// By variant: its value, or its key where it has none.
    values: Box<[Json]>,
    seeds: Seeds,
    placement: Placement,
    /// The indexes in the snapshot of the holdouts that cover it, at most one of the whole and one of its layer.
    holdouts: Box<[u32]>,
    lists: UnitLists,
    /// The rules with their keys; everybody may take part where there is none.
    targeting: Box<[(Key, CompiledCondition)]>,
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
    version: Version,
    snapshot: &'s Snapshot,
}

impl<'s> Asked<'s> {
    fn answer(
        self,
        variant: usize,
        reason: Reason,
        rule: Option<&'s Key>,
        outcome: Result<Exposed<'s>, NotExposed>,
        holdouts: [Option<HoldoutSide<'s>>; 2],
    ) -> Evaluation<'s> {
        let Asked { compiled, experiment, version, snapshot } = self;
        Evaluation {
            key: &experiment.key,
            definition_version: version,
            variant: &experiment.variants[variant].key,
            value: &compiled.values[variant],
            reason,
            rule,
            experiment: Some(ExperimentEvaluation {
                experiment,
                definition_version: version,
                configuration_version: snapshot.configuration_version(),
                environment: snapshot.environment().0,
                rule,
                outcome,
            }),
            holdouts,
        }
    }
}

impl CompiledExperiment {
    /// `holdout_of` gives the index of a holdout in the snapshot, if it runs in the environment.
    pub(crate) fn compile(
        source: &ListSource<'_>,
        experiment: &Experiment,
        environment: Environment<'_>,
        holdout_of: impl Fn(&Key) -> Option<u32>,
    ) -> CompiledExperiment {
        let definitions: &Definitions = source.definitions;
        let value =
            |variant: &Variant| variant.value.clone().unwrap_or_else(|| Json::from(variant.key.as_str()));
        let index_of = |key: &Key| experiment.variants.iter().position(|variant| variant.key == *key);
        let targeting = experiment.in_environment(environment.0).targeting;
        let rule = |rule: &TargetingRule| (rule.key.clone(), CompiledCondition::compile(source, &rule.when));
        let covering = definitions.holdouts_over(experiment).filter(|span| span.until.is_none());
        let serves = |serve: &Serve| CompiledServe {
            variant: index_of(&serve.variant).expect("the rule checks that a variant is served"),
            only_targeted: serve.to == ServeTo::Targeted,
            rollout: Rollout::of(serve.rollout, &serve.ramp),
        };
        CompiledExperiment {
            control: index_of(&experiment.control).expect("the rule checks that the control is a variant"),
            values: experiment.variants.iter().map(value).collect(),
            seeds: Salts::of(definitions, experiment).seeds(),
            placement: Placement::of(experiment, environment),
            holdouts: covering.filter_map(|span| holdout_of(&span.holdout().key)).collect(),
            lists: UnitLists::compile(source, &experiment.allow, &experiment.deny, index_of),
            targeting: targeting.iter().map(rule).collect(),
            serves: experiment.serve.as_ref().map(serves),
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

    fn buckets(&self, unit_id: &str, window: Option<SwitchbackUnit<'_>>) -> Buckets {
        match window {
            Some(window) => self.seeds.switchback_buckets(window),
            None => self.seeds.buckets(unit_id),
        }
    }

    pub(crate) fn evaluate<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        experiment: &'s Experiment,
        version: Version,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let asked = Asked { compiled: self, experiment, version, snapshot };
        let closed = self.is_open(experiment, now).err();
        if let Some(why) = closed {
            trace.step(|| Step::Closed(why));
            if self.serves.is_none() {
                let nobody = [None, None];
                return Ok(asked.answer(self.control, Reason::Default, None, Err(why), nobody));
            }
        }
        let sides = self.sides(snapshot, experiment, context, trace);
        let takes_no_part =
            |rule, why| Ok(asked.answer(self.control, Reason::Default, rule, Err(why), sides));
        if sides.iter().flatten().any(|side| side.held_out) {
            return takes_no_part(None, NotExposed::HeldOut);
        }
        if let Some(unit_id) = self.lists.asked_of(context, &experiment.unit_type) {
            if self.lists.deny(unit_id, trace) {
                return takes_no_part(None, NotExposed::Denied);
            }
            let key_of = |variant: usize| &experiment.variants[variant].key;
            if let Some(index) = self.lists.allow(unit_id, key_of, trace) {
                let variant = &experiment.variants[index];
                let outcome = match closed {
                    Some(why) => Err(why),
                    None => {
                        let window = switchback_unit(experiment, unit_id, now, trace)?;
                        let window_start_s = window.map(SwitchbackUnit::window_start_s);
                        Ok(Exposed { variant, reason: ExposureReason::Forced, buckets: None, window_start_s })
                    }
                };
                return Ok(asked.answer(index, Reason::TargetingMatch, None, outcome, sides));
            }
        }
        if let (Some(why), Some(serves)) = (closed, &self.serves) {
            return self.after_the_end(asked, (why, serves), sides, context, now, trace);
        }
        let rule = self.targeting_rule(context, trace);
        if rule.is_none() && !self.targeting.is_empty() {
            return takes_no_part(None, NotExposed::NotTargeted);
        }
        let unit_id = unit(context, &experiment.unit_type)?;
        let window = switchback_unit(experiment, unit_id, now, trace)?;
        let buckets = self.buckets(unit_id, window);
        match self.placement.owner(buckets) {
            Ok(index) => {
                let variant = &experiment.variants[index];
                let reason = ExposureReason::Split;
                let window_start_s = window.map(SwitchbackUnit::window_start_s);
                let exposed = Exposed { variant, reason, buckets: Some(buckets), window_start_s };
                Ok(asked.answer(index, Reason::Split, rule, Ok(exposed), sides))
            }
            Err(why) => takes_no_part(rule, why),
        }
    }

    /// Serves what the owner has chosen for the time after the experiment.
    fn after_the_end<'s>(
        &'s self,
        asked: Asked<'s>,
        (why, serves): (NotExposed, &'s CompiledServe),
        sides: [Option<HoldoutSide<'s>>; 2],
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
            if rule.is_none() {
                return Ok(asked.answer(self.control, Reason::Default, None, Err(why), sides));
            }
        }
        if serves.rollout.is_everybody() {
            let reason = if serves.only_targeted { Reason::TargetingMatch } else { Reason::Static };
            return Ok(asked.answer(serves.variant, reason, rule, Err(why), sides));
        }
        let buckets = self.seeds.buckets(unit(context, &experiment.unit_type)?);
        // Nobody who had the variant loses it while it is shipped step by step; a cluster of a switchback had each of them.
        let targeted =
            rule.is_some() || self.targeting.is_empty() || self.targeting_rule(context, trace).is_some();
        let kept = experiment.switchback.is_none()
            && targeted
            && self.placement.is_enabled()
            && self.placement.owner(buckets) == Ok(serves.variant);
        let (variant, reason) = if buckets.rollout < below || kept {
            (serves.variant, Reason::Split)
        } else {
            (self.control, Reason::Default)
        };
        Ok(asked.answer(variant, reason, rule, Err(why), sides))
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
        if self.holdouts.is_empty() {
            return sides;
        }
        let Ok(unit_id) = unit(context, &experiment.unit_type) else { return sides };
        for (side, index) in sides.iter_mut().zip(&self.holdouts) {
            *side = Some(snapshot.holdout_side(*index, unit_id, trace));
        }
        sides
    }

    fn targeting_rule<'s>(&'s self, context: &Context<'_>, trace: &mut impl Trace<'s>) -> Option<&'s Key> {
        let rule = self.targeting.iter().find(|(key, condition)| {
            let holds = condition.holds(context);
            trace.step(|| Step::Rule { key, holds });
            holds
        });
        rule.map(|(key, _)| key)
    }

    /// Returns whether it takes units at `now`, whoever they are.
    fn is_open(&self, experiment: &Experiment, now: Micros) -> Result<(), NotExposed> {
        if experiment.state != State::Running {
            return Err(NotExposed::NotRunning(experiment.state));
        }
        if experiment.assignment == Assignment::External {
            return Err(NotExposed::External);
        }
        self.placement.is_open(now)
    }
}

/// Returns the unit that a cluster is at `now`; `None` if the experiment is no switchback.
fn switchback_unit<'a, 's>(
    experiment: &Experiment,
    cluster: &'a str,
    now: Micros,
    trace: &mut impl Trace<'s>,
) -> Result<Option<SwitchbackUnit<'a>>, EvaluationError> {
    let Some(switchback) = experiment.switchback else { return Ok(None) };
    let unit = SwitchbackUnit::new(cluster, switchback.window_start_s(now))
        .map_err(|why| EvaluationError::Cluster { unit_type: experiment.unit_type.clone(), why })?;
    trace.step(|| Step::Window {
        start: switchback.window_start(now),
        window_seconds: switchback.window_seconds,
        unit_id: unit.id().as_str().to_owned(),
    });
    Ok(Some(unit))
}
