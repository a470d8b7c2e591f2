//! How often each variant was served, by key and day, in this process. Counting is an addition in memory; whoever wants a
//! table reads the absolute values from the private port and may do so as often as they like. Nothing here reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::Key;
use schemas::evaluation_counts::{CountRow, Day};

/// A slot holds a count in its lower bits, and above them the day that it is of. A day's count of one variant ends at
/// 1.7e13, 200 million a second.
const COUNT_BITS: u32 = 44;

/// The counts of one variant.
#[derive(Debug, Default)]
pub struct Count {
    single: ByDay,
    bulk: ByDay,
    reported: ByDay,
}

/// The counts of the variants that are defined, and of former ones until the day after; each of two days. A key that is not
/// defined is not counted.
#[derive(Debug, Default)]
pub struct Counts {
    of: Mutex<BTreeMap<(Key, Key), Arc<Count>>>,
}

/// A count of each of two successive days, which take turns: what is counted on a day replaces the count of two days before.
#[derive(Debug, Default)]
struct ByDay([AtomicU64; 2]);

impl Count {
    pub fn single(&self, day: Day) {
        self.single.add(day);
    }

    pub fn bulk(&self, day: Day) {
        self.bulk.add(day);
    }

    pub fn reported(&self, day: Day) {
        self.reported.add(day);
    }

    /// The days of which something is held.
    fn days(&self) -> BTreeSet<Day> {
        [&self.single, &self.bulk, &self.reported]
            .into_iter()
            .flat_map(ByDay::held)
            .map(|(day, _)| day)
            .collect()
    }
}

impl ByDay {
    fn add(&self, day: Day) {
        let slot = &self.0[day.number() as usize % 2];
        let mut before = slot.load(Ordering::Relaxed);
        loop {
            // If the clock was put back by days, the slot is of a later day and counts on for it: nothing is lost.
            let after = match before >> COUNT_BITS < u64::from(day.number()) {
                true => (u64::from(day.number()) << COUNT_BITS) | 1,
                false => before + 1,
            };
            match slot.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    fn held(&self) -> impl Iterator<Item = (Day, u64)> {
        self.0.iter().filter_map(|slot| {
            let held = slot.load(Ordering::Relaxed);
            let count = held & ((1 << COUNT_BITS) - 1);
            let day = Day::from_number((held >> COUNT_BITS) as u32).filter(|_| count > 0)?;
            Some((day, count))
        })
    }

    fn on(&self, day: Day) -> u64 {
        self.held().find(|(held, _)| *held == day).map_or(0, |(_, count)| count)
    }
}

impl Counts {
    /// The counts of a variant, which outlive the configuration that asks for them.
    pub fn of(&self, flag: &Key, variant: &Key) -> Arc<Count> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.entry((flag.clone(), variant.clone())).or_default().clone()
    }

    /// All counts from yesterday on, by day, flag and variant. Forgets those of variants that no configuration has any more,
    /// once they are older.
    pub fn rows(&self, today: Day) -> Vec<CountRow> {
        let is_recent = |day: &Day| day.number() + 1 >= today.number();
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody gets a further reference without the lock.
        of.retain(|_, count| Arc::strong_count(count) > 1 || count.days().iter().any(is_recent));
        let mut rows = Vec::new();
        for ((flag, variant), count) in of.iter() {
            for day in count.days().into_iter().filter(is_recent) {
                rows.push(CountRow {
                    day,
                    flag: flag.clone(),
                    variant: variant.clone(),
                    single: count.single.on(day),
                    bulk: count.bulk.on(day),
                    reported: count.reported.on(day),
                });
            }
        }
        drop(of);
        rows.sort_by_key(|row| row.day);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn day(number: u32) -> Day {
        Day::from_number(number).unwrap()
    }

    /// Day, variant, single, bulk, reported.
    fn rows(counts: &Counts, today: u32) -> Vec<(u32, String, u64, u64, u64)> {
        let rows = counts.rows(day(today)).into_iter();
        rows.map(|row| (row.day.number(), row.variant.to_string(), row.single, row.bulk, row.reported))
            .collect()
    }

    #[test]
    fn today_and_yesterday_are_held_and_a_day_makes_room_for_the_one_after_the_next() {
        let counts = Counts::default();
        let (on, off) = (counts.of(&key("f"), &key("on")), counts.of(&key("f"), &key("off")));
        assert_eq!(rows(&counts, 100), []);
        on.single(day(100));
        on.single(day(100));
        off.bulk(day(100));
        on.reported(day(101));
        let (on_100, off_100) = ((100, "on".to_owned(), 2, 0, 0), (100, "off".to_owned(), 0, 1, 0));
        let on_101 = (101, "on".to_owned(), 0, 0, 1);
        assert_eq!(rows(&counts, 101), [off_100, on_100.clone(), on_101.clone()]);
        // A reading changes nothing.
        assert_eq!(rows(&counts, 101).len(), 3);
        // The first evaluation of the day after takes the slot of the day before yesterday.
        on.single(day(102));
        assert_eq!(rows(&counts, 102), [on_101, (102, "on".to_owned(), 1, 0, 0)]);
        assert_eq!(rows(&counts, 104), []);
    }

    #[test]
    fn a_clock_that_is_put_back_loses_nothing() {
        let counts = Counts::default();
        let on = counts.of(&key("f"), &key("on"));
        on.single(day(102));
        on.single(day(101));
        on.single(day(100));
        assert_eq!(rows(&counts, 100), [(101, "on".to_owned(), 1, 0, 0), (102, "on".to_owned(), 2, 0, 0)]);
    }

    #[test]
    fn a_variant_that_is_gone_is_forgotten_after_a_day() {
        let counts = Counts::default();
        let gone = counts.of(&key("f"), &key("gone"));
        let kept = counts.of(&key("f"), &key("kept"));
        gone.single(day(100));
        drop(gone);
        assert_eq!(rows(&counts, 101), [(100, "gone".to_owned(), 1, 0, 0)]);
        assert_eq!(counts.of.lock().unwrap().len(), 2);
        assert_eq!(rows(&counts, 102), []);
        assert_eq!(counts.of.lock().unwrap().len(), 1);
        kept.single(day(102));
        assert_eq!(rows(&counts, 102), [(102, "kept".to_owned(), 1, 0, 0)]);
    }

    #[test]
    fn threads_that_count_across_midnight_lose_nothing() {
        let counts = Counts::default();
        let on = counts.of(&key("f"), &key("on"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|at| on.single(day(100 + at / 10_000))));
            }
        });
        assert_eq!(
            rows(&counts, 101),
            [(100, "on".to_owned(), 40_000, 0, 0), (101, "on".to_owned(), 40_000, 0, 0)]
        );
    }
}
