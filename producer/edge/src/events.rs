//! The way of events out of this process: one emitter, which never waits, and for `track` the wait until an event is safe.
//! Nothing else in this package knows the emitter.

use std::time::Duration;

use anyhow::Context;
use kafka::registry::{Registry, SchemaIdError};
use ops::config::Kafka;
use prometheus::Registry as Metrics;
use schemas::{Event, Sender};
use sdk::emitter::{Durable, Emitter, NotDurable, Refused, SchemaIds, Settings, SpoolSettings, Status};

/// The way out. Its methods take `&self`.
pub struct Events {
    emitter: Emitter,
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
    pub spool: &'a SpoolSettings,
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
        let Opening { kafka, settings, spool, metrics, .. } = opening;
        // Reading what an earlier process left may take a second for each GiB; nobody is served yet.
        let emitter = Emitter::open_with_spool(kafka, settings, spool, sender, metrics, lost)
            .context("opening the emitter and its spool")?;
        Ok(Events { emitter: emitter.with_schema_ids(ids) })
    }

    /// Accepts the event or refuses it at once.
    pub fn emit(&self, event: Event<'_>) -> Result<(), Refused> {
        self.emitter.emit(event)
    }

    /// Accepts the events, and waits for up to `timeout` until each is safe: acknowledged by Kafka, or synced in the spool.
    /// Dropping the future is harmless.
    pub async fn emit_durable(&self, events: Vec<Event<'static>>, timeout: Duration) -> Vec<Outcome> {
        let outcome = |receipt: Result<Durable, NotDurable>| match receipt {
            Ok(Durable::Acknowledged | Durable::Spooled) => Outcome::Safe,
            Err(NotDurable::Refused(refused)) if refused.is_final() => Outcome::Refused(refused.to_string()),
            Err(NotDurable::Refused(refused)) => Outcome::Retry(refused.to_string()),
            Err(NotDurable::Unconfirmed { reason }) => Outcome::Retry(reason),
            // Only the event itself can be wrong for good.
            Err(NotDurable::Failed { reason }) => Outcome::Retry(reason),
        };
        let receipts = self.emitter.emit_durable(events);
        receipts.wait(timeout).await.into_iter().map(outcome).collect()
    }

    /// How the way out is.
    pub fn status(&self) -> Status {
        self.emitter.status()
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
