//! The commands. Each reads its arguments, calls the library and prints the outcome: results on standard
//! output, progress and errors on standard error.

use ::definitions::log::{DefinitionLog, LogError};
use anyhow::Context;
use clap::Subcommand;
use ops::Exit;
use schemas::Key;
use serde::Serialize;

use crate::config::Config;

mod apply;
mod assign;
mod definitions;
mod diff;
mod event_sender;
mod history;
mod import;
mod lists;
mod promote;
mod replay;
mod ship;
mod simulate;
mod topics;

#[derive(Subcommand)]
pub enum Command {
    /// Create the topics that are missing and compare the others
    Topics(topics::Args),
    /// Propose the definitions of a file
    Apply(apply::Args),
    /// Print what differs between two environments
    Diff(diff::Args),
    /// Copy one environment's settings of a flag or an experiment to another environment, as one change
    Promote(promote::Args),
    /// End an experiment and serve one variant from now on, as one change
    Ship(ship::ShipArgs),
    /// End an experiment and serve the control from now on, as one change
    Rollback(ship::RollbackArgs),
    /// Replace the members of a list of units
    Lists(lists::Args),
    /// Print the current definitions, or the log of changes
    Definitions(definitions::Args),
    /// Print every version of a definition with its author, reason and changes
    History(history::Args),
    /// Print which variant a unit gets, and why
    Assign(assign::Args),
    /// Send the events of a file, with their own ids and times
    Replay(replay::Args),
    /// Send seeded traffic with known true rates
    Simulate(simulate::Args),
}

/// The commands that read and write files alone, and so need no configuration.
#[derive(Subcommand)]
pub enum FileCommand {
    /// Turn the flags of flagd, GrowthBook or Unleash into a definition file, and name what cannot be
    Import(import::Args),
}

/// Runs the command.
pub fn run_on_files(command: FileCommand) -> anyhow::Result<Exit> {
    match command {
        FileCommand::Import(args) => import::run(args),
    }
}

/// Runs the command.
pub async fn run(config: &Config, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Topics(args) => topics::run(config, args).await,
        Command::Apply(args) => apply::run(config, args).await,
        Command::Diff(args) => diff::run(config, args).await,
        Command::Promote(args) => promote::run(config, args).await,
        Command::Ship(args) => ship::ship(config, args).await,
        Command::Rollback(args) => ship::rollback(config, args).await,
        Command::Lists(args) => lists::run(config, args).await,
        Command::Definitions(args) => definitions::run(config, args).await,
        Command::History(args) => history::run(config, args).await,
        Command::Assign(args) => assign::run(config, args).await,
        Command::Replay(args) => replay::run(config, args).await,
        Command::Simulate(args) => simulate::run(config, args).await,
    }
}

/// Prints text on standard output.
fn print_text(text: &str) -> anyhow::Result<Exit> {
    ops::print(text)?;
    Ok(Exit::Done)
}

/// Prints a document on one line.
fn print_json(document: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(document).context("writing the result as JSON")?;
    print_text(&format!("{text}\n"))?;
    Ok(())
}

/// Opens the log and reads it to its end.
async fn open_log(config: &Config) -> anyhow::Result<DefinitionLog> {
    let log = DefinitionLog::open(&config.kafka).await.map_err(log_error)?;
    if log.undecodable() > 0 {
        eprintln!("warning: {} records of the definitions log are no changes; skipped", log.undecodable());
    }
    Ok(log)
}

/// Parses the name of an environment.
fn environment(text: &str) -> Result<Key, String> {
    Key::new(text).map_err(|error| error.to_string())
}

/// Adds the exit code that belongs to the error.
fn log_error(error: LogError) -> anyhow::Error {
    let exit = match &error {
        LogError::UnknownRule(_) => None,
        LogError::Log(log) if log.is_unreachable() => Some(Exit::Unreachable),
        LogError::Log(log) => matches!(**log, kafka::LogError::NotWritten { .. }).then_some(Exit::Refused),
    };
    match exit {
        Some(exit) => anyhow::Error::new(error).context(exit),
        None => error.into(),
    }
}
