//! The steps of one analysis of one experiment: count each metric at the cut, compute the numbers and the new
//! look from the counts and the earlier looks, derive the verdict from the numbers, and build the document. All
//! steps but counting are pure, and none knows an earlier document.

use std::collections::BTreeSet;

use anyhow::bail;
use counting::micros::HOUR;
use counting::read::{MetricCounts, UnitCounts};
use schemas::definition::{Experiment, Metric, Version};
use schemas::{Micros, Uuid};

use crate::counts::{self, Later, Question};
use crate::cut::Cut;
use crate::database::Database;
use crate::decision::{self, Evidence, ExposedToSeveral, Mismatched};
use crate::definitions::{Defined, Definitions};
use crate::document::{
    CountingQuery, DOCUMENT_VERSION, Decision, ExperimentResult, MetricResult, PhaseRatio, PhaseVerification,
    Role, SampleRatio, Warning,
};
use crate::expiry;
use crate::look::{EarlierLooks, FrozenCap, Look};
use crate::metric_analysis::{self, Compared, Frame, Outcome};
use crate::stale;

/// The definitions, the cut and the time that an analysis is based on.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub definitions: &'a Definitions,
    pub cut: &'a Cut,
    pub as_of: Micros,
}

/// The counts of an experiment at one moment.
pub struct CountedExperiment<'a> {
    pub defined: &'a Defined<Experiment>,
    pub moment: Moment<'a>,
    /// Of every metric the same.
    pub units: Vec<UnitCounts>,
    /// When the first of the exposures came into the table, in milliseconds since 1970.
    pub ingested_since_ms: Option<i64>,
    /// Units whose phases are missing in the definition as far as it is mirrored. They are counted once it has
    /// these phases.
    pub units_of_unknown_phases: u64,
    /// The metrics with their counts, the primary one first.
    pub metrics: Vec<CountedMetric<'a>>,
    pub analysis_id: Uuid,
    /// The time of the count.
    pub at: Micros,
    /// Events that are not counted yet.
    pub later: Later,
}

/// A metric with its counts and the query that counted them.
pub struct CountedMetric<'a> {
    pub key: &'a str,
    pub role: Role,
    pub definition: Option<(Version, &'a Metric)>,
    pub counts: Vec<MetricCounts>,
    /// The frozen cap at which the values were cut, if they were.
    pub cap: Option<i128>,
    pub sql: String,
}

/// The results computed from the counts and the earlier looks.
pub struct Numbers<'a> {
    units: &'a [UnitCounts],
    srm: SampleRatio,
    /// Phases whose units do not count.
    left_out: BTreeSet<u32>,
    metrics: Vec<MetricResult>,
    /// The time at which the first of the counted exposures will be dropped from the table.
    complete_until: Option<Micros>,
    /// The look that must be in the log of looks before any of these numbers is published. None where nothing
    /// was spent, shown or learned that is not in the earlier looks.
    pub look: Option<Look>,
    looks_recorded: usize,
}

/// The verdict and the warnings that go with it.
pub struct Conclusion {
    decision: Decision,
    warnings: Vec<Warning>,
}

/// Counts every metric at the cut, each with the cap that the looks so far have frozen. Decides and writes nothing.
pub async fn count<'a>(
    database: &Database,
    moment: &Moment<'a>,
    key: &str,
    looks: EarlierLooks<'_>,
) -> anyhow::Result<CountedExperiment<'a>> {
    let Some(defined) = moment.definitions.experiments.get(key) else {
        bail!("no experiment `{key}` is defined");
    };
    let environments: Vec<&str> =
        defined.definition.counted_environments.iter().map(|key| key.as_str()).collect();
    let mut counted = Vec::new();
    let mut units = Vec::new();
    let mut ingested_since_ms = None;
    let is_of_a_phase = |number: u32| defined.phases.iter().any(|phase| phase.number == number);
    for (metric, role) in metrics(&defined.definition) {
        let definition = moment.definitions.metrics.get(metric);
        let is_winsorized = |of: &&Defined<Metric>| of.definition.winsorize().is_some();
        let cap = definition.filter(is_winsorized).and_then(|of| looks.cap(&of.definition));
        let question = Question {
            experiment: &defined.definition,
            metric: definition.map(|defined| &defined.definition),
            cap,
        };
        let mut answer = counts::count(database, &question, moment.cut, moment.as_of).await?;
        answer.metric.retain(|of| is_of_a_phase(of.phase));
        (units, ingested_since_ms) = (answer.units, answer.ingested_since_ms);
        counted.push(CountedMetric {
            key: metric,
            role,
            definition: definition.map(|defined| (defined.version, &defined.definition)),
            counts: answer.metric,
            cap,
            sql: answer.sql,
        });
    }
    let (units, others): (Vec<UnitCounts>, Vec<UnitCounts>) =
        units.into_iter().partition(|of| is_of_a_phase(of.phase));
    let events: Vec<&str> =
        counted.iter().filter_map(|of| of.definition).flat_map(|(_, metric)| events_of(metric)).collect();
    let later = counts::count_later(database, key, &events, &environments, moment.as_of).await?;
    Ok(CountedExperiment {
        defined,
        moment: *moment,
        units,
        ingested_since_ms,
        units_of_unknown_phases: others.iter().map(|of| of.units).sum(),
        metrics: counted,
        analysis_id: Uuid::now_v7(),
        at: crate::cut::now()?,
        later,
    })
}

/// Returns the names of all events that a metric counts.
fn events_of(metric: &Metric) -> impl Iterator<Item = &str> {
    let others = metric.denominator_event().into_iter().chain(metric.then_events());
    std::iter::once(&metric.event).chain(others).map(|key| key.as_str())
}

/// Returns the metrics of an experiment, the primary one first.
pub fn metrics(experiment: &Experiment) -> impl Iterator<Item = (&str, Role)> {
    let metrics = &experiment.metrics;
    let primary = std::iter::once((metrics.primary.as_str(), Role::Primary));
    let secondary = metrics.secondary.iter().map(|key| (key.as_str(), Role::Secondary));
    let guardrails = metrics.guardrails.iter().map(|key| (key.as_str(), Role::Guardrail));
    primary.chain(secondary).chain(guardrails)
}

impl CountedExperiment<'_> {
    /// Computes the numbers, after the looks taken so far.
    pub fn analyze(&self, looks: EarlierLooks<'_>) -> Numbers<'_> {
        let experiment = &self.defined.definition;
        let units = self.units.as_slice();
        let excluded = experiment.excluded_phases.iter().map(|of| of.phase).collect();
        let srm = metric_analysis::sample_ratio(
            experiment,
            &self.defined.phases,
            units,
            &looks.alarms(),
            &excluded,
        );
        let left_out = phases(&srm, |phase| phase.left_out);
        let frame = Frame {
            experiment,
            phases: &self.defined.phases,
            left_out: &left_out,
            looks,
            as_of: self.moment.as_of,
        };
        let mut metrics = Vec::new();
        let mut comparisons = Vec::new();
        let mut caps = Vec::new();
        for of in &self.metrics {
            let outcome = Outcome {
                key: of.key,
                role: of.role,
                definition: of.definition,
                counts: &of.counts,
                counted_with_cap: of.cap,
            };
            let analyzed = metric_analysis::metric(&frame, &outcome);
            metrics.push(analyzed.result);
            comparisons.extend(analyzed.comparisons);
            caps.extend(analyzed.frozen);
        }
        let kept_days = self.moment.definitions.exposures_kept_days;
        let complete_until = expiry::complete_until(self.ingested_since_ms, looks, kept_days);
        let seen = Seen { left_out: &left_out, alarms: phases(&srm, |phase| phase.alarm), complete_until };
        let look = self.look(looks, seen, comparisons, caps);
        if let Some(look) = &look {
            use_recorded_p_values(&mut metrics, look);
        }
        metric_analysis::adjust_p_values(&mut metrics);
        let looks_recorded = looks.0.len() + usize::from(look.is_some());
        Numbers { units, srm, left_out, metrics, complete_until, look, looks_recorded }
    }

    /// Returns the look that has to be recorded, if any.
    fn look(
        &self,
        looks: EarlierLooks<'_>,
        seen: Seen<'_>,
        comparisons: Vec<Compared>,
        caps: Vec<FrozenCap>,
    ) -> Option<Look> {
        let is_due = !caps.is_empty()
            || seen.alarms != looks.alarms()
            || seen.complete_until != looks.complete_until()
            || comparisons.iter().any(|of| of.is_due);
        if !is_due {
            return None;
        }
        let primary = comparisons.iter().find(|of| of.comparison.of.role == Role::Primary);
        let alpha_spent_before = match primary {
            Some(of) => looks.alpha_spent_before(&of.comparison.of, self.defined.definition.plan.alpha),
            None => looks.alpha_carried_over(),
        };
        Some(Look {
            analysis_id: self.analysis_id,
            definition_version: self.defined.version,
            as_of: self.moment.as_of.to_string(),
            cut: self.moment.cut.clone(),
            alpha_spent_before,
            phases_left_out: seen.left_out.clone(),
            sample_ratio_alarms: seen.alarms,
            complete_until: seen.complete_until,
            caps,
            comparisons: comparisons.into_iter().map(|of| of.comparison).collect(),
        })
    }

    /// Derives the verdict from the numbers.
    pub fn decide(&self, numbers: &Numbers<'_>) -> Conclusion {
        let evidence = Evidence {
            experiment: &self.defined.definition,
            srm: &numbers.srm,
            exposed: numbers.exposed_to_several(),
            mismatched: Mismatched::of(&numbers.verification()),
            metrics: &numbers.metrics,
        };
        let decision = decision::decide(&evidence);
        let mut warnings = decision::warnings(&evidence);
        warnings.extend(expiry::warning(numbers.complete_until, self.moment.as_of));
        warnings.extend(decision::forced_later(numbers.units_forced_later()));
        Conclusion { decision, warnings }
    }

    /// Builds the document that is published.
    pub fn document(&self, numbers: Numbers<'_>, conclusion: Conclusion) -> ExperimentResult {
        let experiment = &self.defined.definition;
        let units_in_several_variants = numbers.exposed_to_several().units;
        let units_forced_later = numbers.units_forced_later();
        let verification = numbers.verification();
        let Numbers { units, srm, left_out, metrics, complete_until, looks_recorded, .. } = numbers;
        let Conclusion { decision, warnings } = conclusion;
        let primary = metrics.iter().find(|metric| metric.role == Role::Primary);
        let is_variant = |key: &str| experiment.variants.iter().any(|of| of.key.as_str() == key);
        ExperimentResult {
            document_version: DOCUMENT_VERSION,
            key: experiment.key.as_str().to_owned(),
            state: experiment.state,
            phase: experiment.phase(),
            looks_recorded: u32::try_from(looks_recorded).unwrap_or(u32::MAX),
            definition_version: self.defined.version,
            hypothesis: experiment.hypothesis.clone(),
            as_of: self.moment.as_of.to_string(),
            computed_at: self.at.to_string(),
            analysis_id: self.analysis_id,
            cut: self.moment.cut.clone(),
            horizon_units: experiment.plan.horizon_units,
            variants: primary.map(|metric| metric.variants.clone()).unwrap_or_default(),
            warnings,
            units_in_several_variants,
            complete_until,
            units_forced: units.iter().map(|of| of.units_forced).sum(),
            units_forced_later,
            units_left_out: units.iter().filter(|of| left_out.contains(&of.phase)).map(|of| of.units).sum(),
            units_of_unknown_phases: self.units_of_unknown_phases,
            units_of_unknown_variants: units
                .iter()
                .filter(|of| !is_variant(&of.variant))
                .map(|of| of.units)
                .sum(),
            events_after_as_of: self.later.events,
            first_event_after_as_of: self.later.first_at.and_then(|micros| Micros::new(micros).ok()),
            test: primary.and_then(|metric| metric.tests.first().cloned()),
            tests: primary.map(|metric| metric.tests.clone()).unwrap_or_default(),
            always_valid: primary.and_then(|metric| metric.always_valid.first().cloned()),
            metrics,
            srm,
            verification,
            decision,
            sql: self
                .metrics
                .iter()
                .map(|of| CountingQuery { metric: of.key.to_owned(), query: of.sql.clone() })
                .collect(),
        }
    }
}

/// The parts of a look other than the comparisons.
struct Seen<'a> {
    left_out: &'a BTreeSet<u32>,
    alarms: BTreeSet<u32>,
    complete_until: Option<Micros>,
}

fn phases(srm: &SampleRatio, of: fn(&PhaseRatio) -> bool) -> BTreeSet<u32> {
    srm.phases.iter().filter(|phase| of(phase)).map(|phase| phase.phase).collect()
}

impl Numbers<'_> {
    fn units_forced_later(&self) -> u64 {
        self.units.iter().map(|of| of.units_forced_later).sum()
    }

    fn verification(&self) -> Vec<PhaseVerification> {
        let phase_of = |of: &PhaseRatio| {
            let own = || self.units.iter().filter(|counts| counts.phase == of.phase);
            PhaseVerification {
                phase: of.phase,
                exposures: own().map(|of| of.exposures_of_units).sum(),
                exposures_mismatched: own().map(|of| of.exposures_mismatched).sum(),
                units: own().map(|of| of.units + of.units_forced).sum(),
                units_mismatched: own().map(|of| of.units_mismatched).sum(),
                left_out: of.left_out,
            }
        };
        self.srm.phases.iter().map(phase_of).collect()
    }

    fn exposed_to_several(&self) -> ExposedToSeveral {
        let counting = || self.units.iter().filter(|of| !self.left_out.contains(&of.phase));
        ExposedToSeveral {
            units: counting().map(|of| of.units_in_several_variants).sum(),
            of: counting().map(|of| of.units).sum(),
        }
    }
}

/// Replaces the p-values by those of the recorded look: the recorded ones are valid.
fn use_recorded_p_values(metrics: &mut [MetricResult], look: &Look) {
    for kept in &look.comparisons {
        let metric =
            metrics.iter_mut().find(|metric| metric.key == kept.of.metric && metric.role == kept.of.role);
        let shown = metric.and_then(|metric| {
            metric.always_valid.iter_mut().find(|shown| shown.treatment == kept.treatment)
        });
        if let Some(shown) = shown {
            shown.use_recorded_p_values(kept);
        }
    }
}

/// Returns whether nothing has to be written: an analysis now would repeat the previous document, because no
/// row is new, no definition has changed, and no event has reached its time.
pub fn is_current(previous: &ExperimentResult, moment: &Moment<'_>) -> bool {
    let Some(defined) = moment.definitions.experiments.get(&previous.key) else {
        return false;
    };
    let same_metrics = previous.metrics.iter().all(|metric| {
        moment.definitions.metrics.get(&metric.key).map(|of| of.version) == metric.definition_version
    });
    !stale::is_stale(previous)
        && previous.cut == *moment.cut
        && previous.definition_version == defined.version
        && same_metrics
        && !may_have_matured(previous, moment.as_of)
        && (previous.events_after_as_of == 0
            || previous.first_event_after_as_of.is_some_and(|first| moment.as_of < first))
}

/// Whether the window of units that were open may have closed since. Windows close by the hour.
fn may_have_matured(previous: &ExperimentResult, as_of: Micros) -> bool {
    let has_open = previous.metrics.iter().any(|metric| metric.variants.iter().any(|of| of.units_open > 0));
    let hour = |at: Micros| at.get().div_euclid(HOUR);
    // A document without a readable time is analyzed again.
    has_open && Micros::parse(&previous.as_of).map_or(true, |before| hour(before) != hour(as_of))
}
