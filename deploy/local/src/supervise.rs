//! Starts again what has died, on its port and data: what systemd or Kubernetes does in production. A part
//! that keeps dying is given up with a reason, and so is the stack.

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

/// How often the parts are looked at.
const POLL: Duration = Duration::from_millis(100);

/// A part that lived so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// Starts of one part without a recovery between them, after which it is given up. The waits between
/// them add up to some two minutes: longer than Kafka or ClickHouse takes to come back.
const STARTS_MAX: u32 = 20;

const WAIT_MIN: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Watches a stack from a thread of its own, until it is dropped.
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
    /// `tell` gets a line whenever something died and is started again.
    pub fn start(
        stack: Arc<Stack>,
        services: Vec<Arc<Service>>,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Supervisor {
        let watch = Arc::new(Watch { stop: AtomicBool::new(false), failure: Mutex::new(None) });
        let shared = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            if let Err(error) = shared.run(&stack, &services, &tell) {
                *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        });
        Supervisor { watch, thread: Some(thread) }
    }

    /// Why it gave up, if it has.
    pub fn failure(&self) -> Option<String> {
        self.watch.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watch.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it ever does, its message is on stderr already.
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn run(&self, stack: &Stack, services: &[Arc<Service>], tell: &dyn Fn(&str)) -> Result<()> {
        let parts: Vec<&Part> = stack.parts(services).collect();
        let mut histories: Vec<History> = parts.iter().map(|_| History::default()).collect();
        while !self.stop.load(Ordering::Relaxed) {
            for (part, history) in parts.iter().zip(&mut histories) {
                if let Some(status) = part.ended()? {
                    look_after(part, history, status, tell)?;
                }
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// What happened to one part lately.
#[derive(Debug, Default)]
struct History {
    starts: u32,
    started: Option<Instant>,
    /// When the part that is dead now is to be started.
    due: Option<Instant>,
}

/// What to do about a part that is dead.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It was just found dead: start it after this wait.
    Wait(Duration),
    /// It is known to be dead and its time has not come.
    NotYet,
    Start,
    GiveUp,
}

impl History {
    fn next(&mut self, now: Instant) -> Step {
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

fn look_after(part: &Part, history: &mut History, status: ExitStatus, tell: &dyn Fn(&str)) -> Result<()> {
    match history.next(Instant::now()) {
        Step::NotYet => Ok(()),
        Step::Wait(wait) => {
            let seconds = wait.as_secs_f64();
            let disk = part.log().parent().map(disk::remark).unwrap_or_default();
            tell(&format!("{} ended ({status}{disk}); starting it again in {seconds:.1} s", part.name()));
            Ok(())
        }
        // Not waited for: what it needs may be the next part to be started.
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
    fn waits_double_up_to_ten_seconds_and_twenty_starts_are_all_it_gets() {
        let mut history = History::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        loop {
            match history.next(now) {
                Step::Wait(wait) => {
                    waits.push(wait.as_millis());
                    assert_eq!(history.next(now), Step::NotYet);
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
    fn a_part_that_lived_a_minute_starts_afresh() {
        let mut history = History::default();
        let mut now = Instant::now();
        for wait_ms in [200, 400, 800] {
            let wait = Duration::from_millis(wait_ms);
            assert_eq!(history.next(now), Step::Wait(wait));
            now += wait;
            assert_eq!(history.next(now), Step::Start);
        }
        now += RECOVERED;
        assert_eq!(history.next(now), Step::Wait(WAIT_MIN));
    }
}
