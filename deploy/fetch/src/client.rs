//! Runs one package client (Maven, npm, pip) to its end, with its output in a log file and its last line in
//! the progress line. Reports a program that is not installed. Knows nothing of packages.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::FetchError;
use crate::progress::Step;
use crate::tail::last_lines;

/// A program that must be installed on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prerequisite {
    pub program: &'static str,
    pub why: &'static str,
    pub how: &'static str,
}

pub const MAVEN: Prerequisite = Prerequisite {
    program: "mvn",
    why: "Apache Maven 3.6 or later fetches Apache Kafka and the schema registry",
    how: "apt-get install maven, or brew install maven",
};

pub const JAVA: Prerequisite = Prerequisite {
    program: "java",
    why: "Apache Kafka and the schema registry run on Java 17 or later",
    how: "apt-get install openjdk-17-jre-headless, or brew install openjdk@17",
};

pub const TAR: Prerequisite = Prerequisite {
    program: "tar",
    why: "tar unpacks the schema registry",
    how: "apt-get install tar, or brew install gnu-tar",
};

pub const NPM: Prerequisite = Prerequisite {
    program: "npm",
    why: "npm (Node 20 or later) fetches the ClickHouse engine and the JavaScript packages",
    how: "apt-get install npm, or brew install node",
};

pub const PYTHON: Prerequisite = Prerequisite {
    program: "python3",
    why: "Python 3.10 or later, with venv and pip, runs the Python clients",
    how: "apt-get install python3-venv, or brew install python",
};

/// How often a running client is checked.
const POLL: Duration = Duration::from_millis(100);

/// The lines of the log that an error quotes.
const QUOTED_LINES: usize = 15;

/// Runs `program args` in `directory` until it ends. Its output goes to `log`; an error quotes the last lines
/// of the log.
pub fn run(
    prerequisite: Prerequisite,
    program: &Path,
    args: &[&str],
    directory: &Path,
    log: &Path,
    step: &Step,
) -> Result<(), FetchError> {
    let disk = |doing| FetchError::disk(doing, log);
    let output = File::create(log).map_err(disk("creating the log"))?;
    let errors = output.try_clone().map_err(disk("sharing the log"))?;
    let mut child = Command::new(program)
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| not_started(prerequisite, program, error))?;
    loop {
        match child.try_wait().map_err(disk("waiting for the client of"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(failed(program, args, status, log)),
            None => {
                if let Some(line) = last_lines(log, 1).pop() {
                    step.note(&line);
                }
                std::thread::sleep(POLL);
            }
        }
    }
}

/// The output of `program args` on stdout and stderr, such as a version.
pub fn output(prerequisite: Prerequisite, args: &[&str]) -> Result<String, FetchError> {
    let program = Path::new(prerequisite.program);
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(prerequisite, program, error))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn not_started(prerequisite: Prerequisite, program: &Path, source: std::io::Error) -> FetchError {
    if source.kind() == std::io::ErrorKind::NotFound {
        return FetchError::Missing(prerequisite);
    }
    FetchError::Disk { doing: "starting", path: program.to_owned(), source }
}

fn failed(program: &Path, args: &[&str], status: ExitStatus, log: &Path) -> FetchError {
    FetchError::Client {
        command: format!("{} {}", program.display(), args.join(" ")),
        status,
        log: log.to_owned(),
        last_lines: last_lines(log, QUOTED_LINES).join("\n"),
    }
}
