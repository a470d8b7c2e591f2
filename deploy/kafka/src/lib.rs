//! Kafka as every service asks it: a client from the configuration and what is said when no broker answers, a
//! topic's own id, the errors that pass, and a log of one partition that is read from its beginning and proposed to.

pub mod client;
pub mod log;
pub mod topic_id;
pub mod transient;

pub use client::{ANSWER_WITHIN, ConnectError, EndsAreExpected};
pub use log::{LogError, OrderedLog, Proposal, Record};
pub use topic_id::TopicId;
pub use transient::Transient;
