//! Brings the tables to this build's schema: each numbered migration once, in order. What was applied is
//! recorded with a digest, so that a migration changed after the fact is noticed instead of half believed.

use anyhow::{Context, Result, bail};
use clickhouse::Client;
use clickhouse::sql::Identifier;
use schemas::clickhouse::{MIGRATIONS, Migration, SCHEMA_VERSION};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

/// Applies what is missing and returns the names of what was applied.
pub async fn migrate(client: &Client, database: &str) -> Result<Vec<&'static str>> {
    client
        .clone()
        .with_database("default")
        .query("CREATE DATABASE IF NOT EXISTS ?")
        .bind(Identifier(database))
        .execute()
        .await
        .with_context(|| format!("making the database `{database}`"))?;
    client
        .query(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, digest String, \
             applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number",
        )
        .execute()
        .await
        .context("making the table `schema_migrations`")?;
    let mut done = applied(client).await?;
    let mut made = Vec::new();
    for migration in MIGRATIONS {
        match done.iter().position(|applied| applied.number == migration.number) {
            Some(at) => check(&migration, &done.swap_remove(at))?,
            None => {
                apply(client, &migration).await?;
                made.push(migration.name);
            }
        }
    }
    if let Some(unknown) = done.first() {
        bail!(
            "the database `{database}` has migration {} ({}), this build knows only {SCHEMA_VERSION}: install a newer build",
            unknown.number,
            unknown.name
        );
    }
    Ok(made)
}

/// Whether the tables are those that this build needs; the error says what to do.
pub async fn check_schema(client: &Client, database: &str) -> Result<()> {
    let applied = applied(client).await.unwrap_or_default();
    let version = applied.iter().map(|applied| applied.number).max().unwrap_or(0);
    if version != SCHEMA_VERSION {
        bail!(
            "the database `{database}` is at schema {version}, this build needs {SCHEMA_VERSION}: run `consumer migrate`"
        );
    }
    Ok(())
}

#[derive(clickhouse::Row, Deserialize)]
struct Applied {
    number: u32,
    name: String,
    digest: String,
}

async fn applied(client: &Client) -> Result<Vec<Applied>> {
    client
        .query("SELECT number, name, digest FROM schema_migrations ORDER BY number")
        .fetch_all()
        .await
        .context("reading the table `schema_migrations`")
}

async fn apply(client: &Client, migration: &Migration) -> Result<()> {
    let Migration { number, name, .. } = *migration;
    // A statement that a crash left half of a migration behind with is met again; `IF NOT EXISTS` lets it pass.
    for statement in migration.statements() {
        let statement = statement.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1).replacen(
            "CREATE VIEW ",
            "CREATE VIEW IF NOT EXISTS ",
            1,
        );
        client
            .query_raw(&statement)
            .execute()
            .await
            .with_context(|| format!("applying migration {number} ({name})"))?;
    }
    client
        .query("INSERT INTO schema_migrations (number, name, digest) VALUES (?, ?, ?)")
        .bind(number)
        .bind(name)
        .bind(digest(migration))
        .execute()
        .await
        .with_context(|| format!("recording migration {number} ({name})"))
}

fn check(migration: &Migration, applied: &Applied) -> Result<()> {
    if applied.digest != digest(migration) {
        bail!(
            "migration {} ({}) was applied with another text than this build has: the tables may differ from what it \
             expects; compare them with the statements of this build",
            migration.number,
            migration.name
        );
    }
    Ok(())
}

fn digest(migration: &Migration) -> String {
    format!("{:016x}", xxh3_64(migration.sql.as_bytes()))
}
