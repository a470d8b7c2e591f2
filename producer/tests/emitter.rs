//! The emitter with a real Kafka: every event arrives once and in order even if the broker dies, in compressed
//! batches, through a bounded queue that never makes its caller wait.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use local::{Options, Server, Stack};
use ops::config::Count;
use schemas::event::{CUT_MARK, LEFT_OUT};
use schemas::{Event, Exposure, Micros, Pairs, Sender, Unit, Uuid, avro};
use sdk::emitter::{Durable, Emitter, NotDurable, Refused, Settings, Totals, Undelivered};
use sdk::event::{EventStamp, conversion};

use crate::kafka_fixture::{KafkaFixture, kafka, stored};

const TIMEOUT: Duration = Duration::from_secs(60);

/// An event with the number as its id, from 1: the nil UUID identifies no event.
fn event(number: u64) -> Event<'static> {
    let stamp = EventStamp {
        event_id: Uuid::from_u128(u128::from(number)),
        created_at: Micros::parse("2026-01-31T12:00:00Z").unwrap(),
    };
    let unit = Unit { unit_type: "user".into(), unit_id: Cow::Owned(format!("u{}", number % 100)) };
    let mut conversion = conversion(stamp, "purchase", unit);
    conversion.metadata = Pairs::from_iter([("browser", "Firefox"), ("region", "EU")]);
    Event::Conversion(conversion)
}

fn sender() -> Sender<'static> {
    Sender { service: "shop".into(), instance: "1".into(), library_version: "0".into() }
}

type Lost = Arc<Mutex<Vec<Undelivered>>>;

fn open(kafka: &ops::config::Kafka, settings: &Settings) -> (Emitter, Lost, prometheus::Registry) {
    let lost = Lost::default();
    let sink = Arc::clone(&lost);
    let registry = prometheus::Registry::new();
    let emitter = Emitter::open(kafka, settings, sender(), &registry, move |undelivered| {
        sink.lock().unwrap().push(undelivered);
    });
    (emitter.unwrap(), lost, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_on_the_way_costs_no_event_and_doubles_none() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
    let stack = Stack::up(options).unwrap();
    let kafka = kafka(stack.brokers(), "");
    producer::topics::ensure(&kafka, producer::topics::Replication::Brokers, false).await.unwrap();
    let (emitter, lost, _) = open(&kafka, &Settings::default());
    let count = 60_000;
    for number in 1..=count {
        if number == 20_000 {
            stack.kill_kafka(0).unwrap();
        }
        if number == 40_000 {
            stack.start_kafka(0).unwrap();
        }
        emitter.emit_when_room(event(number), TIMEOUT).await.unwrap();
    }
    emitter.flush(TIMEOUT).await.unwrap();
    let expected =
        Totals { accepted: count, delivered: count, failed: 0, refused: 0, spooled: 0, replayed: 0 };
    assert_eq!(emitter.totals(), expected);
    assert_eq!(lost.lock().unwrap().len(), 0);
    emitter.close(TIMEOUT).await.unwrap();

    let stored = stored(stack.brokers(), "conversions");
    let mut numbers_by_key = std::collections::BTreeMap::<String, Vec<u128>>::new();
    for message in &stored {
        let read = avro::decode_conversion(&message.value).unwrap();
        numbers_by_key.entry(message.key.clone()).or_default().push(read.event_id.as_u128());
    }
    assert_eq!(stored.len() as u64, count);
    for number in 0..100 {
        let expected: Vec<u128> = (1..=u128::from(count)).filter(|id| id % 100 == number).collect();
        assert_eq!(numbers_by_key[&format!("u{number}")], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_gives_everything_back() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { queue_events: Count::of(1_000), ..Settings::default() };
    let (emitter, lost, registry) = open(&kafka(&closed.to_string(), ""), &settings);
    for number in 1..=1_000 {
        emitter.emit(event(number)).unwrap();
    }
    // No event ever leaves the queue: a caller that had to wait for room would wait for ever.
    assert_eq!(emitter.emit(event(1_001)), Err(Refused::QueueFull));
    let long = Event::Conversion(conversion(
        EventStamp::at(sdk::event::now()),
        "a name with blanks",
        Unit { unit_type: "user".into(), unit_id: "u".into() },
    ));
    assert_eq!(emitter.emit(long).unwrap_err().code(), "out_of_range");
    assert_eq!(emitter.remaining(), 1_000);
    let unflushed = emitter.flush(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(unflushed.remaining, 1_000);

    let text = ops::metrics::text(&registry).unwrap();
    for line in [
        "producer_events_accepted_total 1000",
        "producer_events_refused_total{reason=\"queue_full\"} 1",
        "producer_events_refused_total{reason=\"out_of_range\"} 1",
        "producer_queue_events 1000",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }

    emitter.close(Duration::ZERO).await.unwrap_err();
    let lost = lost.lock().unwrap();
    assert_eq!(lost.len(), 1_000);
    // The callback gets the encoded bytes, so that a spool can keep them.
    let mut ids: Vec<u128> =
        lost.iter().map(|lost| avro::decode_conversion(&lost.value).unwrap().event_id.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=1_000).collect::<Vec<u128>>());
    assert_eq!((lost[0].topic.as_str(), lost[0].key.as_slice()), ("conversions", b"u1".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_tells_of_kafkas_acknowledgement_or_that_there_is_none_yet() {
    let fixture = KafkaFixture::new("receipt");
    let (emitter, _, _) = open(&fixture.kafka(), &Settings::default());
    let wrong = Event::Conversion(conversion(
        EventStamp::at(sdk::event::now()),
        "a name with blanks",
        Unit { unit_type: "user".into(), unit_id: "u".into() },
    ));
    let outcomes = emitter.emit_durable([event(1), wrong, event(2)]).wait(TIMEOUT).await;
    assert_eq!(
        (outcomes[0].clone(), outcomes[2].clone()),
        (Ok(Durable::Acknowledged), Ok(Durable::Acknowledged))
    );
    let Err(NotDurable::Refused(refused)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(refused.is_final());
    assert_eq!(fixture.stored("conversions").len(), 2);

    let (emitter, _, _) = open(&kafka("127.0.0.1:1", ""), &Settings::default());
    let outcomes = emitter.emit_durable([event(1)]).wait(Duration::from_millis(20)).await;
    let reason = "neither kafka nor the disk confirmed it within 20 ms".to_owned();
    assert_eq!(outcomes, [Err(NotDurable::Unconfirmed { reason })]);
    // Its sender waits no more, and the event is still sent, or given up with the emitter.
    assert_eq!(emitter.remaining(), 1);
}

/// Such exposures, and with them their units, were once refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_exposure_is_taken_however_long_and_however_many_its_attributes_are() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (emitter, lost, _) = open(&kafka(&closed.to_string(), ""), &Settings::default());
    let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "a",
        "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-31T12:00:00Z"}"#;
    let mut exposure: Exposure<'static> = serde_json::from_str(json).unwrap();
    exposure.attributes = (0..100).map(|number| (format!("a{number}"), "x")).collect();
    exposure.attributes.insert("region", "é".repeat(100_000));
    emitter.emit(Event::Exposure(exposure)).unwrap();
    emitter.close(Duration::ZERO).await.unwrap_err();
    let lost = lost.lock().unwrap();
    let read = avro::decode_exposure(&lost[0].value).unwrap();
    assert_eq!(read.attributes.len(), 64);
    assert_eq!(read.attributes.get("a61"), Some("x"));
    assert_eq!(read.attributes.get("a62"), None);
    assert_eq!(read.attributes.get("region"), Some(["é".repeat(508).as_str(), CUT_MARK].concat().as_str()));
    assert_eq!(read.attributes.get(LEFT_OUT), Some("38"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_stored_in_compressed_batches_of_an_idempotent_producer() {
    let fixture = KafkaFixture::new("batches");
    let (emitter, _, _) = open(&fixture.kafka(), &Settings::default());
    let mut one_unit = Vec::new();
    for number in 1..=5_000 {
        let event = event(number * 100);
        one_unit.push(avro::encode(&event).len());
        emitter.emit(event).unwrap();
    }
    emitter.flush(TIMEOUT).await.unwrap();
    let partition = fixture.stored("conversions")[0].partition;
    let log = fixture.partition_directory("conversions", partition).join("00000000000000000000.log");
    let bytes = std::fs::read(log).unwrap();
    let batches = batches(&bytes);
    assert_eq!(batches.iter().map(|batch| batch.records).sum::<i32>(), 5_000);
    assert!(batches.len() < 100, "{} batches", batches.len());
    const LZ4: i16 = 3;
    for batch in &batches {
        assert_eq!(batch.compression, LZ4);
        assert!(batch.producer_id >= 0, "no idempotent producer wrote this batch");
    }
    let encoded: usize = one_unit.iter().sum();
    assert!(bytes.len() * 3 < encoded, "{} bytes on disk for {encoded} encoded", bytes.len());
}

/// The header of a record batch in Kafka's message format version 2.
struct Batch {
    compression: i16,
    producer_id: i64,
    records: i32,
}

fn batches(mut log: &[u8]) -> Vec<Batch> {
    const LENGTH_AT: usize = 8;
    const ATTRIBUTES_AT: usize = 21;
    const PRODUCER_ID_AT: usize = 43;
    const RECORDS_AT: usize = 57;
    let mut batches = Vec::new();
    while log.len() > RECORDS_AT + 4 {
        let i32_at = |at: usize| i32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        let length = i32_at(LENGTH_AT);
        if length == 0 {
            break;
        }
        let attributes = i16::from_be_bytes(log[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].try_into().unwrap());
        batches.push(Batch {
            compression: attributes & 0b111,
            producer_id: i64::from_be_bytes(log[PRODUCER_ID_AT..PRODUCER_ID_AT + 8].try_into().unwrap()),
            records: i32_at(RECORDS_AT),
        });
        log = &log[LENGTH_AT + 4 + usize::try_from(length).unwrap()..];
    }
    batches
}
