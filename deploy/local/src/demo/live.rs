//! The live experiment: simulated visitors of a checkout, whose purchases truly differ, arrive at a steady
//! rate while the aggregator looks again and again and the page shows what it sees.

use std::fs::OpenOptions;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::document::Document;
use super::feed::patiently;
use crate::interrupt;
use crate::process::spawn_bound;
use crate::progress::tell;
use crate::stack::Stack;

/// The metric and the experiment.
pub const DEFINITIONS: &str = include_str!("../../live/definitions.yaml");

pub const EXPERIMENT: &str = "checkout_button";

/// The truth that the analysis has to find: 5.0 % against 5.8 %.
const RATES: &str = "control=0.05,treatment=0.058";

const SEED: &str = "20191124";

/// Between two looks at the latest result.
const LOOK: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(100);

/// How long an analysis may take to catch up with the last visitor.
const CATCH_UP: Duration = Duration::from_secs(120);

/// The traffic: so many visitors, so many events a second.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub units: u64,
    pub events_per_second: u64,
}

/// Lets the visitors come and prints what the aggregator says of them meanwhile. Returns when it has
/// counted all of them.
pub fn run(stack: &Stack, traffic: Traffic) -> Result<()> {
    let mut visitors = Visitors::start(stack, traffic)?;
    let mut shown = 0;
    let mut all_sent: Option<Instant> = None;
    loop {
        let units = look(stack, &mut shown)?;
        if units >= traffic.units {
            visitors.wait()?;
            return Ok(());
        }
        match all_sent {
            Some(since) if since.elapsed() > CATCH_UP => bail!(
                "the aggregator has counted {units} of {} visitors {} s after the last one",
                traffic.units,
                CATCH_UP.as_secs()
            ),
            Some(_) => {}
            None if visitors.finished()? => all_sent = Some(Instant::now()),
            None => {}
        }
        pause(LOOK)?;
    }
}

/// Prints the latest result if it has moved. Returns how many visitors it counts.
fn look(stack: &Stack, shown: &mut u64) -> Result<u64> {
    // Of all: to ask for one that has not been analyzed yet is refused.
    let output = patiently(|| stack.run("aggregator", &["results", "--json"]))?;
    let document = Document::parse(&output.stdout)?;
    let Some(experiment) = document.experiment(EXPERIMENT) else { return Ok(0) };
    let units = experiment.variants.iter().map(|variant| variant.units).sum();
    if units != *shown {
        *shown = units;
        let arms: Vec<String> = experiment
            .variants
            .iter()
            .map(|variant| {
                format!("{} {} of {} ({})", variant.key, variant.conversions, variant.units, variant.rate())
            })
            .collect();
        tell(&format!(
            "{}, lift {}, {}",
            arms.join(", "),
            experiment.interval(),
            experiment.decision.verdict
        ));
    }
    Ok(units)
}

/// A run of `producer simulate`, begun again with the same seed, hence the same events, if it fails.
struct Visitors<'a> {
    stack: &'a Stack,
    traffic: Traffic,
    running: Option<Child>,
    attempts: u32,
}

/// Runs of the simulation before it is given up.
const ATTEMPTS_MAX: u32 = 5;

impl Visitors<'_> {
    fn start(stack: &Stack, traffic: Traffic) -> Result<Visitors<'_>> {
        let mut visitors = Visitors { stack, traffic, running: None, attempts: 0 };
        visitors.begin()?;
        Ok(visitors)
    }

    /// Whether all have come; begins again if the run failed.
    fn finished(&mut self) -> Result<bool> {
        let Some(child) = &mut self.running else { return Ok(true) };
        match child.try_wait().context("waiting for `producer simulate`")? {
            None => Ok(false),
            Some(status) => self.ended(status),
        }
    }

    /// Returns when all have come.
    fn wait(&mut self) -> Result<()> {
        while !self.finished()? {
            pause(POLL)?;
        }
        Ok(())
    }

    fn ended(&mut self, status: ExitStatus) -> Result<bool> {
        self.running = None;
        if status.success() {
            return Ok(true);
        }
        let log = self.log();
        ensure!(
            self.attempts < ATTEMPTS_MAX,
            "`producer simulate` failed {ATTEMPTS_MAX} times ({status}); its log is {log}"
        );
        tell(&format!("`producer simulate` ended ({status}); beginning again with the same events"));
        self.begin()?;
        Ok(false)
    }

    fn begin(&mut self) -> Result<()> {
        self.attempts += 1;
        let log = self.log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log {log}"))?;
        let units = self.traffic.units.to_string();
        let rate = self.traffic.events_per_second.to_string();
        let mut command = self.stack.command(
            "producer",
            &[
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
            ],
        )?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(spawn_bound(command).context("starting `producer simulate`")?);
        Ok(())
    }

    fn log(&self) -> String {
        self.stack.dir().join("logs/producer.log").display().to_string()
    }
}

impl Drop for Visitors<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            // Nobody waits for the rest of the traffic.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sleeps, unless a signal comes.
fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        std::thread::sleep(POLL.min(time));
    }
    Ok(())
}
