//! The steps that an evaluation reports, as texts and numbers for people and programs.

use std::fmt;

use assignment::{BucketOf, Step};
use schemas::{Key, Micros, SwitchbackUnit};
use serde::Serialize;

/// One step of the evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum EvaluationStep {
    SwitchedOff {
        archived: bool,
    },
    /// An experiment takes no units, whoever they are.
    Closed {
        why: String,
    },
    /// The side of a holdout that the unit's slot decides.
    Holdout {
        key: String,
        slot: u32,
        held_out: bool,
    },
    Denied {
        list: String,
        member: bool,
    },
    Allowed {
        list: String,
        variant: String,
        member: bool,
    },
    /// A finished experiment serves this variant to the buckets below a bound.
    Serves {
        variant: String,
        below: u32,
    },
    /// What a finished experiment serves is for the units that its targeting matches.
    OnlyTargeted {
        targeted: bool,
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
    /// The window of a switchback, and the id of the cluster's unit in it, which is hashed for the variant.
    Window {
        start: Micros,
        window_seconds: u32,
        unit_id: String,
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

impl EvaluationStep {
    /// Converts the steps of a flag or an experiment with this salt.
    pub fn all(trace: &[Step<'_>], salt: &Key) -> Vec<EvaluationStep> {
        let mut rule = None;
        let mut steps = Vec::with_capacity(trace.len());
        for step in trace {
            if let Step::Rule { key, .. } = step {
                rule = Some(key.as_str());
            }
            steps.push(EvaluationStep::of(step, |of| format!("{salt}/{}/{of}", rule.unwrap_or_default())));
        }
        steps
    }

    fn of(step: &Step<'_>, salt: impl Fn(&str) -> String) -> EvaluationStep {
        let text = |key: &Key| key.to_string();
        match *step {
            Step::SwitchedOff { archived } => EvaluationStep::SwitchedOff { archived },
            Step::Closed(why) => EvaluationStep::Closed { why: why.to_string() },
            Step::Holdout { key, slot, held_out } => {
                EvaluationStep::Holdout { key: text(key), slot, held_out }
            }
            Step::Denied { list, member } => EvaluationStep::Denied { list: text(list), member },
            Step::Allowed { list, variant, member } => {
                EvaluationStep::Allowed { list: text(list), variant: text(variant), member }
            }
            Step::Serves { variant, below } => EvaluationStep::Serves { variant: text(variant), below },
            Step::OnlyTargeted { targeted } => EvaluationStep::OnlyTargeted { targeted },
            Step::Prerequisite { key, served, met } => {
                EvaluationStep::Prerequisite { key: text(key), served: text(served), met }
            }
            Step::TooManyPrerequisites => EvaluationStep::TooManyPrerequisites,
            Step::Window { start, window_seconds, ref unit_id } => {
                EvaluationStep::Window { start, window_seconds, unit_id: unit_id.clone() }
            }
            Step::Rule { key, holds } => EvaluationStep::Rule { key: text(key), holds },
            Step::Bucket { of: BucketOf::Rollout, hash, bucket, inside } => EvaluationStep::Rollout {
                salt: salt("rollout"),
                hash: format!("{hash:016x}"),
                bucket,
                inside,
            },
            Step::Bucket { of: BucketOf::Variant, hash, bucket, inside: owned } => {
                EvaluationStep::Variant { salt: salt("variant"), hash: format!("{hash:016x}"), bucket, owned }
            }
        }
    }
}

impl fmt::Display for EvaluationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvaluationStep::SwitchedOff { archived: true } => f.write_str("the flag is archived"),
            EvaluationStep::SwitchedOff { archived: false } => f.write_str("the flag is switched off"),
            EvaluationStep::Closed { why } => write!(f, "closed: {why}"),
            EvaluationStep::Holdout { key, slot, held_out } => {
                let verdict = if *held_out { "the unit is held out" } else { "the unit is not held out" };
                write!(f, "holdout {key}: slot {slot}, {verdict}")
            }
            EvaluationStep::Denied { list, member } => {
                let verdict = if *member { "the unit is on it" } else { "the unit is not on it" };
                write!(f, "denied list {list}: {verdict}")
            }
            EvaluationStep::Allowed { list, variant, member } => {
                let verdict = if *member { "the unit is on it" } else { "the unit is not on it" };
                write!(f, "allowed list {list}, which sees {variant}: {verdict}")
            }
            EvaluationStep::Serves { variant, below } => {
                write!(f, "the experiment is over and serves {variant} to the rollout buckets below {below}")
            }
            EvaluationStep::OnlyTargeted { targeted } => {
                let verdict = if *targeted { "a rule matches the unit" } else { "no rule matches the unit" };
                write!(f, "it serves this only to the units that its targeting matches: {verdict}")
            }
            EvaluationStep::Prerequisite { key, served, met } => {
                let verdict = if *met { "as required" } else { "which is not what is required" };
                write!(f, "prerequisite {key}: serves {served}, {verdict}")
            }
            EvaluationStep::TooManyPrerequisites => {
                f.write_str("its prerequisites are too deep or too many, and are not asked")
            }
            EvaluationStep::Window { start, window_seconds, unit_id } => {
                write!(f, "window of {window_seconds} s from {start}: ")?;
                match SwitchbackUnit::parse(unit_id) {
                    // A terminal does not show a zero byte.
                    Some(unit) => write!(
                        f,
                        "the variant is hashed of `{}`, a zero byte and `{}`",
                        unit.cluster(),
                        unit.window_start_s()
                    ),
                    None => write!(f, "the variant is hashed of {unit_id:?}"),
                }
            }
            EvaluationStep::Rule { key, holds: true } => write!(f, "rule {key}: it matches"),
            EvaluationStep::Rule { key, holds: false } => write!(f, "rule {key}: it does not match"),
            EvaluationStep::Rollout { salt, hash, bucket, inside } => {
                let verdict = if *inside { "inside the rollout" } else { "outside the rollout" };
                write!(f, "salt {salt}, hash {hash}, bucket {bucket}: {verdict}")
            }
            EvaluationStep::Variant { salt, hash, bucket, owned } => {
                let verdict = if *owned { "a variant owns it" } else { "no variant owns it" };
                write!(f, "salt {salt}, hash {hash}, bucket {bucket}: {verdict}")
            }
        }
    }
}
