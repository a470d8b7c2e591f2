//! A separate platform for one test: Kafka, ClickHouse, topics and tables in a directory of its own. The
//! directory is removed if the test passes, and kept with its logs if it fails.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use local::process::spawn_bound;
use local::{Options, Service, ServiceOptions, Stack};
use schemas::topics::TOPICS;
use tempfile::TempDir;

use crate::clickhouse::ClickHouse;
use crate::oracle::{self, Agreement};
use crate::topic;

/// The shortest session timeout that a broker allows. After it, a killed consumer's partitions are reassigned.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Settings for many small batches, so that a fault at any moment finds some in flight.
pub const SMALL_BATCHES: &[(&str, &str)] = &[
    ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "6000"),
    ("SPLITSTREAM_CONSUMER__BATCH_ROWS", "10000"),
    ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "200"),
];

/// Running servers with topics and tables.
pub struct Platform {
    // Declared before the directory, so that everything has stopped when the directory is removed.
    stack: Stack,
    dir: TempDir,
    keep: AtomicBool,
}

impl Platform {
    /// Starts one broker and one ClickHouse, and no service.
    pub fn up() -> Result<Platform> {
        Platform::with(|options| options)
    }

    /// Like [`Platform::up`], with the options changed by `change`.
    pub fn with(change: impl FnOnce(Options) -> Options) -> Result<Platform> {
        let dir = tempfile::Builder::new().prefix("splitstream-").tempdir().context("making a directory")?;
        let options = change(Options::at(dir.path()));
        let brokers = options.brokers;
        let stack = Stack::up(options)?;
        stack.create_topics(brokers)?;
        let platform = Platform { stack, dir, keep: AtomicBool::new(false) };
        platform.wait_for_leaders()?;
        platform.stack.run(&["migrate"])?;
        Ok(platform)
    }

    /// Starts Kafka's node `index` again. Returns when every partition has a leader: a broker answers
    /// requests before it leads any partition.
    pub fn start_kafka(&self, index: usize) -> Result<()> {
        self.stack.start_kafka(index)?;
        self.wait_for_leaders()
    }

    fn wait_for_leaders(&self) -> Result<()> {
        TOPICS.iter().try_for_each(|topic| topic::wait_for_leaders(self.brokers(), topic.name))
    }

    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    pub fn brokers(&self) -> &str {
        self.stack.brokers()
    }

    pub fn clickhouse(&self) -> ClickHouse {
        ClickHouse::at(self.stack.clickhouse_url())
    }

    /// The path of a file in the platform's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stack.dir().join(name)
    }

    /// Starts a consumer with [`SMALL_BATCHES`], overridden by `settings`, and returns when it has partitions.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> Result<Service> {
        let all: Vec<(&str, &str)> = SMALL_BATCHES.iter().chain(settings).copied().collect();
        self.stack.service_with("consumer", ServiceOptions { settings: &all, port: None })
    }

    /// Writes the definitions to a file and applies it. Fails if any definition is refused.
    pub fn apply(&self, definitions: &str) -> Result<()> {
        let output = self.try_apply(definitions)?;
        ensure!(
            output.status.success(),
            "the definitions are refused: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Applies the definitions and returns the output of `splitstream apply`.
    pub fn try_apply(&self, definitions: &str) -> Result<Output> {
        let file = self.path("definitions.yaml");
        std::fs::write(&file, definitions).with_context(|| format!("writing {}", file.display()))?;
        self.apply_file(&file, "test")
    }

    /// Applies a file and returns the output of `splitstream apply`.
    pub fn apply_file(&self, file: &Path, author: &str) -> Result<Output> {
        let path = file.display().to_string();
        self.program(&["apply", &path, "--author", author, "--reason", "a test"])
    }

    /// Runs a command to its end; a failure of the command is no error.
    pub fn program(&self, args: &[&str]) -> Result<Output> {
        self.program_with(args, &[])
    }

    /// Like [`Platform::program`], with `settings` in its environment.
    pub fn program_with(&self, args: &[&str], settings: &[(&str, &str)]) -> Result<Output> {
        let mut command = self.stack.command(args)?;
        command.envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn_bound(command)
            .and_then(|child| child.wait_with_output())
            .with_context(|| format!("running splitstream {}", args.join(" ")))
    }

    /// Keeps the directory, even if the test passes. Returns the directory of the logs.
    pub fn keep(&self) -> PathBuf {
        self.keep.store(true, Ordering::Relaxed);
        self.path("logs")
    }

    /// Runs the oracle on this platform.
    pub fn every_event_once(&self) -> Result<Agreement> {
        oracle::every_event_once(self.brokers(), &self.clickhouse())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the logs of the failed test are in {}", self.keep().display());
        }
        self.dir.disable_cleanup(self.keep.load(Ordering::Relaxed));
    }
}

/// Calls `condition` until it returns true; an error of it counts as false. The error after `timeout` names
/// `what`.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    every: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let answer = condition();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if started.elapsed() > timeout {
            answer.with_context(|| format!("waiting for {what}"))?;
            anyhow::bail!("{what}: not within {} s", timeout.as_secs());
        }
        std::thread::sleep(every);
    }
}
