//! The process that the tests of the spool kill, limit and trace: this program again, with its task in the
//! environment. It prints what it has done, a line at a time.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use ops::config::Kafka;
use schemas::{Event, Micros, Pairs, Sender, Unit, Uuid};
use sdk::emitter::{Durable, Emitter, Settings, SpoolSettings};
use sdk::event::{EventStamp, conversion};

use crate::kafka_fixture::kafka;

const TASK: &str = "SPOOL_TEST_TASK";
const BROKERS: &str = "SPOOL_TEST_BROKERS";
const PREFIX: &str = "SPOOL_TEST_PREFIX";
const DIRECTORY: &str = "SPOOL_TEST_DIRECTORY";

const TIMEOUT: Duration = Duration::from_secs(60);

/// An event with the number as its id, from 1: the nil UUID identifies no event.
pub fn event(number: u64) -> Event<'static> {
    event_of_bytes(number, 0)
}

/// An event with at least so many bytes.
pub fn event_of_bytes(number: u64, bytes: usize) -> Event<'static> {
    let stamp = EventStamp {
        event_id: Uuid::from_u128(u128::from(number)),
        created_at: Micros::parse("2026-01-31T12:00:00Z").unwrap(),
    };
    let unit = Unit { unit_type: "user".into(), unit_id: Cow::Owned(format!("u{}", number % 100)) };
    let mut conversion = conversion(stamp, "purchase", unit);
    conversion.metadata = Pairs::from_iter([("browser", "Firefox"), ("region", "EU")]);
    for filler in 0..bytes / 1_000 {
        conversion.metadata.insert(format!("filler{filler}"), "x".repeat(1_000));
    }
    Event::Conversion(conversion)
}

pub fn sender() -> Sender<'static> {
    Sender { service: "shop".into(), instance: "1".into(), library_version: "0".into() }
}

/// A Kafka that is never there.
pub fn nowhere() -> Kafka {
    kafka("127.0.0.1:1", "")
}

/// A process with a task.
pub struct Child {
    process: std::process::Child,
    lines: Receiver<(Instant, String)>,
    read: Vec<(Instant, String)>,
}

/// The system calls of a process, in the order in which they returned.
#[derive(Debug)]
pub struct Trace {
    pub calls: Vec<Call>,
}

#[derive(Debug)]
pub struct Call {
    pub thread: u32,
    pub text: String,
}

impl Child {
    pub fn start(task: &str, kafka: &Kafka, prefix: &str, directory: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]);
        let brokers = kafka.brokers.as_str();
        command.env(TASK, task).env(BROKERS, brokers).env(PREFIX, prefix).env(DIRECTORY, directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = local::process::spawn_bound(command).unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Child { process, lines, read: Vec::new() }
    }

    /// Waits for a line.
    pub fn wait_for(&mut self, expected: &str) {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT).unwrap_or_else(|error| {
                panic!("no line `{expected}` ({error}) after {:?}", self.read.iter().rev().take(5))
            });
            let found = line.1 == expected;
            self.read.push(line);
            if found {
                return;
            }
        }
    }

    /// Sends SIGKILL. Returns the time just before.
    pub fn kill(&mut self) -> Instant {
        let now = Instant::now();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        now
    }

    /// All lines of a killed process with the times at which they came.
    pub fn lines(mut self) -> Vec<(Instant, String)> {
        let mut lines = std::mem::take(&mut self.read);
        lines.extend(self.lines.iter());
        lines
    }

    /// Runs a task without Kafka to its end under strace, which injects errors if asked: into calls on a file, if one
    /// is named.
    pub fn traced(task: &str, directory: &Path, inject: &[&str]) -> Trace {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-s", "64", "-o"]).arg(log.path());
        command.args(["-e", "trace=write,fdatasync,ftruncate"]);
        if let [inject, ..] = inject {
            command.args(["-e", inject]);
        }
        if let [_, path] = inject {
            command.args(["-P", path]);
        }
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "child", "--nocapture"]);
        command.env(TASK, task).env(BROKERS, nowhere().brokers.as_str());
        command.env(PREFIX, "").env(DIRECTORY, directory).stdin(Stdio::null());
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let output = spawned.expect("strace is a prerequisite of the tests").wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("durable 3: spooled, spooled, spooled"), "{output:?}");
        Trace::parse(&std::fs::read_to_string(log.path()).unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Trace {
    /// Reads strace's log. A call that was interrupted by another thread's is put where it returned.
    fn parse(log: &str) -> Trace {
        let mut begun = std::collections::HashMap::new();
        let mut calls = Vec::new();
        for line in log.lines() {
            let Some((thread, text)) = line.split_once(' ') else { continue };
            let (Ok(thread), text) = (thread.parse::<u32>(), text.trim()) else { continue };
            if let Some((beginning, _)) = text.split_once(" <unfinished ...>") {
                begun.insert(thread, beginning.to_owned());
            } else if let Some((_, end)) = text.split_once(" resumed>") {
                let beginning = begun.remove(&thread).unwrap_or_default();
                calls.push(Call { thread, text: format!("{beginning}{end}") });
            } else {
                calls.push(Call { thread, text: text.to_owned() });
            }
        }
        Trace { calls }
    }

    /// The index of the first such call.
    pub fn find(&self, is_it: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().position(is_it).unwrap_or_else(|| panic!("{self:#?}"))
    }
}

/// Does the task of a child process, and does not return from it. Without a task it does nothing.
pub fn run_if_asked() {
    let Ok(task) = std::env::var(TASK) else { return };
    // Ends the line that the test runner began.
    println!();
    let setting = |name| std::env::var(name).expect("the parent sets it");
    let kafka = kafka(&setting(BROKERS), &setting(PREFIX));
    let spool = SpoolSettings::at(PathBuf::from(setting(DIRECTORY)));
    let registry = prometheus::Registry::new();
    let emitter =
        Emitter::open_with_spool(&kafka, &Settings::default(), &spool, sender(), &registry, |_| {}).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match task.as_str() {
        "load" => emit_for_ever(&emitter, &runtime),
        "durable" => emit_three(&emitter, &runtime),
        "limited" => emit_into_small_files(&emitter, &runtime),
        other => panic!("no task {other}"),
    }
}

/// Emits an event each millisecond, and waits for every fiftieth.
fn emit_for_ever(emitter: &Emitter, runtime: &tokio::runtime::Runtime) {
    for number in 1.. {
        if number % 50 == 0 {
            let outcomes = runtime.block_on(emitter.emit_durable([event(number)]).wait(TIMEOUT));
            outcomes[0].as_ref().unwrap();
            println!("durable {number}");
        } else {
            emitter.emit(event(number)).unwrap();
        }
        println!("emitted {number}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn emit_three(emitter: &Emitter, runtime: &tokio::runtime::Runtime) {
    let outcomes = runtime.block_on(emitter.emit_durable([1, 2, 3].map(event)).wait(TIMEOUT));
    let names: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Durable::Acknowledged) => "acknowledged",
            Ok(Durable::Spooled) => "spooled",
            Err(_) => "not durable",
        })
        .collect();
    println!("durable 3: {}", names.join(", "));
    // Without closing the emitter, as a process ends that is killed.
    std::process::exit(0);
}

fn emit_into_small_files(emitter: &Emitter, runtime: &tokio::runtime::Runtime) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    // SAFETY: no handler is installed: the signal, whose default ends the process, is ignored.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 20_000, hard).unwrap();
    for number in 1..=300 {
        emitter.emit(event(number)).unwrap();
    }
    let error = loop {
        if let Some(error) = emitter.status().spool.unwrap().disk_error {
            break error;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    println!("disk error: {error}\naccepted {}", emitter.remaining());
    assert!(emitter.totals().spooled < 300, "a file has no room for all of them");
    let receipts = emitter.emit_durable([event(301)]);
    let outcomes = runtime.block_on(receipts.wait(Duration::from_millis(100)));
    assert!(matches!(outcomes[0], Err(sdk::NotDurable::Unconfirmed { .. })), "{outcomes:?}");
    println!("unconfirmed");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    while emitter.totals().spooled < 301 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("spooled {}", emitter.totals().spooled);
    std::thread::sleep(TIMEOUT);
}
