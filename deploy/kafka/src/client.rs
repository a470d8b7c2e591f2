//! Configures every librdkafka client. If Kafka does not answer, it makes an error message that names the
//! address and what to check.

use std::time::Duration;

use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::net::TcpStream;

/// The time that a cluster may take to answer a request.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// The time that the diagnosis may take for each address it tries.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The number of addresses that the diagnosis tries.
const ADDRESSES_TRIED_MAX: usize = 3;

/// The reason why there is no working connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot be used as they are.
    #[error("the settings of [kafka] cannot be used: {0}")]
    Settings(String),
    /// No broker answered in time.
    #[error("kafka at {brokers} does not answer: {reason}; {advice}")]
    Silent { brokers: String, reason: String, advice: &'static str },
}

/// A client context that does not log the end of a partition as an error, for readers that read logs to their
/// ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnorePartitionEof;

impl ClientContext for IgnorePartitionEof {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::error!(%error, reason, "librdkafka");
        }
    }
}

impl ConsumerContext for IgnorePartitionEof {}

/// Returns the configuration that all our clients share; the caller adds what its role needs. `id` is the
/// client id in the brokers' logs and quotas.
pub fn client(kafka: &Kafka, id: &str) -> Result<ClientConfig, ConnectError> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties().map_err(ConnectError::Settings)? {
        config.set(name, value);
    }
    config.set("client.id", id).set_log_level(RDKafkaLogLevel::Warning);
    Ok(config)
}

/// Returns all topics of the cluster with their numbers of partitions. It creates none.
pub async fn topics(kafka: &Kafka, id: &str) -> Result<Vec<(String, usize)>, ConnectError> {
    let config = client(kafka, id)?;
    let brokers = kafka.brokers.as_str().to_owned();
    let request = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            config.create().map_err(|error| ConnectError::Settings(error.to_string()))?;
        Ok(consumer.fetch_metadata(None, ANSWER_TIMEOUT))
    });
    let answer = request.await.expect("asking for metadata does not panic")?;
    let named =
        |topic: &rdkafka::metadata::MetadataTopic| (topic.name().to_owned(), topic.partitions().len());
    match answer {
        Ok(metadata) => Ok(metadata.topics().iter().map(named).collect()),
        Err(error) => Err(diagnose(brokers, &error).await),
    }
}

/// Finds out why no broker answers, as far as plain connections can tell. Takes up to 1.5 s.
pub async fn diagnose(brokers: String, error: &KafkaError) -> ConnectError {
    let mut reasons = Vec::new();
    let mut connected = false;
    for broker in brokers.split(',').map(str::trim).take(ADDRESSES_TRIED_MAX) {
        match connect(broker).await {
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

async fn connect(broker: &str) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(broker)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode::BrokerTransportFailure;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A listener that accepts no connections, and the connections that fill its queue.
    async fn unresponsive_address() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        (listener, waiting)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_tasks_run_while_a_silent_broker_is_diagnosed() {
        let (listener, _waiting) = unresponsive_address().await;
        let broker = listener.local_addr().unwrap().to_string();
        let error = KafkaError::MetadataFetch(BrokerTransportFailure);
        let mut diagnosis = std::pin::pin!(diagnose(broker.clone(), &error));
        tokio::select! {
            biased;
            found = &mut diagnosis => panic!("nobody else had a turn before it was found: {found}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(
            diagnosis.await.to_string(),
            format!(
                "kafka at {broker} does not answer: {broker}: no connection within 500 ms; check that it runs and \
                 that kafka.brokers (SPLITSTREAM_KAFKA__BROKERS) names it"
            )
        );
    }
}
