//! The consumer's own settings. Each field has its unit, its bounds and what happens at them.

use std::path::PathBuf;

use ops::config::{Bytes, Config as Declared, Count, Field, Millis, Page, Required, Secret, Section};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Everything that `splitstream consumer run` and the commands beside it read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kafka: ops::config::Kafka,
    pub clickhouse: ops::config::ClickHouse,
    pub http: ops::config::Http,
    pub log: ops::config::Log,
    #[serde(default)]
    pub registry: ops::config::Registry,
    pub consumer: ConsumerSection,
}

impl Declared for Config {
    fn pages(&self) -> Vec<Page> {
        vec![
            Page::of(&self.kafka),
            Page::of(&self.clickhouse),
            Page::of(&self.http),
            Page::of(&self.log),
            Page::of(&self.registry),
            Page::of(&self.consumer),
        ]
    }

    fn required() -> Vec<Required> {
        vec![Required::of::<ops::config::Kafka>(), Required::of::<ops::config::ClickHouse>()]
    }
}

/// What making the tables needs: no Kafka. The other sections may stand in the same file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablesConfig {
    pub clickhouse: ops::config::ClickHouse,
    #[serde(rename = "kafka")]
    _kafka: IgnoredAny,
    #[serde(rename = "http")]
    _http: IgnoredAny,
    #[serde(rename = "log")]
    _log: IgnoredAny,
    /// Not needed; read so that what is wrong in it is reported before the consumers start.
    pub consumer: ConsumerSection,
}

impl Declared for TablesConfig {
    fn pages(&self) -> Vec<Page> {
        vec![Page::of(&self.clickhouse), Page::of(&self.consumer)]
    }
}

/// Section `[consumer]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerSection {
    pub group: String,
    pub batch_rows: Count<1, 1_000_000>,
    pub batch_bytes: Bytes<1_024, 268_435_456>,
    pub batch_age_ms: Millis<10, 60_000>,
    pub insert_timeout_ms: Millis<1_000, 600_000>,
    pub session_timeout_ms: Millis<6_000, 300_000>,
    pub fetch_bytes_per_partition: Bytes<65_536, 268_435_456>,
    pub memory_bytes: Bytes<16_777_216, 68_719_476_736>,
    pub window_hours: Count<0, 168>,
    pub window_ids_per_partition: Count<1_000, 100_000_000>,
    pub epoch: Count<1, 4_294_967_295>,
    pub forget_key: Option<Secret>,
    pub forget_key_file: Option<PathBuf>,
}

impl Default for ConsumerSection {
    fn default() -> ConsumerSection {
        ConsumerSection {
            group: "splitstream-consumer".to_owned(),
            batch_rows: Count::of(100_000),
            batch_bytes: Bytes::of(16 * 1_024 * 1_024),
            batch_age_ms: Millis::of(1_000),
            insert_timeout_ms: Millis::of(60_000),
            session_timeout_ms: Millis::of(45_000),
            fetch_bytes_per_partition: Bytes::of(16 * 1_024 * 1_024),
            memory_bytes: Bytes::of(512 * 1_024 * 1_024),
            window_hours: Count::of(24),
            window_ids_per_partition: Count::of(5_000_000),
            epoch: Count::of(1),
            forget_key: None,
            forget_key_file: None,
        }
    }
}

impl Section for ConsumerSection {
    const NAME: &'static str = "consumer";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("group", &self.group, "consumer group; members of one group share the partitions"),
            Field::of("batch_rows", &self.batch_rows, "rows at which a batch is closed and inserted"),
            Field::of(
                "batch_bytes",
                &self.batch_bytes,
                "bytes of messages, those that become rows, at which a batch is closed",
            ),
            Field::of("batch_age_ms", &self.batch_age_ms, "age at which a batch with any row is closed"),
            Field::of(
                "insert_timeout_ms",
                &self.insert_timeout_ms,
                "after which an insert is in doubt: it is killed, and ClickHouse is asked what became of it",
            ),
            Field::of(
                "session_timeout_ms",
                &self.session_timeout_ms,
                "silence after which the broker gives the partitions to others",
            ),
            Field::of(
                "fetch_bytes_per_partition",
                &self.fetch_bytes_per_partition,
                "bytes of messages fetched ahead for each partition; fetching pauses there",
            ),
            Field::of(
                "memory_bytes",
                &self.memory_bytes,
                "bytes of messages in batches that are not durable yet, over all partitions; taking pauses there",
            ),
            Field::of(
                "window_hours",
                &self.window_hours,
                "age of an event up to which its id is remembered in memory; older ones are asked of ClickHouse; 0 \
                 asks for all, as after a topic got more partitions",
            ),
            Field::of(
                "window_ids_per_partition",
                &self.window_ids_per_partition,
                "ids remembered for each partition; beyond it the oldest are asked of ClickHouse",
            ),
            Field::of(
                "epoch",
                &self.epoch,
                "raise it after a topic was recreated, so that old and new offsets are distinguished",
            ),
            Field::of(
                "forget_key",
                &self.forget_key,
                "key of the ledger of forgotten units, at least 32 bytes; needed once there is one",
            ),
            Field::of("forget_key_file", &self.forget_key_file, "file that holds the key of the ledger"),
        ]
    }

    fn check(&self) -> Result<(), String> {
        if self.forget_key.is_some() && self.forget_key_file.is_some() {
            return Err("consumer.forget_key and consumer.forget_key_file are both set; remove one".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever set them learns where it is said now, and not only that there is no such setting.
    #[test]
    fn the_retention_of_earlier_builds_names_the_new_way() {
        let file = "[clickhouse]\nurl = 'http://c:8123'\n[consumer]\nretention_days_exposures = 90\n";
        let error = ops::config::parse::<TablesConfig>(Some(("consumer.toml", file)), []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "consumer.toml, line 4: consumer.retention_days_exposures: no setting any more: how long events are kept is \
             a definition, `{kind: settings, key: platform, retention_days: {exposures: 90}}`, which `splitstream apply` \
             proposes and `splitstream migrate` carries out"
        );
        let variable = ("SPLITSTREAM_CONSUMER__RETENTION_DAYS_ALIASES".to_owned(), "0".to_owned());
        let file = "[clickhouse]\nurl = 'http://c:8123'\n";
        let error =
            ops::config::parse::<TablesConfig>(Some(("consumer.toml", file)), [variable]).unwrap_err();
        assert!(error.to_string().contains("retention_days: {aliases: 90}"), "{error}");
    }

    #[test]
    fn the_settings_are_declared_soundly() {
        ops::config::check_declaration::<ConsumerSection>().unwrap();
    }
}
