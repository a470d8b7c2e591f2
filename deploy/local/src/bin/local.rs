//! `local`: the whole platform on one machine, with real parts. Each command is a module of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use local::command::{Wanted, down, keep, logs, status, up};
use local::demo;

#[derive(Debug, Parser)]
#[command(version, about = "Runs the whole platform on this machine, with real parts")]
struct Local {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start Kafka, ClickHouse and the services, and leave them running
    Up(up::Up),
    /// Stop what `up` started
    Down(down::Down),
    /// Tell of each part whether it is healthy, or why not
    Status(status::Status),
    /// Show the parts' logs
    Logs(logs::Logs),
    /// Three real experiments through the whole platform, then a live one
    Demo(demo::Demo),
    /// Start everything and stay (what `up` leaves running; also for a service manager)
    Keep(Wanted),
}

fn main() -> ExitCode {
    let done = match Local::parse().command {
        Command::Up(up) => up::run(&up),
        Command::Down(down) => down::run(&down),
        Command::Status(status) => status::run(&status),
        Command::Logs(logs) => logs::run(&logs),
        Command::Demo(demo) => demo::run(&demo),
        Command::Keep(wanted) => keep::run(&wanted),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
