//! The way of events out of this process: one emitter, which never waits, and for `track` the wait until an event is safe.
//! Nothing else in this package knows the emitter.

use std::time::{Duration, Instant};

use anyhow::Context;
use kafka::registry::{Registry, SchemaIdError};
use ops::config::Kafka;
use prometheus::Registry as Metrics;
use schemas::{Event, Sender};
use sdk::emitter::{Emitter, Refused, SchemaIds, Settings};

/// The way out. Its methods take `&self`.
pub struct Events {
    emitter: Emitter,
    watched: std::sync::Mutex<Watched>,
}

/// For how long Kafka has acknowledged nothing.
struct Watched {
    delivered: u64,
    since: Instant,
}

/// What became of an event whose fate was awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It survives this process and this machine's Kafka being away.
    Safe,
    /// It can never be accepted.
    Refused(String),
    /// It is not safe; sending it again is.
    Retry(String),
}

/// What opens the way out.
pub struct Opening<'a> {
    pub kafka: &'a Kafka,
    pub settings: &'a Settings,
    pub registry: &'a ops::config::Registry,
    /// Names this process in the events that it makes.
    pub instance: String,
    pub metrics: &'a Metrics,
}

impl Events {
    /// Opens the emitter. Kafka need not be there.
    pub async fn open(opening: Opening<'_>) -> anyhow::Result<Events> {
        let sender = Sender {
            service: "edge".into(),
            instance: opening.instance.into(),
            library_version: env!("CARGO_PKG_VERSION").into(),
        };
        let ids = schema_ids(opening.kafka, opening.registry).await?;
        let lost = |undelivered: sdk::Undelivered| {
            tracing::error!(topic = undelivered.topic, reason = undelivered.reason, "an event was lost");
        };
        let emitter = Emitter::open(opening.kafka, opening.settings, sender, opening.metrics, lost)
            .context("opening the emitter")?
            .with_schema_ids(ids);
        let watched = Watched { delivered: 0, since: Instant::now() };
        Ok(Events { emitter, watched: watched.into() })
    }

    /// Accepts the event or refuses it at once.
    pub fn emit(&self, event: Event<'_>) -> Result<(), Refused> {
        self.emitter.emit(event)
    }

    /// Accepts the events, and waits for up to `timeout` until each is safe. Dropping the future is harmless.
    pub async fn emit_durable(&self, events: Vec<Event<'static>>, timeout: Duration) -> Vec<Outcome> {
        let failed_before = self.emitter.totals().failed;
        let emitted: Vec<Result<(), Refused>> =
            events.into_iter().map(|event| self.emitter.emit(event)).collect();
        // An empty queue has no event of ours any more.
        let flushed = self.emitter.flush(timeout).await;
        let failed = self.emitter.totals().failed > failed_before;
        let outcome = |emitted: Result<(), Refused>| match emitted {
            Err(refused @ (Refused::OutOfRange(_) | Refused::Oversize { .. })) => {
                Outcome::Refused(refused.to_string())
            }
            Err(refused) => Outcome::Retry(refused.to_string()),
            Ok(()) if flushed.is_err() => Outcome::Retry("kafka has not acknowledged it in time".to_owned()),
            Ok(()) if failed => Outcome::Retry("kafka did not take all events".to_owned()),
            Ok(()) => Outcome::Safe,
        };
        emitted.into_iter().map(outcome).collect()
    }

    /// For how long events have waited without any acknowledgement, and how many wait; `None` if none waits.
    pub fn stalled(&self, now: Instant) -> Option<(Duration, u64)> {
        let (remaining, totals) = (self.emitter.remaining(), self.emitter.totals());
        let mut watched = self.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let settled = totals.delivered + totals.failed;
        if remaining == 0 || settled != watched.delivered {
            *watched = Watched { delivered: settled, since: now };
        }
        (remaining > 0).then(|| (now.saturating_duration_since(watched.since), remaining))
    }

    /// Waits until what was accepted is safe, for up to `timeout`, and closes the client.
    ///
    /// # Errors
    /// Says how many events are not safe.
    pub async fn close(self, timeout: Duration) -> anyhow::Result<()> {
        self.emitter.close(timeout).await.context("closing the emitter")
    }
}

/// The registry's ids of the schemas. Without an answer of the registry events name their schema by its fingerprint, which
/// every reader knows too: the edge must start while what is behind it is away.
async fn schema_ids(kafka: &Kafka, settings: &ops::config::Registry) -> anyhow::Result<Option<SchemaIds>> {
    let Some(registry) = Registry::open(settings).map_err(ops::config::Error::from)? else {
        return Ok(None);
    };
    let kafka = kafka.clone();
    match tokio::task::spawn_blocking(move || SchemaIds::obtain(&registry, &kafka)).await? {
        Ok(ids) => Ok(Some(ids)),
        Err(SchemaIdError::Unavailable(error)) => {
            tracing::warn!(%error, "the registry does not answer; events name their schema by its fingerprint");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
