//! The one place where a librdkafka client is configured, and where "Kafka does not answer" becomes a message
//! that names the address and what to check.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

/// How long a cluster may take to answer a question.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long the diagnosis of a silent cluster may take for each address it tries.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// How many addresses the diagnosis tries.
const ADDRESSES_TRIED_MAX: usize = 3;

/// Why there is no working connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot be used as they are.
    #[error("the settings of [kafka] cannot be used: {0}")]
    Settings(String),
    /// Nobody answered in time.
    #[error("kafka at {brokers} does not answer: {reason}; {advice}")]
    Silent { brokers: String, reason: String, advice: &'static str },
}

/// What every client of ours is configured with; the caller adds what its role needs.
pub fn client(kafka: &Kafka) -> Result<ClientConfig, ConnectError> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties().map_err(ConnectError::Settings)? {
        config.set(name, value);
    }
    config.set("client.id", "splitstream-producer").set_log_level(RDKafkaLogLevel::Warning);
    Ok(config)
}

/// All topics of the cluster with their numbers of partitions. Creates none.
pub async fn topics(kafka: &Kafka) -> Result<Vec<(String, usize)>, ConnectError> {
    let config = client(kafka)?;
    let brokers = kafka.brokers.as_str().to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            config.create().map_err(|error| ConnectError::Settings(error.to_string()))?;
        let metadata =
            consumer.fetch_metadata(None, ANSWER_WITHIN).map_err(|error| diagnose(brokers, &error))?;
        let named =
            |topic: &rdkafka::metadata::MetadataTopic| (topic.name().to_owned(), topic.partitions().len());
        Ok(metadata.topics().iter().map(named).collect())
    });
    asking.await.expect("asking for metadata does not panic")
}

/// Why the brokers are silent, as far as a plain connection can tell. Blocks for up to 1.5 s.
pub(crate) fn diagnose(brokers: String, error: &KafkaError) -> ConnectError {
    let mut reasons = Vec::new();
    let mut connected = false;
    for broker in brokers.split(',').map(str::trim).take(ADDRESSES_TRIED_MAX) {
        match connect(broker) {
            Ok(()) => connected = true,
            Err(reason) => reasons.push(format!("{broker}: {reason}")),
        }
    }
    if connected {
        ConnectError::Silent {
            brokers,
            reason: error.to_string(),
            advice: "the port is open, so check that it is a Kafka broker's, and that kafka.security and the \
                     login fit it",
        }
    } else {
        ConnectError::Silent {
            brokers,
            reason: reasons.join(", "),
            advice: "check that it runs and that kafka.brokers (SPLITSTREAM_KAFKA__BROKERS) names it",
        }
    }
}

fn connect(broker: &str) -> Result<(), String> {
    let address = broker
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .ok_or_else(|| "the name has no address".to_owned())?;
    TcpStream::connect_timeout(&address, CONNECT_WITHIN).map(drop).map_err(|error| error.to_string())
}
