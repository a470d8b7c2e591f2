//! The commands of `splitstream local`, one module each, and the options that they share.

pub mod down;
pub mod env;
pub mod keep;
pub mod logs;
pub mod status;
pub mod up;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use crate::kafka::BROKERS_MAX;
use crate::stack::{Options, Server};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start Kafka, ClickHouse and the services, and leave them running
    Up(up::Up),
    /// Stop what `up` started
    Down(down::Down),
    /// Print for each part whether it is healthy, and if not, why
    Status(status::Status),
    /// Print the addresses as lines for a shell: `eval "$(splitstream local env)"`
    Env(env::Env),
    /// Print the parts' logs
    Logs(logs::Logs),
    /// Start everything and stay (what `up` leaves running; also for a service manager)
    Keep(StackArgs),
}

/// Runs the command.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up(up) => up::run(up),
        Command::Down(down) => down::run(down),
        Command::Status(status) => status::run(status),
        Command::Env(env) => env::run(env),
        Command::Logs(logs) => logs::run(logs),
        Command::Keep(args) => keep::run(args),
    }
}

/// The directory of a stack, if none is named.
const DEFAULT_DIR: &str = ".splitstream";

/// The directory of a stack.
#[derive(Debug, Clone, Args)]
pub struct Dir {
    /// The directory that holds the stack's data and logs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub dir: PathBuf,
}

/// The servers that the services use, and the port of the page.
#[derive(Debug, Clone, Args)]
pub struct Servers {
    /// Kafka nodes to start
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(BROKERS_MAX)))]
    pub brokers: u8,
    /// Use this Kafka and start none (its security is taken from SPLITSTREAM_KAFKA__*)
    #[arg(long, value_name = "HOST:PORT,...")]
    pub kafka: Option<String>,
    /// Use this ClickHouse and start none (its user and password are taken from SPLITSTREAM_CLICKHOUSE__*)
    #[arg(long, value_name = "URL")]
    pub clickhouse: Option<String>,
    /// Start a schema registry too, which the services then use
    #[arg(long, conflicts_with = "registry_url")]
    pub registry: bool,
    /// Use this schema registry and start none (its user and password are taken from SPLITSTREAM_REGISTRY__*)
    #[arg(long, value_name = "URL")]
    pub registry_url: Option<String>,
    /// Port of the first Kafka node [default: a free one]
    #[arg(long, value_name = "PORT", conflicts_with = "kafka")]
    pub kafka_port: Option<u16>,
    /// Port of ClickHouse [default: a free one]
    #[arg(long, value_name = "PORT", conflicts_with = "clickhouse")]
    pub clickhouse_port: Option<u16>,
    /// Port of the schema registry [default: a free one]
    #[arg(long, value_name = "PORT", requires = "registry")]
    pub registry_port: Option<u16>,
    /// Port where the edge answers flags and takes events [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub edge_port: Option<u16>,
    /// Port of the aggregator's page and API [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
}

impl Servers {
    pub fn options(&self, dir: &Path) -> Options {
        let mut options = Options {
            brokers: self.brokers,
            kafka: self.kafka.clone(),
            clickhouse: self.clickhouse.clone(),
            registry: self.registry_url.clone(),
            kafka_port: self.kafka_port,
            clickhouse_port: self.clickhouse_port,
            registry_port: self.registry_port,
            ..Options::at(dir)
        };
        if self.registry || self.registry_url.is_some() {
            options.servers.push(Server::Registry);
        }
        options
    }
}

/// The parts of a stack.
#[derive(Debug, Clone, Args)]
pub struct StackArgs {
    #[command(flatten)]
    pub dir: Dir,
    #[command(flatten)]
    pub servers: Servers,
    /// Start these parts alone [default: all]
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    pub only: Vec<PartName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    Kafka,
    Clickhouse,
    Edge,
    Consumer,
    Aggregator,
}

impl StackArgs {
    pub fn includes(&self, part: PartName) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub fn options(&self) -> Options {
        let mut options = self.servers.options(&self.dir.dir);
        options.servers.retain(|server| match server {
            Server::Kafka => self.includes(PartName::Kafka),
            Server::ClickHouse => self.includes(PartName::Clickhouse),
            // The registry has a flag of its own, `--registry`.
            Server::Registry => true,
        });
        options
    }
}
