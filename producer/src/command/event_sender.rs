//! Sends events for `replay` and `simulate`: an emitter that waits for room instead of dropping events, and the
//! wait until Kafka has acknowledged all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::topics;
use anyhow::{Context, anyhow, bail};
use kafka::registry::{Registry, SchemaIdError};
use ops::Exit;
use schemas::{Event, Sender};
use sdk::emitter::{Emitter, Refused, SchemaIds, Totals};

use crate::config::Config;

/// The longest time for which Kafka may acknowledge nothing while events wait. A restart of a broker takes much
/// less.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The time between two checks of the events that are left.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Sends events, and keeps the reason of the first one that was not delivered.
pub struct EventSender {
    emitter: Emitter,
    brokers: String,
    lost: Arc<Mutex<Option<String>>>,
}

impl EventSender {
    /// Checks that the topics exist and opens an emitter. `instance` is put into events that name no sender.
    pub async fn open(config: &Config, instance: String) -> anyhow::Result<EventSender> {
        let missing = topics::missing(&config.kafka).await.context(Exit::Unreachable)?;
        if !missing.is_empty() {
            let error =
                anyhow!("kafka has no topic {}; create it with `splitstream topics`", missing.join(", "));
            return Err(error.context(Exit::Unreachable));
        }
        let sender = Sender {
            service: "producer".into(),
            instance: instance.into(),
            library_version: env!("CARGO_PKG_VERSION").into(),
        };
        let schema_ids = schema_ids(config).await?;
        let lost = Arc::new(Mutex::new(None));
        let first = lost.clone();
        let emitter = Emitter::open(
            &config.kafka,
            &config.producer,
            sender,
            &ops::metrics::registry("producer", env!("CARGO_PKG_VERSION")),
            move |undelivered| {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{}: {}", undelivered.topic, undelivered.reason));
            },
        )?
        .with_schema_ids(schema_ids);
        Ok(EventSender { emitter, brokers: config.kafka.brokers.as_str().to_owned(), lost })
    }

    /// Queues the event; waits while the queue is full. The inner error means that the event itself is out of
    /// range.
    pub async fn send(&self, event: Event<'_>) -> anyhow::Result<Result<(), String>> {
        match self.emitter.emit_when_room(event, STALL_TIMEOUT).await {
            Ok(()) => Ok(Ok(())),
            Err(refused @ (Refused::OutOfRange(_) | Refused::Oversize { .. })) => {
                Ok(Err(refused.to_string()))
            }
            Err(Refused::QueueFull | Refused::SpoolFull) => Err(self.stalled()),
            Err(refused @ Refused::Stopped { .. }) => Err(refused.into()),
        }
    }

    /// Waits until all events are acknowledged, and closes the client.
    ///
    /// # Errors
    /// If an event was given up, or Kafka stopped acknowledging.
    pub async fn finish(self) -> anyhow::Result<Totals> {
        let (mut settled, mut since) = (0, Instant::now());
        while self.emitter.flush(POLL_INTERVAL).await.is_err() {
            let totals = self.emitter.totals();
            if totals.delivered + totals.failed != settled {
                (settled, since) = (totals.delivered + totals.failed, Instant::now());
            }
            if since.elapsed() >= STALL_TIMEOUT {
                return Err(self.stalled());
            }
        }
        let totals = self.emitter.totals();
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.emitter.close(Duration::ZERO).await?;
        if let Some(first) = lost {
            bail!(
                "{} of {} events were not delivered, the first because {first}; sending all of them again is \
                 safe, they keep their ids",
                totals.failed,
                totals.accepted
            );
        }
        Ok(totals)
    }

    fn stalled(&self) -> anyhow::Error {
        anyhow!(
            "kafka at {} acknowledged nothing for {} s while {} events were waiting; sending all of them again \
             is safe, they keep their ids",
            self.brokers,
            STALL_TIMEOUT.as_secs(),
            self.emitter.remaining()
        )
        .context(Exit::Unreachable)
    }
}

/// The registry's ids of the event schemas; `None` if no registry is configured.
async fn schema_ids(config: &Config) -> anyhow::Result<Option<SchemaIds>> {
    let Some(registry) = Registry::open(&config.registry).map_err(ops::config::Error::from)? else {
        return Ok(None);
    };
    let kafka = config.kafka.clone();
    let schema_ids = tokio::task::spawn_blocking(move || SchemaIds::obtain(&registry, &kafka)).await?;
    match schema_ids {
        Ok(ids) => Ok(Some(ids)),
        Err(error @ SchemaIdError::Unavailable(_)) => {
            Err(anyhow::Error::new(error).context(Exit::Unreachable))
        }
        Err(error) => Err(error.into()),
    }
}
