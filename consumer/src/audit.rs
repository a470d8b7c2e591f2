//! Proves that every event is in its table once. The batches of a partition must form a chain without gaps. Each
//! offset that they cover must be a row, a duplicate, a dead letter, forgotten, expired, or no message. Any other
//! offset is a hole while Kafka still has its message, and lost afterwards. A hole can be healed.
//!
//! The offsets mean something for one topic only. If the topic was recreated, or ends before its table does, its
//! messages explain nothing about the rows, and the audit is not clean.
//!
//! ClickHouse is asked first. Kafka is read only for offsets without a row, and the dead-letter topic only if some of
//! those cannot be decoded or are gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::dead_letters::{DeadLetterOffsets, DeadLetterProducer};
use crate::forget::{Ledger, LedgerKey};
use crate::pipeline::batch::Span;
use crate::pipeline::protocol::Note;
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::SchemaCache;
use crate::pipeline::store::{Place, Store};
use crate::topic_reader::{TopicReader, Watermarks};
use kafka::TopicId;

pub mod chain;
mod explain;
mod heal;
pub mod report;
pub mod tables;
mod watch;

pub use watch::{AuditMetrics, watch};

use chain::{Chain, missing};
use explain::{Findings, Location, Missing, Sources, expired_before_ms};
use heal::{HealBatch, Healer};
use report::{MadeAnew, PartitionReport, Report, TopicReport, shown};
use tables::{Part, Tables, repeated};

/// How much is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All that is in the tables.
    Whole,
    /// Batches ingested since, in milliseconds since 1970: those that a restart can have lost.
    Since { ingest_ms: i64 },
}

/// Everything that an audit asks.
pub struct Auditor {
    tables: Tables,
    store: Store,
    reader: TopicReader,
    kafka: ops::config::Kafka,
    database: ops::config::Identifier,
    ledger: Ledger,
    schemas: Arc<SchemaCache>,
    /// The epoch whose offsets belong to the topic as it is now.
    epoch: u32,
}

/// The result of an audit, and what a heal needs of it.
pub struct Audit {
    pub report: Report,
    batches: Vec<(Place, Vec<HealBatch>)>,
}

/// One partition, before the dead letters were read.
struct Examined {
    place: Place,
    chain: Chain,
    findings: Findings,
    report: PartitionReport,
}

impl Auditor {
    pub async fn open(config: &Config) -> Result<Auditor> {
        let client = clickhouse_client::open(&config.clickhouse)?;
        let settings = &config.consumer;
        let key = ledger_key(config)?;
        let ledger = Ledger::read(&client, key.as_ref()).await?;
        let store = Store::open(client.clone(), settings.insert_timeout_ms.duration())
            .await
            .context("asking ClickHouse for its settings")?;
        Ok(Auditor {
            tables: Tables::new(client),
            store,
            reader: TopicReader::open(&config.kafka, &settings.group)?,
            kafka: config.kafka.clone(),
            database: config.clickhouse.database.clone(),
            ledger,
            schemas: SchemaCache::open(&config.registry).map_err(ops::config::Error::from)?,
            epoch: u32::try_from(settings.epoch.get()).context("consumer.epoch")?,
        })
    }

    /// Audits `only` one table, or all.
    pub async fn audit(&self, only: Option<Table>, depth: Depth) -> Result<Audit> {
        let mut examined = Vec::new();
        let mut topics = Vec::new();
        let mut perhaps_dead_letters = HashMap::new();
        for table in Table::ALL.into_iter().filter(|table| only.is_none_or(|only| only == *table)) {
            let topic = self.kafka.topic(table.topic());
            let mut report =
                TopicReport { topic: topic.clone(), table: table.name(), ..TopicReport::default() };
            report.retention_days =
                self.tables.retention_days(table).await.context("reading the retention")?;
            if depth == Depth::Whole && table.holds_events() {
                let doubled = self.tables.doubled_events(table).await.context("looking for events twice")?;
                (report.event_ids_twice, report.event_ids_twice_examples) = doubled;
            }
            let places = self.places(table, &topic).await?;
            report.made_anew = self.made_anew(&places).await?;
            for place in places {
                let found = self.examine(place, &report, depth).await?;
                let wanted = found.findings.perhaps_dead_letters();
                let spans: &mut Vec<Span> = perhaps_dead_letters
                    .entry((found.place.topic.clone(), found.place.partition))
                    .or_default();
                spans.extend(wanted);
                spans.sort_by_key(|span| span.first);
                examined.push((topics.len(), found));
            }
            topics.push(report);
        }
        let topic = self.kafka.topic(schemas::topics::DEAD_LETTERS);
        let dead_letters = tokio::task::block_in_place(|| {
            DeadLetterOffsets::read(&self.reader, &topic, &perhaps_dead_letters)
        })?;
        let mut batches = Vec::new();
        for (topic, found) in examined {
            let Examined { place, chain, findings, mut report } = found;
            let settled = findings.settle(&dead_letters, &place);
            let end = chain.span().map(|span| span.last);
            report.skipped = settled.skipped;
            report.holes = settled.holes.len() as u64;
            report.holes_at_the_end =
                settled.holes.iter().filter(|hole| end.is_none_or(|end| **hole > end)).count() as u64;
            report.hole_spans = shown(&chain::runs(settled.holes.iter().copied()));
            report.lost = settled.lost.iter().map(|span| chain::length(*span)).sum();
            report.lost_spans = shown(&settled.lost);
            batches.push((place, heal::plan(&chain, report.committed, &settled.holes, &settled.lost)));
            topics[topic].partitions.push(report);
        }
        let report = Report::of(topics);
        if report.clean && depth == Depth::Whole {
            self.note_ends(only).await?;
        }
        Ok(Audit { report, batches })
    }

    /// Brings back what the audit found missing and Kafka still has, then audits again.
    pub async fn heal(&self, audit: Audit, only: Option<Table>) -> Result<Report> {
        let dead_letters = DeadLetterProducer::open(&self.kafka)?;
        let kafka = self.kafka.clone();
        let follower = tokio::task::spawn_blocking(move || heal::definitions(&kafka))
            .await
            .context("the reader of the definitions log panicked")??;
        let healer = Healer {
            sources: self.sources(None),
            tables: &self.tables,
            dead_letters: &dead_letters,
            follower: &follower,
        };
        let mut healed: HashMap<(String, u16, u32), u64> = HashMap::new();
        for (place, batches) in audit.batches.iter().filter(|(_, batches)| !batches.is_empty()) {
            let (topic, partition) = (&place.topic, place.partition);
            tracing::info!(topic, partition, offsets = heal::offsets_of(batches), "bringing offsets back");
            let back =
                healer.heal(place, batches).await.with_context(|| format!("healing {topic}/{partition}"))?;
            healed.insert((topic.clone(), partition, place.epoch), back);
        }
        let mut report = self.audit(only, Depth::Whole).await?.report;
        for topic in &mut report.topics {
            for part in &mut topic.partitions {
                let key = (topic.topic.clone(), part.partition, part.epoch);
                part.healed = healed.get(&key).copied().unwrap_or(0);
            }
        }
        Ok(Report::of(report.topics))
    }

    /// Notes how far each table reaches, once it is proven whole: consumers still know it when the rows have expired.
    async fn note_ends(&self, only: Option<Table>) -> Result<()> {
        for table in Table::ALL.into_iter().filter(|table| only.is_none_or(|only| only == *table)) {
            Store::note_ends(self.tables.client(), table).await.context("noting how far batches reach")?;
        }
        Ok(())
    }

    /// The number of consumers in the group.
    pub fn consumers(&self) -> Result<usize> {
        tokio::task::block_in_place(|| self.reader.members())
    }

    /// Every partition and epoch of the table's rows, and every partition of the topic at the current epoch.
    async fn places(&self, table: Table, topic: &str) -> Result<Vec<Place>> {
        let mut parts = self.tables.parts(table).await.context("asking for the partitions in the table")?;
        for partition in 0..tokio::task::block_in_place(|| self.reader.partitions(topic))? {
            parts.push(Part { partition, epoch: self.epoch });
        }
        parts.sort_unstable();
        parts.dedup();
        let place = |part: Part| Place {
            database: self.database.clone(),
            table,
            topic: topic.to_owned(),
            partition: part.partition,
            epoch: part.epoch,
        };
        Ok(parts.into_iter().map(place).collect())
    }

    /// The two ids, if the rows of the current epoch came from a topic with another id than it has now.
    async fn made_anew(&self, places: &[Place]) -> Result<Option<MadeAnew>> {
        let Some(place) = places.iter().find(|place| place.epoch == self.epoch) else { return Ok(None) };
        let noted = self.store.topic_ids(place).await.context("reading whose offsets the rows are")?;
        let now = tokio::task::block_in_place(|| self.reader.topic_id(&place.topic))?;
        let other = |noted: &TopicId| now.filter(|now| now != noted).map(|now| MadeAnew::of(*noted, now));
        Ok(noted.iter().find_map(other))
    }

    async fn examine(&self, place: Place, topic: &TopicReport, depth: Depth) -> Result<Examined> {
        let (table, part) = (place.table, Part { partition: place.partition, epoch: place.epoch });
        // The messages of a topic that was recreated are not those of the rows.
        let current = place.epoch == self.epoch && topic.made_anew.is_none();
        // Read before the batches: what is committed now is in the table when they are read.
        let (committed, ends) = match current {
            true => tokio::task::block_in_place(|| {
                let committed = self.reader.committed(&place.topic, place.partition)?;
                let committed =
                    committed.and_then(|(offset, note)| Committed::of(offset, &note, place.epoch));
                anyhow::Ok((committed, Some(self.reader.watermarks(&place.topic, place.partition)?)))
            })?,
            false => (None, None),
        };
        let since_ms = match depth {
            Depth::Whole => 0,
            Depth::Since { ingest_ms } => ingest_ms,
        };
        let links = self.tables.links(table, part, since_ms).await.context("reading the batches")?;
        let chain = Chain::of(links);
        // A topic that ends before the table does was recreated without a note of it, or has lost its end.
        let shorter = ends.filter(|ends| chain.span().is_some_and(|span| span.last >= ends.high));
        let ends = ends.filter(|_| shorter.is_none());
        let mut report = PartitionReport {
            partition: place.partition,
            epoch: place.epoch,
            covered: chain.span().map(|span| [span.first, span.last]),
            committed: committed.map(|committed| committed.offset),
            topic_ends_at: shorter.map(|ends| ends.high),
            batches: chain.clusters.iter().map(|cluster| cluster.links.len() as u64).sum(),
            rows: chain.clusters.iter().flat_map(|cluster| &cluster.links).map(|link| link.rows).sum(),
            gaps: chain.gaps().len() as u64,
            not_yet_stored: not_yet_stored(&chain, committed, ends),
            astray: self.tables.astray(table, part).await.context("looking for rows outside their batch")?,
            ..PartitionReport::default()
        };
        let mut absent = Vec::new();
        for cluster in chain.clusters.iter().filter(|cluster| !cluster.full()) {
            let present = self.tables.offsets(table, part, cluster.span).await.context("reading offsets")?;
            report.offsets_twice += repeated(&present);
            let spans = missing(cluster.span, &present).into_iter();
            absent.extend(spans.map(|span| Missing { span, location: Location::Batch }));
        }
        for gap in chain.gaps() {
            absent.push(Missing {
                span: gap.span,
                location: Location::Gap { next_ingest_ms: gap.next_ingest_ms },
            });
        }
        absent.extend(outside(&chain, committed, ends, depth));
        absent.sort_by_key(|missing| missing.span.first);
        let before = topic.retention_days.map(|days| expired_before_ms(days, now_ms()));
        let findings = Findings::of(&self.sources(before), &place, &absent, ends)
            .await
            .with_context(|| format!("explaining what is missing of {}/{}", place.topic, place.partition))?;
        Ok(Examined { place, chain, findings, report })
    }

    fn sources(&self, expired_before_ms: Option<i64>) -> Sources<'_> {
        Sources {
            reader: &self.reader,
            store: &self.store,
            ledger: &self.ledger,
            schemas: &self.schemas,
            expired_before_ms,
        }
    }
}

/// What the group has committed of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    offset: u64,
    /// From here on nothing that was committed became a row; `None` where the note beside it does not say.
    tail: Option<u64>,
}

impl Committed {
    /// `None` for what was committed in another epoch: its offsets are not those of these rows.
    fn of(offset: u64, note: &str, epoch: u32) -> Option<Committed> {
        match Note::parse(note) {
            Ok(Some(note)) if note.epoch != epoch => None,
            Ok(Some(note)) => {
                Some(Committed { offset, tail: Some(note.durable.map_or(0, |durable| durable + 1)) })
            }
            Ok(None) | Err(_) => Some(Committed { offset, tail: None }),
        }
    }
}

/// How many offsets of Kafka lie behind all that was taken: the lag of the consumer.
fn not_yet_stored(chain: &Chain, committed: Option<Committed>, ends: Option<Watermarks>) -> u64 {
    let Some(ends) = ends else { return 0 };
    let committed = committed.map(|committed| committed.offset);
    let taken = committed.max(chain.span().map(|covered| covered.last + 1));
    ends.high.saturating_sub(taken.unwrap_or(0).max(ends.low))
}

/// What should be in the table before the first batch and behind the last: everything that Kafka still has before the
/// first, everything that the group has committed behind the last, and what Kafka has dropped behind it.
fn outside(
    chain: &Chain,
    committed: Option<Committed>,
    ends: Option<Watermarks>,
    depth: Depth,
) -> Vec<Missing> {
    let mut outside = Vec::new();
    let Some(ends) = ends else { return outside };
    let covered = chain.span();
    if let Some(covered) = covered
        && depth == Depth::Whole
        && ends.low < covered.first
    {
        let span = Span { first: ends.low, last: covered.first - 1 };
        outside.push(Missing { span, location: Location::Beginning });
    }
    // If only recent batches were read and there are none, nothing follows from it.
    if covered.is_none() && depth != Depth::Whole {
        return outside;
    }
    let next = covered.map_or(ends.low, |covered| covered.last + 1);
    if let Some(Committed { offset, tail }) = committed
        && next < offset
    {
        let tail = tail.map_or(offset, |tail| tail.clamp(next, offset));
        if next < tail {
            outside.push(Missing { span: Span { first: next, last: tail - 1 }, location: Location::End });
        }
        if tail < offset {
            outside.push(Missing { span: Span { first: tail, last: offset - 1 }, location: Location::Tail });
        }
    }
    // What the log has dropped before anybody took it. A partition that nothing was ever taken of begins where its log does.
    let committed = committed.map(|committed| committed.offset);
    let taken = committed.max(covered.map(|covered| covered.last + 1));
    if let Some(taken) = taken
        && taken < ends.low
    {
        outside.push(Missing { span: Span { first: taken, last: ends.low - 1 }, location: Location::End });
    }
    outside
}

/// The key of the ledger of forgotten units, if one is configured.
pub fn ledger_key(config: &Config) -> Result<Option<LedgerKey>> {
    let settings = &config.consumer;
    let secret =
        ops::config::Secret::resolve(settings.forget_key.as_ref(), settings.forget_key_file.as_ref())
            .map_err(ops::config::Error::from)
            .context("consumer.forget_key_file")?;
    secret
        .map(|secret| LedgerKey::new(secret.reveal().as_bytes()))
        .transpose()
        .context("consumer.forget_key")
        .context(ops::Exit::InvalidInput)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::chain::Link;
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn chain(first: u64, last: u64) -> Chain {
        Chain::of(vec![Link { span: span(first, last), rows: 1, offsets: 1, ingest_ms: 0 }])
    }

    fn committed(offset: u64) -> Option<Committed> {
        Some(Committed { offset, tail: None })
    }

    /// Markers, duplicates and dead letters at the end were called lost once Kafka's retention had dropped them.
    #[test]
    fn a_tail_without_rows_is_no_loss() {
        let note = Note { epoch: 1, topic: None, durable: Some(9), intent: None }.to_string();
        let tail = Committed::of(12, &note, 1);
        assert_eq!(tail, Some(Committed { offset: 12, tail: Some(10) }), "{note}");
        assert_eq!(Committed::of(12, &note, 2), None);
        assert_eq!(Committed::of(12, "", 1), committed(12));
        let ends = Some(Watermarks { low: 12, high: 12 });
        let missing = |first, last, location| Missing { span: span(first, last), location };
        assert_eq!(outside(&chain(2, 9), tail, ends, Depth::Whole), [missing(10, 11, Location::Tail)]);
        // Rows that the note knows of and the table does not have are missing all the same.
        assert_eq!(
            outside(&chain(2, 7), tail, ends, Depth::Whole),
            [missing(8, 9, Location::End), missing(10, 11, Location::Tail)]
        );
    }

    /// An audit called everything clean while most events were not stored yet.
    #[test]
    fn what_the_consumer_has_not_reached_is_counted() {
        let ends = Some(Watermarks { low: 2, high: 30 });
        assert_eq!(not_yet_stored(&chain(2, 9), committed(12), ends), 18);
        assert_eq!(not_yet_stored(&chain(2, 9), None, ends), 20);
        assert_eq!(not_yet_stored(&chain(2, 29), committed(30), ends), 0);
        assert_eq!(not_yet_stored(&Chain::default(), None, ends), 28);
        assert_eq!(not_yet_stored(&chain(2, 9), None, None), 0);
    }

    #[test]
    fn what_should_be_there_outside_of_the_batches() {
        let ends = Some(Watermarks { low: 2, high: 30 });
        assert_eq!(
            outside(&chain(5, 9), committed(12), ends, Depth::Whole),
            [
                Missing { span: span(2, 4), location: Location::Beginning },
                Missing { span: span(10, 11), location: Location::End }
            ]
        );
        assert_eq!(outside(&chain(2, 9), committed(10), ends, Depth::Whole), []);
        assert_eq!(outside(&chain(2, 9), None, ends, Depth::Whole), []);
        assert_eq!(outside(&chain(5, 9), committed(12), None, Depth::Whole), []);
        assert_eq!(
            outside(&Chain::default(), committed(12), ends, Depth::Whole),
            [Missing { span: span(2, 11), location: Location::End }]
        );
    }

    /// Once called clean, while the consumer stood still because of it.
    #[test]
    fn what_the_log_dropped_before_it_was_taken_is_missing() {
        let ends = Some(Watermarks { low: 20, high: 30 });
        let dropped = |first: u64| [Missing { span: span(first, 19), location: Location::End }];
        assert_eq!(outside(&chain(2, 9), committed(10), ends, Depth::Whole), dropped(10));
        assert_eq!(outside(&chain(2, 9), None, ends, Depth::Since { ingest_ms: 0 }), dropped(10));
        assert_eq!(outside(&chain(2, 9), committed(15), ends, Depth::Whole)[1..], dropped(15));
        assert_eq!(outside(&chain(2, 25), committed(26), ends, Depth::Whole), []);
        assert_eq!(outside(&Chain::default(), None, ends, Depth::Whole), []);
        // All that was taken so far were dead letters.
        assert_eq!(outside(&Chain::default(), committed(10), ends, Depth::Whole), dropped(10));
    }

    #[test]
    fn of_recent_batches_only_what_lies_behind_them_is_asked_for() {
        let (ends, recent) = (Some(Watermarks { low: 2, high: 30 }), Depth::Since { ingest_ms: 7 });
        assert_eq!(
            outside(&chain(5, 9), committed(12), ends, recent),
            [Missing { span: span(10, 11), location: Location::End }]
        );
        assert_eq!(outside(&Chain::default(), committed(12), ends, recent), []);
    }
}
