//! The demo, from real events to verdicts: the stack, three real experiments replayed through it, and a
//! live one. Every number it prints came through Kafka, the consumer, ClickHouse and the aggregator, and
//! those of the real experiments are compared with the data itself.

mod document;
mod durable;
mod feed;
mod live;
mod open_bandit;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::command::Servers;
use crate::interrupt;
use crate::patience::patiently;
use crate::services::{self, Services};
use crate::stack::{Options, Stack};
use crate::supervise::Supervisor;
use document::Document;
use durable::Rows;
use fetch::progress::{Step, tell};
use live::Traffic;

/// Where the demo runs, afresh each time, if no directory is given.
const DEFAULT_DIR: &str = ".splitstream/demo";

/// The page should move while one looks at it.
const ANALYZE_EVERY_MS: &str = "2000";

/// Some ten seconds, for a run that nobody watches.
const SHORT: Traffic = Traffic { units: 20_000, events_per_second: 2_500 };

/// Some five minutes: the lift of 0.8 percentage points is found on the way.
const LONG: Traffic = Traffic { units: 400_000, events_per_second: 1_500 };

const POLL: Duration = Duration::from_millis(200);

/// Three real experiments through the whole platform, then a live one
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// The directory for data and logs, used as it is [default: .splitstream/demo, emptied first]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub servers: Servers,
    /// End after the real experiments and ten seconds of the live one, and stop everything
    #[arg(long)]
    pub exit: bool,
    /// Write the results to this file, the document of `splitstream results --json`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Fails if any number is missing or is not the data's.
pub fn run(demo: &Demo) -> Result<()> {
    interrupt::listen()?;
    let stack = Arc::new(Stack::up(options(demo))?);
    interrupt::check()?;
    let services = services::start(
        &stack,
        &Services {
            brokers: demo.servers.brokers,
            consumer: true,
            aggregator: true,
            http_port: demo.servers.http_port,
            aggregator_settings: &[
                ("SPLITSTREAM_AGGREGATOR__INTERVAL_MS", ANALYZE_EVERY_MS),
                ("SPLITSTREAM_AGGREGATOR__DOCUMENT_INTERVAL_MS", "0"),
            ],
        },
    )?;
    let page = services.iter().find(|service| service.name() == "aggregator").map(|service| service.url());
    stack.declare_ready()?;
    let supervisor = Supervisor::start(Arc::clone(&stack), services, tell);

    let outcome = real_experiments(&stack)
        .and_then(|()| live_experiment(&stack, demo, page.as_deref().unwrap_or_default()));
    let outcome = outcome.map_err(|error| match supervisor.failure() {
        Some(reason) => error.context(reason),
        None => error,
    });
    // First, or it would start again what is being stopped.
    drop(supervisor);
    let step = Step::start("stopping the stack");
    stack.down()?;
    step.done("");
    match outcome {
        // Who watches has seen enough. Who waits for the numbers has not got them.
        Err(_) if interrupt::came() && !demo.exit => Ok(()),
        outcome => outcome,
    }
}

/// A directory that was given is used as it is: replaying adds nothing to what is there.
fn options(demo: &Demo) -> Options {
    match &demo.dir {
        Some(dir) => demo.servers.options(dir),
        None => Options { fresh: true, ..demo.servers.options(Path::new(DEFAULT_DIR)) },
    }
}

/// Conversion by conversion, from a file of 2019 to a verdict.
fn real_experiments(stack: &Stack) -> Result<()> {
    let impressions = open_bandit::impressions()?;
    let arms = open_bandit::count(&impressions);
    let events: Vec<Value> = impressions.iter().flat_map(open_bandit::Impression::events).collect();
    let exposures = impressions.len() as u64;
    let expected = Rows { exposures, conversions: events.len() as u64 - exposures };

    feed::apply(stack, "open_bandit.yaml", open_bandit::DEFINITIONS)?;
    feed::replay(stack, &events)?;
    durable::wait(stack, open_bandit::PREFIX, expected)?;

    let step = Step::start("analyzing");
    let keys: BTreeSet<&String> = arms.keys().map(|(experiment, _)| experiment).collect();
    for key in keys {
        // An experiment is unknown until the consumer has copied its definition to ClickHouse.
        patiently(|| stack.run(&["analyze", key]))?;
    }
    let document = Document::parse(&results(stack)?)?;
    document.check(&arms)?;
    step.done("every number is the data's");
    println!("\nThree campaigns of a fashion shop (Open Bandit Dataset, ZOZO, Inc., CC BY 4.0):\n");
    println!("{}", document.table());
    Ok(())
}

/// The article's experiment, 5.0 % against 5.8 %, as it happens.
fn live_experiment(stack: &Stack, demo: &Demo, page: &str) -> Result<()> {
    feed::apply(stack, "live.yaml", live::DEFINITIONS)?;
    let traffic = if demo.exit { SHORT } else { LONG };
    tell(&format!("A live experiment, true rates 5.0 % and 5.8 %: watch it at {page}"));
    live::run(stack, traffic)?;
    let results = results(stack)?;
    println!("{}", Document::parse(&results)?.table());
    if let Some(file) = &demo.json {
        write(file, &results)?;
    }
    if demo.exit {
        return Ok(());
    }
    tell(&format!(
        "Everything keeps running: {page} shows it, ClickHouse is at {}; Ctrl-C ends it",
        stack.clickhouse_url()
    ));
    while !interrupt::came() {
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn results(stack: &Stack) -> Result<Vec<u8>> {
    Ok(patiently(|| stack.run(&["results", "--json"]))?.stdout)
}

fn write(file: &Path, document: &[u8]) -> Result<()> {
    fs::write(file, document).with_context(|| format!("writing {}", file.display()))?;
    tell(&format!("the numbers are in {}", file.display()));
    Ok(())
}
