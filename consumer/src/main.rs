//! `consumer`: from topic to table.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use consumer::config::{Config, TablesConfig};
use consumer::retention::Changed;
use consumer::{commands, exit, heap, migrate, pipeline, retention};
use ops::config::load;

/// Carries exposures, conversions, aliases and definitions from Kafka into ClickHouse, each exactly once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML); SPLITSTREAM_<SECTION>__<FIELD> in the environment wins over it
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The pipeline, until SIGTERM or SIGINT
    Run,
    /// Brings the tables to this build's schema, and their retention to what the platform's settings say
    Migrate,
    /// Proves that every event is in its table once; exit code 6 if not
    Audit(commands::Audit),
    /// Messages that could not become rows
    #[command(subcommand)]
    DeadLetters(commands::DeadLetters),
    /// Deletes everything of one unit, and keeps what it did up to now from coming back
    Forget(commands::Forget),
    /// Prints every setting with its unit, bounds and value
    Config,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    heap::keep_memory();
    ops::main(async { run(arguments).await.map_err(exit::coded) })
}

async fn run(arguments: Arguments) -> Result<ops::Exit> {
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Run => pipeline::run(load(file)?).await,
        Command::Migrate => migrate_tables(load(file)?).await,
        Command::Audit(arguments) => commands::audit(&load(file)?, &arguments).await,
        Command::DeadLetters(command) => commands::dead_letters(&load(file)?, &command).await,
        Command::Forget(arguments) => commands::forget(&load(file)?, &arguments).await,
        Command::Config => {
            print!("{}", ops::config::render(&load::<Config>(file)?));
            Ok(ops::Exit::Done)
        }
    }
}

async fn migrate_tables(config: TablesConfig) -> Result<ops::Exit> {
    let client = config.clickhouse.client().map_err(ops::config::Error::from)?;
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
