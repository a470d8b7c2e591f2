//! A set of ids in 16 to 24 bytes each: one flat table, probed in line, in the order of the ids' hashes.
//! Since a larger table keeps that order, growing it is a pass from front to back over both, which is what
//! allows it to grow by little and to stay full.

use std::hash::{BuildHasher, RandomState};

use schemas::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Grown from four fifths full to two thirds full: 20 to 24 bytes an id.
const FULL: (usize, usize) = (4, 5);
const GROWN: (usize, usize) = (2, 3);
const SLOTS_MIN: usize = 16;

/// Stands for an empty slot; the id of this value is kept apart.
const EMPTY: u128 = 0;

/// Ids, without their order.
pub struct Ids {
    slots: Vec<u128>,
    count: usize,
    has_zero: bool,
    /// Of this set alone, so that nobody can make ids that all fall into one place.
    seed: u64,
}

impl Default for Ids {
    fn default() -> Ids {
        Ids { slots: Vec::new(), count: 0, has_zero: false, seed: RandomState::new().hash_one(0_u8) }
    }
}

impl Ids {
    /// An empty set that takes so many ids without growing.
    pub fn with_room(ids: usize) -> Ids {
        Ids { slots: vec![EMPTY; (ids + 1) * GROWN.1 / GROWN.0], ..Ids::default() }
    }

    pub fn len(&self) -> usize {
        self.count + usize::from(self.has_zero)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u128>()
    }

    pub fn contains(&self, id: Uuid) -> bool {
        match id.as_u128() {
            EMPTY => self.has_zero,
            value => !self.slots.is_empty() && self.slots[self.find(value)] == value,
        }
    }

    /// Brings the places of ids that are asked for next into the processor's cache, all at once; one after
    /// another, each question would wait for memory.
    pub fn warm(&self, ids: impl Iterator<Item = Uuid>) {
        if !self.slots.is_empty() {
            let touched = ids.fold(0, |touched, id| touched ^ self.slots[self.home(id.as_u128())]);
            std::hint::black_box(touched);
        }
    }

    /// Whether it was not there before.
    pub fn insert(&mut self, id: Uuid) -> bool {
        let value = id.as_u128();
        if value == EMPTY {
            return !std::mem::replace(&mut self.has_zero, true);
        }
        if self.count * FULL.1 >= self.slots.len() * FULL.0 {
            self.grow();
        }
        let at = self.find(value);
        if self.slots[at] == value {
            return false;
        }
        self.slots[at] = value;
        self.count += 1;
        true
    }

    /// Where `value` is, or the empty slot where it would be.
    fn find(&self, value: u128) -> usize {
        let mut at = self.home(value);
        while self.slots[at] != EMPTY && self.slots[at] != value {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }

    /// The hash, scaled to the number of slots, so that order is kept when that number changes.
    fn home(&self, value: u128) -> usize {
        let hash = xxh3_64_with_seed(&value.to_le_bytes(), self.seed);
        // Below the number of slots, hence within usize.
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn grow(&mut self) {
        let slots = ((self.count + 1) * GROWN.1 / GROWN.0).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for value in old.into_iter().filter(|value| *value != EMPTY) {
            let at = self.find(value);
            self.slots[at] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Whatever is inserted, twice or not, the standard library's set says the same.
    #[test]
    fn it_agrees_with_a_hash_set() {
        let (mut ids, mut oracle) = (Ids::default(), HashSet::new());
        // Multiples of an odd number modulo 5,000: each of 0 to 4,999 comes four times.
        for step in 0..20_000_u128 {
            let id = Uuid::from_u128(step * 7_919 % 5_000);
            assert_eq!(ids.contains(id), oracle.contains(&id), "{id}");
            assert_eq!(ids.insert(id), oracle.insert(id), "{id}");
        }
        assert_eq!((ids.len(), oracle.len()), (5_000, 5_000));
        assert!((5_000..6_000).all(|value| !ids.contains(Uuid::from_u128(value))));
    }

    #[test]
    fn a_set_with_room_does_not_grow_until_it_is_used_up() {
        let mut ids = Ids::with_room(1_000);
        let bytes = ids.bytes();
        assert!((1..=1_000).all(|value| ids.insert(Uuid::from_u128(value))));
        assert_eq!((ids.len(), ids.bytes()), (1_000, bytes));
        assert!((1_001..=2_000).all(|value| ids.insert(Uuid::from_u128(value))));
        assert!((1..=2_000).all(|value| ids.contains(Uuid::from_u128(value))));
        assert!(!Ids::with_room(0).contains(Uuid::from_u128(1)));
    }

    #[test]
    fn an_id_takes_at_most_24_bytes() {
        let mut ids = Ids::default();
        for value in 1..=200_000_u128 {
            ids.insert(Uuid::from_u128(value << 64 | value));
            assert!(value < 100 || ids.bytes() <= 24 * ids.len() + 48, "{} for {value}", ids.bytes());
        }
        assert!(ids.bytes() <= 24 * 200_000, "{}", ids.bytes());
    }
}
