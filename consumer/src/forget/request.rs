//! A request to forget a unit. The unit is entered in the ledger first, so that none of its events is taken any
//! more. Then its rows are deleted from every table until none is left. A repeated request is harmless and deletes
//! what came since. A unit type or id that no unit can have is refused before a table is asked.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clickhouse::Client;
use clickhouse::query::Query;
use ops::Exit;
use schemas::{Micros, Unit};
use serde::Serialize;

use super::{LedgerKey, UNITS_MAX, UnitHash};
use crate::pipeline::rows::Table;
use crate::pipeline::store::Store;

/// Rounds of deleting before it is given up. Each round deletes what arrived during the one before.
const ROUNDS_MAX: usize = 10;

/// Who is to be forgotten, and why.
pub struct Request<'a> {
    pub unit: Unit<'a>,
    pub reason: &'a str,
    pub requested_by: &'a str,
    pub now: Micros,
    /// How long consumers may take to read the entry and to finish the inserts they have in flight.
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

/// The statements of one table, for the rows of a unit created up to a time. They compare type and id, since
/// another unit may have the same key. A map returns the empty text for a type that it does not have, so the
/// statements also ask whether it has the type.
struct Statements {
    table: Table,
    find: &'static str,
    delete: &'static str,
}

const TABLES: [Statements; 3] = [
    Statements {
        table: Table::Exposures,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM exposures \
               WHERE ((unit_type = {unit_type:String} AND unit_id = {unit_id:String}) \
               OR (mapContains(other_ids, {unit_type:String}) AND other_ids[{unit_type:String}] = {unit_id:String})) \
               AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
        delete: "ALTER TABLE exposures DELETE \
                 WHERE ((unit_type = {unit_type:String} AND unit_id = {unit_id:String}) \
                 OR (mapContains(other_ids, {unit_type:String}) \
                 AND other_ids[{unit_type:String}] = {unit_id:String})) \
                 AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC') SETTINGS mutations_sync = 2",
    },
    Statements {
        table: Table::Conversions,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM conversions \
               WHERE ((unit_type = {unit_type:String} AND unit_id = {unit_id:String}) \
               OR (mapContains(other_ids, {unit_type:String}) AND other_ids[{unit_type:String}] = {unit_id:String})) \
               AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
        delete: "ALTER TABLE conversions DELETE \
                 WHERE ((unit_type = {unit_type:String} AND unit_id = {unit_id:String}) \
                 OR (mapContains(other_ids, {unit_type:String}) \
                 AND other_ids[{unit_type:String}] = {unit_id:String})) \
                 AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC') SETTINGS mutations_sync = 2",
    },
    Statements {
        table: Table::Aliases,
        find: "SELECT count(), toUnixTimestamp64Micro(max(created_at)) FROM aliases \
               WHERE ((from_unit_type = {unit_type:String} AND from_unit_id = {unit_id:String}) \
               OR (to_unit_type = {unit_type:String} AND to_unit_id = {unit_id:String})) \
               AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
        delete: "ALTER TABLE aliases DELETE \
                 WHERE ((from_unit_type = {unit_type:String} AND from_unit_id = {unit_id:String}) \
                 OR (to_unit_type = {unit_type:String} AND to_unit_id = {unit_id:String})) \
                 AND created_at <= fromUnixTimestamp64Micro({until:Int64}, 'UTC') SETTINGS mutations_sync = 2",
    },
];

/// The number of units in the ledger, of entries for this unit, and of entries under other keys, with one of those
/// keys.
const LEDGER_STATE: &str = "SELECT uniqExact(unit_hash), countIf(unit_hash = {unit_hash:String}), \
     countIf(key_check != {key_check:String}), anyIf(key_check, key_check != {key_check:String}) FROM forgotten";

/// Forgets a unit and returns when no row of it is left.
///
/// # Errors
/// Each with its exit code. If no unit can be called so, or the ledger is full or belongs to another key, nothing
/// was entered or deleted. If ClickHouse cannot be reached, or rows of the unit keep coming in from an old
/// consumer, the unit may be in the ledger already; a repeated request continues.
pub async fn request(client: &Client, key: &LedgerKey, request: &Request<'_>) -> Result<Deleted> {
    request
        .unit
        .check()
        .context("nothing was deleted, since no unit can be called so")
        .context(Exit::Usage)?;
    let hash = key.unit_hash(&request.unit.unit_type, &request.unit.unit_id);
    check_room(client, key, hash).await?;
    carry_out(client, key, hash, request).await
}

/// Whether the unit may be entered.
async fn check_room(client: &Client, key: &LedgerKey, hash: UnitHash) -> Result<()> {
    let (units, here, strange, strange_key): (u64, u64, u64, String) = client
        .query(LEDGER_STATE)
        .param("unit_hash", hash.to_string())
        .param("key_check", key.check())
        .fetch_one()
        .await
        .context("asking the ledger for its entries")?;
    if strange > 0 {
        return Err(anyhow!(key.other_than(&strange_key))).context(Exit::InvalidInput);
    }
    if here == 0 && units >= UNITS_MAX as u64 {
        return Err(anyhow!(
            "the ledger of forgotten units is full: it holds {units} units, and every consumer holds all of them. \
             Nothing was entered or deleted. Delete the entries that nothing can bring back any more: of requests \
             made before the oldest event in Kafka, dead letter, file to be replayed and backup to be restored, as \
             ALTER TABLE forgotten DELETE WHERE requested_at < now() - toIntervalDay(60) does; then ask again"
        ))
        .context(Exit::Refused);
    }
    Ok(())
}

async fn carry_out(
    client: &Client,
    key: &LedgerKey,
    hash: UnitHash,
    request: &Request<'_>,
) -> Result<Deleted> {
    // A sender's clock may be ahead of ours. Rows that are there already are meant, whatever their time.
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
                // The last batches may consist of this unit's rows alone.
                Store::note_ends(client, statements.table).await.context("noting how far batches reach")?;
                request
                    .bound(client.query(statements.delete), until)
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
            return Err(anyhow!(
                "rows of the unit keep coming in: a consumer runs that does not know the ledger"
            ))
            .context(Exit::Unreachable);
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
    /// Binds a statement of [`TABLES`] to this unit.
    fn bound(&self, statement: Query, until: Micros) -> Query {
        statement
            .param("unit_type", &self.unit.unit_type)
            .param("unit_id", &self.unit.unit_id)
            .param("until", until.get())
    }
}

/// The number of the unit's rows, and the creation time of the latest.
async fn found(
    client: &Client,
    statements: &Statements,
    request: &Request<'_>,
    until: Micros,
) -> Result<(u64, i64)> {
    request
        .bound(client.query(statements.find), until)
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
    let Unit { unit_type, unit_id } = &request.unit;
    client
        .query(
            "INSERT INTO forgotten (unit_hash, unit_tag, key_check, unit_type, forgotten_at, requested_by, reason) \
             VALUES (?, ?, ?, ?, fromUnixTimestamp64Micro(?, 'UTC'), ?, ?)",
        )
        .bind(hash.to_string())
        .bind(key.tag(unit_type, unit_id).0)
        .bind(key.check())
        .bind(unit_type)
        .bind(until.get())
        .bind(request.requested_by)
        .bind(request.reason)
        .execute()
        .await
        .context("entering the unit in the ledger")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_and_deleted_by_its_type_and_id_and_never_by_its_key() {
        for Statements { table, find, delete } in TABLES {
            for statement in [find, delete] {
                assert!(!statement.contains("_key"), "{}: {statement}", table.name());
                assert_eq!(statement.matches("unit_type = {unit_type:String}").count(), sides(table));
                assert_eq!(statement.matches("unit_id = {unit_id:String}").count(), sides(table));
            }
        }
    }

    /// How many units of its own a row has.
    fn sides(table: Table) -> usize {
        if table == Table::Aliases { 2 } else { 1 }
    }
}
