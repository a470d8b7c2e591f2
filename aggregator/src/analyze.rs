//! One analysis of one experiment, front to back: count each metric at the cut; turn counts and earlier looks into
//! numbers, the numbers into a look and a verdict, and all of it into a document. It knows no earlier document.

use std::collections::BTreeSet;

use anyhow::bail;
use schemas::definition::{Assignment, Experiment, Metric, Version};
use schemas::{Micros, Uuid};

use crate::analysis::{self, Compared, Frame, Outcome};
use crate::counts::{self, Counts, Later, Question};
use crate::cut::Cut;
use crate::database::Database;
use crate::decision::{self, Evidence, ExposedToSeveral};
use crate::definitions::{Defined, Definitions};
use crate::document::{
    CountingQuery, DOCUMENT_VERSION, Decision, ExperimentResult, MetricResult, PhaseRatio, Role, SampleRatio,
    Warning,
};
use crate::expiry;
use crate::look::{EarlierLooks, Look};

/// The state of the world that an analysis is of.
pub struct Moment<'a> {
    pub definitions: &'a Definitions,
    pub cut: &'a Cut,
    pub as_of: Micros,
}

/// What was counted of an experiment at one moment.
pub struct CountedExperiment<'a> {
    defined: &'a Defined<Experiment>,
    counted: Vec<CountedMetric<'a>>,
    computed: Computed,
}

/// Counts; decides and writes nothing.
pub async fn count<'a>(
    database: &Database,
    moment: &Moment<'a>,
    key: &str,
) -> anyhow::Result<CountedExperiment<'a>> {
    let Some(defined) = moment.definitions.experiments.get(key) else {
        bail!("no experiment `{key}` is defined");
    };
    let environments: Vec<&str> =
        defined.definition.counted_environments.iter().map(|key| key.as_str()).collect();
    let mut counted = Vec::new();
    for (metric, role) in metrics(&defined.definition) {
        let definition = moment.definitions.metrics.get(metric);
        let question = Question {
            experiment: key,
            environments: &environments,
            has_phases: defined.definition.assignment == Assignment::Hashed,
            // Of a metric that is not defined, the units are still worth knowing: no event has this name.
            event: definition.map_or("", |defined| defined.definition.event.as_str()),
            window_hours: definition.and_then(|defined| defined.definition.window_hours),
        };
        let answer = counts::count(database, &question, moment.cut, moment.as_of).await?;
        let is_of_a_phase = |of: &Counts| defined.phases.iter().any(|phase| phase.number == of.phase);
        let (counts, others): (Vec<Counts>, Vec<Counts>) = answer.counts.into_iter().partition(is_of_a_phase);
        counted.push(CountedMetric {
            key: metric,
            role,
            definition: definition.map(|defined| (defined.version, &defined.definition)),
            units_of_unknown_phases: others.iter().map(|of| of.units).sum(),
            counts,
            sql: answer.sql,
        });
    }
    let events: Vec<&str> =
        counted.iter().filter_map(|of| of.definition).map(|(_, metric)| metric.event.as_str()).collect();
    let later = counts::count_later(database, key, &events, &environments, moment.as_of).await?;
    let computed = Computed { analysis_id: Uuid::now_v7(), at: crate::cut::now()?, later };
    Ok(CountedExperiment { defined, counted, computed })
}

impl CountedExperiment<'_> {
    /// Analyzes and decides, after the looks taken so far.
    pub fn analyze(&self, moment: &Moment<'_>, looks: EarlierLooks<'_>) -> Analysis {
        assemble(self.defined, moment, &self.counted, looks, &self.computed)
    }
}

/// The document of an analysis, and the look that has to be in the log of looks before the document is published.
pub struct Analysis {
    pub result: ExperimentResult,
    /// None where nothing was spent or shown that is not in the earlier looks.
    pub look: Option<Look>,
}

/// The metrics of an experiment, the primary one first.
pub fn metrics(experiment: &Experiment) -> impl Iterator<Item = (&str, Role)> {
    let metrics = &experiment.metrics;
    let primary = std::iter::once((metrics.primary.as_str(), Role::Primary));
    let secondary = metrics.secondary.iter().map(|key| (key.as_str(), Role::Secondary));
    let guardrails = metrics.guardrails.iter().map(|key| (key.as_str(), Role::Guardrail));
    primary.chain(secondary).chain(guardrails)
}

/// A metric with its counts and the query that counted.
pub struct CountedMetric<'a> {
    pub key: &'a str,
    pub role: Role,
    pub definition: Option<(Version, &'a Metric)>,
    pub counts: Vec<Counts>,
    /// The definition, as far as it is mirrored, does not have these units' phases. They are counted once it has.
    pub units_of_unknown_phases: u64,
    pub sql: String,
}

/// What differs between two analyses at one cut.
pub struct Computed {
    pub analysis_id: Uuid,
    pub at: Micros,
    pub later: Later,
}

/// From everything that was read to the document, and to the look that it rests on: numbers, look, verdict.
pub fn assemble(
    defined: &Defined<Experiment>,
    moment: &Moment<'_>,
    counted: &[CountedMetric<'_>],
    looks: EarlierLooks<'_>,
    computed: &Computed,
) -> Analysis {
    let mut numbers = numbers(defined, counted, looks);
    let complete_until = expiry::complete_until(numbers.units, looks, moment.definitions.exposures_kept_days);
    let look = look(defined, moment, computed, looks, &mut numbers, complete_until);
    if let Some(look) = &look {
        keep(&mut numbers.metrics, look);
    }
    analysis::adjust_p_values(&mut numbers.metrics);
    let evidence = Evidence {
        experiment: &defined.definition,
        srm: &numbers.srm,
        exposed: numbers.exposed_to_several(),
        metrics: &numbers.metrics,
    };
    let decision = decision::decide(&evidence);
    let mut warnings = decision::warnings(&evidence);
    warnings.extend(expiry::warning(complete_until, moment.as_of));
    let looks_recorded = looks.0.len() + usize::from(look.is_some());
    let conclusion = Conclusion { decision, warnings, complete_until, looks_recorded };
    Analysis { result: document(defined, moment, counted, computed, numbers, conclusion), look }
}

/// What the counts and the earlier looks give.
struct Numbers<'a> {
    /// By the primary metric.
    units: &'a [Counts],
    srm: SampleRatio,
    /// Phases whose units do not count.
    left_out: BTreeSet<u32>,
    /// Phases whose sample ratio has alarmed by now.
    alarms: BTreeSet<u32>,
    metrics: Vec<MetricResult>,
    /// As a look would keep them.
    comparisons: Vec<Compared>,
}

fn numbers<'a>(
    defined: &Defined<Experiment>,
    counted: &'a [CountedMetric<'_>],
    looks: EarlierLooks<'_>,
) -> Numbers<'a> {
    let experiment = &defined.definition;
    let units = primary_metric(counted).map_or(&[][..], |of| of.counts.as_slice());
    let excluded = experiment.excluded_phases.iter().map(|of| of.phase).collect();
    let srm = analysis::sample_ratio(experiment, &defined.phases, units, &looks.alarms(), &excluded);
    let phases = |of: fn(&PhaseRatio) -> bool| -> BTreeSet<u32> {
        srm.phases.iter().filter(|phase| of(phase)).map(|phase| phase.phase).collect()
    };
    let (left_out, alarms) = (phases(|phase| phase.left_out), phases(|phase| phase.alarm));
    let frame = Frame { experiment, phases: &defined.phases, left_out: &left_out, looks };
    let mut metrics = Vec::new();
    let mut comparisons = Vec::new();
    for of in counted {
        let outcome = Outcome { key: of.key, role: of.role, definition: of.definition, counts: &of.counts };
        let analyzed = analysis::metric(&frame, &outcome);
        metrics.push(analyzed.result);
        comparisons.extend(analyzed.comparisons);
    }
    Numbers { units, srm, left_out, alarms, metrics, comparisons }
}

impl Numbers<'_> {
    fn exposed_to_several(&self) -> ExposedToSeveral {
        let counting = || self.units.iter().filter(|of| !self.left_out.contains(&of.phase));
        ExposedToSeveral {
            units: counting().map(|of| of.units_in_several_variants).sum(),
            of: counting().map(|of| of.units).sum(),
        }
    }
}

/// The look that has to be kept: something was spent, shown or learned that the log does not hold.
fn look(
    defined: &Defined<Experiment>,
    moment: &Moment<'_>,
    computed: &Computed,
    looks: EarlierLooks<'_>,
    numbers: &mut Numbers<'_>,
    complete_until: Option<Micros>,
) -> Option<Look> {
    let comparisons = std::mem::take(&mut numbers.comparisons);
    let is_due = numbers.alarms != looks.alarms()
        || complete_until != looks.complete_until()
        || comparisons.iter().any(|of| of.is_due);
    if !is_due {
        return None;
    }
    let primary = comparisons.iter().find(|of| of.comparison.of.role == Role::Primary);
    let alpha_spent_before = match primary {
        Some(of) => looks.alpha_spent_before(&of.comparison.of, defined.definition.plan.alpha),
        None => looks.alpha_carried_over(),
    };
    Some(Look {
        analysis_id: computed.analysis_id,
        definition_version: defined.version,
        as_of: moment.as_of.to_string(),
        cut: moment.cut.clone(),
        alpha_spent_before,
        phases_left_out: numbers.left_out.clone(),
        sample_ratio_alarms: numbers.alarms.clone(),
        complete_until,
        comparisons: comparisons.into_iter().map(|of| of.comparison).collect(),
    })
}

/// What follows from the numbers.
struct Conclusion {
    decision: Decision,
    warnings: Vec<Warning>,
    complete_until: Option<Micros>,
    looks_recorded: usize,
}

fn document(
    defined: &Defined<Experiment>,
    moment: &Moment<'_>,
    counted: &[CountedMetric<'_>],
    computed: &Computed,
    numbers: Numbers<'_>,
    conclusion: Conclusion,
) -> ExperimentResult {
    let experiment = &defined.definition;
    let units_in_several_variants = numbers.exposed_to_several().units;
    let Numbers { units, srm, left_out, metrics, .. } = numbers;
    let Conclusion { decision, warnings, complete_until, looks_recorded } = conclusion;
    let primary = metrics.iter().find(|metric| metric.role == Role::Primary);
    let is_variant = |key: &str| experiment.variants.iter().any(|of| of.key.as_str() == key);
    ExperimentResult {
        document_version: DOCUMENT_VERSION,
        key: experiment.key.as_str().to_owned(),
        state: experiment.state,
        phase: experiment.phase(),
        looks_recorded: u32::try_from(looks_recorded).unwrap_or(u32::MAX),
        definition_version: defined.version,
        hypothesis: experiment.hypothesis.clone(),
        as_of: moment.as_of.to_string(),
        computed_at: computed.at.to_string(),
        analysis_id: computed.analysis_id,
        cut: moment.cut.clone(),
        horizon_units: experiment.plan.horizon_units,
        variants: primary.map(|metric| metric.variants.clone()).unwrap_or_default(),
        warnings,
        units_in_several_variants,
        complete_until,
        units_forced: units.iter().map(|of| of.units_forced).sum(),
        units_left_out: units.iter().filter(|of| left_out.contains(&of.phase)).map(|of| of.units).sum(),
        units_of_unknown_phases: primary_metric(counted).map_or(0, |of| of.units_of_unknown_phases),
        units_of_unknown_variants: units
            .iter()
            .filter(|of| !is_variant(&of.variant))
            .map(|of| of.units)
            .sum(),
        events_after_as_of: computed.later.events,
        first_event_after_as_of: computed.later.first_at.and_then(|micros| Micros::new(micros).ok()),
        test: primary.and_then(|metric| metric.tests.first().cloned()),
        tests: primary.map(|metric| metric.tests.clone()).unwrap_or_default(),
        always_valid: primary.and_then(|metric| metric.always_valid.first().cloned()),
        metrics,
        srm,
        decision,
        sql: counted
            .iter()
            .map(|of| CountingQuery { metric: of.key.to_owned(), query: of.sql.clone() })
            .collect(),
    }
}

fn primary_metric<'a, 'b>(counted: &'a [CountedMetric<'b>]) -> Option<&'a CountedMetric<'b>> {
    counted.iter().find(|of| of.role == Role::Primary)
}

/// The p-values of a look that is kept are those that hold.
fn keep(metrics: &mut [MetricResult], look: &Look) {
    for kept in &look.comparisons {
        let metric =
            metrics.iter_mut().find(|metric| metric.key == kept.of.metric && metric.role == kept.of.role);
        let shown = metric.and_then(|metric| {
            metric.always_valid.iter_mut().find(|shown| shown.treatment == kept.treatment)
        });
        if let Some(shown) = shown {
            shown.is_kept(kept);
        }
    }
}

/// Whether nothing new has to be written: an analysis now would say what the previous document says, for no row is new, no
/// definition has changed, and the time of no event has come.
pub fn is_current(previous: &ExperimentResult, moment: &Moment<'_>) -> bool {
    let Some(defined) = moment.definitions.experiments.get(&previous.key) else {
        return false;
    };
    let same_metrics = previous.metrics.iter().all(|metric| {
        moment.definitions.metrics.get(&metric.key).map(|of| of.version) == metric.definition_version
    });
    previous.cut == *moment.cut
        && previous.definition_version == defined.version
        && same_metrics
        && (previous.events_after_as_of == 0
            || previous.first_event_after_as_of.is_some_and(|first| moment.as_of < first))
}
