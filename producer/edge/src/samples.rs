//! A bounded uniform sample of the contexts of the last minutes, so that a rule can be tried on real ones before it is
//! applied. It is kept in memory alone and read on the private port. It draws from the numbers that it is given.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The time over which one sample is drawn; the answer has the last whole one and the one that is being drawn.
pub const WINDOW: Duration = Duration::from_secs(600);
/// A longer context is left out, and counted.
pub const SAMPLE_BYTES_MAX: usize = 8_192;

/// Draws the sample.
#[derive(Debug)]
pub struct Samples {
    capacity: usize,
    current: Window,
    previous: Window,
    random: u64,
}

/// A uniform sample of the contexts of a span of time.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    #[serde(skip)]
    began: Instant,
    /// Contexts seen, of which the sample was drawn.
    pub seen: u64,
    /// Contexts of more than 8,192 bytes, which are no part of it.
    pub too_long: u64,
    /// Each as JSON.
    pub contexts: Vec<Box<serde_json::value::RawValue>>,
}

impl Samples {
    /// A sample of up to `capacity` contexts for each window; none is drawn if that is 0.
    pub fn new(capacity: usize, seed: u64, now: Instant) -> Samples {
        Samples { capacity, current: Window::new(now), previous: Window::new(now), random: seed }
    }

    /// Shows it a context, which `write` turns into JSON if it is drawn.
    pub fn offer(&mut self, now: Instant, write: impl FnOnce() -> String) {
        if self.capacity == 0 {
            return;
        }
        self.turn_if_due(now);
        // Algorithm R: the n-th context takes a place with probability capacity / n.
        self.current.seen += 1;
        let place = match self.current.contexts.len() {
            taken if taken < self.capacity => taken,
            _ => (self.next_random() % self.current.seen) as usize,
        };
        if place >= self.capacity {
            return;
        }
        let text = write();
        if text.len() > SAMPLE_BYTES_MAX {
            self.current.too_long += 1;
            self.current.seen -= 1;
            return;
        }
        let context = serde_json::value::RawValue::from_string(text).expect("a context was written as JSON");
        match self.current.contexts.get_mut(place) {
            Some(before) => *before = context,
            None => self.current.contexts.push(context),
        }
    }

    /// The last whole window and the current one.
    pub fn windows(&mut self, now: Instant) -> [Window; 2] {
        self.turn_if_due(now);
        [self.previous.clone(), self.current.clone()]
    }

    fn turn_if_due(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.current.began);
        if age >= WINDOW {
            let ended = std::mem::replace(&mut self.current, Window::new(now));
            self.previous = if age < 2 * WINDOW { ended } else { Window::new(now) };
        }
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Window {
    fn new(now: Instant) -> Window {
        Window { began: now, seen: 0, too_long: 0, contexts: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_context_has_the_same_chance() {
        let now = Instant::now();
        let mut drawn = [0_u32; 100];
        for seed in 0..2_000 {
            let mut samples = Samples::new(10, seed, now);
            for context in 0..100 {
                samples.offer(now, || context.to_string());
            }
            let [_, current] = samples.windows(now);
            assert_eq!((current.seen, current.contexts.len()), (100, 10));
            for context in current.contexts {
                drawn[context.get().parse::<usize>().unwrap()] += 1;
            }
        }
        // 200 each on average, with a standard deviation of 13.4; five of them on either side.
        assert!(drawn.iter().all(|count| (133..=267).contains(count)), "{drawn:?}");
    }

    #[test]
    fn old_contexts_go_and_long_ones_are_left_out() {
        let start = Instant::now();
        let mut samples = Samples::new(10, 1, start);
        samples.offer(start, || "1".to_owned());
        samples.offer(start, || format!("\"{}\"", "x".repeat(SAMPLE_BYTES_MAX)));
        let sizes = |samples: &mut Samples, at| samples.windows(at).map(|window| window.contexts.len());
        assert_eq!(samples.windows(start)[1].too_long, 1);
        assert_eq!(sizes(&mut samples, start), [0, 1]);
        assert_eq!(sizes(&mut samples, start + WINDOW), [1, 0]);
        assert_eq!(sizes(&mut samples, start + 2 * WINDOW), [0, 0]);
        samples.offer(start + 2 * WINDOW, || "2".to_owned());
        assert_eq!(sizes(&mut samples, start + 5 * WINDOW), [0, 0]);
    }

    #[test]
    fn no_room_means_no_sample() {
        let now = Instant::now();
        let mut samples = Samples::new(0, 1, now);
        samples.offer(now, || panic!("nothing is written"));
        assert_eq!(samples.windows(now)[1].seen, 0);
    }
}
