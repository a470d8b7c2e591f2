//! `splitstream local keep`: the process behind `splitstream local up`. It starts every part, restarts a part
//! that dies, and stops all of them on SIGTERM. If it is killed itself, the kernel kills the parts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{PartName, StackArgs};
use crate::interrupt;
use crate::services::{self, Services};
use crate::stack::{Options, Stack};
use crate::supervise::Supervisor;

const POLL: Duration = Duration::from_millis(100);

/// Runs until SIGTERM, or until a part cannot be kept running.
pub fn run(args: &StackArgs) -> Result<()> {
    interrupt::listen()?;
    // The command that started this one has built the programs.
    let stack = Arc::new(Stack::up(Options { build: false, ..args.options() })?);
    interrupt::check()?;
    let services = services::start(
        &stack,
        &Services {
            brokers: args.servers.brokers,
            edge: args.includes(PartName::Edge),
            edge_port: args.servers.edge_port,
            consumer: args.includes(PartName::Consumer),
            aggregator: args.includes(PartName::Aggregator),
            http_port: args.servers.http_port,
            // People watch the page, so every round writes a document.
            aggregator_settings: &[("SPLITSTREAM_AGGREGATOR__DOCUMENT_INTERVAL_MS", "0")],
        },
    )?;
    stack.mark_ready()?;
    let supervisor = Supervisor::start(Arc::clone(&stack), services, |line| eprintln!("{line}"));
    while !interrupt::received() {
        if let Some(reason) = supervisor.failure() {
            bail!("{reason}");
        }
        std::thread::sleep(POLL);
    }
    // The supervisor goes first: it would restart the parts that are being stopped.
    drop(supervisor);
    stack.down()
}
