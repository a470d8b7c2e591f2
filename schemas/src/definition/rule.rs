//! The rules by which changes of definitions are judged. Every record of the log names its rule, so an old
//! record stays readable and is judged forever by the rule that it was written under.

use serde_json::Value;

use super::{Definition, Kind, Metric, State};

/// The latest rule that this build knows. A reader that finds a later rule in the log must stop.
pub const RULE_VERSION: u32 = Rule::Five.version();

/// A rule. Writers propose a change under the lowest rule that can express it
/// ([`super::Definitions::rule_for`]), so that readers of an earlier build can continue as long as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Flags, experiments, layers, metrics and lists, each compared with the version before it.
    One,
    /// Adds the settings of the platform and the fields of `SINCE_RULE_2`, and judges what a change does to
    /// other definitions.
    Two,
    /// Adds the fields of `SINCE_RULE_3` and the operators of `OPERATORS_SINCE_RULE_3`: lists of units, ramps,
    /// what a finished experiment serves, holdouts, and slots that cool down.
    Three,
    /// Adds the fields of `SINCE_RULE_4`: switchbacks. Also judges what other members of a list do to the experiments that
    /// name it, and what a variant that goes does to the flags that wait for it.
    Four,
    /// Adds the fields of `SINCE_RULE_5`: delays, filters and caps of metrics, what ratios and quantiles are of, covariates
    /// and the margins of guardrails. Also refuses the window of a retention.
    Five,
}

/// The path of a field in the JSON of a definition: a name, `[]` for every item of a list, `{}` for every field of
/// a map.
type Path = &'static [&'static str];

/// The fields that rule 1 does not know, by kind.
const SINCE_RULE_2: [(Kind, Path); 4] = [
    (Kind::Flag, &["environments"]),
    (Kind::Experiment, &["environments"]),
    (Kind::Experiment, &["counted_environments"]),
    (Kind::Experiment, &["excluded_phases"]),
];

/// The fields that rule 2 does not know, by kind.
const SINCE_RULE_3: [(Kind, Path); 14] = [
    (Kind::Flag, &["client_safe"]),
    (Kind::Flag, &["allow"]),
    (Kind::Flag, &["deny"]),
    (Kind::Flag, &["rules", "[]", "ramp"]),
    (Kind::Flag, &["rules", "[]", "schedule"]),
    (Kind::Flag, &["environments", "{}", "rules", "[]", "ramp"]),
    (Kind::Flag, &["environments", "{}", "rules", "[]", "schedule"]),
    (Kind::Experiment, &["client_safe"]),
    (Kind::Experiment, &["allow"]),
    (Kind::Experiment, &["deny"]),
    (Kind::Experiment, &["serve"]),
    (Kind::Experiment, &["holdout"]),
    (Kind::Layer, &["cooldown_hours"]),
    (Kind::List, &["salt"]),
];

/// The fields that rule 3 does not know, by kind.
const SINCE_RULE_4: [(Kind, Path); 1] = [(Kind::Experiment, &["switchback"])];

/// The fields that rule 4 does not know, by kind.
const SINCE_RULE_5: [(Kind, Path); 9] = [
    (Kind::Metric, &["delay_hours"]),
    (Kind::Metric, &["where"]),
    (Kind::Metric, &["cap"]),
    (Kind::Metric, &["numerator"]),
    (Kind::Metric, &["denominator"]),
    (Kind::Metric, &["denominator_where"]),
    (Kind::Metric, &["per_unit"]),
    (Kind::Experiment, &["metrics", "margins"]),
    (Kind::Experiment, &["plan", "covariate_days"]),
];

/// Where a definition has conditions.
const CONDITIONS: [(Kind, Path); 4] = [
    (Kind::Flag, &["rules", "[]", "when"]),
    (Kind::Flag, &["environments", "{}", "rules", "[]", "when"]),
    (Kind::Experiment, &["targeting", "[]", "when"]),
    (Kind::Experiment, &["environments", "{}", "targeting", "[]", "when"]),
];

/// The operators of a condition that rule 2 does not know. It knew `in_list`, and refused it.
const OPERATORS_SINCE_RULE_3: [&str; 6] =
    ["in_list", "has_any", "has_all", "version_equals", "version_above", "version_at_most"];

/// The fields that a build that knew only rule 1 listed in its error, so that the error stays the same.
const FLAG_BY_RULE_1: &str = "key, owner, description, value_type, variants, default_variant, enabled, unit_type, \
                              salt, prerequisites, rules, archived";
const EXPERIMENT_BY_RULE_1: &str = "key, owner, hypothesis, description, state, phase, assignment, unit_type, salt, \
                                    layer, slots, slot_ranges, rollout, targeting, variants, control, metrics, plan";

impl Rule {
    const ALL: [Rule; 5] = [Rule::One, Rule::Two, Rule::Three, Rule::Four, Rule::Five];

    /// The number of the rule in a record.
    pub const fn version(self) -> u32 {
        match self {
            Rule::One => 1,
            Rule::Two => 2,
            Rule::Three => 3,
            Rule::Four => 4,
            Rule::Five => 5,
        }
    }

    /// Returns the rule with this number; `None` for a rule of a later build.
    pub fn of(version: u32) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.version() == version)
    }

    /// Returns whether definitions of this kind can be proposed under this rule.
    pub(super) fn knows(self, kind: Kind) -> bool {
        self >= Rule::Two || kind != Kind::Settings
    }

    /// Returns why the rule cannot read this definition: it has a field or an operator that the rule does not
    /// know.
    pub(super) fn unknown_to(self, kind: Kind, definition: &Value) -> Option<String> {
        if self < Rule::Two
            && let Some(field) = first_field(&SINCE_RULE_2, kind, definition)
        {
            let known = match kind {
                Kind::Flag => FLAG_BY_RULE_1,
                _ => EXPERIMENT_BY_RULE_1,
            };
            return Some(format!("{field}: no such field; there can be {known}"));
        }
        let mut later = None;
        if self < Rule::Three {
            later = first_field(&SINCE_RULE_3, kind, definition)
                .or_else(|| first_operator_since_rule_3(kind, definition));
        }
        if self < Rule::Four {
            later = later.or_else(|| first_field(&SINCE_RULE_4, kind, definition));
        }
        if self < Rule::Five {
            later = later.or_else(|| first_field(&SINCE_RULE_5, kind, definition));
        }
        later.map(|name| format!("{name}: not in rule {}, which this change names", self.version()))
    }
}

/// Returns the lowest rule that can express the change from `previous` to `new`, without looking at other
/// definitions.
pub(super) fn lowest(previous: Option<&Definition>, new: &Definition) -> Rule {
    let of_definition = |definition: &Definition| {
        let (kind, fields) = (definition.kind(), definition.to_document());
        let readable = Rule::ALL.into_iter().find(|rule| rule.unknown_to(kind, &fields).is_none());
        readable.expect("the latest rule reads every definition")
    };
    let of_step = match (previous, new) {
        (Some(old), new) if depends_on_others(old, new) => Rule::Four,
        // The only rule that refuses it. A metric that has it already may keep it.
        (old, Definition::Metric(new)) if new.has_window_beside_days() && !measured_so(old, new) => {
            Rule::Five
        }
        // Even if no experiment runs on the metric: one may start in the meantime.
        (Some(Definition::Metric(old)), Definition::Metric(new)) if new.measures_otherwise(old).is_some() => {
            Rule::Two
        }
        (Some(Definition::Experiment(old)), Definition::Experiment(new))
            if old.has_looks() && old.metrics != new.metrics =>
        {
            Rule::Two
        }
        _ if Rule::One.knows(new.kind()) => Rule::One,
        _ => Rule::Two,
    };
    of_step.max(of_definition(new)).max(previous.map_or(Rule::One, of_definition))
}

/// Returns whether the metric measured the same before.
fn measured_so(old: Option<&Definition>, new: &Metric) -> bool {
    matches!(old, Some(Definition::Metric(old)) if new.measures_otherwise(old).is_none())
}

/// Returns whether earlier rules could let a variant go that a flag waits for, or leave a phase closed that other members of
/// a list open. Even if no flag waits and no list has changed: that may come in the meantime.
fn depends_on_others(old: &Definition, new: &Definition) -> bool {
    let runs_on_by_lists = match (old, new) {
        (Definition::Experiment(old), Definition::Experiment(new)) => {
            old.state == State::Running && new.state == State::Running && !old.lists_that_count().is_empty()
        }
        _ => false,
    };
    runs_on_by_lists || !old.variants_gone_from(new).is_empty()
}

/// Returns the last name of the first of these fields that the definition has.
fn first_field(fields: &[(Kind, Path)], kind: Kind, definition: &Value) -> Option<&'static str> {
    let of_kind = fields.iter().filter(|(of, _)| *of == kind);
    of_kind.filter(|(_, path)| !at(definition, path).is_empty()).find_map(|(_, path)| path.last().copied())
}

fn first_operator_since_rule_3(kind: Kind, definition: &Value) -> Option<&'static str> {
    let of_kind = CONDITIONS.iter().filter(|(of, _)| *of == kind);
    of_kind.flat_map(|(_, path)| at(definition, path)).find_map(operator_since_rule_3)
}

/// Looks through a condition, but not into the values that its tests compare with.
fn operator_since_rule_3(condition: &Value) -> Option<&'static str> {
    let own = OPERATORS_SINCE_RULE_3.into_iter().find(|operator| condition.get(operator).is_some());
    let joined = ["all", "any"].into_iter().filter_map(|name| condition.get(name)?.as_array()).flatten();
    own.or_else(|| joined.chain(condition.get("not")).find_map(operator_since_rule_3))
}

/// Returns every value at the path.
fn at<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    let Some((step, rest)) = path.split_first() else { return vec![value] };
    let inner: Vec<&Value> = match *step {
        "[]" => value.as_array().into_iter().flatten().collect(),
        "{}" => value.as_object().into_iter().flat_map(|fields| fields.values()).collect(),
        name => value.get(name).into_iter().collect(),
    };
    inner.into_iter().flat_map(|value| at(value, rest)).collect()
}
