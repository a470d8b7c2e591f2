//! The bound on the bytes of messages that are not durable yet, over all partitions of a process. It is checked
//! before a fetch, so it may be exceeded by one fetch for each partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The common bound. All clones count together.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What one batch holds of it, given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { used: Arc::default(), bytes_max }
    }

    /// Whether no more may be taken.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.bytes_max
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty share.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

impl Share {
    pub fn grow(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(60);
        second.grow(39);
        assert_eq!((budget.used(), budget.is_spent()), (99, false));
        second.grow(1);
        assert!(budget.is_spent());
        drop(first);
        assert_eq!((budget.used(), budget.is_spent()), (40, false));
    }
}
