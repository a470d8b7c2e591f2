//! `splitstream local down`: asks the stack's owner to stop everything, then stops any process that is left.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::Dir;
use crate::stack::delete_data;
use crate::state::{self, State};
use fetch::progress::Step;

/// The owner stops each of its parts within half a minute.
const OWNER_GRACE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Args)]
pub struct Down {
    #[command(flatten)]
    pub dir: Dir,
    /// Delete the stack's data and logs as well
    #[arg(long)]
    pub delete: bool,
}

pub fn run(down: &Down) -> Result<()> {
    let dir = &down.dir.dir;
    match State::load(dir)? {
        Some(state) => {
            let step = Step::start(format!("stopping the stack in {}", dir.display()));
            state.owner.stop(OWNER_GRACE).context("stopping the stack's owner")?;
            state::stop_orphans(dir)?;
            step.done("");
        }
        None => eprintln!("no stack runs in {}", dir.display()),
    }
    if down.delete {
        delete(dir)?;
    }
    Ok(())
}

/// Removes what a stack creates, and the directory itself if it is then empty.
pub fn delete(dir: &Path) -> Result<()> {
    delete_data(dir)?;
    for name in ["lock", "state.json", "state.new"] {
        ignore_not_found(fs::remove_file(dir.join(name))).with_context(|| format!("removing {name}"))?;
    }
    match fs::remove_dir(dir) {
        // The remaining files are not ours.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => ignore_not_found(removed).with_context(|| format!("removing {}", dir.display())),
    }
}

/// Turns the error "not found" into success.
fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_leaves_what_a_stack_did_not_make() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("stack");
        for made in ["kafka-1/data", "clickhouse/store", "logs", "ports", "mine"] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        delete(&dir).unwrap();
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
        fs::remove_dir(dir.join("mine")).unwrap();
        delete(&dir).unwrap();
        assert!(!dir.exists());
        delete(&dir).unwrap();
    }
}
