//! ClickHouse's own Kafka engine: a table that reads the topic, and a materialized view that fills ours from it.
//! It reads a registry's framing only, so the same events stand in topics of their own with that framing; this
//! consumer is measured on them too.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kafka::registry::Registry;
use rdkafka::producer::Producer;

use super::events::{TOPIC, Workload, producer, send};
use super::place::{Measured, PARTITIONS, Place, SLOW_ROWS_MAX, measured};

/// What the topics with a registry's framing begin with.
pub const PREFIX: &str = "framed_";
/// Single-object encoding: two bytes of mark, eight of fingerprint.
const FRAME_BYTES: usize = 10;

/// Registers the schema and puts all events into a topic of their own.
pub fn produce(place: &Place, workload: &Workload) -> Result<()> {
    let topics = place
        .stack
        .command(&["topics", "--replication", "1"])?
        .env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", PREFIX)
        .status()?;
    ensure!(topics.success(), "making the topics: {topics}");
    let settings = ops::config::Registry {
        url: Some(place.stack.registry_url().to_owned().try_into().map_err(anyhow::Error::msg)?),
        ..ops::config::Registry::default()
    };
    let registry = Registry::open(&settings).map_err(anyhow::Error::msg)?.context("a registry is there")?;
    let topic = format!("{PREFIX}{TOPIC}");
    let id = registry
        .id(&format!("{topic}-value"), schemas::avro::EXPOSURE_SCHEMA)
        .map_err(|error| anyhow!("registering the schema: {error}"))?;
    let producer = producer(place)?;
    workload.produce_definitions(&producer, &format!("{PREFIX}definitions"))?;
    for (partition, messages) in workload.messages.iter().enumerate() {
        for message in messages {
            let mut framed = vec![0];
            framed.extend_from_slice(&id.to_be_bytes());
            framed.extend_from_slice(&message[FRAME_BYTES..]);
            send(&producer, &topic, partition as i32, &framed)?;
        }
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(())
}

/// Every message becomes a row, resends too; at least once.
pub fn run(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("engine_{round}");
    let client = place.database(&name)?;
    let execute = |sql: &str| -> Result<()> {
        place.runtime.block_on(client.query_raw(sql).execute()).with_context(|| sql.to_owned())
    };
    execute(&reading(place, &name))?;
    execute(FILLING)?;
    let (from, to) = measured(workload.total().min(SLOW_ROWS_MAX));
    let before = place.wait_for_rows(&client, from)?;
    // It works inside ClickHouse.
    let meter = place.meter(std::process::id())?;
    let rows = place.wait_for_rows(&client, to)?;
    let result = Measured { client: None, ..meter.stop((rows - before) as usize)? };
    execute("DROP TABLE filling")?;
    execute("DROP TABLE reading")?;
    place.drop_database(&client, &name)?;
    Ok(result)
}

/// Addresses and names are of our own making.
fn reading(place: &Place, group: &str) -> String {
    [
        "CREATE TABLE reading (event_id UUID, experiment LowCardinality(String), variant LowCardinality(String), \
         unit_type LowCardinality(String), unit_id String, other_ids Map(String, String), phase Int32, \
         definition_version Int64, configuration_version Int64, rule LowCardinality(String), \
         reason LowCardinality(String), attributes Map(String, String), \
         environment LowCardinality(String), \
         sender Tuple(service String, instance String, library_version String), created_at DateTime64(6, 'UTC')) \
         ENGINE = Kafka SETTINGS kafka_broker_list = '",
        place.stack.brokers(),
        "', kafka_topic_list = '",
        PREFIX,
        TOPIC,
        "', kafka_group_name = '",
        group,
        "', kafka_format = 'AvroConfluent', format_avro_schema_registry_url = '",
        place.stack.registry_url(),
        "', kafka_num_consumers = ",
        &CONSUMERS.min(PARTITIONS).to_string(),
        ", kafka_thread_per_consumer = 1, kafka_max_block_size = 100000, kafka_poll_max_batch_size = 100000, \
         kafka_flush_interval_ms = 1000",
    ]
    .concat()
}

/// One for each core; more than there are cores it refuses.
const CONSUMERS: u16 = 2;

/// Buckets are left out: it cannot read a record that may be null. It has that much less to do.
const FILLING: &str = "CREATE MATERIALIZED VIEW filling TO exposures AS SELECT event_id, experiment, variant, \
    unit_type, unit_id, CAST(other_ids, 'Map(LowCardinality(String), String)') AS other_ids, phase, \
    definition_version, configuration_version, rule, reason, CAST(attributes, 'Map(LowCardinality(String), String)') AS attributes, \
    attributes['region'] AS region, attributes['plan'] AS plan, attributes['device'] AS device, \
    attributes['browser'] AS browser, environment, sender.service AS sender_service, \
    sender.instance AS sender_instance, sender.library_version AS sender_version, created_at, \
    now64(3) AS ingest_ts, toUInt16(_partition) AS kafka_partition, toUInt64(_offset) AS kafka_offset, \
    toUInt32(1) AS epoch, toUInt64(_offset) AS batch_first, toUInt64(_offset) AS batch_last FROM reading";
