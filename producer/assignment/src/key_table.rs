//! From the key of a flag or an experiment to its number: the first step of every evaluation. The table is filled once, by
//! those who write definitions; who only asks cannot fill it, so its hash needs no secret.

use xxhash_rust::xxh3::xxh3_64;

use crate::text::{Ends, Text};

/// Bits of pi and of the golden ratio, as good as any others that are mixed.
const FIRST: u64 = 0x2437_4185_243f_6a89;
const LAST: u64 = 0x9e37_79b9_7f4a_7c15;

/// Numbers by key. Each key is at the place that its hash names or, if that was taken, at the next free one.
#[derive(Debug)]
pub(crate) struct KeyTable {
    /// A power of two of them, at least twice as many as there are keys, so that a search ends at a free one, and soon.
    places: Box<[Option<Place>]>,
}

#[derive(Clone, Debug)]
struct Place {
    key: Text,
    number: u32,
}

impl KeyTable {
    /// Numbers the keys, which are all different, in their order.
    pub(crate) fn of<'k>(keys: impl ExactSizeIterator<Item = &'k str>) -> KeyTable {
        let mut places = vec![None; (keys.len() * 2).next_power_of_two().max(2)];
        let mask = places.len() - 1;
        for (key, number) in keys.zip(0..) {
            let key = Text::of(key);
            let mut at = hash(key.ends(), key.as_str()) as usize & mask;
            while places[at].is_some() {
                at = (at + 1) & mask;
            }
            places[at] = Some(Place { key, number });
        }
        KeyTable { places: places.into() }
    }

    #[inline]
    pub(crate) fn find(&self, key: &str) -> Option<u32> {
        let ends = Ends::of(key);
        let mask = self.places.len() - 1;
        let mut at = hash(ends, key) as usize & mask;
        while let Some(place) = &self.places[at & mask] {
            if place.key.has(ends, key) {
                return Some(place.number);
            }
            at += 1;
        }
        None
    }
}

/// Hashes a key. Keys that are known by their ends need one multiplication.
#[inline]
fn hash(ends: Ends, key: &str) -> u64 {
    if !ends.are_all() {
        return xxh3_64(key.as_bytes());
    }
    let product = u128::from(ends.first ^ FIRST) * u128::from(ends.last ^ LAST ^ ends.bytes as u64);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        let keys: Vec<String> = (0..1_000)
            .map(|number| match number % 3 {
                0 => format!("{number}"),
                1 => format!("flag-{number}"),
                _ => format!("an-experiment-{number}-with-a-long-name"),
            })
            .collect();
        let table = KeyTable::of(keys.iter().map(String::as_str));
        for (number, key) in (0..).zip(&keys) {
            assert_eq!(table.find(key), Some(number), "{key}");
            assert_eq!(table.find(&format!("{key}x")), None, "{key}");
        }
        assert_eq!(table.find(""), None);
    }
}
