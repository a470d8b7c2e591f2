//! What an operator touches, the same in every service: configuration, metrics, health, logs,
//! orderly shutdown, exit codes, retries and the schema registry. It knows nothing of experiments, events or tables.
//!
//! A service's `main` reads as one line: read the [`config`], start the [`log`], hand a
//! [`Shutdown`] to the work, [`serve`](serve::serve) the operator's routes beside it, and let
//! [`main`] turn what comes back into an exit code.

pub mod config;
mod exit;
pub mod health;
mod listen;
pub mod log;
pub mod metrics;
pub mod registry;
pub mod retry;
pub mod serve;
mod shutdown;

pub use exit::{Exit, main};
pub use health::{Condition, Health, Progress};
pub use retry::Retry;
pub use shutdown::{Hold, Shutdown};
