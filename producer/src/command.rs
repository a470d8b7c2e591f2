//! The subcommands: each reads its arguments, lets the library do it, and prints what came of it. Results go
//! to standard output, progress and complaints to standard error.

use std::io::Write;

use anyhow::Context;
use kafka::LogError as Log;
use ops::Exit;
use producer::log::{DefinitionLog, LogError, Record};
use schemas::Key;
use serde::Serialize;

use crate::config::Config;

pub mod apply;
pub mod assign;
pub mod definitions;
pub mod diff;
pub mod promote;
pub mod replay;
mod sending;
pub mod simulate;
pub mod topics;

/// Prints text on standard output.
pub fn show(text: &str) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")?;
    Ok(Exit::Done)
}

/// Prints a document on one line.
fn show_json(document: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(document).context("writing the result as JSON")?;
    show(&format!("{text}\n"))?;
    Ok(())
}

/// The log, read to its end.
async fn open_log(config: &Config, see: impl FnMut(&Record)) -> anyhow::Result<DefinitionLog> {
    let log = DefinitionLog::open(&config.kafka, see).await.map_err(log_error)?;
    if log.undecodable() > 0 {
        eprintln!("warning: {} records of the definitions log are no changes; skipped", log.undecodable());
    }
    Ok(log)
}

/// The name of an environment.
fn environment(text: &str) -> Result<Key, String> {
    Key::new(text).map_err(|error| error.to_string())
}

/// With the exit code that belongs to it.
fn log_error(error: LogError) -> anyhow::Error {
    let exit = match &error {
        LogError::UnknownRule(_) => None,
        LogError::Log(log) if log.is_unreachable() => Some(Exit::Unreachable),
        LogError::Log(log) => matches!(**log, Log::NotWritten { .. }).then_some(Exit::Refused),
    };
    match exit {
        Some(exit) => anyhow::Error::new(error).context(exit),
        None => error.into(),
    }
}
