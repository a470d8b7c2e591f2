//! The command line: runs the service, analyzes once, prints the latest documents, and repairs the log of
//! looks.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use http_server::Served;
use ops::{Exit, Health, Shutdown};

use crate::config::Config;
use crate::database::Database;
use crate::definitions::Definitions;
use crate::document::{Document, ExperimentResult};
use crate::experiment_analysis::Moment;
use crate::look_log::LookLog;
use crate::{cut, definitions, edge_counts, http, publish, restore, schedule, store};

pub mod show;

/// How long something is waited for, and how often it is looked for.
#[derive(Clone, Copy)]
struct Wait {
    at_most: Duration,
    pause: Duration,
}

/// The consumer copies the log of definitions into ClickHouse within some seconds.
const MIRROR_WAIT: Wait = Wait { at_most: Duration::from_secs(10), pause: Duration::from_millis(300) };
const NOT_MIRRORED: &str = "is defined in ClickHouse, where it was looked for 10 s; if it was applied just now, it may not have \
                            arrived there yet, or no consumer runs";

#[derive(Subcommand)]
pub enum ServiceCommand {
    /// Analyze on a schedule and serve the page, the JSON API and the metrics, until it is stopped
    Run,
}

#[derive(Subcommand)]
pub enum Command {
    /// Show the latest result of one experiment, or of all
    Results(Which),
    /// Analyze now and keep the result: one experiment, or all that run or are stopped. One that is not in ClickHouse yet is
    /// waited for, up to 10 seconds
    Analyze(Which),
    /// Write the looks that ClickHouse has mirrored to a log of looks that has lost them
    RestoreLooks,
}

#[derive(Args)]
pub struct Which {
    /// Key of the experiment; all if left out.
    experiment: Option<String>,
    /// Prints the document as JSON.
    #[arg(long)]
    json: bool,
}

/// Executes the command.
pub async fn run(config: Config, command: Command) -> anyhow::Result<Exit> {
    let done = match command {
        Command::Results(which) => results(config, which).await,
        Command::Analyze(which) => analyze_now(config, which).await,
        Command::RestoreLooks => restore_looks(&config).await,
    };
    done.map_err(|error| {
        ops::with_exit_code(error, |cause| {
            clickhouse_client::exit_of(cause).or_else(|| kafka::exit_of(cause))
        })
    })
}

/// Runs the service: starts log, shutdown, database, HTTP and schedule in this order, and stops them in
/// reverse.
pub async fn serve(config: Config) -> anyhow::Result<Exit> {
    ops::log::start(&config.log)?;
    let shutdown = Shutdown::on_signals(config.aggregator.query_timeout_ms.duration())
        .context("listening for signals")?;
    let database = Database::new(&config.clickhouse, config.aggregator.query_timeout_ms.duration())?;
    let health = Health::new();
    let registry = ops::metrics::registry("aggregator", env!("CARGO_PKG_VERSION"));
    let metrics = schedule::Metrics::register(&registry);
    let edge_metrics = edge_counts::collect::Metrics::register(&registry);
    let writers = config.writers().map_err(ops::config::Error::from)?;
    let definition_routes = ::definitions::http::routes(config.kafka.clone(), writers, crate::cut::now);
    let read = http::routes(database.clone()).merge(definition_routes.read);
    let routes = http_server::guarded(read, &config.http)
        .map_err(ops::config::Error::from)?
        .merge(definition_routes.write);
    let served = Served { routes, registry, health: health.clone() };
    let server = http_server::start(&config.http, served, &shutdown).await?;
    edge_counts::collect::start(&config.aggregator, &database, &health, &edge_metrics, &shutdown)
        .map_err(ops::config::Error::from)?;
    schedule::run(database, config.kafka, config.aggregator, health, metrics, shutdown).await;
    server.stopped().await?;
    Ok(Exit::Done)
}

async fn restore_looks(config: &Config) -> anyhow::Result<Exit> {
    restore::restore(&config.kafka, &open(config)?).await
}

async fn analyze_now(config: Config, which: Which) -> anyhow::Result<Exit> {
    let database = open(&config)?;
    let read = async || definitions::read(&database).await;
    let definitions = definitions_with(which.experiment.as_deref(), MIRROR_WAIT, read).await?;
    for why in &definitions.unreadable {
        eprintln!("warning: {why}");
    }
    // The log is read before the cut, so that no look is later than what is counted.
    let mut looks = LookLog::open(&config.kafka, &database).await?;
    let cut = cut::read(&database).await?;
    let moment = Moment { definitions: &definitions, cut: &cut, as_of: cut::now()? };
    let keys: Vec<&String> = match &which.experiment {
        Some(key) => match definitions.experiments.get_key_value(key) {
            Some((key, _)) => vec![key],
            None => {
                let known: Vec<&str> = definitions.experiments.keys().map(String::as_str).collect();
                return Err(unknown(key, NOT_MIRRORED, &known));
            }
        },
        // Analyzes the experiment however long ago it was stopped: somebody asked for it.
        None => definitions
            .experiments
            .iter()
            .filter(|(_, defined)| defined.is_followed(0, i64::MAX, 0))
            .map(|(key, _)| key)
            .collect(),
    };
    let mut experiments = Vec::new();
    for key in keys {
        let before = store::last_written(&database, key).await?;
        let published =
            publish::publish(&database, &mut looks, &moment, key, before.as_ref(), Duration::ZERO).await?;
        experiments.push(published.written.result);
    }
    show(experiments, which.json)
}

/// Reads the definitions until they have this experiment, or for the time of the wait: a change that was accepted a moment ago
/// is in the log and not in ClickHouse yet.
async fn definitions_with(
    experiment: Option<&str>,
    wait: Wait,
    mut read: impl AsyncFnMut() -> anyhow::Result<Definitions>,
) -> anyhow::Result<Definitions> {
    let deadline = Instant::now() + wait.at_most;
    loop {
        let definitions = read().await?;
        let is_here = experiment.is_none_or(|key| definitions.experiments.contains_key(key));
        if is_here || Instant::now() >= deadline {
            return Ok(definitions);
        }
        tokio::time::sleep(wait.pause).await;
    }
}

async fn results(config: Config, which: Which) -> anyhow::Result<Exit> {
    let database = open(&config)?;
    let experiments = match &which.experiment {
        None => {
            for unreadable in store::unreadable_of_all(&database).await? {
                eprintln!("warning: {unreadable}");
            }
            store::latest_of_all(&database).await?
        }
        Some(key) => match store::latest(&database, key).await? {
            Some(result) => vec![result],
            None => {
                let analyzed = store::latest_of_all(&database).await?;
                let known: Vec<&str> = analyzed.iter().map(|result| result.key.as_str()).collect();
                return Err(unknown(key, "has been analyzed", &known));
            }
        },
    };
    show(experiments, which.json)
}

fn open(config: &Config) -> anyhow::Result<Database> {
    Database::new(&config.clickhouse, config.aggregator.query_timeout_ms.duration())
}

/// The error for an unknown experiment; `lacks` names what does not exist.
fn unknown(key: &str, lacks: &str, known: &[&str]) -> anyhow::Error {
    let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
    anyhow::anyhow!("no experiment `{key}` {lacks}; known: {known}").context(Exit::Refused)
}

fn show(experiments: Vec<ExperimentResult>, json: bool) -> anyhow::Result<Exit> {
    if json {
        println!("{}", serde_json::to_string_pretty(&Document { experiments })?);
    } else {
        print!("{}", show::experiments(&experiments));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definitions::{Change, fold};

    /// `apply` and at once `analyze` was an error, because ClickHouse was a second behind.
    #[tokio::test]
    async fn an_experiment_that_is_not_mirrored_yet_is_waited_for() {
        let mirrored = |readings: u32| {
            let experiment = json!({"key": "button", "state": "running", "phase": 1, "control": "a",
                "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}], "metrics": {"primary": "buy"}});
            let change = Change {
                kind: "experiment".to_owned(),
                version: 1,
                definition: experiment.to_string(),
                changed_at_ms: 0,
            };
            fold(if readings < 3 { Vec::new() } else { vec![change] })
        };
        let readings_until = async |experiment: Option<&str>, at_most_ms: u64| {
            let wait = Wait { at_most: Duration::from_millis(at_most_ms), pause: Duration::from_millis(1) };
            let mut readings = 0;
            let read = async || {
                readings += 1;
                Ok(mirrored(readings))
            };
            let found = definitions_with(experiment, wait, read).await.unwrap();
            (readings, found.experiments.contains_key("button"))
        };
        assert_eq!(readings_until(Some("button"), 60_000).await, (3, true));
        assert_eq!(readings_until(Some("button"), 0).await, (1, false));
        assert_eq!(readings_until(None, 60_000).await, (1, false));
    }
}
