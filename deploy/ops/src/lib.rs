//! What an operator touches, the same in every service: configuration, metrics, health, logs, orderly shutdown,
//! exit codes and retries. It knows nothing of experiments, events or tables, and talks to nobody: the HTTP
//! side is the package `frame`, the clients are `kafka` and `clickhouse-client`.
//!
//! A service loads its [`config`], starts the [`log`], hands a [`Shutdown`] and a [`Health`] to its work and to
//! its HTTP side, and [`main`] turns what comes back into an exit code.

pub mod config;
mod exit;
pub mod health;
pub mod log;
pub mod metrics;
pub mod retry;
mod shutdown;

pub use exit::{Exit, main, with_exit_code};
pub use health::{Condition, Health, Progress};
pub use retry::Retry;
pub use shutdown::{Hold, Shutdown};
