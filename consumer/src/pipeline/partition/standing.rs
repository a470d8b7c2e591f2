//! Whether a partition goes forward, told by its offsets: a worker that only tries again comes round as often
//! as one that works. What stands is named in `/readyz` and in the metric `consumer_stalled`.

use std::time::{Duration, Instant};

/// Doubts that are over by then are part of the work: a restart of ClickHouse, a new leader, a rebalance.
const STANDS_AFTER: Duration = Duration::from_secs(30);

/// The state of one partition, as `/readyz` shows it.
pub struct Standing {
    condition: ops::Condition,
    /// The first doubt since the partition last went forward.
    since: Option<Instant>,
}

impl Standing {
    /// A partition that has just been given. It counts as going forward until something speaks against it.
    pub fn new(condition: ops::Condition) -> Standing {
        condition.holds();
        Standing { condition, since: None }
    }

    /// Something failed at `now`, and the worker starts over from what is durable.
    pub fn doubt(&mut self, now: Instant, why: &str) {
        let stood = now.saturating_duration_since(*self.since.get_or_insert(now));
        if stood >= STANDS_AFTER {
            self.condition.fails(format!("has not gone forward for {} s: {why}", stood.as_secs()));
        }
    }

    /// It stands until an operator has decided.
    pub fn halt(&mut self, now: Instant, why: &str) {
        self.since.get_or_insert(now);
        self.condition.fails(format!("stands still until an operator has decided: {why}"));
    }

    /// Rows have become durable, an offset was committed, or there is nothing to take.
    pub fn forward(&mut self) {
        self.since = None;
        self.condition.holds();
    }

    /// The partition is somebody else's.
    pub fn given_back(self) {
        self.condition.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(health: &ops::Health) -> String {
        health.ready().checks["exposures/0 goes forward"].clone()
    }

    #[test]
    fn retries_alone_do_not_make_it_ready() {
        let health = ops::Health::new();
        let mut standing = Standing::new(health.condition("exposures/0 goes forward", "new"));
        let start = Instant::now();
        for second in 0..30 {
            standing.doubt(start + Duration::from_secs(second), "no leader");
            assert_eq!(told(&health), "ok");
        }
        standing.doubt(start + Duration::from_secs(30), "no leader");
        assert_eq!(told(&health), "has not gone forward for 30 s: no leader");
        standing.forward();
        assert_eq!(told(&health), "ok");
        // Counted from the first doubt after it went forward.
        standing.doubt(start + Duration::from_secs(31), "no leader");
        assert_eq!(told(&health), "ok");
    }

    #[test]
    fn a_halt_is_told_at_once_and_goes_with_the_partition() {
        let health = ops::Health::new();
        let mut standing = Standing::new(health.condition("exposures/0 goes forward", "new"));
        standing.halt(Instant::now(), "rows are gone");
        assert_eq!(told(&health), "stands still until an operator has decided: rows are gone");
        standing.given_back();
        assert!(health.ready().checks.is_empty());
    }
}
