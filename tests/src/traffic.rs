//! Sends seeded traffic with the commands that users have: `splitstream simulate` for many events,
//! `splitstream replay` for chosen ones.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use local::process::spawn_bound;
use schemas::{Event, Micros, Uuid};
use serde::Deserialize;

use crate::platform::Platform;

/// The experiment that the traffic belongs to; its names are those in the arguments of [`Traffic::start`].
pub const DEFINITIONS: &str = "\
kind: metric
key: purchase
event: purchase
type: conversion
---
kind: experiment
key: checkout
state: running
assignment: hashed
unit_type: user
variants:
  - { key: control, weight: 5000 }
  - { key: treatment, weight: 5000 }
control: control
metrics:
  primary: purchase
";

/// A run of `splitstream simulate` at full speed.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The name of the run; different names have different units and events.
    pub name: String,
    pub seed: u64,
    pub units: u64,
    /// The share of the events that are sent twice.
    pub duplicates: f64,
}

/// The numbers that a run reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Tally {
    /// The number of different events.
    pub distinct_events: u64,
    /// The number of messages, including duplicates.
    pub sent: u64,
    pub delivered: u64,
    pub duplicates: u64,
}

/// A run that has been started.
pub struct Running {
    child: Child,
    log: String,
}

impl Traffic {
    pub fn start(&self, platform: &Platform) -> Result<Running> {
        let log = platform.path("logs/producer.log");
        let errors = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let (seed, units) = (self.seed.to_string(), self.units.to_string());
        let duplicates = self.duplicates.to_string();
        let mut command = platform.stack().command(&[
            "simulate",
            "--json",
            "--experiment",
            "checkout",
            "--event",
            "purchase",
            "--rates",
            "control=0.05,treatment=0.058",
            "--batch-id",
            &self.name,
            "--seed",
            &seed,
            "--units",
            &units,
            "--duplicates",
            &duplicates,
        ])?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let child = spawn_bound(command).context("starting `splitstream simulate`")?;
        Ok(Running { child, log: log.display().to_string() })
    }

    /// Runs it to its end. Returns when Kafka has acknowledged every message.
    pub fn send(&self, platform: &Platform) -> Result<Tally> {
        self.start(platform)?.finish()
    }
}

impl Running {
    /// Returns whether it has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("checking `splitstream simulate`")?.is_none())
    }

    /// Returns when Kafka has acknowledged every message.
    pub fn finish(self) -> Result<Tally> {
        let output = self.child.wait_with_output().context("waiting for `splitstream simulate`")?;
        ensure!(
            output.status.success(),
            "`splitstream simulate` failed ({}); its log is {}",
            output.status,
            self.log
        );
        let tally: Tally = serde_json::from_slice(&output.stdout)
            .context("reading the summary of `splitstream simulate`")?;
        ensure!(tally.sent == tally.delivered, "{tally:?}: not all of it was delivered");
        Ok(tally)
    }
}

/// Sends the events in the given order. Returns when Kafka has acknowledged all of them.
pub fn replay(platform: &Platform, events: &[Event<'_>]) -> Result<()> {
    let mut lines = String::new();
    for event in events {
        let json = serde_json::to_string(event).context("writing an event")?;
        writeln!(lines, "{json}").context("writing an event")?;
    }
    let file = platform.path("events.jsonl");
    fs::write(&file, lines).with_context(|| format!("writing {}", file.display()))?;
    platform.stack().run(&["replay", &file.display().to_string()])?;
    Ok(())
}

/// Exposures of `count` units, whose ids and event ids are numbered from `first`.
pub fn exposures(first: u64, count: u64, created_at: Micros) -> Vec<Event<'static>> {
    let exposure = |number: u64| {
        let json = serde_json::json!({
            "type": "exposure",
            "event_id": Uuid::from_u64_pair(0x0191_e3a0_0000_7000, 0x8000_0000_0000_0000 | number),
            "experiment": "checkout",
            "variant": if number.is_multiple_of(2) { "control" } else { "treatment" },
            "unit_type": "user",
            "unit_id": format!("u{number}"),
            // The version of the second definition of DEFINITIONS in a log that was empty.
            "definition_version": 2,
            "created_at": created_at,
        });
        serde_json::from_value(json).expect("a valid exposure")
    };
    (first..first + count).map(exposure).collect()
}

/// The time `age` before now.
pub fn ago(age: Duration) -> Micros {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let micros = i64::try_from((now - age).as_micros()).expect("a clock before 2261");
    Micros::new(micros).expect("a clock before 2261")
}
