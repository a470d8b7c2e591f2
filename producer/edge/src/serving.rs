//! What is served right now: the configuration, and whether it may be old. Whoever answers takes both without waiting.

use std::fmt;
use std::sync::Arc;

use schemas::definition::Version;
use tokio::sync::watch;

use crate::configuration::Configuration;

/// The configuration in service; clones share it.
#[derive(Clone)]
pub struct Serving {
    configuration: watch::Sender<Option<Arc<Configuration>>>,
    stale: watch::Sender<Option<Stale>>,
}

/// Why the configuration may be old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It was read from disk, and Kafka has not been read yet.
    Snapshot,
    /// Kafka does not answer.
    Kafka,
    /// The log cannot be followed any further.
    Log,
    /// The client has seen a newer one.
    Behind,
}

impl fmt::Display for Stale {
    /// The value of the header.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Stale::Snapshot => "snapshot",
            Stale::Kafka => "kafka",
            Stale::Log => "log",
            Stale::Behind => "behind",
        })
    }
}

impl Default for Serving {
    fn default() -> Serving {
        Serving { configuration: watch::Sender::new(None), stale: watch::Sender::new(None) }
    }
}

impl Serving {
    /// The configuration; `None` until one was read.
    pub fn configuration(&self) -> Option<Arc<Configuration>> {
        self.configuration.borrow().clone()
    }

    pub fn stale(&self) -> Option<Stale> {
        *self.stale.borrow()
    }

    /// Learns of every configuration that is put into service.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Configuration>>> {
        self.configuration.subscribe()
    }

    pub fn serve(&self, configuration: Arc<Configuration>) {
        self.configuration.send_replace(Some(configuration));
    }

    /// Returns whether this is news.
    pub fn set_stale(&self, stale: Option<Stale>) -> bool {
        self.stale.send_if_modified(|current| std::mem::replace(current, stale) != stale)
    }
}

/// Whether a configuration of this log and version may take the place of the one that is served. An older one of the same
/// log never does. Nor does an empty log: one that was deleted and made anew would take every flag away.
pub fn may_replace(served: Option<(&str, Version)>, log: &str, version: Version) -> bool {
    served.is_none_or(|(served_log, served_version)| {
        let is_another_log = served_log != log && version > 0;
        is_another_log || version >= served_version
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_configuration_of_the_same_log_is_never_served() {
        assert!(may_replace(None, "a", 0));
        assert!(may_replace(Some(("a", 5)), "a", 5));
        assert!(may_replace(Some(("a", 5)), "a", 6));
        assert!(!may_replace(Some(("a", 5)), "a", 4));
        // Another log was made anew, and counts from 0.
        assert!(may_replace(Some(("a", 5)), "b", 1));
        // Nothing was defined in it yet.
        assert!(!may_replace(Some(("a", 5)), "b", 0));
        assert!(may_replace(Some(("a", 0)), "b", 0));
    }
}
