//! Explains what a flag serves to a unit: the steps that the evaluation itself reports.

use std::fmt;

use assignment::{Context, Evaluation, EvaluationError, FORMULA, Snapshot, evaluate_traced};
use schemas::Micros;
use schemas::definition::{Flag, Version};
use serde::Serialize;

use super::step::EvaluationStep;
use super::{Attributes, Served};

/// What a unit is served by a flag, and why.
#[derive(Clone, Debug, Serialize)]
pub struct FlagExplanation {
    pub flag: String,
    pub version: Version,
    /// The version of all definitions together.
    pub configuration_version: Version,
    pub environment: String,
    pub unit_type: String,
    pub unit_id: String,
    pub attributes: Attributes,
    pub served: Served,
    /// The rule that served the variant; `None` for the default.
    pub rule: Option<String>,
    pub steps: Vec<EvaluationStep>,
}

/// Explains what `flag`, which is one of `snapshot`, serves to the unit of `context` at `now`.
pub fn explain(
    snapshot: &Snapshot,
    (version, flag): (Version, &Flag),
    context: &Context<'_>,
    attributes: Attributes,
    now: Micros,
) -> Result<FlagExplanation, EvaluationError> {
    let mut trace = Vec::new();
    let Evaluation { variant, value, reason, rule, .. } =
        evaluate_traced(snapshot, flag.key.as_str(), context, now, &mut trace)?;
    let steps = EvaluationStep::all(&trace, flag.salt());
    Ok(FlagExplanation {
        flag: flag.key.to_string(),
        version,
        configuration_version: snapshot.configuration_version(),
        environment: snapshot.environment().0.to_owned(),
        unit_type: flag.unit_type.to_string(),
        unit_id: context.unit(flag.unit_type.as_str()).unwrap_or_default().to_owned(),
        attributes,
        served: Served { variant: variant.to_string(), value: value.clone(), reason: reason.as_str() },
        rule: rule.map(ToString::to_string),
        steps,
    })
}

/// The text for people; the serialized [`FlagExplanation`] is for programs.
impl fmt::Display for FlagExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FlagExplanation { flag, version, environment, unit_type, unit_id, served, .. } = self;
        writeln!(f, "flag {flag}, version {version}, in {environment}; {unit_type} {unit_id}")?;
        if self.steps.iter().any(|step| matches!(step, EvaluationStep::Rollout { .. })) {
            writeln!(f, "   {FORMULA}")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{}. {step}", index + 1)?;
        }
        if self.rule.is_none() && self.served.reason != "TARGETING_MATCH" {
            writeln!(f, "{}. the default is served", self.steps.len() + 1)?;
        }
        write!(f, "-> {} = {} ({})", served.variant, served.value, served.reason)
    }
}
