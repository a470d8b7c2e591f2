//! A request to forget a unit: entered in the ledger first, so that nothing of it comes in any more; then
//! deleted from every table, until nothing is left. Doing it again is harmless and deletes what came since.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clickhouse::Client;
use clickhouse::query::Query;
use schemas::Micros;
use serde::Serialize;

use super::{LedgerKey, UnitHash};
use crate::rows::Table;
use crate::store::Store;

/// Rounds of deleting before it is given up: each one removes what was on its way during the one before.
const ROUNDS_MAX: usize = 10;

/// Who is to be forgotten, and why.
pub struct Request<'a> {
    pub unit_type: &'a str,
    pub unit_id: &'a str,
    pub reason: &'a str,
    pub requested_by: &'a str,
    pub now: Micros,
    /// How long consumers may take until they heed the ledger and what they had on its way has landed.
    pub settle: Duration,
}

/// What was deleted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Deleted {
    pub unit_hash: String,
    pub forgotten_at: Micros,
    pub exposures: u64,
    pub conversions: u64,
    pub aliases: u64,
}

/// The statements of one table; each takes the unit's type and id as often as `marks` says, then the time.
struct Statements {
    table: Table,
    find: &'static str,
    delete: &'static str,
}

const TABLES: [Statements; 3] = [
    Statements {
        table: Table::Exposures,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM exposures \
               WHERE ((unit_type = ? AND unit_id = ?) OR other_ids[?] = ?) \
               AND created_at <= fromUnixTimestamp64Micro(?, 'UTC')",
        delete: "ALTER TABLE exposures DELETE \
                 WHERE ((unit_type = ? AND unit_id = ?) OR other_ids[?] = ?) \
                 AND created_at <= fromUnixTimestamp64Micro(?, 'UTC') SETTINGS mutations_sync = 2",
    },
    Statements {
        table: Table::Conversions,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM conversions \
               WHERE ((unit_type = ? AND unit_id = ?) OR other_ids[?] = ?) \
               AND created_at <= fromUnixTimestamp64Micro(?, 'UTC')",
        delete: "ALTER TABLE conversions DELETE \
                 WHERE ((unit_type = ? AND unit_id = ?) OR other_ids[?] = ?) \
                 AND created_at <= fromUnixTimestamp64Micro(?, 'UTC') SETTINGS mutations_sync = 2",
    },
    Statements {
        table: Table::Aliases,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM aliases \
               WHERE ((from_unit_type = ? AND from_unit_id = ?) OR (to_unit_type = ? AND to_unit_id = ?)) \
               AND created_at <= fromUnixTimestamp64Micro(?, 'UTC')",
        delete: "ALTER TABLE aliases DELETE \
                 WHERE ((from_unit_type = ? AND from_unit_id = ?) OR (to_unit_type = ? AND to_unit_id = ?)) \
                 AND created_at <= fromUnixTimestamp64Micro(?, 'UTC') SETTINGS mutations_sync = 2",
    },
];

/// Forgets a unit and returns when nothing of it is left.
///
/// # Errors
/// Where ClickHouse cannot be reached, or rows of the unit keep coming in: an old consumer runs somewhere.
/// The unit is in the ledger by then, and asking again goes on.
pub async fn request(client: &Client, key: &LedgerKey, request: &Request<'_>) -> Result<Deleted> {
    let hash = key.unit_hash(request.unit_type, request.unit_id);
    // A sender's clock may be ahead of ours: what is there already is meant, whatever its time.
    let mut until = request.now;
    for statements in &TABLES {
        let (rows, latest) = found(client, statements, request, Micros::MAX).await?;
        if rows > 0 {
            until = until.max(Micros::new(latest)?);
        }
    }
    enter(client, key, hash, request, until).await?;
    tokio::time::sleep(request.settle).await;

    let mut deleted = [0; TABLES.len()];
    for round in 0.. {
        let mut left = 0;
        for (statements, deleted) in TABLES.iter().zip(&mut deleted) {
            let (rows, _) = found(client, statements, request, until).await?;
            if rows > 0 {
                // Its last batches may consist of nothing else.
                Store::note_ends(client, statements.table).await.context("noting how far batches reach")?;
                request
                    .bound(client.query(statements.delete))
                    .bind(until.get())
                    .execute()
                    .await
                    .with_context(|| format!("deleting from {}", statements.table.name()))?;
                *deleted += rows;
                left += rows;
            }
        }
        if left == 0 {
            break;
        }
        if round == ROUNDS_MAX {
            bail!("rows of the unit keep coming in: a consumer runs that does not know the ledger");
        }
    }
    for (statements, rows) in TABLES.iter().zip(deleted) {
        client
            .query("INSERT INTO forgotten_deletions (unit_hash, table_name, rows_deleted) VALUES (?, ?, ?)")
            .bind(hash.to_string())
            .bind(statements.table.name())
            .bind(rows)
            .execute()
            .await
            .context("recording what was deleted")?;
    }
    let [exposures, conversions, aliases] = deleted;
    Ok(Deleted { unit_hash: hash.to_string(), forgotten_at: until, exposures, conversions, aliases })
}

impl Request<'_> {
    /// Every statement asks for the unit twice: as an event's own, and among its others.
    fn bound(&self, query: Query) -> Query {
        query.bind(self.unit_type).bind(self.unit_id).bind(self.unit_type).bind(self.unit_id)
    }
}

/// How many rows of the unit there are, and when the latest was created.
async fn found(
    client: &Client,
    statements: &Statements,
    request: &Request<'_>,
    until: Micros,
) -> Result<(u64, i64)> {
    request
        .bound(client.query(statements.find))
        .bind(until.get())
        .fetch_one()
        .await
        .with_context(|| format!("looking for the unit in {}", statements.table.name()))
}

async fn enter(
    client: &Client,
    key: &LedgerKey,
    hash: UnitHash,
    request: &Request<'_>,
    until: Micros,
) -> Result<()> {
    client
        .query(
            "INSERT INTO forgotten (unit_hash, key_check, unit_type, forgotten_at, requested_by, reason) \
             VALUES (?, ?, ?, fromUnixTimestamp64Micro(?, 'UTC'), ?, ?)",
        )
        .bind(hash.to_string())
        .bind(key.check())
        .bind(request.unit_type)
        .bind(until.get())
        .bind(request.requested_by)
        .bind(request.reason)
        .execute()
        .await
        .context("entering the unit in the ledger")
}
