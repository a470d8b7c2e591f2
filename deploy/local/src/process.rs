//! Starts and stops child processes: their output goes to a log file, they are stopped by process id with a
//! bounded wait, and the kernel kills them when this process dies, however it dies. A process of another run
//! is stopped only after its start time has proved that it is still the same.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a process may take to end after SIGTERM before it gets SIGKILL. Kafka needs two seconds; a consumer
/// finishes the events that it has accepted.
pub const STOP_GRACE: Duration = Duration::from_secs(30);

/// How often to check whether a process has ended.
const POLL: Duration = Duration::from_millis(20);

/// Identifies a process, also if a later process has the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Its start time in the form that the system reports; compared, never parsed.
    started: String,
}

impl Identity {
    /// The process that has this pid now; `None` if there is none, or only its exit status is left.
    pub fn of(pid: u32) -> Option<Identity> {
        started(pid).map(|started| Identity { pid, started })
    }

    pub fn is_alive(&self) -> bool {
        Identity::of(self.pid).as_ref() == Some(self)
    }

    /// Stops a process that is not our child: SIGTERM, then SIGKILL after `grace`. Does nothing if it has ended
    /// already, even if another process has its pid now.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        if !self.signal(Signal::SIGTERM)? || self.gone_within(grace) {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        if self.gone_within(STOP_GRACE) {
            return Ok(());
        }
        anyhow::bail!("process {} does not end after SIGKILL", self.pid)
    }

    /// Sends the signal; returns false if the process has ended already.
    fn signal(&self, signal: Signal) -> Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        match kill(as_pid(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("sending {signal} to process {}", self.pid)),
        }
    }

    fn gone_within(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

/// The start time: ticks since boot, field 22 of `/proc/PID/stat`, and the id of that boot.
#[cfg(target_os = "linux")]
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    let ticks = fields.nth(18)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{ticks} {}", boot.trim()))
}

#[cfg(not(target_os = "linux"))]
fn started(pid: u32) -> Option<String> {
    let answer = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let answer = String::from_utf8(answer.stdout).ok()?;
    let (state, started) = answer.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process number is below 2^22"))
}

/// A program to run, and the log for its output.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Output is appended, so that the log of the previous process survives a restart.
    pub log: PathBuf,
}

impl Launch {
    fn command(&self) -> Result<Command> {
        let log = open_log(&self.log)?;
        let errors = log.try_clone().with_context(|| format!("sharing {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        Ok(command)
    }
}

/// A running child. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    identity: Identity,
}

impl Process {
    /// Starts it. The kernel kills it when this process dies.
    pub fn start(launch: &Launch) -> Result<Process> {
        let child = spawn_bound(launch.command()?)
            .with_context(|| format!("starting {}", launch.program.display()))?;
        let identity = identity_of_child(&child);
        Ok(Process { child, identity })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its exit status; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for process {}", self.identity.pid))
    }

    /// Sends SIGTERM, waits at most `grace`, then sends SIGKILL. Returns the exit status.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // The child is not reaped yet, so the pid is still its own.
        kill(as_pid(self.identity.pid), Signal::SIGTERM)
            .with_context(|| format!("sending SIGTERM to process {}", self.identity.pid))?;
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.kill()
    }

    /// Sends SIGKILL. Returns when the process has ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let pid = self.identity.pid;
        self.child.kill().with_context(|| format!("sending SIGKILL to process {pid}"))?;
        self.child.wait().with_context(|| format!("waiting for process {pid}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A caller that needs the error calls `stop` itself; a drop cannot return it.
        let _ = self.stop(STOP_GRACE);
    }
}

/// Starts a process in a session of its own, which goes on running after this one ends.
pub fn start_detached(launch: &Launch) -> Result<Detached> {
    let mut command = launch.command()?;
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    let child = command.spawn().with_context(|| format!("starting {}", launch.program.display()))?;
    let identity = identity_of_child(&child);
    Ok(Detached { child, identity })
}

/// A process that does not end with this one.
#[derive(Debug)]
pub struct Detached {
    child: Child,
    pub identity: Identity,
}

impl Detached {
    /// Its exit status; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for process {}", self.identity.pid))
    }
}

/// The identity of a child; its start time is empty if it has ended already, when nobody needs it.
fn identity_of_child(child: &Child) -> Identity {
    Identity::of(child.id()).unwrap_or(Identity { pid: child.id(), started: String::new() })
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening the log {}", path.display()))
}

/// Starts `command` in a process group of its own, so that Ctrl-C reaches only this process, which then stops
/// its children in order. On Linux the kernel kills the child when this process dies.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    // The kernel kills the child when the *thread* that forked it ends, so one thread that never ends does
    // all the forking.
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, received) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // If the caller no longer waits, dropping the handle does not stop the child. The kernel
                // kills it when this process dies.
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });
    command.process_group(0);
    #[cfg(target_os = "linux")]
    kill_with_parent(&mut command);
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    child.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}

#[cfg(target_os = "linux")]
fn kill_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only prctl and getppid are called, both async-signal-safe, and an
    // error is made without allocating.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before prctl was called.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Launch {
        Launch {
            program: "sleep".into(),
            args: vec!["600".to_owned()],
            environment: Vec::new(),
            log: log.to_owned(),
        }
    }

    #[test]
    fn a_stopped_process_is_no_longer_alive() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let identity = process.identity().clone();
        assert!(identity.is_alive());
        let status = process.stop(STOP_GRACE).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
        assert!(!identity.is_alive());
    }

    #[test]
    fn dropping_a_process_stops_it() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let identity = process.identity().clone();
        drop(process);
        assert!(!identity.is_alive());
    }

    #[test]
    fn a_process_that_ignores_sigterm_gets_sigkill_after_the_grace() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let launch = Launch {
            program: "sh".into(),
            args: vec!["-c".to_owned(), "trap '' TERM; echo ready; while :; do sleep 1; done".to_owned()],
            ..sleeper(&log)
        };
        let mut process = Process::start(&launch).unwrap();
        while fs::read_to_string(&log).unwrap() != "ready\n" {
            std::thread::sleep(POLL);
        }
        let started = Instant::now();
        let status = process.stop(Duration::from_millis(300)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(started.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn a_process_with_a_reused_pid_is_not_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let current = process.identity().clone();
        let earlier = Identity { pid: current.pid, started: "another time".to_owned() };
        assert!(!earlier.is_alive());
        earlier.stop(STOP_GRACE).unwrap();
        assert!(current.is_alive());
    }
}
