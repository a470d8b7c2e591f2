//! The metrics of the schedule and its experiments. This module knows no analysis, only its result.

use std::collections::BTreeSet;

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
    /// The experiments and variants with gauges, so that the series of an experiment are removed when it ends.
    shown: BTreeSet<(String, String)>,
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
    pub(super) fn note_failure(&self, key: &str) {
        self.analyses.with_label_values(&["failed"]).inc();
        self.failing.with_label_values(&[key]).set(1);
    }

    pub(super) fn note_success(&self) {
        self.last_success.set(jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0);
    }

    /// Keeps the series of an experiment as they are.
    pub(super) fn keep(&self, key: &str, shown: &mut BTreeSet<(String, String)>) {
        shown.extend(self.shown.iter().filter(|(experiment, _)| experiment == key).cloned());
    }

    pub(super) fn show(&self, result: &ExperimentResult, shown: &mut BTreeSet<(String, String)>) {
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

    pub(super) fn forget_all_but(&mut self, shown: BTreeSet<(String, String)>) {
        for (experiment, variant) in self.shown.difference(&shown) {
            // A failure means that there is no such series, which is the intended state.
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
