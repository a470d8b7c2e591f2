//! The actions of the protocol that ask something of Kafka and ClickHouse: observe, count, resume, commit, send, land.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use schemas::{Micros, Uuid};

use super::{PartitionState, SILENCE_MAX, Shared, micros_now};
use crate::pipeline::batch::{Batch, Span};
use crate::pipeline::dedupe::Window;
use crate::pipeline::fetch::high_watermark;
use crate::pipeline::protocol::{Intent, Note, Observation, TopicIds};
use crate::pipeline::rows::BatchStamp;
use crate::pipeline::store::Place;
use crate::topic_reader::TopicReader;
use kafka::TopicId;

pub(super) const KAFKA_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for the end of a partition to be read again; a worker that is told to stop waits for it.
const READ_AGAIN_MAX: Duration = Duration::from_secs(5);

impl PartitionState {
    /// Everything before this offset has been taken or is not a message.
    pub(super) fn passed(&self) -> u64 {
        self.filling.next().max(self.reached.unwrap_or(0))
    }

    /// Whether all that the partition had at the last fetch has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        let high = high_watermark(&self.consumer, &self.place.topic, self.place.partition.into());
        high == Some(self.passed())
    }

    pub(super) fn note_lag(&self, next: u64) {
        let high = high_watermark(&self.consumer, &self.place.topic, self.place.partition.into());
        if let Some(high) = high {
            let lag = high.saturating_sub(next);
            self.gauge(&self.shared.metrics.lag).set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
    }

    /// Whether the partition ends here, asked after `silence`. A fetch may lag for a while; after [`SILENCE_MAX`] it is an
    /// error if the partition goes on behind what was taken.
    pub(super) fn check_end(&mut self, silence: Duration) -> Result<bool> {
        let Place { topic, partition, .. } = &self.place.clone();
        let (_, high) = self
            .consumer
            .fetch_watermarks(topic, i32::from(*partition), KAFKA_ANSWERS_WITHIN)
            .context("asking the broker for the end of the partition")?;
        let next = self.passed();
        let Some(high) = u64::try_from(high).ok().filter(|high| *high > next) else { return Ok(true) };
        if silence < SILENCE_MAX {
            return Ok(false);
        }
        // Compaction leaves ends of logs that hold nothing and that no position passes: read once more, by itself, up to the
        // first message.
        let span = Span { first: next, last: high - 1 };
        let reader =
            TopicReader::open(&self.shared.kafka, &self.shared.group)?.silent_for_at_most(READ_AGAIN_MAX);
        reader.read(topic, *partition, span, |offset, _| {
            Err(anyhow!(
                "nothing comes from offset {next} on, though the partition has a message at {offset}"
            ))
        })?;
        self.note_reached(Some(high));
        Ok(true)
    }

    pub(super) fn end_inserts(&self) -> Result<()> {
        let ending = self.shared.store.end_inserts(&self.place);
        let ended = self.shared.runtime.block_on(ending).context("ending inserts that still run")?;
        self.shared.metrics.ended_inserts.inc_by(ended);
        Ok(())
    }

    pub(super) fn observe(&mut self) -> Result<Observation> {
        let Place { topic, partition, .. } = &self.place;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, i32::from(*partition));
        // The group's offset first: from here on no earlier owner can announce anything.
        let committed = self
            .consumer
            .committed_offsets(asked, KAFKA_ANSWERS_WITHIN)
            .context("asking for the group's committed offset")?;
        let element = committed
            .find_partition(topic, i32::from(*partition))
            .context("the broker left the partition out of its answer")?;
        element.error().context("asking for the group's committed offset")?;
        let note = Note::parse(element.metadata())?;
        let committed = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let topic_now = TopicId::fetch(self.consumer.client(), topic, KAFKA_ANSWERS_WITHIN)?;
        let noted = note.filter(|note| note.epoch == self.place.epoch).and_then(|note| note.topic);
        let topic_noted = self.noted_topic(noted.or(topic_now))?;
        let durable = self
            .shared
            .runtime
            .block_on(self.shared.store.durable(&self.place))
            .context("reading the durable offset")?;
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, i32::from(*partition), KAFKA_ANSWERS_WITHIN)
            .context("asking the broker for the ends of the partition")?;
        let (Ok(low), Ok(high)) = (u64::try_from(low), u64::try_from(high)) else {
            return Err(anyhow!("the broker does not know the ends of the partition yet ({low} to {high})"));
        };
        self.committed = committed.unwrap_or(0);
        let topic = TopicIds { noted: topic_noted, now: topic_now };
        Ok(Observation { committed, note, topic, durable, low, high })
    }

    /// The topic's id that is noted for the rows of the epoch. If none is, `known` is noted now.
    fn noted_topic(&self, known: Option<TopicId>) -> Result<Option<TopicId>> {
        let Shared { store, runtime, .. } = &*self.shared;
        let noted =
            || runtime.block_on(store.topic_ids(&self.place)).context("reading the topic id of the rows");
        let mut ids = noted()?;
        if let (Some(known), true) = (known, ids.is_empty()) {
            runtime
                .block_on(store.note_topic_id(&self.place, known))
                .context("noting the topic id of the rows")?;
            // Another consumer may have noted another id meanwhile. Then both consumers read both.
            ids = noted()?;
        }
        Ok(ids.iter().find(|id| known != Some(**id)).or(ids.first()).copied())
    }

    /// Checks that everything fetched so far came from the topic that was last observed. Kafka never reuses an id.
    fn check_topic(&self, looked_at: Option<TopicId>) -> Result<()> {
        let now = TopicId::fetch(self.consumer.client(), &self.place.topic, KAFKA_ANSWERS_WITHIN)?;
        match (looked_at, now) {
            (Some(looked_at), Some(now)) if looked_at != now => {
                Err(anyhow!("the topic was recreated: it had the id {looked_at} and has {now} now"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn count(&self, span: Span) -> Result<u64> {
        let began = Instant::now();
        let counting = self.shared.store.count(&self.place, span);
        let rows = self.shared.runtime.block_on(counting).context("counting a batch's rows")?;
        self.stage("count", began);
        let verdict = if rows == 0 { "absent" } else { "present" };
        self.shared.metrics.verdicts.with_label_values(&[verdict]).inc();
        Ok(rows)
    }

    /// Reads the ids of durable events that the window lacks, and resumes the partition at `from`.
    pub(super) fn resume(&mut self, from: u64, replay: Option<Intent>) -> Result<()> {
        let Shared { store, runtime, .. } = &*self.shared;
        let place = &self.place;
        if place.table.holds_events() {
            // A window that was complete up to an offset lacks only what became durable behind it.
            let now = micros_now();
            let horizon = Micros::new(now.get() - self.shared.window_micros).unwrap_or(now);
            let after = self.window_reaches.flatten();
            let (ids, complete_since) = runtime
                .block_on(store.ids_since(place, horizon, after, self.shared.window_ids))
                .context("reading the ids of recent events")?;
            if after.is_none() {
                self.window = Window::new(complete_since, self.shared.window_ids);
            } else {
                self.window.advance(complete_since);
            }
            self.window.enter(&ids);
        }
        self.window_reaches = Some(from.checked_sub(1));
        self.gauge(&self.shared.metrics.window_ids).set(self.window.ids() as i64);
        self.gauge(&self.shared.metrics.window_bytes).set(self.window.bytes() as i64);
        self.open(from);
        self.replay = replay;
        self.resumed_at = Some(from);
        self.seek(from)?;
        let (topic, partition) = (&self.place.topic, self.place.partition);
        match replay {
            None => tracing::info!(topic, partition, from, "going on"),
            Some(intent) => {
                let Span { first, last } = intent.span;
                tracing::info!(topic, partition, first, last, "making an announced batch again");
            }
        }
        Ok(())
    }

    /// Seeks to `start` and resumes the partition. It takes a moment after the assignment until a seek is possible.
    fn seek(&self, start: u64) -> Result<()> {
        let (topic, partition) = (self.place.topic.as_str(), i32::from(self.place.partition));
        if self.must_rejoin {
            self.consumer.context().ask_to_rejoin();
            return Err(anyhow!("the partition must be assigned anew before it can be fetched from {start}"));
        }
        let offset = i64::try_from(start).context("an offset beyond 2^63")?;
        self.consumer
            .seek(topic, partition, Offset::Offset(offset), KAFKA_ANSWERS_WITHIN)
            .with_context(|| format!("seeking to {start}"))?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(topic, partition);
        self.consumer.resume(&partitions).context("letting the partition run")
    }

    /// Commits once the dead letters before the offset are acknowledged.
    pub(super) fn commit_acknowledged(&mut self, offset: u64, note: &Note) -> Result<()> {
        self.acknowledge_dead_letters()?;
        let began = Instant::now();
        if note.intent.is_some() {
            self.check_topic(note.topic)?;
        }
        self.commit(offset, note)?;
        self.stage(if note.intent.is_some() { "intent" } else { "commit" }, began);
        self.committed = offset;
        if note.intent.is_none() {
            self.note_lag(offset);
            self.made_progress();
        }
        Ok(())
    }

    /// Commits the offset with the note, and waits for the broker's answer. The broker refuses both from a member
    /// that has lost the partition.
    pub(super) fn commit(&self, offset: u64, note: &Note) -> Result<()> {
        if self.stop.is_lost() || self.consumer.assignment_lost() {
            return Err(anyhow!("the partition is lost"));
        }
        let (topic, partition) = (self.place.topic.as_str(), i32::from(self.place.partition));
        let mut offsets = TopicPartitionList::new();
        let offset = i64::try_from(offset).context("an offset beyond 2^63")?;
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let mut element = offsets.find_partition(topic, partition).expect("was just added");
        element.set_metadata(note.to_string());
        let committed = self.consumer.commit(&offsets, CommitMode::Sync);
        if committed.is_err() {
            self.shared.metrics.commit_failures.inc();
        }
        committed.with_context(|| format!("committing offset {offset}"))
    }

    /// Sends the closed batch. The answer comes later.
    pub(super) fn send(&mut self, intent: &Intent) -> mpsc::Receiver<Result<()>> {
        let closed = self.closed.as_mut().expect("a batch was closed before it is inserted");
        assert_eq!(closed.batch.span(), Some(intent.span), "the announced batch is the closed one");
        let block = closed.block.get_or_insert_with(|| {
            let began = Instant::now();
            let stamp = BatchStamp {
                partition: self.place.partition,
                epoch: self.place.epoch,
                first: intent.span.first,
                last: intent.span.last,
                ingest_ms: intent.ingest_ms,
            };
            let Batch { rows, row_count, .. } = &mut closed.batch;
            let block = Bytes::from(rows.drain(*row_count, &stamp));
            let drained = std::mem::replace(rows, self.place.table.rows());
            self.shared.buffer_pool.give(self.place.table, drained);
            self.shared.metrics.stage("encode", began);
            block
        });
        let block = block.clone();
        let attempt = self.place.attempt(intent, Uuid::now_v7().as_u64_pair().1);
        let (topic, partition) = (&self.place.topic, self.place.partition);
        let Span { first, last } = intent.span;
        tracing::debug!(topic, partition, first, last, rows = intent.rows, "inserting");
        let (answer_to, answer) = mpsc::sync_channel(1);
        let (shared, table) = (self.shared.clone(), self.place.table);
        shared.metrics.on_their_way.inc();
        self.shared.runtime.spawn(async move {
            let inserted = shared.store.insert(table, &attempt, block).await;
            shared.metrics.on_their_way.dec();
            let code = inserted.as_ref().map_or_else(error_code, |()| "0".to_owned());
            shared.metrics.insert_attempts.with_label_values(&[&code]).inc();
            // A worker that has ended does not wait for the answer; the next owner finds the batch announced.
            let _ = answer_to.send(inserted.map_err(anyhow::Error::from));
        });
        answer
    }

    /// The batch is durable: its ids enter the window, its memory is freed.
    pub(super) fn land(&mut self, intent: &Intent) {
        let closed = self.closed.take().expect("a batch lands that was closed");
        self.window.enter(closed.batch.identities());
        // If the batch was announced twice with different rows, either set may be in the table: read the ids again.
        self.window_reaches = (intent.earlier_rows == 0).then_some(Some(intent.span.last));
        let now = micros_now();
        if let Ok(horizon) = Micros::new(now.get() - self.shared.window_micros) {
            self.window.advance(horizon);
        }
        let metrics = &self.shared.metrics;
        metrics.records.with_label_values(&[self.place.table.topic(), "inserted"]).inc_by(intent.rows);
        metrics.end_to_end.observe((now.millis() - closed.batch.oldest_ms()).max(0) as f64 / 1_000.0);
        self.gauge(&metrics.window_ids).set(self.window.ids() as i64);
        self.gauge(&metrics.window_bytes).set(self.window.bytes() as i64);
        let oldest = (now.get() - self.window.horizon().get()).max(0) / 1_000_000;
        self.gauge(&metrics.window_oldest_seconds).set(oldest);
        // Transaction markers behind the last message are never taken.
        let idle = self.filling.span().is_none();
        let next = if idle { self.passed() } else { intent.span.last + 1 };
        self.note_lag(next);
        self.made_progress();
        let (topic, partition) = (&self.place.topic, self.place.partition);
        let Span { first, last } = intent.span;
        tracing::debug!(topic, partition, first, last, rows = intent.rows, "inserted");
    }
}

/// ClickHouse's code of an error, or what else it was.
fn error_code(error: &clickhouse::error::Error) -> String {
    match error {
        clickhouse::error::Error::BadResponse(text) => text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .map_or("unknown".to_owned(), |(code, _)| code.to_owned()),
        clickhouse::error::Error::TimedOut => "timeout".to_owned(),
        _ => "network".to_owned(),
    }
}
