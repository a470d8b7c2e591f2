//! The log of looks and its fold. Whoever looks at an experiment spends some of the error rate that its plan
//! allows; the log is the one account of it. A record only proposes: it counts if it is based on the look before
//! it, so of two aggregators that look at once exactly one is heard, and every reader of the same log holds the
//! same looks. What a look saw is the aggregator's text; here it is only kept in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The rule that writers of this build follow. A reader that meets a later one must not go on.
pub const RULE_VERSION: u32 = 1;

/// Names one accepted look for ever: its offset in the log plus one. 0 is "none yet".
pub type Version = u64;

/// A proposed look, as the log carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookRecord {
    pub look_id: Uuid,
    pub rule_version: u32,
    /// The experiment's key.
    pub experiment: String,
    /// Of the experiment's looks, from 1.
    pub number: u32,
    /// The version of the look before it that the writer saw.
    pub based_on: Version,
    /// JSON.
    pub look: String,
}

/// Why a look does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else was first. Read again and look again.
    #[error(
        "`{experiment}` has moved on: the look is based on version {based_on}, the last one is version {current}"
    )]
    Stale { experiment: String, based_on: Version, current: Version },
    #[error("`{experiment}` is at look {current}: {number} is not the next")]
    NotNext { experiment: String, number: u32, current: u32 },
}

/// The log holds a look by a rule that this build does not know; whoever knows half of what was spent decides
/// nothing.
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

/// The looks of all experiments after a part of the log.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    by_experiment: BTreeMap<String, Vec<Arc<Accepted>>>,
    next_offset: u64,
}

impl Looks {
    /// Takes the log's record at `offset`. Offsets only grow; a record already taken is taken no second time.
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

    /// Takes note of a record that is no look at all (undecodable bytes).
    pub fn skip(&mut self, offset: u64) {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        self.next_offset = offset + 1;
    }

    /// Rule 1. The table's view says the same in SQL, so it rests on numbers alone.
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

    /// The first offset of the log that has not been taken yet.
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
        // Of two that saw the same, the log's order lets one through.
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
    fn a_later_rule_is_not_passed_over() {
        let mut looks = Looks::default();
        let later = LookRecord { rule_version: 2, ..look("e", 1, 0) };
        let refused = looks.apply(0, later).unwrap_err();
        assert_eq!(refused, UnknownRule { offset: 0, rule_version: 2 });
        assert_eq!(looks.next_offset(), 0);
    }
}
