//! The service that answers other languages: flags over OFREP, events over `track`, an event stream that says when to ask
//! again. It only reads definitions, writes events, and knows neither ClickHouse nor who analyses them. What decides
//! ([`ofrep`], [`etag`], [`tokens`], [`rate`], [`suppress`], [`samples`], [`track`], [`configuration`]) takes values and
//! returns values; [`http`], [`follow`], [`token_file`], [`snapshot_file`] and [`events`] touch the world.

pub mod announce;
pub mod command;
pub mod config;
pub mod configuration;
pub mod cors;
pub mod counts;
pub mod etag;
pub mod events;
pub mod exposures;
pub mod follow;
pub mod http;
pub mod metadata;
pub mod metrics;
pub mod ofrep;
pub mod rate;
pub mod samples;
pub mod serving;
pub mod snapshot_file;
pub mod suppress;
pub mod token_file;
pub mod tokens;
pub mod track;

#[cfg(test)]
#[path = "../../src/samples.rs"]
mod sample_definitions;
