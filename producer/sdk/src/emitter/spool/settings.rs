//! `[spool]`: where the spool is, how large it may grow, and when an event is written to it.

use std::path::PathBuf;

use ops::config::{Bytes, Field, Millis, Section};
use serde::Deserialize;

/// The directory of a spool and its bounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolSettings {
    pub directory: PathBuf,
    #[serde(default = "bytes")]
    pub bytes: Bytes<67_108_864, 68_719_476_736>,
    #[serde(default = "delay_ms")]
    pub delay_ms: Millis<10, 1_000>,
    #[serde(default = "sync_ms")]
    pub sync_ms: Millis<1, 10>,
}

fn bytes() -> Bytes<67_108_864, 68_719_476_736> {
    Bytes::of(1_073_741_824)
}

fn delay_ms() -> Millis<10, 1_000> {
    Millis::of(100)
}

fn sync_ms() -> Millis<1, 10> {
    Millis::of(10)
}

impl SpoolSettings {
    /// The defaults, in a directory that no other process uses.
    pub fn at(directory: impl Into<PathBuf>) -> SpoolSettings {
        SpoolSettings {
            directory: directory.into(),
            bytes: bytes(),
            delay_ms: delay_ms(),
            sync_ms: sync_ms(),
        }
    }
}

impl Section for SpoolSettings {
    const NAME: &'static str = "spool";
    const REQUIRED: &'static str = "directory = \"/var/lib/splitstream/spool\"";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of(
                "directory",
                &self.directory,
                "directory on a local disk for the events that Kafka has not acknowledged; each process needs its own",
            ),
            Field::of(
                "bytes",
                &self.bytes,
                "bytes that the spool may take on the disk, besides about 3 % of them in memory; further events are \
                 refused, and none is dropped",
            ),
            Field::of(
                "delay_ms",
                &self.delay_ms,
                "how long an event waits for Kafka before it is written to the spool; a killed process loses at most \
                 the events of this time and of one sync",
            ),
            Field::of(
                "sync_ms",
                &self.sync_ms,
                "how long events whose sender waits for the answer are collected before they are synced together",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_of_the_settings_is_consistent() {
        ops::config::check_declaration::<SpoolSettings>().unwrap();
    }
}
