//! `splitstream`, the one program that people install. It only connects the other packages: each command is
//! implemented in one of them, and each service is a process of this program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ops::Exit;
use ops::config::{describe, load};

mod help;

/// An open A/B-testing platform: assignment, events counted exactly once, statistics that stay valid however
/// often people look.
#[derive(Parser)]
#[command(name = "splitstream", version)]
struct Arguments {
    /// Settings in TOML; SPLITSTREAM_<SECTION>__<FIELD> in the environment wins over them
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run three real experiments through the whole platform on this machine, then a live one
    Demo(local::demo::Demo),
    /// The whole platform on this machine, with real parts
    #[command(subcommand)]
    Local(local::command::Command),
    #[command(flatten)]
    Producer(producer::command::Command),
    #[command(flatten)]
    Files(producer::command::FileCommand),
    /// The service that answers flags in other languages, and takes their events
    #[command(subcommand)]
    Edge(edge::command::ServiceCommand),
    /// The service that carries events from Kafka into ClickHouse
    #[command(subcommand)]
    Consumer(consumer::command::ServiceCommand),
    #[command(flatten)]
    Tables(consumer::command::Command),
    /// The service that counts, tests and decides
    #[command(subcommand)]
    Aggregator(aggregator::command::ServiceCommand),
    #[command(flatten)]
    Results(aggregator::command::Command),
    #[command(flatten)]
    Lab(lab::command::Command),
    /// Print every setting of a service with its unit, bounds and value
    Config { service: ServiceName },
    /// Print the completions of a shell
    Completions { shell: Shell },
}

/// The service whose settings are printed.
#[derive(Clone, Copy, ValueEnum)]
enum ServiceName {
    Producer,
    Edge,
    Consumer,
    Aggregator,
}

fn main() -> ExitCode {
    let Arguments { config, command } = read_arguments();
    let config = config.as_deref();
    match command {
        Command::Demo(demo) => local::exit_code(local::demo::run(&demo)),
        Command::Local(command) => local::exit_code(local::command::run(&command)),
        Command::Producer(command) => {
            ops::main(async { producer::command::run(&load(config)?, command).await })
        }
        Command::Files(command) => ops::main(async { producer::command::run_on_files(command) }),
        Command::Edge(edge::command::ServiceCommand::Run) => {
            ops::main(async { edge::command::serve(load(config)?).await })
        }
        Command::Consumer(consumer::command::ServiceCommand::Run) => {
            consumer::heap::keep_memory();
            ops::main(async { consumer::command::serve(load(config)?).await })
        }
        Command::Tables(command) => {
            consumer::heap::keep_memory();
            ops::main(consumer::command::run(config, command))
        }
        Command::Aggregator(aggregator::command::ServiceCommand::Run) => {
            ops::main(async { aggregator::command::serve(load(config)?).await })
        }
        Command::Results(command) => {
            ops::main(async { aggregator::command::run(load(config)?, command).await })
        }
        Command::Lab(command) => ops::main(async { compute(command) }),
        Command::Config { service } => ops::main(async { print_settings(service, config) }),
        Command::Completions { shell } => ops::main(async { print_completions(shell) }),
    }
}

/// Parses the command line; an invalid one ends the program with exit code 2.
fn read_arguments() -> Arguments {
    let matches = help::grouped(Arguments::command()).get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn compute(command: lab::command::Command) -> Result<Exit> {
    match lab::command::run(command) {
        Ok(()) => Ok(Exit::Done),
        Err(lab::command::Failure::Usage(error)) => Err(error.context(Exit::Usage)),
        Err(lab::command::Failure::Failed(error)) => Err(error),
    }
}

fn print_completions(shell: Shell) -> Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut help::grouped(Arguments::command()), "splitstream", &mut text);
    ops::print(std::str::from_utf8(&text).context("completions are text")?)?;
    Ok(Exit::Done)
}

fn print_settings(service: ServiceName, config: Option<&Path>) -> Result<Exit> {
    let text = match service {
        ServiceName::Producer => describe::<producer::config::Config>(config)?,
        ServiceName::Edge => describe::<edge::config::Config>(config)?,
        ServiceName::Consumer => describe::<consumer::config::Config>(config)?,
        ServiceName::Aggregator => describe::<aggregator::config::Config>(config)?,
    };
    ops::print(&text)?;
    Ok(Exit::Done)
}
