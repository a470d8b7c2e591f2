//! Kafka as every service asks it: a client from the configuration and what is said when no broker answers, a
//! topic's own id, the errors that pass, a log of one partition that is read from its beginning and proposed
//! to, and the registry of its messages' schemas.

pub mod client;
mod exit;
pub mod log;
pub mod registry;
pub mod topic_id;
pub mod transient;

pub use client::{ANSWER_TIMEOUT, ConnectError, IgnorePartitionEof};
pub use exit::exit_of;
pub use log::{LogError, OrderedLog, Proposal, Record};
pub use topic_id::TopicId;
pub use transient::{ELECTION, Transient};
