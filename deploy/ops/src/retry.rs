//! Retries: how long the pauses between attempts are, and when to give up. It does not know what is tried, and
//! never sleeps itself.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// How an operation is retried. Every retry names its end; a use of [`End::Never`] has a comment that says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The pause after the first attempt. Each further one is twice as long as the one before.
    pub first: Duration,
    /// The longest pause, before jitter.
    pub longest: Duration,
    pub end: End,
}

/// When to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After this number of attempts, the first one included.
    Attempts(usize),
    /// After this time, counted from the call of [`Retry::pauses`]: no attempt begins later than one pause
    /// after it.
    Within(Duration),
    /// Never; the caller stops when it is told to.
    Never,
}

impl Retry {
    /// Returns the pauses; their time starts now. Jitter makes each up to twice as long, so that processes that
    /// failed together do not retry together.
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

/// An iterator over the pauses after failed attempts. It ends when the operation is to be given up.
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

    /// Checks that each pause is between the expected one without jitter and twice that.
    fn check(pauses: impl Iterator<Item = Duration>, expect: &[u64]) {
        let pauses: Vec<Duration> = pauses.collect();
        assert_eq!(pauses.len(), expect.len(), "{pauses:?}");
        for (pause, millis) in pauses.iter().zip(expect) {
            let least = Duration::from_millis(*millis);
            assert!((least..=2 * least).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_one_fewer_than_the_attempts() {
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
