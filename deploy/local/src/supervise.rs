//! Restarts parts that have died, with the same port and data, as systemd or Kubernetes does in production.
//! If a part keeps dying, supervision of the stack fails with a reason.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::disk;
use crate::part::Part;
use crate::service::Service;
use crate::stack::Stack;

/// How often the parts are checked.
const POLL: Duration = Duration::from_millis(100);

/// A part that has run for this long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// How often one part is restarted without a recovery in between before the supervisor fails. The waits
/// between the starts add up to some two minutes: longer than Kafka or ClickHouse takes to restart.
const STARTS_MAX: u32 = 20;

const WAIT_MIN: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Watches a stack in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Watch {
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Supervisor {
    /// Starts the thread. `report` is called with a line whenever a part has died and will be restarted.
    pub fn start(
        stack: Arc<Stack>,
        services: Vec<Arc<Service>>,
        report: impl Fn(&str) + Send + 'static,
    ) -> Supervisor {
        let watch = Arc::new(Watch { stop: AtomicBool::new(false), failure: Mutex::new(None) });
        let shared = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            if let Err(error) = shared.run(&stack, &services, &report) {
                *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        });
        Supervisor { watch, thread: Some(thread) }
    }

    /// The reason why it failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.watch.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watch.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it ever does, the message is on stderr already.
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn run(&self, stack: &Stack, services: &[Arc<Service>], report: &dyn Fn(&str)) -> Result<()> {
        let parts: Vec<&Part> = stack.parts(services).collect();
        let mut histories: Vec<History> = parts.iter().map(|_| History::default()).collect();
        while !self.stop.load(Ordering::Relaxed) {
            for (part, history) in parts.iter().zip(&mut histories) {
                if let Some(status) = part.ended()? {
                    handle_exit(part, history, status, report)?;
                }
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The restarts of one part since its last recovery.
#[derive(Debug, Default)]
struct History {
    starts: u32,
    started: Option<Instant>,
    /// The time of the next start, if the part is dead.
    due: Option<Instant>,
}

/// The next step for a part that is dead.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It was just found dead: start it after this wait.
    Wait(Duration),
    /// It was found dead before, and the wait is not over.
    NotYet,
    Start,
    GiveUp,
}

impl History {
    fn next_step(&mut self, now: Instant) -> Step {
        if let Some(due) = self.due {
            if now < due {
                return Step::NotYet;
            }
            self.due = None;
            self.starts += 1;
            self.started = Some(now);
            return Step::Start;
        }
        if self.started.is_some_and(|started| now - started >= RECOVERED) {
            self.starts = 0;
        }
        if self.starts >= STARTS_MAX {
            return Step::GiveUp;
        }
        let wait = WAIT_MIN.saturating_mul(1 << self.starts.min(10)).min(WAIT_MAX);
        self.due = Some(now + wait);
        Step::Wait(wait)
    }
}

fn handle_exit(part: &Part, history: &mut History, status: ExitStatus, report: &dyn Fn(&str)) -> Result<()> {
    match history.next_step(Instant::now()) {
        Step::NotYet => Ok(()),
        Step::Wait(wait) => {
            let seconds = wait.as_secs_f64();
            let disk = part.log().parent().map(disk::full_disk_note).unwrap_or_default();
            report(&format!("{} ended ({status}{disk}); starting it again in {seconds:.1} s", part.name()));
            Ok(())
        }
        // Does not wait until it is ready: it may need a part that is restarted next.
        Step::Start => part.spawn(),
        Step::GiveUp => bail!(
            "{} ended {STARTS_MAX} times without running for {} s ({status}); its log is {}",
            part.name(),
            RECOVERED.as_secs(),
            part.log().display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_there_are_at_most_twenty_restarts() {
        let mut history = History::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        loop {
            match history.next_step(now) {
                Step::Wait(wait) => {
                    waits.push(wait.as_millis());
                    assert_eq!(history.next_step(now), Step::NotYet);
                    now += wait;
                }
                Step::Start => {}
                Step::GiveUp => break,
                Step::NotYet => panic!("the time has come"),
            }
        }
        assert_eq!(waits[..8], [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(waits.len(), 20);
    }

    #[test]
    fn after_a_minute_of_running_the_waits_start_from_the_minimum_again() {
        let mut history = History::default();
        let mut now = Instant::now();
        for wait_ms in [200, 400, 800] {
            let wait = Duration::from_millis(wait_ms);
            assert_eq!(history.next_step(now), Step::Wait(wait));
            now += wait;
            assert_eq!(history.next_step(now), Step::Start);
        }
        now += RECOVERED;
        assert_eq!(history.next_step(now), Step::Wait(WAIT_MIN));
    }
}
