//! Reads whole topics and writes raw messages, with librdkafka and without joining a consumer group.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::platform::wait_until;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// If no message arrives for this long, the broker is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The position of a message in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub partition: u16,
    pub offset: u64,
}

/// Calls `on_message` with every message that the topic has at this moment, each partition in order.
pub fn read(
    brokers: &str,
    topic: &str,
    mut on_message: impl FnMut(Position, &BorrowedMessage),
) -> Result<()> {
    let consumer = reader(brokers)?;
    let mut open = Vec::new();
    let mut list = TopicPartitionList::new();
    for (partition, first, end) in bounds(&consumer, topic)? {
        if first < end {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
            open.push((partition, end));
        }
    }
    consumer.assign(&list).with_context(|| format!("reading {topic}"))?;
    let mut last_message = Instant::now();
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_message = Instant::now();
                on_message(position(&message)?, &message);
            }
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            // Checked only now and then: a check after each message would cost more than reading it.
            None => {
                let at = consumer.position().context("asking for the reader's position")?;
                open.retain(|(partition, end)| {
                    let position = at.find_partition(topic, *partition).map(|found| found.offset());
                    !matches!(position, Some(Offset::Offset(next)) if next >= *end)
                });
            }
        }
        if last_message.elapsed() > IDLE_MAX {
            bail!("{topic}: no message arrives any more; not read to the end: {open:?} (partition, end)");
        }
    }
    Ok(())
}

/// Returns when every partition of the topic has a leader: a restarted broker answers requests before it
/// leads any partition.
pub fn wait_for_leaders(brokers: &str, topic: &str) -> Result<()> {
    let reader = reader(brokers)?;
    wait_until("leaders of all partitions", REQUEST_TIMEOUT, POLL, || {
        bounds(&reader, topic)?;
        Ok(true)
    })
}

/// The number of messages ever written: the sum of the partitions' end offsets.
pub fn length(brokers: &str, topic: &str) -> Result<u64> {
    let mut sum = 0;
    for (_, _, end) in bounds(&reader(brokers)?, topic)? {
        sum += u64::try_from(end).context("an end below 0")?;
    }
    Ok(sum)
}

/// The metadata that `group` has committed with its offset of a partition; empty if it has committed none.
pub fn committed_metadata(brokers: &str, group: &str, topic: &str, partition: u16) -> Result<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .create()
        .context("making a reader")?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition.into());
    let committed = consumer.committed_offsets(asked, REQUEST_TIMEOUT).context("asking for the offsets")?;
    let found = committed.find_partition(topic, partition.into()).context("the partition asked for")?;
    Ok(found.metadata().to_owned())
}

/// The text of a header; `None` if the message has no header of that name.
pub fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}

/// Writes messages to one partition, in order, and returns their offsets.
pub fn write(brokers: &str, topic: &str, partition: u16, messages: &[Vec<u8>]) -> Result<Vec<u64>> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .create()
        .context("making a producer")?;
    let before = {
        let all = bounds(&reader(brokers)?, topic)?;
        let found = all.iter().find(|(number, _, _)| *number == i32::from(partition));
        let (_, _, end) = found.with_context(|| format!("{topic} has no partition {partition}"))?;
        u64::try_from(*end).context("an end below 0")?
    };
    for message in messages {
        let record = BaseRecord::<str, [u8]>::to(topic).partition(partition.into()).payload(message);
        producer.send(record).map_err(|(error, _)| error).with_context(|| format!("writing to {topic}"))?;
    }
    producer.flush(REQUEST_TIMEOUT).with_context(|| format!("writing to {topic}"))?;
    // The test is the only writer of this partition at this moment, so the offsets are consecutive.
    Ok((before..before + messages.len() as u64).collect())
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
}

/// Writes messages to one partition in a transaction, as a mirror does. The end of the transaction writes a
/// marker to the log.
pub fn write_in_transaction(
    brokers: &str,
    topic: &str,
    partition: u16,
    messages: &[Vec<u8>],
    ending: Ending,
) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "a-stranger")
        .create()
        .context("making a transactional producer")?;
    producer.init_transactions(REQUEST_TIMEOUT).context("initializing transactions")?;
    producer.begin_transaction().context("beginning a transaction")?;
    for message in messages {
        let record = BaseRecord::<str, [u8]>::to(topic).partition(partition.into()).payload(message);
        producer.send(record).map_err(|(error, _)| error).with_context(|| format!("writing to {topic}"))?;
    }
    // Without the flush, an abort would drop the unsent messages and write no marker.
    producer.flush(REQUEST_TIMEOUT).with_context(|| format!("writing to {topic}"))?;
    match ending {
        Ending::Commit => producer.commit_transaction(REQUEST_TIMEOUT),
        Ending::Abort => producer.abort_transaction(REQUEST_TIMEOUT),
    }
    .context("ending a transaction")
}

/// Deletes a topic.
pub fn delete(brokers: &str, topic: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deleted = runtime.block_on(admin(brokers)?.delete_topics(&[topic], &AdminOptions::new()));
    let failed = deleted.with_context(|| format!("deleting {topic}"))?.into_iter().find_map(Result::err);
    failed.map_or(Ok(()), |(_, code)| Err(anyhow!("deleting {topic}: {code}")))
}

/// Deletes the messages of one partition before `offset`, as retention would.
pub fn delete_before(brokers: &str, topic: &str, partition: u16, offset: u64) -> Result<()> {
    let mut ends = TopicPartitionList::new();
    ends.add_partition_offset(topic, partition.into(), Offset::Offset(i64::try_from(offset)?))?;
    delete_records(brokers, topic, &ends)
}

/// Deletes every message that the topic has at this moment, as retention would.
pub fn delete_all(brokers: &str, topic: &str) -> Result<()> {
    let mut ends = TopicPartitionList::new();
    for (partition, _, end) in bounds(&reader(brokers)?, topic)? {
        ends.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    delete_records(brokers, topic, &ends)
}

fn delete_records(brokers: &str, topic: &str, ends: &TopicPartitionList) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(admin(brokers)?.delete_records(ends, &AdminOptions::new()))
        .with_context(|| format!("deleting messages of {topic}"))?;
    Ok(())
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().context("making an admin client")
}

fn reader(brokers: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by librdkafka; nothing is ever committed for this group.
        .set("group.id", "splitstream-oracle")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .context("making a reader")
}

/// Each partition with its first offset and its end offset, which is one after the last.
fn bounds(reader: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
    let metadata = reader
        .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
        .with_context(|| format!("asking for the partitions of {topic}"))?;
    let found = metadata.topics().first().ok_or_else(|| anyhow!("there is no topic {topic}"))?;
    let mut bounds = Vec::new();
    for partition in found.partitions() {
        let (first, end) = reader
            .fetch_watermarks(topic, partition.id(), REQUEST_TIMEOUT)
            .with_context(|| format!("asking for the ends of {topic}/{}", partition.id()))?;
        bounds.push((partition.id(), first, end));
    }
    Ok(bounds)
}

fn position(message: &BorrowedMessage) -> Result<Position> {
    Ok(Position {
        partition: u16::try_from(message.partition()).context("a partition's number")?,
        offset: u64::try_from(message.offset()).context("an offset")?,
    })
}
