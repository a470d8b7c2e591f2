//! The commands for people who define experiments and send events. They write definitions to the log, from a file
//! or from another environment ([`environments`]), make them from other platforms' files ([`import`]), explain an
//! assignment ([`explain`]), send events to Kafka ([`replay`], [`simulate`]) and create the topics ([`topics`]). Services
//! embed the package `sdk` instead. This package does not know who consumes a topic.

pub mod command;
pub mod config;
pub mod environments;
pub mod explain;
pub mod import;
pub mod replay;
#[cfg(test)]
mod samples;
pub mod ship;
pub mod simulate;
pub mod text;
pub mod topics;
mod unit_context;

/// The client id that these commands give to the brokers.
const CLIENT_ID: &str = "splitstream-producer";
