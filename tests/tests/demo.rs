//! Runs the demo and compares the numbers in its document with those in the README of the data, and those of the live
//! experiment with what its seed gives: once undisturbed, and once while the consumer and ClickHouse are killed from
//! outside.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local::process::spawn_bound;
use local::programs;
use local::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::ClickHouse;

/// A variant with its units and conversions.
type Arm = (&'static str, u64, u64);

/// The numbers in the README of the data: units and conversions of each arm, z and the two-sided p to four
/// digits.
const CAMPAIGNS: [(&str, [Arm; 2], &str, &str); 3] = [
    ("open_bandit_all", [("random", 10_000, 38), ("bts", 10_000, 42)], "0.4481", "0.6541"),
    ("open_bandit_men", [("random", 10_000, 46), ("bts", 10_000, 69)], "2.1510", "0.0315"),
    ("open_bandit_women", [("random", 10_000, 46), ("bts", 10_000, 46)], "0.0000", "1.0000"),
];

/// What the seed of the live experiment gives for 20,000 visitors, whoever assigns them.
const LIVE: [Arm; 2] = [("control", 10_038, 507), ("treatment", 9_962, 549)];

/// The demo takes a minute and a half on two idle cores; the programs are built before it starts.
const TIMEOUT: Duration = Duration::from_secs(420);
const POLL: Duration = Duration::from_millis(20);

#[test]
fn the_demo_gives_the_numbers_of_the_data() {
    let mut demo = Demo::start();
    demo.expect_success();
    check(&demo.document());
}

#[test]
fn the_demo_gives_the_same_numbers_while_the_consumer_and_clickhouse_are_killed() {
    let mut demo = Demo::start();
    // The kills happen while the exposures are being stored.
    for (part, rows) in [("consumer", 1), ("clickhouse", 15_000), ("consumer", 30_000)] {
        demo.wait_for_rows(rows);
        demo.kill(part);
    }
    demo.expect_success();
    check(&demo.document());
    for part in ["consumer", "clickhouse"] {
        assert!(demo.log().contains(&format!("{part} ended (signal: 9")), "{}", demo.log());
    }
}

fn check(document: &Value) {
    check_live(document);
    for (key, arms, z, p_value) in CAMPAIGNS {
        let experiments = document["experiments"].as_array().unwrap();
        let experiment = experiments.iter().find(|found| found["key"] == key).unwrap();
        assert_eq!(arms_of(&experiment["variants"]), arms, "{key}");
        let number = |name: &str| format!("{:.4}", experiment["test"][name].as_f64().unwrap());
        assert_eq!((number("z").as_str(), number("p_value").as_str()), (z, p_value), "{key}");
        // No variant is shipped, since no always-valid interval excludes zero.
        assert_eq!(experiment["decision"]["verdict"], "keep_running", "{key}");
    }
    let men = &document["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["key"] == "open_bandit_men")
        .unwrap()["decision"]["reason"];
    let reason = men.as_str().unwrap();
    // One sentence with the p-value, the missing horizon, and the interval that decides instead.
    for part in ["0.03", "horizon", "always-valid"] {
        assert!(reason.contains(part), "{reason:?} does not contain {part:?}");
    }
}

/// The visitors of the live experiment asked the edge, and what it accepted is what was counted.
fn check_live(document: &Value) {
    let live = &document["live"];
    assert_eq!(live["through"], "edge");
    assert_eq!(arms_of(&live["variants"]), LIVE);
    let experiments = document["experiments"].as_array().unwrap();
    let experiment = experiments.iter().find(|found| found["key"] == "checkout_button").unwrap();
    assert_eq!(arms_of(&experiment["variants"]), LIVE);
    assert_eq!(live["edge"]["evaluations"], 20_000);
    assert_eq!((&live["exposures"], &live["conversions"]), (&Value::from(20_000), &Value::from(1_056)));
    // What was stored is compared with this by the demo itself.
    assert_eq!(live["stored"], json!({"exposures": 20_000, "conversions": 1_056}));
}

fn arms_of(variants: &Value) -> Vec<(&str, u64, u64)> {
    let variants = variants.as_array().unwrap().iter();
    variants
        .map(|variant| {
            let count = |name: &str| variant[name].as_u64().unwrap();
            (variant["key"].as_str().unwrap(), count("units"), count("conversions"))
        })
        .collect()
}

/// A run of `splitstream demo --exit --json`.
struct Demo {
    child: Child,
    dir: Option<TempDir>,
}

impl Demo {
    fn start() -> Demo {
        programs::ensure_built().unwrap();
        let directory = tempfile::Builder::new().prefix("splitstream-demo-").tempdir().unwrap();
        let dir = directory.path();
        let log = OpenOptions::new().create(true).append(true).open(dir.join("demo.log")).unwrap();
        let mut command = Command::new(programs::path(programs::SPLITSTREAM).unwrap());
        command.env(programs::FOR_TESTS, "1");
        command
            .args(["demo", "--exit", "--dir"])
            .arg(dir.join("stack"))
            .arg("--json")
            .arg(dir.join("document.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Demo { child: spawn_bound(command).unwrap(), dir: Some(directory) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().expect("only drop takes it").path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("demo.log")).unwrap()
    }

    fn document(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("document.json")).unwrap()).unwrap()
    }

    fn expect_success(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "the demo still runs:\n{}", self.log());
            std::thread::sleep(POLL);
        };
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    fn wait_for_rows(&mut self, rows: u64) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            assert_eq!(self.ended(), None, "{}", self.log());
            assert!(Instant::now() < deadline, "{rows} rows were not stored:\n{}", self.log());
            let found = self.state().and_then(|state| {
                let clickhouse = ClickHouse::at(&state.clickhouse);
                clickhouse.number("SELECT count() FROM exposures", &[]).ok()
            });
            if found.is_some_and(|found| found >= rows) {
                return;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends SIGKILL to a part, whose pid is in the state file.
    fn kill(&self, part: &str) {
        let state = self.state().unwrap();
        let found = state.parts.iter().find(|found| found.name == part).unwrap();
        assert!(found.process.is_alive(), "{part} is not running");
        kill(Pid::from_raw(i32::try_from(found.process.pid).unwrap()), Signal::SIGKILL).unwrap();
    }

    fn state(&self) -> Option<State> {
        State::load(&self.path("stack")).unwrap()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The kernel kills its parts with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("the logs of the failed test are in {}", dir.keep().display());
        }
    }
}
