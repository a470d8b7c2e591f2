//! Sends definitions and events to Kafka with the commands that users have: `splitstream apply` and
//! `splitstream replay`. A command that fails because a part is being restarted is tried again; repeating
//! either does not change the outcome.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::interrupt;
use crate::process::spawn_bound;
use crate::retry::retry;
use crate::stack::Stack;
use fetch::progress::Step;
use fetch::tail::last_lines;

/// How many last lines of the producer's log an error quotes.
const QUOTED_LINES: usize = 10;

/// Writes `definitions` to the file `name` in the stack's directory and applies it.
pub fn apply(stack: &Stack, name: &str, definitions: &str) -> Result<()> {
    let file = stack.dir().join(name);
    fs::write(&file, definitions).with_context(|| format!("writing {}", file.display()))?;
    let path = file.display().to_string();
    let args = ["apply", &path, "--author", "demo", "--reason", "the demo's experiments"];
    retry(|| stack.run(&args).map(drop))
}

/// Replays the events in the given order. Returns when Kafka has acknowledged all of them.
pub fn replay(stack: &Stack, events: &[Value]) -> Result<()> {
    let log = stack.dir().join("logs").join("producer.log");
    retry(|| {
        let step = Step::start(format!("replaying {} events", events.len()));
        let mut child = start_replay(stack, &log)?;
        let written = write_lines(&mut child, events, &step);
        let status = child.wait().context("waiting for `splitstream replay`")?;
        let log_end = last_lines(&log, QUOTED_LINES).join("\n");
        ensure!(
            status.success(),
            "`splitstream replay` failed ({status}); its log {} ends:\n{log_end}",
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

/// Writes the events to the producer's stdin. Fails when the producer no longer reads; its log contains the
/// reason.
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
