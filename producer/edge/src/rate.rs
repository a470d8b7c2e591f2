//! How many requests a token may make, and how many events it may report: each a bucket that fills at a steady rate up to a
//! burst. A batch of events is let in if there is room for one, and what it takes beyond that is waited for afterwards. It reads
//! no clock.

use std::time::Instant;

/// Requests a second, and how many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub per_second: u32,
    /// 1 to 1,000,000.
    pub burst: u32,
}

/// The state of one token's rate.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// Requests or events that may come at once, at `at`; at most the burst. Below 0 for events that are still to be waited for.
    level: f64,
    at: Instant,
}

/// The request came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Whole seconds after which there is room for one request, at least 1.
    pub retry_after_s: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, level: rate.burst.into(), at: now }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The same state for a token that takes this one's place.
    pub fn copy(&self) -> Bucket {
        Bucket { ..*self }
    }

    /// Takes one request out of the bucket.
    pub fn take(&mut self, now: Instant) -> Result<(), TooMany> {
        self.take_batch(1, now)
    }

    /// Takes so many events out of the bucket if there is room for one: a batch that is larger than the burst would else be
    /// refused for ever. So what is owed is never more than one batch.
    pub fn take_batch(&mut self, events: usize, now: Instant) -> Result<(), TooMany> {
        let Rate { per_second, burst } = self.rate;
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * f64::from(per_second)).min(burst.into());
        self.at = self.at.max(now);
        if self.level >= 1.0 {
            self.level -= events as f64;
            return Ok(());
        }
        let missing_s = (1.0 - self.level) / f64::from(per_second);
        Err(TooMany { retry_after_s: (missing_s.ceil() as u64).max(1) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 3 }, start);
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(bucket.take(at(0)), Ok(()));
        }
        assert_eq!(bucket.take(at(0)), Err(TooMany { retry_after_s: 1 }));
        assert_eq!(bucket.take(at(99)), Err(TooMany { retry_after_s: 1 }));
        assert_eq!(bucket.take(at(101)), Ok(()));
        assert_eq!(bucket.take(at(102)), Err(TooMany { retry_after_s: 1 }));
        // After a long pause only the burst is there.
        for _ in 0..3 {
            assert_eq!(bucket.take(at(60_000)), Ok(()));
        }
        assert_eq!(bucket.take(at(60_000)), Err(TooMany { retry_after_s: 1 }));
    }

    #[test]
    fn the_events_of_a_batch_are_waited_for_after_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 5 }, start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.take_batch(100, at(0)), Ok(()));
        // 95 are owed, and one more is needed: 9.6 seconds.
        assert_eq!(bucket.take(at(0)), Err(TooMany { retry_after_s: 10 }));
        assert_eq!(bucket.take(at(9_590)), Err(TooMany { retry_after_s: 1 }));
        assert_eq!(bucket.take(at(9_610)), Ok(()));
        assert_eq!(bucket.take(at(9_610)), Err(TooMany { retry_after_s: 1 }));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut bucket = Bucket::new(Rate { per_second: 1, burst: 1 }, start);
        assert_eq!(bucket.take(start), Ok(()));
        assert!(bucket.take(start - Duration::from_secs(50)).is_err());
        assert!(bucket.take(start + Duration::from_millis(999)).is_err());
        assert_eq!(bucket.take(start + Duration::from_millis(1_001)), Ok(()));
    }
}
