//! The log of looks and its fold. Each look at an experiment spends some of the error rate that its plan
//! allows; the log is the one account of it. A record is a proposal: it counts if it is based on the look
//! before it. So if two aggregators look at once, exactly one look counts, and all readers of the log derive
//! the same looks. The content of a look is the aggregator's text; this module only keeps the looks in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The rule that writers of this build follow. A reader that finds a later rule in the log must stop.
pub const RULE_VERSION: u32 = 1;

/// Identifies one accepted look forever: its offset in the log plus one. 0 is "none yet".
pub type Version = u64;

/// A proposed look, as written in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookRecord {
    pub look_id: Uuid,
    pub rule_version: u32,
    /// The experiment's key.
    pub experiment: String,
    /// The number of this look among the experiment's looks, from 1.
    pub number: u32,
    /// The version of the look before it, as the writer knew it.
    pub based_on: Version,
    /// JSON.
    pub look: String,
}

/// Why a look does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another writer was first. Read the log again and look again.
    #[error(
        "`{experiment}` has moved on: the look is based on version {based_on}, the last one is version {current}"
    )]
    Stale { experiment: String, based_on: Version, current: Version },
    #[error("`{experiment}` is at look {current}: {number} is not the next")]
    NotNext { experiment: String, number: u32, current: u32 },
}

/// The log has a look by a rule that this build does not know. A reader that knows only a part of the spent
/// error rate must not decide anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the look at offset {offset} of the log of looks follows rule {rule_version}, this build knows rules up to \
     {RULE_VERSION}: install a newer build"
)]
pub struct UnknownRule {
    pub offset: u64,
    pub rule_version: u32,
}

/// A look that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub version: Version,
    pub record: LookRecord,
}

/// The looks of all experiments, after the log was applied up to an offset.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    by_experiment: BTreeMap<String, Vec<Arc<Accepted>>>,
    next_offset: u64,
}

impl Looks {
    /// Applies the log's record at `offset`. Offsets must grow: panics if a record at or after `offset` was
    /// applied.
    pub fn apply(
        &mut self,
        offset: u64,
        record: LookRecord,
    ) -> Result<Result<Arc<Accepted>, Refusal>, UnknownRule> {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        let verdict = match record.rule_version {
            1 => self.judge(&record),
            rule_version => return Err(UnknownRule { offset, rule_version }),
        };
        self.next_offset = offset + 1;
        Ok(verdict.map(|()| {
            let accepted = Arc::new(Accepted { version: offset + 1, record });
            let looks = self.by_experiment.entry(accepted.record.experiment.clone()).or_default();
            looks.push(accepted.clone());
            accepted
        }))
    }

    /// Skips the record at `offset`, which is not a look (undecodable bytes).
    pub fn skip(&mut self, offset: u64) {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        self.next_offset = offset + 1;
    }

    /// Applies rule 1. The table's view has the same rule in SQL, so the rule depends on numbers alone.
    fn judge(&self, record: &LookRecord) -> Result<(), Refusal> {
        let last = self.of(&record.experiment).last();
        let experiment = || record.experiment.clone();
        let (based_on, number) = (record.based_on, record.number);
        let current = last.map_or(0, |last| last.version);
        if based_on != current {
            return Err(Refusal::Stale { experiment: experiment(), based_on, current });
        }
        let current = last.map_or(0, |last| last.record.number);
        if Some(number) != current.checked_add(1) {
            return Err(Refusal::NotNext { experiment: experiment(), number, current });
        }
        Ok(())
    }

    /// The looks of one experiment, in order.
    pub fn of(&self, experiment: &str) -> &[Arc<Accepted>] {
        self.by_experiment.get(experiment).map_or(&[], Vec::as_slice)
    }

    /// The last look of each experiment.
    pub fn latest(&self) -> impl Iterator<Item = &Arc<Accepted>> {
        self.by_experiment.values().filter_map(|looks| looks.last())
    }

    /// The first offset of the log that has not been applied yet.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(experiment: &str, number: u32, based_on: Version) -> LookRecord {
        LookRecord {
            look_id: Uuid::from_u128(u128::from(number)),
            rule_version: 1,
            experiment: experiment.into(),
            number,
            based_on,
            look: "{}".into(),
        }
    }

    #[test]
    fn a_look_counts_if_it_is_based_on_the_one_before() {
        let mut looks = Looks::default();
        assert_eq!(looks.apply(0, look("e", 1, 0)).unwrap().unwrap().version, 1);
        assert_eq!(looks.apply(3, look("other", 1, 0)).unwrap().unwrap().version, 4);
        // Two looks are based on the same version; the first in the log counts.
        assert_eq!(looks.apply(5, look("e", 2, 1)).unwrap().unwrap().version, 6);
        let late = looks.apply(6, look("e", 2, 1)).unwrap();
        assert_eq!(late, Err(Refusal::Stale { experiment: "e".into(), based_on: 1, current: 6 }));
        assert_eq!(
            late.unwrap_err().to_string(),
            "`e` has moved on: the look is based on version 1, the last one is version 6"
        );
        looks.skip(7);
        let skipped = looks.apply(8, look("e", 4, 6)).unwrap();
        assert_eq!(skipped, Err(Refusal::NotNext { experiment: "e".into(), number: 4, current: 2 }));
        let versions: Vec<Version> = looks.of("e").iter().map(|look| look.version).collect();
        assert_eq!((versions, looks.next_offset()), (vec![1, 6], 9));
        assert_eq!(looks.latest().map(|look| look.version).collect::<Vec<_>>(), [6, 4]);
        assert_eq!(looks.of("none"), []);
    }

    #[test]
    fn a_look_by_a_later_rule_is_not_skipped() {
        let mut looks = Looks::default();
        let later = LookRecord { rule_version: 2, ..look("e", 1, 0) };
        let refused = looks.apply(0, later).unwrap_err();
        assert_eq!(refused, UnknownRule { offset: 0, rule_version: 2 });
        assert_eq!(looks.next_offset(), 0);
    }
}
