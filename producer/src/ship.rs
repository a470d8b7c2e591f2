//! The ends of an experiment, each as one change: a variant is shipped to everybody, or taken back.

use schemas::definition::{Definition, Definitions, Experiment, Serve, ServeTo, State};
use schemas::{BasisPoints, Key};

/// To whom a variant is shipped.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    pub to: ServeTo,
    pub rollout: BasisPoints,
}

/// Why nothing can be shipped or taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToShip {
    #[error("there is no experiment `{0}`; `splitstream definitions` lists all definitions")]
    NoExperiment(String),
    #[error(
        "`{0}` is a flag: change its rules, and take that back with the version before (`splitstream history {0}`)"
    )]
    Flag(String),
    #[error("experiment `{0}` is a draft that nobody has seen; start it, or archive it")]
    Draft(Key),
    #[error("`{0}` is a holdout, which serves nothing; stop it")]
    Holdout(Key),
}

/// Returns the experiment over, and serving this variant. Whether there is such a variant, the log's rule says.
pub fn shipped(
    definitions: &Definitions,
    key: &str,
    variant: Key,
    audience: Audience,
) -> Result<Definition, NothingToShip> {
    let Audience { to, rollout } = audience;
    let serve = Serve { variant, to, rollout, ramp: Vec::new() };
    over(definitions, key).map(|over| Definition::Experiment(Experiment { serve: Some(serve), ..over }))
}

/// Returns the experiment over, and serving the control to everybody.
pub fn rolled_back(definitions: &Definitions, key: &str) -> Result<Definition, NothingToShip> {
    over(definitions, key).map(|over| Definition::Experiment(Experiment { serve: None, ..over }))
}

/// Returns the experiment as it is once it has ended.
fn over(definitions: &Definitions, key: &str) -> Result<Experiment, NothingToShip> {
    let Some((_, experiment)) = definitions.experiment(key) else {
        let is_flag = definitions.flag(key).is_some();
        return Err(match is_flag {
            true => NothingToShip::Flag(key.to_owned()),
            false => NothingToShip::NoExperiment(key.to_owned()),
        });
    };
    if experiment.holdout {
        return Err(NothingToShip::Holdout(experiment.key.clone()));
    }
    let state = match experiment.state {
        State::Draft => return Err(NothingToShip::Draft(experiment.key.clone())),
        State::Running | State::Stopped => State::Stopped,
        State::Archived => State::Archived,
    };
    Ok(Experiment { state, ..experiment.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::definitions;

    const FILE: &str = "
kind: metric
key: signup
event: signup
type: conversion
---
kind: experiment
key: checkout
state: running
variants: [{key: control, weight: 50%}, {key: treatment, weight: 50%}]
control: control
metrics: {primary: signup}
---
kind: experiment
key: idea
variants: [{key: control, weight: 50%}, {key: treatment, weight: 50%}]
control: control
metrics: {primary: signup}
---
kind: flag
key: banner
value_type: boolean
variants: [{key: on, value: true}]
default_variant: on
";

    fn experiment(definition: Definition) -> Experiment {
        match definition {
            Definition::Experiment(experiment) => experiment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shipping_stops_the_experiment_and_names_what_it_serves() {
        let definitions = definitions(FILE);
        let audience = Audience { to: ServeTo::All, rollout: BasisPoints::ALL };
        let treatment = Key::new("treatment").unwrap();
        let over = experiment(shipped(&definitions, "checkout", treatment.clone(), audience).unwrap());
        assert_eq!(over.state, State::Stopped);
        assert_eq!(over.serve.unwrap().variant, treatment);
        let back = experiment(rolled_back(&definitions, "checkout").unwrap());
        assert_eq!((back.state, back.serve), (State::Stopped, None));
    }

    #[test]
    fn what_cannot_be_shipped_says_why() {
        let definitions = definitions(FILE);
        let refused = |key: &str| rolled_back(&definitions, key).unwrap_err();
        assert_eq!(refused("idea"), NothingToShip::Draft(Key::new("idea").unwrap()));
        assert_eq!(refused("banner"), NothingToShip::Flag("banner".to_owned()));
        assert_eq!(refused("none"), NothingToShip::NoExperiment("none".to_owned()));
    }
}
