//! The edge of the platform as a library: the log of definitions, read and proposed to ([`log`], [`apply`]),
//! and events on their way to Kafka ([`emitter`], [`replay`], [`simulate`]). Which variant a unit sees is
//! decided in the package `assignment`; what becomes of an event after its topic is not known here.

pub mod apply;
pub mod attributes;
pub mod command;
pub mod config;
pub mod diff;
pub mod emitter;
pub mod environments;
pub mod event;
pub mod explain;
pub mod log;
pub mod replay;
#[cfg(test)]
mod samples;
pub mod simulate;
pub mod text;
pub mod topics;

pub use emitter::{Emitter, Refused, Undelivered, Unflushed};
pub use log::DefinitionLog;

/// What the brokers call this program and every service that uses this library.
const CLIENT_ID: &str = "splitstream-producer";
