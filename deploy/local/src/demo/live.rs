//! The live experiment: simulated visitors of a checkout arrive at a steady rate, and the true purchase rates
//! of the variants differ. Meanwhile the aggregator analyzes the data again and again, and the page shows the
//! results.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::document::Document;
use crate::interrupt;
use crate::process::spawn_bound;
use crate::retry::retry;
use crate::stack::Stack;
use fetch::progress::print_line;

/// The definitions of the metric and the experiment.
pub const DEFINITIONS: &str = include_str!("../../live/definitions.yaml");

pub const EXPERIMENT: &str = "checkout_button";

/// The true rates, whose difference the analysis should detect: 5.0 % against 5.8 %.
const RATES: &str = "control=0.05,treatment=0.058";

const SEED: &str = "20191124";

/// The time between two requests for the latest result.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(100);

/// How long the analysis may take to count the last visitor.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// The number of visitors and the rate of their events.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub units: u64,
    pub events_per_second: u64,
}

/// Units and conversions of both arms together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    units: u64,
    conversions: u64,
}

/// Simulates the visitors and prints the aggregator's results meanwhile. Returns when the aggregator has
/// counted all visitors and purchases.
pub fn run(stack: &Stack, traffic: Traffic) -> Result<()> {
    let mut simulation = Simulation::start(stack, traffic)?;
    let mut printed = Counts::default();
    let mut all_sent: Option<Instant> = None;
    loop {
        let counted = print_latest(stack, &mut printed)?;
        if simulation.finished()? {
            let sent = simulation.sent()?;
            if counted == sent {
                return Ok(());
            }
            let since = all_sent.get_or_insert_with(Instant::now);
            if since.elapsed() > CATCH_UP_TIMEOUT {
                let seconds = CATCH_UP_TIMEOUT.as_secs();
                bail!(
                    "the aggregator has {counted:?} where {sent:?} were sent, {seconds} s after the last one"
                );
            }
        }
        pause(LOOK_INTERVAL)?;
    }
}

/// Prints the latest result if its counts differ from `printed`. Returns its counts.
fn print_latest(stack: &Stack, printed: &mut Counts) -> Result<Counts> {
    // Asks for all experiments: a request for one that has not been analyzed yet is refused.
    let output = retry(|| stack.run(&["results", "--json"]))?;
    let document = Document::parse(&output.stdout)?;
    let Some(experiment) = document.experiment(EXPERIMENT) else {
        return Ok(Counts::default());
    };
    let counted = Counts {
        units: experiment.variants.iter().map(|variant| variant.units).sum(),
        conversions: experiment.variants.iter().map(|variant| variant.conversions).sum(),
    };
    if counted != *printed {
        *printed = counted;
        let arms: Vec<String> = experiment
            .variants
            .iter()
            .map(|variant| {
                format!("{} {} of {} ({})", variant.key, variant.conversions, variant.units, variant.rate())
            })
            .collect();
        print_line(&format!(
            "{}, lift {}, {}",
            arms.join(", "),
            experiment.interval(),
            experiment.decision.verdict
        ));
    }
    Ok(counted)
}

/// A run of `splitstream simulate`. If it fails, it is started again with the same seed and therefore sends
/// the same events.
struct Simulation<'a> {
    stack: &'a Stack,
    traffic: Traffic,
    running: Option<Child>,
    attempts: u32,
}

/// The fields of the summary of `splitstream simulate --json` that are compared.
#[derive(Deserialize)]
struct Summary {
    exposed: u64,
    conversions: u64,
}

/// How often the simulation is started before its failure is an error.
const ATTEMPTS_MAX: u32 = 5;

impl Simulation<'_> {
    fn start(stack: &Stack, traffic: Traffic) -> Result<Simulation<'_>> {
        let mut simulation = Simulation { stack, traffic, running: None, attempts: 0 };
        simulation.spawn()?;
        Ok(simulation)
    }

    /// Returns whether all events have been sent. Starts the simulation again if it failed.
    fn finished(&mut self) -> Result<bool> {
        let Some(child) = &mut self.running else { return Ok(true) };
        match child.try_wait().context("waiting for `splitstream simulate`")? {
            None => Ok(false),
            Some(status) => self.handle_exit(status),
        }
    }

    /// The counts that the finished run reports as sent.
    fn sent(&self) -> Result<Counts> {
        let path = self.summary_path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let summary: Summary =
            serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        Ok(Counts { units: summary.exposed, conversions: summary.conversions })
    }

    fn handle_exit(&mut self, status: ExitStatus) -> Result<bool> {
        self.running = None;
        if status.success() {
            return Ok(true);
        }
        let log = self.log_path();
        ensure!(
            self.attempts < ATTEMPTS_MAX,
            "`splitstream simulate` failed {ATTEMPTS_MAX} times ({status}); its log is {log}"
        );
        print_line(&format!(
            "`splitstream simulate` ended ({status}); starting it again with the same events"
        ));
        self.spawn()?;
        Ok(false)
    }

    fn spawn(&mut self) -> Result<()> {
        self.attempts += 1;
        let log = self.log_path();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log {log}"))?;
        let units = self.traffic.units.to_string();
        let rate = self.traffic.events_per_second.to_string();
        let mut command = self.stack.command(&[
            "simulate",
            "--experiment",
            EXPERIMENT,
            "--event",
            "purchase",
            "--rates",
            RATES,
            "--seed",
            SEED,
            "--units",
            &units,
            "--rate",
            &rate,
            "--delay",
            "2",
            "--json",
        ])?;
        let path = self.summary_path();
        let summary = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(summary).stderr(log);
        self.running = Some(spawn_bound(command).context("starting `splitstream simulate`")?);
        Ok(())
    }

    fn summary_path(&self) -> PathBuf {
        self.stack.dir().join("logs/simulate.json")
    }

    fn log_path(&self) -> String {
        self.stack.dir().join("logs/producer.log").display().to_string()
    }
}

impl Drop for Simulation<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            // Nobody needs the rest of the traffic, so neither failure matters.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sleeps; fails as soon as a signal is received.
fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        std::thread::sleep(POLL.min(time));
    }
    Ok(())
}
