//! Seeded traffic by the means that everybody has: `splitstream simulate` for many events, `splitstream replay`
//! for chosen ones.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use local::process::spawn_bound;
use schemas::{Event, Micros, Uuid};
use serde::Deserialize;

use crate::platform::Platform;

/// The experiment that the traffic belongs to; the names inside are those of [`Traffic`]'s arguments.
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

/// A run of `splitstream simulate`, flat out.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Names the run; each name is other units and other events.
    pub name: String,
    pub seed: u64,
    pub units: u64,
    /// Share of the events that are sent twice.
    pub duplicates: f64,
}

/// What a run says it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Tally {
    /// Events, each once.
    pub distinct_events: u64,
    /// Messages, duplicates included.
    pub sent: u64,
    pub delivered: u64,
    pub duplicates: u64,
}

/// A run on its way.
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

    /// Returns when Kafka has acknowledged all of it.
    pub fn send(&self, platform: &Platform) -> Result<Tally> {
        self.start(platform)?.finish()
    }
}

impl Running {
    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("looking after `splitstream simulate`")?.is_none())
    }

    /// Returns when Kafka has acknowledged all of it.
    pub fn finish(self) -> Result<Tally> {
        let output = self.child.wait_with_output().context("waiting for `splitstream simulate`")?;
        ensure!(
            output.status.success(),
            "`splitstream simulate` failed ({}); its log is {}",
            output.status,
            self.log
        );
        let tally: Tally = serde_json::from_slice(&output.stdout).context("reading what was simulated")?;
        ensure!(tally.sent == tally.delivered, "{tally:?}: not all of it was delivered");
        Ok(tally)
    }
}

/// Sends these events in this order. Returns when Kafka has acknowledged all of them.
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

/// Exposures of so many units, whose ids and event ids count up from `first`.
pub fn exposures(first: u64, count: u64, created_at: Micros) -> Vec<Event<'static>> {
    let exposure = |number: u64| {
        let json = serde_json::json!({
            "type": "exposure",
            "event_id": Uuid::from_u64_pair(0x0191_e3a0_0000_7000, 0x8000_0000_0000_0000 | number),
            "experiment": "checkout",
            "variant": if number.is_multiple_of(2) { "control" } else { "treatment" },
            "unit_type": "user",
            "unit_id": format!("u{number}"),
            // What the second definition of DEFINITIONS becomes in an empty log.
            "definition_version": 2,
            "created_at": created_at,
        });
        serde_json::from_value(json).expect("a sound exposure")
    };
    (first..first + count).map(exposure).collect()
}

/// So long ago.
pub fn ago(age: Duration) -> Micros {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let micros = i64::try_from((now - age).as_micros()).expect("a clock before 2261");
    Micros::new(micros).expect("a clock before 2261")
}
