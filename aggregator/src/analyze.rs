//! One analysis of one experiment, front to back: count each metric at the cut, turn counts into numbers,
//! numbers into a verdict, and all of it into the document.

use anyhow::bail;
use schemas::definition::{Experiment, Metric, Version};
use schemas::{Micros, Uuid};

use crate::analysis::{self, Frame, Outcome};
use crate::counts::{self, Counts, Question};
use crate::cut::Cut;
use crate::database::Database;
use crate::decision::{self, Crossed, Evidence};
use crate::definitions::{Defined, Definitions};
use crate::document::{CountingQuery, ExperimentResult, MetricResult, Role};

/// The state of the world that an analysis is of.
pub struct Moment<'a> {
    pub definitions: &'a Definitions,
    pub cut: &'a Cut,
    pub as_of: Micros,
}

/// Counts and decides; writes nothing. `previous` is the latest analysis of the same experiment.
pub async fn analyze(
    database: &Database,
    moment: &Moment<'_>,
    key: &str,
    previous: Option<&ExperimentResult>,
) -> anyhow::Result<ExperimentResult> {
    let Some(defined) = moment.definitions.experiments.get(key) else {
        bail!("no experiment `{key}` is defined");
    };
    let mut counted = Vec::new();
    for (metric, role) in metrics(&defined.definition) {
        let definition = moment.definitions.metrics.get(metric);
        let question = Question {
            experiment: key,
            // Of a metric that is not defined, the units are still worth knowing: no event has this name.
            event: definition.map_or("", |defined| defined.definition.event.as_str()),
            since_phase: defined.split_since_phase,
            window_hours: definition.and_then(|defined| defined.definition.window_hours),
        };
        let counts = counts::count(database, &question, moment.cut, moment.as_of).await?;
        counted.push(CountedMetric {
            key: metric,
            role,
            definition: definition.map(|defined| (defined.version, &defined.definition)),
            counts: counts.variants,
            sql: counts.sql,
        });
    }
    let events: Vec<&str> =
        counted.iter().filter_map(|of| of.definition).map(|(_, metric)| metric.event.as_str()).collect();
    let events_after_as_of = counts::count_later(database, key, &events, moment.as_of).await?;
    let computed = Computed { analysis_id: Uuid::now_v7(), at: crate::cut::now()?, events_after_as_of };
    Ok(assemble(defined, moment, &counted, previous, computed))
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
    pub sql: String,
}

/// What differs between two analyses at one cut.
pub struct Computed {
    pub analysis_id: Uuid,
    pub at: Micros,
    pub events_after_as_of: u64,
}

/// The document, from everything that was read.
pub fn assemble(
    defined: &Defined<Experiment>,
    moment: &Moment<'_>,
    counted: &[CountedMetric<'_>],
    previous: Option<&ExperimentResult>,
    computed: Computed,
) -> ExperimentResult {
    let experiment = &defined.definition;
    // The looks are one sequence only while they are at the same, growing set of units.
    let latest = previous;
    let previous = latest.filter(|latest| latest.counted_since_phase == defined.split_since_phase);
    let frame = Frame { experiment, previous, latest };
    let mut metrics: Vec<MetricResult> = counted
        .iter()
        .map(|of| {
            let outcome =
                Outcome { key: of.key, role: of.role, definition: of.definition, counts: &of.counts };
            analysis::metric(&frame, &outcome)
        })
        .collect();
    analysis::adjust_p_values(&mut metrics);
    let primary = metrics.iter().find(|metric| metric.role == Role::Primary);
    let units: &[Counts] =
        counted.iter().find(|of| of.role == Role::Primary).map_or(&[], |of| of.counts.as_slice());
    let known = |counts: &&Counts| experiment.variants.iter().any(|of| of.key.as_str() == counts.variant);
    let srm = analysis::sample_ratio(experiment, units);
    let crossed = Crossed {
        units: units.iter().map(|of| of.units_in_several_variants).sum(),
        of: units.iter().map(|of| of.units).sum(),
    };
    let evidence = Evidence { experiment, srm: &srm, crossed, metrics: &metrics };
    let (decision, warnings) = (decision::decide(&evidence), decision::warnings(&evidence));
    ExperimentResult {
        key: experiment.key.as_str().to_owned(),
        state: experiment.state,
        phase: experiment.phase(),
        counted_since_phase: defined.split_since_phase,
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
        units_of_earlier_phases: units.iter().map(|of| of.units_of_earlier_phases).sum(),
        units_of_unknown_variants: units.iter().filter(|of| !known(of)).map(|of| of.units).sum(),
        events_after_as_of: computed.events_after_as_of,
        test: primary.and_then(|metric| metric.tests.first().cloned()),
        tests: primary.map(|metric| metric.tests.clone()).unwrap_or_default(),
        always_valid: primary.and_then(|metric| metric.always_valid.first().cloned()),
        alpha_spent_before: alpha_spent_before(primary, latest),
        metrics,
        srm,
        decision,
        sql: counted
            .iter()
            .map(|of| CountingQuery { metric: of.key.to_owned(), query: of.sql.clone() })
            .collect(),
    }
}

/// By boundaries that those of this analysis do not go on: all so far where it has none.
fn alpha_spent_before(primary: Option<&MetricResult>, latest: Option<&ExperimentResult>) -> f64 {
    let goes_on = primary.and_then(|metric| metric.boundaries.first()).map(|of| of.alpha_spent_before);
    goes_on.unwrap_or_else(|| latest.map_or(0.0, ExperimentResult::alpha_spent))
}

/// Whether an analysis now would say what the previous one said: no row is new, no definition has changed,
/// and nothing is waiting for its time to come.
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
        && previous.events_after_as_of == 0
}
