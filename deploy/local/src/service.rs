//! A service of ours that runs against a stack: the handle by which the tests kill it and the supervisor
//! starts it again.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::Result;

use crate::part::Part;

/// How a service differs from the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceOptions<'a> {
    /// More settings for its environment, over those of the stack.
    pub settings: &'a [(&'a str, &'a str)],
    /// Where it listens on the loopback interface; a free port if not given.
    pub port: Option<u16>,
}

/// A running service. Stops when dropped.
#[derive(Debug)]
pub struct Service {
    pub(crate) part: Arc<Part>,
}

impl Service {
    pub fn name(&self) -> &str {
        self.part.name()
    }

    /// The latest process's number; it may have ended.
    pub fn pid(&self) -> u32 {
        self.part.pid().expect("a service is made by starting its process")
    }

    /// "http://127.0.0.1:port", the same after every start.
    pub fn url(&self) -> String {
        let address = self.part.address().expect("a service is handed out once it has told its address");
        format!("http://{address}")
    }

    pub fn log_path(&self) -> &Path {
        self.part.log()
    }

    /// Starts it again after [`Service::kill`], [`Service::stop`] or an end of its own, and returns when
    /// it is ready.
    pub fn start(&self) -> Result<()> {
        self.part.start()
    }

    /// Starts the process again and does not wait for it to be ready.
    pub fn spawn(&self) -> Result<()> {
        self.part.spawn()
    }

    /// Returns when it is ready, after [`Service::spawn`].
    pub fn wait_ready(&self) -> Result<()> {
        self.part.wait_ready()
    }

    /// SIGKILL, as a crash would have it. Returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        self.part.kill()
    }

    /// SIGTERM, thirty seconds to finish what it accepted, then SIGKILL. Says how it ended; `None` if it
    /// was not running.
    pub fn stop(&self) -> Result<Option<ExitStatus>> {
        self.part.stop()
    }

    /// How it ended by itself; `None` while it runs, or if it was stopped on purpose.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.part.ended()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stopping {}: {error:#}", self.name());
        }
    }
}
