//! `splitstream local keep`: the process behind `splitstream local up`. It starts everything, starts again what dies, and stops
//! everything on SIGTERM; if it is killed itself, the kernel ends the rest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{PartName, Wanted};
use crate::interrupt;
use crate::services::{self, Services};
use crate::stack::{Options, Stack};
use crate::supervise::Supervisor;

const POLL: Duration = Duration::from_millis(100);

/// Runs until SIGTERM, or until a part cannot be kept running.
pub fn run(wanted: &Wanted) -> Result<()> {
    interrupt::listen()?;
    // The command that started this one has built the programs.
    let stack = Arc::new(Stack::up(Options { build: false, ..wanted.options() })?);
    interrupt::check()?;
    let services = services::start(
        &stack,
        &Services {
            brokers: wanted.servers.brokers,
            consumer: wanted.includes(PartName::Consumer),
            aggregator: wanted.includes(PartName::Aggregator),
            http_port: wanted.servers.http_port,
            // People watch: every round is a document.
            aggregator_settings: &[("SPLITSTREAM_AGGREGATOR__DOCUMENT_INTERVAL_MS", "0")],
        },
    )?;
    stack.declare_ready()?;
    let supervisor = Supervisor::start(Arc::clone(&stack), services, |line| eprintln!("{line}"));
    while !interrupt::came() {
        if let Some(reason) = supervisor.failure() {
            bail!("{reason}");
        }
        std::thread::sleep(POLL);
    }
    // First, or it would start again what is being stopped.
    drop(supervisor);
    stack.down()
}
