//! Puts definitions and events onto Kafka by the means that everybody has: `splitstream apply` and
//! `splitstream replay`. What fails because something is just being restarted is tried again; all of it may be repeated
//! without changing the outcome.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::interrupt;
use crate::patience::patiently;
use crate::process::spawn_bound;
use crate::stack::Stack;
use fetch::progress::Step;
use fetch::tail::last_lines;

/// The end of the producer's log that an error quotes.
const QUOTED_LINES: usize = 10;

/// Applies a definition file's text, on behalf of the demo.
pub fn apply(stack: &Stack, name: &str, definitions: &str) -> Result<()> {
    let file = stack.dir().join(name);
    fs::write(&file, definitions).with_context(|| format!("writing {}", file.display()))?;
    let path = file.display().to_string();
    let args = ["apply", &path, "--author", "demo", "--reason", "the demo's experiments"];
    patiently(|| stack.run(&args).map(drop))
}

/// Replays the events, in their order. Returns when Kafka has acknowledged all of them.
pub fn replay(stack: &Stack, events: &[Value]) -> Result<()> {
    let log = stack.dir().join("logs").join("producer.log");
    patiently(|| {
        let step = Step::start(format!("replaying {} events", events.len()));
        let mut child = start_replay(stack, &log)?;
        let written = write_lines(&mut child, events, &step);
        let status = child.wait().context("waiting for `splitstream replay`")?;
        let last = last_lines(&log, QUOTED_LINES).join("\n");
        ensure!(
            status.success(),
            "`splitstream replay` failed ({status}); its log {} ends:\n{last}",
            log.display()
        );
        written?;
        step.done("Kafka has all of them");
        Ok(())
    })
}

fn start_replay(stack: &Stack, log: &Path) -> Result<Child> {
    let log_file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening the log {}", log.display()))?;
    let mut command = stack.command(&["replay", "-"])?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log_file);
    spawn_bound(command).context("starting `splitstream replay`")
}

/// Fails when the producer no longer reads; why, is in its log.
fn write_lines(child: &mut Child, events: &[Value], step: &Step) -> Result<()> {
    let input = child.stdin.take().context("`splitstream replay` was started without an input")?;
    let mut input = BufWriter::new(input);
    for (index, event) in events.iter().enumerate() {
        if index % 1_000 == 0 {
            interrupt::check()?;
            step.note(&format!("{index} of {}", events.len()));
        }
        writeln!(input, "{event}").context("writing to `splitstream replay`")?;
    }
    input.flush().context("writing to `splitstream replay`")
}
