//! Which of the missing offsets are in the dead-letter topic. It is read once for all partitions, and only
//! if there is an offset that it could explain.

use std::collections::HashMap;

use anyhow::Result;
use rdkafka::message::Message;

use super::epoch_of;
use crate::audit::chain::contains;
use crate::pipeline::batch::Span;
use crate::pipeline::store::Place;
use crate::topic_reader::TopicReader;

/// Offsets of dead letters, each with the epoch at which it was sent if the letter tells, by the topic and
/// partition that they came from.
#[derive(Default)]
pub struct DeadLetterOffsets {
    offsets: HashMap<(String, u16), Vec<At>>,
}

/// The epoch, if the letter tells it, and the offset.
type At = (Option<u32>, u64);

impl DeadLetterOffsets {
    /// Looks for those of `wanted`: for each topic and partition, spans in ascending order.
    pub fn read(
        reader: &TopicReader,
        topic: &str,
        wanted: &HashMap<(String, u16), Vec<Span>>,
    ) -> Result<DeadLetterOffsets> {
        let mut found = DeadLetterOffsets::default();
        if wanted.values().all(Vec::is_empty) {
            return Ok(found);
        }
        for partition in 0..reader.partitions(topic)? {
            let ends = reader.watermarks(topic, partition)?;
            if ends.low >= ends.high {
                continue;
            }
            let span = Span { first: ends.low, last: ends.high - 1 };
            reader.read(topic, partition, span, |_, message| {
                if let Some((topic, partition, offset)) = message.key().and_then(origin) {
                    let place = (topic.to_owned(), partition);
                    if wanted.get(&place).is_some_and(|spans| contains(spans, offset)) {
                        found.offsets.entry(place).or_default().push((epoch_of(message), offset));
                    }
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// The offsets of a partition at one epoch. A letter that tells no epoch may be of any.
    pub fn of(&self, place: &Place) -> Vec<u64> {
        let found = self.offsets.get(&(place.topic.clone(), place.partition));
        let ours =
            found.into_iter().flatten().filter(|(epoch, _)| epoch.is_none_or(|epoch| epoch == place.epoch));
        ours.map(|(_, offset)| *offset).collect()
    }
}

/// Where a dead letter came from, by its key: topic, partition and offset, each behind a slash, which no
/// topic's name has.
pub fn origin(key: &[u8]) -> Option<(&str, u16, u64)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let origin = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (!origin.0.is_empty() && parts.next().is_none()).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_origin() {
        assert_eq!(origin(b"exposures/3/17"), Some(("exposures", 3, 17)));
        assert_eq!(origin(b"exposures/3"), None);
        assert_eq!(origin(b"exposures/3/17/1"), None);
        assert_eq!(origin(b"exposures/70000/17"), None);
        assert_eq!(origin(b"/3/17"), None);
    }
}
