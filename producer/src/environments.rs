//! Compares two environments: which flags and experiments have other settings in one than in the other, and how
//! the settings of one are copied to the other.

use definitions::diff::{Changed, changes};
use schemas::Key;
use schemas::definition::{Definition, Definitions, Kind, State, Version};
use serde::Serialize;
use serde_json::Value;

/// A definition whose settings differ between two environments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    pub key: Key,
    pub version: Version,
    /// The changes that promoting makes: `before` is the value in the environment that is promoted to, `after`
    /// the value in the one that is promoted from.
    pub changed: Vec<Changed>,
}

/// The promotion of one environment to another.
#[derive(Clone, Debug)]
pub struct Promotion {
    pub from: Key,
    pub to: Key,
}

impl Promotion {
    /// Returns every flag and experiment that is not archived and differs between the two.
    pub fn differences(&self, definitions: &Definitions) -> Vec<Difference> {
        let mut differences = Vec::new();
        for accepted in definitions.iter() {
            let definition = &accepted.definition;
            let changed = self.changes(definition);
            if !changed.is_empty() {
                differences.push(Difference {
                    kind: definition.kind(),
                    key: definition.key().clone(),
                    version: accepted.version,
                    changed,
                });
            }
        }
        differences
    }

    fn changes(&self, definition: &Definition) -> Vec<Changed> {
        let settings = |environment: &Key| -> Option<Value> {
            let settings = match definition {
                Definition::Flag(flag) if !flag.archived => {
                    serde_json::to_value(flag.in_environment(environment.as_str()))
                }
                Definition::Experiment(experiment) if experiment.state != State::Archived => {
                    serde_json::to_value(experiment.in_environment(environment.as_str()))
                }
                _ => return None,
            };
            Some(settings.expect("the settings of an environment are JSON"))
        };
        match (settings(&self.to), settings(&self.from)) {
            (Some(to), Some(from)) => changes(to, from),
            _ => Vec::new(),
        }
    }

    /// Returns the definition with the settings of `from` in `to`, down to the bucket; the two then do not
    /// differ. The phase is left out: it follows from whether `to` is counted. `None` for a kind of definition
    /// that is the same in all environments.
    pub fn promoted(&self, definition: &Definition) -> Option<Definition> {
        let mut definition = definition.clone();
        match &mut definition {
            Definition::Flag(flag) => {
                match flag.environments.get(&self.from).cloned() {
                    Some(settings) => flag.environments.insert(self.to.clone(), settings),
                    None => flag.environments.remove(&self.to),
                };
            }
            Definition::Experiment(experiment) => {
                experiment.phase = None;
                match experiment.environments.get(&self.from).cloned() {
                    Some(settings) => experiment.environments.insert(self.to.clone(), settings),
                    None => experiment.environments.remove(&self.to),
                };
            }
            Definition::Layer(_) | Definition::Metric(_) | Definition::List(_) | Definition::Settings(_) => {
                return None;
            }
        }
        Some(definition)
    }
}

/// What is told of an environment that is not known; it is most likely a typing error. `action` says what would become of
/// the settings that apply everywhere.
pub fn unknown(environment: &Key, action: &str) -> String {
    format!(
        "no definition mentions the environment `{environment}`: the settings that apply everywhere {action}"
    )
}

/// Returns whether a definition has settings for the environment or counts it. Production is always known.
pub fn is_known(definitions: &Definitions, environment: &Key) -> bool {
    let mentions = |definition: &Definition| match definition {
        Definition::Flag(flag) => flag.environments.contains_key(environment),
        Definition::Experiment(experiment) => {
            experiment.environments.contains_key(environment)
                || experiment.counted_environments.contains(environment)
        }
        Definition::Layer(_) | Definition::Metric(_) | Definition::List(_) | Definition::Settings(_) => false,
    };
    environment.as_str() == schemas::definition::PRODUCTION
        || definitions.iter().any(|accepted| mentions(&accepted.definition))
}

#[cfg(test)]
mod tests {
    use definitions::apply::{Signature, Verdict, rehearse};

    use super::*;
    use crate::samples;

    const FILE: &str = "
{kind: metric, key: m, event: buy, type: conversion}
---
kind: experiment
key: checkout
state: running
variants: [{key: a, weight: 50%}, {key: b, weight: 50%}]
control: a
metrics: {primary: m}
rollout: 10%
environments:
  staging: {rollout: 100%, targeting: [{key: staff, when: {attribute: staff, equals: true}}]}
  production: {enabled: false}
---
kind: flag
key: search
value_type: boolean
variants: [{key: off, value: false}, {key: on, value: true}]
default_variant: off
rules: [{key: some, split: [{variant: off, weight: 90%}, {variant: on, weight: 10%}]}]
environments:
  staging: {rules: [{key: some, split: [{variant: on, weight: 100%}]}]}
---
{kind: flag, key: same, value_type: boolean, variants: [{key: on, value: true}], default_variant: on}
";

    fn promotion(from: &str, to: &str) -> Promotion {
        Promotion { from: Key::new(from).unwrap(), to: Key::new(to).unwrap() }
    }

    fn shown(definitions: &Definitions, promotion: &Promotion) -> Vec<String> {
        let mut shown = Vec::new();
        for difference in promotion.differences(definitions) {
            for changed in difference.changed {
                shown.push(format!("{} {}: {changed}", difference.kind, difference.key));
            }
        }
        shown
    }

    #[test]
    fn what_differs_is_what_promoting_changes() {
        let definitions = samples::definitions(FILE);
        assert_eq!(
            shown(&definitions, &promotion("staging", "production")),
            [
                "experiment checkout: enabled: false -> true",
                "experiment checkout: rollout: 1000 -> 10000",
                "experiment checkout: targeting: [] (gone)",
                r#"experiment checkout: targeting[0].key: "staff" (new)"#,
                "experiment checkout: targeting[0].when.attribute: \"staff\" (new)",
                "experiment checkout: targeting[0].when.equals: true (new)",
                "flag search: rules[0].split[0].ranges[0]: [0,900000] -> [0,1000000]",
                r#"flag search: rules[0].split[0].variant: "off" -> "on""#,
                "flag search: rules[0].split[0].weight: 9000 -> 10000",
                "flag search: rules[0].split[1].ranges[0]: [900000,1000000] (gone)",
                r#"flag search: rules[0].split[1].variant: "on" (gone)"#,
                "flag search: rules[0].split[1].weight: 1000 (gone)",
            ]
        );
        assert_eq!(shown(&definitions, &promotion("staging", "staging")), Vec::<String>::new());
    }

    #[test]
    fn promoting_copies_all_settings_of_an_environment_as_one_change() {
        let definitions = samples::definitions(FILE);
        let promotion = promotion("staging", "production");
        let (_, experiment) = definitions.experiment("checkout").unwrap();
        let promoted = promotion.promoted(&Definition::Experiment(experiment.clone())).unwrap();
        let signature = Signature { author: "ann".to_owned(), reason: "tried".to_owned() };
        let applied = rehearse(&definitions, schemas::Micros::EPOCH, vec![promoted.clone()], &signature)
            .unwrap()
            .remove(0);
        assert_eq!(applied.verdict, Verdict::WouldBeAccepted);
        let changed: Vec<String> = applied.changed.iter().map(ToString::to_string).collect();
        assert_eq!(
            changed,
            [
                "environments.production.enabled: false (gone)",
                "environments.production.rollout: 10000 (new)",
                r#"environments.production.targeting[0].key: "staff" (new)"#,
                "environments.production.targeting[0].when.attribute: \"staff\" (new)",
                "environments.production.targeting[0].when.equals: true (new)",
                // Production is counted, and the experiment runs.
                "phase: 1 -> 2",
            ]
        );
        let Definition::Experiment(promoted) = promoted else { panic!("it stays an experiment") };
        assert_eq!(promoted.in_environment("production"), promoted.in_environment("staging"));
        let flag =
            definitions.iter().find(|accepted| accepted.definition.key().as_str() == "search").unwrap();
        let promoted = promotion.promoted(&flag.definition).unwrap();
        assert_eq!(promotion.changes(&promoted), []);
        let applied =
            rehearse(&definitions, schemas::Micros::EPOCH, vec![promoted], &signature).unwrap().remove(0);
        assert_eq!(applied.verdict, Verdict::WouldBeAccepted);
        // A metric is the same in all environments.
        let metric = definitions.iter().find(|accepted| accepted.definition.kind() == Kind::Metric).unwrap();
        assert_eq!(promotion.promoted(&metric.definition), None);
    }

    #[test]
    fn promoting_an_environment_without_settings_removes_the_override() {
        let definitions = samples::definitions(FILE);
        let (_, experiment) = definitions.experiment("checkout").unwrap();
        let promoted = promotion("canary", "staging").promoted(&Definition::Experiment(experiment.clone()));
        let Some(Definition::Experiment(promoted)) = promoted else { panic!("it stays an experiment") };
        let named: Vec<&str> = promoted.environments.keys().map(Key::as_str).collect();
        assert_eq!(named, ["production"]);
    }

    #[test]
    fn an_environment_is_known_if_a_definition_mentions_it() {
        let definitions = samples::definitions(FILE);
        let known = |name: &str| is_known(&definitions, &Key::new(name).unwrap());
        assert_eq!(["production", "staging", "prodcution"].map(known), [true, true, false]);
    }
}
