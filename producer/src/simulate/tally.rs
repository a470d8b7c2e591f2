//! The counts of a simulation.

use std::collections::BTreeMap;

use serde::Serialize;

/// The exact counts of what has been sent so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The number of units that arrived.
    pub units: u64,
    pub exposed: u64,
    /// The number of units that take no part, by reason.
    pub not_exposed: BTreeMap<String, u64>,
    pub variants: Vec<VariantTally>,
    /// The number of units on each side of each holdout that covers the experiment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holdouts: BTreeMap<String, BTreeMap<String, u64>>,
    /// To the experiment and to the holdouts.
    pub exposures: u64,
    /// Also those of units that only holdouts count.
    pub conversions: u64,
    /// The number of events sent a second time; the counts above exclude them.
    pub duplicates: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VariantTally {
    pub key: String,
    pub units: u64,
    pub conversions: u64,
}

impl Tally {
    /// Of an experiment with these variants, before the first unit.
    pub(super) fn of(variants: impl Iterator<Item = String>) -> Tally {
        let variants = variants.map(|key| VariantTally { key, units: 0, conversions: 0 }).collect();
        Tally { variants, ..Tally::default() }
    }

    /// Adds a unit to its side of a holdout.
    pub(super) fn add_side(&mut self, holdout: &str, variant: &str) {
        let sides = self.holdouts.entry(holdout.to_owned()).or_default();
        *sides.entry(variant.to_owned()).or_default() += 1;
    }

    /// The number of units whose part is known: all that arrived but those that wait for an answer.
    pub fn exposed_or_not(&self) -> u64 {
        self.exposed + self.not_exposed.values().sum::<u64>()
    }

    /// The number of events with different ids.
    pub fn distinct(&self) -> u64 {
        self.exposures + self.conversions
    }

    /// The number of messages, duplicates included.
    pub fn sent(&self) -> u64 {
        self.distinct() + self.duplicates
    }
}
