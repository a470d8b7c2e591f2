//! Sends simulated traffic through an edge: many requests at once on keep-alive connections, of which each is answered and
//! looked at before its unit does anything else. What is sent when is decided in `simulate::EdgeTraffic`, and what an
//! answer means in `edge_answer`.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ops::Shutdown;
use schemas::Key;
use sdk::event::now;
use serde::Serialize;

use super::edge_client::{Edge, EdgeClient, Sent};
use crate::simulate::{Asked, EdgeAnswer, EdgeTraffic, Request, Tracked};

/// Conversions of one request. An edge takes 1,000 (`edge.track_events`) and 1 MiB by default.
const BATCH_EVENTS: usize = 200;
/// The longest time for which a conversion waits until its batch is full.
const BATCH_AGE: Duration = Duration::from_millis(100);
/// The longest wait for an answer before the next look at the clock and at the signals.
const TICK: Duration = Duration::from_millis(100);

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EdgeNumbers {
    pub url: String,
    pub connections: usize,
    /// Evaluations that were answered, with every exposure accepted.
    pub evaluations: u64,
    /// Conversions that were accepted.
    pub conversions: u64,
    /// Batches of conversions.
    pub batches: u64,
    /// Requests in all, those included that were sent again.
    pub requests: u64,
    /// Requests that were sent again, with the same bytes.
    pub resent: u64,
    /// Requests that a signal ended before they were accepted; they count nowhere.
    pub given_up: u64,
    pub requests_per_second: f64,
}

/// A request for one of the connections.
enum Job {
    Evaluation(Asked, Vec<u8>),
    Batch(Vec<Tracked>, Vec<u8>),
}

/// A request that was accepted, or given up.
enum Done {
    Evaluation(Asked, EdgeAnswer),
    Batch(Vec<Tracked>),
    GivenUp,
}

/// Sends all traffic, or what a signal leaves of it: what is under way is finished, and what waits for another attempt is
/// given up.
///
/// # Errors
/// With the first request that is refused, or is not accepted within two minutes.
pub fn run(
    edge: &Edge,
    connections: usize,
    experiment: &Key,
    traffic: &mut EdgeTraffic<'_>,
    shutdown: &Shutdown,
    bar: &ProgressBar,
) -> anyhow::Result<EdgeNumbers> {
    let began = Instant::now();
    let (jobs, waiting) = channel();
    let (done, answers) = channel();
    let waiting = Mutex::new(waiting);
    let mut sender = RequestSender {
        traffic,
        jobs,
        answers,
        under_way: 0,
        // As many again wait as are sent, so that no connection waits for this thread.
        under_way_max: 2 * connections,
        batch: Batch::default(),
        numbers: EdgeNumbers::default(),
    };
    let outcome = std::thread::scope(|scope| {
        for _ in 0..connections {
            let done = done.clone();
            let (waiting, client) = (&waiting, edge.connect());
            scope.spawn(move || serve(&client, experiment, waiting, &done));
        }
        let outcome = sender.run(shutdown, bar);
        // Those that wait for another attempt would keep the threads; the threads end with their requests.
        edge.stop();
        drop(sender.jobs);
        outcome.map(|()| sender.numbers)
    });
    let numbers = outcome?;
    Ok(EdgeNumbers {
        url: edge.url().to_owned(),
        connections,
        requests: edge.requests(),
        resent: edge.resent(),
        requests_per_second: (edge.requests() as f64 / began.elapsed().as_secs_f64()).round(),
        ..numbers
    })
}

/// Sends requests on one connection, until there are no more.
fn serve(
    client: &EdgeClient<'_>,
    experiment: &Key,
    waiting: &Mutex<Receiver<Job>>,
    done: &Sender<anyhow::Result<Done>>,
) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let outcome = match job {
            Err(_) => return,
            Ok(Job::Evaluation(asked, body)) => client.evaluate(experiment, &body).map(|sent| match sent {
                Sent::Accepted(answer) => Done::Evaluation(asked, answer),
                Sent::Stopped => Done::GivenUp,
            }),
            Ok(Job::Batch(tracked, body)) => client.track(&body, tracked.len()).map(|sent| match sent {
                Sent::Accepted(()) => Done::Batch(tracked),
                Sent::Stopped => Done::GivenUp,
            }),
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Hands out requests when they are due, and acts on the answers.
struct RequestSender<'a, 'b> {
    traffic: &'a mut EdgeTraffic<'b>,
    /// Never more than `under_way_max` and one batch.
    jobs: Sender<Job>,
    answers: Receiver<anyhow::Result<Done>>,
    under_way: usize,
    under_way_max: usize,
    batch: Batch,
    numbers: EdgeNumbers,
}

/// Conversions that wait for others.
#[derive(Default)]
struct Batch {
    tracked: Vec<Tracked>,
    body: Vec<u8>,
    began: Option<Instant>,
}

impl RequestSender<'_, '_> {
    fn run(&mut self, shutdown: &Shutdown, bar: &ProgressBar) -> anyhow::Result<()> {
        loop {
            let stopping = shutdown.begun();
            if !stopping {
                self.hand_out();
            }
            let last = stopping || (self.traffic.next_at().is_none() && self.under_way == 0);
            self.send_batch_if_due(last);
            if last && self.under_way == 0 {
                return Ok(());
            }
            match self.answers.recv_timeout(self.wait(stopping)) {
                Ok(outcome) => self.accept(outcome?)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the sending end is kept until the threads are joined")
                }
            }
            while let Ok(outcome) = self.answers.try_recv() {
                self.accept(outcome?)?;
            }
            bar.set_position(self.traffic.tally().exposed_or_not());
        }
    }

    /// Hands out what is due, up to the bound; the rest waits for answers.
    fn hand_out(&mut self) {
        let now = now();
        while self.under_way < self.under_way_max && self.traffic.next_at().is_some_and(|at| at <= now) {
            match self.traffic.take_next() {
                None => return,
                Some(Request::Evaluation(asked, body)) => self.hand(Job::Evaluation(asked, body)),
                Some(Request::Conversion(tracked, event)) => {
                    self.batch.add(tracked, &event);
                    self.send_batch_if_due(false);
                }
            }
        }
    }

    fn hand(&mut self, job: Job) {
        self.under_way += 1;
        self.jobs.send(job).expect("the receiving end is kept until the threads are joined");
    }

    fn send_batch_if_due(&mut self, last: bool) {
        let old = self.batch.began.is_some_and(|began| began.elapsed() >= BATCH_AGE);
        if self.batch.tracked.len() >= BATCH_EVENTS || old || (last && !self.batch.tracked.is_empty()) {
            let Batch { tracked, mut body, .. } = std::mem::take(&mut self.batch);
            body.extend(b"]}");
            self.hand(Job::Batch(tracked, body));
        }
    }

    /// How long nothing is due, unless an answer comes. What is due while everything stops is not sent any more.
    fn wait(&self, stopping: bool) -> Duration {
        let sends = !stopping && self.under_way < self.under_way_max;
        let next = self.traffic.next_at().filter(|_| sends);
        let next = next.map_or(TICK, |at| {
            Duration::from_micros(at.get().saturating_sub(now().get()).max(0).unsigned_abs())
        });
        let batch = self.batch.began.map_or(TICK, |began| BATCH_AGE.saturating_sub(began.elapsed()));
        next.min(batch).min(TICK)
    }

    fn accept(&mut self, done: Done) -> anyhow::Result<()> {
        self.under_way -= 1;
        match done {
            Done::GivenUp => self.numbers.given_up += 1,
            Done::Evaluation(asked, answer) => {
                self.traffic.answered(asked, &answer, now())?;
                self.numbers.evaluations += 1;
            }
            Done::Batch(tracked) => {
                self.numbers.batches += 1;
                for tracked in tracked {
                    self.traffic.accepted(tracked);
                    self.numbers.conversions += 1;
                }
            }
        }
        Ok(())
    }
}

impl Batch {
    fn add(&mut self, tracked: Tracked, event: &str) {
        self.began.get_or_insert_with(Instant::now);
        self.body.extend(if self.tracked.is_empty() { &br#"{"events":["#[..] } else { b"," });
        self.body.extend(event.as_bytes());
        self.tracked.push(tracked);
    }
}
