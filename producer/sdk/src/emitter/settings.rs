//! `[producer]`: the bounds of the queue, the attributes that exposures carry, and the settings of librdkafka
//! with which events are sent once, in order and in batches.

use ops::config::{Bytes, Count, Field, Kafka, Millis, Section};
use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::attributes::AttributeNames;
use kafka::{ConnectError, client::client};

/// How long a batch stays open where nothing is set.
const LINGER_MS: Millis<0, 1_000> = Millis::of(20);

/// The bounds of the queue, the time for which a batch stays open, and further attributes of exposures.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub queue_events: Count<1_000, 10_000_000>,
    pub queue_bytes: Bytes<1_048_576, 2_147_482_624>,
    /// `None` is 20, unless the service has a default of its own.
    pub linger_ms: Option<Millis<0, 1_000>>,
    pub attributes: AttributeNames,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            queue_events: Count::of(200_000),
            queue_bytes: Bytes::of(134_217_728),
            linger_ms: None,
            attributes: AttributeNames::default(),
        }
    }
}

impl Section for Settings {
    const NAME: &'static str = "producer";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of(
                "queue_events",
                &self.queue_events,
                "events that may wait for Kafka, about 300 bytes each besides their own; further ones are refused",
            ),
            Field::of(
                "queue_bytes",
                &self.queue_bytes,
                "encoded bytes that may wait for Kafka, in whole KiB; further events are refused",
            ),
            Field::of(
                "linger_ms",
                &self.linger_ms,
                "how long an event waits for others to share its batch; longer means fewer, larger requests; 20 if it is not \
                 set, and 5 in the edge, which answers when events are safe: at 10 or more they are synced to disk before \
                 Kafka has answered",
            ),
            Field::of(
                "attributes",
                &self.attributes,
                "attributes that exposures carry besides region, plan, device, browser and those that targeting \
                 tests; others stay in the service",
            ),
        ]
    }
}

impl Settings {
    /// Returns the configuration of the client.
    pub(super) fn producer(&self, kafka: &Kafka) -> Result<ClientConfig, ConnectError> {
        let mut config = client(kafka, crate::CLIENT_ID)?;
        config
            // The broker recognizes a batch that is sent again and writes it once, in order.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The partitioner of the Java clients, so that any client sends an event again to the same
            // partition.
            .set("partitioner", "murmur2_random")
            // Not zstd, which makes batches a quarter smaller for three times the CPU time: the embedding
            // service pays for it. The topic stores batches as they were sent.
            .set("compression.type", "lz4")
            // Events are sent again until they are delivered. The queue bounds the wait: a full queue is
            // reported to the caller, and events left at the end of the process to the flush.
            .set("message.timeout.ms", "0")
            .set("linger.ms", self.linger_ms.unwrap_or(LINGER_MS).get().to_string())
            .set("queue.buffering.max.messages", self.queue_events.get().to_string())
            .set("queue.buffering.max.kbytes", (self.queue_bytes.get() / 1_024).to_string());
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_of_the_settings_is_consistent() {
        ops::config::check_declaration::<Settings>().unwrap();
    }
}
