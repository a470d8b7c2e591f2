//! Checks a definition against the others: what it refers to must exist, and what it changes must not break
//! another's analysis. Slots have a module of their own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Definitions, Space};
use crate::definition::settings::DaysNeeded;
use crate::definition::{
    Allowed, Assignment, Condition, Definition, Experiment, Flag, FlagRule, Key, Metric, Prerequisite,
    Problem, RetentionDays, Rule, State, TargetingRule, settings,
};
use crate::time::Micros;

impl Definitions {
    /// Checks a definition against the others: what it refers to must exist, and the slots that it takes must
    /// be free.
    pub(super) fn check_surroundings(
        &self,
        rule: Rule,
        at: Micros,
        previous: Option<&Definition>,
        definition: &Definition,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let exists = |space: Space, key: &Key| self.current.contains_key(&(space, key.clone()));
        match definition {
            Definition::Flag(flag) => {
                for (index, prerequisite) in flag.prerequisites.iter().enumerate() {
                    if let Some(what) = self.hindrance(flag, prerequisite) {
                        problems.push(Problem::new(format!("prerequisites[{index}]"), what));
                    }
                }
                self.check_lists(&flag.allow, &flag.deny, &flag.unit_type, &mut problems);
                self.check_conditions(flag_conditions(flag), &mut problems);
                check_resolved("rules", &flag.rules, &mut problems);
                for (environment, says) in &flag.environments {
                    if let Some(rules) = &says.rules {
                        check_resolved(&format!("environments.{environment}.rules"), rules, &mut problems);
                    }
                }
            }
            Definition::Experiment(experiment) => {
                for (field, key) in experiment.metrics.fields() {
                    if !exists(Space::Metrics, key) {
                        problems.push(Problem::new(
                            field,
                            format!("there is no metric `{key}`; define it first"),
                        ));
                    }
                }
                if experiment.assignment == Assignment::Hashed
                    && experiment
                        .variants
                        .iter()
                        .any(|variant| variant.weight.get() > 0 && variant.ranges.is_empty())
                {
                    problems.push(Problem::new("variants", "their ranges are not resolved"));
                }
                self.check_lists(&experiment.allow, &experiment.deny, &experiment.unit_type, &mut problems);
                self.check_conditions(experiment_conditions(experiment), &mut problems);
                let before = match previous {
                    Some(Definition::Experiment(before)) => Some(before),
                    _ => None,
                };
                self.check_slots(at, before, experiment, &mut problems);
                if rule >= Rule::Two {
                    self.check_kept(previous, experiment, &mut problems);
                    if let Some(Definition::Experiment(before)) = previous
                        && before.has_looks()
                    {
                        self.check_values(before, experiment, &mut problems);
                    }
                }
            }
            Definition::Metric(metric) => {
                if let Some(Definition::Metric(before)) = previous
                    && rule >= Rule::Two
                {
                    self.check_measured_alike(before, metric, &mut problems);
                }
            }
            Definition::Settings(settings) => {
                let before = match previous {
                    Some(Definition::Settings(before)) => before.retention_days,
                    _ => RetentionDays::default(),
                };
                self.check_still_kept(before, settings.retention_days, &mut problems);
            }
            Definition::Layer(_) | Definition::List(_) => {}
        }
        if rule >= Rule::Four {
            self.check_not_missed(previous, definition, &mut problems);
        }
        problems
    }

    /// Refuses that a variant goes for which a flag waits: nobody would meet its prerequisite any more, and the flag would
    /// be switched off for all without a change of its own.
    fn check_not_missed(
        &self,
        previous: Option<&Definition>,
        definition: &Definition,
        problems: &mut Vec<Problem>,
    ) {
        for (variant, waiting) in self.missed_variants(previous, definition) {
            problems.push(Problem::new(
                "variants",
                format!(
                    "`{variant}` cannot go while flag `{waiting}` waits for it; take it out of the `prerequisites` of \
                     `{waiting}` first, or keep it here without a share"
                ),
            ));
        }
    }

    /// Returns the variants that `new` does not have any more and that flags wait for, each with the key of such a flag.
    /// An archived flag waits for nothing.
    fn missed_variants<'a>(
        &'a self,
        previous: Option<&'a Definition>,
        new: &Definition,
    ) -> Vec<(&'a Key, &'a Key)> {
        let Some(previous) = previous else { return Vec::new() };
        let gone = previous.variants_gone_from(new);
        if gone.is_empty() {
            return Vec::new();
        }
        let flags = self.current.values().filter_map(|accepted| match &accepted.definition {
            Definition::Flag(flag) if !flag.archived => Some(flag),
            _ => None,
        });
        let mut missed = Vec::new();
        for flag in flags {
            let of_this = flag.prerequisites.iter().filter(|needed| needed.flag == *new.key());
            for needed in of_this.flat_map(|needed| &needed.variants) {
                missed.extend(
                    gone.iter().filter(|variant| **variant == needed).map(|variant| (*variant, &flag.key)),
                );
            }
        }
        missed
    }

    /// Refuses a change of what a metric measures while an experiment with looks uses it, so that results stay
    /// comparable: a flipped direction would turn harm into a reason to ship.
    fn check_measured_alike(&self, before: &Metric, metric: &Metric, problems: &mut Vec<Problem>) {
        let Some(field) = metric.measures_otherwise(before) else { return };
        let judged = self.experiments().filter(|experiment| experiment.has_looks());
        let judged: Vec<String> = judged
            .filter(|experiment| experiment.metrics.names(&metric.key))
            .map(|experiment| format!("`{}`, which is {}", experiment.key, experiment.state.as_str()))
            .collect();
        let (under, clone) = match judged.as_slice() {
            [] => return,
            [one] => (format!("experiment {one}"), "a clone of the experiment"),
            [others @ .., last] => {
                (format!("the experiments {}, and {last}", others.join(", ")), "clones of the experiments")
            }
        };
        problems.push(Problem::new(
            field,
            format!("cannot change under {under}; define a metric with another key and name it in {clone}"),
        ));
    }

    /// Refuses a new value under the key of a variant: units that saw the former value would count for the
    /// new one.
    fn check_values(&self, before: &Experiment, experiment: &Experiment, problems: &mut Vec<Problem>) {
        for index in self.revalued(before, experiment) {
            problems.push(Problem::new(
                format!("variants[{index}].value"),
                format!(
                    "`{}` cannot get another value, for units have seen the former one; add a variant with a key of its \
                     own for it, or clone the experiment under another key",
                    experiment.variants[index].key
                ),
            ));
        }
    }

    /// Returns the indexes of the variants whose value differs from the one in `before` or, if `before` does
    /// not have the variant, from the one in the last version with looks that had it.
    pub(super) fn revalued(&self, before: &Experiment, new: &Experiment) -> Vec<usize> {
        let seen = |key: &Key| {
            value_of(before, key).or_else(|| {
                let earlier = self.history.values().rev().filter_map(|accepted| match &accepted.definition {
                    Definition::Experiment(earlier) if earlier.key == new.key && earlier.has_looks() => {
                        Some(earlier)
                    }
                    _ => None,
                });
                earlier.filter_map(|earlier| value_of(earlier, key)).next()
            })
        };
        let variants = new.variants.iter().enumerate();
        variants
            .filter(|(_, variant)| seen(&variant.key).is_some_and(|value| value != variant.value.as_ref()))
            .map(|(index, _)| index)
            .collect()
    }

    /// Refuses an experiment whose first events are deleted before its last analysis: only the rest would be
    /// analyzed.
    fn check_kept(
        &self,
        previous: Option<&Definition>,
        experiment: &Experiment,
        problems: &mut Vec<Problem>,
    ) {
        let Some(settings) = self.settings() else { return };
        // An experiment that has started can be ended, and metrics and a plan that were accepted are not
        // judged again.
        let settled = match previous {
            Some(Definition::Experiment(before)) if before.has_looks() => {
                before.metrics == experiment.metrics && before.plan == experiment.plan
            }
            _ => false,
        };
        if settled || !matches!(experiment.state, State::Draft | State::Running) {
            return;
        }
        let Some(needed) = self.days_needed(experiment) else { return };
        for (table, days, needed_days) in settings.retention_days.too_short_for(needed) {
            problems.push(Problem::new(
                "plan.schedule.end",
                format!(
                    "{} are {needed_days} days, and the settings keep {table} for {days}; end it earlier, or raise \
                     `retention_days.{table}` first",
                    needed.span(table)
                ),
            ));
        }
    }

    /// The same check for a change of the settings. A retention that does not change may stay too short.
    fn check_still_kept(&self, before: RetentionDays, after: RetentionDays, problems: &mut Vec<Problem>) {
        for experiment in self.experiments().filter(|experiment| experiment.has_looks()) {
            let Some(needed) = self.days_needed(experiment) else { continue };
            for (table, days, needed_days) in after.too_short_for(needed) {
                if before.tables().contains(&(table, days)) {
                    continue;
                }
                problems.push(Problem::new(
                    format!("retention_days.{table}"),
                    format!(
                        "experiment `{}`, which is {}, needs its events for {needed_days} days, {}; keep them as long, \
                         or archive it first",
                        experiment.key,
                        experiment.state.as_str(),
                        needed.span(table)
                    ),
                ));
            }
        }
    }

    fn days_needed(&self, experiment: &Experiment) -> Option<DaysNeeded> {
        let metrics = experiment.metrics.fields().filter_map(|(_, key)| self.metric(key));
        settings::days_needed(experiment, metrics)
    }

    /// Returns why the flag cannot have this prerequisite: the required flag does not exist, has no such
    /// variant, or depends on the flag itself.
    fn hindrance(&self, flag: &Flag, prerequisite: &Prerequisite) -> Option<String> {
        let required = &prerequisite.flag;
        let in_flags = |key: &Key| self.current.get(&(Space::Flags, key.clone())).map(|it| &it.definition);
        let served = match in_flags(required).filter(|_| *required != flag.key) {
            Some(other) => other.variants(),
            None => return Some(format!("there is no other flag `{required}`; define it first")),
        };
        if let Some(unknown) = prerequisite.variants.iter().find(|key| !served.contains(key)) {
            let served: Vec<&str> = served.iter().map(|key| key.as_str()).collect();
            return Some(format!(
                "`{required}` has no variant `{unknown}`; name one of {}, or add it there first",
                served.join(", ")
            ));
        }
        let mut seen = BTreeSet::new();
        let mut waiting = vec![required];
        while let Some(key) = waiting.pop() {
            if *key == flag.key {
                return Some(format!(
                    "`{required}` itself waits for `{}`; take one of the two prerequisites out",
                    flag.key
                ));
            }
            if seen.insert(key)
                && let Some(Definition::Flag(other)) = in_flags(key)
            {
                waiting.extend(other.prerequisites.iter().map(|prerequisite| &prerequisite.flag));
            }
        }
        None
    }

    /// Checks that the lists exist and are of units of this type.
    fn check_lists(&self, allow: &[Allowed], deny: &[Key], unit_type: &Key, problems: &mut Vec<Problem>) {
        let allowed = allow.iter().enumerate().map(|(index, it)| (format!("allow[{index}].list"), &it.list));
        let denied = deny.iter().enumerate().map(|(index, list)| (format!("deny[{index}]"), list));
        for (field, key) in allowed.chain(denied) {
            match self.list(key) {
                None => problems.push(no_list(field, key)),
                Some(list) if list.unit_type != *unit_type => problems.push(Problem::new(
                    field,
                    format!("`{key}` is a list of {}s, and this is about {unit_type}s", list.unit_type),
                )),
                Some(_) => {}
            }
        }
    }

    /// Checks that the lists that conditions name exist.
    fn check_conditions<'a>(
        &self,
        conditions: impl Iterator<Item = (String, &'a Condition)>,
        problems: &mut Vec<Problem>,
    ) {
        for (field, condition) in conditions {
            for list in condition.lists() {
                if self.list(list).is_none() {
                    problems.push(no_list(field.clone(), list));
                }
            }
        }
    }
}

fn no_list(field: String, key: &Key) -> Problem {
    Problem::new(field, format!("there is no list `{key}`; define it first"))
}

fn flag_conditions(flag: &Flag) -> impl Iterator<Item = (String, &Condition)> {
    let in_environments = flag.environments.iter().flat_map(|(environment, of)| {
        let rules = of.rules.as_deref().unwrap_or_default();
        rule_conditions(format!("environments.{environment}.rules"), rules)
    });
    rule_conditions("rules".to_owned(), &flag.rules).chain(in_environments)
}

fn rule_conditions(field: String, rules: &[FlagRule]) -> impl Iterator<Item = (String, &Condition)> {
    let rules = rules.iter().enumerate();
    rules.filter_map(move |(index, rule)| Some((format!("{field}[{index}].when"), rule.when.as_ref()?)))
}

fn experiment_conditions(experiment: &Experiment) -> impl Iterator<Item = (String, &Condition)> {
    let targeting = |field: String, rules| {
        let rules: &[TargetingRule] = rules;
        rules.iter().enumerate().map(move |(index, rule)| (format!("{field}[{index}].when"), &rule.when))
    };
    let in_environments = experiment.environments.iter().flat_map(move |(environment, of)| {
        let rules = of.targeting.as_deref().unwrap_or_default();
        targeting(format!("environments.{environment}.targeting"), rules)
    });
    targeting("targeting".to_owned(), &experiment.targeting).chain(in_environments)
}

/// Returns the value of the variant with this key; the outer `None` if there is no such variant.
fn value_of<'a>(experiment: &'a Experiment, key: &Key) -> Option<Option<&'a Value>> {
    let variant = experiment.variants.iter().find(|variant| variant.key == *key);
    variant.map(|variant| variant.value.as_ref())
}

fn check_resolved(field: &str, rules: &[FlagRule], problems: &mut Vec<Problem>) {
    for (index, rule) in rules.iter().enumerate() {
        if rule.split.iter().any(|share| share.weight.get() > 0 && share.ranges.is_empty()) {
            problems.push(Problem::new(format!("{field}[{index}].split"), "its ranges are not resolved"));
        }
    }
}
