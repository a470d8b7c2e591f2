//! HTTP sessions. A session keeps a connection between queries, with its temporary tables and settings, until
//! nobody has used it for its timeout. Knows nothing of SQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Connection;
use super::exception::{Exception, code};
use super::request::{Readonly, SessionRequest};
use super::response_headers::Headers;

/// All sessions.
pub struct Sessions {
    sessions_max: usize,
    sessions: Mutex<HashMap<String, State>>,
}

enum State {
    /// A query runs in it.
    Busy,
    Idle {
        connection: Connection,
        settings: SessionSettings,
        expires: Instant,
    },
}

/// What a SET in the session has set that its connection does not keep between two queries.
#[derive(Debug, Default)]
pub struct SessionSettings {
    /// A connection that kept it would refuse every later SET.
    pub readonly: Readonly,
    /// The engine knows nothing of HTTP.
    pub response_headers: Headers,
}

/// A session in use by one query; dropping the lease releases it.
pub struct Lease {
    sessions: Arc<Sessions>,
    id: String,
    timeout: Duration,
    ends: bool,
    pub settings: SessionSettings,
    /// `None` if the session is to end.
    connection: Option<Connection>,
}

impl Sessions {
    /// At most `sessions_max` at a time: each has a connection of its own.
    pub fn new(sessions_max: usize) -> Arc<Sessions> {
        Arc::new(Sessions { sessions_max, sessions: Mutex::new(HashMap::new()) })
    }

    /// The session that `request` names. A new one gets its connection from `connect`.
    pub fn lease(
        self: &Arc<Sessions>,
        request: &SessionRequest,
        connect: impl FnOnce() -> Result<Connection, Exception>,
    ) -> Result<Lease, Exception> {
        let lease = |connection, settings| Lease {
            sessions: Arc::clone(self),
            id: request.id.clone(),
            timeout: request.timeout,
            ends: request.ends,
            settings,
            connection: Some(connection),
        };
        {
            let mut sessions = self.lock();
            match sessions.remove(&request.id) {
                Some(State::Busy) => {
                    sessions.insert(request.id.clone(), State::Busy);
                    return Err(Exception::new(
                        code::SESSION_IS_LOCKED,
                        format_args!("Session {} is locked by a concurrent client", request.id),
                    ));
                }
                Some(State::Idle { connection, settings, expires }) if expires > Instant::now() => {
                    sessions.insert(request.id.clone(), State::Busy);
                    return Ok(lease(connection, settings));
                }
                // A session that has expired is gone, even before the next sweep.
                Some(State::Idle { .. }) | None => {}
            }
            if request.must_exist {
                return Err(Exception::new(
                    code::SESSION_NOT_FOUND,
                    format_args!("Session {} not found", request.id),
                ));
            }
            if sessions.len() >= self.sessions_max {
                return Err(Exception::new(
                    code::TOO_MANY_SIMULTANEOUS_QUERIES,
                    format_args!(
                        "Too many sessions. Maximum: {}: let one time out, or start the server with a larger \
                         --max-sessions",
                        self.sessions_max
                    ),
                ));
            }
            sessions.insert(request.id.clone(), State::Busy);
        }
        match connect() {
            Ok(connection) => Ok(lease(connection, SessionSettings::default())),
            Err(exception) => {
                self.lock().remove(&request.id);
                Err(exception)
            }
        }
    }

    /// Ends the sessions that expired by `now`.
    pub fn sweep(&self, now: Instant) {
        let expired: Vec<State> = {
            let mut sessions = self.lock();
            let ids: Vec<String> = sessions
                .iter()
                .filter(|(_, state)| matches!(state, State::Idle { expires, .. } if *expires <= now))
                .map(|(id, _)| id.clone())
                .collect();
            ids.iter().filter_map(|id| sessions.remove(id)).collect()
        };
        // The connections close here, outside of the lock.
        drop(expired);
    }

    /// Ends all sessions that no query runs in.
    pub fn close(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, State>> {
        // The map is valid between any two statements, so a panic elsewhere has not broken it.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The session's connection.
    pub fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only `end` takes the connection, and it consumes the lease")
    }

    /// Ends the session: its connection can no longer be trusted.
    pub fn end(mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let mut sessions = self.sessions.lock();
        match connection {
            Some(connection) if !self.ends => {
                let settings = std::mem::take(&mut self.settings);
                let expires = Instant::now() + self.timeout;
                sessions.insert(self.id.clone(), State::Idle { connection, settings, expires });
            }
            ended => {
                sessions.remove(&self.id);
                drop(sessions);
                // The connection closes outside of the lock; the others no longer see the session.
                drop(ended);
            }
        }
    }
}
