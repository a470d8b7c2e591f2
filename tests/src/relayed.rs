//! A platform whose consumers reach Kafka and ClickHouse through proxies. The test itself, the producer and
//! the oracle go straight to the servers.

use anyhow::{Context, Result};
use local::Service;

use crate::platform::Platform;
use crate::proxy::{Fault, Harm, Meets, Proxy};

/// What every insert of the consumer carries in the head of its request, and nothing else does.
pub const INSERT: Meets = Meets::Text("insert_deduplication_token");

/// What the inserts of exposures carry alone: the log of definitions is inserted by the same path, and before.
pub const EXPOSURES_INSERT: Meets = Meets::Text("INSERT+INTO+exposures");

/// The API key of OffsetCommit.
pub const OFFSET_COMMIT: Meets = Meets::KafkaApi(8);

/// The API key of Heartbeat, which goes the same way as OffsetCommit.
pub const HEARTBEAT: Meets = Meets::KafkaApi(12);

/// The API key of Produce.
pub const PRODUCE: Meets = Meets::KafkaApi(0);

/// More requests than any test makes.
const ALWAYS: u64 = u64::MAX;

/// A platform with a proxy before each server.
pub struct Relayed {
    // Before the proxies: the consumers end while they can still reach the servers.
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

    /// The settings by which a program goes through the proxies.
    pub fn places(&self) -> [(&'static str, String); 2] {
        let url = format!("http://{}", self.clickhouse.address());
        [("SPLITSTREAM_KAFKA__BROKERS", self.kafka.address()), ("SPLITSTREAM_CLICKHOUSE__URL", url)]
    }

    /// Starts a consumer behind the proxies, and returns when it has partitions.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> Result<Service> {
        let places = self.places();
        let mut all: Vec<(&str, &str)> = places.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(settings);
        self.platform.consumer(&all)
    }
}

impl Fault {
    pub fn once(meets: Meets, harm: Harm) -> Fault {
        Fault { meets, harm, times: 1 }
    }

    pub fn always(meets: Meets, harm: Harm) -> Fault {
        Fault { meets, harm, times: ALWAYS }
    }
}
