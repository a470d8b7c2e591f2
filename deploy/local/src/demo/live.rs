//! The live experiment: simulated visitors of a checkout, whose purchases truly differ, arrive at a steady
//! rate while the aggregator looks again and again and the page shows what it sees.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::document::Document;
use crate::interrupt;
use crate::patience::patiently;
use crate::process::spawn_bound;
use crate::stack::Stack;
use fetch::progress::tell;

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

/// Units and conversions of both arms together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    units: u64,
    conversions: u64,
}

/// Lets the visitors come and prints what the aggregator says of them meanwhile. Returns when it has
/// counted all of them and of their purchases.
pub fn run(stack: &Stack, traffic: Traffic) -> Result<()> {
    let mut visitors = Visitors::start(stack, traffic)?;
    let mut shown = Counted::default();
    let mut all_sent: Option<Instant> = None;
    loop {
        let counted = look(stack, &mut shown)?;
        if visitors.finished()? {
            let sent = visitors.sent()?;
            if counted == sent {
                return Ok(());
            }
            let since = all_sent.get_or_insert_with(Instant::now);
            if since.elapsed() > CATCH_UP {
                let seconds = CATCH_UP.as_secs();
                bail!(
                    "the aggregator has {counted:?} where {sent:?} were sent, {seconds} s after the last one"
                );
            }
        }
        pause(LOOK)?;
    }
}

/// Prints the latest result if it has moved. Returns what it counts.
fn look(stack: &Stack, shown: &mut Counted) -> Result<Counted> {
    // Of all: to ask for one that has not been analyzed yet is refused.
    let output = patiently(|| stack.run(&["results", "--json"]))?;
    let document = Document::parse(&output.stdout)?;
    let Some(experiment) = document.experiment(EXPERIMENT) else {
        return Ok(Counted::default());
    };
    let counted = Counted {
        units: experiment.variants.iter().map(|variant| variant.units).sum(),
        conversions: experiment.variants.iter().map(|variant| variant.conversions).sum(),
    };
    if counted != *shown {
        *shown = counted;
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
    Ok(counted)
}

/// A run of `splitstream simulate`, begun again with the same seed, hence the same events, if it fails.
struct Visitors<'a> {
    stack: &'a Stack,
    traffic: Traffic,
    running: Option<Child>,
    attempts: u32,
}

/// What `splitstream simulate --json` says, as far as it is compared.
#[derive(Deserialize)]
struct Summary {
    exposed: u64,
    conversions: u64,
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
        match child.try_wait().context("waiting for `splitstream simulate`")? {
            None => Ok(false),
            Some(status) => self.ended(status),
        }
    }

    /// What the finished run says that it sent.
    fn sent(&self) -> Result<Counted> {
        let path = self.summary();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let summary: Summary =
            serde_json::from_str(&text).with_context(|| format!("understanding {}", path.display()))?;
        Ok(Counted { units: summary.exposed, conversions: summary.conversions })
    }

    fn ended(&mut self, status: ExitStatus) -> Result<bool> {
        self.running = None;
        if status.success() {
            return Ok(true);
        }
        let log = self.log();
        ensure!(
            self.attempts < ATTEMPTS_MAX,
            "`splitstream simulate` failed {ATTEMPTS_MAX} times ({status}); its log is {log}"
        );
        tell(&format!("`splitstream simulate` ended ({status}); beginning again with the same events"));
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
        let path = self.summary();
        let summary = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(summary).stderr(log);
        self.running = Some(spawn_bound(command).context("starting `splitstream simulate`")?);
        Ok(())
    }

    fn summary(&self) -> PathBuf {
        self.stack.dir().join("logs/simulate.json")
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
