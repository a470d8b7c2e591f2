//! One analysis of one experiment, front to back: count each metric at the cut, turn counts and the looks so far
//! into numbers, numbers into a verdict, and all of it into the document and the look that it rests on.

use std::collections::BTreeSet;

use anyhow::bail;
use schemas::definition::{Experiment, Metric, Version};
use schemas::{Micros, Uuid};

use crate::analysis::{self, Compared, Frame, Outcome};
use crate::counts::{self, Counts, Later, Question};
use crate::cut::Cut;
use crate::database::Database;
use crate::decision::{self, Crossed, Evidence};
use crate::definitions::{Defined, Definitions};
use crate::document::{CountingQuery, DOCUMENT_VERSION, ExperimentResult, MetricResult, PhaseRatio, Role};
use crate::expiry;
use crate::look::{Look, Looks};
use crate::stale;

/// The state of the world that an analysis is of.
pub struct Moment<'a> {
    pub definitions: &'a Definitions,
    pub cut: &'a Cut,
    pub as_of: Micros,
}

/// What was counted of an experiment at one moment.
pub struct Counting<'a> {
    defined: &'a Defined<Experiment>,
    counted: Vec<CountedMetric<'a>>,
    computed: Computed,
}

/// Counts; decides and writes nothing.
pub async fn count<'a>(database: &Database, moment: &Moment<'a>, key: &str) -> anyhow::Result<Counting<'a>> {
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
            // Of a metric that is not defined, the units are still worth knowing: no event has this name.
            event: definition.map_or("", |defined| defined.definition.event.as_str()),
            window_hours: definition.and_then(|defined| defined.definition.window_hours),
        };
        let found = counts::count(database, &question, moment.cut, moment.as_of).await?;
        let known = |of: &Counts| defined.phases.iter().any(|phase| phase.number == of.phase);
        let (counts, unknown): (Vec<Counts>, Vec<Counts>) = found.counts.into_iter().partition(known);
        counted.push(CountedMetric {
            key: metric,
            role,
            definition: definition.map(|defined| (defined.version, &defined.definition)),
            unknown: unknown.iter().map(|of| of.units).sum(),
            counts,
            sql: found.sql,
        });
    }
    let events: Vec<&str> =
        counted.iter().filter_map(|of| of.definition).map(|(_, metric)| metric.event.as_str()).collect();
    let later = counts::count_later(database, key, &events, &environments, moment.as_of).await?;
    let computed = Computed { analysis_id: Uuid::now_v7(), at: crate::cut::now()?, later };
    Ok(Counting { defined, counted, computed })
}

impl Counting<'_> {
    /// Decides, after the looks taken so far.
    pub fn analyze(&self, moment: &Moment<'_>, looks: Looks<'_>) -> Analysis {
        assemble(self.defined, moment, &self.counted, looks, &self.computed)
    }
}

/// What an analysis says, and the look that has to be in the log of looks before anybody is told.
pub struct Analysis {
    pub result: ExperimentResult,
    /// None where nothing was spent or shown that the looks before do not hold.
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
    /// Units of phases that the definition, as far as it is known, does not have. They are counted when it is.
    pub unknown: u64,
    pub sql: String,
}

/// What differs between two analyses at one cut.
pub struct Computed {
    pub analysis_id: Uuid,
    pub at: Micros,
    pub later: Later,
}

/// The document, from everything that was read.
pub fn assemble(
    defined: &Defined<Experiment>,
    moment: &Moment<'_>,
    counted: &[CountedMetric<'_>],
    looks: Looks<'_>,
    computed: &Computed,
) -> Analysis {
    let experiment = &defined.definition;
    let units: &[Counts] =
        counted.iter().find(|of| of.role == Role::Primary).map_or(&[], |of| of.counts.as_slice());
    let alarmed = looks.alarms();
    let excluded = experiment.excluded_phases.iter().map(|of| of.phase).collect();
    let srm = analysis::sample_ratio(experiment, &defined.phases, units, &alarmed, &excluded);
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
    let is_due = alarms != alarmed || comparisons.iter().any(|of| of.is_due);
    let look = is_due.then(|| Look {
        analysis_id: computed.analysis_id,
        definition_version: defined.version,
        as_of: moment.as_of.to_string(),
        cut: moment.cut.clone(),
        alpha_spent_before: primary(&comparisons)
            .map_or(0.0, |of| looks.alpha_spent_before(&of.comparison.of, experiment.plan.alpha)),
        phases_left_out: left_out.clone(),
        sample_ratio_alarms: alarms,
        comparisons: comparisons.into_iter().map(|of| of.comparison).collect(),
    });
    if let Some(look) = &look {
        keep(&mut metrics, look);
    }
    analysis::adjust_p_values(&mut metrics);
    let primary = metrics.iter().find(|metric| metric.role == Role::Primary);
    let known = |counts: &&Counts| experiment.variants.iter().any(|of| of.key.as_str() == counts.variant);
    let counts = |of: &&Counts| !left_out.contains(&of.phase);
    let crossed = Crossed {
        units: units.iter().filter(counts).map(|of| of.units_in_several_variants).sum(),
        of: units.iter().filter(counts).map(|of| of.units).sum(),
    };
    let evidence = Evidence { experiment, srm: &srm, crossed, metrics: &metrics };
    let (decision, mut warnings) = (decision::decide(&evidence), decision::warnings(&evidence));
    let complete_until = expiry::complete_until(units, moment.definitions.exposures_kept_days);
    warnings.extend(expiry::warning(complete_until, moment.as_of));
    let forced_later = units.iter().map(|of| of.units_forced_later).sum();
    warnings.extend(decision::forced_later(forced_later));
    let result = ExperimentResult {
        document_version: DOCUMENT_VERSION,
        key: experiment.key.as_str().to_owned(),
        state: experiment.state,
        phase: experiment.phase(),
        looks_recorded: u32::try_from(looks.taken.len() + usize::from(look.is_some())).unwrap_or(u32::MAX),
        definition_version: defined.version,
        hypothesis: experiment.hypothesis.clone(),
        as_of: moment.as_of.to_string(),
        computed_at: computed.at.to_string(),
        analysis_id: computed.analysis_id,
        cut: moment.cut.clone(),
        horizon_units: experiment.plan.horizon_units,
        variants: primary.map(|metric| metric.variants.clone()).unwrap_or_default(),
        warnings,
        units_in_several_variants: crossed.units,
        complete_until,
        units_forced: units.iter().map(|of| of.units_forced).sum(),
        units_forced_later: forced_later,
        units_left_out: units.iter().filter(|of| left_out.contains(&of.phase)).map(|of| of.units).sum(),
        units_of_unknown_phases: counted
            .iter()
            .find(|of| of.role == Role::Primary)
            .map_or(0, |of| of.unknown),
        units_of_unknown_variants: units.iter().filter(|of| !known(of)).map(|of| of.units).sum(),
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
    };
    Analysis { result, look }
}

fn primary(comparisons: &[Compared]) -> Option<&Compared> {
    comparisons.iter().find(|of| of.comparison.of.role == Role::Primary)
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

/// Whether an analysis now would say what the previous one said: no row is new, no definition has changed,
/// and the time of no event has come.
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
        && (previous.events_after_as_of == 0
            || previous.first_event_after_as_of.is_some_and(|first| moment.as_of < first))
}
