//! `splitstream local up`: builds and fetches in the foreground, then starts `splitstream local keep` in the
//! background. It returns when every part runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::StackArgs;
use super::status::{self, Report};
use crate::interrupt;
use crate::process::{self, Detached, Launch, STOP_GRACE};
use crate::programs;
use crate::state::State;
use fetch::progress::Step;
use fetch::tail::last_lines;

const POLL: Duration = Duration::from_millis(100);

/// How many last lines of the keeper's log an error quotes: enough for its message, which may quote a part's
/// log.
const QUOTED_LINES: usize = 30;

#[derive(Debug, Clone, Args)]
pub struct Up {
    #[command(flatten)]
    pub stack: StackArgs,
    /// Print the addresses as JSON
    #[arg(long)]
    pub json: bool,
}

/// Returns when every part runs. A stack that runs already is left as it is.
pub fn run(up: &Up) -> Result<()> {
    interrupt::listen()?;
    let dir = &up.stack.dir.dir;
    match State::load(dir)? {
        Some(state) if state.owner.is_alive() && state.ready => {
            eprintln!("a stack runs in {} already; `splitstream local down` stops it", dir.display());
        }
        Some(state) if state.owner.is_alive() => {
            bail!("process {} is starting a stack in {} right now", state.owner.pid, dir.display());
        }
        _ => {
            up.stack.options().prepare()?;
            start(&up.stack, dir)?;
        }
    }
    let state = State::load(dir)?.context("the stack has stopped again")?;
    status::print(&Report::of(dir, &state), up.json)
}

fn start(stack: &StackArgs, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let log = dir.join("logs").join("local.log");
    let launch = Launch {
        // Not the path of the running executable: `prepare` may just have replaced that file.
        program: programs::path(programs::SPLITSTREAM)?,
        args: keep_args(stack),
        environment: Vec::new(),
        log: log.clone(),
    };
    let step = Step::start("starting the stack");
    let mut keeper = process::start_detached(&launch)?;
    loop {
        if interrupt::received() {
            keeper.identity.stop(STOP_GRACE)?;
            interrupt::check()?;
        }
        if let Some(status) = keeper.ended()? {
            let log_end = last_lines(&log, QUOTED_LINES).join("\n");
            bail!("the stack did not start ({status}); {} ends:\n{log_end}", log.display());
        }
        if let Some(state) = state_of(&keeper, dir)? {
            if state.ready {
                step.done("");
                return Ok(());
            }
            let names: Vec<&str> = state.parts.iter().map(|part| part.name.as_str()).collect();
            step.note(&names.join(", "));
        }
        std::thread::sleep(POLL);
    }
}

/// Reads the state that the keeper has written so far; `None` if it has written none.
fn state_of(keeper: &Detached, dir: &Path) -> Result<Option<State>> {
    Ok(State::load(dir)?.filter(|state| state.owner == keeper.identity))
}

/// The arguments that pass the same options to `local keep`.
fn keep_args(stack: &StackArgs) -> Vec<String> {
    let mut args = vec!["local".to_owned(), "keep".to_owned()];
    let servers = &stack.servers;
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            args.push(format!("--{name}={value}"));
        }
    };
    option("dir", Some(stack.dir.dir.display().to_string()));
    option("brokers", Some(servers.brokers.to_string()));
    option("kafka", servers.kafka.clone());
    option("clickhouse", servers.clickhouse.clone());
    option("registry-url", servers.registry_url.clone());
    option("kafka-port", servers.kafka_port.map(|port| port.to_string()));
    option("clickhouse-port", servers.clickhouse_port.map(|port| port.to_string()));
    option("registry-port", servers.registry_port.map(|port| port.to_string()));
    option("edge-port", servers.edge_port.map(|port| port.to_string()));
    option("http-port", servers.http_port.map(|port| port.to_string()));
    for part in &stack.only {
        option("only", clap::ValueEnum::to_possible_value(part).map(|value| value.get_name().to_owned()));
    }
    if servers.registry {
        args.push("--registry".to_owned());
    }
    args
}
