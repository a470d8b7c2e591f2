//! The versions of each list, and which experiments a change of members concerns: the units that a list names take part,
//! or see a variant, otherwise than before. It knows the digests of members, never the members.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Accepted, Definitions, Version};
use crate::definition::{Definition, Experiment, Key, List, ListsSince, State};

/// Every accepted version of every list, in the order of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct ListVersions(BTreeMap<Key, Vec<Arc<Accepted>>>);

impl ListVersions {
    pub(super) fn note(&mut self, accepted: &Arc<Accepted>) {
        if let Definition::List(list) = &accepted.definition {
            self.0.entry(list.key.clone()).or_default().push(accepted.clone());
        }
    }

    fn of(&self, key: &Key) -> impl DoubleEndedIterator<Item = (Version, &List)> {
        self.0.get(key).into_iter().flatten().filter_map(|accepted| match &accepted.definition {
            Definition::List(list) => Some((accepted.version, list)),
            _ => None,
        })
    }

    /// Returns whether the list has other members than it had at this version of all definitions.
    fn differ_since(&self, key: &Key, version: Version) -> bool {
        let mut versions = self.of(key).rev();
        let Some((current, list)) = versions.next() else { return false };
        let then = versions.find(|(earlier, _)| *earlier <= version);
        current > version && then.is_none_or(|(_, then)| then.members_sha256 != list.members_sha256)
    }
}

impl Definitions {
    /// Every version of the list, the current one first.
    pub fn list_versions(&self, key: &Key) -> impl Iterator<Item = &List> {
        self.lists.of(key).rev().map(|(_, list)| list)
    }

    /// Returns whether the lists that the experiment names for units that count have got other members since its current
    /// version. Then its next change while it runs opens a phase.
    pub fn lists_since(&self, experiment: &Key) -> ListsSince {
        let Some((version, experiment)) = self.experiment(experiment.as_str()) else {
            return ListsSince::Unchanged;
        };
        let mut lists = lists_of(experiment).into_iter();
        match lists.any(|list| self.lists.differ_since(list, version)) {
            true => ListsSince::Changed,
            false => ListsSince::Unchanged,
        }
    }

    /// The experiments that run and name this list for units that count, if it has got other members since their current
    /// version.
    pub fn concerned_by_members(&self, list: &Key) -> Vec<&Experiment> {
        let experiments = self.current.values().filter_map(|accepted| match &accepted.definition {
            Definition::Experiment(experiment) => Some((accepted.version, experiment)),
            _ => None,
        });
        experiments
            .filter(|(version, experiment)| {
                experiment.state == State::Running
                    && lists_of(experiment).contains(&list)
                    && self.lists.differ_since(list, *version)
            })
            .map(|(_, experiment)| experiment)
            .collect()
    }
}

/// The lists that decide what units see whose events count.
fn lists_of(experiment: &Experiment) -> Vec<&Key> {
    let mut lists: Vec<&Key> = experiment.allow.iter().map(|allowed| &allowed.list).collect();
    lists.extend(&experiment.deny);
    for environment in &experiment.counted_environments {
        let targeting = experiment.in_environment(environment.as_str()).targeting;
        lists.extend(targeting.iter().flat_map(|rule| rule.when.lists()));
    }
    lists
}
