//! What is counted: the experiments that are followed, each with its metrics, as the definitions say it now.

use crate::kind::Kind;
use crate::micros::Micros;
use crate::names::Name;

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    pub experiments: Vec<ExperimentSpec>,
}

/// An experiment that is followed.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentSpec {
    pub name: Name,
    /// The environments whose events count, in ascending order.
    pub environments: Vec<Name>,
    /// If it is a switchback, how time is cut.
    pub switchback: Option<Switchback>,
    pub metrics: Vec<MetricSpec>,
}

/// The windows of a switchback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switchback {
    pub window: Micros,
    /// At the start of a window nothing counts for so long.
    pub burn_in: Micros,
}

/// A metric of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    /// What identifies what is counted: two metrics with the same text count the same.
    pub identity: Box<str>,
    pub kind: Kind,
    /// How long before the first exposure the covariate is taken from.
    pub covariate: Option<Micros>,
}

impl ExperimentSpec {
    /// Returns whether events of the environment count.
    pub fn counts_in(&self, environment: Name) -> bool {
        self.environments.binary_search(&environment).is_ok()
    }
}
