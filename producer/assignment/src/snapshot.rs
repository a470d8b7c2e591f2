//! All flags and experiments of one environment, compiled once, and evaluated for one unit at a time without an
//! allocation. It knows no clock and no log: the definitions and the time are given.

use std::sync::Arc;

use hashbrown::HashTable;
use schemas::definition::{
    Accepted, Assignment, Definition, Definitions, Experiment, Flag, FlagRule, State, Variant, Version,
};
use schemas::event::UNIT_ID_BYTES_MAX;
use schemas::{BUCKETS, Bucket, BucketRange, Key, Micros};
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_64;

use crate::context::{Context, DEFAULT_UNIT_TYPE};
use crate::evaluation::{
    Environment, Evaluation, EvaluationError, ExperimentEvaluation, Exposed, NotExposed, Reason,
};
use crate::hash::{Salts, Seed, Seeds};
use crate::placement::Placement;
use crate::targeting::CompiledCondition;
use crate::trace::{BucketOf, Step, Trace};

/// The longest chain of flags that wait for each other, and the most evaluations that the prerequisites of one flag may take
/// in all. A flag beyond either serves its default, whoever asks for it: the log's rule bounds neither.
const PREREQUISITE_DEPTH_MAX: u32 = 64;
const PREREQUISITE_EVALUATIONS_MAX: u32 = 1_000;

/// The definitions of one environment, ready to be evaluated.
#[derive(Debug)]
pub struct Snapshot {
    environment: String,
    configuration_version: Version,
    entries: Box<[Entry]>,
    by_key: HashTable<u32>,
    instants: Box<[Micros]>,
}

#[derive(Debug)]
struct Entry {
    accepted: Arc<Accepted>,
    compiled: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Flag(CompiledFlag),
    Experiment(CompiledExperiment),
}

#[derive(Debug)]
struct CompiledFlag {
    enabled: bool,
    /// Its prerequisites take more evaluations than are allowed.
    waits_for_too_many: bool,
    /// The index of the variant that is served when no rule serves another.
    default: usize,
    prerequisites: Box<[CompiledPrerequisite]>,
    rules: Box<[CompiledRule]>,
}

#[derive(Debug)]
struct CompiledPrerequisite {
    entry: u32,
    variants: Box<[Key]>,
}

#[derive(Debug)]
struct CompiledRule {
    key: Key,
    when: Option<CompiledCondition>,
    serve: Serve,
}

#[derive(Debug)]
enum Serve {
    /// One variant to everybody.
    Variant(usize),
    Split {
        rollout_seed: Seed,
        /// Buckets below it are inside.
        rollout: u32,
        variant_seed: Seed,
        ranges: Box<[(BucketRange, usize)]>,
    },
}

#[derive(Debug)]
struct CompiledExperiment {
    control: usize,
    /// By variant: its value, or its key where it has none.
    values: Box<[Json]>,
    seeds: Seeds,
    placement: Placement,
    /// The rules with their keys; everybody may take part where there is none.
    targeting: Box<[(Key, CompiledCondition)]>,
}

impl Snapshot {
    /// Compiles what holds now for one environment.
    pub fn compile(definitions: &Definitions, environment: Environment<'_>) -> Snapshot {
        let evaluated: Vec<&Arc<Accepted>> = definitions
            .iter()
            .filter(|accepted| matches!(accepted.definition, Definition::Flag(_) | Definition::Experiment(_)))
            .collect();
        let mut by_key = HashTable::with_capacity(evaluated.len());
        for (index, accepted) in evaluated.iter().enumerate() {
            let hash_of = |index: &u32| hash_key(evaluated[*index as usize].definition.key().as_str());
            let hash = hash_key(accepted.definition.key().as_str());
            by_key.insert_unique(
                hash,
                u32::try_from(index).expect("a log has fewer than 2^32 records"),
                hash_of,
            );
        }
        let entry_of = |key: &Key| {
            let found = by_key
                .find(hash_key(key.as_str()), |index| evaluated[*index as usize].definition.key() == key);
            found.copied()
        };
        let mut instants = Vec::new();
        let entries = evaluated.iter().map(|accepted| {
            let compiled = match &accepted.definition {
                Definition::Flag(flag) => Compiled::Flag(CompiledFlag::compile(flag, environment, entry_of)),
                Definition::Experiment(experiment) => {
                    let compiled = CompiledExperiment::compile(definitions, experiment, environment);
                    instants.extend(compiled.placement.instants());
                    Compiled::Experiment(compiled)
                }
                other => unreachable!("a {} is not evaluated", other.kind()),
            };
            Entry { accepted: (*accepted).clone(), compiled }
        });
        let mut entries: Box<[Entry]> = entries.collect();
        mark_flags_that_wait_for_too_many(&mut entries);
        instants.sort_unstable();
        instants.dedup();
        Snapshot {
            environment: environment.0.to_owned(),
            configuration_version: definitions.version(),
            entries,
            by_key,
            instants: instants.into(),
        }
    }

    /// The version of all definitions together.
    pub fn configuration_version(&self) -> Version {
        self.configuration_version
    }

    pub fn environment(&self) -> Environment<'_> {
        Environment(&self.environment)
    }

    /// The keys of all flags and experiments, in ascending order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.entries.iter().map(|entry| entry.accepted.definition.key())
    }

    /// The instants at which an answer may change by time alone, in ascending order.
    pub fn instants(&self) -> &[Micros] {
        &self.instants
    }

    /// How many of the instants are over at `now`: as long as this is the same, so is every answer.
    pub fn time_epoch(&self, now: Micros) -> usize {
        self.instants.partition_point(|instant| *instant <= now)
    }
}

/// Returns what the flag or experiment called `key` serves to the unit of `context` at `now`. This is the only way from a key to
/// a variant.
///
/// # Errors
/// If there is no such key, or the unit that its buckets need is missing or too long.
pub fn evaluate<'s>(
    snapshot: &'s Snapshot,
    key: &str,
    context: &Context<'_>,
    now: Micros,
) -> Result<Evaluation<'s>, EvaluationError> {
    evaluate_traced(snapshot, key, context, now, &mut ())
}

/// As [`evaluate`], and reports each step to `trace`.
pub fn evaluate_traced<'s>(
    snapshot: &'s Snapshot,
    key: &str,
    context: &Context<'_>,
    now: Micros,
    trace: &mut impl Trace<'s>,
) -> Result<Evaluation<'s>, EvaluationError> {
    let found = snapshot.by_key.find(hash_key(key), |index| {
        snapshot.entries[*index as usize].accepted.definition.key().as_str() == key
    });
    match found {
        Some(index) => snapshot.entry(*index, context, now, trace),
        None => Err(EvaluationError::NotFound(key.to_owned())),
    }
}

/// As [`evaluate`], for every key in ascending order.
pub fn evaluate_all<'s>(
    snapshot: &'s Snapshot,
    context: &Context<'_>,
    now: Micros,
) -> impl Iterator<Item = (&'s Key, Result<Evaluation<'s>, EvaluationError>)> {
    snapshot.keys().zip(0..).map(move |(key, index)| (key, snapshot.entry(index, context, now, &mut ())))
}

fn hash_key(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

impl Snapshot {
    fn entry<'s>(
        &'s self,
        index: u32,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Entry { accepted, compiled } = &self.entries[index as usize];
        match (&accepted.definition, compiled) {
            (Definition::Flag(flag), Compiled::Flag(compiled)) => {
                self.flag(flag, compiled, context, now, trace)
            }
            (Definition::Experiment(experiment), Compiled::Experiment(compiled)) => {
                self.experiment(accepted.version, experiment, compiled, context, now, trace)
            }
            _ => unreachable!("an entry is compiled from its definition"),
        }
    }

    fn flag<'s>(
        &'s self,
        flag: &'s Flag,
        compiled: &'s CompiledFlag,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let serve = |variant: usize, reason: Reason, rule: Option<&'s Key>| {
            let variant = &flag.variants[variant];
            let (key, value) = (&variant.key, &variant.value);
            Ok(Evaluation { key: &flag.key, variant: key, value, reason, rule, experiment: None })
        };
        if flag.archived || !compiled.enabled {
            trace.step(|| Step::SwitchedOff { archived: flag.archived });
            return serve(compiled.default, Reason::Static, None);
        }
        if compiled.waits_for_too_many {
            trace.step(|| Step::TooManyPrerequisites);
            return serve(compiled.default, Reason::Default, None);
        }
        for prerequisite in &compiled.prerequisites {
            let Entry { accepted, .. } = &self.entries[prerequisite.entry as usize];
            let key = accepted.definition.key();
            let served = self.entry(prerequisite.entry, context, now, &mut ())?.variant;
            let met = prerequisite.variants.contains(served);
            trace.step(|| Step::Prerequisite { key, served, met });
            if !met {
                return serve(compiled.default, Reason::Default, None);
            }
        }
        for rule in &compiled.rules {
            let holds = rule.when.as_ref().is_none_or(|when| when.holds(context));
            trace.step(|| Step::Rule { key: &rule.key, holds });
            if !holds {
                continue;
            }
            match &rule.serve {
                Serve::Variant(variant) => return serve(*variant, Reason::TargetingMatch, Some(&rule.key)),
                Serve::Split { rollout_seed, rollout, variant_seed, ranges } => {
                    let unit_id = unit(context, &flag.unit_type)?;
                    let hash = rollout_seed.hash(unit_id);
                    let bucket = Bucket::of_hash(hash).get();
                    let inside = bucket < *rollout;
                    trace.step(|| Step::Bucket { of: BucketOf::Rollout, hash, bucket, inside });
                    if !inside {
                        continue;
                    }
                    let hash = variant_seed.hash(unit_id);
                    let bucket = Bucket::of_hash(hash);
                    let owner = ranges.iter().find(|(range, _)| range.contains(bucket));
                    trace.step(|| Step::Bucket {
                        of: BucketOf::Variant,
                        hash,
                        bucket: bucket.get(),
                        inside: owner.is_some(),
                    });
                    if let Some((_, variant)) = owner {
                        return serve(*variant, Reason::Split, Some(&rule.key));
                    }
                }
            }
        }
        let reason = if compiled.rules.is_empty() { Reason::Static } else { Reason::Default };
        serve(compiled.default, reason, None)
    }

    fn experiment<'s>(
        &'s self,
        version: Version,
        experiment: &'s Experiment,
        compiled: &'s CompiledExperiment,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let answer = |variant: usize, reason, rule, outcome| Evaluation {
            key: &experiment.key,
            variant: &experiment.variants[variant].key,
            value: &compiled.values[variant],
            reason,
            rule,
            experiment: Some(ExperimentEvaluation {
                experiment,
                definition_version: version,
                configuration_version: self.configuration_version,
                environment: &self.environment,
                rule,
                outcome,
            }),
        };
        let takes_no_part = |why| answer(compiled.control, Reason::Default, None, Err(why));
        if let Err(why) = compiled.is_open(experiment, now) {
            trace.step(|| Step::Closed(why));
            return Ok(takes_no_part(why));
        }
        let rule = compiled.targeting.iter().find(|(key, condition)| {
            let holds = condition.holds(context);
            trace.step(|| Step::Rule { key, holds });
            holds
        });
        if rule.is_none() && !compiled.targeting.is_empty() {
            return Ok(takes_no_part(NotExposed::NotTargeted));
        }
        let rule = rule.map(|(key, _)| key);
        let buckets = compiled.seeds.buckets(unit(context, &experiment.unit_type)?);
        Ok(match compiled.placement.owner(buckets) {
            Ok(index) => {
                let variant = &experiment.variants[index];
                answer(index, Reason::Split, rule, Ok(Exposed { variant, buckets }))
            }
            Err(why) => answer(compiled.control, Reason::Default, rule, Err(why)),
        })
    }
}

/// Marks the flags whose prerequisites are too deep or too many. Flags never wait for each other in a circle: the log's rule
/// refuses that.
fn mark_flags_that_wait_for_too_many(entries: &mut [Entry]) {
    /// The longest chain below an entry, and the evaluations that answering it takes.
    type Cost = (u32, u32);
    let waits_for = |entry: &Entry| -> Vec<usize> {
        match &entry.compiled {
            Compiled::Flag(flag) => flag.prerequisites.iter().map(|of| of.entry as usize).collect(),
            Compiled::Experiment(_) => Vec::new(),
        }
    };
    let mut costs: Vec<Option<Cost>> = vec![None; entries.len()];
    for index in 0..entries.len() {
        // A stack of its own, since a chain may be as long as the log.
        let mut stack = vec![index];
        while let Some(&top) = stack.last() {
            let below = waits_for(&entries[top]);
            let unknown = below.iter().find(|of| costs[**of].is_none());
            if let (Some(unknown), None) = (unknown, costs[top]) {
                assert!(
                    stack.len() <= entries.len(),
                    "the rule refuses flags that wait for each other in a circle"
                );
                stack.push(*unknown);
                continue;
            }
            stack.pop();
            let known = || below.iter().filter_map(|of| costs[*of]);
            let depth = known().map(|(depth, _)| depth + 1).max().unwrap_or(0);
            let evaluations = known().fold(0_u32, |sum, (_, evaluations)| sum.saturating_add(evaluations));
            let too_many = depth > PREREQUISITE_DEPTH_MAX || evaluations > PREREQUISITE_EVALUATIONS_MAX;
            if let Compiled::Flag(flag) = &mut entries[top].compiled {
                flag.waits_for_too_many = too_many;
            }
            // One that is not followed costs what any default costs; those that wait for it are too deep themselves.
            costs[top] = Some((depth, if too_many { 1 } else { evaluations.saturating_add(1) }));
        }
    }
}

/// Returns the id of the unit of this type.
fn unit<'a>(context: &Context<'a>, unit_type: &Key) -> Result<&'a str, EvaluationError> {
    match context.unit(unit_type.as_str()) {
        Some(id) if (1..=UNIT_ID_BYTES_MAX).contains(&id.len()) => Ok(id),
        Some(id) => Err(EvaluationError::UnitId { unit_type: unit_type.clone(), bytes: id.len() }),
        None => Err(EvaluationError::NoUnit {
            unit_type: unit_type.clone(),
            is_default: unit_type.as_str() == DEFAULT_UNIT_TYPE,
        }),
    }
}

impl CompiledFlag {
    fn compile(
        flag: &Flag,
        environment: Environment<'_>,
        entry_of: impl Fn(&Key) -> Option<u32>,
    ) -> CompiledFlag {
        let there = flag.in_environment(environment.0);
        let index_of = |key: &Key| flag.variants.iter().position(|variant| variant.key == *key);
        let prerequisites = flag.prerequisites.iter().filter_map(|prerequisite| {
            // The log's rule refuses a flag that waits for one that is not there.
            Some(CompiledPrerequisite {
                entry: entry_of(&prerequisite.flag)?,
                variants: prerequisite.variants.as_slice().into(),
            })
        });
        CompiledFlag {
            enabled: there.enabled,
            waits_for_too_many: false,
            default: index_of(&flag.default_variant).expect("the rule checks that the default is a variant"),
            prerequisites: prerequisites.collect(),
            rules: there.rules.iter().map(|rule| CompiledRule::compile(flag, rule, index_of)).collect(),
        }
    }
}

impl CompiledRule {
    fn compile(flag: &Flag, rule: &FlagRule, index_of: impl Fn(&Key) -> Option<usize>) -> CompiledRule {
        let ranges: Box<[(BucketRange, usize)]> = rule
            .split
            .iter()
            .flat_map(|share| share.ranges.iter().map(|range| (*range, &share.variant)))
            .map(|(range, key)| (range, index_of(key).expect("the rule checks that a share names a variant")))
            .collect();
        let serve = match &*ranges {
            [(range, variant)] if *range == BucketRange::ALL && rule.rollout.buckets() == BUCKETS => {
                Serve::Variant(*variant)
            }
            _ => Serve::Split {
                rollout_seed: Seed::of(&format!("{}/{}/rollout", flag.salt(), rule.key)),
                rollout: rule.rollout.buckets(),
                variant_seed: Seed::of(&format!("{}/{}/variant", flag.salt(), rule.key)),
                ranges,
            },
        };
        CompiledRule {
            key: rule.key.clone(),
            when: rule.when.as_ref().map(CompiledCondition::compile),
            serve,
        }
    }
}

impl CompiledExperiment {
    fn compile(
        definitions: &Definitions,
        experiment: &Experiment,
        environment: Environment<'_>,
    ) -> CompiledExperiment {
        let value =
            |variant: &Variant| variant.value.clone().unwrap_or_else(|| Json::from(variant.key.as_str()));
        let control = experiment.variants.iter().position(|variant| variant.key == experiment.control);
        let targeting = experiment.in_environment(environment.0).targeting;
        CompiledExperiment {
            control: control.expect("the rule checks that the control is a variant"),
            values: experiment.variants.iter().map(value).collect(),
            seeds: Salts::of(definitions, experiment).seeds(),
            placement: Placement::of(experiment, environment),
            targeting: targeting
                .iter()
                .map(|rule| (rule.key.clone(), CompiledCondition::compile(&rule.when)))
                .collect(),
        }
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
