//! A platform of its own for one test: Kafka, ClickHouse, topics and tables in a directory that is removed
//! when the test has passed and kept, with its logs, when it has failed.

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

/// The shortest session that a broker grants: after so long a killed consumer's partitions are given on.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Small batches, many of them, so that a fault at any moment meets some on their way.
pub const SMALL_BATCHES: &[(&str, &str)] = &[
    ("SPLITSTREAM_CONSUMER__SESSION_TIMEOUT_MS", "6000"),
    ("SPLITSTREAM_CONSUMER__BATCH_ROWS", "10000"),
    ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "200"),
];

/// Running servers with topics and tables.
pub struct Platform {
    // Before the directory, so that everything has stopped when that goes.
    stack: Stack,
    dir: TempDir,
    keep: AtomicBool,
}

impl Platform {
    /// One broker, one ClickHouse, no service yet.
    pub fn up() -> Result<Platform> {
        Platform::with(|options| options)
    }

    /// Like [`Platform::up`], the options changed by `change`.
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
    /// before it leads anything.
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

    /// A file in the platform's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stack.dir().join(name)
    }

    /// Starts a consumer with small batches and `settings` on top, and returns when it has partitions.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> Result<Service> {
        let all: Vec<(&str, &str)> = SMALL_BATCHES.iter().chain(settings).copied().collect();
        self.stack.service_with("consumer", ServiceOptions { settings: &all, port: None })
    }

    /// Writes the definitions to a file and applies it; an error if any is refused.
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

    /// What `splitstream apply` says of the definitions.
    pub fn try_apply(&self, definitions: &str) -> Result<Output> {
        let file = self.path("definitions.yaml");
        std::fs::write(&file, definitions).with_context(|| format!("writing {}", file.display()))?;
        self.apply_file(&file, "test")
    }

    /// What `splitstream apply` says of a file.
    pub fn apply_file(&self, file: &Path, author: &str) -> Result<Output> {
        let path = file.display().to_string();
        self.program(&["apply", &path, "--author", author, "--reason", "a test"])
    }

    /// Runs a program to its end, whatever that is.
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

    /// Keeps the directory, whatever comes. Returns where the logs are.
    pub fn keep(&self) -> PathBuf {
        self.keep.store(true, Ordering::Relaxed);
        self.path("logs")
    }

    /// The oracle's question, asked of this platform.
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

/// Asks again and again until the answer is yes; an error after `patience` says what was waited for.
pub fn wait_until(
    what: &str,
    patience: Duration,
    every: Duration,
    mut there: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = there();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > patience {
            answer.with_context(|| format!("waiting for {what}"))?;
            anyhow::bail!("{what}: not within {} s", patience.as_secs());
        }
        std::thread::sleep(every);
    }
}
