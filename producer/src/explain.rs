//! Explains an assignment step by step, with every number that a person needs to compute it again.

use std::collections::BTreeMap;
use std::fmt;

use assignment::{Context, EvaluationError, FORMULA, Salts, Seed, Snapshot, evaluate_traced};
use schemas::definition::{Assignment, Definitions, Experiment, Schedule, Version};
use schemas::{Bucket, BucketRange, Micros, SwitchbackUnit};
use serde::Serialize;
use serde_json::Value as Json;

pub mod flag;
mod step;

pub use step::EvaluationStep;

/// The attributes of a unit, as they were given.
pub type Attributes = BTreeMap<String, Json>;

/// What a key answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Served {
    pub variant: String,
    pub value: Json,
    /// STATIC, TARGETING_MATCH, SPLIT or DEFAULT.
    pub reason: &'static str,
}

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
    /// What the key answers, whether or not the unit takes part.
    pub served: Served,
    pub state: String,
    pub assignment: Assignment,
    pub environment: String,
    /// The time for which it was evaluated.
    pub evaluated_at: Micros,
    /// When units take part: from the start on, and before the end.
    pub schedule: Option<Schedule>,
    /// Whether the experiment is enabled in this environment.
    pub enabled: bool,
    pub attributes: Attributes,
    /// The targeting rule that matched the unit; `None` if the experiment has no rules, or none matched.
    pub rule: Option<String>,
    pub rules: Vec<String>,
    /// What was asked before the buckets: holdouts, lists, rules, the window of a switchback, and what a finished
    /// experiment serves.
    pub steps: Vec<EvaluationStep>,
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

/// Explains what `experiment`, which is one of `definitions` and of their `snapshot`, serves to the unit of `context` at
/// `now`.
pub fn explain(
    definitions: &Definitions,
    snapshot: &Snapshot,
    (version, experiment): (Version, &Experiment),
    context: &Context<'_>,
    attributes: Attributes,
    now: Micros,
) -> Result<Explanation, EvaluationError> {
    let mut trace = Vec::new();
    let evaluation = evaluate_traced(snapshot, experiment.key.as_str(), context, now, &mut trace)?;
    let outcome = evaluation.experiment.expect("an experiment was evaluated").outcome;
    let environment = snapshot.environment();
    let unit_id = context.unit(experiment.unit_type.as_str()).unwrap_or_default();
    let settings = experiment.in_environment(environment.0);
    let salts = Salts::of(definitions, experiment);
    let slots = match &experiment.layer {
        Some(_) => experiment.slot_ranges.clone(),
        None => vec![BucketRange::ALL],
    };
    // Of a switchback the variant, but neither the slot nor the rollout, is hashed with the window.
    let window = window(experiment, unit_id, now);
    let in_window = window.as_ref().map(|(_, in_window)| in_window.clone());
    let asked = trace.iter().any(|step| matches!(step, assignment::Step::Window { .. }));
    trace.extend(window.filter(|_| !asked).map(|(step, _)| step));
    let rollout = BucketRange::new(0, settings.rollout.buckets()).into_iter().collect();
    let owned_by = |owner: &str, ranges: Vec<BucketRange>| Owned { owner: owner.to_owned(), ranges };
    let key = experiment.key.as_str();
    let variants = experiment
        .variants
        .iter()
        .map(|variant| owned_by(variant.key.as_str(), variant.ranges.clone()))
        .collect();
    Ok(Explanation {
        experiment: key.to_owned(),
        version,
        configuration_version: definitions.version(),
        phase: experiment.phase(),
        unit_type: experiment.unit_type.to_string(),
        unit_id: unit_id.to_owned(),
        variant: outcome.ok().map(|exposed| exposed.variant.key.to_string()),
        reason: outcome.err().map(|why| why.to_string()),
        served: Served {
            variant: evaluation.variant.to_string(),
            value: evaluation.value.clone(),
            reason: evaluation.reason.as_str(),
        },
        state: experiment.state.as_str().to_owned(),
        assignment: experiment.assignment,
        environment: environment.0.to_owned(),
        evaluated_at: now,
        schedule: experiment.plan.schedule.clone(),
        enabled: settings.enabled,
        rule: evaluation.rule.map(ToString::to_string),
        rules: settings.targeting.iter().map(|rule| rule.key.to_string()).collect(),
        attributes,
        steps: EvaluationStep::all(&trace, experiment.salt()),
        layer: experiment.layer.as_ref().map(ToString::to_string),
        slot: step(unit_id, salts.slot, vec![owned_by(key, slots)]),
        rollout: step(unit_id, salts.rollout, vec![owned_by(key, rollout)]),
        bucket: step(in_window.as_deref().unwrap_or(unit_id), salts.variant, variants),
    })
}

/// The window of a switchback at `now`, and the id of the unit in it, also where the evaluation ended before it asked for
/// them. `None` of an id that is never in a window, as it cannot be a cluster's.
fn window(
    experiment: &Experiment,
    unit_id: &str,
    now: Micros,
) -> Option<(assignment::Step<'static>, String)> {
    let switchback = experiment.switchback?;
    let unit = SwitchbackUnit::new(unit_id, switchback.window_start_s(now)).ok()?;
    Some((assignment::Step::window(switchback, unit, now), unit.id().as_str().to_owned()))
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
        if let Some(Schedule { start, end }) = &self.schedule {
            let open = start.is_none_or(|start| self.evaluated_at >= start)
                && end.is_none_or(|end| self.evaluated_at < end);
            let time = |time: &Option<Micros>| time.map_or("ever".to_owned(), |time| time.to_string());
            let (start, end) = (time(start), time(end));
            let verdict = if open { "inside" } else { "outside: nobody takes part" };
            writeln!(f, "   schedule: from {start} until {end}; {} is {verdict}", self.evaluated_at)?;
        }
        match (&self.rule, self.rules.is_empty()) {
            (_, true) => writeln!(f, "3. targeting: none, everybody may take part")?,
            (Some(rule), _) => writeln!(f, "3. targeting: rule `{rule}` is the first that matches")?,
            (None, _) => writeln!(f, "3. targeting: none of {} was found to match", self.rules.join(", "))?,
        }
        let asked = self.steps.iter().filter(|step| !matches!(step, EvaluationStep::Rule { .. }));
        for step in asked {
            writeln!(f, "   {step}")?;
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
            (None, reason) => {
                let Served { variant, value, .. } = &self.served;
                let reason = reason.as_deref().unwrap_or_default();
                write!(f, "-> no variant: {reason}; it is served {variant} = {value} and not exposed")
            }
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

#[cfg(test)]
mod tests {
    use assignment::{Environment, Lists, Name, Value};
    use serde_json::json;

    use super::*;
    use crate::samples;

    const FILE: &str = r#"
{kind: metric, key: ride, event: ride, type: count}
---
{kind: experiment, key: surge, state: running, control: a, unit_type: region, metrics: {primary: ride},
 switchback: {window_seconds: 3600}, variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}
"#;

    /// The bucket is that of the vectors.
    #[test]
    fn the_window_of_a_switchback_is_named_and_hashed_for_the_variant_alone() {
        let definitions = samples::definitions(FILE);
        let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
        let context = Context { targeting_key: None, attributes: &[(Name::of("region"), Value::Text("eu"))] };
        let now = Micros::parse("2026-01-01T00:30:00Z").unwrap();
        let surge = definitions.experiment("surge").unwrap();
        let explained = explain(&definitions, &snapshot, surge, &context, Attributes::new(), now).unwrap();
        let of_cluster = Salts::of(&definitions, surge.1).buckets("eu");
        assert_eq!((explained.slot.bucket, explained.rollout.bucket), (of_cluster.slot, of_cluster.rollout));
        assert_eq!((explained.bucket.bucket, explained.variant.as_deref()), (84_222, Some("a")));
        let step = json!({
            "step": "window", "start": "2026-01-01T00:00:00.000000Z", "window_seconds": 3600, "unit_id": "eu\u{0}1767225600",
        });
        assert_eq!(serde_json::to_value(&explained.steps).unwrap(), json!([step]));
        let line = "   window of 3600 s from 2026-01-01T00:00:00.000000Z: the variant is hashed of `eu`, a zero byte and \
                    `1767225600`\n";
        assert!(explained.to_string().contains(line), "{explained}");
    }

    /// The evaluation of a draft ends before the window is asked for.
    #[test]
    fn the_bucket_of_a_switchback_that_does_not_run_is_that_of_its_window_too() {
        let definitions = samples::definitions(&FILE.replace("running", "draft"));
        let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
        let context = Context { targeting_key: None, attributes: &[(Name::of("region"), Value::Text("eu"))] };
        let now = Micros::parse("2026-01-01T00:30:00Z").unwrap();
        let surge = definitions.experiment("surge").unwrap();
        let explained = explain(&definitions, &snapshot, surge, &context, Attributes::new(), now).unwrap();
        assert_eq!((explained.bucket.bucket, explained.variant), (84_222, None));
        let windows = explained.steps.iter().filter(|step| matches!(step, EvaluationStep::Window { .. }));
        assert_eq!(windows.count(), 1);
    }

    #[test]
    fn a_variant_that_is_shipped_to_the_targeted_says_so() {
        let running = r#"
{kind: experiment, key: badge, state: running, control: a, metrics: {primary: ride},
 targeting: [{key: pro, when: {attribute: plan, equals: pro}}],
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}
"#;
        let over = running.replace("state: running", "state: stopped, serve: {variant: b, to: targeted}");
        let metric = "{kind: metric, key: ride, event: ride, type: count}";
        let definitions = samples::definitions(&format!("{metric}\n---{running}---{over}"));
        let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
        let badge = definitions.experiment("badge").unwrap();
        let explained = |plan: &'static str| {
            let context =
                Context { targeting_key: Some("u1"), attributes: &[(Name::of("plan"), Value::Text(plan))] };
            explain(&definitions, &snapshot, badge, &context, Attributes::new(), Micros::EPOCH).unwrap()
        };
        let (pro, free) = (explained("pro"), explained("free"));
        assert_eq!((pro.served.variant.as_str(), free.served.variant.as_str()), ("b", "a"));
        assert_eq!(
            serde_json::to_value(&pro.steps[3..]).unwrap(),
            json!([{"step": "only_targeted", "targeted": true}])
        );
        assert_eq!(
            serde_json::to_value(&free.steps[3..]).unwrap(),
            json!([{"step": "only_targeted", "targeted": false}])
        );
        let line = "   the experiment is over and serves b to the rollout buckets below 1000000\n   it serves this only to \
                    the units that its targeting matches: no rule matches the unit\n";
        assert!(free.to_string().contains(line), "{free}");
    }
}
