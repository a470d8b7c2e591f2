//! The log of definitions, for every service. The [`Follower`] keeps up with the log in a thread; the
//! [`DefinitionLog`] proposes a change and reads back whether it was accepted, with the [`history`] of all changes.
//! [`apply`] makes a change of what an author wrote, for the command line and for HTTP alike. The pure rule in
//! `schemas` decides which changes are valid. The members of [`lists`] have a topic of their own.

pub mod apply;
pub mod diff;
mod follower;
pub mod history;
#[cfg(feature = "http")]
pub mod http;
pub mod lists;
pub mod log;

pub use follower::{FollowedLog, Follower, Recorded, RecordedChange};
pub use lists::FollowedLists;
pub use log::DefinitionLog;

/// The client id that a [`DefinitionLog`] gives to the brokers.
const CLIENT_ID: &str = "splitstream-definitions";
