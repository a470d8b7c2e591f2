//! ClickHouse, as the consumer uses it: insert a block, ask what is durable, end inserts that still run, look up ids.
//! Every statement is fixed text with bound parameters. The caller waits and retries.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;
use clickhouse::sql::Identifier;
use ops::config;
use schemas::{Micros, Uuid};
use serde::Deserialize;

use crate::pipeline::batch::Span;
use crate::pipeline::protocol::Intent;
use crate::pipeline::rows::Table;
use kafka::TopicId;

/// Ids looked up in one statement. At 40 bytes each it stays below the server's limit for a statement.
const LOOKUP_IDS_MAX: usize = 5_000;

/// A partition of a topic at an epoch, and the table of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub database: config::Identifier,
    pub table: Table,
    /// The topic's name as the broker knows it.
    pub topic: String,
    pub partition: u16,
    pub epoch: u32,
}

/// Names one attempt to insert one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub query_id: String,
    pub token: String,
}

impl Place {
    /// The prefix of the ids of all queries that insert into this place, whoever sent them. A server has one list of
    /// queries for all its databases, so the id names the database. No name in it contains a slash.
    pub fn query_prefix(&self) -> String {
        format!("splitstream/{}/{}/{}/{}/", self.database.as_str(), self.topic, self.epoch, self.partition)
    }

    /// The token belongs to the announced batch and its attempt. Whoever sends the batch again uses the same
    /// token, and ClickHouse stores only one of the inserts. `nonce` makes the query id unique.
    pub fn attempt(&self, intent: &Intent, nonce: u64) -> Attempt {
        let Span { first, last } = intent.span;
        self.attempt_at(&format!("{first}-{last}/{}#{}", intent.ingest_ms, intent.attempt), nonce)
    }

    /// As [`Place::attempt`], for a batch that heals `span` and was never announced.
    pub fn attempt_to_heal(&self, span: Span, attempt: u32, nonce: u64) -> Attempt {
        self.attempt_at(&format!("heal/{}-{}#{attempt}", span.first, span.last), nonce)
    }

    /// A table remembers its own tokens, so a token names no database.
    fn attempt_at(&self, batch: &str, nonce: u64) -> Attempt {
        Attempt {
            token: format!("splitstream/{}/{}/{}/{batch}", self.topic, self.epoch, self.partition),
            query_id: format!("{}{batch}/{nonce:016x}", self.query_prefix()),
        }
    }
}

/// The tables.
#[derive(Clone)]
pub struct Store {
    client: Client,
    insert_timeout: Duration,
}

impl Store {
    /// Asks the server which of the settings that keep an insert whole it knows.
    pub async fn open(client: Client, insert_timeout: Duration) -> clickhouse::error::Result<Store> {
        let known: Vec<String> = client
            .query("SELECT name FROM system.settings WHERE name IN ?")
            .bind([
                "async_insert",
                "insert_deduplicate",
                "deduplicate_insert",
                "deduplicate_blocks_in_dependent_materialized_views",
            ])
            .fetch_all()
            .await?;
        let mut client =
            client.with_setting("max_execution_time", insert_timeout.as_secs().max(1).to_string());
        for (name, value) in
            [("async_insert", "0"), ("insert_deduplicate", "1"), ("deduplicate_insert", "enable")]
        {
            if known.iter().any(|known| known == name) {
                client = client.with_setting(name, value);
            }
        }
        Ok(Store { client, insert_timeout })
    }

    /// Sends a block. After an error the rows may be in the table or not.
    pub async fn insert(
        &self,
        table: Table,
        attempt: &Attempt,
        block: Bytes,
    ) -> clickhouse::error::Result<()> {
        let mut insert = self
            .client
            .insert_formatted_with(table.insert())
            .with_setting("query_id", &attempt.query_id)
            .with_setting("insert_deduplication_token", &attempt.token)
            .with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        insert.send(block).await?;
        insert.end().await
    }

    /// Ends every insert into `place` that still runs on the server, whoever sent it, and returns their number
    /// once none is left.
    pub async fn end_inserts(&self, place: &Place) -> clickhouse::error::Result<u64> {
        let prefix = place.query_prefix();
        let running: u64 = self
            .client
            .query("SELECT count() FROM system.processes WHERE startsWith(query_id, ?)")
            .bind(&prefix)
            .fetch_one()
            .await?;
        if running > 0 {
            self.client
                .query("KILL QUERY WHERE startsWith(query_id, ?) SYNC")
                .bind(&prefix)
                .execute()
                .await?;
        }
        Ok(running)
    }

    /// The last offset that the rows of `place` cover, or covered before rows were deleted on purpose. `None` if
    /// there never were any.
    pub async fn durable(&self, place: &Place) -> clickhouse::error::Result<Option<u64>> {
        let (rows, last): (u64, u64) = self
            .client
            .query(
                "SELECT sum(found), max(last) FROM (\
                   SELECT count() AS found, max(batch_last) AS last FROM ? WHERE kafka_partition = ? AND epoch = ? \
                   UNION ALL SELECT count() AS found, max(batch_last) AS last FROM batch_ends \
                   WHERE table_name = ? AND kafka_partition = ? AND epoch = ?)",
            )
            .bind(Identifier(place.table.name()))
            .bind(place.partition)
            .bind(place.epoch)
            .bind(place.table.name())
            .bind(place.partition)
            .bind(place.epoch)
            .fetch_one()
            .await?;
        Ok((rows > 0).then_some(last))
    }

    /// The ids of the topics that the rows of the epoch came from, as they were noted: none before the first
    /// look, and one, unless two consumers noted two at once.
    pub async fn topic_ids(&self, place: &Place) -> anyhow::Result<Vec<TopicId>> {
        let ids: Vec<String> = self
            .client
            .query("SELECT DISTINCT topic_id FROM topic_ids WHERE table_name = ? AND epoch = ? ORDER BY topic_id")
            .bind(place.table.name())
            .bind(place.epoch)
            .fetch_all()
            .await?;
        ids.iter().map(|id| Ok(id.parse()?)).collect()
    }

    /// Notes the id of the topic that the rows of the epoch come from.
    pub async fn note_topic_id(&self, place: &Place, id: TopicId) -> clickhouse::error::Result<()> {
        self.client
            .query("INSERT INTO topic_ids (table_name, epoch, topic, topic_id) VALUES (?, ?, ?, ?)")
            .bind(place.table.name())
            .bind(place.epoch)
            .bind(&place.topic)
            .bind(id.to_string())
            .execute()
            .await
    }

    /// Notes how far the batches of each partition reach, before rows of the table are deleted on purpose.
    pub async fn note_ends(client: &Client, table: Table) -> clickhouse::error::Result<()> {
        client
            .query(
                "INSERT INTO batch_ends (table_name, kafka_partition, epoch, batch_last) \
                 SELECT ?, kafka_partition, epoch, max(batch_last) FROM ? GROUP BY kafka_partition, epoch",
            )
            .bind(table.name())
            .bind(Identifier(table.name()))
            .execute()
            .await
    }

    /// The number of rows of a batch.
    pub async fn count(&self, place: &Place, span: Span) -> clickhouse::error::Result<u64> {
        self.client
            .query(
                "SELECT count() FROM ? WHERE kafka_partition = ? AND epoch = ? AND kafka_offset BETWEEN ? AND ?",
            )
            .bind(Identifier(place.table.name()))
            .bind(place.partition)
            .bind(place.epoch)
            .bind(span.first)
            .bind(span.last)
            .fetch_one()
            .await
    }

    /// The durable events of `place` created since `horizon`, newest first, at most `ids_max`. With `after`, only
    /// those at later offsets. The second value is the time since which the answer is complete.
    pub async fn ids_since(
        &self,
        place: &Place,
        horizon: Micros,
        after: Option<u64>,
        ids_max: usize,
    ) -> clickhouse::error::Result<(Vec<(Uuid, Micros)>, Micros)> {
        #[derive(clickhouse::Row, Deserialize)]
        struct StoredEvent {
            #[serde(with = "clickhouse::serde::uuid")]
            event_id: Uuid,
            // Not named like the column, since the condition would read the alias.
            created_at_micros: i64,
        }
        let mut rows = self
            .client
            .query(
                "SELECT event_id, toUnixTimestamp64Micro(created_at) AS created_at_micros FROM ? \
                 WHERE kafka_partition = ? AND created_at >= fromUnixTimestamp64Micro(?, 'UTC') \
                 AND (? = 0 OR (epoch = ? AND kafka_offset >= ?)) \
                 ORDER BY created_at DESC LIMIT ?",
            )
            .bind(Identifier(place.table.name()))
            .bind(place.partition)
            .bind(horizon.get())
            .bind(u8::from(after.is_some()))
            .bind(place.epoch)
            .bind(after.map_or(0, |after| after + 1))
            .bind(ids_max as u64)
            .fetch::<StoredEvent>()?;
        let mut ids = Vec::new();
        while let Some(seen) = rows.next().await? {
            ids.push((seen.event_id, Micros::new(seen.created_at_micros).unwrap_or(Micros::MAX)));
        }
        // The answer may hold only some events of its oldest instant, so it is complete behind that.
        let complete_since = match ids.last() {
            Some((_, oldest)) if ids.len() == ids_max => Micros::new(oldest.get() + 1).unwrap_or(Micros::MAX),
            _ => horizon,
        };
        Ok((ids, complete_since))
    }

    /// The ids of `ids` that are in the table.
    pub async fn look_up(&self, place: &Place, ids: &[Uuid]) -> clickhouse::error::Result<Vec<Uuid>> {
        #[derive(clickhouse::Row, Deserialize)]
        struct StoredId {
            #[serde(with = "clickhouse::serde::uuid")]
            id: Uuid,
        }
        let mut found = Vec::new();
        for ids in ids.chunks(LOOKUP_IDS_MAX) {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            let query = match place.table.holds_events() {
                true => self
                    .client
                    .query("SELECT DISTINCT event_id AS id FROM ? WHERE event_id IN ?")
                    .bind(Identifier(place.table.name())),
                // A record of a log is at one offset of one topic. At a raised epoch the same topic is read again.
                // In a topic that was recreated, the same record has another version.
                false => self
                    .client
                    .query(
                        "SELECT DISTINCT ? AS id FROM ? WHERE (epoch = ? OR epoch IN (\
                           SELECT epoch FROM topic_ids WHERE table_name = ? AND topic_id IN (\
                             SELECT topic_id FROM topic_ids WHERE table_name = ? AND epoch = ?))) \
                         AND id IN ?",
                    )
                    .bind(Identifier(place.table.identity()))
                    .bind(Identifier(place.table.name()))
                    .bind(place.epoch)
                    .bind(place.table.name())
                    .bind(place.table.name())
                    .bind(place.epoch),
            };
            let rows = query.bind(&ids).fetch_all::<StoredId>().await?;
            found.extend(rows.into_iter().map(|row| row.id));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(database: &str) -> Place {
        let database = database.to_owned().try_into().unwrap();
        Place { database, table: Table::Exposures, topic: "exposures".to_owned(), partition: 3, epoch: 1 }
    }

    #[test]
    fn an_announced_batch_has_one_token_and_many_query_ids() {
        let place = place("metrics");
        let span = Span { first: 100, last: 149 };
        let intent =
            Intent { span, rows: 50, kept: 7, ingest_ms: 1_790_000_000_000, earlier_rows: 0, attempt: 0 };
        let first = place.attempt(&intent, 1);
        assert_eq!(first.token, "splitstream/exposures/1/3/100-149/1790000000000#0");
        assert_eq!(
            first.query_id,
            "splitstream/metrics/exposures/1/3/100-149/1790000000000#0/0000000000000001"
        );
        assert!(first.query_id.starts_with(&place.query_prefix()));
        assert_eq!(place.attempt(&intent, 2).token, first.token);
        assert_ne!(place.attempt(&Intent { attempt: 1, ..intent }, 1).token, first.token);

        let heal = place.attempt_to_heal(span, 1, 255);
        assert_eq!(heal.token, "splitstream/exposures/1/3/heal/100-149#1");
        assert_eq!(heal.query_id, "splitstream/metrics/exposures/1/3/heal/100-149#1/00000000000000ff");
        assert!(heal.query_id.starts_with(&place.query_prefix()));
    }

    /// They shared it once, and two databases on one server ended each other's inserts.
    #[test]
    fn a_prefix_of_query_ids_belongs_to_one_partition_of_one_database() {
        let one = place("metrics");
        assert_eq!(one.query_prefix(), "splitstream/metrics/exposures/1/3/");
        let span = Span { first: 100, last: 149 };
        for other in [
            place("metrics_b"),
            Place { topic: "exposures.b".to_owned(), ..one.clone() },
            Place { epoch: 13, ..one.clone() },
            Place { partition: 33, ..one.clone() },
        ] {
            let id = other.attempt_to_heal(span, 0, 1).query_id;
            assert!(!id.starts_with(&one.query_prefix()), "{id}");
        }
    }
}
