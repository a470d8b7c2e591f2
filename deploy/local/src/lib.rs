//! The local stack: how the real parts (Apache Kafka, the embedded ClickHouse engine, the schema registry, the
//! services) are run, watched and stopped on one machine, and the demo on it. What they need from outside, [`fetch`]
//! brings. Errors that a person reads are `anyhow` chains.

pub mod command;
pub mod demo;
mod disk;
mod interrupt;
pub mod kafka;
mod part;
mod patience;
mod ports;
pub mod probe;
pub mod process;
pub mod programs;
mod registry;
mod service;
pub mod services;
pub mod stack;
pub mod state;
pub mod supervise;

use std::process::ExitCode;

pub use service::{Service, ServiceOptions};
pub use stack::{Options, Server, Stack};

/// How a program ends that has done this.
pub fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::came() => ExitCode::from(interrupt::EXIT_CODE),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
