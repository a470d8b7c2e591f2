//! Brings back rows that the table lost and Kafka still has. Each hole is read again and inserted as a batch of
//! its own: one block with its own token. Nothing is doubled: inserts that still run are ended first, only offsets
//! and events that are still missing then are inserted, and the table is read again after each insert. A heal that
//! was killed can be run again.
//!
//! The consumers must be stopped: the window of one that started after the loss does not know the ids that come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ops::retry::{End, Retry};
use rdkafka::message::Message;
use schemas::Uuid;

use super::chain::{Chain, contains, length, missing, runs};
use super::explain::{Sources, without};
use super::now_ms;
use super::tables::{Part, Tables, repeated};
use crate::dead_letters::DeadLetterProducer;
use crate::pipeline::batch::{BatchStamp, Span};
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::rows::{Rows, RuleVerdict};
use crate::pipeline::schema_cache::{PlanError, Plans};
use crate::pipeline::store::Place;
use crate::pipeline::verify::{NamedVersion, Verification};
use definitions::Follower;

/// Offsets of one batch: few enough to make one part in ClickHouse, even with the largest rows.
const OFFSETS_MAX: usize = 20_000;
/// For one batch. Each attempt is preceded by reading what is there.
const ATTEMPTS_MAX: usize = 5;
const INSERT: Retry = Retry {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(4),
    end: End::Attempts(ATTEMPTS_MAX),
};

/// A batch to be inserted: what it covers, and the offsets in it that have no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealBatch {
    pub span: Span,
    pub offsets: Vec<u64>,
}

/// The batches that fill `holes`, which are in ascending order. Inside an existing batch, a new one reaches from
/// the first hole to the last. In a gap, and behind the last batch up to `committed`, the new ones cover
/// everything, so that the chain has no gap again; except for what is `lost`, which no batch may claim to cover.
pub fn plan(chain: &Chain, committed: Option<u64>, holes: &[u64], lost: &[Span]) -> Vec<HealBatch> {
    let mut batches = Vec::new();
    let mut stretches: Vec<(Span, bool)> =
        chain.clusters.iter().map(|cluster| (cluster.span, false)).collect();
    let mut gaps: Vec<Span> = chain.gaps().iter().map(|gap| gap.span).collect();
    if let (Some(whole), Some(first)) = (chain.span(), holes.first())
        && *first < whole.first
    {
        gaps.push(Span { first: *first, last: whole.first - 1 });
    }
    let behind = chain.span().map_or(holes.first().copied(), |whole| Some(whole.last + 1));
    if let (Some(first), Some(committed)) = (behind, committed)
        && first < committed
    {
        gaps.push(Span { first, last: committed - 1 });
    }
    stretches.extend(without(&gaps, lost).into_iter().map(|span| (span, true)));
    stretches.sort_by_key(|(span, _)| span.first);
    for (stretch, gap) in stretches {
        let from = holes.partition_point(|hole| *hole < stretch.first);
        let to = holes.partition_point(|hole| *hole <= stretch.last);
        let before = batches.len();
        let mut first = stretch.first;
        for offsets in holes[from..to].chunks(OFFSETS_MAX) {
            let last = *offsets.last().expect("a chunk has one");
            let span = Span { first: if gap { first } else { offsets[0] }, last };
            first = last + 1;
            batches.push(HealBatch { span, offsets: offsets.to_vec() });
        }
        if gap && batches.len() > before {
            batches.last_mut().expect("one was pushed").span.last = stretch.last;
        }
    }
    batches
}

/// Heals the partitions of one audit.
pub struct Healer<'a> {
    pub sources: Sources<'a>,
    pub tables: &'a Tables,
    pub dead_letters: &'a DeadLetterProducer,
    /// The definitions log, read to its end.
    pub follower: &'a Follower,
}

/// What Kafka has of the offsets of a batch, read again.
struct Recovered {
    rows: Rows,
    /// The offsets of the rows.
    filled: Vec<u64>,
    /// Dead letters that were missing and have been sent.
    dead_letters: u64,
}

/// Whether the rows of an insert are in the table.
#[derive(Debug, PartialEq, Eq)]
enum Landed {
    Whole,
    Not,
}

impl Healer<'_> {
    /// Returns the number of rows and dead letters brought back.
    pub async fn heal(&self, place: &Place, batches: &[HealBatch]) -> Result<u64> {
        let Sources { store, .. } = self.sources;
        // An insert of a consumer or a heal that was killed may still run. Once it is ended, its rows can be counted.
        store.end_inserts(place).await.context("ending inserts that still run")?;
        let mut healed = 0;
        for batch in batches {
            healed += self
                .heal_batch(place, batch)
                .await
                .with_context(|| format!("bringing back {} to {}", batch.span.first, batch.span.last))?;
        }
        Ok(healed)
    }

    async fn heal_batch(&self, place: &Place, batch: &HealBatch) -> Result<u64> {
        let part = Part { partition: place.partition, epoch: place.epoch };
        let (mut tokens_used, mut healed) = (0, 0);
        let mut pauses = INSERT.pauses();
        loop {
            let present =
                self.tables.offsets(place.table, part, batch.span).await.context("reading offsets")?;
            let still = missing(batch.span, &present);
            let offsets: Vec<u64> =
                batch.offsets.iter().copied().filter(|offset| contains(&still, *offset)).collect();
            if offsets.is_empty() {
                return Ok(healed);
            }
            let Recovered { mut rows, filled, dead_letters } =
                self.reread(place, batch.span, &offsets).await?;
            if filled.is_empty() {
                return Ok(dead_letters);
            }
            healed = dead_letters + filled.len() as u64;
            let stamp = BatchStamp {
                partition: place.partition,
                epoch: place.epoch,
                first: batch.span.first,
                last: batch.span.last,
                ingest_ms: now_ms(),
            };
            let block = Bytes::from(rows.drain(filled.len(), &stamp));
            // The token names the span, so that only one of two heals gets in.
            let nonce = Uuid::now_v7().as_u64_pair().1;
            let attempt = place.attempt_to_heal(batch.span, tokens_used, nonce);
            let answered = self.sources.store.insert(place.table, &attempt, block).await;
            if answered.is_err() {
                self.sources.store.end_inserts(place).await.context("ending an insert in doubt")?;
            }
            let now = self.tables.offsets(place.table, part, batch.span).await.context("reading back")?;
            match (landed(&filled, &now)?, answered) {
                (Landed::Whole, _) => return Ok(healed),
                // ClickHouse took it for a repetition of an insert whose rows are gone. Another token is needed.
                (Landed::Not, Ok(())) => tokens_used += 1,
                (Landed::Not, Err(error)) => tracing::warn!(%error, "an insert did not land"),
            }
            let Some(pause) = pauses.next() else { bail!("not in the table after {ATTEMPTS_MAX} attempts") };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads `offsets` again. Messages that cannot be decoded are sent to the dead letters.
    async fn reread(&self, place: &Place, span: Span, offsets: &[u64]) -> Result<Recovered> {
        let wanted = runs(offsets.iter().copied());
        let (reader, store) = (self.sources.reader, self.sources.store);
        let mut messages: Vec<(u64, i64, Vec<u8>)> = Vec::new();
        let read = Span { first: offsets[0], last: offsets[offsets.len() - 1] };
        assert!(span.first <= read.first && read.last <= span.last, "a batch covers its own offsets");
        tokio::task::block_in_place(|| {
            reader.read(&place.topic, place.partition, read, |offset, message| {
                if contains(&wanted, offset) {
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
                    messages.push((offset, timestamp_ms, message.payload().unwrap_or_default().to_vec()));
                }
                Ok(())
            })
        })?;
        let mut decoded = Vec::with_capacity(messages.len());
        let mut sent = Vec::new();
        let mut plans = Plans::new(self.sources.schemas.clone());
        for (offset, timestamp_ms, payload) in &messages {
            match decode(place.table, payload, &mut plans) {
                Ok(record) => decoded.push((*offset, *timestamp_ms, record)),
                Err(PlanError::Unavailable(error)) => return Err(error).context("reading a writer's schema"),
                Err(PlanError::Undecodable(error)) => {
                    let letter =
                        self.dead_letters.send(place, *offset, error.code(), &error.to_string(), payload)?;
                    sent.push(letter.context("the queue of dead letters is full; run it again")?);
                }
            }
        }
        let dead_letters = sent.len() as u64;
        self.dead_letters.acknowledged(sent).await?;
        let ids: Vec<Uuid> = decoded.iter().map(|(_, _, record)| record.identity().0).collect();
        let stored = store.look_up(place, &ids).await.context("looking ids up")?;
        let mut known: HashSet<Uuid> = stored.into_iter().collect();
        let mut rows = place.table.rows();
        let mut filled = Vec::new();
        for (offset, timestamp_ms, record) in &decoded {
            let new = known.insert(record.identity().0);
            if new && !self.sources.ledger.covers(record) {
                push(&mut rows, record, *offset, *timestamp_ms, self.follower)?;
                filled.push(*offset);
            }
        }
        Ok(Recovered { rows, filled, dead_letters })
    }
}

/// Whether a block is in the table. All of its rows are, or none.
fn landed(filled: &[u64], present: &[u64]) -> Result<Landed> {
    let there = filled.iter().filter(|offset| present.binary_search(offset).is_ok()).count();
    if repeated(present) > 0 {
        bail!("offsets are there twice: another writer was at work; run the audit again");
    }
    match there {
        0 => Ok(Landed::Not),
        all if all == filled.len() => Ok(Landed::Whole),
        some => bail!(
            "{some} of {} rows are there: another writer was at work; run the audit again",
            filled.len()
        ),
    }
}

fn push(
    rows: &mut Rows,
    record: &Decoded<'_>,
    offset: u64,
    timestamp_ms: i64,
    follower: &Follower,
) -> Result<()> {
    match (record, rows) {
        (Decoded::Exposure(exposure), Rows::Exposures(rows)) => {
            let named = NamedVersion::of(&follower.lock().definitions, exposure.definition_version);
            let verification = named.map_or(Verification::Unknown, |named| named.verify(exposure));
            rows.push(exposure, verification, offset);
        }
        (Decoded::Conversion(conversion), Rows::Conversions(rows)) => rows.push(conversion, offset),
        (Decoded::Alias(alias), Rows::Aliases(rows)) => rows.push(alias, offset),
        (Decoded::Change(change), Rows::Definitions(rows)) => {
            let refusal = follower.lock().verdicts.get(&offset).cloned();
            let refusal = refusal.context("the definitions log has been read, and not this record of it")?;
            rows.push(change, &RuleVerdict { refusal }, timestamp_ms, offset);
        }
        (Decoded::Look(record), Rows::Looks(rows)) => rows.push(record, timestamp_ms, offset),
        _ => unreachable!("each table decodes its own record"),
    }
    Ok(())
}

/// The definitions log, read to its end.
pub fn definitions(kafka: &ops::config::Kafka) -> Result<Arc<Follower>> {
    let follower = Arc::new(Follower::default());
    let caught_up = AtomicBool::new(false);
    follower.clone().follow(
        kafka,
        || caught_up.load(Ordering::Acquire),
        || caught_up.store(true, Ordering::Release),
    )?;
    Ok(follower)
}

/// The number of offsets that the batches bring back.
pub fn offsets_of(batches: &[HealBatch]) -> u64 {
    batches.iter().map(|batch| (batch.offsets.len() as u64).min(length(batch.span))).sum()
}

#[cfg(test)]
mod tests {
    use super::super::chain::Link;
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn chain(spans: &[(u64, u64)]) -> Chain {
        let link =
            |&(first, last): &(u64, u64)| Link { span: span(first, last), rows: 1, offsets: 1, ingest_ms: 0 };
        Chain::of(spans.iter().map(link).collect())
    }

    #[test]
    fn holes_in_a_batch_are_covered_from_the_first_to_the_last() {
        let batches = plan(&chain(&[(0, 9), (10, 19)]), None, &[3, 5, 12], &[]);
        assert_eq!(
            batches,
            [
                HealBatch { span: span(3, 5), offsets: vec![3, 5] },
                HealBatch { span: span(12, 12), offsets: vec![12] }
            ]
        );
        assert_eq!(offsets_of(&batches), 3);
    }

    #[test]
    fn a_gap_is_covered_from_end_to_end() {
        let batches = plan(&chain(&[(0, 9), (20, 29)]), None, &[12, 13], &[]);
        assert_eq!(batches, [HealBatch { span: span(10, 19), offsets: vec![12, 13] }]);
        // Once a batch covered what is lost, nobody would know.
        let batches = plan(&chain(&[(0, 9), (20, 29)]), None, &[15, 16], &[span(10, 14)]);
        assert_eq!(batches, [HealBatch { span: span(15, 19), offsets: vec![15, 16] }]);
    }

    #[test]
    fn before_the_first_batch_from_the_first_hole_on_and_behind_the_last_up_to_the_commit() {
        let batch =
            |first, last, offsets: &[u64]| HealBatch { span: span(first, last), offsets: offsets.to_vec() };
        let batches = plan(&chain(&[(10, 19)]), Some(30), &[4, 6, 25], &[]);
        assert_eq!(batches, [batch(4, 9, &[4, 6]), batch(20, 29, &[25])]);
        assert_eq!(plan(&chain(&[(10, 19)]), Some(30), &[], &[]), []);
        assert_eq!(plan(&Chain::default(), Some(9), &[4, 5], &[]), [batch(4, 8, &[4, 5])]);
    }

    #[test]
    fn a_long_gap_becomes_several_batches_that_join() {
        let holes: Vec<u64> = (10..30_010).collect();
        let batches = plan(&chain(&[(0, 9), (40_000, 40_001)]), None, &holes, &[]);
        let spans: Vec<Span> = batches.iter().map(|batch| batch.span).collect();
        assert_eq!(spans, [span(10, 20_009), span(20_010, 39_999)]);
        assert_eq!(offsets_of(&batches), 30_000);
    }

    #[test]
    fn a_block_is_there_as_a_whole_or_not_at_all() {
        assert_eq!(landed(&[3, 5], &[1, 2, 3, 5]).unwrap(), Landed::Whole);
        assert_eq!(landed(&[3, 5], &[1, 2]).unwrap(), Landed::Not);
        assert!(landed(&[3, 5], &[3]).is_err());
        assert!(landed(&[3, 5], &[3, 3, 5]).is_err());
    }
}
