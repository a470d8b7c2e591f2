//! The ledger in memory: which events must not be kept. It is asked for every id of every event, so the answer for
//! a unit that nobody forgot must be cheap. The unit's tag, a keyed hash of 64 bits, is looked up first. The whole
//! hash is computed only if the tag is there.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use schemas::Micros;

use super::{LedgerKey, Tag, UnitHash};
use crate::pipeline::decode::Decoded;

/// The ledger as it was last read. Without entries it costs one comparison for each event.
#[derive(Clone, Default)]
pub struct Ledger {
    key: Option<LedgerKey>,
    units: HashMap<UnitHash, Unit>,
    /// The tags of all units that have one.
    tags: HashSet<Tag, BuildHasherDefault<IdentityHasher>>,
    /// Units entered by a build that had no tags. While there is one, every id is hashed in full.
    untagged: usize,
    pub(super) read_up_to: ReadUpTo,
}

/// How much of the table has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadUpTo {
    pub entries: u64,
    /// When the latest of them was entered, in milliseconds since 1970.
    pub latest_ms: i64,
}

/// A request, as the ledger has it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub hash: UnitHash,
    /// `None` if it was entered by a build that knew no tags.
    pub tag: Option<Tag>,
    /// What the unit did up to then is forgotten.
    pub until: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    until: Micros,
    tagged: bool,
}

impl Ledger {
    /// A ledger without entries. Without a key it must stay so.
    pub(super) fn under(key: Option<&LedgerKey>) -> Ledger {
        Ledger { key: key.cloned(), ..Ledger::default() }
    }

    pub fn of(key: LedgerKey, entries: impl IntoIterator<Item = Entry>) -> Ledger {
        let mut ledger = Ledger::under(Some(&key));
        entries.into_iter().for_each(|entry| ledger.enter(entry));
        ledger
    }

    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The number of forgotten units.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        self.tags.extend(entry.tag);
        let tagged = entry.tag.is_some();
        match self.units.get_mut(&entry.hash) {
            None => {
                self.units.insert(entry.hash, Unit { until: entry.until, tagged });
                self.untagged += usize::from(!tagged);
            }
            Some(unit) => {
                unit.until = unit.until.max(entry.until);
                if tagged && !unit.tagged {
                    unit.tagged = true;
                    self.untagged -= 1;
                }
            }
        }
    }

    /// Whether an event of this unit that was created at `created_at` must not be kept.
    #[inline]
    pub fn contains(&self, unit_type: &str, unit_id: &str, created_at: Micros) -> bool {
        let Some(key) = self.key.as_ref().filter(|_| !self.is_empty()) else { return false };
        // A tag never misses its unit. Another unit with the same tag is rare; the whole hash tells it apart.
        if self.untagged == 0 && !self.tags.contains(&key.tag(unit_type, unit_id)) {
            return false;
        }
        self.units.get(&key.unit_hash(unit_type, unit_id)).is_some_and(|unit| created_at <= unit.until)
    }

    /// Whether the event carries an id of a forgotten unit.
    pub fn covers(&self, decoded: &Decoded<'_>) -> bool {
        if self.is_empty() {
            return false;
        }
        match decoded {
            Decoded::Exposure(exposure) => {
                self.contains(&exposure.unit_type, &exposure.unit_id, exposure.created_at)
                    || exposure
                        .other_ids
                        .iter()
                        .any(|(kind, id)| self.contains(kind, id, exposure.created_at))
            }
            Decoded::Conversion(conversion) => {
                self.contains(&conversion.unit_type, &conversion.unit_id, conversion.created_at)
                    || conversion
                        .other_ids
                        .iter()
                        .any(|(kind, id)| self.contains(kind, id, conversion.created_at))
            }
            Decoded::Alias(alias) => [&alias.from, &alias.to]
                .into_iter()
                .any(|unit| self.contains(&unit.unit_type, &unit.unit_id, alias.created_at)),
            Decoded::Change(_) | Decoded::Look(_) => false,
        }
    }
}

/// A tag is a hash already.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a tag is one number")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Alias, Conversion, Exposure, Uuid};
    use serde_json::{Value, json};

    use super::*;

    fn at(micros: i64) -> Micros {
        Micros::new(micros).unwrap()
    }

    fn key() -> LedgerKey {
        LedgerKey::new(&[7; 32]).unwrap()
    }

    /// As this build enters a unit, and as builds before it did.
    fn entry(unit_type: &str, unit_id: &str, until: i64) -> Entry {
        let key = key();
        Entry {
            hash: key.unit_hash(unit_type, unit_id),
            tag: Some(key.tag(unit_type, unit_id)),
            until: at(until),
        }
    }

    fn old_entry(unit_type: &str, unit_id: &str, until: i64) -> Entry {
        Entry { tag: None, ..entry(unit_type, unit_id, until) }
    }

    #[test]
    fn what_a_unit_did_up_to_its_request_is_forgotten_and_not_later() {
        for ledger in [
            Ledger::of(key(), [entry("user", "u1", 1_000)]),
            Ledger::of(key(), [old_entry("user", "u1", 1_000)]),
            Ledger::of(key(), [old_entry("user", "u1", 999), entry("user", "u1", 1_000)]),
            Ledger::of(key(), [entry("user", "u1", 1_000), old_entry("user", "u1", 999)]),
        ] {
            assert!(ledger.contains("user", "u1", at(1_000)));
            assert!(!ledger.contains("user", "u1", at(1_001)));
            assert!(!ledger.contains("user", "u2", at(1_000)));
            assert!(!ledger.contains("device", "u1", at(1_000)));
            assert_eq!(ledger.len(), 1);
        }
        assert!(!Ledger::default().contains("user", "u1", at(0)));
    }

    /// An entry without a tag is found by its hash, whatever tags the others have, until its unit is entered again.
    #[test]
    fn entries_of_older_builds_stay_valid() {
        let mut ledger = Ledger::of(key(), [entry("user", "new", 5), old_entry("user", "old", 5)]);
        assert!(ledger.contains("user", "new", at(5)) && ledger.contains("user", "old", at(5)));
        assert_eq!(ledger.untagged, 1);
        ledger.enter(entry("user", "old", 9));
        assert_eq!(ledger.untagged, 0);
        assert!(ledger.contains("user", "new", at(5)) && ledger.contains("user", "old", at(9)));
        assert_eq!(ledger.len(), 2);
    }

    /// A tag may be another unit's as well; the hash decides.
    #[test]
    fn a_unit_is_not_forgotten_for_its_tag_alone() {
        let shared = Entry { tag: Some(key().tag("user", "u2")), ..entry("user", "u1", 5) };
        assert!(!Ledger::of(key(), [shared]).contains("user", "u2", at(5)));
    }

    fn conversion(unit: &str, other_ids: Value) -> Decoded<'static> {
        let conversion: Conversion<'static> = serde_json::from_value(json!({
            "event_id": Uuid::from_u128(1), "name": "buy", "unit_type": "account", "unit_id": unit,
            "other_ids": other_ids, "created_at": "1970-01-01T00:00:00.001Z"
        }))
        .unwrap();
        Decoded::Conversion(conversion)
    }

    fn exposure(unit: &str, other_ids: Value) -> Decoded<'static> {
        let exposure: Exposure<'static> = serde_json::from_value(json!({
            "event_id": Uuid::from_u128(1), "experiment": "e", "variant": "a", "unit_type": "account",
            "unit_id": unit, "other_ids": other_ids, "created_at": "1970-01-01T00:00:00.001Z"
        }))
        .unwrap();
        Decoded::Exposure(exposure)
    }

    fn alias(from: &str, to: &str) -> Decoded<'static> {
        let alias: Alias<'static> = serde_json::from_value(json!({
            "event_id": Uuid::from_u128(1), "from": {"unit_type": "device", "unit_id": from},
            "to": {"unit_type": "user", "unit_id": to}, "created_at": "1970-01-01T00:00:00.001Z"
        }))
        .unwrap();
        Decoded::Alias(alias)
    }

    #[test]
    fn an_event_is_covered_by_any_id_that_it_carries() {
        let ledger = Ledger::of(key(), [entry("user", "u1", 1_000), entry("device", "d1", 1_000)]);
        for (event, covered) in [
            (conversion("a", json!({"device": "d", "user": "u1"})), true),
            (conversion("u1", json!({"device": "u1"})), false),
            (exposure("a", json!({"device": "d1"})), true),
            (exposure("d1", json!({})), false),
            (alias("d1", "u2"), true),
            (alias("d2", "u1"), true),
            (alias("u1", "d1"), false),
        ] {
            assert_eq!(ledger.covers(&event), covered);
        }
    }

    /// Builds that deleted every event for an id that was empty entered that as well.
    #[test]
    fn an_entry_for_no_id_covers_no_event() {
        for entries in [
            [entry("user", "", i64::pow(10, 15)), entry("", "", i64::pow(10, 15))],
            [old_entry("user", "", i64::pow(10, 15)), old_entry("", "", i64::pow(10, 15))],
        ] {
            let ledger = Ledger::of(key(), entries);
            assert_eq!(ledger.len(), 2);
            for event in [
                conversion("a", json!({"device": "d"})),
                conversion("a", json!({})),
                exposure("a", json!({})),
                alias("d", "u"),
            ] {
                assert!(!ledger.covers(&event));
            }
        }
    }
}
