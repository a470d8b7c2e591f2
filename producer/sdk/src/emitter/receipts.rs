//! The answer that a caller waits for: whether an event would survive the death of this process, because Kafka
//! acknowledged it or it is synced in the spool, or why not.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Refused;

/// Where an event is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Kafka has acknowledged it.
    Acknowledged,
    /// It is synced in the spool, and will be sent by this process or the next.
    Spooled,
}

/// Why an event is not known to be safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDurable {
    /// It was not accepted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was accepted and will be sent if this process lives, but neither Kafka nor the disk has confirmed it. To
    /// send it again with its id is safe.
    #[error("{reason}")]
    Unconfirmed { reason: String },
    /// Kafka refused it for good; it was passed to the `undelivered` callback.
    #[error("{reason}")]
    Failed { reason: String },
}

/// Tells the caller about one event.
pub(super) type Receipt = oneshot::Sender<Result<Durable, NotDurable>>;

/// The answers for the events of one call, which are already accepted or refused. Dropping it changes nothing for
/// them.
#[must_use = "the receipts tell whether the events are safe"]
#[derive(Debug)]
pub struct Receipts {
    answers: Vec<Result<oneshot::Receiver<Result<Durable, NotDurable>>, Refused>>,
}

impl Receipts {
    pub(super) fn new() -> Receipts {
        Receipts { answers: Vec::new() }
    }

    pub(super) fn push(&mut self, answer: Result<oneshot::Receiver<Result<Durable, NotDurable>>, Refused>) {
        self.answers.push(answer);
    }

    /// Waits until each event is settled, for up to `timeout`, and returns the answers in the order of the events.
    /// A spool that works settles an event within its `sync_ms`, the sync that is under way then, and the event's own.
    pub async fn wait(self, timeout: Duration) -> Vec<Result<Durable, NotDurable>> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut outcomes = Vec::with_capacity(self.answers.len());
        for answer in self.answers {
            outcomes.push(match answer {
                Err(refused) => Err(NotDurable::Refused(refused)),
                Ok(receiver) => match tokio::time::timeout_at(deadline, receiver).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err(unconfirmed("the emitter was closed".to_owned())),
                    Err(_) => {
                        let waited = timeout.as_millis();
                        Err(unconfirmed(format!(
                            "neither kafka nor the disk confirmed it within {waited} ms"
                        )))
                    }
                },
            });
        }
        outcomes
    }
}

fn unconfirmed(reason: String) -> NotDurable {
    NotDurable::Unconfirmed { reason }
}
