//! Access to Kafka for every service: a configured client with a diagnosis when no broker answers, a topic's
//! own id, the list of transient errors, a log of one partition that is read from its beginning and proposed
//! to, a client of the schema registry, and what other plain HTTP clients share with it.

pub mod client;
mod exit;
pub mod https;
pub mod log;
pub mod registry;
pub mod topic_id;
pub mod transient;

pub use client::{ANSWER_TIMEOUT, ConnectError, IgnorePartitionEof};
pub use exit::exit_of;
pub use log::{LogError, OrderedLog, Proposal, Record};
pub use topic_id::TopicId;
pub use transient::{ELECTION, Transient};
