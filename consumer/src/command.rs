//! The commands: the service itself, and beside it migration, audit, dead letters, forgetting. Each reads its settings, does its
//! work, prints for people or machines, and says by its exit code how it ended.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use ops::config::load;
use schemas::{Micros, Unit};
use serde::Serialize;

use crate::audit::{Auditor, Depth, ledger_key};
use crate::config::{Config, TablesConfig};
use crate::dead_letters::{self, Filter};
use crate::forget::{self, REFRESHED_EVERY};
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::{Plans, SchemaCache};
use crate::retention::Changed;
use crate::{exit, migrate, pipeline, retention};

/// What a batch may take from its last message to its rows, beside the settings' own bounds.
const LANDING: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub enum ServiceCommand {
    /// Carry events from their topics into their tables, each exactly once, until SIGTERM or SIGINT
    Run,
}

#[derive(Subcommand)]
pub enum Command {
    /// Bring the tables to this build's schema, and their retention to what the platform's settings say
    Migrate,
    /// Prove that every event is in its table once; exit code 6 if not
    Audit(Audit),
    /// Messages that could not become rows
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Delete everything of one unit, and keep its earlier events from coming back
    Forget(Forget),
}

/// Does what the command line says; `file` is the configuration's.
pub async fn run(file: Option<&Path>, command: Command) -> Result<ops::Exit> {
    let done = match command {
        Command::Migrate => migrate_tables(load(file)?).await,
        Command::Audit(arguments) => audit(&load(file)?, &arguments).await,
        Command::DeadLetters(command) => dead_letters(&load(file)?, &command).await,
        Command::Forget(arguments) => forget(&load(file)?, &arguments).await,
    };
    done.map_err(exit::coded)
}

/// The service, until it is stopped.
pub async fn serve(config: Config) -> Result<ops::Exit> {
    pipeline::run(config).await.map_err(exit::coded)
}

#[derive(Args)]
pub struct Audit {
    /// Prints JSON instead of a page
    #[arg(long)]
    json: bool,
    /// Brings back what is missing and Kafka still has; the consumers must be stopped
    #[arg(long)]
    heal: bool,
    /// One topic, by its name without a prefix: exposures, conversions, aliases, definitions or looks
    #[arg(long)]
    topic: Option<String>,
}

#[derive(Subcommand)]
pub enum DeadLetters {
    /// One line for each
    List(Chosen),
    /// With their bytes, and what they hold
    Show(Chosen),
    /// Sends the original bytes again, to where they came from
    Replay {
        #[command(flatten)]
        chosen: Chosen,
        /// Those too that were sent again before
        #[arg(long)]
        again: bool,
    },
}

#[derive(Args)]
pub struct Chosen {
    /// Topic that they came from
    #[arg(long)]
    topic: Option<String>,
    /// Partition that they came from
    #[arg(long)]
    partition: Option<u16>,
    /// Offset that they came from
    #[arg(long)]
    offset: Option<u64>,
    /// Why they are dead letters, such as `truncated`
    #[arg(long)]
    code: Option<String>,
    /// Prints JSON instead of a page
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Forget {
    /// The unit's id
    unit: String,
    /// What it identifies, such as `user`
    #[arg(long)]
    unit_type: String,
    /// Kept in the ledger; do not name the unit in it
    #[arg(long, default_value = "")]
    reason: String,
    /// Who asks, for the ledger
    #[arg(long, default_value = "")]
    by: String,
    /// Prints JSON instead of a line
    #[arg(long)]
    json: bool,
}

/// Exit code 0: clean. 6: holes, losses or duplicates. 5: Kafka or ClickHouse cannot be reached. 4: they are not
/// configured rightly. 3: refused, because consumers run.
async fn audit(config: &Config, arguments: &Audit) -> Result<ops::Exit> {
    let only = match &arguments.topic {
        None => None,
        Some(topic) => {
            let found = Table::ALL.into_iter().find(|table| table.topic() == topic);
            Some(found.ok_or_else(|| anyhow!("there is no topic `{topic}`")).context(ops::Exit::Usage)?)
        }
    };
    let auditor = Auditor::open(config).await.context("auditing")?;
    if arguments.heal {
        let consumers = auditor.consumers()?;
        if consumers > 0 {
            let group = &config.consumer.group;
            return Err(anyhow!(
                "{consumers} consumers of the group `{group}` are running: one that started after the loss would \
                 take a resend of a healed event for a new one; stop them, heal, and start them again"
            ))
            .context(ops::Exit::Refused);
        }
    }
    let audited = auditor.audit(only, Depth::Whole).await.context("auditing")?;
    let report = match arguments.heal && audited.report.holes > 0 {
        true => auditor.heal(audited, only).await.context("healing")?,
        false => audited.report,
    };
    print(arguments.json, &report, || report.page())?;
    Ok(if report.clean { ops::Exit::Done } else { ops::Exit::Found })
}

async fn dead_letters(config: &Config, command: &DeadLetters) -> Result<ops::Exit> {
    let read = |chosen: &Chosen, payloads: bool| {
        let filter = Filter {
            // Named with or without the prefix that all topics share.
            topic: chosen.topic.as_ref().map(|topic| {
                let ours = Table::ALL.iter().any(|table| table.topic() == topic);
                if ours { config.kafka.topic(topic) } else { topic.clone() }
            }),
            partition: chosen.partition,
            offset: chosen.offset,
            code: chosen.code.clone(),
        };
        tokio::task::block_in_place(|| dead_letters::read(&config.kafka, &filter, payloads))
    };
    let mut plans = Plans::new(SchemaCache::open(&config.registry).map_err(ops::config::Error::from)?);
    match command {
        DeadLetters::List(chosen) => {
            let letters = read(chosen, false)?;
            print(chosen.json, &letters, || dead_letters::list(&letters))?;
        }
        DeadLetters::Show(chosen) => {
            let table =
                |topic: &str| Table::ALL.into_iter().find(|table| config.kafka.topic(table.topic()) == topic);
            let shown: Vec<_> = read(chosen, true)?
                .iter()
                .map(|letter| dead_letters::show(letter, table(&letter.origin.topic), &mut plans))
                .collect();
            // Always JSON: its parts vary too much for a table.
            print(true, &shown, String::new)?;
        }
        DeadLetters::Replay { chosen, again } => {
            let letters = read(chosen, true)?;
            let replayed = dead_letters::replay(&config.kafka, &letters, *again, &mut plans).await?;
            print(chosen.json, &replayed, || {
                format!(
                    "{} sent again, {} were before, {} are too long to have been kept whole\n",
                    replayed.sent, replayed.before, replayed.cut
                )
            })?;
        }
    }
    Ok(ops::Exit::Done)
}

/// Exit code 0: nothing of the unit is left. 2: no unit can have this id. 3: the ledger is full. 4: the ledger's key
/// is missing or another. 5: ClickHouse cannot be reached, or rows keep coming in.
async fn forget(config: &Config, arguments: &Forget) -> Result<ops::Exit> {
    let Some(key) = ledger_key(config)? else {
        return Err(anyhow!(
            "the ledger has no key: set SPLITSTREAM_CONSUMER__FORGET_KEY or consumer.forget_key_file, for the \
             consumers too"
        ))
        .context(ops::Exit::InvalidInput);
    };
    let client = clickhouse_client::open(&config.clickhouse)?;
    let settings = &config.consumer;
    let request = forget::Request {
        unit: Unit {
            unit_type: arguments.unit_type.as_str().into(),
            unit_id: arguments.unit.as_str().into(),
        },
        reason: &arguments.reason,
        requested_by: &arguments.by,
        now: now()?,
        settle: REFRESHED_EVERY + settings.batch_age_ms.duration() + LANDING,
    };
    let deleted = forget::request(&client, &key, &request).await?;
    print(arguments.json, &deleted, || {
        format!(
            "forgotten: {} exposures, {} conversions and {} aliases deleted; what was created up to {} is not taken \
             in again. Copies in Kafka go with its retention: events after 7 days, dead letters after 30, unless \
             configured otherwise\n",
            deleted.exposures, deleted.conversions, deleted.aliases, deleted.forgotten_at
        )
    })?;
    Ok(ops::Exit::Done)
}

async fn migrate_tables(config: TablesConfig) -> Result<ops::Exit> {
    let client = clickhouse_client::open(&config.clickhouse)?;
    let made = migrate::migrate(&client, config.clickhouse.database.as_str())
        .await
        .with_context(|| format!("migrating {}", config.clickhouse.url.as_str()))?;
    match made.is_empty() {
        true => println!("the tables are up to date"),
        false => println!("applied {}", made.join(", ")),
    }
    let changed = retention::apply(&client).await?;
    for Changed { table, days, done } in changed {
        let time = if days == 0 { "ever".to_owned() } else { format!("{days} days") };
        match done {
            true => println!("{table} are kept for {time}"),
            false => println!("{table} are to be kept for {time}: set the TTL of the local tables by hand"),
        }
    }
    Ok(ops::Exit::Done)
}

fn print(json: bool, document: &impl Serialize, page: impl FnOnce() -> String) -> Result<()> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(document).context("writing JSON")?),
        false => print!("{}", page()),
    }
    Ok(())
}

fn now() -> Result<Micros> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Micros::new(i64::try_from(since.as_micros())?).context("the clock stands after 2261")
}
