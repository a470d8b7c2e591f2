//! The load on edges that are killed: single evaluations, each of a unit of its own, and batches of conversions. What is not
//! known to be accepted is sent again with the same bytes, through the other edge, until it is. A ledger notes what each
//! answer said.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use schemas::Uuid;
use serde_json::json;

use crate::edges::{EdgeAnswer, EdgeClient, EdgePlace};

/// The load's own definitions: values that every client can read.
pub const DEFINITIONS: &str = "\
kind: metric
key: purchase
event: purchase
type: conversion
---
kind: experiment
key: checkout
state: running
variants: [{ key: control, weight: 50%, value: blue }, { key: treatment, weight: 50%, value: green }]
control: control
metrics: { primary: purchase }
";

const EVENTS_PER_BATCH: u64 = 20;
/// Every batch of so many has one event more, whose value is no number.
const BROKEN_EVERY: u64 = 5;
/// Between two requests of one thread: a steady load, not the highest one.
const PAUSE: Duration = Duration::from_millis(2);
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// Time for the last resends, after the load.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The answer to one evaluation.
#[derive(Debug, Clone)]
pub struct Exposed {
    pub unit: String,
    /// The number of the edge's place.
    pub edge: usize,
    pub asked: Instant,
    pub answered: Instant,
    /// Whether the edge said that it has logged the exposure.
    pub logged: bool,
}

/// What the answers said.
#[derive(Debug, Default)]
pub struct Ledger {
    pub exposures: Vec<Exposed>,
    /// Evaluations without an answer, or with that of an edge which is not ready yet.
    pub unanswered: u64,
    /// Ids of conversions that were accepted, in whichever attempt.
    pub accepted: Vec<Uuid>,
    pub refused: Vec<Uuid>,
    /// Batches sent again.
    pub resends: u64,
}

impl Ledger {
    /// Adds what another thread has noted.
    pub fn add(&mut self, other: Ledger) {
        self.exposures.extend(other.exposures);
        self.accepted.extend(other.accepted);
        self.refused.extend(other.refused);
        self.unanswered += other.unanswered;
        self.resends += other.resends;
    }
}

/// Evaluates for one unit after another at the edge of this number, until `ended`.
pub fn evaluate(run: &str, edge: usize, place: &EdgePlace, ended: &AtomicBool) -> Result<Ledger> {
    let client = place.client();
    let mut ledger = Ledger::default();
    for number in 0_u64.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        // Never asked for twice: a restarted edge has forgotten that it logged an exposure.
        let unit = format!("{run}-{edge}-{number}");
        let asked = Instant::now();
        match client.evaluate("checkout", &json!({ "targetingKey": unit })) {
            // An edge listens before it has its definitions. It says so, and logs nothing.
            Ok(EdgeAnswer { status: 503, .. }) | Err(_) => ledger.unanswered += 1,
            Ok(answer) => {
                ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
                let logged = answer.body["metadata"]["exposure_logged"] == true;
                ledger.exposures.push(Exposed { unit, edge, asked, answered: Instant::now(), logged });
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ledger)
}

/// A batch of conversions, whose bytes never change.
struct Batch {
    body: String,
    sound: Vec<Uuid>,
    broken: Option<Uuid>,
    /// How often it was sent, and when last.
    attempts: usize,
    sent: Instant,
}

impl Batch {
    /// `thread` keeps the ids of two threads apart.
    fn new(run: &str, thread: usize, number: u64) -> Batch {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let id = |index: u64| {
            let low = 1 << 63 | (thread as u64) << 48 | (number * (EVENTS_PER_BATCH + 1) + index);
            Uuid::from_u64_pair(millis << 16 | 0x7000, low)
        };
        let event = |index: u64, value: serde_json::Value| {
            json!({ "event_id": id(index), "type": "conversion", "key": "purchase", "value": value,
                    "targetingKey": format!("{run}-buyer-{thread}-{number}-{index}") })
        };
        let mut events: Vec<_> = (0..EVENTS_PER_BATCH).map(|index| event(index, json!(9.5))).collect();
        let is_broken = number.is_multiple_of(BROKEN_EVERY);
        if is_broken {
            events.push(event(EVENTS_PER_BATCH, json!("many")));
        }
        Batch {
            body: json!({ "events": events }).to_string(),
            sound: (0..EVENTS_PER_BATCH).map(id).collect(),
            broken: is_broken.then(|| id(EVENTS_PER_BATCH)),
            attempts: 0,
            sent: Instant::now(),
        }
    }

    /// Sends it and returns whether every sound event was accepted. Each attempt goes to another edge than the last.
    fn send(&mut self, thread: usize, clients: &[EdgeClient]) -> Result<bool> {
        let client = &clients[(thread + self.attempts) % clients.len()];
        self.attempts += 1;
        self.sent = Instant::now();
        let Ok(answers) = client.track(&self.body) else { return Ok(false) };
        let sound = answers.iter().take(self.sound.len());
        if let (Some(id), Some(answer)) = (self.broken, answers.get(self.sound.len())) {
            ensure!(answer.status == "refused", "{id} is broken, and the answer is {answer:?}");
        }
        for answer in sound.clone() {
            ensure!(answer.status != "refused", "a sound event was refused: {answer:?}");
        }
        Ok(sound.filter(|answer| answer.status == "accepted").count() == self.sound.len())
    }
}

/// Sends one batch after another until `ended`, and then until all of them are accepted.
pub fn track(run: &str, thread: usize, places: &[EdgePlace], ended: &AtomicBool) -> Result<Ledger> {
    let clients: Vec<EdgeClient> = places.iter().map(EdgePlace::client).collect();
    let mut ledger = Ledger::default();
    let mut unsettled: VecDeque<Batch> = VecDeque::new();
    let mut last_batch = None;
    for number in 0_u64.. {
        if ended.load(Ordering::Relaxed) {
            let since = *last_batch.get_or_insert_with(Instant::now);
            if unsettled.is_empty() {
                break;
            }
            let waiting = unsettled.len();
            ensure!(since.elapsed() < SETTLE_TIMEOUT, "{waiting} batches are not accepted in the end");
        }
        let due = unsettled.front().is_some_and(|batch| batch.sent.elapsed() >= RESEND_AFTER);
        let mut batch = match unsettled.pop_front_if(|_| due) {
            Some(batch) => {
                ledger.resends += 1;
                batch
            }
            None if last_batch.is_some() => {
                std::thread::sleep(PAUSE);
                continue;
            }
            None => Batch::new(run, thread, number),
        };
        if batch.send(thread, &clients)? {
            ledger.accepted.append(&mut batch.sound);
            ledger.refused.extend(batch.broken);
        } else {
            unsettled.push_back(batch);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ledger)
}
