//! The versions of each list, and which experiments a change of members concerns: the units that a list names take part,
//! or see a variant, otherwise than when the phase began. It knows the digests of members, never the members.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Accepted, Definitions, Version};
use crate::definition::{Definition, Experiment, Key, List, ListsSince, State};

/// Every accepted version of every list, in the order of the log, and since when each experiment compares itself with them.
#[derive(Clone, Debug, Default)]
pub(super) struct ListVersions {
    lists: BTreeMap<Key, Vec<Arc<Accepted>>>,
    /// The version with which the current phase of each experiment began. Other versions of the experiment may follow
    /// without an end to the phase, and what the lists owe it stays owed.
    phases: BTreeMap<Key, Version>,
}

impl ListVersions {
    /// Notes an accepted change.
    pub(super) fn note(&mut self, previous: Option<&Accepted>, accepted: &Arc<Accepted>) {
        match &accepted.definition {
            Definition::List(list) => {
                self.lists.entry(list.key.clone()).or_default().push(accepted.clone());
            }
            Definition::Experiment(new) if new.has_looks() => {
                let goes_on = match previous.map(|previous| &previous.definition) {
                    Some(Definition::Experiment(old)) => old.has_looks() && old.phase() == new.phase(),
                    _ => false,
                };
                if !goes_on {
                    self.phases.insert(new.key.clone(), accepted.version);
                }
            }
            _ => {}
        }
    }

    fn of(&self, key: &Key) -> impl DoubleEndedIterator<Item = (Version, &List)> {
        self.lists.get(key).into_iter().flatten().filter_map(|accepted| match &accepted.definition {
            Definition::List(list) => Some((accepted.version, list)),
            _ => None,
        })
    }

    /// Returns whether a list that decides what units see whose events count has other members than it had when the phase of
    /// the experiment began.
    fn any_differs_for(&self, experiment: &Experiment) -> bool {
        experiment.lists_that_count().into_iter().any(|list| self.differs_for(list, experiment))
    }

    /// The same for one list.
    fn differs_for(&self, list: &Key, experiment: &Experiment) -> bool {
        let began = self.phases.get(&experiment.key);
        began.is_some_and(|began| self.differs_since(list, *began))
    }

    /// Returns whether the list has other members than it had at this version of all definitions.
    fn differs_since(&self, key: &Key, version: Version) -> bool {
        let mut versions = self.of(key).rev();
        let Some((current, list)) = versions.next() else { return false };
        let then = versions.find(|(earlier, _)| *earlier <= version);
        current > version && then.is_none_or(|(_, then)| then.members_sha256 != list.members_sha256)
    }
}

impl Definitions {
    /// The lists, by key.
    pub fn lists(&self) -> impl Iterator<Item = &List> {
        self.iter().filter_map(|accepted| match &accepted.definition {
            Definition::List(list) => Some(list),
            _ => None,
        })
    }

    /// Every version of the list, the current one first.
    pub fn list_versions(&self, key: &Key) -> impl Iterator<Item = &List> {
        self.lists.of(key).rev().map(|(_, list)| list)
    }

    /// Returns whether the lists that the experiment names for units that count have got other members since its phase
    /// began. Then its next change while it runs opens a phase.
    pub fn lists_since(&self, experiment: &Key) -> ListsSince {
        match self.experiment(experiment.as_str()) {
            Some((_, experiment)) if self.lists.any_differs_for(experiment) => ListsSince::Changed,
            _ => ListsSince::Unchanged,
        }
    }

    /// The experiments that run and name this list for units that count, if it has got other members since their phase
    /// began.
    pub fn concerned_by_members(&self, list: &Key) -> Vec<&Experiment> {
        let running = self.experiments().filter(|experiment| experiment.state == State::Running);
        running
            .filter(|experiment| {
                experiment.lists_that_count().contains(&list) && self.lists.differs_for(list, experiment)
            })
            .collect()
    }
}
