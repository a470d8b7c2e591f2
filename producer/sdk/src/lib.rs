//! The library that a product service embeds. It makes events from evaluations ([`event`]), selects the
//! attributes that exposures carry ([`attributes`]) and sends events to Kafka ([`Emitter`]). The package
//! `assignment` decides which variant a unit sees. The library brings no HTTP server and no ClickHouse client.

pub mod attributes;
pub mod emitter;
pub mod event;
#[cfg(test)]
#[path = "../../src/samples.rs"]
mod samples;

pub use emitter::{
    Durable, Emitter, NotDurable, Receipts, Refused, SpoolSettings, Status, Undelivered, Unflushed,
};

/// The client id that a service with this library gives to the brokers.
const CLIENT_ID: &str = "splitstream-sdk";
