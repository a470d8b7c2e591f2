//! Why an offset has no row. Kafka is read for the offsets without a row and for no other. Its messages are compared
//! with the ledger of forgotten units and with the events in the table. An offset that remains is a hole, or lost.

use std::sync::Arc;

use anyhow::{Context, Result};
use rdkafka::message::Message;
use schemas::Uuid;

use super::chain::{contains, joined, length, runs};
use super::report::Skipped;
use super::tables::sliced;
use crate::dead_letters::DeadLetterOffsets;
use crate::forget::Ledger;
use crate::pipeline::batch::Span;
use crate::pipeline::decode::decode;
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::{PlanError, Plans, SchemaCache};
use crate::pipeline::store::{Place, Store};
use crate::topic_reader::{TopicReader, Watermarks};

const DAY_MS: i64 = 86_400_000;
/// Spans with fewer offsets than this between them are read together.
const READ_TOGETHER: u64 = 1_000;
/// Messages read before their ids are looked up.
const MESSAGES_AT_ONCE: u64 = 100_000;

/// Offsets without a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub span: Span,
    pub location: Location,
}

/// Where offsets are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a batch that has rows.
    Batch,
    /// Between two batches. The second was ingested at that time.
    Gap { next_ingest_ms: i64 },
    /// Before the first batch, as far back as Kafka reaches.
    Beginning,
    /// Behind the last batch, before the group's committed offset.
    End,
    /// There too, where the group has noted that nothing became a row: markers, duplicates, dead letters.
    Tail,
}

/// Rows ingested before this time have expired in a table that keeps them for `days`. A day's partition expires as a
/// whole.
pub fn expired_before_ms(days: u64, now_ms: i64) -> i64 {
    let kept = i64::try_from(days).unwrap_or(i64::MAX / DAY_MS).saturating_mul(DAY_MS);
    now_ms.saturating_sub(kept).div_euclid(DAY_MS).saturating_add(1).saturating_mul(DAY_MS)
}

/// The result for one partition, before the dead-letter topic has been read.
#[derive(Default)]
pub struct Findings {
    pub skipped: Skipped,
    /// In Kafka, decodable and unexplained.
    pub holes: Vec<u64>,
    /// In Kafka and not decodable: these should be dead letters.
    pub undecodable: Vec<u64>,
    /// No longer in Kafka: inside batches that have rows, and between batches.
    pub gone_of_batches: Vec<Span>,
    pub gone_between: Vec<Span>,
}

/// What an explanation is looked for in.
pub struct Sources<'a> {
    pub reader: &'a TopicReader,
    pub store: &'a Store,
    pub ledger: &'a Ledger,
    pub schemas: &'a Arc<SchemaCache>,
    /// Rows ingested before this time have expired. `None` if they never do.
    pub expired_before_ms: Option<i64>,
}

/// What a message without a row is.
enum Class {
    Undecodable,
    Forgotten,
    /// A record that should be in the table.
    Expected {
        event_id: Uuid,
        timestamp_ms: i64,
    },
}

impl Findings {
    /// Explains `missing`, which is in ascending order. `ends` are the partition's ends in Kafka, if the topic is
    /// that of this epoch.
    pub async fn of(
        sources: &Sources<'_>,
        place: &Place,
        missing: &[Missing],
        ends: Option<Watermarks>,
    ) -> Result<Findings> {
        let mut findings = Findings::default();
        let mut here = Vec::new();
        for missing in missing {
            let (gone, there) = split(missing.span, ends);
            findings.set_aside(missing.location, &gone, sources.expired_before_ms);
            here.extend(there);
        }
        here.sort_by_key(|span| span.first);
        for together in joined(&here, READ_TOGETHER) {
            for slice in sliced(together, MESSAGES_AT_ONCE) {
                findings.ask_kafka(sources, place, slice, &here).await?;
            }
        }
        Ok(findings)
    }

    fn set_aside(&mut self, location: Location, gone: &[Span], expired_before_ms: Option<i64>) {
        let offsets: u64 = gone.iter().map(|span| length(*span)).sum();
        match location {
            Location::Batch | Location::Tail => self.gone_of_batches.extend(gone),
            Location::Gap { next_ingest_ms }
                if expired_before_ms.is_some_and(|before| next_ingest_ms < before) =>
            {
                self.skipped.expired += offsets;
            }
            Location::Gap { .. } | Location::End => self.gone_between.extend(gone),
            // Before the first batch and gone from Kafka: nobody can tell whether it was ever read.
            Location::Beginning => {}
        }
    }

    async fn ask_kafka(
        &mut self,
        sources: &Sources<'_>,
        place: &Place,
        slice: Span,
        wanted: &[Span],
    ) -> Result<()> {
        let asked: u64 = wanted
            .iter()
            .filter(|span| span.first <= slice.last && span.last >= slice.first)
            .map(|span| length(Span { first: span.first.max(slice.first), last: span.last.min(slice.last) }))
            .sum();
        if asked == 0 {
            return Ok(());
        }
        let mut classified: Vec<(u64, Class)> = Vec::new();
        let mut plans = Plans::new(sources.schemas.clone());
        tokio::task::block_in_place(|| {
            sources.reader.read(&place.topic, place.partition, slice, |offset, message| {
                if contains(wanted, offset) {
                    let payload = message.payload().unwrap_or_default();
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(i64::MAX);
                    classified.push((
                        offset,
                        classify(place.table, payload, timestamp_ms, sources.ledger, &mut plans)?,
                    ));
                }
                Ok(())
            })
        })?;
        self.skipped.not_in_log += asked - classified.len() as u64;
        let ids: Vec<Uuid> = classified
            .iter()
            .filter_map(|(_, classified)| match classified {
                Class::Expected { event_id, .. } => Some(*event_id),
                _ => None,
            })
            .collect();
        let stored: std::collections::HashSet<Uuid> = sources
            .store
            .look_up(place, &ids)
            .await
            .context("looking up the ids of skipped events")?
            .into_iter()
            .collect();
        for (offset, classified) in classified {
            match classified {
                Class::Undecodable => self.undecodable.push(offset),
                Class::Forgotten => self.skipped.forgotten += 1,
                Class::Expected { event_id, .. } if stored.contains(&event_id) => self.skipped.duplicate += 1,
                Class::Expected { timestamp_ms, .. }
                    if sources.expired_before_ms.is_some_and(|before| timestamp_ms < before) =>
                {
                    self.skipped.expired += 1;
                }
                Class::Expected { .. } => self.holes.push(offset),
            }
        }
        Ok(())
    }

    /// The offsets whose dead letters are to be looked for.
    pub fn perhaps_dead_letters(&self) -> Vec<Span> {
        let mut spans = runs(self.undecodable.iter().copied());
        spans.extend(self.gone_of_batches.iter().chain(&self.gone_between));
        spans.sort_by_key(|span| span.first);
        spans
    }

    /// Settles what the dead-letter topic explains. Returns the holes and what is lost, in ascending order.
    pub fn settle(mut self, dead_letters: &DeadLetterOffsets, place: &Place) -> Settled {
        let mut found = dead_letters.of(place);
        found.sort_unstable();
        found.dedup();
        let explained = runs(found);
        self.skipped.dead_letter = explained.iter().map(|span| length(*span)).sum();
        self.holes.extend(self.undecodable.iter().filter(|offset| !contains(&explained, **offset)));
        self.holes.sort_unstable();
        let unproven = without(&self.gone_of_batches, &explained);
        self.skipped.unproven = unproven.iter().map(|span| length(*span)).sum();
        Settled { skipped: self.skipped, holes: self.holes, lost: without(&self.gone_between, &explained) }
    }
}

/// What an audit says of the missing offsets of one partition.
pub struct Settled {
    pub skipped: Skipped,
    pub holes: Vec<u64>,
    pub lost: Vec<Span>,
}

/// What a message without a row is. An outage of the registry is an error: the message may be decodable.
fn classify(
    table: Table,
    payload: &[u8],
    timestamp_ms: i64,
    ledger: &Ledger,
    plans: &mut Plans,
) -> Result<Class> {
    Ok(match decode(table, payload, plans) {
        Err(PlanError::Undecodable(_)) => Class::Undecodable,
        Err(PlanError::Unavailable(error)) => return Err(error).context("reading a writer's schema"),
        Ok(decoded) if ledger.covers(&decoded) => Class::Forgotten,
        Ok(decoded) => Class::Expected { event_id: decoded.identity().0, timestamp_ms },
    })
}

/// The parts of `span` that Kafka does not have, and the part that it has.
fn split(span: Span, ends: Option<Watermarks>) -> (Vec<Span>, Option<Span>) {
    let Some(Watermarks { low, high }) = ends.filter(|ends| ends.low < ends.high) else {
        return (vec![span], None);
    };
    let (first, last) = (span.first.max(low), span.last.min(high - 1));
    if first > last {
        return (vec![span], None);
    }
    let mut gone = Vec::new();
    if span.first < first {
        gone.push(Span { first: span.first, last: first - 1 });
    }
    if last < span.last {
        gone.push(Span { first: last + 1, last: span.last });
    }
    (gone, Some(Span { first, last }))
}

/// `spans` without the offsets in `less`, both in ascending order.
pub fn without(spans: &[Span], less: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut next = span.first;
        for taken in less.iter().filter(|taken| taken.last >= span.first && taken.first <= span.last) {
            if taken.first > next {
                left.push(Span { first: next, last: taken.first - 1 });
            }
            next = taken.last + 1;
        }
        if next <= span.last {
            left.push(Span { first: next, last: span.last });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    #[test]
    fn a_day_expires_as_a_whole() {
        let (day, noon) = (DAY_MS, DAY_MS / 2);
        // On day 10 at noon, with 3 days kept, day 7 is over its time (7 + 3 <= 10.5) and day 8 is not.
        assert_eq!(expired_before_ms(3, 10 * day + noon), 8 * day);
        // The moment day 8 goes.
        assert_eq!(expired_before_ms(3, 11 * day - 1), 8 * day);
        assert_eq!(expired_before_ms(3, 11 * day), 9 * day);
    }

    #[test]
    fn what_kafka_still_has_of_a_span() {
        let ends = Some(Watermarks { low: 5, high: 10 });
        assert_eq!(split(span(6, 8), ends), (vec![], Some(span(6, 8))));
        assert_eq!(split(span(3, 12), ends), (vec![span(3, 4), span(10, 12)], Some(span(5, 9))));
        assert_eq!(split(span(0, 4), ends), (vec![span(0, 4)], None));
        assert_eq!(split(span(0, 4), None), (vec![span(0, 4)], None));
        assert_eq!(split(span(0, 4), Some(Watermarks { low: 0, high: 0 })), (vec![span(0, 4)], None));
    }

    #[test]
    fn what_is_left_without_others() {
        assert_eq!(without(&[span(0, 9)], &[span(0, 0), span(4, 5), span(9, 20)]), [span(1, 3), span(6, 8)]);
        assert_eq!(without(&[span(0, 9)], &[]), [span(0, 9)]);
        assert_eq!(without(&[span(0, 9)], &[span(0, 9)]), []);
    }

    #[test]
    fn what_is_gone_is_judged_by_where_it_is_missing() {
        let mut findings = Findings::default();
        findings.set_aside(Location::Batch, &[span(0, 1)], Some(100));
        findings.set_aside(Location::Gap { next_ingest_ms: 99 }, &[span(2, 4)], Some(100));
        findings.set_aside(Location::Gap { next_ingest_ms: 100 }, &[span(5, 8)], Some(100));
        findings.set_aside(Location::Beginning, &[span(9, 9)], Some(100));
        assert_eq!(findings.skipped.expired, 3);
        assert_eq!(findings.gone_of_batches, [span(0, 1)]);
        assert_eq!(findings.gone_between, [span(5, 8)]);
    }
}
