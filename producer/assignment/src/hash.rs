//! The hash contract: `h = xxh3_64(unit id, seed = xxh3_64(salt))`, over UTF-8 bytes exactly as sent, and
//! `bucket = floor(h * 1000000 / 2^64)`. The vectors in `schemas/vectors` are part of the contract; changing
//! one is a breaking change: another hash needs a field of the experiment that names it, and a rule of the log that knows
//! the field (`schemas/src/definition/rule.rs`).

use schemas::definition::{Definitions, Experiment, WHOLE_SALT};
use schemas::{Bucket, Buckets, SwitchbackUnit};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The contract in words, for a person who wants to compute a bucket again.
pub const FORMULA: &str =
    "hash = xxh3_64(unit id, seed = xxh3_64(salt)); bucket = floor(hash * 1000000 / 2^64)";

/// A salt, hashed once. Different salts give independent hashes of the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// Hashes the salt, which may be any text.
    pub fn of(salt: &str) -> Seed {
        Seed(xxh3_64(salt.as_bytes()))
    }

    pub fn get(self) -> u64 {
        self.0
    }

    /// Hashes the unit's id, which may be any text. This is the only place where a unit is hashed for assignment.
    #[inline]
    pub fn hash(self, unit_id: &str) -> u64 {
        xxh3_64_with_seed(unit_id.as_bytes(), self.0)
    }
}

/// The three salts of an experiment. They differ in what follows the `/`, which no key contains, so the
/// three buckets of a unit are independent of each other and of every other experiment's. A holdout has one salt, that
/// of the slots that it takes units from, three times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salts {
    pub slot: String,
    pub rollout: String,
    pub variant: String,
}

impl Salts {
    /// The salts of an experiment. The slot uses the salt of the layer, so that a unit has the same slot in all
    /// experiments of the layer. Without a layer it uses the experiment's own salt.
    pub fn of(definitions: &Definitions, experiment: &Experiment) -> Salts {
        let own = experiment.salt();
        let layer = experiment.layer.as_ref().and_then(|layer| definitions.layer(layer));
        if experiment.holdout {
            let slot = layer.map_or_else(|| WHOLE_SALT.to_owned(), |layer| format!("{}/slot", layer.salt()));
            return Salts { rollout: slot.clone(), variant: slot.clone(), slot };
        }
        Salts {
            slot: format!("{}/slot", layer.map_or(own, |layer| layer.salt())),
            rollout: format!("{own}/rollout"),
            variant: format!("{own}/variant"),
        }
    }

    pub fn buckets(&self, unit_id: &str) -> Buckets {
        self.seeds().buckets(unit_id)
    }

    /// Hashes the salts once, for callers that hash many units.
    pub fn seeds(&self) -> Seeds {
        Seeds {
            slot: Seed::of(&self.slot),
            rollout: Seed::of(&self.rollout),
            variant: Seed::of(&self.variant),
        }
    }
}

/// The seeds of an experiment's three salts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    slot: Seed,
    rollout: Seed,
    variant: Seed,
}

impl Seeds {
    #[inline]
    pub fn buckets(&self, unit_id: &str) -> Buckets {
        let bucket = |seed: Seed| Bucket::of_hash(seed.hash(unit_id)).get();
        Buckets { slot: bucket(self.slot), rollout: bucket(self.rollout), variant: bucket(self.variant) }
    }

    /// The buckets of a switchback's unit: the cluster takes part as a whole, so its slot and its rollout are those of the
    /// cluster alone, and each of its windows has a variant of its own.
    pub fn switchback_buckets(&self, unit: SwitchbackUnit<'_>) -> Buckets {
        let hash = self.variant.hash(unit.id().as_str());
        Buckets { variant: Bucket::of_hash(hash).get(), ..self.buckets(unit.cluster()) }
    }
}
