//! The registry of running queries, by query_id. No two have the same id; each can be stopped and waited for.
//! A query is registered before its body arrives and until its connection is free again, which is longer than
//! the engine knows it. Knows nothing of what a query does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::exception::{Exception, code};

/// All running queries.
#[derive(Default)]
pub struct Running {
    queries: Mutex<HashMap<String, Arc<Query>>>,
    next_number: AtomicU64,
}

/// One running query.
pub struct Query {
    pub id: String,
    /// Identifies the query in the engine, which gives it another id. Unique in this process.
    pub marker: String,
    pub started: Instant,
    text: Mutex<String>,
    /// False while the body is still arriving: the engine does not know the query yet.
    in_engine: AtomicBool,
    /// If the client leaves, stopping the query loses nothing but the answer.
    only_reads: AtomicBool,
    stop: watch::Sender<bool>,
    gone: watch::Sender<bool>,
}

/// Keeps a query registered; dropping it means that the query is gone.
pub struct Registration {
    running: Arc<Running>,
    pub query: Arc<Query>,
}

impl Running {
    /// Registers a query. The id must not be running already.
    pub fn register(self: &Arc<Running>, id: String, text: &str) -> Result<Registration, Exception> {
        let mut queries = self.lock();
        if queries.contains_key(&id) {
            return Err(already_running(&id));
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let query = Arc::new(Query {
            marker: format!("{number}:{id}"),
            id: id.clone(),
            started: Instant::now(),
            text: Mutex::new(shortened(text)),
            in_engine: AtomicBool::new(false),
            only_reads: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            gone: watch::Sender::new(false),
        });
        queries.insert(id, Arc::clone(&query));
        Ok(Registration { running: Arc::clone(self), query })
    }

    pub fn find(&self, id: &str) -> Option<Arc<Query>> {
        self.lock().get(id).map(Arc::clone)
    }

    pub fn all(&self) -> Vec<Arc<Query>> {
        self.lock().values().map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Query>>> {
        // The map is valid between any two statements, so a panic elsewhere has not broken it.
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ClickHouse's refusal of a second query with a running one's id.
pub fn already_running(id: &str) -> Exception {
    Exception::new(
        code::QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
        format_args!("Query with id = {id} is already running"),
    )
}

impl Query {
    /// The query's text, shortened.
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the text, if it came in the body.
    pub fn set_text(&self, text: &[u8]) {
        let text = shortened(&String::from_utf8_lossy(&text[..text.len().min(4 * TEXT_CHARS_MAX)]));
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub fn is_in_engine(&self) -> bool {
        self.in_engine.load(Ordering::Acquire)
    }

    pub fn enter_engine(&self) {
        self.in_engine.store(true, Ordering::Release);
    }

    pub fn only_reads(&self) -> bool {
        self.only_reads.load(Ordering::Acquire)
    }

    pub fn set_only_reads(&self) {
        self.only_reads.store(true, Ordering::Release);
    }

    /// Asks the query to stop; true if nobody has before. The thread that runs it stops between two steps; a
    /// statement in the engine has to be killed there.
    pub fn ask_to_stop(&self) -> bool {
        !self.stop.send_replace(true)
    }

    pub fn is_asked_to_stop(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns when the query is asked to stop.
    pub async fn asked_to_stop(&self) {
        // The sender is in `self`, so this returns only when the value is set.
        let _ = self.stop.subscribe().wait_for(|asked| *asked).await;
    }

    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns when nothing of the query runs anymore.
    pub async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    /// The exception of a stopped query.
    pub fn cancelled(&self) -> Exception {
        Exception::new(code::QUERY_WAS_CANCELLED, "Query was cancelled")
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.running.lock().remove(&self.query.id);
        self.query.gone.send_replace(true);
    }
}

/// The characters of a query that system.processes shows.
const TEXT_CHARS_MAX: usize = 4096;

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_runs_once_at_a_time() {
        let running = Arc::new(Running::default());
        let first = running.register("a".to_owned(), "SELECT 1").expect("free");
        assert_eq!(running.register("a".to_owned(), "SELECT 2").err().expect("taken").code, 216);
        let query = Arc::clone(&first.query);
        assert!(!query.is_gone());
        drop(first);
        assert!(query.is_gone());
        running.register("a".to_owned(), "SELECT 3").expect("free again");
    }

    #[test]
    fn markers_differ_where_ids_do_not() {
        let running = Arc::new(Running::default());
        let marker = || running.register("a".to_owned(), "").expect("free").query.marker.clone();
        assert_eq!([marker(), marker()], ["0:a", "1:a"]);
    }
}
