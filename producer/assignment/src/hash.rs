//! The hash contract: `h = xxh3_64(unit id, seed = xxh3_64(salt))`, over UTF-8 bytes exactly as sent, and
//! `bucket = floor(h * 1000000 / 2^64)`. The vectors in `schemas/vectors` are part of the contract; changing
//! one is a breaking change.

use schemas::definition::{Definitions, Experiment};
use schemas::{Bucket, Buckets};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Hashes a unit with a salt. Both may be any text; different salts give independent hashes.
pub fn hash(unit_id: &str, salt: &str) -> u64 {
    xxh3_64_with_seed(unit_id.as_bytes(), xxh3_64(salt.as_bytes()))
}

/// The three salts of an experiment. They differ in what follows the `/`, which no key contains, so the
/// three buckets of a unit are independent of each other and of every other experiment's.
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
        let seed = |salt: &str| xxh3_64(salt.as_bytes());
        Seeds { slot: seed(&self.slot), rollout: seed(&self.rollout), variant: seed(&self.variant) }
    }
}

/// The three salts, hashed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    slot: u64,
    rollout: u64,
    variant: u64,
}

impl Seeds {
    pub fn buckets(&self, unit_id: &str) -> Buckets {
        let bucket = |seed| Bucket::of_hash(xxh3_64_with_seed(unit_id.as_bytes(), seed)).get();
        Buckets { slot: bucket(self.slot), rollout: bucket(self.rollout), variant: bucket(self.variant) }
    }
}
