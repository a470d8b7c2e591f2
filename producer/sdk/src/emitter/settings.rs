//! `[producer]`: the bounds of the queue, what travels with an exposure, and what librdkafka is told so that events are sent once, in order
//! and in batches.

use ops::config::{Bytes, Count, Field, Kafka, Millis, Section};
use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::attributes::AttributeNames;
use kafka::{ConnectError, client::client};

/// How much may wait for Kafka, and for how long a batch is left open.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub queue_events: Count<1_000, 10_000_000>,
    pub queue_bytes: Bytes<1_048_576, 2_147_482_624>,
    pub linger_ms: Millis<0, 1_000>,
    pub attributes: AttributeNames,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            queue_events: Count::of(200_000),
            queue_bytes: Bytes::of(134_217_728),
            linger_ms: Millis::of(20),
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
                "events that may wait for Kafka, at about 300 bytes each beside their own; further ones are refused",
            ),
            Field::of(
                "queue_bytes",
                &self.queue_bytes,
                "encoded bytes that may wait for Kafka, in whole KiB; further events are refused",
            ),
            Field::of(
                "linger_ms",
                &self.linger_ms,
                "how long an event waits for others to share its batch; longer means fewer, larger requests",
            ),
            Field::of(
                "attributes",
                &self.attributes,
                "attributes that travel with exposures besides region, plan, device, browser and what targeting asks; \
                 others stay where they are known",
            ),
        ]
    }
}

impl Settings {
    /// The client's configuration.
    pub(super) fn producer(&self, kafka: &Kafka) -> Result<ClientConfig, ConnectError> {
        let mut config = client(kafka, crate::CLIENT_ID)?;
        config
            // A batch that is sent again is recognized by the broker and written once, in its place.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As Java's clients do, so that a resend lands in the same partition whoever sends it.
            .set("partitioner", "murmur2_random")
            // Not zstd, which makes batches a quarter smaller for three times the work: the processor here is
            // that of the service which embeds this, and the topic keeps the batch as it comes.
            .set("compression.type", "lz4")
            // Sent again until it is delivered. What bounds the wait is the queue: when it is full, the caller
            // is told; when the process ends, the flush is.
            .set("message.timeout.ms", "0")
            .set("linger.ms", self.linger_ms.get().to_string())
            .set("queue.buffering.max.messages", self.queue_events.get().to_string())
            .set("queue.buffering.max.kbytes", (self.queue_bytes.get() / 1_024).to_string());
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_declared_soundly() {
        ops::config::check_declaration::<Settings>().unwrap();
    }
}
