//! One program of a stack: starts it, waits until it is ready, stops or kills it, and starts it again at the
//! same address. Kafka's nodes, ClickHouse and the services differ only in their [`Plan`].

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ports;
use crate::probe::Probe;
use crate::process::{Launch, Process, STOP_GRACE};
use crate::state::{Claim, PartState};
use fetch::tail::last_lines;

/// Kafka needs four seconds on two idle cores, and up to half a minute on busy ones.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(50);

/// How many last lines of a log an error quotes.
const QUOTED_LINES: usize = 20;

/// The address of a part.
#[derive(Debug, Clone)]
pub enum Address {
    /// It was fixed before the start.
    Known(String),
    /// A service of ours writes its address to `file`. It is first started on `port`, where 0 means any free
    /// port, and later always on the port that it got.
    InFile { file: PathBuf, port: u16 },
}

/// The fixed properties of a part. The [`Part`] itself knows which process runs it.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub launch: Launch,
    pub address: Address,
    pub probe: Probe,
}

#[derive(Debug)]
pub struct Part {
    plan: Plan,
    claim: Arc<Claim>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    process: Option<Process>,
    /// The pid of the latest process, which may have ended.
    pid: Option<u32>,
    address: Option<String>,
}

impl Part {
    pub fn new(plan: Plan, claim: Arc<Claim>) -> Part {
        let address = match &plan.address {
            Address::Known(address) => Some(address.clone()),
            Address::InFile { .. } => None,
        };
        Part { plan, claim, running: Mutex::new(Running { process: None, pid: None, address }) }
    }

    pub fn name(&self) -> &str {
        &self.plan.name
    }

    pub fn log(&self) -> &Path {
        &self.plan.launch.log
    }

    /// The pid of the latest process, which may have ended.
    pub fn pid(&self) -> Option<u32> {
        self.running().pid
    }

    /// Its address; `None` until it is known.
    pub fn address(&self) -> Option<String> {
        self.running().address.clone()
    }

    /// Returns whether a process was started and not stopped. The process may have ended by itself.
    pub fn is_running(&self) -> bool {
        self.running().process.is_some()
    }

    /// Starts it and returns when it is ready. The error quotes the end of the log.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the process and does not wait.
    pub fn spawn(&self) -> Result<()> {
        let mut running = self.running();
        if let Some(process) = &mut running.process
            && process.ended()?.is_none()
        {
            bail!("{} is running already, as process {}", self.plan.name, process.identity().pid);
        }
        let mut launch = self.plan.launch.clone();
        if let Address::InFile { file, port } = &self.plan.address {
            remove_port_file(file)?;
            let listen = running.address.clone().unwrap_or_else(|| format!("127.0.0.1:{port}"));
            launch.environment.push(("SPLITSTREAM_HTTP__LISTEN".to_owned(), listen));
            launch.environment.push(("SPLITSTREAM_HTTP__PORT_FILE".to_owned(), file.display().to_string()));
        }
        let process = Process::start(&launch).with_context(|| format!("starting {}", self.plan.name))?;
        running.pid = Some(process.identity().pid);
        running.process = Some(process);
        self.record(&running)
    }

    /// Returns when it is ready. Fails if it has ended, or after two minutes.
    pub fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let reason = match self.check_ready()? {
                None => return Ok(()),
                Some(reason) => reason,
            };
            if Instant::now() >= deadline {
                let seconds = READY_TIMEOUT.as_secs();
                bail!("{} is not ready after {seconds} s: {reason}{}", self.plan.name, self.log_end());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its exit status; `None` while it runs, or if it was stopped on purpose.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        match &mut self.running().process {
            Some(process) => process.ended(),
            None => Ok(None),
        }
    }

    /// Sends SIGKILL, to simulate a crash. Returns when the process has ended.
    pub fn kill(&self) -> Result<()> {
        let mut running = self.running();
        if let Some(mut process) = running.process.take() {
            process.kill().with_context(|| format!("killing {}", self.plan.name))?;
        }
        self.claim.remove(&self.plan.name)
    }

    /// Sends SIGTERM and waits. Returns the exit status; `None` if it was not running.
    pub fn stop(&self) -> Result<Option<ExitStatus>> {
        let mut running = self.running();
        let status = match running.process.take() {
            Some(mut process) => {
                Some(process.stop(STOP_GRACE).with_context(|| format!("stopping {}", self.plan.name))?)
            }
            None => None,
        };
        self.claim.remove(&self.plan.name)?;
        Ok(status)
    }

    /// Returns `None` if it is ready, else the reason why it is not ready yet. Fails if it never will be.
    fn check_ready(&self) -> Result<Option<String>> {
        let mut running = self.running();
        let Some(process) = &mut running.process else {
            bail!("{} was stopped while it was starting", self.plan.name);
        };
        if let Some(status) = process.ended()? {
            running.process = None;
            // Somebody killed it, so the next start may succeed. READY_TIMEOUT bounds the number of starts.
            if status.signal().is_some() {
                drop(running);
                self.spawn()?;
                return Ok(Some(format!("it was killed while it was starting ({status}) and started again")));
            }
            self.claim.remove(&self.plan.name)?;
            bail!("{} ended while it was starting ({status}){}", self.plan.name, self.log_end());
        }
        // The file is read even if the address is known: it proves that *this* process listens.
        if let Address::InFile { file, .. } = &self.plan.address {
            let Some(address) = ports::read_file(file)? else {
                return Ok(Some("it does not listen yet".to_owned()));
            };
            if running.address.as_ref() != Some(&address) {
                running.address = Some(address);
                self.record(&running)?;
            }
        }
        let Some(address) = running.address.clone() else {
            return Ok(Some("its address is not known yet".to_owned()));
        };
        // Released before the probe, so that others can kill the part meanwhile.
        drop(running);
        Ok(self.plan.probe.check(&address).err())
    }

    /// Writes the running process to the stack's state.
    fn record(&self, running: &Running) -> Result<()> {
        let Some(process) = &running.process else { return Ok(()) };
        self.claim.put(PartState {
            name: self.plan.name.clone(),
            process: process.identity().clone(),
            address: running.address.clone(),
            probe: self.plan.probe.clone(),
            log: self.plan.launch.log.clone(),
        })
    }

    fn log_end(&self) -> String {
        let lines = last_lines(&self.plan.launch.log, QUOTED_LINES);
        format!("\nits log {} ends:\n{}", self.plan.launch.log.display(), lines.join("\n"))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Every field is valid at any moment, also after a panic elsewhere.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_port_file(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the old port file {}", file.display()))
        }
        _ => Ok(()),
    }
}
