//! `splitstream local logs`: prints the end of the logs, and with `--follow` the lines added later.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::Dir;
use fetch::tail::last_lines;

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// kafka-1, clickhouse, registry, consumer, aggregator, producer or local (the stack's keeper) [default: all]
    pub name: Option<String>,
    #[command(flatten)]
    pub dir: Dir,
    /// Lines of each log
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub lines: usize,
    /// Go on printing new lines, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
}

pub fn run(logs: &Logs) -> Result<()> {
    let mut found = find(&logs.dir.dir.join("logs"), logs.name.as_deref())?;
    let several = found.len() > 1;
    let mut out = io::stdout().lock();
    for log in &found {
        if several {
            writeln!(out, "==> {} <==", log.path.display())?;
        }
        for line in last_lines(&log.path, logs.lines) {
            writeln!(out, "{line}")?;
        }
    }
    if !logs.follow {
        return Ok(());
    }
    loop {
        for log in &mut found {
            let added = log.read_added().with_context(|| format!("reading {}", log.path.display()))?;
            for line in added.lines() {
                if several {
                    write!(out, "{}: ", log.name)?;
                }
                writeln!(out, "{line}")?;
            }
        }
        out.flush()?;
        std::thread::sleep(POLL);
    }
}

struct Log {
    name: String,
    path: PathBuf,
    /// Bytes read so far.
    position: u64,
}

impl Log {
    /// Reads the whole lines that were added since the last call.
    fn read_added(&mut self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        bytes.truncate(whole);
        self.position += whole as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Finds the logs in `directory`, sorted by name; only the log called `wanted` if that is given.
fn find(directory: &Path, wanted: Option<&str>) -> Result<Vec<Log>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("reading {}: has a stack run there?", directory.display()))?;
    let mut found = Vec::new();
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
        // The live experiment of the demo keeps its state beside the logs.
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let Some(name) = path.file_stem().filter(|_| is_log).map(|stem| stem.to_string_lossy().into_owned())
        else {
            continue;
        };
        names.push(name.clone());
        if wanted.is_none_or(|wanted| wanted == name) {
            let position = path.metadata().with_context(|| format!("reading {}", path.display()))?.len();
            found.push(Log { name, path, position });
        }
    }
    if let (Some(wanted), true) = (wanted, found.is_empty()) {
        names.sort();
        bail!("there is no log called {wanted:?}; there are {}", names.join(", "));
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_read_and_each_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("consumer.log");
        fs::write(&path, "old\n").unwrap();
        let mut log = find(directory.path(), Some("consumer")).unwrap().remove(0);
        assert_eq!(log.read_added().unwrap(), "");
        fs::write(&path, "old\nnew\nhal").unwrap();
        assert_eq!(log.read_added().unwrap(), "new\n");
        fs::write(&path, "old\nnew\nhalf\n").unwrap();
        assert_eq!(log.read_added().unwrap(), "half\n");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["kafka-1.log", "consumer.log", "simulate.json"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let refused = find(directory.path(), Some("kafka")).err().unwrap();
        assert_eq!(refused.to_string(), "there is no log called \"kafka\"; there are consumer, kafka-1");
    }
}
