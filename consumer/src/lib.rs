//! From topic to table, each event exactly once. Reads exposures, conversions, aliases and the log of
//! definitions, writes one row for each into ClickHouse, and goes on after any interruption from what
//! ClickHouse says is durable. Knows nothing of experiments beyond verifying what an exposure claims.

pub mod audit;
pub mod batch;
pub mod commands;
pub mod config;
pub mod dead_letters;
pub mod decode;
pub mod dedupe;
pub mod exit;
pub mod fetch;
pub mod forget;
pub mod group;
pub mod heap;
pub mod letters;
pub mod memory;
pub mod metrics;
pub mod migrate;
pub mod native;
pub mod partition;
pub mod pipeline;
pub mod protocol;
pub mod retention;
pub mod rows;
pub mod schema_cache;
pub mod spares;
pub mod store;
pub mod tally;
pub mod verify;
