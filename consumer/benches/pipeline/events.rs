//! The events that every run carries, two in a hundred of them resends.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::Event;
use schemas::definition::Change;
use schemas::topics::DEFINITIONS;

use super::exposures::Experiments;
use super::place::{Measured, PARTITIONS, Place};

pub const TOPIC: &str = "exposures";
const RESENT_EVERY: usize = 50;
/// As many as the consumer puts into a batch.
const BLOCK_ROWS: usize = 100_000;
pub struct Workload {
    pub experiments: Experiments,
    /// The log of definitions.
    changes: Vec<Change>,
    /// By partition, encoded as the emitter does.
    pub messages: Vec<Vec<Vec<u8>>>,
    /// Events, each counted once.
    pub distinct: usize,
}

impl Workload {
    pub fn make(events: usize) -> Workload {
        let (experiments, changes) = Experiments::make();
        let mut messages = vec![Vec::new(); usize::from(PARTITIONS)];
        let mut distinct = 0;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let start = now.as_micros() as i64 - 3_600_000_000;
        for number in 0..events {
            let partition = number % messages.len();
            let own: &mut Vec<Vec<u8>> = &mut messages[partition];
            if number / usize::from(PARTITIONS) % RESENT_EVERY == RESENT_EVERY - 1 {
                let resent = own[own.len() - RESENT_EVERY / 2].clone();
                own.push(resent);
                continue;
            }
            own.push(schemas::avro::encode(&Event::Exposure(experiments.exposure(number, start))));
            distinct += 1;
        }
        Workload { experiments, changes, messages, distinct }
    }

    pub fn total(&self) -> usize {
        self.messages.iter().map(Vec::len).sum()
    }

    /// Puts all of them into the topic.
    pub fn produce(&self, place: &Place) -> Result<()> {
        place.stack.create_topics(1)?;
        let producer = producer(place)?;
        self.produce_definitions(&producer, DEFINITIONS)?;
        for (partition, messages) in self.messages.iter().enumerate() {
            for message in messages {
                send(&producer, TOPIC, partition as i32, message)?;
            }
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(())
    }

    /// Puts the definitions into the topic of that name.
    pub fn produce_definitions(&self, producer: &BaseProducer, topic: &str) -> Result<()> {
        for change in &self.changes {
            send(producer, topic, 0, &schemas::avro::encode_change(change))?;
        }
        Ok(())
    }

    pub fn decode(&self) -> Measured {
        let began = Instant::now();
        let mut seen = 0;
        for message in self.messages.iter().flatten() {
            let decoded = schemas::avro::decode_exposure(std::hint::black_box(message));
            seen += usize::from(std::hint::black_box(decoded).is_ok());
        }
        assert_eq!(seen, self.total());
        let took = began.elapsed();
        let client = Some(took.as_nanos() as f64 / seen as f64);
        let rows_per_second = seen as f64 / took.as_secs_f64();
        Measured { rows_per_second, client, clickhouse: None, broker: None }
    }

    /// The distinct events of a partition, as blocks of the size that the consumer makes.
    pub fn blocks(&self, partition: usize) -> Vec<Vec<u8>> {
        use consumer::pipeline::batch::BatchStamp;
        use consumer::pipeline::rows::{Rows, Table};
        use consumer::pipeline::verify::Verification;
        let mut blocks = Vec::new();
        let distinct: Vec<(u64, &Vec<u8>)> = self.messages[partition]
            .iter()
            .enumerate()
            .filter(|(at, _)| at % RESENT_EVERY != RESENT_EVERY - 1)
            .map(|(at, message)| (at as u64, message))
            .collect();
        for run in distinct.chunks(BLOCK_ROWS) {
            let Rows::Exposures(mut rows) = Table::Exposures.rows() else {
                unreachable!("rows of exposures")
            };
            for (offset, message) in run {
                let exposure = schemas::avro::decode_exposure(message).expect("was encoded by us");
                rows.push(&exposure, Verification::Unknown, *offset);
            }
            let stamp = BatchStamp {
                partition: partition as u16,
                epoch: 1,
                first: run[0].0,
                last: run[run.len() - 1].0,
                ingest_ms: 1_790_000_000_000,
            };
            blocks.push(Rows::Exposures(rows).drain(run.len(), &stamp));
        }
        blocks
    }
}

pub fn producer(place: &Place) -> Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", place.stack.brokers())
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "500000")
        .create()?)
}

pub fn send(producer: &BaseProducer, topic: &str, partition: i32, message: &[u8]) -> Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(message);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            Err((error, _)) => return Err(anyhow!(error).context("producing")),
        }
    }
}
