//! The rules by which changes of definitions are judged. Every record of the log names its rule, so an old
//! record stays readable and is judged forever by the rule that it was written under.

use serde_json::Value;

use super::{Definition, Kind};

/// The latest rule that this build knows. A reader that finds a later rule in the log must stop.
pub const RULE_VERSION: u32 = Rule::Two.version();

/// A rule. Writers propose a change under the lowest rule that can express it
/// ([`super::Definitions::rule_for`]), so that readers of an earlier build can continue as long as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Flags, experiments, layers, metrics and lists, each compared with the version before it.
    One,
    /// Adds the settings of the platform and the fields of `SINCE_RULE_2`, and judges what a change does to
    /// other definitions.
    Two,
}

/// The fields that rule 1 does not know, by kind.
const SINCE_RULE_2: [(Kind, &[&str]); 2] = [
    (Kind::Flag, &["environments"]),
    (Kind::Experiment, &["environments", "counted_environments", "excluded_phases"]),
];

/// The fields that a build that knew only rule 1 listed in its error, so that the error stays the same.
const FLAG_BY_RULE_1: &str = "key, owner, description, value_type, variants, default_variant, enabled, unit_type, \
                              salt, prerequisites, rules, archived";
const EXPERIMENT_BY_RULE_1: &str = "key, owner, hypothesis, description, state, phase, assignment, unit_type, salt, \
                                    layer, slots, slot_ranges, rollout, targeting, variants, control, metrics, plan";

impl Rule {
    /// The number of the rule in a record.
    pub const fn version(self) -> u32 {
        match self {
            Rule::One => 1,
            Rule::Two => 2,
        }
    }

    /// Returns the rule with this number; `None` for a rule of a later build.
    pub fn of(version: u32) -> Option<Rule> {
        [Rule::One, Rule::Two].into_iter().find(|rule| rule.version() == version)
    }

    /// Returns whether definitions of this kind can be proposed under this rule.
    pub(super) fn knows(self, kind: Kind) -> bool {
        self == Rule::Two || kind != Kind::Settings
    }

    /// Returns why the rule cannot read this definition: it has a field that the rule does not know.
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

/// Returns the lowest rule that can express the change from `previous` to `new`, without looking at other
/// definitions.
pub(super) fn lowest(previous: Option<&Definition>, new: &Definition) -> Rule {
    let later = |definition: &Definition| {
        let fields = definition.to_document();
        later_fields(definition.kind()).any(|field| fields.get(field).is_some())
    };
    let reaches_others = match (previous, new) {
        // Even if no experiment runs on the metric: one may start in the meantime.
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
