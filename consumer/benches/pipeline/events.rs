//! The events that every run carries: full exposures of the contract, assigned as their definitions say, two
//! in a hundred of them resends.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use assignment::{Salts, place};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::definition::{Change, Definition, Definitions, Kind, RULE_VERSION};
use schemas::topics::DEFINITIONS;
use schemas::{Event, Exposure, Micros, Pairs, Sender, Uuid};

use super::place::{Measured, PARTITIONS, Place};

pub const TOPIC: &str = "exposures";
const RESENT_EVERY: usize = 50;
/// As many as the consumer puts into a batch.
const BLOCK_ROWS: usize = 100_000;
const EXPERIMENTS: [&str; 4] = ["checkout_button", "search_ranking", "onboarding", "price_page"];

/// The log of definitions, and what it says.
pub struct Experiments {
    changes: Vec<Change>,
    definitions: Definitions,
}

pub struct Workload {
    pub experiments: Experiments,
    /// By partition, encoded as the emitter does.
    pub messages: Vec<Vec<Vec<u8>>>,
    /// Events, each counted once.
    pub distinct: usize,
}

impl Workload {
    pub fn make(events: usize) -> Workload {
        let experiments = Experiments::make();
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
        Workload { experiments, messages, distinct }
    }

    pub fn total(&self) -> usize {
        self.messages.iter().map(Vec::len).sum()
    }

    /// Puts all of them into the topic.
    pub fn produce(&self, place: &Place) -> Result<()> {
        place.stack.create_topics(1)?;
        let producer = producer(place)?;
        self.experiments.produce(&producer, DEFINITIONS)?;
        for (partition, messages) in self.messages.iter().enumerate() {
            for message in messages {
                send(&producer, TOPIC, partition as i32, message)?;
            }
        }
        producer.flush(Duration::from_secs(120))?;
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
        use consumer::batch::Stamp;
        use consumer::rows::{Rows, Table};
        use consumer::verify::Verification;
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
            let stamp = Stamp {
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

impl Experiments {
    fn make() -> Experiments {
        let metric = serde_json::json!({"key": "buy", "event": "buy", "type": "conversion"});
        let mut all = vec![(Kind::Metric, metric)];
        for key in EXPERIMENTS {
            let experiment = serde_json::json!({
                "key": key, "state": "running", "assignment": "hashed", "control": "control",
                "variants": [{"key": "control", "weight": 5000}, {"key": "treatment", "weight": 5000}],
                "metrics": {"primary": "buy"},
            });
            all.push((Kind::Experiment, experiment));
        }
        let (mut definitions, mut changes) = (Definitions::default(), Vec::new());
        for (number, (kind, json)) in all.into_iter().enumerate() {
            let definition = Definition::from_json(kind, json).expect("is a definition");
            let definition = assignment::resolve(&definitions, definition).expect("fits the others");
            let change = Change {
                change_id: Uuid::from_u128(number as u128 + 1),
                rule_version: RULE_VERSION,
                kind: kind.to_string(),
                key: definition.key().to_string(),
                based_on: 0,
                definition: definition.to_json(),
                author: "bench".to_owned(),
                reason: "bench".to_owned(),
            };
            let applied = definitions.apply(definitions.next_offset(), &change).expect("a known rule");
            applied.expect("is accepted");
            changes.push(change);
        }
        Experiments { changes, definitions }
    }

    /// Puts the definitions into the topic of that name.
    pub fn produce(&self, producer: &BaseProducer, topic: &str) -> Result<()> {
        for change in &self.changes {
            send(producer, topic, 0, &schemas::avro::encode_change(change))?;
        }
        Ok(())
    }

    /// All columns filled, as a service in production would.
    pub fn exposure(&self, number: usize, start_micros: i64) -> Exposure<'static> {
        let text = Cow::<'static, str>::Borrowed;
        let created_at = start_micros + number as i64;
        // A UUIDv7 of that time.
        let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = ((created_at / 1_000) as u128) << 80 | 0x7 << 76 | 0x2 << 62 | u128::from(scattered >> 2);
        let mut attributes = Pairs::default();
        let choose = |choices: [&'static str; 4]| choices[number / 7 % 4];
        attributes.insert("region", choose(["US", "DE", "BR", "IN"]));
        attributes.insert("plan", choose(["free", "pro", "team", "free"]));
        attributes.insert("device", choose(["mobile", "desktop", "mobile", "tablet"]));
        attributes.insert("browser", choose(["firefox", "chrome", "safari", "chrome"]));
        let key = choose(EXPERIMENTS);
        let unit_id = format!("user-{}", number % 700_001);
        let (version, experiment) = self.definitions.experiment(key).expect("was defined");
        let buckets = Salts::of(&self.definitions, experiment).buckets(&unit_id);
        let variant = place(experiment, buckets).expect("every bucket has a variant");
        let variant = if variant.key.as_str() == "control" { "control" } else { "treatment" };
        Exposure {
            event_id: Uuid::from_u128(id),
            experiment: text(key),
            variant: text(variant),
            unit_type: text("user"),
            unit_id: Cow::Owned(unit_id),
            other_ids: Pairs::default(),
            phase: 1,
            definition_version: version,
            buckets: Some(buckets),
            rule: text(""),
            attributes,
            environment: text("production"),
            sender: Sender {
                service: text("web"),
                instance: text("web-7f9c"),
                library_version: text("0.1.0"),
            },
            created_at: Micros::new(created_at).unwrap_or(Micros::MAX),
        }
    }
}
