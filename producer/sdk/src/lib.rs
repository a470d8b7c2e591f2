//! What a product service embeds: events made of what was evaluated ([`event`]), the attributes that travel with them
//! ([`attributes`]), and their way to Kafka ([`Emitter`]). Which variant a unit sees is decided in the package `assignment`.
//! No HTTP server and no ClickHouse client come with it.

pub mod attributes;
pub mod emitter;
pub mod event;
#[cfg(test)]
#[path = "../../src/samples.rs"]
mod samples;

pub use emitter::{Emitter, Refused, Undelivered, Unflushed};

/// What the brokers call a service that embeds this library.
const CLIENT_ID: &str = "splitstream-sdk";
