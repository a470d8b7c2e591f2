//! `local keep`: the process behind `local up`. It starts everything, starts again what dies, and stops
//! everything on SIGTERM; if it is killed itself, the kernel ends the rest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{PartName, Wanted};
use crate::interrupt;
use crate::service::{Service, ServiceOptions};
use crate::stack::{Options, Stack};
use crate::supervise::Supervisor;

const POLL: Duration = Duration::from_millis(100);

/// Runs until SIGTERM, or until a part cannot be kept running.
pub fn run(wanted: &Wanted) -> Result<()> {
    interrupt::listen()?;
    // The command that started this one has built the programs.
    let stack = Arc::new(Stack::up(Options { build: false, ..wanted.options() })?);
    interrupt::check()?;
    let services = start_services(&stack, wanted)?;
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

/// Topics, tables, then the services that were asked for.
pub fn start_services(stack: &Stack, wanted: &Wanted) -> Result<Vec<Arc<Service>>> {
    if !stack.brokers().is_empty() {
        stack.create_topics(wanted.brokers)?;
    }
    interrupt::check()?;
    if !stack.clickhouse_url().is_empty() {
        stack.run("consumer", &["migrate"])?;
    }
    let mut services = Vec::new();
    for (part, program, port) in
        [(PartName::Consumer, "consumer", None), (PartName::Aggregator, "aggregator", wanted.http_port)]
    {
        interrupt::check()?;
        if wanted.includes(part) {
            let options = ServiceOptions { port, ..ServiceOptions::default() };
            services.push(Arc::new(stack.service_with(program, &["run"], options)?));
        }
    }
    Ok(services)
}
