//! The live experiment: simulated visitors of a checkout arrive at a steady rate and ask the edge, as a service in any
//! language would, and the true purchase rates of the variants differ. Meanwhile the aggregator analyzes the data again
//! and again, and the page shows the results. In the end every number is compared with what the edge has accepted.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::open_bandit::Arm;
use super::stored_rows::{self, Rows};
use crate::interrupt;
use crate::process::spawn_bound;
use crate::retry::retry;
use crate::services::TOKEN_FILE;
use crate::stack::Stack;
use crate::state::State;
use fetch::progress::print_line;

/// The definitions of the metric and the experiment.
pub const DEFINITIONS: &str = include_str!("../../live/definitions.yaml");

pub const EXPERIMENT: &str = "checkout_button";

/// The true rates, whose difference the analysis should detect: 5.0 % against 5.8 %.
const RATES: &str = "control=0.05,treatment=0.058";

/// The variable of the token that `splitstream simulate` shows to an edge.
const TOKEN: &str = "SPLITSTREAM_TOKEN";

const SEED: &str = "20191124";

/// The time between two requests for the latest result.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(100);

/// How long the analysis may take to count the last visitor.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// The number of visitors and the rate of their events.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub units: u64,
    pub events_per_second: u64,
}

/// What the live experiment got, and by which way.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    through: &'static str,
    #[serde(flatten)]
    pub sent: Sent,
    /// The rows of the edge's events in ClickHouse.
    stored: Rows,
}

/// What the visitors sent, as `splitstream simulate --json` reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Visitors that arrived.
    pub units: u64,
    /// Exposures that the edge has accepted; it logs each visitor once.
    pub exposures: u64,
    pub conversions: u64,
    /// The time of the first visitor of the last attempt, RFC 3339.
    start: String,
    batch_id: String,
    variants: Vec<SentVariant>,
    /// There because the traffic goes through an edge.
    pub edge: Edge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SentVariant {
    key: String,
    units: u64,
    conversions: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    url: String,
    connections: u64,
    evaluations: u64,
    conversions: u64,
    requests: u64,
    /// Requests that were sent again, with the same bytes, as the edge was away or busy.
    resent: u64,
    pub requests_per_second: f64,
}

impl Sent {
    fn arms(&self) -> BTreeMap<String, Arm> {
        let arm = |variant: &SentVariant| Arm { units: variant.units, conversions: variant.conversions };
        self.variants.iter().map(|variant| (variant.key.clone(), arm(variant))).collect()
    }
}

/// Refuses an edge that asks for a token which the visitors do not have.
pub fn check_token() -> Result<()> {
    let missing = std::env::var_os(TOKEN_FILE).is_some() && std::env::var_os(TOKEN).is_none();
    ensure!(
        !missing,
        "{TOKEN_FILE} is set, so that the edge asks for a token, and {TOKEN} is not: set it to the secret of a server \
         token for the simulated visitors, or unset {TOKEN_FILE}"
    );
    Ok(())
}

/// Simulates the visitors and prints the aggregator's results meanwhile. Returns when the aggregator has
/// counted all visitors and purchases, and every event is stored once.
pub fn run(stack: &Stack, traffic: Traffic) -> Result<Live> {
    let mut simulation = Simulation::start(stack, traffic)?;
    let mut printed = BTreeMap::new();
    let mut all_sent: Option<Instant> = None;
    loop {
        let counted = print_latest(stack, &mut printed)?;
        if simulation.finished()? {
            let sent = simulation.sent()?;
            let stored = retry(|| stored_rows::of_edge(stack, EXPERIMENT, &sent.batch_id, simulation.since))?;
            if counted == sent.arms() && is_complete(stored, &sent, simulation.attempts)? {
                return Ok(Live { through: "edge", sent, stored });
            }
            let since = all_sent.get_or_insert_with(Instant::now);
            if since.elapsed() > CATCH_UP_TIMEOUT {
                bail!(
                    "the aggregator has {counted:?} and ClickHouse {stored:?}, where the edge accepted {:?}, {} s after \
                     the last one{}",
                    sent.arms(),
                    CATCH_UP_TIMEOUT.as_secs(),
                    resent(&sent)
                );
            }
        }
        pause(LOOK_INTERVAL)?;
    }
}

/// Returns whether every event that the edge accepted is stored. Fails if one is stored twice.
fn is_complete(stored: Rows, sent: &Sent, attempts: u32) -> Result<bool> {
    let accepted = Rows { exposures: sent.exposures, conversions: sent.conversions };
    // An edge that was killed does not know what it has logged, nor does a second run of the visitors what they bought in
    // the first one. Such rows are repeats, and the aggregator counts none of them. A living edge logs no visitor of the
    // first run again: the rows of all runs are the ones to count.
    let repeats_explained = attempts > 1 || sent.edge.resent > 0;
    let repeats = stored.exposures > accepted.exposures || stored.conversions > accepted.conversions;
    ensure!(
        repeats_explained || !repeats,
        "ClickHouse holds {stored:?} where the edge accepted {accepted:?}: some event was stored twice"
    );
    Ok(stored.exposures >= accepted.exposures && stored.conversions >= accepted.conversions)
}

fn resent(sent: &Sent) -> String {
    match sent.edge.resent {
        0 => String::new(),
        resent => format!(
            "; {resent} requests were sent again, and an edge that is killed loses the exposures of its last 100 ms"
        ),
    }
}

/// Prints the latest result if its counts differ from `printed`. Returns its counts.
fn print_latest(stack: &Stack, printed: &mut BTreeMap<String, Arm>) -> Result<BTreeMap<String, Arm>> {
    // Asks for all experiments: a request for one that has not been analyzed yet is refused.
    let output = retry(|| stack.run(&["results", "--json"]))?;
    let document = Document::parse(&output.stdout)?;
    let counted = document.arms(EXPERIMENT);
    let Some(experiment) = document.experiment(EXPERIMENT).filter(|_| counted != *printed) else {
        return Ok(counted);
    };
    printed.clone_from(&counted);
    let arms: Vec<String> = experiment
        .variants
        .iter()
        .map(|variant| {
            format!("{} {} of {} ({})", variant.key, variant.conversions, variant.units, variant.rate())
        })
        .collect();
    print_line(&format!(
        "{}, lift {}, {}",
        arms.join(", "),
        experiment.interval(),
        experiment.decision.verdict
    ));
    Ok(counted)
}

/// A run of `splitstream simulate`. If it fails, it is started again with the same seed: the same visitors do the same.
struct Simulation<'a> {
    stack: &'a Stack,
    /// Where visitors ask the edge.
    edge: String,
    traffic: Traffic,
    running: Option<Child>,
    attempts: u32,
    /// Before the first visitor of the first attempt.
    since: SystemTime,
}

/// How often the simulation is started before its failure is an error.
const ATTEMPTS_MAX: u32 = 5;

impl Simulation<'_> {
    fn start(stack: &Stack, traffic: Traffic) -> Result<Simulation<'_>> {
        let state = State::load(stack.dir())?.context("the stack has no state")?;
        let since = SystemTime::now();
        let mut simulation =
            Simulation { stack, edge: state.edge, traffic, running: None, attempts: 0, since };
        simulation.spawn()?;
        Ok(simulation)
    }

    /// Returns whether all events have been sent. Starts the simulation again if it failed.
    fn finished(&mut self) -> Result<bool> {
        let Some(child) = &mut self.running else { return Ok(true) };
        match child.try_wait().context("waiting for `splitstream simulate`")? {
            None => Ok(false),
            Some(status) => self.handle_exit(status),
        }
    }

    /// What the finished run reports as accepted.
    fn sent(&self) -> Result<Sent> {
        let path = self.summary_path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
    }

    fn handle_exit(&mut self, status: ExitStatus) -> Result<bool> {
        self.running = None;
        if status.success() {
            return Ok(true);
        }
        let log = self.log_path();
        ensure!(
            self.attempts < ATTEMPTS_MAX,
            "`splitstream simulate` failed {ATTEMPTS_MAX} times ({status}); its log is {log}"
        );
        print_line(&format!(
            "`splitstream simulate` ended ({status}); starting it again with the same visitors"
        ));
        self.spawn()?;
        Ok(false)
    }

    fn spawn(&mut self) -> Result<()> {
        self.attempts += 1;
        let log = self.log_path();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log {log}"))?;
        let units = self.traffic.units.to_string();
        let rate = self.traffic.events_per_second.to_string();
        let mut command = self.stack.command(&[
            "simulate",
            "--edge",
            &self.edge,
            "--experiment",
            EXPERIMENT,
            "--event",
            "purchase",
            "--rates",
            RATES,
            "--seed",
            SEED,
            "--units",
            &units,
            "--rate",
            &rate,
            "--delay",
            "2",
            "--json",
        ])?;
        let path = self.summary_path();
        let summary = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(summary).stderr(log);
        self.running = Some(spawn_bound(command).context("starting `splitstream simulate`")?);
        Ok(())
    }

    fn summary_path(&self) -> PathBuf {
        self.stack.dir().join("logs/simulate.json")
    }

    fn log_path(&self) -> String {
        self.stack.dir().join("logs/producer.log").display().to_string()
    }
}

impl Drop for Simulation<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            // Nobody needs the rest of the traffic, so neither failure matters.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sleeps; fails as soon as a signal is received.
fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        std::thread::sleep(POLL.min(time));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(resent: u64) -> Sent {
        let edge = serde_json::json!({
            "url": "", "connections": 1, "evaluations": 20, "conversions": 2, "requests": 22, "resent": resent,
            "requests_per_second": 1.0,
        });
        let sent = serde_json::json!({
            "units": 20, "exposures": 20, "conversions": 2, "start": "", "batch_id": "sim-1", "variants": [],
            "edge": edge,
        });
        serde_json::from_value(sent).unwrap()
    }

    /// Once only the rows since the second attempt were counted, and the living edge logged nobody again: the wait had no end.
    #[test]
    fn more_rows_than_were_accepted_are_repeats_only_after_a_fault() {
        let rows = |exposures, conversions| Rows { exposures, conversions };
        assert!(!is_complete(rows(19, 2), &sent(0), 1).unwrap());
        assert!(is_complete(rows(20, 2), &sent(0), 1).unwrap());
        let error = is_complete(rows(20, 3), &sent(0), 1).unwrap_err().to_string();
        assert!(error.ends_with("some event was stored twice"), "{error}");
        // The visitors of a first attempt, which ended early, had bought three things.
        assert!(is_complete(rows(20, 5), &sent(0), 2).unwrap());
        assert!(is_complete(rows(21, 2), &sent(1), 1).unwrap());
    }
}
