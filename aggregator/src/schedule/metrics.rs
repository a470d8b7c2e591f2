//! The metrics of the schedule and its experiments. This module knows no analysis, only its result. A new
//! metric is registered here and explained in `deploy/operations/README.md`, which a test compares.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::document::{ExperimentResult, Verdict};

/// The metrics of the schedule.
pub struct Metrics {
    pub(super) analysis_seconds: Histogram,
    analyses: IntCounterVec,
    pub(super) failures: IntCounter,
    last_success: Gauge,
    verdict: IntGaugeVec,
    units: IntGaugeVec,
    /// 1 for an experiment that cannot be analyzed at the moment.
    failing: IntGaugeVec,
    looks: IntCounterVec,
    /// 1 while the log of looks can be read and has everything that its mirror has seen.
    pub(super) looks_are_known: IntGauge,
    /// The experiments that have gauges, with their variants, so that the series of an experiment are removed when it
    /// ends.
    shown: BTreeMap<String, BTreeSet<String>>,
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
            shown: BTreeMap::new(),
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

    /// Counts an experiment with nothing new.
    pub(super) fn note_current(&self) {
        self.analyses.with_label_values(&["current"]).inc();
    }

    /// Counts an analyzed experiment, its looks recorded, and its looks lost to another aggregator.
    pub(super) fn note_analysis(&self, recorded: u32, lost: u32) {
        self.analyses.with_label_values(&["written"]).inc();
        self.looks.with_label_values(&["recorded"]).inc_by(recorded.into());
        self.looks.with_label_values(&["lost"]).inc_by(lost.into());
    }

    /// Counts an experiment that could not be analyzed.
    pub(super) fn note_failure(&mut self, key: &str) {
        self.analyses.with_label_values(&["failed"]).inc();
        self.failing.with_label_values(&[key]).set(1);
        self.shown.entry(key.to_owned()).or_default();
    }

    pub(super) fn note_success(&self) {
        self.last_success.set(jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0);
    }

    /// Shows the result of an experiment, which is not failing then.
    pub(super) fn show(&mut self, result: &ExperimentResult) {
        let key = result.key.as_str();
        self.failing.with_label_values(&[key]).set(0);
        for verdict in Verdict::ALL {
            let holds = i64::from(verdict == result.decision.verdict);
            self.verdict.with_label_values(&[key, verdict.as_str()]).set(holds);
        }
        let mut variants = BTreeSet::new();
        for variant in &result.variants {
            let units = i64::try_from(variant.units).unwrap_or(i64::MAX);
            self.units.with_label_values(&[key, variant.key.as_str()]).set(units);
            variants.insert(variant.key.clone());
        }
        let before = self.shown.insert(key.to_owned(), variants.clone()).unwrap_or_default();
        for variant in before.difference(&variants) {
            remove(&self.units, &[key, variant]);
        }
    }

    /// Removes the series of experiments that are not followed any more.
    pub(super) fn retain(&mut self, followed: &BTreeSet<&str>) {
        let (kept, ended) = std::mem::take(&mut self.shown)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(experiment, _)| followed.contains(experiment.as_str()));
        self.shown = kept;
        for (experiment, variants) in ended {
            remove(&self.failing, &[&experiment]);
            for verdict in Verdict::ALL {
                remove(&self.verdict, &[&experiment, verdict.as_str()]);
            }
            for variant in variants {
                remove(&self.units, &[&experiment, &variant]);
            }
        }
    }
}

/// Removes a series. A failure means that there is none, which is the intended state.
fn remove(gauges: &IntGaugeVec, labels: &[&str]) {
    let _ = gauges.remove_label_values(labels);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An experiment that had only ever failed kept its gauge at 1 after it had ended, and its alert went on.
    #[test]
    fn an_experiment_that_only_failed_has_no_series_once_it_is_not_followed() {
        let registry = Registry::new();
        let mut metrics = Metrics::register(&registry);
        let failing = || -> Vec<(String, f64)> {
            let family =
                registry.gather().into_iter().find(|of| of.name() == "aggregator_experiment_failing");
            let series = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
            series
                .iter()
                .map(|one| (one.get_label()[0].value().to_owned(), one.get_gauge().get_value()))
                .collect()
        };
        metrics.note_failure("button");
        metrics.note_failure("checkout");
        metrics.retain(&BTreeSet::from(["button", "checkout"]));
        assert_eq!(failing(), [("button".to_owned(), 1.0), ("checkout".to_owned(), 1.0)]);
        metrics.retain(&BTreeSet::from(["checkout"]));
        assert_eq!(failing(), [("checkout".to_owned(), 1.0)]);
    }
}
