//! What an audit asks of the tables. Every statement is fixed text with bound parameters. Long answers are asked
//! for in slices, so that neither side holds more than one slice.

use clickhouse::error::Result;
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use schemas::Uuid;
use serde::Deserialize;

use super::chain::{Link, length};
use crate::pipeline::batch::Span;
use crate::pipeline::rows::Table;
use crate::retention;

/// Rows whose ids are compared in one statement. The server holds some 40 bytes for each id.
const IDS_AT_ONCE: u64 = 10_000_000;
/// Offsets asked for in one statement.
const OFFSETS_AT_ONCE: u64 = 1_000_000;
/// Doubled events that are named.
const EXAMPLES_MAX: u64 = 20;

#[derive(Clone)]
pub struct Tables {
    client: Client,
}

/// The partition and epoch of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    pub partition: u16,
    pub epoch: u32,
}

/// An event that is in the table more than once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Doubled {
    pub event_id: Uuid,
    /// Partition and offset of its rows.
    pub places: Vec<(u16, u64)>,
}

impl Tables {
    pub fn new(client: Client) -> Tables {
        Tables { client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The partitions and epochs that have rows.
    pub async fn parts(&self, table: Table) -> Result<Vec<Part>> {
        let parts: Vec<(u16, u32)> = self
            .client
            .query("SELECT DISTINCT kafka_partition, epoch FROM ? ORDER BY kafka_partition, epoch")
            .bind(Identifier(table.name()))
            .fetch_all()
            .await?;
        Ok(parts.into_iter().map(|(partition, epoch)| Part { partition, epoch }).collect())
    }

    /// The batches ingested since `since_ms`.
    pub async fn links(&self, table: Table, part: Part, since_ms: i64) -> Result<Vec<Link>> {
        #[derive(Row, Deserialize)]
        struct Batch {
            batch_first: u64,
            batch_last: u64,
            rows: u64,
            offsets: u64,
            ingest_ms: i64,
        }
        let mut batches = self
            .client
            .query(
                "SELECT batch_first, batch_last, count() AS rows, uniqExact(kafka_offset) AS offsets, \
                 toUnixTimestamp64Milli(min(ingest_ts)) AS ingest_ms FROM ? \
                 WHERE kafka_partition = ? AND epoch = ? AND ingest_ts >= fromUnixTimestamp64Milli(?, 'UTC') \
                 GROUP BY batch_first, batch_last",
            )
            .bind(Identifier(table.name()))
            .bind(part.partition)
            .bind(part.epoch)
            .bind(since_ms)
            .fetch::<Batch>()?;
        let mut links = Vec::new();
        while let Some(batch) = batches.next().await? {
            links.push(Link {
                span: Span { first: batch.batch_first, last: batch.batch_last },
                rows: batch.rows,
                offsets: batch.offsets,
                ingest_ms: batch.ingest_ms,
            });
        }
        Ok(links)
    }

    /// Rows whose offset is outside of the span of their batch.
    pub async fn astray(&self, table: Table, part: Part) -> Result<u64> {
        self.client
            .query(
                "SELECT count() FROM ? WHERE kafka_partition = ? AND epoch = ? \
                 AND (kafka_offset < batch_first OR kafka_offset > batch_last)",
            )
            .bind(Identifier(table.name()))
            .bind(part.partition)
            .bind(part.epoch)
            .fetch_one()
            .await
    }

    /// The offsets of the rows in `span` in ascending order, once for each row.
    pub async fn offsets(&self, table: Table, part: Part, span: Span) -> Result<Vec<u64>> {
        let mut offsets = Vec::new();
        let mut first = span.first;
        loop {
            let last = span.last.min(first.saturating_add(OFFSETS_AT_ONCE - 1));
            let mut slice: Vec<u64> = self
                .client
                .query(
                    "SELECT kafka_offset FROM ? WHERE kafka_partition = ? AND epoch = ? \
                     AND kafka_offset BETWEEN ? AND ? ORDER BY kafka_offset",
                )
                .bind(Identifier(table.name()))
                .bind(part.partition)
                .bind(part.epoch)
                .bind(first)
                .bind(last)
                .fetch_all()
                .await?;
            offsets.append(&mut slice);
            if last == span.last {
                return Ok(offsets);
            }
            first = last + 1;
        }
    }

    /// The number of rows beyond one for each event, and some of those events.
    pub async fn doubled_events(&self, table: Table) -> Result<(u64, Vec<Doubled>)> {
        #[derive(Row, Deserialize)]
        struct DoubledRow {
            #[serde(with = "clickhouse::serde::uuid")]
            event_id: Uuid,
            rows: u64,
            places: Vec<(u16, u64)>,
        }
        let rows: u64 =
            self.client.query("SELECT count() FROM ?").bind(Identifier(table.name())).fetch_one().await?;
        let slices = rows.div_ceil(IDS_AT_ONCE).max(1);
        let (mut extra, mut examples) = (0, Vec::new());
        for slice in 0..slices {
            let beyond: u64 = self
                .client
                .query("SELECT toUInt64(count() - uniqExact(event_id)) FROM ? WHERE cityHash64(event_id) % ? = ?")
                .bind(Identifier(table.name()))
                .bind(slices)
                .bind(slice)
                .fetch_one()
                .await?;
            extra += beyond;
            if beyond == 0 || examples.len() as u64 >= EXAMPLES_MAX {
                continue;
            }
            let found: Vec<DoubledRow> = self
                .client
                .query(
                    "SELECT event_id, count() AS rows, \
                     arraySort(groupArray(10)((kafka_partition, kafka_offset))) AS places \
                     FROM ? WHERE cityHash64(event_id) % ? = ? \
                     GROUP BY event_id HAVING rows > 1 ORDER BY event_id LIMIT ?",
                )
                .bind(Identifier(table.name()))
                .bind(slices)
                .bind(slice)
                .bind(EXAMPLES_MAX)
                .fetch_all()
                .await?;
            examples.extend(found.into_iter().map(|found| {
                assert!(found.rows > 1, "the statement asks for events with more than one row");
                Doubled { event_id: found.event_id, places: found.places }
            }));
        }
        Ok((extra, examples))
    }

    /// Days that the table keeps a row after its ingestion. `None`: for ever.
    pub async fn retention_days(&self, table: Table) -> Result<Option<u64>> {
        let days = retention::in_force(&self.client, table.name()).await?;
        Ok((days > 0).then_some(days))
    }

    /// Seconds since the server was started.
    pub async fn uptime_seconds(&self) -> Result<u64> {
        self.client.query("SELECT toUInt64(uptime())").fetch_one().await
    }
}

/// The number of offsets beyond one of each, among `offsets` in ascending order.
pub fn repeated(offsets: &[u64]) -> u64 {
    offsets.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
}

/// A span in slices of at most `offsets_max`.
pub fn sliced(span: Span, offsets_max: u64) -> impl Iterator<Item = Span> {
    let slices = length(span).div_ceil(offsets_max);
    (0..slices).map(move |slice| {
        let first = span.first + slice * offsets_max;
        Span { first, last: span.last.min(first + offsets_max - 1) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_in_slices() {
        let slices: Vec<Span> = sliced(Span { first: 5, last: 9 }, 2).collect();
        assert_eq!(
            slices,
            [Span { first: 5, last: 6 }, Span { first: 7, last: 8 }, Span { first: 9, last: 9 }]
        );
    }

    #[test]
    fn each_repetition_of_an_offset_counts() {
        assert_eq!(repeated(&[1, 2, 2, 2, 3, 3]), 3);
    }
}
