//! What the event streams are told: the revision in force and when it began. A new one is announced when a configuration is
//! put into service, and when an instant passes at which an answer may change by time alone.

use std::sync::Arc;
use std::time::Duration;

use ops::Shutdown;
use schemas::Micros;
use sdk::event::now;
use tokio::sync::watch;

use crate::configuration::Configuration;
use crate::etag::Revision;
use crate::serving::Serving;

/// The longest sleep until the next instant: the clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// A revision with the time since which it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub revision: Revision,
    /// Seconds since 1970.
    pub modified_s: i64,
}

impl Announcement {
    fn of(configuration: &Configuration, now: Micros) -> Announcement {
        Announcement { revision: configuration.revision(now), modified_s: configuration.modified_s(now) }
    }

    /// The event that tells a client to ask again.
    pub fn event(&self) -> String {
        let Announcement { revision, modified_s } = self;
        // A revision has no characters that JSON would escape.
        format!(
            "id: {revision}\nevent: message\ndata: {{\"type\":\"refetchEvaluation\",\"etag\":\"\\\"{revision}\\\"\",\
             \"lastModified\":{modified_s}}}\n\n"
        )
    }
}

/// Keeps the announcement up to date until the shutdown.
pub async fn run(serving: Serving, announced: watch::Sender<Option<Announcement>>, shutdown: Shutdown) {
    let mut configurations = serving.subscribe();
    loop {
        let configuration = configurations.borrow_and_update().clone();
        let current = configuration.as_ref().map(|configuration| Announcement::of(configuration, now()));
        announced.send_if_modified(|before| {
            let news = *before != current;
            *before = current;
            news
        });
        // Losing is harmless: each branch only says that it is time to look again.
        tokio::select! {
            changed = configurations.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(until_next(configuration.as_ref())) => {}
            _ = shutdown.wait() => return,
        }
    }
}

/// The time until the next instant at which an answer may change.
fn until_next(configuration: Option<&Arc<Configuration>>) -> Duration {
    let now = now();
    let Some(instant) = configuration.and_then(|configuration| configuration.next_instant(now)) else {
        return SLEEP_MAX;
    };
    // One millisecond later than the timer's own, so that it is over then.
    Duration::from_micros((instant.get() - now.get()).unsigned_abs() + 1_000).min(SLEEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_what_clients_parse() {
        let revision = Revision { log: "Zl3-OYY".to_owned(), version: 12, epoch: 3 };
        assert_eq!(
            Announcement { revision, modified_s: 1_771_622_898 }.event(),
            concat!(
                "id: Zl3-OYY.12.3\nevent: message\n",
                r#"data: {"type":"refetchEvaluation","etag":"\"Zl3-OYY.12.3\"","lastModified":1771622898}"#,
                "\n\n"
            )
        );
    }
}
