//! Brings the tables to this build's schema: applies each numbered migration once, in order. Each is recorded with a
//! digest, so that a migration that was changed later is noticed. Two programs at once may both apply and record a
//! migration: each statement can be repeated, and two equal records count as one.

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
    let mut made = Vec::new();
    for migration in missing(&applied(client).await?).with_context(|| format!("the database `{database}`"))? {
        apply(client, migration).await?;
        made.push(migration.name);
    }
    Ok(made)
}

/// The migrations that are to be applied, in order.
fn missing(applied: &[Applied]) -> Result<Vec<&'static Migration>> {
    if let Some(unknown) = applied.iter().find(|applied| applied.number > SCHEMA_VERSION) {
        bail!(
            "migration {} ({}) was applied, this build knows only {SCHEMA_VERSION}: install a newer build",
            unknown.number,
            unknown.name
        );
    }
    let mut missing = Vec::new();
    for migration in &MIGRATIONS {
        let mut recorded = applied.iter().filter(|applied| applied.number == migration.number).peekable();
        if recorded.peek().is_none() {
            missing.push(migration);
        }
        recorded.try_for_each(|recorded| check(migration, recorded))?;
    }
    Ok(missing)
}

/// Whether the tables are those that this build needs; the error says what to do.
pub async fn check_schema(client: &Client, database: &str) -> Result<()> {
    let applied = match applied(client).await {
        // Before the first migration there is no such table, and perhaps no such database.
        Err(error) if is_unknown(&error) => Vec::new(),
        applied => applied?,
    };
    let version = applied.iter().map(|applied| applied.number).max().unwrap_or(0);
    if version != SCHEMA_VERSION {
        bail!(
            "the database `{database}` is at schema {version}, this build needs {SCHEMA_VERSION}: run `splitstream migrate`"
        );
    }
    Ok(())
}

/// Whether ClickHouse knows no such table (code 60) or no such database (code 81).
fn is_unknown(error: &anyhow::Error) -> bool {
    let code = |text: &str| text.starts_with("Code: 60.") || text.starts_with("Code: 81.");
    matches!(
        error.downcast_ref::<clickhouse::error::Error>(),
        Some(clickhouse::error::Error::BadResponse(text)) if code(text)
    )
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
    let &Migration { number, name, .. } = migration;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(number: usize) -> Applied {
        let migration = &MIGRATIONS[number - 1];
        Applied { number: migration.number, name: migration.name.to_owned(), digest: digest(migration) }
    }

    fn names(applied: &[Applied]) -> Vec<u32> {
        missing(applied).unwrap().iter().map(|migration| migration.number).collect()
    }

    /// Once, whoever had run it twice at a time always got the error.
    #[test]
    fn what_was_recorded_twice_alike_counts_once() {
        let last = MIGRATIONS.len() as u32;
        assert_eq!(names(&[]), (1..=last).collect::<Vec<u32>>());
        assert_eq!(names(&[applied(1), applied(1), applied(2)]), (3..=last).collect::<Vec<u32>>());
        // Left out by a crash, or by the other of two.
        assert_eq!(names(&[applied(1), applied(3)])[0], 2);
    }

    #[test]
    fn another_text_and_a_later_build_are_refused() {
        let other = Applied { digest: "0".to_owned(), ..applied(2) };
        let refused = missing(&[applied(1), applied(2), other]).unwrap_err().to_string();
        assert!(refused.starts_with("migration 2 (definitions) was applied with another text"), "{refused}");
        let later = Applied { number: SCHEMA_VERSION + 1, name: "later".to_owned(), ..applied(1) };
        let refused = missing(&[later]).unwrap_err().to_string();
        assert!(refused.ends_with("install a newer build"), "{refused}");
    }
}
