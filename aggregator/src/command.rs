//! The command line: runs the service, analyzes once, prints the latest documents, and repairs the log of
//! looks.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use http_server::Served;
use ops::{Exit, Health, Shutdown};

use crate::config::Config;
use crate::database::Database;
use crate::document::{Document, ExperimentResult};
use crate::experiment_analysis::Moment;
use crate::look_log::LookLog;
use crate::{cut, definitions, edge_counts, http, publish, restore, schedule, store};

pub mod show;

#[derive(Subcommand)]
pub enum ServiceCommand {
    /// Analyze on a schedule and serve the page, the JSON API and the metrics, until it is stopped
    Run,
}

#[derive(Subcommand)]
pub enum Command {
    /// Show the latest result of one experiment, or of all
    Results(Which),
    /// Analyze now and keep the result: one experiment, or all that run or are stopped
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
    let definitions = definitions::read(&database).await?;
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
                return Err(unknown(key, "is defined", &known));
            }
        },
        // Analyzes the experiment however long ago it was stopped: somebody asked for it.
        None => definitions
            .experiments
            .iter()
            .filter(|(_, defined)| defined.is_followed(0, i64::MAX))
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
