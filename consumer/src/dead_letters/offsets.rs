//! Which offsets without a row are in the dead-letter topic. The topic is read once for all partitions, and only if
//! there is an offset that it could explain.

use std::collections::HashMap;

use anyhow::Result;
use rdkafka::message::Message;

use super::decode_key;
use super::read::epoch_of;
use crate::audit::chain::contains;
use crate::pipeline::batch::Span;
use crate::pipeline::store::Place;
use crate::topic_reader::TopicReader;

/// Offsets of dead letters by the topic and partition of their origin.
#[derive(Default)]
pub struct DeadLetterOffsets {
    offsets: HashMap<(String, u16), Vec<At>>,
}

/// The epoch, if the dead letter names it, and the offset.
type At = (Option<u32>, u64);

impl DeadLetterOffsets {
    /// Looks for the offsets of `wanted`: for each topic and partition, spans in ascending order.
    pub fn read(
        reader: &TopicReader,
        topic: &str,
        wanted: &HashMap<(String, u16), Vec<Span>>,
    ) -> Result<DeadLetterOffsets> {
        let mut found = DeadLetterOffsets::default();
        if wanted.values().all(Vec::is_empty) {
            return Ok(found);
        }
        reader.read_topic(topic, |message| {
            if let Some((topic, partition, offset)) = message.key().and_then(decode_key) {
                let place = (topic.to_owned(), partition);
                if wanted.get(&place).is_some_and(|spans| contains(spans, offset)) {
                    found.offsets.entry(place).or_default().push((epoch_of(message), offset));
                }
            }
        })?;
        Ok(found)
    }

    /// The offsets of a partition at one epoch. A dead letter without an epoch counts for every epoch.
    pub fn of(&self, place: &Place) -> Vec<u64> {
        let found = self.offsets.get(&(place.topic.clone(), place.partition));
        let ours =
            found.into_iter().flatten().filter(|(epoch, _)| epoch.is_none_or(|epoch| epoch == place.epoch));
        ours.map(|(_, offset)| *offset).collect()
    }
}
