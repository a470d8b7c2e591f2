//! A flag, compiled, and what it serves to a unit.

use schemas::definition::{Flag, FlagRule, Version};
use schemas::{Bucket, BucketRange, Key, Micros};

use crate::Environment;
use crate::context::Context;
use crate::evaluation::{Evaluation, EvaluationError, Reason};
use crate::hash::Seed;
use crate::lists::ListSource;
use crate::owners::Owners;
use crate::rollout::{Rollout, Window};
use crate::snapshot::{Snapshot, unit};
use crate::targeting::CompiledCondition;
use crate::trace::{BucketOf, Step, Trace};
use crate::units::UnitLists;

#[derive(Debug)]
pub(crate) struct CompiledFlag {
    enabled: bool,
    /// Its prerequisites take more evaluations than are allowed.
    pub(crate) waits_for_too_many: bool,
    /// The index of the variant that is served when no rule serves another.
    default: usize,
    lists: UnitLists,
    pub(crate) prerequisites: Box<[CompiledPrerequisite]>,
    rules: Box<[CompiledRule]>,
}

#[derive(Debug)]
pub(crate) struct CompiledPrerequisite {
    /// The index of the other flag or experiment in the snapshot.
    pub(crate) entry: u32,
    variants: Box<[Key]>,
}

#[derive(Debug)]
struct CompiledRule {
    key: Key,
    window: Window,
    when: Option<CompiledCondition>,
    serve: Serve,
}

#[derive(Debug)]
enum Serve {
    /// One variant to everybody.
    Variant(usize),
    Split {
        rollout_seed: Seed,
        rollout: Rollout,
        variant_seed: Seed,
        owners: Owners,
    },
}

impl CompiledFlag {
    pub(crate) fn compile(
        source: &ListSource<'_>,
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
        let rules = there.rules.iter();
        CompiledFlag {
            enabled: there.enabled,
            waits_for_too_many: false,
            default: index_of(&flag.default_variant).expect("the rule checks that the default is a variant"),
            lists: UnitLists::compile(source, &flag.allow, &flag.deny, index_of),
            prerequisites: prerequisites.collect(),
            rules: rules.map(|rule| CompiledRule::compile(source, flag, rule, index_of)).collect(),
        }
    }

    /// The instants at which an answer changes by time alone.
    pub(crate) fn instants(&self) -> impl Iterator<Item = Micros> {
        self.rules.iter().flat_map(|rule| {
            let ramp = match &rule.serve {
                Serve::Variant(_) => None,
                Serve::Split { rollout, .. } => Some(rollout.instants()),
            };
            rule.window.instants().chain(ramp.into_iter().flatten())
        })
    }

    pub(crate) fn evaluate<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        flag: &'s Flag,
        version: Version,
        context: &Context<'_>,
        now: Micros,
        trace: &mut impl Trace<'s>,
    ) -> Result<Evaluation<'s>, EvaluationError> {
        let serve = |variant: usize, reason: Reason, rule: Option<&'s Key>| {
            let variant = &flag.variants[variant];
            Ok(Evaluation {
                key: &flag.key,
                definition_version: version,
                variant: &variant.key,
                value: &variant.value,
                reason,
                rule,
                experiment: None,
                holdouts: [None, None],
            })
        };
        if flag.archived || !self.enabled {
            trace.step(|| Step::SwitchedOff { archived: flag.archived });
            return serve(self.default, Reason::Static, None);
        }
        if let Some(unit_id) = self.lists.asked_of(context, &flag.unit_type) {
            if self.lists.deny(unit_id, trace) {
                return serve(self.default, Reason::Default, None);
            }
            let key_of = |variant: usize| &flag.variants[variant].key;
            if let Some(variant) = self.lists.allow(unit_id, key_of, trace) {
                return serve(variant, Reason::TargetingMatch, None);
            }
        }
        if self.waits_for_too_many {
            trace.step(|| Step::TooManyPrerequisites);
            return serve(self.default, Reason::Default, None);
        }
        for prerequisite in &self.prerequisites {
            let served = snapshot.entry(prerequisite.entry, context, now, &mut ())?;
            let (key, served) = (served.key, served.variant);
            let met = prerequisite.variants.contains(served);
            trace.step(|| Step::Prerequisite { key, served, met });
            if !met {
                return serve(self.default, Reason::Default, None);
            }
        }
        for rule in &self.rules {
            let holds = rule.window.has(now) && rule.when.as_ref().is_none_or(|when| when.holds(context));
            trace.step(|| Step::Rule { key: &rule.key, holds });
            if !holds {
                continue;
            }
            match &rule.serve {
                Serve::Variant(variant) => return serve(*variant, Reason::TargetingMatch, Some(&rule.key)),
                Serve::Split { rollout_seed, rollout, variant_seed, owners } => {
                    let unit_id = unit(context, &flag.unit_type)?;
                    let hash = rollout_seed.hash(unit_id);
                    let bucket = Bucket::of_hash(hash).get();
                    let inside = bucket < rollout.at(now);
                    trace.step(|| Step::Bucket { of: BucketOf::Rollout, hash, bucket, inside });
                    if !inside {
                        continue;
                    }
                    let hash = variant_seed.hash(unit_id);
                    let bucket = Bucket::of_hash(hash).get();
                    let owner = owners.owner(bucket);
                    let inside = owner.is_some();
                    trace.step(|| Step::Bucket { of: BucketOf::Variant, hash, bucket, inside });
                    if let Some(variant) = owner {
                        return serve(variant, Reason::Split, Some(&rule.key));
                    }
                }
            }
        }
        let reason = if self.rules.is_empty() { Reason::Static } else { Reason::Default };
        serve(self.default, reason, None)
    }
}

impl CompiledRule {
    fn compile(
        source: &ListSource<'_>,
        flag: &Flag,
        rule: &FlagRule,
        index_of: impl Fn(&Key) -> Option<usize>,
    ) -> CompiledRule {
        let ranges: Vec<(BucketRange, usize)> = rule
            .split
            .iter()
            .flat_map(|share| share.ranges.iter().map(|range| (*range, &share.variant)))
            .map(|(range, key)| (range, index_of(key).expect("the rule checks that a share names a variant")))
            .collect();
        let rollout = Rollout::of(rule.rollout, &rule.ramp);
        let serve = match ranges[..] {
            [(BucketRange::ALL, variant)] if rollout.is_everybody() => Serve::Variant(variant),
            _ => Serve::Split {
                rollout_seed: Seed::of(&format!("{}/{}/rollout", flag.salt(), rule.key)),
                rollout,
                variant_seed: Seed::of(&format!("{}/{}/variant", flag.salt(), rule.key)),
                owners: Owners::of(ranges.into_iter()),
            },
        };
        CompiledRule {
            key: rule.key.clone(),
            window: Window::of(rule.schedule.as_ref()),
            when: rule
                .when
                .as_ref()
                .map(|when| CompiledCondition::compile(source, flag.unit_type.as_str(), when)),
            serve,
        }
    }
}
