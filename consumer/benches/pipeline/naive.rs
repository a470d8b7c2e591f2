//! The consumer that one writes in an afternoon: a message at a time from a stream, decoded into the Avro
//! library's values, appended row by row as RowBinary, offsets committed by a timer.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{Consumer, StreamConsumer};
use serde::Serialize;
use uuid::Uuid;

use super::events::{TOPIC, Workload};
use super::place::{Measured, Place, SLOW_ROWS_MAX};

const BATCH_ROWS: usize = 100_000;
/// Single-object encoding: two bytes of mark, eight of fingerprint.
const FRAME_BYTES: usize = 10;

#[derive(clickhouse::Row, Serialize)]
struct Row {
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    experiment: String,
    variant: String,
    unit_type: String,
    unit_id: String,
    other_ids: Vec<(String, String)>,
    phase: u32,
    definition_version: u64,
    configuration_version: u64,
    bucket_slot: Option<u32>,
    bucket_rollout: Option<u32>,
    bucket_variant: Option<u32>,
    rule: String,
    reason: String,
    attributes: Vec<(String, String)>,
    region: String,
    plan: String,
    device: String,
    browser: String,
    environment: String,
    sender_service: String,
    sender_instance: String,
    sender_version: String,
    verification: i8,
    created_at: i64,
    ingest_ts: i64,
    kafka_partition: u16,
    kafka_offset: u64,
    epoch: u32,
    batch_first: u64,
    batch_last: u64,
}

/// Every message becomes a row, resends too.
pub fn run(place: &Place, workload: &Workload, round: usize) -> Result<Measured> {
    let name = format!("naive_{round}");
    let client = place.database(&name)?;
    let schema = Schema::parse_str(include_str!("../../../schemas/avro/exposure.avsc"))?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let _inside = place.runtime.enter();
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", place.stack.brokers())
        .set("group.id", &name)
        .set("enable.auto.commit", "true")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    let total = workload.total().min(SLOW_ROWS_MAX);
    let measured = place.runtime.block_on(async {
        let mut meter = None;
        let mut insert = None;
        for number in 0..total {
            let message = consumer.recv().await?;
            if meter.is_none() {
                meter = Some(place.meter(std::process::id())?);
            }
            let payload = message.payload().context("an empty message")?;
            let value = reader.read_value(&mut &payload[FRAME_BYTES..])?;
            let row = row(value, message.partition() as u16, message.offset() as u64)?;
            let open = match &mut insert {
                Some(open) => open,
                none => none.insert(client.insert::<Row>("exposures").await?),
            };
            open.write(&row).await?;
            if (number + 1) % BATCH_ROWS == 0
                && let Some(full) = insert.take()
            {
                full.end().await?;
            }
        }
        if let Some(rest) = insert.take() {
            rest.end().await?;
        }
        meter.context("no message came")?.stop(total)
    })?;
    drop(consumer);
    place.drop_database(&client, &name)?;
    Ok(measured)
}

fn row(value: Value, kafka_partition: u16, kafka_offset: u64) -> Result<Row> {
    let Value::Record(fields) = value else { bail!("not a record") };
    let mut fields: HashMap<String, Value> = fields.into_iter().collect();
    let mut take = |name: &str| fields.remove(name).with_context(|| format!("no field {name}"));
    let buckets = match take("buckets")? {
        Value::Union(_, value) => match *value {
            Value::Record(buckets) => {
                Some(buckets.into_iter().map(|(_, value)| number(value)).collect::<Result<Vec<_>>>()?)
            }
            _ => None,
        },
        _ => None,
    };
    let bucket = |at: usize| buckets.as_ref().map(|buckets| buckets[at] as u32);
    let attributes = pairs(take("attributes")?)?;
    let attribute = |name: &str| {
        attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let (region, plan) = (attribute("region"), attribute("plan"));
    let (device, browser) = (attribute("device"), attribute("browser"));
    let Value::Record(sender) = take("sender")? else { bail!("no sender") };
    let mut sender = sender.into_iter().map(|(_, value)| text(value));
    let mut next = || sender.next().context("a sender of three texts")?;
    Ok(Row {
        event_id: match take("event_id")? {
            Value::Uuid(id) => id,
            other => text(other)?.parse()?,
        },
        experiment: text(take("experiment")?)?,
        variant: text(take("variant")?)?,
        unit_type: text(take("unit_type")?)?,
        unit_id: text(take("unit_id")?)?,
        other_ids: pairs(take("other_ids")?)?,
        phase: number(take("phase")?)? as u32,
        definition_version: number(take("definition_version")?)? as u64,
        configuration_version: number(take("configuration_version")?)? as u64,
        bucket_slot: bucket(0),
        bucket_rollout: bucket(1),
        bucket_variant: bucket(2),
        rule: text(take("rule")?)?,
        reason: text(take("reason")?)?,
        attributes,
        region,
        plan,
        device,
        browser,
        environment: text(take("environment")?)?,
        sender_service: next()?,
        sender_instance: next()?,
        sender_version: next()?,
        verification: 0,
        created_at: number(take("created_at")?)?,
        ingest_ts: 1_790_000_000_000,
        kafka_partition,
        kafka_offset,
        epoch: 1,
        batch_first: kafka_offset,
        batch_last: kafka_offset,
    })
}

fn text(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        other => bail!("not a text: {other:?}"),
    }
}

fn number(value: Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(number.into()),
        Value::Long(number) | Value::TimestampMicros(number) => Ok(number),
        other => bail!("not a number: {other:?}"),
    }
}

fn pairs(value: Value) -> Result<Vec<(String, String)>> {
    let Value::Map(map) = value else { bail!("not a map") };
    map.into_iter().map(|(name, value)| Ok((name, text(value)?))).collect()
}
