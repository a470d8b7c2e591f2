//! The log of definitions and its fold. A record is a proposal; whether it is accepted depends only on the
//! records before it and on a pure rule, so all readers of the log derive the same definitions without
//! coordination.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::check::{Problem, TEXT_BYTES_MAX, check, is_text};
use super::rule::{self, RULE_VERSION, Rule};
use super::step::check_step;
use super::{Definition, Experiment, Flag, Key, Kind, Layer, List, Metric, SETTINGS_KEY, Settings, Unfit};
use crate::time::Micros;
use lists::ListVersions;
use slots::Slots;

mod lists;
mod slots;
mod surroundings;

pub use slots::HoldoutSpan;

/// Identifies one accepted change forever: its offset in the log plus one. 0 is "none yet".
pub type Version = u64;

/// A proposed change, as written in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub change_id: Uuid,
    pub rule_version: u32,
    pub kind: String,
    pub key: String,
    /// The current version of the key, as the writer knew it.
    pub based_on: Version,
    /// JSON.
    pub definition: String,
    pub author: String,
    pub reason: String,
}

/// Why a change was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another writer was first. Read the log again and decide again.
    #[error("`{key}` has moved on: the change is based on version {based_on}, the current one is {current}")]
    Stale { key: String, based_on: Version, current: Version },
    #[error("the record cannot be understood: {0}")]
    Unreadable(String),
    #[error("{}", list(.0))]
    NotAllowed(Vec<Problem>),
}

/// The log has a change by a rule that this build does not know. The build must stop, since its definitions
/// would be incomplete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change at offset {offset} of the definitions log follows rule {rule_version}, this build knows rules up to \
     {RULE_VERSION}: install a newer build"
)]
pub struct UnknownRule {
    pub offset: u64,
    pub rule_version: u32,
}

/// An accepted definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub version: Version,
    pub definition: Definition,
}

/// All definitions, after the log was applied up to an offset: the current version of each, and every version
/// that was ever accepted.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    current: BTreeMap<(Space, Key), Arc<Accepted>>,
    history: BTreeMap<Version, Arc<Accepted>>,
    slots: Slots,
    lists: ListVersions,
    next_offset: u64,
    time: Micros,
}

/// The namespaces of keys. Flags and experiments share one, because an evaluation may name either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Flags,
    Layers,
    Metrics,
    Lists,
    Settings,
}

impl Definitions {
    /// Applies the log's record at `offset`, which the broker appended at `at`; its clock is the only one of the
    /// log. Offsets must grow: panics if a record at or after `offset` was applied.
    pub fn apply(
        &mut self,
        offset: u64,
        at: Micros,
        change: &Change,
    ) -> Result<Result<Arc<Accepted>, Refusal>, UnknownRule> {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        let Some(rule) = Rule::of(change.rule_version) else {
            return Err(UnknownRule { offset, rule_version: change.rule_version });
        };
        let verdict = self.judge_by(rule, at, change);
        self.next_offset = offset + 1;
        self.time = at;
        Ok(verdict.map(|definition| {
            let accepted = Arc::new(Accepted { version: offset + 1, definition });
            let place = (space(accepted.definition.kind()), accepted.definition.key().clone());
            let previous = self.current.insert(place, accepted.clone());
            self.slots.note(at, previous.as_deref(), &accepted);
            self.lists.note(previous.as_deref(), &accepted);
            self.history.insert(accepted.version, accepted.clone());
            accepted
        }))
    }

    /// Skips the record at `offset`, which is not a change (undecodable bytes).
    pub fn skip(&mut self, offset: u64) {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        self.next_offset = offset + 1;
    }

    /// Returns the verdict on `change`, as if it were the next record, appended at `at`.
    pub fn judge(&self, at: Micros, change: &Change) -> Result<Result<Definition, Refusal>, UnknownRule> {
        match Rule::of(change.rule_version) {
            Some(rule) => Ok(self.judge_by(rule, at, change)),
            None => Err(UnknownRule { offset: self.next_offset, rule_version: change.rule_version }),
        }
    }

    /// Returns the lowest rule that can express the change to `new` from its current version. The record must
    /// name it.
    pub fn rule_for(&self, new: &Definition) -> Rule {
        let previous = self.current_of(new).map(|accepted| &accepted.definition);
        let least = match (previous, new) {
            // Every reader that has read the settings knows rule 2, and rule 1 does not check how long events are
            // kept.
            (_, Definition::Experiment(_)) if self.settings().is_some() => Rule::Two,
            // Rule 1 allows a variant to get another value, so such a change must be judged by rule 2.
            (Some(Definition::Experiment(before)), Definition::Experiment(new))
                if before.has_looks() && !self.revalued(before, new).is_empty() =>
            {
                Rule::Two
            }
            _ => Rule::One,
        };
        rule::lowest(previous, new).max(least)
    }

    /// Returns the change that makes `definition` the current one, based on what is current now, by the lowest rule that can
    /// express it.
    pub fn change_to(&self, definition: &Definition, change_id: Uuid, author: &str, reason: &str) -> Change {
        Change {
            change_id,
            rule_version: self.rule_for(definition).version(),
            kind: definition.kind().to_string(),
            key: definition.key().to_string(),
            based_on: self.current_of(definition).map_or(0, |current| current.version),
            definition: definition.to_json(),
            author: author.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn judge_by(&self, rule: Rule, at: Micros, change: &Change) -> Result<Definition, Refusal> {
        let Some(kind) = Kind::parse(&change.kind).filter(|kind| rule.knows(*kind)) else {
            return Err(Refusal::Unreadable(format!("`{}` is not a kind of definition", change.kind)));
        };
        let value = serde_json::from_str(&change.definition)
            .map_err(|error| Refusal::Unreadable(format!("the definition is not JSON: {error}")))?;
        if let Some(unknown) = rule.unknown_to(kind, &value) {
            return Err(Refusal::Unreadable(unknown));
        }
        let definition = Definition::read(kind, value).map_err(|unfit| match unfit {
            Unfit::Unreadable(problem) => Refusal::Unreadable(problem.to_string()),
            Unfit::Misfit(problems) => Refusal::NotAllowed(problems),
        })?;
        if definition.key().as_str() != change.key {
            return Err(Refusal::Unreadable(format!(
                "the record is for `{}`, the definition inside for `{}`",
                change.key,
                definition.key()
            )));
        }
        let previous = self.current.get(&(space(kind), definition.key().clone()));
        let current = previous.map_or(0, |accepted| accepted.version);
        if change.based_on != current {
            return Err(Refusal::Stale { key: change.key.clone(), based_on: change.based_on, current });
        }
        let mut problems = check(&definition);
        let before = previous.map(|accepted| &accepted.definition);
        problems.extend(check_step(rule, before, self.lists_since(definition.key()), &definition));
        problems.extend(self.check_surroundings(rule, at, before, &definition));
        for (field, text) in [("author", &change.author), ("reason", &change.reason)] {
            if !is_text(text) {
                problems.push(Problem::new(field, format!("needs 1 to {TEXT_BYTES_MAX} bytes")));
            }
        }
        if problems.is_empty() { Ok(definition) } else { Err(Refusal::NotAllowed(problems)) }
    }

    pub fn experiment(&self, key: &str) -> Option<(Version, &Experiment)> {
        let key = Key::new(key).ok()?;
        let accepted = self.current.get(&(Space::Flags, key))?;
        match &accepted.definition {
            Definition::Experiment(experiment) => Some((accepted.version, experiment)),
            _ => None,
        }
    }

    pub fn flag(&self, key: &str) -> Option<(Version, &Flag)> {
        let key = Key::new(key).ok()?;
        let accepted = self.current.get(&(Space::Flags, key))?;
        match &accepted.definition {
            Definition::Flag(flag) => Some((accepted.version, flag)),
            _ => None,
        }
    }

    pub fn layer(&self, key: &Key) -> Option<&Layer> {
        match &self.current.get(&(Space::Layers, key.clone()))?.definition {
            Definition::Layer(layer) => Some(layer),
            _ => None,
        }
    }

    pub fn list(&self, key: &Key) -> Option<&List> {
        match &self.current.get(&(Space::Lists, key.clone()))?.definition {
            Definition::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn metric(&self, key: &Key) -> Option<&Metric> {
        match &self.current.get(&(Space::Metrics, key.clone()))?.definition {
            Definition::Metric(metric) => Some(metric),
            _ => None,
        }
    }

    /// The settings of the platform; `None` until they are defined.
    pub fn settings(&self) -> Option<&Settings> {
        let key = Key::new(SETTINGS_KEY).expect("the settings have a key");
        match &self.current.get(&(Space::Settings, key))?.definition {
            Definition::Settings(settings) => Some(settings),
            _ => None,
        }
    }

    /// The current definition with the key of `definition`, in the same space but perhaps of another kind.
    pub fn current_of(&self, definition: &Definition) -> Option<&Arc<Accepted>> {
        self.current.get(&(space(definition.kind()), definition.key().clone()))
    }

    /// The current definition with this key in the space of `kind`, perhaps of another kind.
    pub fn current(&self, kind: Kind, key: &Key) -> Option<&Arc<Accepted>> {
        self.current.get(&(space(kind), key.clone()))
    }

    /// The definition that was accepted as this version, current or not.
    pub fn at_version(&self, version: Version) -> Option<&Arc<Accepted>> {
        self.history.get(&version)
    }

    /// All versions of a key that were accepted, in order.
    pub fn versions_of(&self, kind: Kind, key: &Key) -> impl Iterator<Item = &Arc<Accepted>> {
        let space = space(kind);
        let of_key = move |of: &&Arc<Accepted>| {
            super::log::space(of.definition.kind()) == space && of.definition.key() == key
        };
        self.history.values().filter(of_key)
    }

    /// All current definitions, ordered by space and key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Accepted>> {
        self.current.values()
    }

    /// The first offset of the log that has not been applied yet.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// When the last record was appended; the epoch before the first.
    pub fn time(&self) -> Micros {
        self.time
    }

    /// The highest version accepted so far. It identifies the state of all definitions.
    pub fn version(&self) -> Version {
        self.history.keys().next_back().copied().unwrap_or(0)
    }

    fn experiments(&self) -> impl Iterator<Item = &Experiment> {
        self.current.values().filter_map(|accepted| match &accepted.definition {
            Definition::Experiment(experiment) => Some(experiment),
            _ => None,
        })
    }
}

impl Kind {
    /// Returns whether definitions of the two kinds cannot have the same key.
    pub fn shares_keys_with(self, other: Kind) -> bool {
        space(self) == space(other)
    }
}

fn space(kind: Kind) -> Space {
    match kind {
        Kind::Flag | Kind::Experiment => Space::Flags,
        Kind::Layer => Space::Layers,
        Kind::Metric => Space::Metrics,
        Kind::List => Space::Lists,
        Kind::Settings => Space::Settings,
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
