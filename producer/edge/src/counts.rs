//! How often each variant was served, by key, since the process started. Counting is one addition in memory; whoever wants
//! a table reads the counts from the private port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::Key;
use serde::Serialize;

/// The counts of one variant.
#[derive(Debug, Default)]
pub struct Count {
    single: AtomicU64,
    bulk: AtomicU64,
    reported: AtomicU64,
}

/// The counts of all variants that were ever defined while the process ran; their number is that of the definitions.
#[derive(Debug, Default)]
pub struct Counts {
    of: Mutex<BTreeMap<(Key, Key), Arc<Count>>>,
}

/// One row of the private port's answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct CountRow {
    pub flag: Key,
    pub variant: Key,
    /// Evaluations of this key alone: somebody read it.
    pub single: u64,
    /// Evaluations together with all others, which nobody may have read.
    pub bulk: u64,
    /// Reads of such a value that were reported by `track`.
    pub reported: u64,
}

impl Count {
    pub fn single(&self) {
        self.single.fetch_add(1, Ordering::Relaxed);
    }

    pub fn bulk(&self) {
        self.bulk.fetch_add(1, Ordering::Relaxed);
    }

    pub fn reported(&self) {
        self.reported.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counts {
    /// The counts of a variant, which outlive the configuration that asks for them.
    pub fn of(&self, flag: &Key, variant: &Key) -> Arc<Count> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.entry((flag.clone(), variant.clone())).or_default().clone()
    }

    /// All counts, by flag and variant.
    pub fn rows(&self) -> Vec<CountRow> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = of.iter().map(|((flag, variant), count)| CountRow {
            flag: flag.clone(),
            variant: variant.clone(),
            single: count.single.load(Ordering::Relaxed),
            bulk: count.bulk.load(Ordering::Relaxed),
            reported: count.reported.load(Ordering::Relaxed),
        });
        rows.collect()
    }
}
