//! Explains what a flag serves to a unit: the steps that the evaluation itself reports.

use std::fmt;

use assignment::{BucketOf, Context, Evaluation, EvaluationError, FORMULA, Snapshot, Step, evaluate_traced};
use schemas::Micros;
use schemas::definition::{Flag, Version};
use serde::Serialize;

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
    pub steps: Vec<FlagStep>,
}

/// One step of the evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum FlagStep {
    SwitchedOff {
        archived: bool,
    },
    Prerequisite {
        key: String,
        served: String,
        met: bool,
    },
    TooManyPrerequisites,
    Rule {
        key: String,
        holds: bool,
    },
    /// By the [`FORMULA`], with the hash in hexadecimal.
    Rollout {
        salt: String,
        hash: String,
        bucket: u32,
        inside: bool,
    },
    Variant {
        salt: String,
        hash: String,
        bucket: u32,
        owned: bool,
    },
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
    let mut steps = Vec::new();
    let mut asked = None;
    for step in trace {
        let salt = |of: &str| format!("{}/{}/{of}", flag.salt(), asked.unwrap_or_default());
        let hash = |hash: u64| format!("{hash:016x}");
        steps.push(match step {
            Step::SwitchedOff { archived } => FlagStep::SwitchedOff { archived },
            Step::Prerequisite { key, served, met } => {
                FlagStep::Prerequisite { key: key.to_string(), served: served.to_string(), met }
            }
            Step::TooManyPrerequisites => FlagStep::TooManyPrerequisites,
            Step::Rule { key, holds } => {
                asked = Some(key.as_str());
                FlagStep::Rule { key: key.to_string(), holds }
            }
            Step::Bucket { of: BucketOf::Rollout, hash: of_unit, bucket, inside } => {
                FlagStep::Rollout { salt: salt("rollout"), hash: hash(of_unit), bucket, inside }
            }
            Step::Bucket { of: BucketOf::Variant, hash: of_unit, bucket, inside: owned } => {
                FlagStep::Variant { salt: salt("variant"), hash: hash(of_unit), bucket, owned }
            }
            Step::Closed(_) => unreachable!("only an experiment takes no units"),
        });
    }
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
        if self.steps.iter().any(|step| matches!(step, FlagStep::Rollout { .. })) {
            writeln!(f, "   {FORMULA}")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{}. {step}", index + 1)?;
        }
        if self.rule.is_none() {
            writeln!(f, "{}. the default is served", self.steps.len() + 1)?;
        }
        write!(f, "-> {} = {} ({})", served.variant, served.value, served.reason)
    }
}

impl fmt::Display for FlagStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagStep::SwitchedOff { archived: true } => f.write_str("the flag is archived"),
            FlagStep::SwitchedOff { archived: false } => f.write_str("the flag is switched off"),
            FlagStep::Prerequisite { key, served, met } => {
                let verdict = if *met { "as required" } else { "which is not what is required" };
                write!(f, "prerequisite {key}: serves {served}, {verdict}")
            }
            FlagStep::TooManyPrerequisites => {
                f.write_str("its prerequisites are too deep or too many, and are not asked")
            }
            FlagStep::Rule { key, holds: true } => write!(f, "rule {key}: its condition holds"),
            FlagStep::Rule { key, holds: false } => write!(f, "rule {key}: its condition does not hold"),
            FlagStep::Rollout { salt, hash, bucket, inside } => {
                let verdict = if *inside { "inside the rollout" } else { "outside the rollout" };
                write!(f, "salt {salt}, hash {hash}, bucket {bucket}: {verdict}")
            }
            FlagStep::Variant { salt, hash, bucket, owned } => {
                let verdict = if *owned { "a variant owns it" } else { "no variant owns it" };
                write!(f, "salt {salt}, hash {hash}, bucket {bucket}: {verdict}")
            }
        }
    }
}
