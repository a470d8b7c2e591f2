//! A platform whose consumers connect to Kafka and ClickHouse through proxies. The test itself, the producer
//! and the oracle connect to the servers directly.

use anyhow::{Context, Result};
use local::Service;

use crate::platform::Platform;
use crate::proxy::{Effect, Fault, Matcher, Proxy};

/// Matches every insert of the consumer, and no other request, by a text in its head.
pub const INSERT: Matcher = Matcher::Text("insert_deduplication_token");

/// Matches the inserts of exposures only: the log of definitions is inserted by the same path, and earlier.
pub const EXPOSURES_INSERT: Matcher = Matcher::Text("INSERT+INTO+exposures");

/// Matches OffsetCommit by its API key.
pub const OFFSET_COMMIT: Matcher = Matcher::KafkaApi(8);

/// Matches Heartbeat by its API key; it uses the same connection as OffsetCommit.
pub const HEARTBEAT: Matcher = Matcher::KafkaApi(12);

/// Matches Produce by its API key.
pub const PRODUCE: Matcher = Matcher::KafkaApi(0);

/// More requests than any test sends.
const ALWAYS: u64 = u64::MAX;

/// A platform with a proxy in front of each server.
pub struct Relayed {
    // Declared before the proxies, so that the consumers can still reach the servers when they stop.
    pub platform: Platform,
    pub kafka: Proxy,
    pub clickhouse: Proxy,
}

impl Relayed {
    pub fn up() -> Result<Relayed> {
        let (kafka, clickhouse) = (Proxy::open()?, Proxy::open()?);
        let relay = kafka.port();
        let platform = Platform::with(|options| local::Options { kafka_relay: Some(relay), ..options })?;
        let listener = platform.stack().relayed_kafka().context("the broker has no second listener")?;
        kafka.forward_to(&listener)?;
        clickhouse.forward_to(platform.stack().clickhouse_url().trim_start_matches("http://"))?;
        Ok(Relayed { platform, kafka, clickhouse })
    }

    /// The settings that make a program connect through the proxies.
    pub fn proxy_settings(&self) -> [(&'static str, String); 2] {
        let url = format!("http://{}", self.clickhouse.address());
        [("SPLITSTREAM_KAFKA__BROKERS", self.kafka.address()), ("SPLITSTREAM_CLICKHOUSE__URL", url)]
    }

    /// Starts a consumer that connects through the proxies, and returns when it has partitions.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> Result<Service> {
        let proxies = self.proxy_settings();
        let mut all: Vec<(&str, &str)> =
            proxies.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(settings);
        self.platform.consumer(&all)
    }
}

impl Fault {
    pub fn once(matcher: Matcher, effect: Effect) -> Fault {
        Fault { matcher, effect, times: 1 }
    }

    pub fn always(matcher: Matcher, effect: Effect) -> Fault {
        Fault { matcher, effect, times: ALWAYS }
    }
}
