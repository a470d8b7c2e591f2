//! How long the tables keep events. Counted from ingestion, as the tables are partitioned: whole days go at
//! once and cost nothing, and history that is replayed is kept as long as what is new.

use anyhow::{Context, Result};
use clickhouse::Client;
use clickhouse::sql::Identifier;

use crate::config::Settings;
use crate::rows::Table;

/// Brings the tables' retention to what is configured, and returns the tables that it changed, with the
/// days (0: for ever).
pub async fn apply(client: &Client, settings: &Settings) -> Result<Vec<(&'static str, u64)>> {
    let mut changed = Vec::new();
    for (table, days) in [
        (Table::Exposures, settings.retention_days_exposures.get()),
        (Table::Conversions, settings.retention_days_conversions.get()),
        (Table::Aliases, settings.retention_days_aliases.get()),
    ] {
        let name = table.name();
        let now = in_force(client, name).await.with_context(|| format!("reading the retention of {name}"))?;
        if now == days {
            continue;
        }
        match days {
            0 => client.query("ALTER TABLE ? REMOVE TTL").bind(Identifier(name)).execute().await,
            // What is expired goes with the next merges; writing every part anew would do it no better.
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
                // Where a part's rows expire together, as they do here, it is dropped and never written anew.
                client
                    .query("ALTER TABLE ? MODIFY SETTING ttl_only_drop_parts = 1")
                    .bind(Identifier(name))
                    .execute()
                    .await
            }
        }
        .with_context(|| format!("setting the retention of {name} to {days} days"))?;
        changed.push((name, days));
    }
    Ok(changed)
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
    fn the_days_of_a_ttl_are_read_from_the_servers_own_text() {
        let kept = "CREATE TABLE t (`a` UInt8) ENGINE = MergeTree PARTITION BY toDate(ingest_ts) ORDER BY a \
                    TTL toDate(ingest_ts) + toIntervalDay(90) SETTINGS index_granularity = 8192";
        assert_eq!(days_of_ttl(kept), Some(90));
        assert_eq!(days_of_ttl("CREATE TABLE t (`a` UInt8) ENGINE = MergeTree ORDER BY a"), None);
    }
}
