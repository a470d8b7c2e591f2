//! Reads the dead-letter topic. Copies of one dead letter, as after a restart, have the same origin and count as one.
//! A dead letter that was sent again is marked by another record of the same key.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use schemas::topics::{DEAD_LETTERS, dead_letter_headers as headers};
use serde::Serialize;

use super::decode_key;
use crate::topic_reader::TopicReader;

/// Topic, partition and offset of the message that became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    pub topic: String,
    pub partition: u16,
    pub offset: u64,
    /// The consumer's epoch at that time; null in a dead letter of an earlier build.
    pub epoch: Option<u32>,
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    #[serde(flatten)]
    pub origin: Origin,
    pub code: String,
    pub reason: String,
    /// Milliseconds since 1970, by the clock of the dead-letter topic's broker.
    pub sent_at_ms: i64,
    /// Length of the message as it came.
    pub payload_bytes: u64,
    /// How often it was sent again.
    pub replays: u64,
    /// What the dead letter carries of the message: the beginning, if the message was too long.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

/// Which dead letters are meant. A field that is not given does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub topic: Option<String>,
    pub partition: Option<u16>,
    pub offset: Option<u64>,
    pub code: Option<String>,
}

impl Filter {
    fn matches_origin(&self, origin: &Origin) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == origin.topic)
            && self.partition.is_none_or(|partition| partition == origin.partition)
            && self.offset.is_none_or(|offset| offset == origin.offset)
    }

    fn matches(&self, letter: &DeadLetter) -> bool {
        self.matches_origin(&letter.origin) && self.code.as_ref().is_none_or(|code| *code == letter.code)
    }
}

/// The dead letters that match, each once, ordered by origin. Payloads are kept only if asked for, since there may be
/// many dead letters.
pub fn read(kafka: &ops::config::Kafka, filter: &Filter, payloads: bool) -> Result<Vec<DeadLetter>> {
    let topic = kafka.topic(DEAD_LETTERS);
    // The group only serves as a name: nobody joins it and nothing is committed.
    let reader = TopicReader::open(kafka, "splitstream-dead-letters-reader")?;
    let mut by_origin = ByOrigin::default();
    reader
        .read_topic(&topic, |message| {
            let record = Record::of(message).filter(|record| filter.matches_origin(&record.origin));
            if let Some(mut record) = record {
                if !payloads {
                    record.payload = Vec::new();
                }
                by_origin.add(record);
            }
        })
        .context("reading the dead letters")?;
    Ok(by_origin.letters().filter(|letter| filter.matches(letter)).collect())
}

/// A record of the dead-letter topic: a dead letter, or the mark that one was sent again.
struct Record {
    origin: Origin,
    code: String,
    reason: String,
    at_ms: i64,
    payload_bytes: u64,
    payload: Vec<u8>,
}

impl Record {
    /// `None` for a record that no consumer has sent.
    fn of(message: &BorrowedMessage<'_>) -> Option<Record> {
        let (topic, partition, offset) = decode_key(message.key()?)?;
        let payload = message.payload().unwrap_or_default();
        let header = |name: &str| header(message, name);
        Some(Record {
            origin: Origin { topic: topic.to_owned(), partition, offset, epoch: epoch_of(message) },
            code: header(headers::CODE)?,
            reason: header(headers::REASON).unwrap_or_default(),
            at_ms: message.timestamp().to_millis().unwrap_or(0),
            payload_bytes: header(headers::PAYLOAD_BYTES)
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(payload.len() as u64),
            payload: payload.to_vec(),
        })
    }
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let found = message.headers()?.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

/// The epoch at which a consumer sent a dead letter. `None` in a dead letter of an earlier build.
pub(super) fn epoch_of(message: &BorrowedMessage<'_>) -> Option<u32> {
    header(message, headers::EPOCH)?.parse().ok()
}

/// Dead letters collected from records in any order.
#[derive(Default)]
struct ByOrigin {
    letters: BTreeMap<Origin, DeadLetter>,
    replays: BTreeMap<Origin, u64>,
}

impl ByOrigin {
    /// Of several copies the first one stays.
    fn add(&mut self, record: Record) {
        if record.code == headers::REPLAYED {
            *self.replays.entry(record.origin).or_default() += 1;
            return;
        }
        let Record { origin, code, reason, at_ms, payload_bytes, payload } = record;
        self.letters.entry(origin.clone()).or_insert(DeadLetter {
            origin,
            code,
            reason,
            sent_at_ms: at_ms,
            payload_bytes,
            replays: 0,
            payload,
        });
    }

    fn letters(mut self) -> impl Iterator<Item = DeadLetter> {
        self.letters.into_values().map(move |mut letter| {
            letter.replays = self.replays.remove(&letter.origin).unwrap_or(0);
            letter
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, code: &str) -> Record {
        Record {
            origin: Origin { topic: "exposures".to_owned(), partition: 1, offset, epoch: Some(1) },
            code: code.to_owned(),
            reason: "why".to_owned(),
            at_ms: 5,
            payload_bytes: 3,
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn copies_are_one_dead_letter_and_marks_count_replays() {
        let mut by_origin = ByOrigin::default();
        for record in
            [record(7, "truncated"), record(4, "empty"), record(7, "truncated"), record(7, "replayed")]
        {
            by_origin.add(record);
        }
        let letters: Vec<(u64, String, u64)> =
            by_origin.letters().map(|letter| (letter.origin.offset, letter.code, letter.replays)).collect();
        assert_eq!(letters, [(4, "empty".to_owned(), 0), (7, "truncated".to_owned(), 1)]);
    }

    /// A topic that was recreated has another message at the same offset.
    #[test]
    fn dead_letters_of_two_epochs_are_two() {
        let mut by_origin = ByOrigin::default();
        let mut later = record(7, "empty");
        later.origin.epoch = Some(2);
        by_origin.add(record(7, "truncated"));
        by_origin.add(later);
        let codes: Vec<String> = by_origin.letters().map(|letter| letter.code).collect();
        assert_eq!(codes, ["truncated", "empty"]);
    }

    #[test]
    fn a_choice_restricts_by_what_it_names() {
        let mut by_origin = ByOrigin::default();
        by_origin.add(record(7, "truncated"));
        let letter = by_origin.letters().next().unwrap();
        let all = Filter::default();
        assert!(all.matches(&letter));
        assert!(
            Filter { code: Some("truncated".to_owned()), offset: Some(7), ..all.clone() }.matches(&letter)
        );
        assert!(!Filter { code: Some("empty".to_owned()), ..all.clone() }.matches(&letter));
        assert!(!Filter { topic: Some("aliases".to_owned()), ..all.clone() }.matches(&letter));
        assert!(!Filter { partition: Some(0), ..all }.matches(&letter));
    }
}
