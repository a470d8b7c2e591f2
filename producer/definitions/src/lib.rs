//! The log of definitions, for every service: its one follower, which keeps up with it in a thread, and its one writer, which
//! proposes a change and reads back whether it was accepted. What a change may say is the pure rule of `schemas`.

mod follower;
pub mod log;

pub use follower::{FollowedLog, Follower};
pub use log::DefinitionLog;

/// What the brokers call whoever reads or writes the log.
const CLIENT_ID: &str = "splitstream-definitions";
