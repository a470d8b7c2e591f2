//! `splitstream history KEY` prints every accepted version of one definition, the newest last: its time, author,
//! reason, state, and how it differs from the version before.

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use definitions::history::{EntryDocument, ProposalDocument};
use ops::Exit;
use schemas::definition::Kind;

use super::definitions::{standing_text, time_text};
use super::{open_log, print_json, print_text};
use crate::config::Config;

#[derive(clap::Args)]
pub struct Args {
    /// The key of a definition
    key: String,
    /// The kind of the definition, where several kinds have the key
    #[arg(long, value_parser = kind())]
    kind: Option<Kind>,
    /// Print the refused changes as well, with the reason for each refusal
    #[arg(long)]
    refused: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .map(|text| Kind::parse(&text).expect("only kinds are possible values"))
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let log = open_log(config).await?;
    let history = log.history();
    let kind = history.kind_of(&args.key, args.kind, args.refused);
    let kind = kind.map_err(|unknown| anyhow!("{unknown}").context(Exit::Refused))?;
    let changes = history.changes(kind, &args.key, args.refused);
    if args.json {
        print_json(&changes)?;
        return Ok(Exit::Done);
    }
    print_text(&format!("{kind} {}\n", args.key))?;
    for entry in &changes.changes {
        print_text(&text(entry))?;
    }
    Ok(Exit::Done)
}

fn text(entry: &EntryDocument) -> String {
    let time = time_text(entry);
    let Some(ProposalDocument { author, reason, standing, changed, .. }) = &entry.proposal else {
        return String::new();
    };
    let mut text = match entry.version {
        Some(version) => {
            format!("version {version}, {time}{}, by {author}: {reason}\n", standing_text(*standing))
        }
        None => format!("refused, {time}, by {author}: {reason}\n"),
    };
    if let Some(because) = &entry.because {
        text.push_str(&format!("    because {because}\n"));
    }
    for changed in changed {
        text.push_str(&format!("    {changed}\n"));
    }
    text
}
