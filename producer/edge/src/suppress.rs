//! Remembers for a while which exposures were logged, so that a unit that reads a value a hundred times is logged once. It
//! is bounded in number and time; what it forgets is logged again, which the analysis, where the first exposure counts,
//! does not see.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::Exposure;
use xxhash_rust::xxh3::Xxh3;

/// The longest time for which a repeat is suppressed.
const KEPT_MAX: Duration = Duration::from_secs(3_600);
/// Locks, so that requests at the same time rarely wait for each other.
const SHARDS: usize = 16;

/// Which exposures are repeats: the hash of (experiment, unit, variant, phase, definition version). Two of 128 bits are
/// the same by chance in one of 10^26 pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat(u128);

/// The exposures that were logged within the last hour, or the last so many.
#[derive(Debug)]
pub struct Suppressed {
    shards: [Mutex<Shard>; SHARDS],
    /// The most entries of one generation of one shard.
    generation_max: usize,
}

/// Two generations: the older one is dropped as a whole, when half the time has passed or the younger one is full.
#[derive(Debug)]
struct Shard {
    young: HashSet<u128>,
    old: HashSet<u128>,
    turned: Instant,
}

impl Repeat {
    pub fn of(exposure: &Exposure<'_>) -> Repeat {
        let mut hash = Xxh3::new();
        for text in [&exposure.experiment, &exposure.unit_type, &exposure.unit_id, &exposure.variant] {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(&exposure.phase.to_le_bytes());
        hash.update(&exposure.definition_version.to_le_bytes());
        Repeat(hash.digest128())
    }
}

impl Suppressed {
    /// Remembers up to `entries`, at least half of them for half an hour.
    pub fn new(entries: usize, now: Instant) -> Suppressed {
        let shard = || Mutex::new(Shard { young: HashSet::new(), old: HashSet::new(), turned: now });
        Suppressed {
            shards: std::array::from_fn(|_| shard()),
            generation_max: (entries / (2 * SHARDS)).max(1),
        }
    }

    /// Whether this was logged within the hour.
    pub fn contains(&self, repeat: Repeat, now: Instant) -> bool {
        let mut shard = self.shard(repeat);
        shard.turn_if_due(now);
        shard.young.contains(&repeat.0) || shard.old.contains(&repeat.0)
    }

    /// Remembers that this was logged; called once the emitter has accepted it.
    pub fn insert(&self, repeat: Repeat, now: Instant) {
        let mut shard = self.shard(repeat);
        shard.turn_if_due(now);
        if shard.young.len() >= self.generation_max {
            shard.turn(now);
        }
        shard.young.insert(repeat.0);
    }

    fn shard(&self, repeat: Repeat) -> std::sync::MutexGuard<'_, Shard> {
        let index = (repeat.0 % SHARDS as u128) as usize;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn turn_if_due(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.turned);
        if age >= KEPT_MAX / 2 {
            self.turn(now);
        }
        // Nobody came for so long that the generation that was young is too old as well.
        if age >= KEPT_MAX {
            self.old.clear();
        }
    }

    fn turn(&mut self, now: Instant) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.turned = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure() -> Exposure<'static> {
        serde_json::from_str(
            r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "b",
                "unit_type": "user", "unit_id": "u1", "phase": 2, "definition_version": 7,
                "created_at": "2026-01-01T00:00:00Z"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_repeat_is_the_same_in_five_fields_and_nothing_else() {
        let first = Repeat::of(&exposure());
        let later =
            Exposure { event_id: schemas::Uuid::from_u128(9), configuration_version: 99, ..exposure() };
        assert_eq!(Repeat::of(&later), first);
        for other in [
            Exposure { experiment: "f".into(), ..exposure() },
            Exposure { unit_id: "u2".into(), ..exposure() },
            Exposure { unit_type: "account".into(), ..exposure() },
            Exposure { variant: "a".into(), ..exposure() },
            Exposure { phase: 3, ..exposure() },
            Exposure { definition_version: 8, ..exposure() },
        ] {
            assert_ne!(Repeat::of(&other), first);
        }
    }

    #[test]
    fn a_repeat_is_suppressed_for_at_least_half_an_hour_and_at_most_one() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        for began in [0, 7, 29] {
            let suppressed = Suppressed::new(1_000, start);
            let repeat = Repeat(1);
            assert!(!suppressed.contains(repeat, at(began)));
            suppressed.insert(repeat, at(began));
            assert!(suppressed.contains(repeat, at(began + 30)), "from {began}");
            assert!(!suppressed.contains(repeat, at(began + 60)), "from {began}");
        }
        // Nobody asks in between.
        let suppressed = Suppressed::new(1_000, start);
        suppressed.insert(Repeat(1), at(1));
        assert!(!suppressed.contains(Repeat(1), at(61)));
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let now = Instant::now();
        let suppressed = Suppressed::new(3_200, now);
        for entry in 0..100_000 {
            suppressed.insert(Repeat(entry), now);
        }
        let kept = (0..100_000).filter(|entry| suppressed.contains(Repeat(*entry), now)).count();
        assert!((1_600..=3_200).contains(&kept), "{kept}");
        assert!(suppressed.contains(Repeat(99_999), now));
    }
}
