//! One program of a stack: started, waited for until it answers, killed, stopped, started again where it
//! was. Kafka's nodes, ClickHouse and the services differ only in what they are given here.

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
const READY_WAIT: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(50);

/// The end of a log that an error quotes.
const QUOTED_LINES: usize = 20;

/// How a part is found.
#[derive(Debug, Clone)]
pub enum Address {
    /// Told when it was planned.
    Known(String),
    /// A service of ours: told by itself in `file`. It is started on `port`, where 0 is any free one,
    /// and from then on always on the port that it got.
    InFile { file: PathBuf, port: u16 },
}

/// What a part is. Which process runs it, and since when, is the [`Part`]'s own affair.
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
    /// The pid of the latest process, running or not.
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

    /// The latest process's number; it may have ended.
    pub fn pid(&self) -> Option<u32> {
        self.running().pid
    }

    /// Where it answers, once that is known.
    pub fn address(&self) -> Option<String> {
        self.running().address.clone()
    }

    /// Whether a process was started for it and not stopped; it may have ended by itself.
    pub fn is_running(&self) -> bool {
        self.running().process.is_some()
    }

    /// Starts it and returns when it answers. The error quotes the log's end.
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
            forget(file)?;
            let listen = running.address.clone().unwrap_or_else(|| format!("127.0.0.1:{port}"));
            launch.environment.push(("SPLITSTREAM_HTTP__LISTEN".to_owned(), listen));
            launch.environment.push(("SPLITSTREAM_HTTP__PORT_FILE".to_owned(), file.display().to_string()));
        }
        let process = Process::start(&launch).with_context(|| format!("starting {}", self.plan.name))?;
        running.pid = Some(process.identity().pid);
        running.process = Some(process);
        self.write_down(&running)
    }

    /// Returns when it answers; fails when it has ended, or after two minutes.
    pub fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WAIT;
        loop {
            let reason = match self.look()? {
                None => return Ok(()),
                Some(reason) => reason,
            };
            if Instant::now() >= deadline {
                let seconds = READY_WAIT.as_secs();
                bail!("{} is not ready after {seconds} s: {reason}{}", self.plan.name, self.log_end());
            }
            std::thread::sleep(POLL);
        }
    }

    /// How it ended; `None` while it runs, or if it was stopped on purpose.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        match &mut self.running().process {
            Some(process) => process.ended(),
            None => Ok(None),
        }
    }

    /// SIGKILL, as a crash would have it. Returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut running = self.running();
        if let Some(mut process) = running.process.take() {
            process.kill().with_context(|| format!("killing {}", self.plan.name))?;
        }
        self.claim.remove(&self.plan.name)
    }

    /// SIGTERM and a wait. Says how it ended; `None` if it was not running.
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

    /// `None` if it answers, else why it does not yet. Fails if it never will.
    fn look(&self) -> Result<Option<String>> {
        let mut running = self.running();
        let Some(process) = &mut running.process else {
            bail!("{} was stopped while it was starting", self.plan.name);
        };
        if let Some(status) = process.ended()? {
            running.process = None;
            // Killed by somebody: that says nothing against the next start. It ends with READY_WAIT.
            if status.signal().is_some() {
                drop(running);
                self.spawn()?;
                return Ok(Some(format!("it was killed while it was starting ({status}) and started again")));
            }
            self.claim.remove(&self.plan.name)?;
            bail!("{} ended while it was starting ({status}){}", self.plan.name, self.log_end());
        }
        // The file is read even when the address is known: it says that *this* process listens.
        if let Address::InFile { file, .. } = &self.plan.address {
            let Some(address) = ports::read_file(file)? else {
                return Ok(Some("it does not listen yet".to_owned()));
            };
            if running.address.as_ref() != Some(&address) {
                running.address = Some(address);
                self.write_down(&running)?;
            }
        }
        let Some(address) = running.address.clone() else {
            return Ok(Some("its address is not known yet".to_owned()));
        };
        // Not while others may want to kill it.
        drop(running);
        Ok(self.plan.probe.ask(&address).err())
    }

    fn write_down(&self, running: &Running) -> Result<()> {
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
        // What it guards is a handle: whole at any moment, also after a panic elsewhere.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the old port file {}", file.display()))
        }
        _ => Ok(()),
    }
}
