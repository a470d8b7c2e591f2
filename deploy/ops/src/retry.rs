//! Trying again what may pass: how long the pauses between attempts are, and when there are no more. Knows
//! nothing of what is tried, and never sleeps by itself.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// How something is tried again. Every retry names its end; one that has none says why beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The pause behind the first attempt. Each further one is twice as long as the one before.
    pub first: Duration,
    /// No pause is longer than this, before jitter.
    pub longest: Duration,
    pub end: End,
}

/// When it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After so many attempts, the first one included.
    Attempts(usize),
    /// So long after the pauses were begun: no attempt begins later than one pause behind that.
    Within(Duration),
    /// When whoever waits is told to stop.
    Never,
}

impl Retry {
    /// The pauses, from now on. Each is up to twice as long as said, by chance, so that processes that failed
    /// together do not come back together.
    pub fn pauses(self) -> Pauses {
        let growing =
            ExponentialBuilder::new().with_min_delay(self.first).with_max_delay(self.longest).with_jitter();
        let growing = match self.end {
            End::Attempts(attempts) => growing.with_max_times(attempts.saturating_sub(1)),
            End::Within(_) | End::Never => growing.without_max_times(),
        };
        let within = match self.end {
            End::Within(within) => Some(within),
            End::Attempts(_) | End::Never => None,
        };
        Pauses { growing: growing.build(), began: Instant::now(), within }
    }
}

/// One pause behind every failed attempt; none when it is given up.
#[derive(Debug)]
pub struct Pauses {
    growing: ExponentialBackoff,
    began: Instant,
    within: Option<Duration>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.within.is_some_and(|within| self.began.elapsed() >= within) {
            return None;
        }
        self.growing.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_millis(100),
        longest: Duration::from_millis(400),
        end: End::Attempts(5),
    };

    /// The pauses as they are without jitter, and up to twice that.
    fn check(pauses: impl Iterator<Item = Duration>, expect: &[u64]) {
        let pauses: Vec<Duration> = pauses.collect();
        assert_eq!(pauses.len(), expect.len(), "{pauses:?}");
        for (pause, millis) in pauses.iter().zip(expect) {
            let least = Duration::from_millis(*millis);
            assert!((least..=2 * least).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_stand_between_the_attempts() {
        check(RETRY.pauses(), &[100, 200, 400, 400]);
        check(Retry { end: End::Attempts(1), ..RETRY }.pauses(), &[]);
        check(Retry { end: End::Never, ..RETRY }.pauses().take(6), &[100, 200, 400, 400, 400, 400]);
    }

    #[test]
    fn when_the_time_is_over_there_is_no_further_pause() {
        let mut pauses = Retry { end: End::Within(Duration::from_secs(60)), ..RETRY }.pauses();
        assert!(pauses.next().is_some());
        pauses.within = Some(pauses.began.elapsed());
        assert_eq!(pauses.next(), None);
        assert_eq!(Retry { end: End::Within(Duration::ZERO), ..RETRY }.pauses().next(), None);
    }
}
