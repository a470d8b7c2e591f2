//! The bare limit: what Kafka can hand over and ClickHouse can take on this machine when nobody looks at the
//! messages in between.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use clickhouse::Client;
use consumer::fetch::PartitionQueue;
use consumer::rows::Table;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::events::{TOPIC, Workload};
use super::place::{Measured, PARTITIONS, Place};

const FETCH_MESSAGES_MAX: usize = 10_000;
const WAIT: Duration = Duration::from_millis(50);

/// Fetches everything and throws it away.
pub fn fetch(place: &Place, workload: &Workload) -> Result<Measured> {
    let took = fetch_all(place, workload)?;
    Ok(Measured::of(workload.total(), took, None))
}

/// Inserts everything from blocks made before.
pub fn insert(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("insert_{round}");
    let client = place.database(&name)?;
    let blocks = blocks(workload);
    let began = Instant::now();
    insert_all(place, &client, blocks)?;
    let took = began.elapsed();
    place.drop_database(&client, &name)?;
    Ok(Measured::of(workload.total(), took, None))
}

/// Both at the same time, on the same cores.
pub fn both(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("limit_{round}");
    let client = place.database(&name)?;
    let blocks = blocks(workload);
    let began = Instant::now();
    thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch_all(place, workload));
        insert_all(place, &client, blocks)?;
        fetching.join().map_err(|_| anyhow!("the fetching thread panicked"))?
    })?;
    let took = began.elapsed();
    place.drop_database(&client, &name)?;
    Ok(Measured::of(workload.total(), took, None))
}

fn blocks(workload: &Workload) -> Vec<Vec<Bytes>> {
    (0..workload.messages.len())
        .map(|partition| workload.blocks(partition).into_iter().map(Bytes::from).collect())
        .collect()
}

/// From the first message on: joining and connecting are not counted.
fn fetch_all(place: &Place, workload: &Workload) -> Result<Duration> {
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
    let mut began = None;
    let started = Instant::now();
    while left > 0 {
        ensure!(started.elapsed() < Duration::from_secs(300), "{left} messages do not come");
        for queue in &mut queues {
            let fetched = queue.fetch(if began.is_none() { WAIT } else { Duration::from_millis(1) });
            let count = fetched.iter().filter(Result::is_ok).count();
            if count > 0 {
                began.get_or_insert_with(Instant::now);
            }
            left -= count;
        }
    }
    Ok(began.map_or(Duration::ZERO, |began| began.elapsed()))
}

/// One request at a time for each partition, as the consumer does.
fn insert_all(place: &Place, client: &Client, blocks: Vec<Vec<Bytes>>) -> Result<()> {
    place.runtime.block_on(async {
        let mut running = Vec::new();
        for blocks in blocks {
            let client = client.clone().with_setting("async_insert", "0");
            running.push(tokio::spawn(async move {
                for block in blocks {
                    let mut insert = client.insert_formatted_with(Table::Exposures.insert());
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
