//! Runs, watches and stops the real parts (Apache Kafka, the embedded ClickHouse engine, the schema registry,
//! the services) on one machine, and runs the demo on them. [`fetch`] fetches the foreign parts. Errors are
//! `anyhow` chains, since a person reads them.

pub mod command;
pub mod demo;
mod disk;
mod interrupt;
pub mod kafka;
mod part;
mod ports;
pub mod probe;
pub mod process;
pub mod programs;
mod registry;
mod retry;
mod service;
pub mod services;
pub mod stack;
pub mod state;
pub mod supervise;

use std::process::ExitCode;

pub use service::{Service, ServiceOptions};
pub use stack::{Options, Server, Stack};

/// The exit code of a program whose work had this result. Prints the error, unless a signal was received.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::received() => ExitCode::from(interrupt::EXIT_CODE),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
