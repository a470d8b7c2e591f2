//! Sends messages that cannot become rows to the dead-letter topic, with their origin and the reason. The consumer
//! passes the offset of a dead letter only after the broker has acknowledged it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use schemas::topics::{DEAD_LETTERS, dead_letter_headers as headers};

use super::encode_key;
use crate::pipeline::store::Place;

/// Dead letters that wait for the broker at the same time, over all partitions.
const QUEUE_MAX: &str = "10000";
/// Longest wait for one acknowledgement. After it the partition resumes from what is durable.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a message that its dead letter carries. Every message that the brokers took must fit here together
/// with the headers: a dead letter that is refused would hold the partition up for ever. No event has a tenth of
/// this.
const PAYLOAD_BYTES_MAX: usize = 900_000;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 4_096;

pub struct DeadLetterProducer {
    producer: FutureProducer,
    topic: String,
}

/// A dead letter that the broker has not acknowledged yet.
pub struct Delivery(DeliveryFuture);

impl DeadLetterProducer {
    pub fn open(kafka: &ops::config::Kafka) -> Result<DeadLetterProducer> {
        let mut config = ClientConfig::new();
        for (name, value) in kafka.properties().map_err(ops::config::Error::from)? {
            config.set(name, value);
        }
        let producer = config
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", QUEUE_MAX)
            .set("message.timeout.ms", ACKNOWLEDGED_WITHIN.as_millis().to_string())
            .set("partitioner", "murmur2_random")
            .create()
            .context("making the producer of dead letters")?;
        Ok(DeadLetterProducer { producer, topic: kafka.topic(DEAD_LETTERS) })
    }

    /// Sends the bytes as they came. `None` if the queue is full: wait and try again.
    pub fn send(
        &self,
        place: &Place,
        offset: u64,
        code: &str,
        reason: &str,
        payload: &[u8],
    ) -> Result<Option<Delivery>> {
        let key = encode_key(&place.topic, place.partition, offset);
        let (partition, offset) = (place.partition.to_string(), offset.to_string());
        let epoch = place.epoch.to_string();
        let header = |key, value| Header { key, value: Some(value) };
        let whole_bytes = payload.len().to_string();
        let payload = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
        let reason = beginning(reason, REASON_BYTES_MAX);
        let record = FutureRecord::to(&self.topic).key(&key).payload(payload).headers(
            OwnedHeaders::new()
                .insert(header(headers::TOPIC, place.topic.as_str()))
                .insert(header(headers::PARTITION, &partition))
                .insert(header(headers::OFFSET, &offset))
                .insert(header(headers::EPOCH, &epoch))
                .insert(header(headers::CODE, code))
                .insert(header(headers::REASON, reason))
                .insert(header(headers::PAYLOAD_BYTES, &whole_bytes)),
        );
        match self.producer.send_result(record) {
            Ok(sent) => Ok(Some(Delivery(sent))),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(None),
            Err((error, _)) => Err(error).with_context(|| format!("sending {key} to `{}`", self.topic)),
        }
    }

    /// Waits until the broker has acknowledged all of them.
    pub async fn acknowledged(&self, sent: Vec<Delivery>) -> Result<()> {
        for Delivery(delivery) in sent {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => {
                    return Err(error)
                        .with_context(|| format!("waiting for a dead letter in `{}`", self.topic));
                }
                Err(_) => bail!("the producer of dead letters ended before the broker answered"),
            }
        }
        Ok(())
    }

    pub fn flush(&self, within: Duration) {
        if let Err(error) = self.producer.flush(within) {
            tracing::warn!(%error, "dead letters unacknowledged at the end; they will be sent again");
        }
    }
}

/// The beginning of a text, cut between two characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(beginning("a\u{e9}b", 2), "a");
        assert_eq!(beginning("a\u{e9}b", 3), "a\u{e9}");
        assert_eq!(beginning("ab", 9), "ab");
    }
}
