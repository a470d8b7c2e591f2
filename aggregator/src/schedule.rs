//! The schedule: round after round, each experiment that runs (or was stopped a short while ago) is
//! analyzed if anything is new. A round that fails is told and tried again, later each time; nothing that
//! ClickHouse does ends the service.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ops::{Condition, Health, Progress, Shutdown};
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::analyze::{Moment, analyze, is_current};
use crate::cut;
use crate::database::Database;
use crate::definitions;
use crate::document::{ExperimentResult, Verdict};
use crate::settings::Aggregator;
use crate::store;

/// After a failure the next round waits one interval, then twice as long each time, at most this.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A round may take this many query timeouts before the loop counts as stuck: one for each question that
/// may hang, with room.
const ROUND_TIMEOUTS: u32 = 10;

/// What the schedule tells Prometheus.
pub struct Metrics {
    analysis_seconds: Histogram,
    analyses: IntCounterVec,
    failures: IntCounter,
    last_success: Gauge,
    verdict: IntGaugeVec,
    units: IntGaugeVec,
    /// What the gauges have been set for, so that an experiment that ends takes its series along.
    shown: BTreeSet<(String, String)>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub analyzed: usize,
    /// Nothing was new for these.
    pub current: usize,
}

/// Runs until the shutdown begins.
pub async fn run(
    database: Database,
    settings: Aggregator,
    health: Health,
    mut metrics: Metrics,
    shutdown: Shutdown,
) {
    let _hold = shutdown.hold("schedule");
    let tables = health.condition("tables", "not looked for yet");
    let interval = settings.interval_ms.duration();
    let bound = settings.query_timeout_ms.duration() * ROUND_TIMEOUTS + interval + BACKOFF_MAX;
    let progress = health.progress("schedule", bound);
    let mut failures = 0;
    loop {
        let started = Instant::now();
        failures = match round(&database, &settings, &mut metrics, &progress, &shutdown).await {
            Ok(round) => {
                tracing::debug!(analyzed = round.analyzed, current = round.current, "a round is done");
                note_success(&mut metrics, &tables);
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

/// One round: the definitions, the cut, and each experiment in turn. An experiment that fails does not
/// keep the others from being analyzed; the first failure is the round's.
pub async fn round(
    database: &Database,
    settings: &Aggregator,
    metrics: &mut Metrics,
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
    let mut round = Round::default();
    let mut shown = BTreeSet::new();
    let mut first_failure = None;
    for key in followed {
        progress.touch();
        // Losing an analysis is harmless: it may have written rows of `results`, but it becomes one only
        // with its row of `analyses`, and the next start makes it anew.
        let analyzed = tokio::select! {
            analyzed = analyze_if_new(database, &moment, key, metrics) => analyzed,
            _ = shutdown.wait() => return Ok(round),
        };
        match analyzed {
            Ok((result, is_new)) => {
                if is_new {
                    round.analyzed += 1;
                } else {
                    round.current += 1;
                }
                metrics.show(&result, &mut shown);
            }
            Err(error) => {
                metrics.analyses.with_label_values(&["failed"]).inc();
                first_failure.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_failure {
        return Err(error);
    }
    metrics.forget_all_but(shown);
    Ok(round)
}

async fn analyze_if_new(
    database: &Database,
    moment: &Moment<'_>,
    key: &str,
    metrics: &Metrics,
) -> anyhow::Result<(ExperimentResult, bool)> {
    let previous = store::latest(database, key).await?;
    if let Some(previous) = previous.as_ref().filter(|previous| is_current(previous, moment)) {
        metrics.analyses.with_label_values(&["current"]).inc();
        return Ok((previous.clone(), false));
    }
    let timer = metrics.analysis_seconds.start_timer();
    let result = analyze(database, moment, key, previous.as_ref()).await?;
    store::write(database, &result).await?;
    timer.observe_duration();
    metrics.analyses.with_label_values(&["written"]).inc();
    let changed = previous.is_none_or(|previous| previous.decision.verdict != result.decision.verdict);
    if changed {
        tracing::info!(
            experiment = key,
            verdict = result.decision.verdict.as_str(),
            reason = result.decision.reason,
            "a new verdict"
        );
    }
    Ok((result, true))
}

fn note_success(metrics: &mut Metrics, tables: &Condition) {
    tables.holds();
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
                "When the last round without a failure ended.",
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
            shown: BTreeSet::new(),
        };
        for outcome in ["written", "current", "failed"] {
            metrics.analyses.with_label_values(&[outcome]).reset();
        }
        registry.register(Box::new(metrics.analysis_seconds.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.analyses.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.failures.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.last_success.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.verdict.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.units.clone())).expect(LEGAL);
        metrics
    }

    fn show(&self, result: &ExperimentResult, shown: &mut BTreeSet<(String, String)>) {
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
    fn an_interval_beyond_a_minute_is_never_shortened_by_failures() {
        assert_eq!(pause(Duration::from_secs(3_600), 5), Duration::from_secs(3_600));
    }
}
