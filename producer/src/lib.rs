//! The commands of whoever defines experiments and sends events: definitions onto their log ([`apply`], [`environments`]),
//! an assignment explained ([`explain`]), events on their way to Kafka ([`replay`], [`simulate`]), the topics themselves
//! ([`topics`]). What a service embeds is the package `sdk`; what becomes of an event after its topic is not known here.

pub mod apply;
pub mod command;
pub mod config;
pub mod diff;
pub mod environments;
pub mod explain;
pub mod replay;
#[cfg(test)]
mod samples;
pub mod simulate;
pub mod text;
pub mod topics;

/// What the brokers call these commands.
const CLIENT_ID: &str = "splitstream-producer";
