//! Orderly shutdown. A signal or a failure asks every part to stop accepting work and to finish what it has. A
//! second signal, or a timeout, ends the process at once and logs what was still running.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::Exit;

/// The request to stop; clones share it.
#[derive(Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

struct Shared {
    reason: watch::Sender<Option<String>>,
    /// Wakes threads that sleep. The lock holds no data: it keeps the beginning from falling between a thread's look at the
    /// reason and its sleep.
    sleepers: Mutex<()>,
    began: Condvar,
    /// The work that still runs, with the count of each name.
    holds: Mutex<BTreeMap<&'static str, usize>>,
}

/// Work that must end before the process does. It is dropped when the work has ended.
pub struct Hold {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Shutdown {
    /// Creates a shutdown that only [`begin`](Shutdown::begin) starts and nothing enforces, for tests and for
    /// commands that are not services.
    pub fn manual() -> Shutdown {
        let shared = Shared {
            reason: watch::Sender::new(None),
            sleepers: Mutex::default(),
            began: Condvar::default(),
            holds: Mutex::default(),
        };
        Shutdown { shared: Arc::new(shared) }
    }

    /// Creates a shutdown that SIGTERM or SIGINT starts. A second signal ends the process at once; so does a
    /// shutdown, however started, that takes longer than `timeout`. Both exit with [`Exit::Failed`] and log
    /// what was still running.
    ///
    /// # Errors
    /// If the handlers or their thread cannot be set up.
    pub fn on_signals(timeout: Duration) -> io::Result<Shutdown> {
        let shutdown = Shutdown::manual();
        let watched = shutdown.clone();
        // A separate thread and runtime, so that work that blocks all other threads is ended too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(enforce(watched, signals, timeout)))?;
        Ok(shutdown)
    }

    /// Starts the shutdown. A later reason does not replace the first.
    pub fn begin(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.shared.reason.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            tracing::info!(%reason, "stopping");
            *current = Some(reason);
            true
        });
        drop(self.shared.sleepers.lock());
        self.shared.began.notify_all();
    }

    /// Returns whether the shutdown has started, for loops that do not await.
    pub fn begun(&self) -> bool {
        self.shared.reason.borrow().is_some()
    }

    /// Waits until the shutdown starts, and returns the reason.
    pub async fn wait(&self) -> String {
        let mut reasons = self.shared.reason.subscribe();
        let reason =
            reasons.wait_for(Option::is_some).await.expect("the sender is ours and lives as long as we do");
        reason.clone().expect("waited until there is one")
    }

    /// Sleeps for `duration` or until the shutdown starts. Returns whether it has started.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.wait()).await.is_ok()
    }

    /// Like [`sleep`](Shutdown::sleep), for a thread outside the async runtime.
    pub fn sleep_blocking(&self, duration: Duration) -> bool {
        let sleeper = self.shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        let _woken = self.shared.began.wait_timeout_while(sleeper, duration, |()| !self.begun());
        self.begun()
    }

    /// Registers work that must end before the process does.
    pub fn hold(&self, name: &'static str) -> Hold {
        *self.shared.lock().entry(name).or_insert(0) += 1;
        Hold { name, shared: self.shared.clone() }
    }

    /// Returns the names of the work that still runs, such as `fetch, insert (2)`.
    pub fn running(&self) -> String {
        let mut names = Vec::new();
        for (name, count) in self.shared.lock().iter() {
            names.push(match count {
                1 => name.to_string(),
                _ => format!("{name} ({count})"),
            });
        }
        if names.is_empty() { "nothing that was registered".into() } else { names.join(", ") }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.shared.lock();
        if let Some(count) = holds.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                holds.remove(self.name);
            }
        }
    }
}

impl Shared {
    /// Ignores poisoning: the counts are valid even after a panic under the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        // Losing is harmless: both branches only wait, and a signal that loses is delivered to the next call.
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

async fn enforce(shutdown: Shutdown, mut signals: Signals, timeout: Duration) {
    // Losing is harmless: if both happen, the second one is handled below.
    tokio::select! {
        name = signals.next() => shutdown.begin(name),
        _ = shutdown.wait() => {}
    }
    let why = match tokio::time::timeout(timeout, signals.next()).await {
        Ok(name) => format!("{name} while stopping: ended at once"),
        Err(_) => format!("not stopped after {} ms: ended at once", timeout.as_millis()),
    };
    let running = shutdown.running();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(running, "{why}");
    } else {
        eprintln!("error: {why}; still running: {running}");
    }
    std::process::exit(Exit::Failed as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_begins_once_and_keeps_its_first_reason() {
        let shutdown = Shutdown::manual();
        let other = shutdown.clone();
        assert!(!other.begun());
        assert!(!other.sleep(Duration::from_millis(1)).await);
        shutdown.begin("the disk is full");
        shutdown.begin("SIGTERM");
        assert!(other.begun());
        assert!(other.sleep(Duration::from_secs(3_600)).await);
        assert_eq!(other.wait().await, "the disk is full");
    }

    #[test]
    fn a_thread_that_sleeps_is_woken() {
        let shutdown = Shutdown::manual();
        assert!(!shutdown.sleep_blocking(Duration::from_millis(1)));
        let sleeper = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.sleep_blocking(Duration::from_secs(3_600))
        });
        shutdown.begin("the disk is full");
        assert!(sleeper.join().unwrap());
        assert!(shutdown.sleep_blocking(Duration::from_secs(3_600)));
    }

    #[test]
    fn it_names_what_still_runs() {
        let shutdown = Shutdown::manual();
        assert_eq!(shutdown.running(), "nothing that was registered");
        let first = shutdown.hold("insert");
        let second = shutdown.hold("insert");
        let _fetch = shutdown.hold("fetch");
        assert_eq!(shutdown.running(), "fetch, insert (2)");
        drop(first);
        assert_eq!(shutdown.running(), "fetch, insert");
        drop(second);
        assert_eq!(shutdown.running(), "fetch");
    }
}
