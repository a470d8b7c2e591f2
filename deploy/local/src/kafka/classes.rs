//! An archive of Kafka's classes as Java has them in memory (class data sharing, JEP 350), with which a node starts in half
//! the time. Java writes it when a program ends that ran with it, so it is made once, by a node that only starts and stops.
//! It lies beside the jars, in the cache that all checkouts share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use fetch::progress::Step;

use super::{Node, Program, metadata};
use crate::process::{Process, STOP_GRACE};

/// How long the node may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The exit code of a Java that has ended in order after SIGTERM.
const ENDED_BY_SIGTERM: i32 = 128 + 15;

/// The archive for these jars and the installed Java, which is made if it is not there. `None` if this Java makes none.
pub fn archive(jars: &Path) -> Result<Option<PathBuf>> {
    // One at a time in this process, which does not try again what has failed. Another process may make the same: then the last
    // of the two stays.
    static FAILED: Mutex<bool> = Mutex::new(false);
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let part = jars.parent().context("the jars are in no directory")?;
    let path = part.join(file_name(&fetch::java_version()?));
    if !path.exists() {
        if *failed {
            return Ok(None);
        }
        let step = Step::start("archiving the classes of Kafka");
        // Containers that share a cache have the same process ids.
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let directory = part.join(format!("archiving-{}-{began}", std::process::id()));
        *failed = true;
        let made = make(jars, &directory, &part.join("archiving.log"), &path);
        // Also after a failure; the directory is of this process.
        let removed = fs::remove_dir_all(&directory);
        made?;
        removed.with_context(|| format!("removing {}", directory.display()))?;
        *failed = false;
        step.done("");
    }
    let length = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
    Ok((length > 0).then_some(path))
}

/// An archive serves the very build of Java that wrote it. A line of `java -version` names that build.
fn file_name(java: &str) -> String {
    let build = java.lines().find(|line| line.contains("(build ")).unwrap_or(java);
    let kept = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    format!("{}.jsa", build.chars().map(kept).collect::<String>())
}

/// Runs a node in `directory` and leaves what Java wrote at `path`. An empty file says that it wrote nothing.
fn make(jars: &Path, directory: &Path, log: &Path, path: &Path) -> Result<()> {
    let written = directory.join("classes.jsa");
    let program = Program { jars: jars.to_owned(), classes: None };
    let nodes = super::plan(directory, 1, None, None)?;
    for node in &nodes {
        super::prepare(node, &nodes, &program)?;
        let mut launch = super::launch(node, &program, log.to_owned());
        launch.args.insert(0, format!("-XX:ArchiveClassesAtExit={}", written.display()));
        let mut process = Process::start(&launch)?;
        wait_until_it_answers(node, &mut process).with_context(|| format!("its log is {}", log.display()))?;
        let status = process.stop(STOP_GRACE)?;
        // Java maps the file into memory, and crashes on half of one. It ends in another way when it could not write it.
        let is_whole = matches!(status.code(), Some(0 | ENDED_BY_SIGTERM));
        ensure!(is_whole, "the node ended with {status}; its log is {}", log.display());
    }
    if !written.exists() {
        fs::write(&written, "").with_context(|| format!("writing {}", written.display()))?;
    }
    fs::rename(&written, path).with_context(|| format!("moving into place {}", path.display()))
}

fn wait_until_it_answers(node: &Node, process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while metadata::live_brokers(&node.address()).unwrap_or(0) == 0 {
        let ended = process.ended()?;
        ensure!(ended.is_none(), "the node ended while it was starting: {ended:?}");
        ensure!(Instant::now() < deadline, "the node does not answer after {START_TIMEOUT:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_of_java_has_another_archive() {
        let debian = "openjdk version \"17.0.15\" 2025-04-15\n\
                      OpenJDK Runtime Environment (build 17.0.15+6-Debian-1deb12u1)\n\
                      OpenJDK 64-Bit Server VM (build 17.0.15+6-Debian-1deb12u1, mixed mode, sharing)\n";
        assert_eq!(file_name(debian), "OpenJDK-Runtime-Environment--build-17-0-15-6-Debian-1deb12u1-.jsa");
        assert_ne!(file_name(&debian.replace("15+6", "16+8")), file_name(debian));
    }
}
