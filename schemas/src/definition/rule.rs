//! The rules by which changes of definitions are judged. Every record of the log names its rule; what an old one
//! says stays readable, and is judged for ever as it was when it was written.

use serde_json::Value;

use super::{Definition, Kind};

/// The latest rule that this build knows. A reader that meets a later one must not go on.
pub const RULE_VERSION: u32 = Rule::Two.version();

/// A rule. Writers propose by the lowest one that can say their change ([`super::Definitions::rule_for`]), so that
/// readers of an earlier build go on for as long as they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Flags, experiments, layers, metrics and lists, each judged beside the version before it.
    One,
    /// The settings of the platform and the fields of `SINCE_RULE_2`, too; and what a change does to others is judged.
    Two,
}

/// The fields, by kind, that rule 1 does not know.
const SINCE_RULE_2: [(Kind, &[&str]); 2] = [
    (Kind::Flag, &["environments"]),
    (Kind::Experiment, &["environments", "counted_environments", "excluded_phases"]),
];

/// What a build that knew rule 1 alone said that there can be.
const FLAG_BY_RULE_1: &str = "key, owner, description, value_type, variants, default_variant, enabled, unit_type, \
                              salt, prerequisites, rules, archived";
const EXPERIMENT_BY_RULE_1: &str = "key, owner, hypothesis, description, state, phase, assignment, unit_type, salt, \
                                    layer, slots, slot_ranges, rollout, targeting, variants, control, metrics, plan";

impl Rule {
    /// As a record names it.
    pub const fn version(self) -> u32 {
        match self {
            Rule::One => 1,
            Rule::Two => 2,
        }
    }

    /// `None` for a rule of a later build.
    pub fn of(version: u32) -> Option<Rule> {
        [Rule::One, Rule::Two].into_iter().find(|rule| rule.version() == version)
    }

    /// Whether definitions of this kind can be proposed by it.
    pub(super) fn knows(self, kind: Kind) -> bool {
        self == Rule::Two || kind != Kind::Settings
    }

    /// Why the rule cannot read a definition of this kind that has these fields.
    pub(super) fn unknown_to(self, kind: Kind, definition: &Value) -> Option<String> {
        if self == Rule::Two {
            return None;
        }
        let field = later_fields(kind).find(|field| definition.get(field).is_some())?;
        let known = match kind {
            Kind::Flag => FLAG_BY_RULE_1,
            _ => EXPERIMENT_BY_RULE_1,
        };
        Some(format!("{field}: no such field; there can be {known}"))
    }
}

/// The lowest rule that can say the step from `previous` to `new`, whatever surrounds it.
pub(super) fn lowest(previous: Option<&Definition>, new: &Definition) -> Rule {
    let later = |definition: &Definition| {
        let fields = definition.to_document();
        later_fields(definition.kind()).any(|field| fields.get(field).is_some())
    };
    let reaches_others = match (previous, new) {
        // Whether or not an experiment runs on it: one may start meanwhile.
        (Some(Definition::Metric(old)), Definition::Metric(new)) => new.measures_otherwise(old).is_some(),
        (Some(Definition::Experiment(old)), Definition::Experiment(new)) => {
            old.has_looks() && old.metrics != new.metrics
        }
        _ => false,
    };
    if !Rule::One.knows(new.kind()) || reaches_others || later(new) || previous.is_some_and(later) {
        Rule::Two
    } else {
        Rule::One
    }
}

fn later_fields(kind: Kind) -> impl Iterator<Item = &'static str> {
    SINCE_RULE_2.into_iter().filter(move |(of, _)| *of == kind).flat_map(|(_, fields)| fields.iter().copied())
}
