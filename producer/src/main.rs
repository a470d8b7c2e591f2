//! `producer`: definitions onto the log, assignments explained, events onto Kafka.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ops::Exit;

use config::Config;

mod command;
mod config;

/// The edge of Splitstream: definitions onto the log, assignments, events onto Kafka.
#[derive(Parser)]
#[command(name = "producer", version)]
struct Args {
    /// Settings in TOML; SPLITSTREAM_... variables in the environment win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the topics that are missing and compare the others
    Topics(command::topics::Args),
    /// Propose the definitions of a file
    Apply(command::apply::Args),
    /// Show what differs between two environments
    Diff(command::diff::Args),
    /// Carry what one environment says of a flag or an experiment to another, as one change
    Promote(command::promote::Args),
    /// Show what holds now, or how it came about
    Definitions(command::definitions::Args),
    /// Say which variant a unit gets, and why
    Assign(command::assign::Args),
    /// Send the events of a file, with their own ids and times
    Replay(command::replay::Args),
    /// Send seeded traffic with known true rates
    Simulate(command::simulate::Args),
    /// Show every setting with its bounds and its value
    Config,
}

fn main() -> ExitCode {
    let args = Args::parse();
    ops::main(run(args))
}

async fn run(args: Args) -> anyhow::Result<Exit> {
    let config: Config = ops::config::load(args.config.as_deref())?;
    match args.command {
        Command::Topics(args) => command::topics::run(&config, args).await,
        Command::Apply(args) => command::apply::run(&config, args).await,
        Command::Diff(args) => command::diff::run(&config, args).await,
        Command::Promote(args) => command::promote::run(&config, args).await,
        Command::Definitions(args) => command::definitions::run(&config, args).await,
        Command::Assign(args) => command::assign::run(&config, args).await,
        Command::Replay(args) => command::replay::run(&config, args).await,
        Command::Simulate(args) => command::simulate::run(&config, args).await,
        Command::Config => command::show(&ops::config::render(&config)),
    }
}
