//! How long the tables keep events, by the platform's settings. The time counts from ingestion, by which the
//! tables are partitioned: a whole day is dropped at once at no cost, and replayed history is kept as long as new
//! events.

use anyhow::{Context, Result, anyhow};
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use schemas::definition::{Definition, Kind, SETTINGS_KEY, Settings};
use serde::Deserialize;

/// The last settings that were accepted, with their version.
const SQL: &str = "
SELECT version, definition
FROM definition_log
WHERE accepted AND kind = ? AND key = ?
ORDER BY epoch DESC, version DESC
LIMIT 1";

#[derive(Debug, Row, Deserialize)]
struct Accepted {
    version: u64,
    /// JSON.
    definition: String,
}

/// A table that did not keep its rows for as long as the settings say.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    pub table: &'static str,
    /// 0: for ever.
    pub days: u64,
    /// Whether it does now. A distributed table keeps nothing itself: its local tables are changed by hand.
    pub done: bool,
}

/// Brings the tables' retention to what the mirror of the definitions log says, and returns what there was to change.
/// Where no settings were ever accepted, the tables stay as they are.
pub async fn apply(client: &Client) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    let Some(settings) = settings(client).await? else { return Ok(changed) };
    for (name, days) in settings.retention_days.tables() {
        let days = u64::from(days);
        let now = in_force(client, name).await.with_context(|| format!("reading the retention of {name}"))?;
        if now == days {
            continue;
        }
        if is_distributed(client, name).await.with_context(|| format!("reading the engine of {name}"))? {
            changed.push(Changed { table: name, days, done: false });
            continue;
        }
        match days {
            0 => client.query("ALTER TABLE ? REMOVE TTL").bind(Identifier(name)).execute().await,
            // Expired rows go with the next merges. Rewriting every part now would not be better.
            days => {
                client
                    .query(
                        "ALTER TABLE ? MODIFY TTL toDate(ingest_ts) + toIntervalDay(?) \
                         SETTINGS materialize_ttl_after_modify = 0",
                    )
                    .bind(Identifier(name))
                    .bind(days)
                    .execute()
                    .await?;
                // All rows of a part expire on the same day, so the part is dropped and never rewritten.
                client
                    .query("ALTER TABLE ? MODIFY SETTING ttl_only_drop_parts = 1")
                    .bind(Identifier(name))
                    .execute()
                    .await
            }
        }
        .with_context(|| format!("setting the retention of {name} to {days} days"))?;
        changed.push(Changed { table: name, days, done: true });
    }
    Ok(changed)
}

async fn settings(client: &Client) -> Result<Option<Settings>> {
    let query = client.query(SQL).bind(Kind::Settings.as_str()).bind(SETTINGS_KEY);
    let accepted: Option<Accepted> =
        query.fetch_optional().await.context("reading the settings in the mirror of the definitions log")?;
    accepted.map(|accepted| read(&accepted)).transpose()
}

/// # Errors
/// Where a later build has said more than this one can read: then nothing may be deleted by it.
fn read(accepted: &Accepted) -> Result<Settings> {
    let version = accepted.version;
    let value = serde_json::from_str(&accepted.definition)
        .with_context(|| format!("version {version} of the settings is not JSON"))?;
    match Definition::from_json(Kind::Settings, value) {
        Ok(Definition::Settings(settings)) => Ok(settings),
        Ok(other) => Err(anyhow!("version {version} of the settings is a {}", other.kind())),
        Err(problem) => {
            Err(anyhow!("version {version} of the settings cannot be read: {problem}; install a newer build"))
        }
    }
}

async fn is_distributed(client: &Client, table: &str) -> clickhouse::error::Result<bool> {
    let engine: String = client
        .query("SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = ?")
        .bind(table)
        .fetch_one()
        .await?;
    Ok(engine == "Distributed")
}

/// Days that a table keeps rows; 0: for ever.
pub async fn in_force(client: &Client, table: &str) -> clickhouse::error::Result<u64> {
    let statement: String = client
        .query("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?")
        .bind(table)
        .fetch_one()
        .await?;
    Ok(days_of_ttl(&statement).unwrap_or(0))
}

/// The days in a table's TTL, as the server repeats what [`apply`] wrote.
fn days_of_ttl(statement: &str) -> Option<u64> {
    let (_, ttl) = statement.split_once(" TTL toDate(ingest_ts) + toIntervalDay(")?;
    ttl.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_say_more_than_is_known_delete_nothing() {
        let read =
            |definition: &str| super::read(&Accepted { version: 7, definition: definition.to_owned() });
        let settings = read(r#"{"key": "platform", "retention_days": {"conversions": 30}}"#).unwrap();
        assert_eq!(settings.retention_days.tables(), [("exposures", 0), ("conversions", 30), ("aliases", 0)]);
        assert_eq!(
            read(r#"{"key": "platform", "retention_days": {"results": 1}}"#).unwrap_err().to_string(),
            "version 7 of the settings cannot be read: retention_days.results: no such field; there can be exposures, \
             conversions, aliases; install a newer build"
        );
    }

    #[test]
    fn the_days_of_a_ttl_are_read_from_the_servers_own_text() {
        let kept = "CREATE TABLE t (`a` UInt8) ENGINE = MergeTree PARTITION BY toDate(ingest_ts) ORDER BY a \
                    TTL toDate(ingest_ts) + toIntervalDay(90) SETTINGS index_granularity = 8192";
        assert_eq!(days_of_ttl(kept), Some(90));
        assert_eq!(days_of_ttl("CREATE TABLE t (`a` UInt8) ENGINE = MergeTree ORDER BY a"), None);
    }
}
