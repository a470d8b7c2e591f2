//! The emitter's spool with a real Kafka, real files and processes that are really killed: nothing that was called
//! durable is lost, whatever dies, and the order of each key stays. A process of its own is this program again, which
//! then runs only the test `child`.

mod kafka_fixture;
#[path = "spool/child.rs"]
mod spool_child;

#[path = "../examples/embed.rs"]
mod embed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use kafka_fixture::{KafkaFixture, StoredMessage, kafka, stored};
use local::{Options, Server, Stack};
use ops::config::{Bytes, Count, Kafka};
use schemas::avro;
use sdk::emitter::{Durable, Emitter, Refused, Settings, SpoolSettings, Totals, Undelivered};
use spool_child::{Child, event, event_of_bytes, nowhere, sender};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A Kafka that a test stops and starts; one test at a time has it.
struct StoppableKafka {
    stack: Arc<StackOnDisk>,
    prefix: &'static str,
    _turn: MutexGuard<'static, ()>,
}

struct StackOnDisk {
    stack: Stack,
    _directory: tempfile::TempDir,
}

impl StoppableKafka {
    /// Starts or shares Kafka, with topics under a prefix.
    fn new(prefix: &'static str) -> StoppableKafka {
        static SHARED: Mutex<Weak<StackOnDisk>> = Mutex::new(Weak::new());
        static TURN: Mutex<()> = Mutex::new(());
        let stack = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            let stack = shared.upgrade().unwrap_or_else(|| {
                let directory = tempfile::tempdir().unwrap();
                let options =
                    Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
                Arc::new(StackOnDisk { stack: Stack::up(options).unwrap(), _directory: directory })
            });
            *shared = Arc::downgrade(&stack);
            stack
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        StoppableKafka { stack, prefix, _turn: turn }
    }

    async fn make_topics(&self) {
        let brokers = producer::topics::Replication::Brokers;
        producer::topics::ensure(&self.settings(), brokers, false).await.unwrap();
    }

    fn settings(&self) -> Kafka {
        kafka(self.stack.stack.brokers(), self.prefix)
    }

    fn stop(&self) {
        self.stack.stack.kill_kafka(0).unwrap();
    }

    fn start(&self) {
        self.stack.stack.start_kafka(0).unwrap();
    }

    fn conversions(&self) -> Vec<StoredMessage> {
        stored(self.stack.stack.brokers(), &format!("{}conversions", self.prefix))
    }
}

type Lost = Arc<Mutex<Vec<Undelivered>>>;

fn open(kafka: &Kafka, settings: &Settings, spool: &SpoolSettings) -> (Emitter, Lost, prometheus::Registry) {
    let lost = Lost::default();
    let sink = Arc::clone(&lost);
    let registry = prometheus::Registry::new();
    let emitter = Emitter::open_with_spool(kafka, settings, spool, sender(), &registry, move |undelivered| {
        sink.lock().unwrap().push(undelivered);
    });
    (emitter.unwrap(), lost, registry)
}

fn id_of(message: &StoredMessage) -> u64 {
    avro::decode_conversion(&message.value).unwrap().event_id.as_u128().try_into().unwrap()
}

/// The numbers of the events by key, in the order in which each was stored first.
fn numbers_by_key(stored: &[StoredMessage]) -> BTreeMap<String, Vec<u64>> {
    let mut seen = BTreeSet::new();
    let mut by_key = BTreeMap::<String, Vec<u64>>::new();
    for message in stored {
        let number = id_of(message);
        if seen.insert(number) {
            by_key.entry(message.key.clone()).or_default().push(number);
        }
    }
    by_key
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until the condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn child() {
    spool_child::run_if_asked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_only_what_is_younger_than_the_delay_and_nothing_that_was_durable() {
    // Much more than the 100 ms, for a sync on a slow disk and the lines of the child's output.
    const YOUNG: Duration = Duration::from_millis(600);
    let kafka = StoppableKafka::new("killed.");
    kafka.make_topics().await;
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::start("load", &kafka.settings(), kafka.prefix, directory.path());
    child.wait_for("emitted 300");
    let Err(refused) = Emitter::open_with_spool(
        &nowhere(),
        &Settings::default(),
        &SpoolSettings::at(directory.path()),
        sender(),
        &prometheus::Registry::new(),
        |_| {},
    ) else {
        panic!("the directory belongs to the child")
    };
    let expected = format!("the spool directory {} belongs to a process", directory.path().display());
    assert!(refused.to_string().starts_with(&expected), "{refused}");
    kafka.stop();
    child.wait_for("emitted 1500");
    let killed_at = child.kill();
    let (mut emitted, mut safe) = (BTreeSet::new(), BTreeSet::new());
    for (at, line) in child.lines() {
        let number = |name| line.strip_prefix(name).map(|rest| rest.parse::<u64>().unwrap());
        if let Some(number) = number("emitted ") {
            emitted.insert(number);
            if at + YOUNG <= killed_at {
                safe.insert(number);
            }
        } else if let Some(number) = number("durable ") {
            emitted.insert(number);
            safe.insert(number);
        }
    }
    assert!(safe.len() > 500, "{} of {} are old enough", safe.len(), emitted.len());

    kafka.start();
    let (emitter, lost, _) =
        open(&kafka.settings(), &Settings::default(), &SpoolSettings::at(directory.path()));
    let found = emitter.remaining();
    assert!(found > 300, "{found}");
    emitter.flush(TIMEOUT).await.unwrap();
    let totals = emitter.totals();
    assert_eq!(
        totals,
        Totals { accepted: 0, delivered: 0, failed: 0, refused: 0, spooled: 0, replayed: found }
    );
    emitter.close(TIMEOUT).await.unwrap();
    assert_eq!(lost.lock().unwrap().len(), 0);
    assert_eq!(names_in(directory.path()), ["lock"]);

    let stored = kafka.conversions();
    let arrived: BTreeSet<u64> = stored.iter().map(id_of).collect();
    assert_eq!(safe.difference(&arrived).collect::<Vec<_>>(), Vec::<&u64>::new());
    // Repetitions have the same bytes, and so the same partition.
    let mut first = BTreeMap::new();
    for message in &stored {
        let known = first.entry(id_of(message)).or_insert((message.partition, &message.value));
        assert_eq!(*known, (message.partition, &message.value));
    }
    for (key, numbers) in numbers_by_key(&stored) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_misses_for_long_is_sent_in_order_by_this_process_and_the_next() {
    let kafka = StoppableKafka::new("away.");
    kafka.make_topics().await;
    kafka.stop();
    let directory = tempfile::tempdir().unwrap();
    let spool = SpoolSettings::at(directory.path());
    // The client has room for a fifth of the events.
    let settings = Settings { queue_events: Count::of(1_000), ..Settings::default() };
    let (emitter, lost, registry) = open(&kafka.settings(), &settings, &spool);
    for number in 1..=5_000 {
        emitter.emit_when_room(event(number), TIMEOUT).await.unwrap();
    }
    until("all are spooled", || emitter.totals().spooled == 5_000).await;
    let status = emitter.status();
    assert_eq!(status.remaining, 5_000);
    let state = status.spool.clone().unwrap();
    assert_eq!((state.events, state.disk_error.clone(), state.is_near_full()), (5_000, None, false));
    assert!(state.oldest.is_some_and(|oldest| oldest >= Duration::from_millis(100)));
    until("kafka is called away", || emitter.status().kafka_is_away()).await;
    let unflushed = emitter.flush(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((unflushed.remaining, unflushed.spooled), (5_000, 5_000));
    until("the gauges are set", || {
        let text = ops::metrics::text(&registry).unwrap();
        ["producer_events_spooled_total 5000", "producer_spool_events 5000", "producer_queue_events 5000"]
            .iter()
            .all(|line| text.lines().any(|found| found == *line))
    })
    .await;
    emitter.close(Duration::ZERO).await.unwrap();

    // The next process accepts more before Kafka comes back, and sends all of it, the older events first.
    let (emitter, lost_later, _) = open(&kafka.settings(), &settings, &spool);
    assert_eq!(emitter.status().spool.unwrap().events, 5_000);
    for number in 5_001..=7_000 {
        emitter.emit_when_room(event(number), TIMEOUT).await.unwrap();
    }
    kafka.start();
    for number in 7_001..=8_000 {
        emitter.emit_when_room(event(number), TIMEOUT).await.unwrap();
    }
    emitter.flush(TIMEOUT).await.unwrap();
    let totals = emitter.totals();
    assert_eq!((totals.accepted, totals.delivered, totals.replayed, totals.failed), (3_000, 3_000, 5_000, 0));
    assert_eq!(emitter.status().stalled_for, None);
    emitter.close(TIMEOUT).await.unwrap();
    assert_eq!(lost.lock().unwrap().len() + lost_later.lock().unwrap().len(), 0);
    assert_eq!(names_in(directory.path()), ["lock"]);

    let stored = kafka.conversions();
    // One process sent each event once.
    assert_eq!(stored.len(), 8_000);
    let by_key = numbers_by_key(&stored);
    for number in 0..100 {
        let expected: Vec<u64> = (1..=8_000).filter(|id| id % 100 == number).collect();
        assert_eq!(by_key[&format!("u{number}")], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_there_every_receipt_comes_and_nothing_is_left_on_the_disk() {
    let fixture = KafkaFixture::new("receipts");
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { linger_ms: Some(ops::config::Millis::of(0)), ..Settings::default() };
    let (emitter, _, _) = open(&fixture.kafka(), &settings, &SpoolSettings::at(directory.path()));
    for round in 0..50 {
        let events = (1..=20).map(|number| event(round * 20 + number));
        let outcomes = emitter.emit_durable(events).wait(TIMEOUT).await;
        assert_eq!(outcomes.len(), 20);
        for outcome in outcomes {
            assert!(matches!(outcome, Ok(Durable::Acknowledged | Durable::Spooled)), "{outcome:?}");
        }
    }
    emitter.flush(TIMEOUT).await.unwrap();
    let totals = emitter.totals();
    assert_eq!((totals.accepted, totals.delivered, totals.failed), (1_000, 1_000, 0));
    emitter.close(TIMEOUT).await.unwrap();
    assert_eq!(names_in(directory.path()), ["lock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_of_the_bytes_new_events_are_refused_and_the_old_ones_stay() {
    let directory = tempfile::tempdir().unwrap();
    let spool = SpoolSettings { bytes: Bytes::of(67_108_864), ..SpoolSettings::at(directory.path()) };
    let (emitter, lost, _) = open(&nowhere(), &Settings::default(), &spool);
    let mut accepted = 0;
    let refused = loop {
        match emitter.emit(event_of_bytes(accepted + 1, 60_000)) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::SpoolFull);
    assert!((1_050..=1_118).contains(&accepted), "{accepted}");
    until("all are spooled", || emitter.totals().spooled == accepted).await;
    assert!(emitter.status().spool.unwrap().is_near_full());
    let outcomes = emitter.emit_durable([event_of_bytes(1, 60_000)]).wait(TIMEOUT).await;
    assert_eq!(outcomes, [Err(sdk::NotDurable::Refused(Refused::SpoolFull))]);
    emitter.close(Duration::ZERO).await.unwrap();
    assert_eq!(lost.lock().unwrap().len(), 0);
    let on_disk: u64 = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!((66_000_000..=67_108_864).contains(&on_disk), "{on_disk}");
    let (emitter, _, _) = open(&nowhere(), &Settings::default(), &spool);
    assert_eq!(emitter.status().spool.unwrap().events, accepted);
    assert_eq!(emitter.emit(event_of_bytes(1, 60_000)), Err(Refused::SpoolFull));
}

/// The system calls of a process without Kafka, in order. The thread that emits makes none of those on the files.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_called_durable_after_its_sync_and_the_caller_touches_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let trace = Child::traced("durable", directory.path(), &[]);
    let said = trace.find(|call| call.text.contains("durable 3: spooled, spooled, spooled"));
    let written = trace.find(|call| call.text.starts_with("write(") && call.text.contains(".segment>, \"\\"));
    let synced = trace.find(|call| call.text.contains("fdatasync") && call.text.ends_with("= 0"));
    let written_last = trace
        .calls
        .iter()
        .rposition(|call| call.text.starts_with("write(") && call.text.contains(".segment>"));
    assert!(written <= written_last.unwrap() && written_last.unwrap() < synced, "{trace:?}");
    assert!(synced < said, "{trace:?}");
    let caller = trace.calls[said].thread;
    let files = trace.calls.iter().filter(|call| call.text.contains(".segment>"));
    assert!(files.clone().count() >= 3, "{trace:?}");
    assert_eq!(files.filter(|call| call.thread == caller).count(), 0);
    let (emitter, _, _) = open(&nowhere(), &Settings::default(), &SpoolSettings::at(directory.path()));
    assert_eq!(emitter.status().spool.unwrap().events, 3);
}

/// The kernel forgets the pages of a failed sync, so what they held is written again, elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_events_are_not_called_durable_until_another_segment_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let trace = Child::traced("durable", directory.path(), &["inject=fdatasync:error=EIO:when=1"]);
    let failed = trace.find(|call| call.text.contains("fdatasync(") && call.text.contains("EIO"));
    let synced = trace.find(|call| call.text.contains("fdatasync") && call.text.ends_with("= 0"));
    let said = trace.find(|call| call.text.contains("durable 3: spooled, spooled, spooled"));
    assert!(failed < synced && synced < said, "{trace:?}");
    let file_of = |call: usize| trace.calls[call].text.split(['<', '>']).nth(1).unwrap().to_owned();
    assert_ne!(file_of(failed), file_of(synced));
    let (emitter, _, _) = open(&nowhere(), &Settings::default(), &SpoolSettings::at(directory.path()));
    assert_eq!(emitter.status().spool.unwrap().events, 3);
}

/// The second write to the first segment finds no space; the next segment has some.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_event_and_callers_wait_until_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let first = directory.path().join("00000000000000000000.segment");
    let inject = ["inject=write:error=ENOSPC:when=2", first.to_str().unwrap()];
    let trace = Child::traced("durable", directory.path(), &inject);
    trace.find(|call| call.text.starts_with("write(") && call.text.contains("ENOSPC"));
    let (emitter, _, _) = open(&nowhere(), &Settings::default(), &SpoolSettings::at(directory.path()));
    assert_eq!(emitter.status().spool.unwrap().events, 3);
}

/// A limit on the size of files stands for a full disk: the kernel writes a part of a group and refuses the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_stops_in_the_middle_leaves_no_half_event_and_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::start("limited", &nowhere(), "", directory.path());
    child.wait_for("disk error: writing to the spool: File too large (os error 27)");
    child.wait_for("accepted 300");
    child.wait_for("unconfirmed");
    child.wait_for("spooled 301");
    child.kill();
    let (emitter, _, registry) = open(&nowhere(), &Settings::default(), &SpoolSettings::at(directory.path()));
    assert_eq!(emitter.status().spool.unwrap().events, 301);
    let text = ops::metrics::text(&registry).unwrap();
    assert!(text.lines().any(|line| line == "producer_spool_damaged_bytes_total 0"), "{text}");
}

/// A bit that flipped on the disk costs its own event, is reported, and its file is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_event_is_counted_and_its_bytes_are_kept_while_the_others_arrive() {
    let fixture = KafkaFixture::new("damaged");
    let directory = tempfile::tempdir().unwrap();
    let spool = SpoolSettings::at(directory.path());
    let (emitter, _, _) = open(&kafka(&closed_port(), "damaged."), &Settings::default(), &spool);
    for number in 1..=3 {
        emitter.emit(event(number)).unwrap();
    }
    emitter.close(Duration::ZERO).await.unwrap();
    let segment = directory.path().join("00000000000000000000.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let (emitter, _, registry) = open(&fixture.kafka(), &Settings::default(), &spool);
    emitter.flush(TIMEOUT).await.unwrap();
    assert_eq!(emitter.totals().replayed, 2);
    let text = ops::metrics::text(&registry).unwrap();
    let damaged = (bytes.len() - 16) / 3;
    assert!(
        text.lines().any(|line| line == format!("producer_spool_damaged_bytes_total {damaged}")),
        "{damaged}: {text}"
    );
    emitter.close(TIMEOUT).await.unwrap();
    assert_eq!(names_in(directory.path()), ["00000000000000000000.damaged", "lock"]);
    assert_eq!(std::fs::read(directory.path().join("00000000000000000000.damaged")).unwrap(), bytes);
    let arrived: BTreeSet<u64> = fixture.stored("conversions").iter().map(id_of).collect();
    assert_eq!(arrived, BTreeSet::from([1, 3]));
}

fn closed_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_readme_exposes_a_unit_and_counts_its_purchase() {
    let fixture = KafkaFixture::new("embed");
    let definitions = "
{kind: metric, key: purchase, event: purchase, type: conversion}
---
{kind: experiment, key: button, state: running, control: blue, metrics: {primary: purchase},
 variants: [{key: blue, weight: 50%}, {key: green, weight: 50%}]}
";
    fixture.accept("button.yaml", definitions);
    let directory = tempfile::tempdir().unwrap();
    let spool = SpoolSettings::at(directory.path());
    let variant = embed::serve(&fixture.kafka(), spool, "user-1").await.unwrap();
    let exposures = fixture.stored("exposures");
    assert_eq!(exposures.len(), 1);
    let exposure = avro::decode_exposure(&exposures[0].value).unwrap();
    assert_eq!((exposure.variant.as_ref(), exposure.unit_id.as_ref()), (variant.as_str(), "user-1"));
    assert_eq!(exposure.attributes.get("region"), Some("EU"));
    assert_eq!(fixture.stored("conversions").len(), 1);
    assert_eq!(names_in(directory.path()), ["lock"]);
}
