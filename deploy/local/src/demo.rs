//! The demo: starts a stack, replays three real experiments through it, then runs a live one. Every number
//! that it prints came through Kafka, the consumer, ClickHouse and the aggregator. The numbers of the real
//! experiments are compared with the data itself.

mod document;
mod feed;
mod live;
mod open_bandit;
mod stored_rows;

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
use crate::retry::retry;
use crate::services::{self, Services};
use crate::stack::{Options, Stack};
use crate::supervise::Supervisor;
use document::Document;
use fetch::progress::{Step, print_line};
use live::{Live, Traffic};
use stored_rows::Rows;

/// The directory of the demo if none is given; emptied before each run.
const DEFAULT_DIR: &str = ".splitstream/demo";

/// Short, so that the page changes while one looks at it.
const ANALYZE_EVERY_MS: &str = "2000";

/// Takes some ten seconds; for a run that nobody watches.
const SHORT: Traffic = Traffic { units: 20_000, events_per_second: 2_500 };

/// Takes some five minutes, in which the analysis detects the lift of 0.8 percentage points.
const LONG: Traffic = Traffic { units: 400_000, events_per_second: 1_500 };

const POLL: Duration = Duration::from_millis(200);

/// Run three real experiments through the whole platform, then a live one
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// The directory for data and logs, which is not emptied [default: .splitstream/demo, emptied first]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub servers: Servers,
    /// End after the real experiments and ten seconds of the live one, and stop everything
    #[arg(long)]
    pub exit: bool,
    /// Write the results to this file, as `splitstream results --json` prints them, and what the live experiment was sent
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the demo. Fails if a number is missing or differs from the data.
pub fn run(demo: &Demo) -> Result<()> {
    live::check_token()?;
    interrupt::listen()?;
    let stack = Arc::new(Stack::up(options(demo))?);
    interrupt::check()?;
    let services = services::start(
        &stack,
        &Services {
            brokers: demo.servers.brokers,
            edge: true,
            edge_port: None,
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
    stack.mark_ready()?;
    let supervisor = Supervisor::start(Arc::clone(&stack), services, print_line);

    let outcome = real_experiments(&stack)
        .and_then(|()| live_experiment(&stack, demo, page.as_deref().unwrap_or_default()));
    let outcome = outcome.map_err(|error| match supervisor.failure() {
        Some(reason) => error.context(reason),
        None => error,
    });
    // The supervisor goes first: it would restart the parts that are being stopped.
    drop(supervisor);
    let step = Step::start("stopping the stack");
    stack.down()?;
    step.done("");
    match outcome {
        // Somebody who watches has seen enough: success. With --exit, the numbers are missing: an error.
        Err(_) if interrupt::received() && !demo.exit => Ok(()),
        outcome => outcome,
    }
}

/// A directory that was given is not emptied: replaying the same events adds nothing to the data in it.
fn options(demo: &Demo) -> Options {
    match &demo.dir {
        Some(dir) => demo.servers.options(dir),
        None => Options { fresh: true, ..demo.servers.options(Path::new(DEFAULT_DIR)) },
    }
}

/// Replays the impressions of 2019, and prints the verdicts after comparing the counts with the data.
fn real_experiments(stack: &Stack) -> Result<()> {
    let impressions = open_bandit::impressions()?;
    let arms = open_bandit::count(&impressions);
    let events: Vec<Value> = impressions.iter().flat_map(open_bandit::Impression::events).collect();
    let exposures = impressions.len() as u64;
    let expected = Rows { exposures, conversions: events.len() as u64 - exposures };

    feed::apply(stack, "open_bandit.yaml", open_bandit::DEFINITIONS)?;
    feed::replay(stack, &events)?;
    stored_rows::wait(stack, open_bandit::PREFIX, expected)?;

    let step = Step::start("analyzing");
    let keys: BTreeSet<&String> = arms.keys().map(|(experiment, _)| experiment).collect();
    for key in keys {
        // An experiment is unknown until the consumer has copied its definition to ClickHouse.
        retry(|| stack.run(&["analyze", key]))?;
    }
    let document = Document::parse(&results(stack)?)?;
    document.check(&arms)?;
    step.done("all numbers match the data");
    println!("\nThree campaigns of a fashion shop (Open Bandit Dataset, ZOZO, Inc., CC BY 4.0):\n");
    println!("{}", document.table());
    Ok(())
}

/// Simulates an experiment with true rates of 5.0 % and 5.8 %, whose visitors ask the edge, and prints its results while
/// it runs.
fn live_experiment(stack: &Stack, demo: &Demo, page: &str) -> Result<()> {
    feed::apply(stack, "live.yaml", live::DEFINITIONS)?;
    let traffic = if demo.exit { SHORT } else { LONG };
    print_line(&format!("A live experiment, true rates 5.0 % and 5.8 %: watch it at {page}"));
    let live = live::run(stack, traffic)?;
    print_line(&format!(
        "the edge logged {} exposures and took {} purchases, {:.0} requests a second; all are stored and counted",
        live.sent.exposures, live.sent.conversions, live.sent.edge.requests_per_second
    ));
    let results = results(stack)?;
    println!("{}", Document::parse(&results)?.table());
    if let Some(file) = &demo.json {
        write(file, &with_live(&results, &live)?)?;
    }
    if demo.exit {
        return Ok(());
    }
    print_line(&format!(
        "Everything keeps running: {page} shows it, ClickHouse is at {}; Ctrl-C ends it",
        stack.clickhouse_url()
    ));
    while !interrupt::received() {
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn results(stack: &Stack) -> Result<Vec<u8>> {
    Ok(retry(|| stack.run(&["results", "--json"]))?.stdout)
}

/// Adds to the document what was sent to the live experiment, and by which way.
fn with_live(results: &[u8], live: &Live) -> Result<Vec<u8>> {
    let mut document: serde_json::Map<String, Value> =
        serde_json::from_slice(results).context("reading the aggregator's document")?;
    let live = serde_json::to_value(live).context("writing what was sent")?;
    document.insert("live".to_owned(), live);
    serde_json::to_vec(&document).context("writing the document")
}

fn write(file: &Path, document: &[u8]) -> Result<()> {
    fs::write(file, document).with_context(|| format!("writing {}", file.display()))?;
    print_line(&format!("the numbers are in {}", file.display()));
    Ok(())
}
