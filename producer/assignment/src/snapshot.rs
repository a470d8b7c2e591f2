//! All flags and experiments of one environment, compiled once, and evaluated for one unit at a time without an
//! allocation. It knows no clock and no log: the definitions and the time are given.

use std::sync::Arc;

use schemas::definition::{Accepted, Definition, Definitions, Experiment, State, Version};
use schemas::event::UNIT_ID_BYTES_MAX;
use schemas::{Key, Micros};
use xxhash_rust::xxh3::xxh3_64;

use crate::context::{Context, DEFAULT_UNIT_TYPE};
use crate::evaluation::{Environment, Evaluation, EvaluationError, HoldoutEvaluation, HoldoutSide, Versions};
use crate::experiment::CompiledExperiment;
use crate::flag::CompiledFlag;
use crate::holdout::HeldSlots;
use crate::key_table::KeyTable;
use crate::lists::{ListSource, Lists};
use crate::prerequisites::mark_flags_that_wait_for_too_many;
use crate::rollout::Switches;
use crate::trace::{Step, Trace};

/// The definitions of one environment, ready to be evaluated.
#[derive(Debug)]
pub struct Snapshot {
    environment: Arc<str>,
    configuration_version: Version,
    entries: Box<[Entry]>,
    by_key: KeyTable,
    /// The holdouts that run.
    holdouts: Box<[(HoldoutEvaluation, HeldSlots)]>,
    /// The instants of schedules and ramps, in ascending order.
    instants: Box<[Micros]>,
    /// The switchbacks that run, each with its endless instants.
    switches: Box<[Switches]>,
    lacking_lists: Box<[Key]>,
    lists_tag: u64,
}

#[derive(Debug)]
pub(crate) struct Entry {
    accepted: Arc<Accepted>,
    client_safe: bool,
    pub(crate) compiled: Compiled,
}

#[derive(Debug)]
pub(crate) enum Compiled {
    Flag(CompiledFlag),
    /// Boxed, since it is four times as large as a flag, and most entries are flags.
    Experiment(Box<CompiledExperiment>),
}

impl Snapshot {
    /// Compiles what holds now for one environment. Of a list whose members are not among `lists`, the last version that
    /// is counts ([`Snapshot::lacking_lists`]).
    pub fn compile(definitions: &Definitions, lists: &Lists, environment: Environment<'_>) -> Snapshot {
        let source = ListSource { definitions, lists };
        let evaluated: Vec<&Arc<Accepted>> = definitions
            .iter()
            .filter(|accepted| matches!(accepted.definition, Definition::Flag(_) | Definition::Experiment(_)))
            .collect();
        let by_key = KeyTable::of(evaluated.iter().map(|accepted| accepted.definition.key().as_str()));
        let entry_of = |key: &Key| by_key.find(key.as_str());
        let holdouts = running_holdouts(definitions, environment);
        let holdout_of = |key: &Key| {
            let found = holdouts.iter().position(|(holdout, _)| holdout.accepted.definition.key() == key);
            found.map(|index| u32::try_from(index).expect("a log has fewer than 2^32 records"))
        };
        let environment_name: Arc<str> = environment.0.into();
        let mut instants = Vec::new();
        let mut switches = Vec::new();
        let entries = evaluated.iter().map(|accepted| {
            let (client_safe, compiled) = match &accepted.definition {
                Definition::Flag(flag) => {
                    let compiled = CompiledFlag::compile(&source, flag, environment, entry_of);
                    instants.extend(compiled.instants());
                    (flag.client_safe, Compiled::Flag(compiled))
                }
                Definition::Experiment(experiment) => {
                    let versions = Versions {
                        definition_version: accepted.version,
                        configuration_version: definitions.version(),
                        environment: environment_name.clone(),
                    };
                    let compiled = CompiledExperiment::compile(&source, experiment, versions, holdout_of);
                    instants.extend(compiled.instants());
                    let new = CompiledExperiment::switches(experiment, environment);
                    switches.extend(new.filter(|new| !switches.contains(new)));
                    (experiment.client_safe, Compiled::Experiment(Box::new(compiled)))
                }
                other => unreachable!("a {} is not evaluated", other.kind()),
            };
            Entry { accepted: (*accepted).clone(), client_safe, compiled }
        });
        let mut entries: Box<[Entry]> = entries.collect();
        mark_flags_that_wait_for_too_many(&mut entries);
        instants.sort_unstable();
        instants.dedup();
        let lacking = source.lacking();
        Snapshot {
            lists_tag: lists_tag(&lacking),
            lacking_lists: lacking.into_iter().map(|(key, _)| key).collect(),
            environment: environment_name,
            configuration_version: definitions.version(),
            entries,
            by_key,
            holdouts: holdouts.into(),
            instants: instants.into(),
            switches: switches.into(),
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

    /// The lists whose current members were not known when this was compiled: what holds of them is an earlier version
    /// or, if no version is known, that they have no members.
    pub fn lacking_lists(&self) -> &[Key] {
        &self.lacking_lists
    }

    /// 0 if no list lacks its current members; otherwise it differs whenever other members are in force. Together with the
    /// configuration version it names what is evaluated.
    pub fn lists_tag(&self) -> u64 {
        self.lists_tag
    }

    /// The last instant, at `now` or before, at which an answer may have changed by time alone: as long as this is the
    /// same, so is every answer. It never goes back as `now` goes on.
    pub fn last_instant(&self, now: Micros) -> Option<Micros> {
        let last = self.instants[..self.instants_over(now)].last().copied();
        self.switches.iter().filter_map(|switches| switches.last(now)).chain(last).max()
    }

    /// The first instant after `now` at which an answer may change by time alone.
    pub fn next_instant(&self, now: Micros) -> Option<Micros> {
        let next = self.instants.get(self.instants_over(now)).copied();
        self.switches.iter().filter_map(|switches| switches.next(now)).chain(next).min()
    }

    fn instants_over(&self, now: Micros) -> usize {
        self.instants.partition_point(|instant| *instant <= now)
    }
}

/// Returns what the flag or experiment called `key` serves to the unit of `context` at `now`. This is the only way from a key to
/// a variant.
///
/// # Errors
/// If there is no such key, or the unit that its buckets need is missing, too long, or no cluster that a switchback can have.
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
    match snapshot.by_key.find(key) {
        Some(index) => snapshot.entry(index, context, now, trace),
        None => Err(not_found(key)),
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

/// As [`evaluate_all`], of the keys that a client key may see.
pub fn evaluate_client_safe<'s>(
    snapshot: &'s Snapshot,
    context: &Context<'_>,
    now: Micros,
) -> impl Iterator<Item = (&'s Key, Result<Evaluation<'s>, EvaluationError>)> {
    let safe = snapshot.entries.iter().zip(0..).filter(|(entry, _)| entry.client_safe);
    safe.map(move |(entry, index)| {
        (entry.accepted.definition.key(), snapshot.entry(index, context, now, &mut ()))
    })
}

/// The holdouts that run in the environment.
fn running_holdouts(
    definitions: &Definitions,
    environment: Environment<'_>,
) -> Vec<(HoldoutEvaluation, HeldSlots)> {
    let running = definitions.iter().filter_map(|accepted| match &accepted.definition {
        Definition::Experiment(holdout) if holdout.holdout && holdout.state == State::Running => {
            Some((accepted, holdout))
        }
        _ => None,
    });
    let there = running.filter(|(_, holdout)| holdout.in_environment(environment.0).enabled);
    let compile = |(accepted, holdout): (&Arc<Accepted>, &Experiment)| {
        let held = holdout.variants.iter().position(|variant| variant.key == holdout.control);
        // A holdout has two variants.
        let held = u32::from(held.expect("the rule checks that the control is a variant") == 1);
        let evaluation = HoldoutEvaluation {
            accepted: accepted.clone(),
            versions: Versions {
                definition_version: accepted.version,
                configuration_version: definitions.version(),
                environment: environment.0.into(),
            },
            held,
            others: 1 - held,
        };
        (evaluation, HeldSlots::of(definitions, holdout))
    };
    there.map(compile).collect()
}

fn lists_tag(lacking: &[(Key, Option<String>)]) -> u64 {
    if lacking.is_empty() {
        return 0;
    }
    let texts =
        lacking.iter().map(|(key, digest)| format!("{key}/{}\n", digest.as_deref().unwrap_or_default()));
    xxh3_64(texts.collect::<String>().as_bytes()).max(1)
}

impl Snapshot {
    #[inline]
    pub(crate) fn entry<'s>(
        &'s self,
        index: u32,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let Entry { accepted, compiled, .. } = &self.entries[index as usize];
        match compiled {
            Compiled::Experiment(compiled) => {
                let Definition::Experiment(experiment) = &accepted.definition else { mixed_up(accepted) };
                compiled.evaluate(self, experiment, context, now, trace)
            }
            Compiled::Flag(compiled) => {
                let Definition::Flag(flag) = &accepted.definition else { mixed_up(accepted) };
                compiled.evaluate(self, flag, accepted.version, context, now, trace)
            }
        }
    }

    /// Returns the unit's side of the holdout with this index.
    pub(crate) fn holdout_side<'s>(
        &'s self,
        index: u32,
        unit_id: &str,
        trace: &mut impl Trace<'s>,
    ) -> HoldoutSide<'s> {
        let (evaluation, slots) = &self.holdouts[index as usize];
        let (slot, held_out) = slots.side(unit_id);
        let key = evaluation.accepted.definition.key();
        trace.step(|| Step::Holdout { key, slot: slot.get(), held_out });
        HoldoutSide { evaluation, slot, variant: if held_out { evaluation.held } else { evaluation.others } }
    }
}

/// Returns the id of the unit of this type.
#[inline]
pub(crate) fn unit<'a>(context: &Context<'a>, unit_type: &Key) -> Result<&'a str, EvaluationError> {
    match context.unit(unit_type.as_str()) {
        Some(id) if (1..=UNIT_ID_BYTES_MAX).contains(&id.len()) => Ok(id),
        other => Err(no_unit(other, unit_type)),
    }
}

#[cold]
fn no_unit(id: Option<&str>, unit_type: &Key) -> EvaluationError {
    match id {
        Some(id) => EvaluationError::UnitId { unit_type: unit_type.clone(), bytes: id.len() },
        None => EvaluationError::NoUnit {
            unit_type: unit_type.clone(),
            is_default: unit_type.as_str() == DEFAULT_UNIT_TYPE,
        },
    }
}

#[cold]
fn mixed_up(accepted: &Accepted) -> ! {
    unreachable!("an entry is compiled from its definition, not from {}", accepted.definition.key())
}

#[cold]
fn not_found(key: &str) -> EvaluationError {
    EvaluationError::NotFound(key.to_owned())
}
