//! The operational side of every service: configuration, metrics, health, logs, orderly shutdown, exit codes
//! and retries. It knows nothing of experiments, events or tables, and makes no connections: the package
//! `http-server` serves HTTP, and `kafka` and `clickhouse-client` are the clients.
//!
//! A service loads its [`config`] and starts the [`log`]. It passes a [`Shutdown`] and a [`Health`] to its work
//! and to its HTTP server, and [`main`] turns its result into an exit code.

pub mod config;
mod exit;
pub mod health;
pub mod log;
pub mod metrics;
mod output;
pub mod retry;
mod shutdown;

pub use exit::{Exit, main, with_exit_code};
pub use health::{Condition, Health, Progress};
pub use output::print;
pub use retry::Retry;
pub use shutdown::{Hold, Shutdown};
