//! The key of a unit: one number for its type and its id, which tables join and count by. Two units may have
//! the same key (at 10^9 units, with a probability of 2.7 %), so code that deletes or forgets a unit compares
//! its type and its id.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::event::{Alias, Conversion, Exposure, Pairs, Unit};

/// The byte between the type and the id. No type contains it.
const SEPARATOR: u8 = 0;
/// The longest input, in bytes, that is hashed without an allocation. An id may be longer.
const SHORT_BYTES_MAX: usize = 64;

/// `xxh3_64` of the type's bytes, a zero byte and the id's bytes, with seed 0. The test vectors in
/// `schemas/vectors` fix it, and ClickHouse's function `xxh3` returns the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitKey(u64);

impl UnitKey {
    pub fn of(unit_type: &str, unit_id: &str) -> UnitKey {
        let (unit_type, unit_id) = (unit_type.as_bytes(), unit_id.as_bytes());
        let id_at = unit_type.len() + 1;
        let end = id_at + unit_id.len();
        if end > SHORT_BYTES_MAX {
            return UnitKey(xxh3_64(&[unit_type, &[SEPARATOR], unit_id].concat()));
        }
        let mut bytes = [SEPARATOR; SHORT_BYTES_MAX];
        bytes[..unit_type.len()].copy_from_slice(unit_type);
        bytes[id_at..end].copy_from_slice(unit_id);
        UnitKey(xxh3_64(&bytes[..end]))
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

/// Writes 16 hexadecimal digits, as in the test vectors.
impl fmt::Display for UnitKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl Exposure<'_> {
    pub fn unit_key(&self) -> UnitKey {
        UnitKey::of(&self.unit_type, &self.unit_id)
    }

    /// Returns the keys of the ids in `other_ids`, in their order.
    pub fn carried_keys(&self) -> impl Iterator<Item = UnitKey> {
        keys_of(&self.other_ids)
    }
}

impl Conversion<'_> {
    pub fn unit_key(&self) -> UnitKey {
        UnitKey::of(&self.unit_type, &self.unit_id)
    }

    /// Returns the keys of the ids in `other_ids`, in their order.
    pub fn carried_keys(&self) -> impl Iterator<Item = UnitKey> {
        keys_of(&self.other_ids)
    }
}

impl Alias<'_> {
    pub fn from_unit_key(&self) -> UnitKey {
        self.from.key()
    }

    pub fn to_unit_key(&self) -> UnitKey {
        self.to.key()
    }
}

impl Unit<'_> {
    pub fn key(&self) -> UnitKey {
        UnitKey::of(&self.unit_type, &self.unit_id)
    }
}

fn keys_of(other_ids: &Pairs<'_>) -> impl Iterator<Item = UnitKey> {
    other_ids.iter().map(|(unit_type, unit_id)| UnitKey::of(unit_type, unit_id))
}
