//! Child processes that never outlive their purpose: started with their output in a log file, stopped
//! by process id with a bounded wait, and killed by the kernel when this process dies, however it dies.
//! A process of another run is only ever touched after its start time proved that it is still the same.

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

/// How long a process may take to end after SIGTERM before it gets SIGKILL. Kafka needs two seconds,
/// a consumer finishes what it has accepted.
pub const STOP_GRACE: Duration = Duration::from_secs(30);

/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// When it started, in whatever form the system tells it; compared, never read.
    started: String,
}

impl Identity {
    /// The process that has this number now; `None` if there is none, or only its exit status is left.
    pub fn of(pid: u32) -> Option<Identity> {
        started(pid).map(|started| Identity { pid, started })
    }

    pub fn lives(&self) -> bool {
        Identity::of(self.pid).as_ref() == Some(self)
    }

    /// Ends a process that is not our child: SIGTERM, then SIGKILL after `grace`. Does nothing if it is
    /// gone already, whoever has its number now.
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

    /// False if the process was gone already.
    fn signal(&self, signal: Signal) -> Result<bool> {
        if !self.lives() {
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
        while self.lives() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

/// The start time, as ticks since a boot that is named: field 22 of `/proc/PID/stat`.
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

/// What to run, and where its output goes.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Appended to, so that a restart leaves the story of its predecessor.
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
    /// Starts it, bound to the life of this process.
    pub fn start(launch: &Launch) -> Result<Process> {
        let child = spawn_bound(launch.command()?)
            .with_context(|| format!("starting {}", launch.program.display()))?;
        let identity = identity_of_child(&child);
        Ok(Process { child, identity })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for process {}", self.identity.pid))
    }

    /// SIGTERM, a wait of at most `grace`, then SIGKILL. Returns how it ended.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // Not reaped yet, so the number is still its own.
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

    /// SIGKILL. Returns when it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let pid = self.identity.pid;
        self.child.kill().with_context(|| format!("sending SIGKILL to process {pid}"))?;
        self.child.wait().with_context(|| format!("waiting for process {pid}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever wants to know about a failure calls `stop`; here nobody is left to tell.
        let _ = self.stop(STOP_GRACE);
    }
}

/// Starts a process that goes on after this one ends, in a session of its own.
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

/// A process that was sent on its way.
#[derive(Debug)]
pub struct Detached {
    child: Child,
    pub identity: Identity,
}

impl Detached {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for process {}", self.identity.pid))
    }
}

/// A child that ended at once has no start time any more, and nobody will look for it.
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

/// Starts `command` in a process group of its own (Ctrl-C reaches this process alone, which then stops
/// its children in order) and, on Linux, with the kernel's promise to kill it when this process dies.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    // The kernel's promise is kept when the *thread* that forked ends, so one thread that never ends
    // does all the forking.
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // A caller that no longer waits leaves a child that its handle's drop will not stop,
                // but the kernel will.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    command.process_group(0);
    #[cfg(target_os = "linux")]
    die_with_parent(&mut command);
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    child.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only prctl and getppid are called, both async-signal-safe, and an
    // error is made without allocating.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the promise was made.
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
    fn a_stopped_process_is_gone_and_its_identity_knows() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let identity = process.identity().clone();
        assert!(identity.lives());
        let status = process.stop(STOP_GRACE).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
        assert!(!identity.lives());
    }

    #[test]
    fn dropping_it_stops_it() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let identity = process.identity().clone();
        drop(process);
        assert!(!identity.lives());
    }

    #[test]
    fn a_process_that_ignores_sigterm_gets_sigkill_after_the_grace() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let launch = Launch {
            program: "sh".into(),
            args: vec!["-c".to_owned(), "trap '' TERM; echo deaf; while :; do sleep 1; done".to_owned()],
            ..sleeper(&log)
        };
        let mut process = Process::start(&launch).unwrap();
        while fs::read_to_string(&log).unwrap() != "deaf\n" {
            std::thread::sleep(POLL);
        }
        let begun = Instant::now();
        let status = process.stop(Duration::from_millis(300)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn a_recycled_number_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&sleeper(&directory.path().join("log"))).unwrap();
        let current = process.identity().clone();
        let earlier = Identity { pid: current.pid, started: "another time".to_owned() };
        assert!(!earlier.lives());
        earlier.stop(STOP_GRACE).unwrap();
        assert!(current.lives());
    }
}
