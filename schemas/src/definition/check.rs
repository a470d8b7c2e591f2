//! Checks a definition on its own. Every problem is listed with its field, so that the author can correct all of them
//! at once.

use std::collections::BTreeSet;
use std::fmt;

use super::{
    Assignment, BasisPoints, Condition, Definition, Experiment, Flag, FlagRule, Key, Layer, List, State,
    TargetingRule, ValueType,
};
use crate::bucket::BucketRange;
use crate::definition::condition::CONDITION_DEPTH_MAX;
use crate::definition::holdout::check_holdout;
use crate::definition::serving::{check_lists, check_ramp, check_schedule, check_serve};
use crate::definition::switchback::check_switchback;

/// The most variants of a flag or an experiment, and the most rules.
pub const VARIANTS_MAX: usize = 100;

/// The most environments that a definition may name.
pub const ENVIRONMENTS_MAX: usize = 100;

/// The longest time for which a layer's slots cool down, in hours: a year.
pub const COOLDOWN_HOURS_MAX: u32 = 8_760;

/// The most days from which a covariate is taken.
pub const COVARIATE_DAYS_MAX: u32 = 90;

/// The longest author and the longest reason, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;

/// Returns whether the text is not blank and at most [`TEXT_BYTES_MAX`] bytes long.
pub(super) fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX
}

/// A problem of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the field, such as `variants[1].weight`; `.` is the whole definition.
    pub field: String,
    pub what: String,
}

impl Problem {
    pub fn new(field: impl Into<String>, what: impl Into<String>) -> Problem {
        Problem { field: field.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "." => formatter.write_str(&self.what),
            field => write!(formatter, "{field}: {}", self.what),
        }
    }
}

/// Returns every problem of `definition` that can be found without its history and without other definitions.
pub fn check(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    match definition {
        Definition::Flag(flag) => check_flag(flag, &mut problems),
        Definition::Experiment(experiment) => check_experiment(experiment, &mut problems),
        Definition::Layer(layer) => check_layer(layer, &mut problems),
        Definition::Metric(metric) => problems = metric.check(),
        Definition::List(list) => check_list(list, &mut problems),
        Definition::Settings(settings) => problems = settings.check(),
    }
    problems
}

fn check_flag(flag: &Flag, problems: &mut Vec<Problem>) {
    let keys: Vec<&Key> = flag.variants.iter().map(|variant| &variant.key).collect();
    check_variant_keys(&keys, problems);
    for (index, variant) in flag.variants.iter().enumerate() {
        let fits = match flag.value_type {
            ValueType::Boolean => variant.value.is_boolean(),
            ValueType::String => variant.value.is_string(),
            ValueType::Integer => variant.value.is_i64(),
            ValueType::Number => variant.value.is_number(),
            ValueType::Json => true,
        };
        if !fits {
            problems.push(Problem::new(
                format!("variants[{index}].value"),
                format!("{} is not of the flag's value_type", variant.value),
            ));
        }
    }
    check_known("default_variant", &flag.default_variant, &keys, problems);
    for (index, prerequisite) in flag.prerequisites.iter().enumerate() {
        if prerequisite.variants.is_empty() {
            problems.push(Problem::new(
                format!("prerequisites[{index}].variants"),
                "names none, so the flag would never serve by its rules",
            ));
        }
    }
    check_lists(&flag.allow, &flag.deny, &keys, problems);
    check_rules("rules", &flag.rules, &keys, problems);
    check_environments(flag.environments.keys(), problems);
    for (environment, says) in &flag.environments {
        if let Some(rules) = &says.rules {
            check_rules(&format!("environments.{environment}.rules"), rules, &keys, problems);
        }
    }
}

fn check_rules(field: &str, rules: &[FlagRule], variants: &[&Key], problems: &mut Vec<Problem>) {
    if rules.len() > VARIANTS_MAX {
        problems.push(Problem::new(field, format!("{} rules is more than {VARIANTS_MAX}", rules.len())));
    }
    let mut seen = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if !seen.insert(&rule.key) {
            problems.push(Problem::new(format!("{field}.key"), format!("`{}` is used twice", rule.key)));
        }
        check_condition(rule.when.as_ref(), &format!("{field}.when"), problems);
        check_ramp(&format!("{field}."), rule.rollout, &rule.ramp, problems);
        check_schedule(&format!("{field}.schedule"), rule.schedule.as_ref(), problems);
        let mut shares = Vec::new();
        for (part, share) in rule.split.iter().enumerate() {
            check_known(&format!("{field}.split[{part}].variant"), &share.variant, variants, problems);
            shares.push((share.weight, share.ranges.as_slice()));
        }
        check_shares(&format!("{field}.split"), &shares, problems);
    }
}

fn check_targeting(field: &str, rules: &[TargetingRule], problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if !seen.insert(&rule.key) {
            problems
                .push(Problem::new(format!("{field}[{index}].key"), format!("`{}` is used twice", rule.key)));
        }
        check_condition(Some(&rule.when), &format!("{field}[{index}].when"), problems);
    }
}

fn check_environments<'a>(named: impl ExactSizeIterator<Item = &'a Key>, problems: &mut Vec<Problem>) {
    if named.len() > ENVIRONMENTS_MAX {
        problems.push(Problem::new(
            "environments",
            format!("{} environments is more than {ENVIRONMENTS_MAX}", named.len()),
        ));
    }
}

fn check_counted(counted: &[Key], problems: &mut Vec<Problem>) {
    if counted.is_empty() || counted.len() > ENVIRONMENTS_MAX {
        problems.push(Problem::new(
            "counted_environments",
            format!("{} environments is not in 1 to {ENVIRONMENTS_MAX}", counted.len()),
        ));
    }
    let mut seen = BTreeSet::new();
    for (index, environment) in counted.iter().enumerate() {
        if !seen.insert(environment) {
            problems.push(Problem::new(
                format!("counted_environments[{index}]"),
                format!("`{environment}` is named twice"),
            ));
        }
    }
}

fn check_experiment(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let keys: Vec<&Key> = experiment.variants.iter().map(|variant| &variant.key).collect();
    check_variant_keys(&keys, problems);
    if keys.len() < 2 {
        problems
            .push(Problem::new("variants", "an experiment needs a control and at least one more variant"));
    }
    check_known("control", &experiment.control, &keys, problems);
    let shares: Vec<(BasisPoints, &[BucketRange])> =
        experiment.variants.iter().map(|variant| (variant.weight, variant.ranges.as_slice())).collect();
    check_shares("variants", &shares, problems);
    if experiment.assignment == Assignment::External {
        if experiment.variants.iter().any(|variant| !variant.ranges.is_empty()) {
            problems
                .push(Problem::new("variants", "an external experiment owns no buckets; leave `ranges` out"));
        }
        if experiment.layer.is_some() {
            problems.push(Problem::new("layer", "an external experiment is in no layer"));
        }
    }
    if experiment.slots.get() == 0 {
        problems.push(Problem::new("slots", "0 leaves nobody to take part; 1 to 10000"));
    }
    if experiment.layer.is_none() && experiment.slots != BasisPoints::ALL {
        problems.push(Problem::new(
            "slots",
            "a share of a layer needs the `layer`; to expose fewer units use `rollout`",
        ));
    }
    if !experiment.slot_ranges.is_empty() {
        check_shares("slot_ranges", &[(experiment.slots, experiment.slot_ranges.as_slice())], problems);
    }
    check_lists(&experiment.allow, &experiment.deny, &keys, problems);
    check_serve(experiment, &keys, problems);
    check_switchback(experiment, problems);
    if experiment.holdout {
        check_holdout(experiment, problems);
    }
    check_targeting("targeting", &experiment.targeting, problems);
    check_environments(experiment.environments.keys(), problems);
    for (environment, says) in &experiment.environments {
        if let Some(targeting) = &says.targeting {
            check_targeting(&format!("environments.{environment}.targeting"), targeting, problems);
        }
    }
    check_counted(&experiment.counted_environments, problems);
    check_excluded(experiment, problems);
    if experiment.phase == Some(0) {
        problems.push(Problem::new("phase", "phases count from 1"));
    }
    let metrics = &experiment.metrics;
    let mut seen = BTreeSet::from([&metrics.primary]);
    for (role, keys) in [("secondary", &metrics.secondary), ("guardrails", &metrics.guardrails)] {
        for (index, key) in keys.iter().enumerate() {
            if !seen.insert(key) {
                problems.push(Problem::new(
                    format!("metrics.{role}[{index}]"),
                    format!("`{key}` is named twice"),
                ));
            }
        }
    }
    for (key, margin) in &metrics.margins {
        let field = format!("metrics.margins.{key}");
        if !metrics.guardrails.contains(key) {
            problems.push(Problem::new(
                field.clone(),
                format!("`{key}` is no guardrail of the experiment; name it in `metrics.guardrails`, or leave it out"),
            ));
        }
        if !(*margin > 0.0 && *margin < 1.0) {
            problems.push(Problem::new(field, format!("{margin} is not in (0, 1)")));
        }
    }
    check_plan(experiment, problems);
}

/// Checks the excluded phases on their own. [`check_excluded_step`] checks that they exist, which needs the
/// history.
fn check_excluded(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (index, excluded) in experiment.excluded_phases.iter().enumerate() {
        let field = format!("excluded_phases[{index}]");
        if excluded.phase == 0 {
            problems.push(Problem::new(format!("{field}.phase"), "phases count from 1"));
        }
        if !seen.insert(excluded.phase) {
            problems.push(Problem::new(
                format!("{field}.phase"),
                format!("phase {} is excluded twice", excluded.phase),
            ));
        }
        if !is_text(&excluded.reason) {
            problems
                .push(Problem::new(format!("{field}.reason"), format!("needs 1 to {TEXT_BYTES_MAX} bytes")));
        }
    }
}

fn check_plan(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let plan = &experiment.plan;
    if !(plan.alpha > 0.0 && plan.alpha <= 0.5) {
        problems.push(Problem::new("plan.alpha", format!("{} is not in (0, 0.5]", plan.alpha)));
    }
    if !(plan.power >= 0.5 && plan.power < 1.0) {
        problems.push(Problem::new("plan.power", format!("{} is not in [0.5, 1)", plan.power)));
    }
    if let Some(mde) = plan.mde_relative
        && !(mde > 0.0 && mde.is_finite())
    {
        problems.push(Problem::new("plan.mde_relative", format!("{mde} is not above 0")));
    }
    if let Some(lift) = plan.practical_lift_relative
        && !(lift >= 0.0 && lift.is_finite())
    {
        problems.push(Problem::new("plan.practical_lift_relative", format!("{lift} is below 0")));
    }
    let needs_horizon = matches!(plan.method, super::Method::GroupSequential | super::Method::FixedHorizon);
    match plan.horizon_units {
        Some(0) => problems
            .push(Problem::new("plan.horizon_units", "0 units is no horizon; leave it out or name one")),
        None if needs_horizon => problems.push(Problem::new(
            "plan.horizon_units",
            "the method needs a planned horizon; `always_valid` does without",
        )),
        _ => {}
    }
    if let Some(days) = plan.covariate_days
        && !(1..=COVARIATE_DAYS_MAX).contains(&days)
    {
        let what = format!("{days} is not in 1 to {COVARIATE_DAYS_MAX}");
        problems.push(Problem::new("plan.covariate_days", what));
    }
    check_schedule("plan.schedule", plan.schedule.as_ref(), problems);
}

fn check_layer(layer: &Layer, problems: &mut Vec<Problem>) {
    if layer.cooldown_hours > COOLDOWN_HOURS_MAX {
        problems.push(Problem::new(
            "cooldown_hours",
            format!("{} is not in 0 to {COOLDOWN_HOURS_MAX}", layer.cooldown_hours),
        ));
    }
}

fn check_list(list: &List, problems: &mut Vec<Problem>) {
    let digest = &list.members_sha256;
    if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        problems.push(Problem::new("members_sha256", "not 64 lower-case hexadecimal digits"));
    }
}

pub(super) fn check_first(experiment: &Experiment, problems: &mut Vec<Problem>) {
    if !matches!(experiment.state, State::Draft | State::Running) {
        problems.push(Problem::new(
            "state",
            format!(
                "a new experiment is draft or running, not {}; begin with one of them",
                experiment.state.as_str()
            ),
        ));
    }
    check_open(experiment, problems);
}

/// Checks what must be true before the first unit is exposed. Later a variant may shrink and leave buckets
/// unowned.
pub(super) fn check_open(experiment: &Experiment, problems: &mut Vec<Problem>) {
    if experiment.phase() != 1 {
        problems.push(Problem::new("phase", "the first phase is 1; leave `phase` out, and it is counted"));
    }
    if !experiment.excluded_phases.is_empty() {
        problems
            .push(Problem::new("excluded_phases", "nothing has run that could be excluded; leave it empty"));
    }
    let total: u32 = experiment.variants.iter().map(|variant| variant.weight.get()).sum();
    // `check_shares` refuses more than 10,000.
    if total < 10_000 {
        problems
            .push(Problem::new("variants", format!("{}; to expose fewer units use `rollout`", sum(total))));
    }
}

fn check_variant_keys(keys: &[&Key], problems: &mut Vec<Problem>) {
    if keys.is_empty() || keys.len() > VARIANTS_MAX {
        problems
            .push(Problem::new("variants", format!("{} variants is not in 1 to {VARIANTS_MAX}", keys.len())));
    }
    let mut seen = BTreeSet::new();
    for (index, key) in keys.iter().enumerate() {
        if !seen.insert(key) {
            problems.push(Problem::new(format!("variants[{index}].key"), format!("`{key}` is used twice")));
        }
    }
}

fn check_known(field: &str, key: &Key, keys: &[&Key], problems: &mut Vec<Problem>) {
    if !keys.contains(&key) {
        problems.push(Problem::new(field, format!("`{key}` is not one of the variants")));
    }
}

/// Checks that the weights add up to at most 100%, and that ranges, once resolved, are as wide as their
/// weights and do not overlap.
fn check_shares(field: &str, shares: &[(BasisPoints, &[BucketRange])], problems: &mut Vec<Problem>) {
    let total: u32 = shares.iter().map(|(weight, _)| weight.get()).sum();
    if total > 10_000 {
        problems.push(Problem::new(field, sum(total)));
    }
    if shares.iter().all(|(_, ranges)| ranges.is_empty()) {
        return;
    }
    let mut owned: Vec<BucketRange> = Vec::new();
    for (index, (weight, ranges)) in shares.iter().enumerate() {
        let width: u32 = ranges.iter().map(|range| range.width()).fold(0, u32::saturating_add);
        if width != weight.buckets() {
            problems.push(Problem::new(
                format!("{field}[{index}]"),
                format!(
                    "its ranges hold {width} buckets, its weight is {}; leave the ranges out, and they are allocated",
                    weight.buckets()
                ),
            ));
        }
        owned.extend_from_slice(ranges);
    }
    owned.sort();
    if let Some(pair) = owned.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
        problems.push(Problem::new(field, format!("{} and {} overlap", pair[0], pair[1])));
    }
}

/// Writes by how much the weights differ from 100%: `the weights add up to 99.99%, 1 basis point too few`.
fn sum(total: u32) -> String {
    let (missed, way) = (total.abs_diff(10_000), if total < 10_000 { "few" } else { "many" });
    let points = if missed == 1 { "basis point" } else { "basis points" };
    format!("the weights add up to {}, {missed} {points} too {way}", percent(total))
}

/// Writes basis points as a percentage: 9,999 is `99.99%`.
fn percent(basis_points: u32) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn check_condition(condition: Option<&Condition>, field: &str, problems: &mut Vec<Problem>) {
    let Some(condition) = condition else { return };
    if condition.depth() > CONDITION_DEPTH_MAX {
        problems.push(Problem::new(field, format!("nests deeper than {CONDITION_DEPTH_MAX}")));
    }
}
