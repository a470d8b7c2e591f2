//! Explains an assignment step by step, with every number that a person needs to compute it again.

use std::fmt;

use assignment::{Attributes, Environment, FORMULA, Salts, Seed, evaluate};
use schemas::definition::{Assignment, Definitions, Experiment, Version};
use schemas::{Bucket, BucketRange};
use serde::Serialize;

/// The variant that a unit gets, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub experiment: String,
    pub version: Version,
    /// The version of all definitions together.
    pub configuration_version: Version,
    pub phase: u32,
    pub unit_type: String,
    pub unit_id: String,
    /// `None` if the unit takes no part.
    pub variant: Option<String>,
    /// The reason why there is no variant.
    pub reason: Option<String>,
    pub state: String,
    pub assignment: Assignment,
    pub environment: String,
    /// Whether the experiment is enabled in this environment.
    pub enabled: bool,
    pub attributes: Attributes,
    /// The targeting rule that matched the unit; `None` if the experiment has no rules, or none matched.
    pub rule: Option<String>,
    pub rules: Vec<String>,
    pub layer: Option<String>,
    pub slot: Step,
    pub rollout: Step,
    pub bucket: Step,
}

/// One of the three hashes of a unit, by the [`FORMULA`].
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub salt: String,
    /// Hexadecimal.
    pub seed: String,
    /// Hexadecimal.
    pub hash: String,
    pub bucket: u32,
    pub ranges: Vec<Owned>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Owned {
    pub owner: String,
    pub ranges: Vec<BucketRange>,
}

/// Explains the result of [`assignment::evaluate`] for the unit.
pub fn explain(
    definitions: &Definitions,
    (version, experiment): (Version, &Experiment),
    environment: Environment<'_>,
    unit_id: &str,
    attributes: Attributes,
) -> Explanation {
    let evaluation = evaluate(definitions, experiment, environment, unit_id, &attributes);
    let settings = experiment.in_environment(environment.0);
    let salts = Salts::of(definitions, experiment);
    let slots = match &experiment.layer {
        Some(_) => experiment.slot_ranges.clone(),
        None => vec![BucketRange::ALL],
    };
    let rollout = BucketRange::new(0, settings.rollout.buckets()).into_iter().collect();
    let owned_by = |owner: &str, ranges: Vec<BucketRange>| Owned { owner: owner.to_owned(), ranges };
    let key = experiment.key.as_str();
    let variants = experiment
        .variants
        .iter()
        .map(|variant| owned_by(variant.key.as_str(), variant.ranges.clone()))
        .collect();
    Explanation {
        experiment: key.to_owned(),
        version,
        configuration_version: definitions.version(),
        phase: experiment.phase(),
        unit_type: experiment.unit_type.to_string(),
        unit_id: unit_id.to_owned(),
        variant: evaluation.outcome.as_ref().ok().map(|variant| variant.key.to_string()),
        reason: evaluation.outcome.as_ref().err().map(ToString::to_string),
        state: experiment.state.as_str().to_owned(),
        assignment: experiment.assignment,
        environment: environment.0.to_owned(),
        enabled: settings.enabled,
        rule: evaluation.rule.map(ToString::to_string),
        rules: settings.targeting.iter().map(|rule| rule.key.to_string()).collect(),
        attributes,
        layer: experiment.layer.as_ref().map(ToString::to_string),
        slot: step(unit_id, salts.slot, vec![owned_by(key, slots)]),
        rollout: step(unit_id, salts.rollout, vec![owned_by(key, rollout)]),
        bucket: step(unit_id, salts.variant, variants),
    }
}

fn step(unit_id: &str, salt: String, ranges: Vec<Owned>) -> Step {
    let seed = Seed::of(&salt);
    let hash = seed.hash(unit_id);
    Step {
        seed: format!("{:016x}", seed.get()),
        hash: format!("{hash:016x}"),
        bucket: Bucket::of_hash(hash).get(),
        salt,
        ranges,
    }
}

/// The text for people; the serialized [`Explanation`] is for programs.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { experiment, version, phase, unit_type, unit_id, state, .. } = self;
        writeln!(
            f,
            "experiment {experiment}, version {version}, phase {phase}, in {}; {unit_type} {unit_id}",
            self.environment
        )?;
        writeln!(f, "1. state: {state}; it must be running")?;
        match self.assignment {
            Assignment::Hashed => writeln!(f, "2. assignment: hashed")?,
            Assignment::External => writeln!(f, "2. assignment: external, made elsewhere; no hash decides")?,
        }
        if !self.enabled {
            writeln!(f, "   in {} it is disabled: nobody takes part", self.environment)?;
        }
        match (&self.rule, self.rules.is_empty()) {
            (_, true) => writeln!(f, "3. targeting: none, everybody may take part")?,
            (Some(rule), _) => writeln!(f, "3. targeting: rule `{rule}` is the first that matches")?,
            (None, _) => writeln!(f, "3. targeting: none of {} was found to match", self.rules.join(", "))?,
        }
        writeln!(f, "   {FORMULA}")?;
        let layer = self.layer.as_ref().map_or("no layer, all slots are its own".to_owned(), |layer| {
            format!("layer {layer}, the unit's slot must be one of the experiment's")
        });
        self.slot.write(f, "4. slot", &layer)?;
        self.rollout.write(f, "5. rollout", "the bucket must be inside")?;
        self.bucket.write(f, "6. variant", "the owner of the bucket is the variant")?;
        match (&self.variant, &self.reason) {
            (Some(variant), _) => write!(f, "-> {variant}"),
            (None, reason) => write!(f, "-> no variant: {}", reason.as_deref().unwrap_or_default()),
        }
    }
}

impl Step {
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, rule: &str) -> fmt::Result {
        let Step { salt, seed, hash, bucket, ranges } = self;
        writeln!(f, "{name}: {rule}")?;
        writeln!(f, "   salt {salt}, seed {seed}, hash {hash}, bucket {bucket}")?;
        for Owned { owner, ranges } in ranges {
            let listed: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let inside =
                Bucket::new(*bucket).is_some_and(|bucket| ranges.iter().any(|range| range.contains(bucket)));
            let mark = if inside { " <- here" } else { "" };
            let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(" ") };
            writeln!(f, "   {owner} owns {listed}{mark}")?;
        }
        Ok(())
    }
}
