//! Where everything runs: a local Kafka and one edge as in production, with a thousand flags and an experiment.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::definition::{Definitions, parse_file};
use schemas::topics::DEFINITIONS;
use schemas::{Uuid, avro};
use tokio::runtime::Runtime;

use super::edge_fixture::{Edge, Fixture, SERVER_TOKEN};
use super::load::{Answer, Connection, Request};

/// What a request names as the number of its unit.
const NUMBER: &str = "NUMBER";
const FLAGS: usize = 1_000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The flag that the changes switch.
pub const SWITCHED: &str = "switched";

pub struct Place {
    // Declared before the fixture, so that it has stopped when Kafka stops.
    edge: Edge,
    fixture: Fixture,
    address: String,
    runtime: Runtime,
}

impl Place {
    pub fn open() -> Result<Place> {
        let fixture = Fixture::new("bench");
        write_log(&fixture.kafka(), &definitions()).context("writing the definitions")?;
        let snapshot = fixture.path("snapshot").display().to_string();
        let edge = fixture.edge(&[
            ("SPLITSTREAM_EDGE__SNAPSHOT_FILE", snapshot.as_str()),
            // The default; the fixture's other edges do not wait for a batch.
            ("SPLITSTREAM_PRODUCER__LINGER_MS", "20"),
            ("SPLITSTREAM_LOG__LEVEL", "warn"),
        ]);
        let url = edge.url();
        let address = url.strip_prefix("http://").context("the edge's address")?.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Place { fixture, edge, address, runtime })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn edge_pid(&self) -> u32 {
        self.edge.service.pid()
    }

    pub fn kafka(&self) -> Kafka {
        self.fixture.kafka()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.fixture.path(name)
    }

    /// A request of a unit with some attributes.
    pub fn request(&self, path: &str, headers: &[(&str, &str)]) -> Request {
        let authorization = format!("Bearer {SERVER_TOKEN}");
        let headers = [&[("authorization", authorization.as_str())][..], headers].concat();
        let body = format!(
            r#"{{"context":{{"targetingKey":"user-{NUMBER}","country":"DE","plan":"pro","age":31,"beta":false}}}}"#
        );
        Request::new(path, &headers, &body, NUMBER)
    }

    /// Asks the edge once.
    pub fn ask(&self, request: &Request) -> Result<Answer> {
        self.runtime.block_on(async {
            let mut connection = Connection::open(&self.address, request.clone()).await?;
            let (_, raw) = connection.ask().await?;
            Answer::parse(raw)?.context("the answer is whole")
        })
    }
}

/// An experiment with a rule, a thousand flags of one rule, and the flag that is switched.
fn definitions() -> String {
    let mut text = "\
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
kind: experiment
key: checkout
state: running
control: control
metrics: { primary: purchase }
targeting: [{ key: adults, when: { attribute: age, at_least: 18 } }]
variants: [{ key: control, weight: 50%, value: \"blue\" }, { key: treatment, weight: 50%, value: \"green\" }]
"
    .to_owned();
    text += &format!("---\n{}", switched(true));
    for number in 1..FLAGS {
        text += &format!(
            "---\nkind: flag\nkey: flag-{number}\nvalue_type: boolean\ndefault_variant: \"off\"\n\
             variants: [{{ key: \"off\", value: false }}, {{ key: \"on\", value: true }}]\n\
             rules: [{{ key: germans, when: {{ attribute: country, equals: DE }}, rollout: 50%, \
             split: [{{ variant: \"on\", weight: 100% }}] }}]\n"
        );
    }
    text
}

/// Writes the changes to the log by one producer: the writer of single changes reads back each before the next, which takes
/// minutes for a thousand.
fn write_log(kafka: &Kafka, text: &str) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers.as_str())
        .set("enable.idempotence", "true")
        .create()?;
    let topic = kafka.topic(DEFINITIONS);
    let mut all = Definitions::default();
    let now = sdk::event::now();
    for written in parse_file(text).map_err(|errors| anyhow!("{errors:?}"))? {
        let definition = assignment::resolve(&all, now, written).map_err(|problem| anyhow!("{problem}"))?;
        let change = all.change_to(&definition, Uuid::now_v7(), "bench", "measuring");
        all.apply(all.next_offset(), now, &change)?.map_err(|refusal| anyhow!("{refusal}"))?;
        let payload = avro::encode_change(&change);
        let record = BaseRecord::to(&topic).partition(0).key(&change.key).payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(WRITE_TIMEOUT)?)
}

/// The definition of the flag that is switched.
pub fn switched(on: bool) -> String {
    let variant = if on { "on" } else { "off" };
    format!(
        "kind: flag\nkey: {SWITCHED}\nvalue_type: boolean\ndefault_variant: \"{variant}\"\n\
         variants: [{{ key: \"off\", value: false }}, {{ key: \"on\", value: true }}]\n"
    )
}

/// Processor time of a process so far.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th words.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|word| word.parse().unwrap_or(0_u64)).sum();
    // A tick is a hundredth of a second on every Linux that Rust runs on.
    Ok(Duration::from_millis(ticks * 10))
}
