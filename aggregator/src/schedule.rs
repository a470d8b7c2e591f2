//! The schedule: round after round, each experiment that runs (or was stopped a short while ago) is
//! analyzed if anything is new. A round that fails is told and tried again, later each time; nothing that
//! ClickHouse does ends the service. An experiment that cannot be analyzed is tried again by itself, later
//! each time, and named; the others, and the service, are not its business.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ops::config::Kafka;
use ops::{Health, Progress, Shutdown};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::analyze::{Moment, is_current};
use crate::cut;
use crate::database::Database;
use crate::definitions;
use crate::document::{ExperimentResult, Verdict};
use crate::looks::LookLog;
use crate::publish::{self, Published};
use crate::settings::Aggregator;
use crate::store::{self, Written};

/// After a failure the next round waits one interval, then twice as long each time, at most this.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A round may take this many query timeouts before the loop counts as stuck: one for each question that
/// may hang, with room.
const ROUND_TIMEOUTS: u32 = 10;

/// `/readyz` names so many experiments that cannot be analyzed, so that its answer stays short; metrics name all.
const TOLD_MAX: usize = 20;

/// What the schedule tells Prometheus.
pub struct Metrics {
    analysis_seconds: Histogram,
    analyses: IntCounterVec,
    failures: IntCounter,
    last_success: Gauge,
    verdict: IntGaugeVec,
    units: IntGaugeVec,
    /// 1 for an experiment that cannot be analyzed at the moment.
    failing: IntGaugeVec,
    looks: IntCounterVec,
    /// 1 while the log of looks can be read and holds all that its mirror has seen.
    looks_are_known: IntGauge,
    /// What the gauges have been set for, so that an experiment that ends takes its series along.
    shown: BTreeSet<(String, String)>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub analyzed: usize,
    /// Nothing was new for these.
    pub current: usize,
    /// These could not be analyzed.
    pub failed: usize,
    /// These failed before and rest until they are tried again.
    pub resting: usize,
}

/// The experiments that could not be analyzed when they were last tried.
#[derive(Debug, Default)]
pub struct Failing(BTreeMap<String, Failure>);

#[derive(Debug)]
struct Failure {
    times: u32,
    tried_again: Instant,
}

impl Failing {
    fn rests(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|failure| now < failure.tried_again)
    }

    fn note(&mut self, key: &str, interval: Duration, now: Instant) {
        let failure = self.0.entry(key.to_owned()).or_insert(Failure { times: 0, tried_again: now });
        failure.times += 1;
        // A little less than the pause, so that the round that begins then does try it.
        failure.tried_again = now + pause(interval, failure.times) - interval / 2;
    }

    fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn keep_only(&mut self, followed: &BTreeSet<&str>) {
        self.0.retain(|key, _| followed.contains(key.as_str()));
    }
}

/// What one round leaves to the next.
struct State {
    /// None until it was read, and after it failed: then it is read from its beginning again.
    looks: Option<LookLog>,
    failing: Failing,
    /// What was written last of each experiment.
    written: BTreeMap<String, Written>,
    /// Why an experiment could not be analyzed when it was last tried.
    stale: BTreeMap<String, String>,
}

/// Runs until the shutdown begins.
pub async fn run(
    database: Database,
    kafka: Kafka,
    settings: Aggregator,
    health: Health,
    mut metrics: Metrics,
    shutdown: Shutdown,
) {
    let _hold = shutdown.hold("schedule");
    let tables = health.condition("tables", "not looked for yet");
    let looks = health.condition("looks", "not read yet");
    let experiments = health.condition("experiments", "not analyzed yet");
    let interval = settings.interval_ms.duration();
    let bound = settings.query_timeout_ms.duration() * ROUND_TIMEOUTS + interval + BACKOFF_MAX;
    let progress = health.progress("schedule", bound);
    let mut failures = 0;
    let mut state =
        State { looks: None, failing: Failing::default(), written: BTreeMap::new(), stale: BTreeMap::new() };
    loop {
        let started = Instant::now();
        let read = read_looks(&kafka, &database, &mut state.looks).await;
        metrics.looks_are_known.set(i64::from(read.is_ok()));
        match &read {
            Ok(()) => looks.holds(),
            Err(error) => looks.fails(format!("{error:#}")),
        }
        let outcome = match read {
            Ok(()) => round(&database, &settings, &mut metrics, &mut state, &progress, &shutdown).await,
            Err(error) => Err(error),
        };
        failures = match outcome {
            Ok(round) => {
                let Round { analyzed, current, failed, resting } = round;
                tracing::debug!(analyzed, current, failed, resting, "a round is done");
                tables.holds();
                match remark(&state.stale) {
                    None => experiments.holds(),
                    Some(remark) => experiments.holds_but(remark),
                }
                if failed + resting == 0 || analyzed + current > 0 {
                    note_success(&metrics);
                }
                0
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "a round failed; it is tried again");
                metrics.failures.inc();
                tables.fails(format!("{error:#}"));
                failures + 1
            }
        };
        progress.touch();
        let pause = pause(interval, failures).saturating_sub(started.elapsed());
        if shutdown.sleep(pause).await {
            break;
        }
    }
    progress.done();
}

/// The log of looks as it is now. Without it nothing is decided: the last documents stay.
async fn read_looks(kafka: &Kafka, database: &Database, looks: &mut Option<LookLog>) -> anyhow::Result<()> {
    match looks {
        Some(log) => {
            if let Err(error) = log.catch_up().await {
                *looks = None;
                return Err(error);
            }
        }
        None => *looks = Some(LookLog::open(kafka, database).await?),
    }
    Ok(())
}

/// One round: the definitions, the cut, and each experiment in turn. An experiment that fails does not
/// keep the others from being analyzed.
///
/// # Errors
/// Where definitions or cut cannot be read: then nothing is analyzed.
async fn round(
    database: &Database,
    settings: &Aggregator,
    metrics: &mut Metrics,
    state: &mut State,
    progress: &Progress,
    shutdown: &Shutdown,
) -> anyhow::Result<Round> {
    let definitions = definitions::read(database).await?;
    for why in &definitions.unreadable {
        tracing::warn!("{why}; the version before it is used, install a newer build");
    }
    let cut = cut::read(database).await?;
    let moment = Moment { definitions: &definitions, cut: &cut, as_of: cut::now()? };
    let follow_ms = i64::try_from(settings.follow_stopped_hours.get() * 3_600_000)
        .expect("the setting's bound is a year");
    let followed = definitions
        .experiments
        .iter()
        .filter(|(_, defined)| defined.is_followed(moment.as_of.millis(), follow_ms))
        .map(|(key, _)| key.as_str());
    let followed: BTreeSet<&str> = followed.collect();
    let State { looks: Some(log), failing, written, stale } = state else {
        anyhow::bail!("the log of looks was not read");
    };
    failing.keep_only(&followed);
    written.retain(|key, _| followed.contains(key.as_str()));
    stale.retain(|key, _| followed.contains(key.as_str()));
    let mut round = Round::default();
    let mut shown = BTreeSet::new();
    for key in followed {
        progress.touch();
        if failing.rests(key, Instant::now()) {
            round.resting += 1;
            metrics.keep(key, &mut shown);
            continue;
        }
        // Losing an analysis is harmless: a look that it has put into the log is told of by the next one.
        let analyzed = tokio::select! {
            analyzed = analyze_if_new(database, settings, log, &moment, key, written.remove(key), metrics) => analyzed,
            _ = shutdown.wait() => return Ok(round),
        };
        match analyzed {
            Ok((latest, is_new)) => {
                if is_new {
                    round.analyzed += 1;
                } else {
                    round.current += 1;
                }
                failing.forget(key);
                stale.remove(key);
                metrics.show(&latest.result, &mut shown);
                written.insert(key.to_owned(), latest);
            }
            Err(error) => {
                tracing::error!(
                    experiment = key,
                    error = %format_args!("{error:#}"),
                    "an experiment could not be analyzed; it is tried again, the last document stays"
                );
                // The outermost sentence, for whoever sees the page; the log has all of it.
                let why = error.to_string();
                if let Err(error) = crate::stale::tell(database, key, &why).await {
                    tracing::warn!(experiment = key, error = %format_args!("{error:#}"), "its last document does not say so");
                }
                stale.insert(key.to_owned(), why);
                round.failed += 1;
                failing.note(key, settings.interval_ms.duration(), Instant::now());
                metrics.analyses.with_label_values(&["failed"]).inc();
                metrics.failing.with_label_values(&[key]).set(1);
                metrics.keep(key, &mut shown);
            }
        }
    }
    metrics.forget_all_but(shown);
    Ok(round)
}

async fn analyze_if_new(
    database: &Database,
    settings: &Aggregator,
    log: &mut LookLog,
    moment: &Moment<'_>,
    key: &str,
    before: Option<Written>,
    metrics: &Metrics,
) -> anyhow::Result<(Written, bool)> {
    let before = match before {
        Some(before) => Some(before),
        None => store::last_written(database, key).await?,
    };
    if let Some(current) = before.as_ref().filter(|before| is_current(&before.result, moment)) {
        metrics.analyses.with_label_values(&["current"]).inc();
        return Ok((current.clone(), false));
    }
    let timer = metrics.analysis_seconds.start_timer();
    let every = settings.document_interval_ms.duration();
    let published = publish::publish(database, log, moment, key, before.as_ref(), every).await?;
    timer.observe_duration();
    let Published { written, looks, lost } = published;
    metrics.analyses.with_label_values(&["written"]).inc();
    metrics.looks.with_label_values(&["recorded"]).inc_by(looks.into());
    metrics.looks.with_label_values(&["lost"]).inc_by(lost.into());
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

/// What `/readyz` tells of experiments whose document is an earlier one.
fn remark(stale: &BTreeMap<String, String>) -> Option<String> {
    let told: Vec<String> =
        stale.iter().take(TOLD_MAX).map(|(key, why)| format!("`{key}` cannot be analyzed: {why}")).collect();
    let more = stale.len() - told.len();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!told.is_empty()).then(|| format!("{}{more}", told.join("; ")))
}

fn note_success(metrics: &Metrics) {
    metrics.last_success.set(jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0);
}

/// From the start of a round to the start of the next, after so many failures in a row.
fn pause(interval: Duration, failures: u32) -> Duration {
    match failures {
        0 | 1 => interval,
        // 2^10 intervals of a tenth of a second are beyond the bound already.
        more => (interval * 2u32.pow((more - 1).min(10))).min(BACKOFF_MAX.max(interval)),
    }
}

impl Metrics {
    /// # Panics
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Metrics {
        const LEGAL: &str = "the names are legal and used once";
        let buckets = vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
        let metrics = Metrics {
            analysis_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "aggregator_analysis_seconds",
                    "Time to count, analyze and store one experiment.",
                )
                .buckets(buckets),
            )
            .expect(LEGAL),
            analyses: IntCounterVec::new(
                Opts::new("aggregator_analyses_total", "Experiments looked at: written, current or failed."),
                &["outcome"],
            )
            .expect(LEGAL),
            failures: IntCounter::new(
                "aggregator_failed_rounds_total",
                "Rounds that failed and were tried again.",
            )
            .expect(LEGAL),
            last_success: Gauge::new(
                "aggregator_last_success_timestamp_seconds",
                "When the last round ended in which not all experiments failed.",
            )
            .expect(LEGAL),
            verdict: IntGaugeVec::new(
                Opts::new(
                    "aggregator_verdict",
                    "1 for the verdict that an experiment has, 0 for the others.",
                ),
                &["experiment", "verdict"],
            )
            .expect(LEGAL),
            units: IntGaugeVec::new(
                Opts::new("aggregator_units", "Units counted in a variant."),
                &["experiment", "variant"],
            )
            .expect(LEGAL),
            failing: IntGaugeVec::new(
                Opts::new(
                    "aggregator_experiment_failing",
                    "1 for an experiment that could not be analyzed when it was last tried.",
                ),
                &["experiment"],
            )
            .expect(LEGAL),
            looks: IntCounterVec::new(
                Opts::new(
                    "aggregator_looks_total",
                    "Looks for the log of looks: recorded, or lost to another aggregator that looked first.",
                ),
                &["outcome"],
            )
            .expect(LEGAL),
            looks_are_known: IntGauge::new(
                "aggregator_look_log_ok",
                "1 while the log of looks can be read and holds what its mirror has seen; else nothing is decided.",
            )
            .expect(LEGAL),
            shown: BTreeSet::new(),
        };
        for outcome in ["recorded", "lost"] {
            metrics.looks.with_label_values(&[outcome]).reset();
        }
        for outcome in ["written", "current", "failed"] {
            metrics.analyses.with_label_values(&[outcome]).reset();
        }
        registry.register(Box::new(metrics.analysis_seconds.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.analyses.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.failures.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.last_success.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.verdict.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.units.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.failing.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.looks.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.looks_are_known.clone())).expect(LEGAL);
        metrics
    }

    /// The series of an experiment stay as they are.
    fn keep(&self, key: &str, shown: &mut BTreeSet<(String, String)>) {
        shown.extend(self.shown.iter().filter(|(experiment, _)| experiment == key).cloned());
    }

    fn show(&self, result: &ExperimentResult, shown: &mut BTreeSet<(String, String)>) {
        self.failing.with_label_values(&[result.key.as_str()]).set(0);
        for verdict in Verdict::ALL {
            let holds = i64::from(verdict == result.decision.verdict);
            self.verdict.with_label_values(&[result.key.as_str(), verdict.as_str()]).set(holds);
        }
        for variant in &result.variants {
            let units = i64::try_from(variant.units).unwrap_or(i64::MAX);
            self.units.with_label_values(&[result.key.as_str(), variant.key.as_str()]).set(units);
            shown.insert((result.key.clone(), variant.key.clone()));
        }
    }

    fn forget_all_but(&mut self, shown: BTreeSet<(String, String)>) {
        for (experiment, variant) in self.shown.difference(&shown) {
            // A failure means that there is no such series, which is what is wanted.
            let _ = self.units.remove_label_values(&[experiment.as_str(), variant.as_str()]);
            if shown.iter().all(|(of, _)| of != experiment) {
                for verdict in Verdict::ALL {
                    let _ = self.verdict.remove_label_values(&[experiment.as_str(), verdict.as_str()]);
                }
                let _ = self.failing.remove_label_values(&[experiment.as_str()]);
            }
        }
        self.shown = shown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_later_each_time_up_to_a_minute() {
        let seconds = |failures| pause(Duration::from_secs(10), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 40].map(seconds), [10, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn an_experiment_that_fails_rests_longer_each_time_and_alone() {
        let (interval, start) = (Duration::from_secs(10), Instant::now());
        let mut failing = Failing::default();
        let rest =
            |failing: &Failing| (0..200).find(|s| !failing.rests("one", start + Duration::from_secs(*s)));
        let rests = [0; 5].map(|_| {
            failing.note("one", interval, start);
            rest(&failing)
        });
        assert_eq!(rests, [Some(5), Some(15), Some(35), Some(55), Some(55)]);
        assert!(!failing.rests("other", start));
        failing.forget("one");
        assert_eq!(rest(&failing), Some(0));
        failing.note("one", interval, start);
        failing.keep_only(&BTreeSet::from(["other"]));
        assert_eq!(rest(&failing), Some(0));
    }

    #[test]
    fn readiness_names_the_experiments_that_cannot_be_analyzed() {
        let stale = |keys: usize| -> BTreeMap<String, String> {
            (0..keys).map(|key| (format!("e{key:02}"), "look 2 cannot be read".to_owned())).collect()
        };
        assert_eq!(remark(&stale(0)), None);
        assert_eq!(
            remark(&stale(2)).unwrap(),
            "`e00` cannot be analyzed: look 2 cannot be read; `e01` cannot be analyzed: look 2 cannot be read"
        );
        assert!(
            remark(&stale(22))
                .unwrap()
                .ends_with("`e19` cannot be analyzed: look 2 cannot be read; and 2 more")
        );
    }

    #[test]
    fn an_interval_beyond_a_minute_is_never_shortened_by_failures() {
        assert_eq!(pause(Duration::from_secs(3_600), 5), Duration::from_secs(3_600));
    }
}
