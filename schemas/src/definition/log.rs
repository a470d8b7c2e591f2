//! The log of definitions and its fold. A record is a proposal; whether it is accepted depends only on the
//! records before it and on a pure rule, so all readers of the log derive the same definitions without
//! coordination.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::check::{Problem, TEXT_BYTES_MAX, check, check_step, is_text};
use super::rule::{self, RULE_VERSION, Rule};
use super::{
    Assignment, Definition, Experiment, Flag, FlagRule, Key, Kind, Metric, Prerequisite, RetentionDays,
    SETTINGS_KEY, Settings, State, Unfit, settings,
};

/// Identifies one accepted change forever: its offset in the log plus one. 0 is "none yet".
pub type Version = u64;

/// A proposed change, as written in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub change_id: Uuid,
    pub rule_version: u32,
    pub kind: String,
    pub key: String,
    /// The current version of the key, as the writer knew it.
    pub based_on: Version,
    /// JSON.
    pub definition: String,
    pub author: String,
    pub reason: String,
}

/// Why a change was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another writer was first. Read the log again and decide again.
    #[error("`{key}` has moved on: the change is based on version {based_on}, the current one is {current}")]
    Stale { key: String, based_on: Version, current: Version },
    #[error("the record cannot be understood: {0}")]
    Unreadable(String),
    #[error("{}", list(.0))]
    NotAllowed(Vec<Problem>),
}

/// The log has a change by a rule that this build does not know. The build must stop, since its definitions
/// would be incomplete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change at offset {offset} of the definitions log follows rule {rule_version}, this build knows rules up to \
     {RULE_VERSION}: install a newer build"
)]
pub struct UnknownRule {
    pub offset: u64,
    pub rule_version: u32,
}

/// An accepted definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub version: Version,
    pub definition: Definition,
}

/// All definitions, after the log was applied up to an offset: the current version of each, and every version
/// that was ever accepted.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    current: BTreeMap<(Space, Key), Arc<Accepted>>,
    history: BTreeMap<Version, Arc<Accepted>>,
    next_offset: u64,
}

/// The namespaces of keys. Flags and experiments share one, because an evaluation may name either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Flags,
    Layers,
    Metrics,
    Lists,
    Settings,
}

impl Definitions {
    /// Applies the log's record at `offset`. Offsets must grow: panics if a record at or after `offset` was
    /// applied.
    pub fn apply(
        &mut self,
        offset: u64,
        change: &Change,
    ) -> Result<Result<Arc<Accepted>, Refusal>, UnknownRule> {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        let Some(rule) = Rule::of(change.rule_version) else {
            return Err(UnknownRule { offset, rule_version: change.rule_version });
        };
        let verdict = self.judge_by(rule, change);
        self.next_offset = offset + 1;
        Ok(verdict.map(|definition| {
            let accepted = Arc::new(Accepted { version: offset + 1, definition });
            let place = (space(accepted.definition.kind()), accepted.definition.key().clone());
            self.current.insert(place, accepted.clone());
            self.history.insert(accepted.version, accepted.clone());
            accepted
        }))
    }

    /// Skips the record at `offset`, which is not a change (undecodable bytes).
    pub fn skip(&mut self, offset: u64) {
        assert!(offset >= self.next_offset, "offset {offset} of the log after {}", self.next_offset);
        self.next_offset = offset + 1;
    }

    /// Returns the verdict on `change`, as if it were the next record.
    pub fn judge(&self, change: &Change) -> Result<Result<Definition, Refusal>, UnknownRule> {
        match Rule::of(change.rule_version) {
            Some(rule) => Ok(self.judge_by(rule, change)),
            None => Err(UnknownRule { offset: self.next_offset, rule_version: change.rule_version }),
        }
    }

    /// Returns the lowest rule that can express the change to `new` from its current version. The record must
    /// name it.
    pub fn rule_for(&self, new: &Definition) -> Rule {
        // Every reader that has read the settings knows rule 2, and rule 1 does not check how long events are
        // kept.
        if new.kind() == Kind::Experiment && self.settings().is_some() {
            return Rule::Two;
        }
        let previous = self.current_of(new).map(|accepted| &accepted.definition);
        // Rule 1 allows a variant to get another value, so such a change must be judged by rule 2.
        if let (Some(Definition::Experiment(before)), Definition::Experiment(new)) = (previous, new)
            && before.has_looks()
            && !self.revalued(before, new).is_empty()
        {
            return Rule::Two;
        }
        rule::lowest(previous, new)
    }

    fn judge_by(&self, rule: Rule, change: &Change) -> Result<Definition, Refusal> {
        let Some(kind) = Kind::parse(&change.kind).filter(|kind| rule.knows(*kind)) else {
            return Err(Refusal::Unreadable(format!("`{}` is not a kind of definition", change.kind)));
        };
        let value = serde_json::from_str(&change.definition)
            .map_err(|error| Refusal::Unreadable(format!("the definition is not JSON: {error}")))?;
        if let Some(unknown) = rule.unknown_to(kind, &value) {
            return Err(Refusal::Unreadable(unknown));
        }
        let definition = Definition::read(kind, value).map_err(|unfit| match unfit {
            Unfit::Unreadable(problem) => Refusal::Unreadable(problem.to_string()),
            Unfit::Misfit(problems) => Refusal::NotAllowed(problems),
        })?;
        if definition.key().as_str() != change.key {
            return Err(Refusal::Unreadable(format!(
                "the record is for `{}`, the definition inside for `{}`",
                change.key,
                definition.key()
            )));
        }
        let previous = self.current.get(&(space(kind), definition.key().clone()));
        let current = previous.map_or(0, |accepted| accepted.version);
        if change.based_on != current {
            return Err(Refusal::Stale { key: change.key.clone(), based_on: change.based_on, current });
        }
        let mut problems = check(&definition);
        let before = previous.map(|accepted| &accepted.definition);
        problems.extend(check_step(rule, before, &definition));
        problems.extend(self.check_surroundings(rule, before, &definition));
        for (field, text) in [("author", &change.author), ("reason", &change.reason)] {
            if !is_text(text) {
                problems.push(Problem::new(field, format!("needs 1 to {TEXT_BYTES_MAX} bytes")));
            }
        }
        if problems.is_empty() { Ok(definition) } else { Err(Refusal::NotAllowed(problems)) }
    }

    pub fn experiment(&self, key: &str) -> Option<(Version, &Experiment)> {
        let key = Key::new(key).ok()?;
        let accepted = self.current.get(&(Space::Flags, key))?;
        match &accepted.definition {
            Definition::Experiment(experiment) => Some((accepted.version, experiment)),
            _ => None,
        }
    }

    pub fn flag(&self, key: &str) -> Option<(Version, &Flag)> {
        let key = Key::new(key).ok()?;
        let accepted = self.current.get(&(Space::Flags, key))?;
        match &accepted.definition {
            Definition::Flag(flag) => Some((accepted.version, flag)),
            _ => None,
        }
    }

    pub fn layer(&self, key: &Key) -> Option<&super::Layer> {
        match &self.current.get(&(Space::Layers, key.clone()))?.definition {
            Definition::Layer(layer) => Some(layer),
            _ => None,
        }
    }

    pub fn metric(&self, key: &Key) -> Option<&Metric> {
        match &self.current.get(&(Space::Metrics, key.clone()))?.definition {
            Definition::Metric(metric) => Some(metric),
            _ => None,
        }
    }

    /// The settings of the platform; `None` until they are defined.
    pub fn settings(&self) -> Option<&Settings> {
        let key = Key::new(SETTINGS_KEY).expect("the settings have a key");
        match &self.current.get(&(Space::Settings, key))?.definition {
            Definition::Settings(settings) => Some(settings),
            _ => None,
        }
    }

    /// The current definition with the key of `definition`, in the same space but perhaps of another kind.
    pub fn current_of(&self, definition: &Definition) -> Option<&Arc<Accepted>> {
        self.current.get(&(space(definition.kind()), definition.key().clone()))
    }

    /// The current definition with this key in the space of `kind`, perhaps of another kind.
    pub fn current(&self, kind: Kind, key: &Key) -> Option<&Arc<Accepted>> {
        self.current.get(&(space(kind), key.clone()))
    }

    /// The definition that was accepted as this version, current or not.
    pub fn at_version(&self, version: Version) -> Option<&Arc<Accepted>> {
        self.history.get(&version)
    }

    /// All current definitions, ordered by space and key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Accepted>> {
        self.current.values()
    }

    /// The first offset of the log that has not been applied yet.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The highest version accepted so far. It identifies the state of all definitions.
    pub fn version(&self) -> Version {
        self.history.keys().next_back().copied().unwrap_or(0)
    }

    /// The experiments that own slots of this layer, other than `except`.
    pub fn holders_of_layer<'a>(
        &'a self,
        layer: &'a Key,
        except: &'a Key,
    ) -> impl Iterator<Item = &'a Experiment> {
        self.experiments().filter(move |experiment| {
            experiment.layer.as_ref() == Some(layer) && &experiment.key != except && experiment.has_looks()
        })
    }

    /// Checks a definition against the others: what it refers to must exist, and the slots that it takes must
    /// be free.
    fn check_surroundings(
        &self,
        rule: Rule,
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
                self.check_layer(experiment, &mut problems);
                if rule == Rule::Two {
                    self.check_kept(previous, experiment, &mut problems);
                    if let Some(Definition::Experiment(before)) = previous
                        && before.has_looks()
                    {
                        self.check_values(before, experiment, &mut problems);
                    }
                }
            }
            Definition::Metric(metric) => {
                if let (Rule::Two, Some(Definition::Metric(before))) = (rule, previous) {
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
        problems
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
    fn revalued(&self, before: &Experiment, new: &Experiment) -> Vec<usize> {
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
        for (table, days) in settings.retention_days.too_short_for(needed) {
            problems.push(Problem::new(
                "plan.schedule.end",
                format!(
                    "from its start to its end and through the longest window of its metrics are {needed} days, and \
                     the settings keep {table} for {days}; end it earlier, or raise `retention_days.{table}` first"
                ),
            ));
        }
    }

    /// The same check for a change of the settings. A retention that does not change may stay too short.
    fn check_still_kept(&self, before: RetentionDays, after: RetentionDays, problems: &mut Vec<Problem>) {
        for experiment in self.experiments().filter(|experiment| experiment.has_looks()) {
            let Some(needed) = self.days_needed(experiment) else { continue };
            for (table, days) in after.too_short_for(needed) {
                if before.tables().contains(&(table, days)) {
                    continue;
                }
                problems.push(Problem::new(
                    format!("retention_days.{table}"),
                    format!(
                        "experiment `{}`, which is {}, needs its events for {needed} days, from its start to its end \
                         and through the longest window of its metrics; keep them as long, or archive it first",
                        experiment.key,
                        experiment.state.as_str()
                    ),
                ));
            }
        }
    }

    fn days_needed(&self, experiment: &Experiment) -> Option<u64> {
        let metrics = experiment.metrics.fields().filter_map(|(_, key)| self.metric(key));
        settings::days_needed(experiment, metrics)
    }

    fn experiments(&self) -> impl Iterator<Item = &Experiment> {
        self.current.values().filter_map(|accepted| match &accepted.definition {
            Definition::Experiment(experiment) => Some(experiment),
            _ => None,
        })
    }

    /// Returns why the flag cannot have this prerequisite: the required flag does not exist, has no such
    /// variant, or depends on the flag itself.
    fn hindrance(&self, flag: &Flag, prerequisite: &Prerequisite) -> Option<String> {
        let required = &prerequisite.flag;
        let in_flags = |key: &Key| self.current.get(&(Space::Flags, key.clone())).map(|it| &it.definition);
        let served: Vec<&Key> = match in_flags(required).filter(|_| *required != flag.key) {
            Some(Definition::Flag(other)) => other.variants.iter().map(|variant| &variant.key).collect(),
            Some(Definition::Experiment(other)) => {
                other.variants.iter().map(|variant| &variant.key).collect()
            }
            _ => return Some(format!("there is no other flag `{required}`; define it first")),
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

    fn check_layer(&self, experiment: &Experiment, problems: &mut Vec<Problem>) {
        let Some(layer) = &experiment.layer else { return };
        if self.layer(layer).is_none() {
            problems.push(Problem::new("layer", format!("there is no layer `{layer}`; define it first")));
            return;
        }
        if !experiment.has_looks() {
            return;
        }
        if experiment.slot_ranges.is_empty() {
            let what =
                "an experiment that runs in a layer owns slots of it; they are allocated when it is applied";
            problems.push(Problem::new("slot_ranges", what));
        }
        for other in self.holders_of_layer(layer, &experiment.key) {
            let taken = experiment
                .slot_ranges
                .iter()
                .find(|range| other.slot_ranges.iter().any(|owned| owned.overlaps(**range)));
            if let Some(range) = taken {
                problems.push(Problem::new("slot_ranges", format!(
                        "{range} holds slots of `{}`; leave `slot_ranges` out to take free ones, or archive that one first",
                        other.key
                    )));
            }
        }
    }
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

impl Kind {
    /// Returns whether definitions of the two kinds cannot have the same key.
    pub fn shares_keys_with(self, other: Kind) -> bool {
        space(self) == space(other)
    }
}

fn space(kind: Kind) -> Space {
    match kind {
        Kind::Flag | Kind::Experiment => Space::Flags,
        Kind::Layer => Space::Layers,
        Kind::Metric => Space::Metrics,
        Kind::List => Space::Lists,
        Kind::Settings => Space::Settings,
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
