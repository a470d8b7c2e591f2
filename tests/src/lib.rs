//! The code that the end-to-end tests and the fault harness share: a platform of real parts, the traffic, the
//! faults, and the oracle that compares the events of Kafka with the rows of ClickHouse. It knows only the
//! outside of the platform: processes, topics, tables and metrics.

pub mod chaos;
pub mod clickhouse;
pub mod edge_load;
pub mod edges;
pub mod faults;
pub mod harness;
pub mod metrics;
pub mod oracle;
pub mod platform;
pub mod proxy;
pub mod random;
pub mod relayed;
pub mod signals;
pub mod syscalls;
pub mod topic;
pub mod traffic;

pub use clickhouse::ClickHouse;
pub use platform::Platform;
pub use random::Random;
