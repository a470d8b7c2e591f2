//! `splitstream definitions` prints the current definitions. `splitstream definitions log` prints every
//! proposed change with its author, reason and verdict.

use crate::diff::{Changed, diff};
use definitions::log::{Content, Record};
use ops::Exit;
use schemas::definition::{Definition, Version};
use serde::Serialize;
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
        Some(Subcommand::Log { json }) => history(config, json).await,
    }
}

async fn current(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let log = open_log(config, |_| {}).await?;
    if json {
        let all: Vec<Value> =
            log.definitions().iter().map(|accepted| accepted.definition.to_document()).collect();
        print_json(&all)?;
        return Ok(Exit::Done);
    }
    for accepted in log.definitions().iter() {
        let definition = &accepted.definition;
        let state = match definition {
            Definition::Experiment(experiment) => {
                format!(", {}, phase {}", experiment.state.as_str(), experiment.phase())
            }
            Definition::Flag(flag) if flag.archived => ", archived".to_owned(),
            Definition::Flag(flag) => if flag.enabled { ", enabled" } else { ", disabled" }.to_owned(),
            Definition::Layer(_) | Definition::Metric(_) | Definition::List(_) | Definition::Settings(_) => {
                String::new()
            }
        };
        print_text(&format!(
            "{} {}: version {}{state}\n",
            definition.kind(),
            definition.key(),
            accepted.version
        ))?;
    }
    Ok(Exit::Done)
}

/// A record of the log as it is printed.
#[derive(Serialize)]
struct Entry {
    offset: u64,
    time: Option<String>,
    /// accepted, refused or undecodable
    verdict: &'static str,
    /// The version that an accepted change created.
    version: Option<Version>,
    /// The reason why it was refused or cannot be decoded.
    because: Option<String>,
    #[serde(flatten)]
    proposal: Option<Proposal>,
}

#[derive(Serialize)]
struct Proposal {
    change_id: String,
    kind: String,
    key: String,
    based_on: Version,
    author: String,
    reason: String,
    changed: Vec<Changed>,
}

async fn history(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let mut entries = Vec::new();
    open_log(config, |record| entries.push(entry(record))).await?;
    if json {
        print_json(&entries)?;
        return Ok(Exit::Done);
    }
    for entry in &entries {
        print_text(&text(entry))?;
    }
    Ok(Exit::Done)
}

fn entry(record: &Record) -> Entry {
    let time = record.time.map(|time| time.to_string());
    let offset = record.offset;
    match &record.content {
        Content::Undecodable(error) => Entry {
            offset,
            time,
            verdict: "undecodable",
            version: None,
            because: Some(error.to_string()),
            proposal: None,
        },
        Content::Judged { change, previous, verdict } => {
            let changed = match verdict {
                Ok(accepted) => {
                    diff(previous.as_ref().map(|previous| &previous.definition), &accepted.definition)
                }
                Err(_) => Vec::new(),
            };
            Entry {
                offset,
                time,
                verdict: if verdict.is_ok() { "accepted" } else { "refused" },
                version: verdict.as_ref().ok().map(|accepted| accepted.version),
                because: verdict.as_ref().err().map(ToString::to_string),
                proposal: Some(Proposal {
                    change_id: change.change_id.to_string(),
                    kind: change.kind.clone(),
                    key: change.key.clone(),
                    based_on: change.based_on,
                    author: change.author.clone(),
                    reason: change.reason.clone(),
                    changed,
                }),
            }
        }
    }
}

fn text(entry: &Entry) -> String {
    let Entry { offset, time, verdict, because, proposal, .. } = entry;
    let time = time.as_deref().unwrap_or("no time");
    let Some(proposal) = proposal else {
        return format!("{} {time} {verdict}: {}\n", offset + 1, because.as_deref().unwrap_or_default());
    };
    let Proposal { kind, key, author, reason, changed, .. } = proposal;
    let mut text = format!("{} {time} {verdict} {kind} {key}, {author}: {reason}\n", offset + 1);
    if let Some(because) = because {
        text.push_str(&format!("    because {because}\n"));
    }
    for changed in changed {
        text.push_str(&format!("    {changed}\n"));
    }
    text
}
