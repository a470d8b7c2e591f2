//! Where a partition resumes, decided from what Kafka and ClickHouse say of it. No network here.

use super::note::{Intent, Note};
use kafka::TopicId;

/// What Kafka and ClickHouse say of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The group's committed offset.
    pub committed: Option<u64>,
    pub note: Option<Note>,
    pub topic: TopicIds,
    /// The last offset that the rows of this epoch cover.
    pub durable: Option<u64>,
    /// The first offset that the broker still has, and the offset after the last one.
    pub low: u64,
    pub high: u64,
}

/// The ids of the topic: the noted one and the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicIds {
    /// The id of the topic that the rows of this epoch came from, as it was noted with the first of them.
    pub noted: Option<TopicId>,
    /// The id that the topic has now; `None` where brokers give topics no ids.
    pub now: Option<TopicId>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// A batch was announced and does not seem to be in the table: count its rows, and make it again.
    Settle(Intent),
    /// Nothing is open.
    Resume { from: u64 },
}

/// Why a partition is halted until an operator acts: going on would lose messages, double them or mix two
/// topics up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "Kafka has deleted {} messages from {next} to {} before they were stored; \
         raise the topic's retention, and to accept the loss raise `consumer.epoch`",
        .low - .next, .low - 1
    )]
    Overtaken { next: u64, low: u64 },
    #[error(
        "the topic was recreated: the rows of this epoch came from the topic with the id {noted}, and it has the id {now} \
         now, so its offsets start again; to take its messages from the beginning raise `consumer.epoch`"
    )]
    TopicRecreated { noted: TopicId, now: TopicId },
    #[error(
        "the table has offsets up to {durable}, the topic only up to {high}: it was recreated or lost its end; if it \
         was recreated, raise `consumer.epoch`"
    )]
    TopicShorter { durable: u64, high: u64 },
    #[error(
        "the table reached offset {noted} and now ends at {}: rows are gone (restored, truncated or expired); \
         `splitstream audit --heal` brings back what Kafka still has, and to accept the loss raise `consumer.epoch`",
        .durable.map_or("nothing".to_owned(), |durable| durable.to_string())
    )]
    RowsGone { noted: u64, durable: Option<u64> },
    #[error(
        "of the batch {first} to {last} the table has {found} rows where {rows} were announced; run `splitstream audit`"
    )]
    PartOfBatch { first: u64, last: u64, rows: u64, found: u64 },
    #[error(
        "another consumer already works at epoch {noted}, this one is set to {ours}: raise `consumer.epoch`"
    )]
    EpochBehind { noted: u32, ours: u32 },
}

impl Observation {
    /// Where to resume at `epoch`.
    pub fn next_step(&self, epoch: u32) -> Result<NextStep, Halt> {
        let note = match self.note {
            Some(note) if note.epoch > epoch => {
                return Err(Halt::EpochBehind { noted: note.epoch, ours: epoch });
            }
            // The note is of an earlier topic, or of the time before a loss was accepted.
            Some(note) if note.epoch < epoch => None,
            note => note,
        };
        for noted in [self.topic.noted, note.and_then(|note| note.topic)].into_iter().flatten() {
            if let Some(now) = self.topic.now.filter(|now| *now != noted) {
                return Err(Halt::TopicRecreated { noted, now });
            }
        }
        let noted = note.and_then(|note| note.durable);
        if let Some(noted) = noted.filter(|noted| self.durable.is_none_or(|durable| durable < *noted)) {
            return Err(Halt::RowsGone { noted, durable: self.durable });
        }
        if let Some(durable) = self.durable.filter(|durable| durable + 1 > self.high) {
            return Err(Halt::TopicShorter { durable, high: self.high });
        }
        if let Some(intent) = note.and_then(|note| note.intent) {
            let landed = self.durable.is_some_and(|durable| durable >= intent.span.last);
            if !landed {
                return Ok(NextStep::Settle(intent));
            }
        }
        let next = self.durable.map_or(0, |durable| durable + 1);
        // A committed tail behind the last row holds only duplicates and dead letters.
        let committed = note.and(self.committed);
        let passed = committed.unwrap_or(0).max(next);
        let is_new = self.durable.is_none() && committed.is_none();
        if !is_new && passed < self.low {
            return Err(Halt::Overtaken { next: passed, low: self.low });
        }
        // The tail is read again while Kafka has it, so that the chain of batches has no gap.
        Ok(NextStep::Resume { from: next.max(self.low) })
    }

    /// Whether the broker still has all of an announced batch.
    pub fn can_replay(&self, intent: &Intent) -> Result<(), Halt> {
        if self.low > intent.span.first {
            return Err(Halt::Overtaken { next: intent.span.first, low: self.low });
        }
        if self.high <= intent.span.last {
            return Err(Halt::TopicShorter { durable: intent.span.last, high: self.high });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::batch::Span;

    const INTENT: Intent = Intent {
        span: Span { first: 9, last: 11 },
        rows: 2,
        kept: 1,
        ingest_ms: 5,
        earlier_rows: 0,
        attempt: 0,
    };

    fn found(durable: Option<u64>, low: u64, high: u64) -> Observation {
        Observation { committed: None, note: None, topic: TopicIds::default(), durable, low, high }
    }

    fn noted(committed: u64, durable: Option<u64>, intent: Option<Intent>) -> Observation {
        let note = Some(Note { epoch: 1, topic: None, durable, intent });
        Observation { committed: Some(committed), note, ..found(durable, 0, 20) }
    }

    #[test]
    fn behind_what_is_durable_or_at_the_beginning() {
        assert_eq!(found(None, 0, 0).next_step(1), Ok(NextStep::Resume { from: 0 }));
        assert_eq!(found(None, 7, 9).next_step(1), Ok(NextStep::Resume { from: 7 }));
        assert_eq!(found(Some(8), 0, 20).next_step(1), Ok(NextStep::Resume { from: 9 }));
        assert_eq!(found(Some(8), 9, 9).next_step(1), Ok(NextStep::Resume { from: 9 }));
    }

    #[test]
    fn an_announced_batch_is_settled_first_unless_it_is_there() {
        assert_eq!(noted(9, Some(8), Some(INTENT)).next_step(1), Ok(NextStep::Settle(INTENT)));
        let landed = Observation { durable: Some(11), ..noted(9, Some(8), Some(INTENT)) };
        assert_eq!(landed.next_step(1), Ok(NextStep::Resume { from: 12 }));
        // Of an earlier epoch: nothing to do with this topic.
        let raised = Observation { durable: None, ..noted(9, Some(8), Some(INTENT)) };
        assert_eq!(raised.next_step(2), Ok(NextStep::Resume { from: 0 }));
    }

    #[test]
    fn a_tail_of_duplicates_is_read_again_while_it_is_there() {
        let tail = noted(15, Some(8), None);
        assert_eq!(tail.next_step(1), Ok(NextStep::Resume { from: 9 }));
        assert_eq!(Observation { low: 12, ..tail }.next_step(1), Ok(NextStep::Resume { from: 12 }));
        assert_eq!(Observation { low: 15, ..tail }.next_step(1), Ok(NextStep::Resume { from: 15 }));
        assert_eq!(Observation { low: 16, ..tail }.next_step(1), Err(Halt::Overtaken { next: 15, low: 16 }));
    }

    #[test]
    fn a_loss_stops_the_partition() {
        let halt = found(Some(8), 12, 20).next_step(1).unwrap_err();
        assert_eq!(halt, Halt::Overtaken { next: 9, low: 12 });
        assert_eq!(
            halt.to_string(),
            "Kafka has deleted 3 messages from 9 to 11 before they were stored; raise \
             the topic's retention, and to accept the loss raise `consumer.epoch`"
        );
        assert_eq!(
            Observation { low: 10, ..noted(9, Some(8), Some(INTENT)) }.can_replay(&INTENT),
            Err(Halt::Overtaken { next: 9, low: 10 })
        );
    }

    #[test]
    fn rows_that_were_there_and_are_gone_stop_the_partition() {
        let gone = Observation { durable: Some(5), ..noted(9, Some(8), None) };
        assert_eq!(gone.next_step(1), Err(Halt::RowsGone { noted: 8, durable: Some(5) }));
        let all = Observation { durable: None, ..noted(9, Some(8), None) };
        let halt = all.next_step(1).unwrap_err();
        assert!(halt.to_string().starts_with("the table reached offset 8 and now ends at nothing"), "{halt}");
    }

    /// The new topic may be longer than the old one was: its offsets alone do not tell.
    #[test]
    fn another_id_stops_the_partition_however_long_the_topic_is() {
        let (old, new) =
            ("Zl3-OYYMR_mYD-iZj0yZ7w".parse().unwrap(), "AZl3OYYMR_mYD-iZj0yZ7w".parse().unwrap());
        let halt = Halt::TopicRecreated { noted: old, now: new };
        let anew =
            Observation { topic: TopicIds { noted: Some(old), now: Some(new) }, ..found(Some(8), 0, 300) };
        assert_eq!(anew.next_step(1), Err(halt));
        // The table's note of the id is lost, the one beside the offset is not.
        let note = Some(Note { epoch: 1, topic: Some(old), durable: Some(8), intent: None });
        let only_noted =
            Observation { note, topic: TopicIds { noted: None, now: Some(new) }, ..found(Some(8), 0, 300) };
        assert_eq!(only_noted.next_step(1), Err(halt));
        // At a raised epoch the old topic's note counts for nothing.
        let raised =
            Observation { topic: TopicIds { noted: None, now: Some(new) }, durable: None, ..only_noted };
        assert_eq!(raised.next_step(2), Ok(NextStep::Resume { from: 0 }));
        // Nothing is known: of rows of an earlier build, or from a broker without ids.
        let same =
            Observation { topic: TopicIds { noted: Some(old), now: Some(old) }, ..found(Some(8), 0, 300) };
        assert_eq!(same.next_step(1), Ok(NextStep::Resume { from: 9 }));
        let unknown =
            Observation { topic: TopicIds { noted: Some(old), now: None }, ..found(Some(8), 0, 300) };
        assert_eq!(unknown.next_step(1), Ok(NextStep::Resume { from: 9 }));
    }

    #[test]
    fn a_topic_made_anew_stops_the_partition() {
        assert_eq!(found(Some(8), 0, 8).next_step(1), Err(Halt::TopicShorter { durable: 8, high: 8 }));
        let behind = noted(9, Some(8), None);
        assert_eq!(behind.next_step(0), Err(Halt::EpochBehind { noted: 1, ours: 0 }));
    }
}
