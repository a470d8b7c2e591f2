//! Tracks whether a process is alive and ready. `/healthz` fails if a loop of work has not completed a turn
//! within its bound; `/readyz` also fails while a named condition does not hold. Both report the reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The health of a process; clones share it.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loops: BTreeMap<String, Loop>,
    conditions: BTreeMap<String, ConditionState>,
}

/// The state of a condition.
enum ConditionState {
    Holds,
    /// The condition holds, with a remark about a problem that does not stop the process from working.
    HoldsBut(String),
    Fails(String),
}

struct Loop {
    bound: Duration,
    /// The time of its last turn, in milliseconds since the start of the process.
    touched_ms: Arc<AtomicU64>,
    /// Whether its handle was dropped without [`Progress::done`]: an error or a panic ended the loop.
    died: bool,
}

/// The handle of one loop of work. Dropping it without [`done`](Progress::done) reports that the loop died.
pub struct Progress {
    name: String,
    touched_ms: Arc<AtomicU64>,
    shared: Arc<Shared>,
    done: bool,
}

/// The handle of a condition that must hold for the process to be ready.
pub struct Condition {
    name: String,
    shared: Arc<Shared>,
}

/// The answer to `/healthz` or `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether no check has failed.
    pub ok: bool,
    /// Each loop or condition with `"ok"`, `"ok, but ..."` or the problem.
    pub checks: BTreeMap<String, String>,
}

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Health {
    /// Creates the health of a process without loops or conditions: healthy and ready.
    pub fn new() -> Health {
        Health { shared: Arc::new(Shared { started: Instant::now(), state: Mutex::default() }) }
    }

    /// Watches a loop that must complete a turn at least once in `bound` from now on. A second loop of the same
    /// name replaces the first, for example when work is restarted.
    pub fn progress(&self, name: impl Into<String>, bound: Duration) -> Progress {
        let name = name.into();
        let touched_ms = Arc::new(AtomicU64::new(self.shared.now_ms()));
        self.shared
            .lock()
            .loops
            .insert(name.clone(), Loop { bound, touched_ms: touched_ms.clone(), died: false });
        Progress { name, touched_ms, shared: self.shared.clone(), done: false }
    }

    /// Adds a condition for being ready. It does not hold yet, for the given reason.
    pub fn condition(&self, name: impl Into<String>, reason: impl Into<String>) -> Condition {
        let condition = Condition { name: name.into(), shared: self.shared.clone() };
        condition.fails(reason);
        condition
    }

    /// Reports whether every loop completes its turns in time.
    pub fn alive(&self) -> Report {
        self.shared.lock().alive(self.shared.now_ms())
    }

    /// Reports whether every condition holds and every loop completes its turns in time.
    pub fn ready(&self) -> Report {
        self.shared.lock().ready(self.shared.now_ms())
    }
}

impl Progress {
    /// Records that the loop completed a turn. It is cheap enough for every turn.
    pub fn touch(&self) {
        self.touched_ms.store(self.shared.now_ms(), Ordering::Relaxed);
    }

    /// Records that the loop ended normally; it is not watched any more.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(own) = state.loops.get_mut(&self.name) else {
            return;
        };
        // Another loop of the same name has replaced this one.
        if !Arc::ptr_eq(&own.touched_ms, &self.touched_ms) {
            return;
        }
        if self.done {
            state.loops.remove(&self.name);
        } else {
            own.died = true;
        }
    }
}

impl Condition {
    /// Records that the condition holds.
    pub fn holds(&self) {
        self.set(ConditionState::Holds);
    }

    /// Records that the condition holds, with a remark for the report.
    pub fn holds_but(&self, remark: impl Into<String>) {
        self.set(ConditionState::HoldsBut(remark.into()));
    }

    /// Records that the condition does not hold, for this reason.
    pub fn fails(&self, reason: impl Into<String>) {
        self.set(ConditionState::Fails(reason.into()));
    }

    fn set(&self, condition: ConditionState) {
        self.shared.lock().conditions.insert(self.name.clone(), condition);
    }

    /// Removes the condition, because it concerns work that this process no longer does.
    pub fn withdraw(self) {
        self.shared.lock().conditions.remove(&self.name);
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ignores poisoning: the state is a set of independent facts, which is valid even after a panic under the
    /// lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const OK: &str = "ok";

impl State {
    fn alive(&self, now_ms: u64) -> Report {
        let mut checks = BTreeMap::new();
        for (name, own) in &self.loops {
            let since_ms = now_ms.saturating_sub(own.touched_ms.load(Ordering::Relaxed));
            let verdict = if own.died {
                "ended unexpectedly".into()
            } else if Duration::from_millis(since_ms) > own.bound {
                format!("no progress for {since_ms} ms; the bound is {} ms", own.bound.as_millis())
            } else {
                OK.into()
            };
            checks.insert(name.clone(), verdict);
        }
        Report::of(checks)
    }

    fn ready(&self, now_ms: u64) -> Report {
        let Report { mut ok, mut checks } = self.alive(now_ms);
        for (name, condition) in &self.conditions {
            let verdict = match condition {
                ConditionState::Holds => OK.into(),
                ConditionState::HoldsBut(remark) => format!("{OK}, but {remark}"),
                ConditionState::Fails(reason) => reason.clone(),
            };
            ok &= !matches!(condition, ConditionState::Fails(_));
            checks.insert(name.clone(), verdict);
        }
        Report { ok, checks }
    }
}

impl Report {
    fn of(checks: BTreeMap<String, String>) -> Report {
        Report { ok: checks.values().all(|verdict| verdict == OK), checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool, checks: &[(&str, &str)]) -> Report {
        let mut all = BTreeMap::new();
        for (name, verdict) in checks {
            all.insert(name.to_string(), verdict.to_string());
        }
        Report { ok, checks: all }
    }

    #[test]
    fn a_loop_is_healthy_up_to_its_bound_and_not_a_millisecond_longer() {
        let health = Health::new();
        let fetch = health.progress("fetch", Duration::from_millis(500));
        fetch.touched_ms.store(1_000, Ordering::Relaxed);
        let state = health.shared.lock();
        assert_eq!(state.alive(1_500), report(true, &[("fetch", "ok")]));
        assert_eq!(
            state.alive(1_501),
            report(false, &[("fetch", "no progress for 501 ms; the bound is 500 ms")])
        );
        drop(state);
    }

    #[test]
    fn a_loop_that_is_done_is_forgotten_and_one_that_is_dropped_is_dead() {
        let health = Health::new();
        let bound = Duration::from_secs(60);
        health.progress("fetch", bound).done();
        drop(health.progress("insert", bound));
        assert_eq!(health.alive(), report(false, &[("insert", "ended unexpectedly")]));
        let first = health.progress("insert", bound);
        let _second = health.progress("insert", bound);
        drop(first);
        assert_eq!(health.alive(), report(true, &[("insert", "ok")]));
    }

    #[test]
    fn ready_means_that_every_condition_holds_and_every_loop_is_alive() {
        let health = Health::new();
        assert_eq!(health.ready(), report(true, &[]));
        let tables = health.condition("tables", "not looked for yet");
        assert_eq!(health.ready(), report(false, &[("tables", "not looked for yet")]));
        assert_eq!(health.alive(), report(true, &[]));
        tables.holds_but("one of them is old");
        assert_eq!(health.ready(), report(true, &[("tables", "ok, but one of them is old")]));
        tables.holds();
        assert_eq!(health.ready(), report(true, &[("tables", "ok")]));
        drop(health.progress("fetch", Duration::from_secs(60)));
        assert_eq!(health.ready(), report(false, &[("fetch", "ended unexpectedly"), ("tables", "ok")]));
        tables.withdraw();
        assert_eq!(health.ready(), report(false, &[("fetch", "ended unexpectedly")]));
    }
}
