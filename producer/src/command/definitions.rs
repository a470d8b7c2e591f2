//! `splitstream definitions` prints the current definitions. `splitstream definitions log` prints every
//! proposed change with its author, reason and verdict.

use definitions::history::{Entry, EntryDocument, ProposalDocument, Standing};
use ops::Exit;
use serde_json::Value;

use super::{open_log, print_json, print_text};
use crate::config::Config;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Print an array of definitions that `splitstream apply` can read
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Subcommand>,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// Every proposed change with its author, reason and verdict
    Log {
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    match args.command {
        None => current(config, args.json).await,
        Some(Subcommand::Log { json }) => every_change(config, json).await,
    }
}

async fn current(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let log = open_log(config).await?;
    if json {
        let all: Vec<Value> =
            log.definitions().iter().map(|accepted| accepted.definition.to_document()).collect();
        print_json(&all)?;
        return Ok(Exit::Done);
    }
    for accepted in log.definitions().iter() {
        let definition = &accepted.definition;
        let state = standing_text(Standing::of(definition));
        print_text(&format!(
            "{} {}: version {}{state}\n",
            definition.kind(),
            definition.key(),
            accepted.version
        ))?;
    }
    Ok(Exit::Done)
}

async fn every_change(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let log = open_log(config).await?;
    let entries: Vec<EntryDocument> = log.history().entries().iter().map(Entry::document).collect();
    if json {
        print_json(&entries)?;
        return Ok(Exit::Done);
    }
    for entry in &entries {
        print_text(&text(entry))?;
    }
    Ok(Exit::Done)
}

fn text(entry: &EntryDocument) -> String {
    let EntryDocument { offset, verdict, because, proposal, .. } = entry;
    let time = time_text(entry);
    let Some(ProposalDocument { kind, key, author, reason, changed, .. }) = proposal else {
        return format!("{} {time} {verdict}: {}\n", offset + 1, because.as_deref().unwrap_or_default());
    };
    let mut text = format!("{} {time} {verdict} {kind} {key}, {author}: {reason}\n", offset + 1);
    if let Some(because) = because {
        text.push_str(&format!("    because {because}\n"));
    }
    for changed in changed {
        text.push_str(&format!("    {changed}\n"));
    }
    text
}

/// The time of a record; a broker may give none.
pub(super) fn time_text(entry: &EntryDocument) -> String {
    entry.time.map_or_else(|| "no time".to_owned(), |time| time.to_string())
}

/// `, running, phase 1` for a definition that has a state.
pub(super) fn standing_text(standing: Standing) -> String {
    let mut text = String::new();
    if let Some(state) = standing.state {
        text.push_str(&format!(", {state}"));
    }
    if let Some(phase) = standing.phase {
        text.push_str(&format!(", phase {phase}"));
    }
    text
}
