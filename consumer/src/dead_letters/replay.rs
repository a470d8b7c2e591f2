//! Sends dead letters again: the same bytes into the partition of their origin, where the consumer recognizes an
//! event that it has taken meanwhile. Each is acknowledged before it is marked as sent. After a crash between the
//! two it is sent once more, and the consumer sees a duplicate.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemas::topics::{DEAD_LETTERS, dead_letter_headers as headers};
use serde::Serialize;

use super::{DeadLetter, encode_key};
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::Plans;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// How many were sent, and how many were left out for which reason.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub sent: u64,
    /// Sent again before.
    pub before: u64,
    /// Too long to have been kept whole.
    pub cut: u64,
}

/// What to do with a dead letter.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Send,
    SentBefore,
    Incomplete,
}

fn decide(letter: &DeadLetter, again: bool) -> Decision {
    match letter {
        _ if letter.payload.len() as u64 != letter.payload_bytes => Decision::Incomplete,
        _ if letter.replays > 0 && !again => Decision::SentBefore,
        _ => Decision::Send,
    }
}

/// Sends `letters` again. Those that were sent again before are left out unless `again` is set.
pub async fn replay(
    kafka: &ops::config::Kafka,
    letters: &[DeadLetter],
    again: bool,
    plans: &mut Plans,
) -> Result<Replayed> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties().map_err(ops::config::Error::from)? {
        config.set(name, value);
    }
    let producer: FutureProducer = config
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", ACKNOWLEDGED_WITHIN.as_millis().to_string())
        .set("partitioner", "murmur2_random")
        .create()
        .context("making the producer of replayed letters")?;
    let marks = kafka.topic(DEAD_LETTERS);
    let mut replayed = Replayed::default();
    for letter in letters {
        match decide(letter, again) {
            Decision::SentBefore => replayed.before += 1,
            Decision::Incomplete => replayed.cut += 1,
            Decision::Send => {
                send(&producer, kafka, letter, plans).await?;
                mark(&producer, &marks, letter).await?;
                replayed.sent += 1;
            }
        }
    }
    Ok(replayed)
}

async fn send(
    producer: &FutureProducer,
    kafka: &ops::config::Kafka,
    letter: &DeadLetter,
    plans: &mut Plans,
) -> Result<()> {
    let origin = &letter.origin;
    let table = Table::ALL.into_iter().find(|table| kafka.topic(table.topic()) == origin.topic);
    let key = table.and_then(|table| key(table, &letter.payload, plans));
    let mut record = FutureRecord::<str, [u8]>::to(&origin.topic)
        .partition(origin.partition.into())
        .payload(&letter.payload);
    if let Some(key) = &key {
        record = record.key(key);
    }
    let sent = producer.send(record, ACKNOWLEDGED_WITHIN).await;
    sent.map_err(|(error, _)| anyhow!(error))
        .with_context(|| format!("sending {}/{}/{} again", origin.topic, origin.partition, origin.offset))?;
    Ok(())
}

/// The key that the event's sender gave it, if the bytes can be decoded by now.
fn key(table: Table, payload: &[u8], plans: &mut Plans) -> Option<String> {
    match decode(table, payload, plans).ok()? {
        Decoded::Exposure(exposure) => Some(exposure.unit_id.into_owned()),
        Decoded::Conversion(conversion) => Some(conversion.unit_id.into_owned()),
        Decoded::Alias(alias) => Some(alias.from.unit_id.into_owned()),
        Decoded::Change(change) => Some(change.key),
        Decoded::Look(record) => Some(record.experiment),
    }
}

async fn mark(producer: &FutureProducer, topic: &str, letter: &DeadLetter) -> Result<()> {
    let origin = &letter.origin;
    let key = encode_key(&origin.topic, origin.partition, origin.offset);
    let (partition, offset) = (origin.partition.to_string(), origin.offset.to_string());
    let header = |key, value| Header { key, value: Some(value) };
    let mut marks = OwnedHeaders::new()
        .insert(header(headers::TOPIC, origin.topic.as_str()))
        .insert(header(headers::PARTITION, &partition))
        .insert(header(headers::OFFSET, &offset))
        .insert(header(headers::CODE, headers::REPLAYED))
        .insert(header(headers::REASON, &letter.code));
    if let Some(epoch) = origin.epoch {
        marks = marks.insert(header(headers::EPOCH, &epoch.to_string()));
    }
    let record = FutureRecord::<str, [u8]>::to(topic).key(&key).headers(marks);
    let sent = producer.send(record, ACKNOWLEDGED_WITHIN).await;
    sent.map_err(|(error, _)| anyhow!(error)).with_context(|| format!("marking {key} as sent again"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    fn letter(replays: u64, payload_bytes: u64) -> DeadLetter {
        DeadLetter {
            origin: Origin { topic: "aliases".to_owned(), partition: 0, offset: 9, epoch: Some(1) },
            code: "not_framed".to_owned(),
            reason: String::new(),
            sent_at_ms: 0,
            payload_bytes,
            replays,
            payload: b"oops!".to_vec(),
        }
    }

    #[test]
    fn once_unless_asked_again_and_only_what_is_whole() {
        assert_eq!(decide(&letter(0, 5), false), Decision::Send);
        assert_eq!(decide(&letter(1, 5), false), Decision::SentBefore);
        assert_eq!(decide(&letter(1, 5), true), Decision::Send);
        assert_eq!(decide(&letter(0, 6), true), Decision::Incomplete);
    }
}
