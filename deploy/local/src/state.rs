//! The state of a running stack, in a file of its directory: the owner's process, and each part's process,
//! address and log. `splitstream local status` reads it. After a crash, the next start or stop finds the
//! orphaned processes in it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::probe::Probe;
use crate::process::{Identity, STOP_GRACE};

/// The content of the state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The process that started the parts and stops them.
    pub owner: Identity,
    /// Whether all requested parts are ready.
    pub ready: bool,
    /// Bootstrap addresses, "host:port,..."; empty if the stack has no Kafka.
    pub kafka: String,
    /// Empty if the stack has no ClickHouse.
    pub clickhouse: String,
    /// Empty if the stack has no schema registry.
    #[serde(default)]
    pub registry: String,
    /// The URL where clients ask for flags; empty if the stack has no edge.
    #[serde(default)]
    pub edge: String,
    pub parts: Vec<PartState>,
}

/// One running process of a stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartState {
    pub name: String,
    pub process: Identity,
    /// `None` until the part has reported where it listens.
    pub address: Option<String>,
    pub probe: Probe,
    pub log: PathBuf,
}

impl State {
    /// Reads the state of the stack in `dir`; `None` if no stack ran there since the last orderly stop.
    pub fn load(dir: &Path) -> Result<Option<State>> {
        let path = file(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let state = serde_json::from_str(&text).with_context(|| {
            format!("{} was not written by this program; remove it if no stack runs there", path.display())
        })?;
        Ok(Some(state))
    }
}

/// The exclusive right to run a stack in a directory. At most one process has it, and that process writes the
/// state file.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    state: Mutex<State>,
    /// The operating system releases it when this process dies.
    _lock: File,
}

impl Claim {
    /// Claims `dir`, and stops the processes that a crashed stack has left running there.
    pub fn acquire(dir: &Path) -> Result<Claim> {
        let path = dir.join("lock");
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = State::load(dir)?
                    .map_or_else(String::new, |state| format!(" (process {})", state.owner.pid));
                bail!(
                    "a stack is running in {}{owner}: stop it with `splitstream local down --dir {}`, or \
                     name another directory",
                    dir.display(),
                    dir.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        stop_orphans(dir)?;
        let owner = Identity::of(std::process::id()).context("this process does not find itself")?;
        let state = State {
            owner,
            ready: false,
            kafka: String::new(),
            clickhouse: String::new(),
            registry: String::new(),
            edge: String::new(),
            parts: Vec::new(),
        };
        let claim = Claim { dir: dir.to_owned(), state: Mutex::new(state), _lock: lock };
        claim.change(|_| {})?;
        Ok(claim)
    }

    /// Records a running part; replaces an older record of it.
    pub fn put(&self, part: PartState) -> Result<()> {
        self.change(|state| {
            state.parts.retain(|known| known.name != part.name);
            state.parts.push(part);
        })
    }

    /// Records that a part no longer runs.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change(|state| state.parts.retain(|known| known.name != name))
    }

    /// Changes the state and writes the file atomically.
    pub fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut state);
        let text = serde_json::to_string_pretty(&*state).context("writing the state as JSON")?;
        let path = file(&self.dir);
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("replacing {}", path.display()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let nothing_runs =
            self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).parts.is_empty();
        if nothing_runs {
            // A failure is harmless: the file that remains names no running process.
            let _ = fs::remove_file(file(&self.dir));
        }
    }
}

/// Stops every process that the state of `dir` names, but no other process that now has the same pid. Removes
/// the state file.
pub fn stop_orphans(dir: &Path) -> Result<()> {
    let Some(state) = State::load(dir)? else { return Ok(()) };
    for part in state.parts.iter().rev() {
        part.process.stop(STOP_GRACE).with_context(|| format!("stopping {}", part.name))?;
    }
    let path = file(dir);
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

fn file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Launch, Process};

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let claim = Claim::acquire(dir).unwrap();
        assert_eq!(
            Claim::acquire(dir).unwrap_err().to_string(),
            format!(
                "a stack is running in {0} (process {1}): stop it with `splitstream local down --dir {0}`, or \
                 name another directory",
                dir.display(),
                std::process::id()
            )
        );
        drop(claim);
        assert!(State::load(dir).unwrap().is_none());
        Claim::acquire(dir).unwrap();
    }

    #[test]
    fn the_next_claim_stops_orphaned_processes_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let sleeper = Launch {
            program: "sleep".into(),
            args: vec!["600".to_owned()],
            environment: Vec::new(),
            log: dir.join("log"),
        };
        let orphan = Process::start(&sleeper).unwrap();
        let unrelated = Process::start(&sleeper).unwrap();
        // What a crashed owner leaves: the file, and no lock. The unrelated process has the pid of a part
        // that ended long ago.
        let part = |name: &str, process: serde_json::Value| {
            serde_json::json!({
                "name": name, "process": process, "address": null, "log": "/log",
                "probe": {"http": {"path": "/ping"}},
            })
        };
        let state = serde_json::json!({
            "owner": {"pid": 1, "started": "once"},
            "ready": true,
            "kafka": "",
            "clickhouse": "",
            "parts": [
                part("clickhouse", serde_json::to_value(orphan.identity()).unwrap()),
                part("consumer", serde_json::json!({"pid": unrelated.identity().pid, "started": "once"})),
            ],
        });
        fs::write(file(dir), state.to_string()).unwrap();
        Claim::acquire(dir).unwrap();
        assert!(!orphan.identity().is_alive());
        assert!(unrelated.identity().is_alive());
    }
}
