//! `splitstream lists put` replaces the members of a list: it writes their hashes to the topic of lists, and then proposes
//! the definition that names their digest. Each running experiment that the members concern gets its next phase.

use std::path::PathBuf;

use ::definitions::lists::ListWriter;
use anyhow::{Context, anyhow};
use assignment::Members;
use clap::Subcommand;
use ops::Exit;
use schemas::Key;
use schemas::definition::{Definition, List};
use schemas::event::UNIT_ID_BYTES_MAX;

use super::apply::{ProposalArgs, propose_one};
use super::open_log;
use crate::config::Config;
use crate::text;

/// How many versions of a list keep their members: the current one, and the one before for whoever has not read the change
/// yet.
const VERSIONS_KEPT: usize = 2;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: ListsCommand,
}

#[derive(Subcommand)]
enum ListsCommand {
    /// Replace the members of a list by the ids of a file
    Put(PutArgs),
}

#[derive(clap::Args)]
struct PutArgs {
    /// The key of the list
    #[arg(value_parser = super::environment)]
    key: Key,
    /// The ids, one a line, used exactly as written; at most a million. An id that begins or ends with white space, or has a
    /// byte order mark in it, is refused with its line, since no unit would be sent so
    file: PathBuf,
    /// Whose ids they are; a list keeps its unit type
    #[arg(long, value_name = "TYPE", value_parser = super::environment, default_value = "user")]
    unit_type: Key,
    #[arg(long, default_value = "")]
    owner: String,
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    proposal: ProposalArgs,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let ListsCommand::Put(args) = args.command;
    let name = args.file.display();
    let bytes =
        std::fs::read(&args.file).with_context(|| format!("reading {name}")).context(Exit::InvalidInput)?;
    let invalid = |error: String| anyhow!("{name}: {error}").context(Exit::InvalidInput);
    let text = text::decode_file(&bytes).map_err(|error| invalid(error.to_string()))?;
    let ids = ids(text).map_err(invalid)?;

    let mut log = open_log(config).await?;
    let current = log.definitions().list(&args.key).cloned();
    let salt = current.as_ref().map_or(&args.key, List::salt).clone();
    let members = Members::of_ids(&salt, ids).map_err(|error| invalid(error.to_string()))?;
    let writer = ListWriter::open(&config.kafka)?;
    if !args.proposal.dry_run {
        // Before the definition, so that whoever reads that finds them.
        writer.put(&args.key, &members).await?;
    }
    let kept = |new: String, old: Option<String>| if new.is_empty() { old.unwrap_or_default() } else { new };
    let list = List {
        key: args.key.clone(),
        owner: kept(args.owner, current.as_ref().map(|list| list.owner.clone())),
        description: kept(args.description, current.as_ref().map(|list| list.description.clone())),
        unit_type: args.unit_type,
        salt: Some(salt),
        members_sha256: members.digest(),
        members: members.len() as u64,
    };
    let exit = propose_one(&mut log, Definition::List(list), &args.proposal).await?;
    let is_current =
        log.definitions().list(&args.key).is_some_and(|list| list.members_sha256 == members.digest());
    if is_current && !args.proposal.dry_run {
        // Again: another writer may have removed these members as those of an old version meanwhile.
        writer.put(&args.key, &members).await?;
        let versions: Vec<&str> =
            log.definitions().list_versions(&args.key).map(|list| list.members_sha256.as_str()).collect();
        let (kept, older) = versions.split_at(VERSIONS_KEPT.min(versions.len()));
        // The one version that has just become too old; those before it were removed when it was made.
        if let Some(digest) = older.first().filter(|digest| !kept.contains(digest)) {
            writer.remove(&args.key, digest).await?;
        }
    }
    Ok(exit)
}

/// The mark that some programs write before a text, and that stays inside where such texts are joined.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the ids. Empty lines at the end are none. What nobody sees in an editor is refused and not taken away: ids are used
/// exactly as written, and only their author knows which was meant.
fn ids(text: &str) -> Result<Vec<&str>, String> {
    let mut ids = Vec::new();
    for (number, id) in (1..).zip(text.trim_end_matches(['\n', '\r']).lines()) {
        if let Some(problem) = problem(id) {
            return Err(format!("line {number}: {problem}"));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn problem(id: &str) -> Option<String> {
    let bytes = id.len();
    if !(1..=UNIT_ID_BYTES_MAX).contains(&bytes) {
        return Some(format!("an id has 1 to {UNIT_ID_BYTES_MAX} bytes, this one has {bytes}"));
    }
    let what = if id.contains(BYTE_ORDER_MARK) {
        "has a byte order mark (U+FEFF) in it"
    } else if id.trim() != id {
        "begins or ends with white space"
    } else {
        return None;
    };
    Some(format!("{id:?} {what}; take it away, for no unit would be sent so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lines() {
        assert_eq!(ids("u1\nu 2\r\nü3\n\n"), Ok(vec!["u1", "u 2", "ü3"]));
        assert_eq!(ids(""), Ok(vec![]));
        let wrong = |text: &str| ids(text).unwrap_err();
        let spaced = |line: usize, id: &str| {
            format!(
                "line {line}: {id} begins or ends with white space; take it away, for no unit would be sent so"
            )
        };
        assert_eq!(wrong("u1\nu2 \nu3"), spaced(2, "\"u2 \""));
        assert_eq!(wrong("\tu1"), spaced(1, "\"\\tu1\""));
        assert_eq!(wrong("u1\n\u{a0}u2"), spaced(2, "\"\\u{a0}u2\""));
        assert_eq!(wrong("u1\n  \nu3"), spaced(2, "\"  \""));
        assert_eq!(
            wrong("u1\n\u{feff}u2"),
            "line 2: \"\\u{feff}u2\" has a byte order mark (U+FEFF) in it; take it away, for no unit would be sent so"
        );
        let empty = "line 2: an id has 1 to 256 bytes, this one has 0".to_owned();
        assert_eq!(ids("u1\n\nu3"), Err(empty));
        let long = "line 1: an id has 1 to 256 bytes, this one has 257".to_owned();
        assert_eq!(ids(&"x".repeat(257)), Err(long));
    }
}
