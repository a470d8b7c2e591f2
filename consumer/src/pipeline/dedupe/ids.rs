//! A set of ids in 16 to 24 bytes each: an open-addressed table in the order of the ids' hashes (linear probing
//! with ordered runs). Each id is in the slot that its hash names, or as near behind it as the ids before it
//! allow. A search ends at the first id with a larger hash, however full the table is. A larger table keeps the
//! order, so growing is one pass over both tables.

use std::hash::{BuildHasher, RandomState};

use schemas::Uuid;

/// Grown from nine tenths full to a little over two thirds full: 18 to 24 bytes an id.
const FULL: (usize, usize) = (9, 10);
const GROWN: (usize, usize) = (17, 25);
const SLOTS_MIN: usize = 16;
/// Slots behind the last place, for ids that are pushed beyond it: an eighth of a small table, at most 64.
const TAIL_SHARE: usize = 8;
const TAIL_MAX: usize = 64;

/// Marks an empty slot. The id of this value is kept in a field of its own.
const EMPTY: u128 = 0;

/// Ids, without their order.
pub struct Ids {
    /// One for each place, then the tail.
    slots: Vec<u128>,
    places: usize,
    count: usize,
    has_zero: bool,
    /// Random and of this set alone, so that nobody can make ids that all have the same place.
    keys: [u64; 2],
}

impl Default for Ids {
    fn default() -> Ids {
        let random = RandomState::new();
        Ids {
            slots: Vec::new(),
            places: 0,
            count: 0,
            has_zero: false,
            keys: [0_u8, 1].map(|which| random.hash_one(which)),
        }
    }
}

impl Ids {
    /// An empty set with room for `ids` ids.
    pub fn with_room(ids: usize) -> Ids {
        let mut made = Ids::default();
        made.resize((ids + 1) * GROWN.1 / GROWN.0);
        made
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
            value => !self.slots.is_empty() && matches!(self.find(value), Lookup::Present),
        }
    }

    /// Loads the slots of ids that are looked up next into the processor's cache, all at once. Without it, each
    /// look-up would wait for memory.
    pub fn warm(&self, ids: impl Iterator<Item = Uuid>) {
        if !self.slots.is_empty() {
            let place = |id: Uuid| place(self.hash(id.as_u128()), self.places);
            let touched = ids.fold(0, |touched, id| touched ^ self.slots[place(id)]);
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
            self.resize((self.count + 1) * GROWN.1 / GROWN.0);
        }
        loop {
            let Lookup::InsertAt(at) = self.find(value) else { return false };
            if self.put(at, value) {
                self.count += 1;
                return true;
            }
            self.lay_out(2 * (self.slots.len() - self.places));
        }
    }

    fn find(&self, value: u128) -> Lookup {
        let hash = self.hash(value);
        let first = place(hash, self.places);
        for (at, slot) in (first..).zip(&self.slots[first..]) {
            if *slot == value {
                return Lookup::Present;
            }
            if *slot == EMPTY || self.hash(*slot) > hash {
                return Lookup::InsertAt(at);
            }
        }
        Lookup::InsertAt(self.slots.len())
    }

    /// Inserts at `at` and moves everything up to the next empty slot by one. False if there is no empty slot.
    fn put(&mut self, at: usize, value: u128) -> bool {
        let Some(run) = self.slots[at..].iter().position(|slot| *slot == EMPTY) else { return false };
        self.slots.copy_within(at..at + run, at + 1);
        self.slots[at] = value;
        true
    }

    /// The folded product of both halves, each combined with a key: every bit of the id changes the upper bits.
    fn hash(&self, value: u128) -> u64 {
        let [low, high] = [value as u64 ^ self.keys[0], (value >> 64) as u64 ^ self.keys[1]];
        let product = u128::from(low) * u128::from(high);
        product as u64 ^ (product >> 64) as u64
    }

    fn resize(&mut self, slots: usize) {
        let slots = slots.max(SLOTS_MIN);
        self.places = slots - TAIL_MAX.min(slots / TAIL_SHARE);
        self.lay_out(slots - self.places);
    }

    /// Lays the ids out again with a tail of at least `tail` slots. A full tail needs more tail, not more places.
    fn lay_out(&mut self, tail: usize) {
        let mut slots = self.places + tail;
        self.slots = loop {
            match self.spread(slots) {
                Some(spread) => break spread,
                None => slots += slots - self.places,
            }
        };
    }

    /// A table of `slots` slots with the same ids. `None` if some are pushed beyond its end.
    fn spread(&self, slots: usize) -> Option<Vec<u128>> {
        let mut spread = vec![EMPTY; slots];
        let mut next = 0;
        for value in &self.slots {
            // An empty slot is copied to where the next id may come, so that the loop has no branch here.
            let empty = *value == EMPTY;
            let at = if empty { next } else { next.max(place(self.hash(*value), self.places)) };
            match spread.get_mut(at) {
                Some(slot) => *slot = *value,
                None if empty => {}
                None => return None,
            }
            next = if empty { next } else { at + 1 };
        }
        Some(spread)
    }
}

/// Where an id is.
enum Lookup {
    Present,
    /// Not in the table. It belongs before what is in this slot.
    InsertAt(usize),
}

/// The hash, scaled to the number of places: its order is that of the places.
fn place(hash: u64, places: usize) -> usize {
    // Below the number of places, hence within usize.
    ((u128::from(hash) * places as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// An id whose hash is `hash` in a set whose keys are zero.
    fn hashed(hash: u64) -> Uuid {
        Uuid::from_u128(1 << 64 | u128::from(hash))
    }

    fn keyless() -> Ids {
        Ids { keys: [0, 0], ..Ids::default() }
    }

    /// Whoever had the keys could make ids that all belong into the last place, or into the first.
    #[test]
    fn ids_of_one_place_are_all_kept() {
        for hash_of in [|number: u64| u64::MAX - number, |number: u64| number + 1] {
            let mut ids = keyless();
            assert!((0..3_000).all(|number| ids.insert(hashed(hash_of(number)))));
            assert!((0..3_000).all(|number| ids.contains(hashed(hash_of(number)))));
            assert!((3_000..6_000).all(|number| !ids.contains(hashed(hash_of(number)))));
            assert_eq!(ids.len(), 3_000);
        }
    }

    /// Ids that were made one after the other are near their places too, within ten of them on average, and all
    /// within the tail that every large table has.
    #[test]
    fn ids_in_order_are_spread() {
        let minute = 0x0191_e3a0_0000_7000_u128 << 64;
        for (name, step) in [("numbers", 1), ("times", 1 << 80), ("both", 1 << 80 | 1 << 32)] {
            let mut ids = Ids { keys: [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03], ..Ids::default() };
            assert!(
                (1..=100_000).all(|number| ids.insert(Uuid::from_u128(minute + number * step))),
                "{name}"
            );
            assert_eq!(ids.slots.len() - ids.places, TAIL_MAX, "{name}");
            let (mut furthest, mut sum) = (0, 0);
            for (at, value) in ids.slots.iter().enumerate().filter(|(_, value)| **value != EMPTY) {
                let from = at - place(ids.hash(*value), ids.places);
                (furthest, sum) = (furthest.max(from), sum + from);
            }
            assert!(furthest < TAIL_MAX && sum < 1_000_000, "{name}: {furthest} and {sum} in all");
        }
    }

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
