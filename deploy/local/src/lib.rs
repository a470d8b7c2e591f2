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

pub use service::{Service, ServiceOptions};
pub use stack::{Options, Server, Stack};
