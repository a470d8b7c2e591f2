//! The bare limit: what Kafka can hand over and ClickHouse can take on this machine when nobody looks at the
//! messages in between.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use clickhouse::Client;
use consumer::pipeline::fetch::PartitionQueue;
use consumer::pipeline::rows::Table;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::events::{TOPIC, Workload};
use super::place::{Measured, Meter, PARTITIONS, Place};

const FETCH_MESSAGES_MAX: usize = 10_000;
const WAIT: Duration = Duration::from_millis(50);

/// Fetches everything and throws it away.
pub fn fetch(place: &Place, workload: &Workload) -> Result<Measured> {
    let meter = fetch_all(place, workload)?;
    meter.stop(workload.total())
}

/// Inserts everything from blocks made before.
pub fn insert(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("insert_{round}");
    let client = place.database(&name)?;
    let blocks = blocks(workload);
    let meter = place.meter(std::process::id())?;
    insert_all(place, &client, blocks)?;
    let measured = meter.stop(workload.distinct)?;
    place.drop_database(&client, &name)?;
    Ok(measured)
}

/// Both at the same time, on the same cores.
pub fn both(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("limit_{round}");
    let client = place.database(&name)?;
    let blocks = blocks(workload);
    let meter = place.meter(std::process::id())?;
    thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch_all(place, workload));
        insert_all(place, &client, blocks)?;
        fetching.join().map_err(|_| anyhow!("the fetching thread panicked"))?
    })?;
    // Rows, as everybody's: the messages are some more.
    let measured = meter.stop(workload.distinct)?;
    place.drop_database(&client, &name)?;
    Ok(measured)
}

fn blocks(workload: &Workload) -> Vec<Vec<Bytes>> {
    (0..workload.messages.len())
        .map(|partition| workload.blocks(partition).into_iter().map(Bytes::from).collect())
        .collect()
}

/// From the first message on: joining and connecting are not counted.
fn fetch_all(place: &Place, workload: &Workload) -> Result<Meter> {
    let consumer: Arc<BaseConsumer> = Arc::new(
        ClientConfig::new()
            .set("bootstrap.servers", place.stack.brokers())
            .set("group.id", "bench-limit")
            .set("enable.auto.commit", "false")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.wait.max.ms", "100")
            .create()?,
    );
    let mut queues: Vec<_> = (0..i32::from(PARTITIONS))
        .map(|partition| PartitionQueue::split(consumer.clone(), TOPIC, partition, FETCH_MESSAGES_MAX))
        .collect();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        partitions.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut left = workload.total();
    let mut meter = None;
    let started = Instant::now();
    while left > 0 {
        ensure!(started.elapsed() < Duration::from_secs(300), "{left} messages do not come");
        for queue in &mut queues {
            let fetched = queue.fetch(if meter.is_none() { WAIT } else { Duration::from_millis(1) });
            let count = fetched.iter().filter(Result::is_ok).count();
            if count > 0 && meter.is_none() {
                meter = Some(place.meter(std::process::id())?);
            }
            left -= count;
        }
    }
    meter.context("there is no message")
}

/// One request at a time for each partition, as the consumer does.
fn insert_all(place: &Place, client: &Client, blocks: Vec<Vec<Bytes>>) -> Result<()> {
    place.runtime.block_on(async {
        let mut running = Vec::new();
        for (partition, blocks) in blocks.into_iter().enumerate() {
            let client = client.clone().with_setting("async_insert", "0");
            running.push(tokio::spawn(async move {
                for (number, block) in blocks.into_iter().enumerate() {
                    // With a token, as every consumer that retries: without one ClickHouse hashes the rows.
                    let token = format!("{partition}/{number}");
                    let mut insert = client
                        .insert_formatted_with(Table::Exposures.insert())
                        .with_setting("insert_deduplication_token", token);
                    insert.send(block).await?;
                    insert.end().await?;
                }
                Ok::<(), clickhouse::error::Error>(())
            }));
        }
        for one in running {
            one.await??;
        }
        Ok(())
    })
}
