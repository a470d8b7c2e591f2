//! Counts exposures by sender and verification. A partition counts for itself, so that the shared counters are
//! touched once for many rows. Senders name themselves, so the number of labels is bounded.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounterVec;

use crate::pipeline::verify::Verification;

/// Senders that get a label of their own. All others share one.
const SENDERS_MAX: usize = 100;
const OTHERS: &str = "others";

/// Counts that have not been added to the shared counters yet.
#[derive(Default)]
pub struct Tally {
    // Few senders write to a partition at a time. A list is searched faster than a map.
    by_sender: Vec<(String, [u64; Verification::ALL.len()])>,
}

/// The counters, shared by all partitions.
pub struct Senders {
    exposures: IntCounterVec,
    labelled: Mutex<HashSet<String>>,
}

impl Tally {
    pub fn count(&mut self, service: &str, verification: Verification) {
        let at = match self.by_sender.iter().position(|(known, _)| known == service) {
            Some(at) => at,
            None => {
                self.by_sender.push((service.to_owned(), Default::default()));
                self.by_sender.len() - 1
            }
        };
        self.by_sender[at].1[verification as usize] += 1;
    }

    /// Adds the counts to the shared counters.
    pub fn flush(&mut self, senders: &Senders) {
        for (service, counts) in self.by_sender.drain(..) {
            senders.add(&service, counts);
        }
    }
}

impl Senders {
    /// `exposures` has the labels verification and sender, in this order.
    pub fn new(exposures: IntCounterVec) -> Senders {
        Senders { exposures, labelled: Mutex::default() }
    }

    fn add(&self, service: &str, counts: [u64; Verification::ALL.len()]) {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if labelled.contains(service) {
            service
        } else if labelled.len() < SENDERS_MAX {
            labelled.insert(service.to_owned());
            service
        } else {
            OTHERS
        };
        for verification in Verification::ALL {
            let count = counts[verification as usize];
            if count > 0 {
                self.exposures.with_label_values(&[verification.as_str(), label]).inc_by(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn counts_go_to_their_sender_and_too_many_senders_share_one_label() {
        let counters = IntCounterVec::new(Opts::new("exposures", "-"), &["verification", "sender"]).unwrap();
        let senders = Senders::new(counters.clone());
        let mut tally = Tally::default();
        tally.count("web", Verification::Verified);
        tally.count("web", Verification::Verified);
        tally.count("web", Verification::Mismatched);
        for number in 0..SENDERS_MAX {
            tally.count(&format!("service-{number}"), Verification::Unknown);
        }
        tally.flush(&senders);
        tally.flush(&senders);
        let count =
            |verification: &str, sender: &str| counters.with_label_values(&[verification, sender]).get();
        assert_eq!((count("verified", "web"), count("mismatched", "web")), (2, 1));
        assert_eq!((count("unknown", "service-0"), count("unknown", "service-98")), (1, 1));
        assert_eq!((count("unknown", "service-99"), count("unknown", OTHERS)), (0, 1));
    }
}
