//! A handle to a service of ours that uses a stack. The tests kill the service with it, and the supervisor
//! restarts the service.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::Result;

use crate::part::Part;

/// Options that differ from the defaults of a service.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceOptions<'a> {
    /// Settings for its environment; they override those of the stack.
    pub settings: &'a [(&'a str, &'a str)],
    /// The port on which it listens on the loopback interface; a free one if not given.
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

    /// The pid of the latest process, which may have ended.
    pub fn pid(&self) -> u32 {
        self.part.pid().expect("a service is returned only after its process was started")
    }

    /// "http://127.0.0.1:port", the same after every start.
    pub fn url(&self) -> String {
        let address = self.part.address().expect("a service is returned only when its address is known");
        format!("http://{address}")
    }

    pub fn log_path(&self) -> &Path {
        self.part.log()
    }

    /// Starts it again after [`Service::kill`] or [`Service::stop`], or after it ended by itself. Returns
    /// when it is ready.
    pub fn start(&self) -> Result<()> {
        self.part.start()
    }

    /// Starts the process again and does not wait for it to be ready.
    pub fn spawn(&self) -> Result<()> {
        self.part.spawn()
    }

    /// Returns when it is ready. Called after [`Service::spawn`].
    pub fn wait_ready(&self) -> Result<()> {
        self.part.wait_ready()
    }

    /// Sends SIGKILL, to simulate a crash. Returns when the process has ended.
    pub fn kill(&self) -> Result<()> {
        self.part.kill()
    }

    /// Sends SIGTERM, gives it thirty seconds to finish what it accepted, then sends SIGKILL. Returns the
    /// exit status; `None` if it was not running.
    pub fn stop(&self) -> Result<Option<ExitStatus>> {
        self.part.stop()
    }

    /// Its exit status if it ended by itself; `None` while it runs, or if it was stopped on purpose.
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
