//! The pause after a failure before the next try, for the round as a whole and for each experiment on its own.
//! This module takes the time as an argument and knows nothing of what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// After a failure the next round waits one interval, then twice as long each time, at most this.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Returns the time from the start of a round to the start of the next, after this many failures in a row.
pub(super) fn pause(interval: Duration, failures: u32) -> Duration {
    match failures {
        0 | 1 => interval,
        // 2^10 intervals of a tenth of a second already exceed the bound.
        more => (interval * 2u32.pow((more - 1).min(10))).min(BACKOFF_MAX.max(interval)),
    }
}

/// The experiments that could not be analyzed when they were last tried.
#[derive(Debug, Default)]
pub struct Failing(BTreeMap<String, Failure>);

#[derive(Debug)]
struct Failure {
    times: u32,
    tried_again: Instant,
}

impl Failing {
    pub(super) fn rests(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|failure| now < failure.tried_again)
    }

    pub(super) fn note(&mut self, key: &str, interval: Duration, now: Instant) {
        let failure = self.0.entry(key.to_owned()).or_insert(Failure { times: 0, tried_again: now });
        failure.times += 1;
        // A little less than the pause, so that the round that begins after the pause tries it.
        failure.tried_again = now + pause(interval, failure.times) - interval / 2;
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn keep_only(&mut self, followed: &BTreeSet<&str>) {
        self.0.retain(|key, _| followed.contains(key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_later_each_time_up_to_a_minute() {
        let seconds = |failures| pause(Duration::from_secs(10), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 40].map(seconds), [10, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn an_experiment_that_fails_rests_longer_each_time_and_alone() {
        let (interval, start) = (Duration::from_secs(10), Instant::now());
        let mut failing = Failing::default();
        let rest =
            |failing: &Failing| (0..200).find(|s| !failing.rests("one", start + Duration::from_secs(*s)));
        let rests = [0; 5].map(|_| {
            failing.note("one", interval, start);
            rest(&failing)
        });
        assert_eq!(rests, [Some(5), Some(15), Some(35), Some(55), Some(55)]);
        assert!(!failing.rests("other", start));
        failing.forget("one");
        assert_eq!(rest(&failing), Some(0));
        failing.note("one", interval, start);
        failing.keep_only(&BTreeSet::from(["other"]));
        assert_eq!(rest(&failing), Some(0));
    }

    #[test]
    fn an_interval_beyond_a_minute_is_never_shortened_by_failures() {
        assert_eq!(pause(Duration::from_secs(3_600), 5), Duration::from_secs(3_600));
    }
}
