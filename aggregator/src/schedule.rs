//! The schedule: in every round, each experiment that runs (or was stopped recently) is analyzed if anything is
//! new. A failed round is reported and tried again, with growing pauses; no failure of ClickHouse or Kafka ends
//! the service. An experiment that cannot be analyzed is named and tried again on its own, with growing pauses;
//! the other experiments go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ops::config::Kafka;
use ops::{Condition, Health, Progress, Shutdown};

use crate::config::AggregatorSection;
use crate::cut::{self, Cut};
use crate::database::Database;
use crate::definitions::{self, Definitions};
use crate::experiment_analysis::{Moment, is_current};
use crate::look_log::LookLog;
use crate::publish::{self, Published};
use crate::stale;
use crate::store::{self, Written};

mod metrics;
mod retries;

pub use metrics::Metrics;
use retries::{BACKOFF_MAX, Failing, pause};

/// A round may take this many query timeouts before the loop counts as stuck: one for each query that may hang,
/// with a margin.
const ROUND_TIMEOUTS: u32 = 10;

/// Runs until the shutdown begins. Each round reads the log of looks and the definitions and takes the cut; then each
/// experiment is counted, analyzed, decided upon, entered in the log of looks and published
/// ([`publish`](publish::publish)).
pub async fn run(
    database: Database,
    kafka: Kafka,
    settings: AggregatorSection,
    health: Health,
    metrics: Metrics,
    shutdown: Shutdown,
) {
    let _hold = shutdown.hold("schedule");
    let interval = settings.interval_ms.duration();
    let bound = settings.query_timeout_ms.duration() * ROUND_TIMEOUTS + interval + BACKOFF_MAX;
    let mut schedule = Schedule {
        tables_are_read: health.condition("tables", "not looked for yet"),
        looks_are_read: health.condition("looks", "not read yet"),
        experiments_are_analyzed: health.condition("experiments", "not analyzed yet"),
        progress: health.progress("schedule", bound),
        database,
        kafka,
        settings,
        metrics,
        log: None,
        failing: Failing::default(),
        written: BTreeMap::new(),
        stale: BTreeMap::new(),
    };
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let outcome = schedule.round(&shutdown).await;
        failures = schedule.report(outcome, failures);
        if shutdown.sleep(pause(interval, failures).saturating_sub(started.elapsed())).await {
            break;
        }
    }
    schedule.progress.done();
}

/// The outcome of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    analyzed: usize,
    /// Experiments with nothing new.
    current: usize,
    /// Experiments that could not be analyzed.
    failed: usize,
    /// Experiments that failed before and wait for their next try.
    resting: usize,
}

/// The resources of the rounds, and the state that one round leaves to the next.
struct Schedule {
    database: Database,
    kafka: Kafka,
    settings: AggregatorSection,
    metrics: Metrics,
    progress: Progress,
    tables_are_read: Condition,
    looks_are_read: Condition,
    experiments_are_analyzed: Condition,
    /// None before the first read and after a failure: then the log is read from its beginning.
    log: Option<LookLog>,
    failing: Failing,
    /// The last analysis written of each experiment.
    written: BTreeMap<String, Written>,
    /// The reason why an experiment could not be analyzed when it was last tried.
    stale: BTreeMap<String, String>,
}

impl Schedule {
    /// Runs one round. An experiment that fails does not keep the others from being analyzed.
    ///
    /// # Errors
    /// If the log of looks, the definitions or the cut cannot be read: then nothing is analyzed and the last
    /// documents stay.
    async fn round(&mut self, shutdown: &Shutdown) -> anyhow::Result<Round> {
        let mut log = self.read_looks().await?;
        let round = self.analyze_all(&mut log, shutdown).await;
        self.log = Some(log);
        round
    }

    /// Reads the log of looks up to its current end.
    async fn read_looks(&mut self) -> anyhow::Result<LookLog> {
        let read = match self.log.take() {
            Some(mut log) => log.catch_up().await.map(|()| log),
            None => LookLog::open(&self.kafka, &self.database).await,
        };
        self.metrics.looks_are_known.set(i64::from(read.is_ok()));
        match &read {
            Ok(_) => self.looks_are_read.holds(),
            Err(error) => self.looks_are_read.fails(format!("{error:#}")),
        }
        read
    }

    /// Reads the current definitions and durable offsets.
    async fn read_tables(&self) -> anyhow::Result<(Definitions, Cut)> {
        let read = async { Ok((definitions::read(&self.database).await?, cut::read(&self.database).await?)) };
        let read: anyhow::Result<(Definitions, Cut)> = read.await;
        match &read {
            Ok(_) => self.tables_are_read.holds(),
            Err(error) => self.tables_are_read.fails(format!("{error:#}")),
        }
        read
    }

    async fn analyze_all(&mut self, log: &mut LookLog, shutdown: &Shutdown) -> anyhow::Result<Round> {
        let (definitions, cut) = self.read_tables().await?;
        for why in &definitions.unreadable {
            tracing::warn!("{why}; the version before it is used, install a newer build");
        }
        let moment = Moment { definitions: &definitions, cut: &cut, as_of: cut::now()? };
        let followed = self.followed(&definitions, &moment);
        self.failing.keep_only(&followed);
        self.written.retain(|key, _| followed.contains(key.as_str()));
        self.stale.retain(|key, _| followed.contains(key.as_str()));
        let mut round = Round::default();
        self.metrics.retain(&followed);
        for key in followed {
            self.progress.touch();
            if self.failing.rests(key, Instant::now()) {
                round.resting += 1;
                continue;
            }
            // Losing an analysis is harmless: the next one publishes a look that it has written to the log.
            let analyzed = tokio::select! {
                analyzed = self.analyze_if_new(log, &moment, key) => analyzed,
                _ = shutdown.wait() => return Ok(round),
            };
            match analyzed {
                Ok((latest, is_new)) => {
                    if is_new {
                        round.analyzed += 1;
                    } else {
                        round.current += 1;
                    }
                    self.failing.forget(key);
                    self.stale.remove(key);
                    self.metrics.show(&latest.result);
                    self.written.insert(key.to_owned(), latest);
                }
                Err(error) => {
                    tracing::error!(
                        experiment = key,
                        error = %format_args!("{error:#}"),
                        "an experiment could not be analyzed; it is tried again, the last document stays"
                    );
                    // The page shows the outermost message; the log has the whole chain.
                    let why = error.to_string();
                    if let Err(error) = stale::mark(&self.database, key, &why).await {
                        let error = format_args!("{error:#}");
                        tracing::warn!(experiment = key, %error, "its last document does not say so");
                    }
                    self.stale.insert(key.to_owned(), why);
                    round.failed += 1;
                    self.failing.note(key, self.settings.interval_ms.duration(), Instant::now());
                    self.metrics.note_failure(key);
                }
            }
        }
        Ok(round)
    }

    /// Returns the experiments that are analyzed now.
    fn followed<'a>(&self, definitions: &'a Definitions, moment: &Moment<'_>) -> BTreeSet<&'a str> {
        let follow_ms = i64::try_from(self.settings.follow_stopped_hours.get() * 3_600_000)
            .expect("the setting's bound is a year");
        let now_ms = moment.as_of.millis();
        let experiments = definitions.experiments.iter();
        experiments
            .filter(|(_, of)| {
                of.is_followed(now_ms, follow_ms, definitions.longest_window_ms(&of.definition))
            })
            .map(|(key, _)| key.as_str())
            .collect()
    }

    /// Returns the latest analysis of one experiment, and whether this round made it.
    async fn analyze_if_new(
        &mut self,
        log: &mut LookLog,
        moment: &Moment<'_>,
        key: &str,
    ) -> anyhow::Result<(Written, bool)> {
        let before = match self.written.remove(key) {
            Some(before) => Some(before),
            None => store::last_written(&self.database, key).await?,
        };
        if let Some(current) = before.as_ref().filter(|before| is_current(&before.result, moment)) {
            self.metrics.note_current();
            return Ok((current.clone(), false));
        }
        let timer = self.metrics.analysis_seconds.start_timer();
        let every = self.settings.document_interval_ms.duration();
        let published = publish::publish(&self.database, log, moment, key, before.as_ref(), every).await?;
        timer.observe_duration();
        let Published { written, looks, lost } = published;
        self.metrics.note_analysis(looks, lost);
        let decision = &written.result.decision;
        if before.is_none_or(|before| before.result.decision.verdict != decision.verdict) {
            tracing::info!(
                experiment = key,
                verdict = decision.verdict.as_str(),
                reason = decision.reason,
                "a new verdict"
            );
        }
        Ok((written, true))
    }

    /// Reports the outcome of a round. Returns how many rounds have failed in a row.
    fn report(&mut self, outcome: anyhow::Result<Round>, failures: u32) -> u32 {
        self.progress.touch();
        match outcome {
            Ok(Round { analyzed, current, failed, resting }) => {
                tracing::debug!(analyzed, current, failed, resting, "a round is done");
                match stale::remark(&self.stale) {
                    None => self.experiments_are_analyzed.holds(),
                    Some(remark) => self.experiments_are_analyzed.holds_but(remark),
                }
                if failed + resting == 0 || analyzed + current > 0 {
                    self.metrics.note_success();
                }
                0
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "a round failed; it is tried again");
                self.metrics.failures.inc();
                failures + 1
            }
        }
    }
}
