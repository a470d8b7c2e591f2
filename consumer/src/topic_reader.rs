//! Reads topics by offset: a span of a partition, or all of a topic. Joins no group and commits nothing; it asks
//! what a group has committed and who is in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backon::BlockingRetryable;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::pipeline::batch::Span;
use kafka::{ELECTION, TopicId, Transient};

const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Longest silence while a span is read.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads topics, and asks about one group.
pub struct TopicReader {
    consumer: BaseConsumer,
    group: String,
    silence_max: Duration,
}

/// The ends of a partition in Kafka: its first offset, and the offset after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub low: u64,
    pub high: u64,
}

impl TopicReader {
    /// `group` is the group that [`TopicReader::committed`] and [`TopicReader::members`] ask about.
    pub fn open(kafka: &ops::config::Kafka, group: &str) -> Result<TopicReader> {
        let mut config = ClientConfig::new();
        for (name, value) in kafka.properties().map_err(ops::config::Error::from)? {
            config.set(name, value);
        }
        let consumer = config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            .set("queued.max.messages.kbytes", "16384")
            .create()
            .context("making the reader of the log")?;
        Ok(TopicReader { consumer, group: group.to_owned(), silence_max: SILENCE_MAX })
    }

    /// The same with a shorter bound on the broker's silence while a span is read.
    pub fn silent_for_at_most(self, silence_max: Duration) -> TopicReader {
        TopicReader { silence_max, ..self }
    }

    /// The number of partitions of a topic; 0 if there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<u16> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), ANSWERS_WITHIN)
            .with_context(|| format!("asking the brokers for `{topic}`"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        u16::try_from(found.map_or(0, |found| found.partitions().len())).context("more partitions than 65535")
    }

    /// Kafka's id of the topic. `None` where brokers give topics no ids.
    pub fn topic_id(&self, topic: &str) -> Result<Option<TopicId>> {
        TopicId::fetch(self.consumer.client(), topic, ANSWERS_WITHIN)
    }

    pub fn watermarks(&self, topic: &str, partition: u16) -> Result<Watermarks> {
        let (low, high) =
            ask_leader(|| self.consumer.fetch_watermarks(topic, partition.into(), ANSWERS_WITHIN))
                .with_context(|| format!("asking for the ends of {topic}/{partition}"))?;
        let known = |offset: i64| u64::try_from(offset).context("the broker does not know the ends yet");
        Ok(Watermarks { low: known(low)?, high: known(high)? })
    }

    /// The offset that the group has committed, and the text beside it.
    pub fn committed(&self, topic: &str, partition: u16) -> Result<Option<(u64, String)>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition.into());
        let answered = ask_leader(|| self.consumer.committed_offsets(asked.clone(), ANSWERS_WITHIN))
            .with_context(|| format!("asking what `{}` has committed of {topic}/{partition}", self.group))?;
        let Some(found) = answered.find_partition(topic, partition.into()) else { return Ok(None) };
        Ok(match found.offset() {
            Offset::Offset(offset) => {
                u64::try_from(offset).ok().map(|offset| (offset, found.metadata().to_owned()))
            }
            _ => None,
        })
    }

    /// The number of consumers in the group at the moment.
    pub fn members(&self) -> Result<usize> {
        let groups = ask_leader(|| self.consumer.fetch_group_list(Some(&self.group), ANSWERS_WITHIN))
            .with_context(|| format!("asking who is in the group `{}`", self.group))?;
        Ok(groups.groups().iter().map(|group| group.members().len()).sum())
    }

    /// Calls `each` for every message of a topic, partition by partition.
    pub fn read_topic(&self, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) -> Result<()> {
        for partition in 0..self.partitions(topic)? {
            let Watermarks { low, high } = self.watermarks(topic, partition)?;
            if low < high {
                let span = Span { first: low, last: high - 1 };
                self.read(topic, partition, span, |_, message| {
                    each(message);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Calls `each` for every message of `span`, in order. The other offsets of the span are no messages: control
    /// records, aborted transactions, records removed by compaction, or offsets beyond the end.
    pub fn read(
        &self,
        topic: &str,
        partition: u16,
        span: Span,
        mut each: impl FnMut(u64, &BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = i64::try_from(span.first).context("an offset beyond 2^63")?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition.into(), Offset::Offset(first))?;
        self.consumer.assign(&from).with_context(|| format!("assigning {topic}/{partition}"))?;
        let mut last_received = Instant::now();
        let ended = loop {
            match self.consumer.poll(POLL_WAIT) {
                Some(Ok(message)) => {
                    last_received = Instant::now();
                    let offset = u64::try_from(message.offset()).context("a message has no offset")?;
                    if offset > span.last {
                        break Ok(());
                    }
                    if offset >= span.first {
                        each(offset, &message)?;
                    }
                    if offset == span.last {
                        break Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
                Some(Err(error)) => {
                    break Err(error)
                        .with_context(|| format!("reading {topic}/{partition} from {}", span.first));
                }
                None => {}
            }
            if last_received.elapsed() > self.silence_max {
                bail!("the broker sends nothing of {topic}/{partition} from {} on", span.first);
            }
        };
        self.consumer.unassign().context("letting go of a partition")?;
        ended
    }
}

/// Asks until a leader is there to answer. Any other error is returned at once.
fn ask_leader<T>(ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    ask.retry(ELECTION.pauses())
        .when(|error| Transient::of(error) == Some(Transient::NoLeader))
        .notify(|error, _| tracing::info!(%error, "waiting for a leader"))
        .call()
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    fn reader(cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>) -> TopicReader {
        let kafka = serde_json::json!({"brokers": cluster.bootstrap_servers()});
        TopicReader::open(&serde_json::from_value(kafka).unwrap(), "auditor").unwrap()
    }

    #[test]
    fn a_partition_without_a_leader_is_asked_again() {
        use RDKafkaRespErr::{
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        };
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("exposures", 1, 1).unwrap();
        let reader = reader(&cluster);
        // Each question takes two answers, for the beginning and for the end.
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 4]);
        assert_eq!(reader.watermarks("exposures", 0).unwrap(), Watermarks { low: 0, high: 0 });

        // What does not pass is told at once.
        cluster
            .request_errors(RDKafkaApiKey::ListOffsets, &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2]);
        let refused = format!("{:#}", reader.watermarks("exposures", 0).unwrap_err());
        assert!(refused.contains("TopicAuthorizationFailed"), "{refused}");
    }
}
