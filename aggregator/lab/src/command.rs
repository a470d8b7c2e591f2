//! The commands: each reads its arguments, computes, and prints for people or as JSON.

use std::io::{BufRead, Write};

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use crate::compute::Method;

mod calibrate;
mod power;

#[derive(Subcommand)]
pub enum Command {
    /// Compute how many units an experiment needs, what it can find, and with what power
    Power(Box<power::PowerArguments>),
    /// Draw experiments with and without an effect and count the decisions of every method
    Calibrate(calibrate::CalibrateArguments),
    /// Compute from numbers given as JSON, one object a line, and print each answer on a line
    Compute {
        /// The method, by the name of its golden file: two_proportion, welch_t, ...
        method: Method,
    },
}

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments are invalid.
    #[error(transparent)]
    Usage(anyhow::Error),
    /// The environment failed, for example a file that cannot be written.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    fn usage(why: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure::Usage(anyhow::Error::new(why))
    }
}

/// Runs the command.
pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Power(arguments) => power::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Compute { method } => Ok(compute(method)?),
    }
}

/// Answers standard input line by line; each answer is written before the next line is read.
fn compute(method: Method) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line.context("reading standard input")?;
        // A line that is not UTF-8 is not JSON either, and gets that error as its answer.
        let answer = method.answer(&String::from_utf8_lossy(&line));
        writeln!(output, "{answer}").and_then(|()| output.flush()).context("writing standard output")?;
    }
    Ok(())
}

fn to_json(document: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string_pretty(document).context("writing JSON")
}
