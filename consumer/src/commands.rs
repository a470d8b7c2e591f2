//! The commands beside the pipeline: audit, dead letters, forgetting. Each reads its settings, does its
//! work, prints for people or machines, and says by its exit code how it ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use schemas::{Micros, Unit};
use serde::Serialize;

use crate::audit::{Auditor, Depth, ledger_key};
use crate::config::Config;
use crate::dead_letters::{self, Filter};
use crate::forget::{self, REFRESHED_EVERY};
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::{Plans, SchemaCache};

/// What a batch may take from its last message to its rows, beside the settings' own bounds.
const LANDING: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Audit {
    /// Prints JSON instead of a page
    #[arg(long)]
    json: bool,
    /// Brings back what is missing and Kafka still has; the consumers must be stopped
    #[arg(long)]
    heal: bool,
    /// One topic, by its name without a prefix: exposures, conversions, aliases or definitions
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
pub async fn audit(config: &Config, arguments: &Audit) -> Result<ops::Exit> {
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

pub async fn dead_letters(config: &Config, command: &DeadLetters) -> Result<ops::Exit> {
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
            // Its parts differ in length: also for people as a document.
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

/// Exit code 0: nothing of the unit is left. 2: nothing can be called so. 3: the ledger is full. 4: the ledger's key
/// is missing or another. 5: ClickHouse cannot be reached, or rows keep coming in.
pub async fn forget(config: &Config, arguments: &Forget) -> Result<ops::Exit> {
    let Some(key) = ledger_key(config)? else {
        return Err(anyhow!(
            "the ledger has no key: set SPLITSTREAM_CONSUMER__FORGET_KEY or consumer.forget_key_file, for the \
             consumers too"
        ))
        .context(ops::Exit::InvalidInput);
    };
    let client = config.clickhouse.client().map_err(ops::config::Error::from)?;
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
