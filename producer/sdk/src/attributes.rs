//! Selects the attributes that an exposure carries: those that its experiment's targeting tests, those that the
//! settings name, and the standard ones. All other attributes of a unit decide nothing and stay in the service.

use std::collections::BTreeSet;

use ops::config::{Setting, Shown};
use schemas::Pairs;
use schemas::definition::{Condition, Experiment, Test};
use schemas::event::STANDARD_ATTRIBUTES;
use schemas::key::{Key, is_key};
use serde::Deserialize;

/// The names of the attributes that the exposures of one experiment may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeFilter(BTreeSet<String>);

/// The attributes that an [`AttributeFilter`] has selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedAttributes<'a>(Pairs<'a>);

impl AttributeFilter {
    /// Allows the standard attributes, those that a condition of the experiment's targeting tests in any
    /// environment, and the `named` ones.
    pub fn of(experiment: &Experiment, named: &AttributeNames) -> AttributeFilter {
        let mut names: BTreeSet<String> = STANDARD_ATTRIBUTES.map(str::to_owned).into();
        names.extend(named.0.iter().map(Key::to_string));
        let elsewhere =
            experiment.environments.values().filter_map(|there| there.targeting.as_ref()).flatten();
        for rule in experiment.targeting.iter().chain(elsewhere) {
            collect(&rule.when, &mut names);
        }
        // A condition may test an attribute whose name no event can carry.
        names.retain(|name| is_key(name));
        AttributeFilter(names)
    }

    /// Allows the standard attributes alone, for an experiment that is not known.
    pub fn standard() -> AttributeFilter {
        AttributeFilter(STANDARD_ATTRIBUTES.map(str::to_owned).into())
    }

    pub fn select<'a>(&self, known: &'a Pairs<'_>) -> SelectedAttributes<'a> {
        SelectedAttributes(known.iter().filter(|(name, _)| self.0.contains(*name)).collect())
    }
}

impl<'a> SelectedAttributes<'a> {
    pub fn into_pairs(self) -> Pairs<'a> {
        self.0
    }

    /// Copies the attributes, so that they outlive those they were selected from.
    pub fn into_owned(self) -> SelectedAttributes<'static> {
        SelectedAttributes(self.0.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn collect(condition: &Condition, names: &mut BTreeSet<String>) {
    match condition {
        Condition::All(inner) | Condition::Any(inner) => {
            for condition in inner {
                collect(condition, names);
            }
        }
        Condition::Not(inner) => collect(inner, names),
        Condition::Test(Test { attribute, .. }) => {
            names.insert(attribute.clone());
        }
    }
}

/// Names of attributes, separated by commas; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AttributeNames(Vec<Key>);

/// An exposure has room for 64 attributes, which include the four standard ones.
const NAMES_MAX: usize = 60;

impl TryFrom<String> for AttributeNames {
    type Error = String;

    fn try_from(text: String) -> Result<AttributeNames, String> {
        if text.trim().is_empty() {
            return Ok(AttributeNames::default());
        }
        let refused = || format!("{text:?} where {} is expected", AttributeNames::allowed());
        let names = text.split(',').map(|name| Key::new(name.trim())).collect::<Result<Vec<Key>, _>>();
        let names = names.map_err(|_| refused())?;
        if names.len() > NAMES_MAX { Err(refused()) } else { Ok(AttributeNames(names)) }
    }
}

impl Setting for AttributeNames {
    fn allowed() -> String {
        format!(
            "0 to {NAMES_MAX} names of attributes, each of 1 to 64 of the characters A-Z a-z 0-9 . _ -, separated by commas"
        )
    }

    fn shown(&self) -> Shown {
        let names: Vec<&str> = self.0.iter().map(Key::as_str).collect();
        Shown::text(names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    const TARGETED: &str = r#"
{kind: metric, key: buy, event: buy, type: conversion}
---
{kind: experiment, key: e, state: running, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}],
 targeting: [
   {key: adults, when: {all: [{attribute: age, at_least: 18}, {not: {attribute: "e-mail kind", equals: work}}]}},
   {key: others, when: {any: [{attribute: country, in: [DE, AT]}, {attribute: beta, exists: true}]}}],
 environments: {staging: {targeting: [{key: staff, when: {attribute: tester, equals: true}}]}}}
"#;

    #[test]
    fn exposures_carry_tested_named_and_standard_attributes() {
        let definitions = samples::definitions(TARGETED);
        let (_, experiment) = definitions.experiment("e").unwrap();
        let known: Pairs = [
            ("e-mail", "ann@example.org"),
            ("e-mail kind", "home"),
            ("region", "EU"),
            ("country", "DE"),
            ("tier", "gold"),
            ("age", "42"),
            ("tester", "true"),
            ("beta", "yes"),
            ("browser", "firefox"),
        ]
        .into_iter()
        .collect();
        let carried = |named: &str| -> Vec<String> {
            let named = AttributeNames::try_from(named.to_owned()).unwrap();
            let selected = AttributeFilter::of(experiment, &named).select(&known).into_pairs();
            selected.iter().map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(carried(""), ["region", "country", "age", "tester", "beta", "browser"]);
        assert_eq!(carried("tier, score"), ["region", "country", "tier", "age", "tester", "beta", "browser"]);
    }

    #[test]
    fn names_are_keys_separated_by_commas() {
        let read = |text: &str| AttributeNames::try_from(text.to_owned());
        assert_eq!(read(" ").unwrap(), AttributeNames::default());
        assert_eq!(read("tier, score").unwrap().shown(), Shown::text("tier,score"));
        assert_eq!(
            read("tier,,score").unwrap_err(),
            "\"tier,,score\" where 0 to 60 names of attributes, each of 1 to 64 of the characters A-Z a-z 0-9 . _ -, \
             separated by commas is expected"
        );
        assert!(read(&vec!["a"; 60].join(",")).is_ok());
        assert!(read(&vec!["a"; 61].join(",")).is_err());
    }
}
