//! Whether a partition makes progress, judged by its offsets: a worker that only retries makes as many rounds as one
//! that works. `/readyz` and the metric `consumer_stalled` name a partition that stands still.

use std::time::{Duration, Instant};

/// Failures that are over by then are part of the work: a restart of ClickHouse, a new leader, a rebalance.
const STANDS_AFTER: Duration = Duration::from_secs(30);

/// The state of one partition, as `/readyz` shows it.
pub struct Readiness {
    condition: ops::Condition,
    /// The first failure since the partition last made progress.
    since: Option<Instant>,
}

impl Readiness {
    /// A partition that has just been assigned. It counts as making progress until something fails.
    pub fn new(condition: ops::Condition) -> Readiness {
        condition.holds();
        Readiness { condition, since: None }
    }

    /// Something failed at `now`; the worker resumes from what is durable.
    pub fn failed(&mut self, now: Instant, why: &str) {
        let stood = now.saturating_duration_since(*self.since.get_or_insert(now));
        if stood >= STANDS_AFTER {
            self.condition.fails(format!("has made no progress for {} s: {why}", stood.as_secs()));
        }
    }

    /// The partition is halted until an operator acts.
    pub fn halt(&mut self, now: Instant, why: &str) {
        self.since.get_or_insert(now);
        self.condition.fails(format!("halted; an operator must act: {why}"));
    }

    /// Rows have become durable, an offset was committed, or there is nothing to take.
    pub fn made_progress(&mut self) {
        self.since = None;
        self.condition.holds();
    }

    /// The partition has been given back.
    pub fn given_back(self) {
        self.condition.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(health: &ops::Health) -> String {
        health.ready().checks["exposures/0 makes progress"].clone()
    }

    #[test]
    fn retries_alone_do_not_make_it_ready() {
        let health = ops::Health::new();
        let mut readiness = Readiness::new(health.condition("exposures/0 makes progress", "new"));
        let start = Instant::now();
        for second in 0..30 {
            readiness.failed(start + Duration::from_secs(second), "no leader");
            assert_eq!(told(&health), "ok");
        }
        readiness.failed(start + Duration::from_secs(30), "no leader");
        assert_eq!(told(&health), "has made no progress for 30 s: no leader");
        readiness.made_progress();
        assert_eq!(told(&health), "ok");
        // Counted from the first failure after it went forward.
        readiness.failed(start + Duration::from_secs(31), "no leader");
        assert_eq!(told(&health), "ok");
    }

    #[test]
    fn a_halt_is_told_at_once_and_goes_with_the_partition() {
        let health = ops::Health::new();
        let mut readiness = Readiness::new(health.condition("exposures/0 makes progress", "new"));
        readiness.halt(Instant::now(), "rows are gone");
        assert_eq!(told(&health), "halted; an operator must act: rows are gone");
        readiness.given_back();
        assert!(health.ready().checks.is_empty());
    }
}
