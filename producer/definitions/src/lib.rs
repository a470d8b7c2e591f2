//! The log of definitions, for every service. The [`Follower`] keeps up with the log in a thread; the
//! [`DefinitionLog`] proposes a change and reads back whether it was accepted. The pure rule in `schemas`
//! decides which changes are valid.

mod follower;
pub mod log;

pub use follower::{FollowedLog, Follower, Recorded, RecordedChange};
pub use log::DefinitionLog;

/// The client id that a [`DefinitionLog`] gives to the brokers.
const CLIENT_ID: &str = "splitstream-definitions";
