//! The local stack: what it fetches, and how the real parts (Apache Kafka, the embedded ClickHouse engine,
//! the three services) are run, watched and stopped on one machine. Errors that a person reads are
//! `anyhow` chains; only [`fetch`] tells its apart, for callers that can do without a part.

pub mod command;
pub mod demo;
mod disk;
pub mod embedded;
pub mod fetch;
mod interrupt;
pub mod kafka;
mod part;
mod patience;
mod ports;
pub mod probe;
pub mod process;
pub mod programs;
pub mod progress;
mod registry;
mod service;
pub mod services;
pub mod stack;
pub mod state;
pub mod supervise;
pub mod tail;

pub use service::{Service, ServiceOptions};
pub use stack::{Options, Server, Stack};
