//! From topic to table, each event exactly once. Reads exposures, conversions, aliases, looks and the log of
//! definitions, writes one row for each into ClickHouse, and goes on after any interruption from what
//! ClickHouse says is durable. Knows nothing of experiments beyond verifying what an exposure claims.

/// Topic to table: fetch, decode, dedupe, verify, batch, announce, insert, commit.
pub mod pipeline;

/// Proof that every event is in its table once, and the repair where it is not.
pub mod audit;

/// Messages that cannot become rows: sent on, listed, shown, sent again.
pub mod dead_letters;

/// Units that asked to be forgotten.
pub mod forget;

// What the modules share, and the commands.
pub mod command;
pub mod config;
pub mod exit;
pub mod metrics;
pub mod migrate;
pub mod retention;
pub mod topic_reader;

pub use pipeline::heap;
