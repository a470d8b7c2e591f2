//! A seeded random generator for tests. A test that uses it prints the seed; setting `SPLITSTREAM_TEST_SEED`
//! to that seed repeats the same draws.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The variable with the seed of an earlier run.
pub const SEED_VARIABLE: &str = "SPLITSTREAM_TEST_SEED";

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Uses the seed in `SPLITSTREAM_TEST_SEED`, or a fresh one if it is not set. Prints the seed in both
    /// cases.
    ///
    /// # Panics
    /// If the variable is set and is not a number.
    pub fn from_environment() -> Random {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is not a number")),
            Err(_) => fresh_seed(),
        };
        eprintln!("{SEED_VARIABLE}={seed}");
        Random::new(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end - 1`; the bias of the remainder is below `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// A duration from `from` to just below `to`, in whole milliseconds.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span =
            u64::try_from((to - from).as_millis()).expect("the milliseconds of a wait fit into 64 bits");
        from + Duration::from_millis(self.below(span.max(1)))
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

/// A seed that differs in each run, below a billion so that a person can type it.
pub fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    Random::new(now ^ u64::from(std::process::id())).draw() % 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_published_sequence() {
        // The first values of SplitMix64 for seed 0, as published by its authors.
        let mut random = Random::new(0);
        assert_eq!(
            [random.draw(), random.draw(), random.draw()],
            [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]
        );
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut items: Vec<u64> = (0..100).collect();
        Random::new(7).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
