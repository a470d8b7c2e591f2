//! Definitions: flags, experiments, layers, metrics, lists and the settings of the platform. The file that a
//! person writes and the record in the log have the same types. What the file may leave out (salts, phases,
//! bucket ranges) is resolved before the change is proposed, so that the evaluation has nothing to guess.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bucket::{BasisPoints, BucketRange};
use crate::key::Key;

mod check;
mod computed;
mod condition;
mod environments;
mod file;
mod log;
mod metric;
mod reading;
mod refusal;
mod rule;
mod settings;

pub use check::{Problem, allocation_differs};
pub use computed::NotComputed;
pub use condition::{Bound, Condition, Operator, Test};
pub use environments::{
    ExperimentInEnvironment, ExperimentOverride, FlagInEnvironment, FlagOverride, PRODUCTION,
};
pub use file::{FileError, parse_file};
pub use log::{Accepted, Change, Definitions, Refusal, UnknownRule, Version};
pub use metric::{Metric, MetricKind, MetricType, UnitValue};
pub use rule::{RULE_VERSION, Rule};
pub use settings::{RETENTION_DAYS_MAX, RetentionDays, SETTINGS_KEY, Settings};

/// The JSON Schema of a definition file, for editors and other languages.
pub const JSON_SCHEMA: &str = include_str!("../definition.schema.json");

/// A definition of any kind. Each has a key and a history.
#[derive(Clone, Debug, PartialEq)]
// There are hundreds of definitions, each in an Arc once it is accepted: a box would save nothing.
#[expect(clippy::large_enum_variant)]
pub enum Definition {
    Flag(Flag),
    Experiment(Experiment),
    Layer(Layer),
    Metric(Metric),
    List(List),
    Settings(Settings),
}

/// The kinds of definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Flag,
    Experiment,
    Layer,
    Metric,
    List,
    Settings,
}

/// Named values, chosen by ordered rules. The kill switch is `enabled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    pub value_type: ValueType,
    pub variants: Vec<FlagVariant>,
    /// Served when the flag is disabled, and when no rule matches.
    pub default_variant: Key,
    #[serde(default = "enabled")]
    pub enabled: bool,
    #[serde(default = "default_unit_type")]
    pub unit_type: Key,
    /// Part of the hash; the default is the key. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Key>,
    /// Other flags that must serve one of the named variants; otherwise the default is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<Prerequisite>,
    /// Evaluated in order; the first rule that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<FlagRule>,
    /// Overrides for some environments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<Key, FlagOverride>,
    #[serde(default)]
    pub archived: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    Boolean,
    String,
    Integer,
    Number,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagVariant {
    pub key: Key,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prerequisite {
    pub flag: Key,
    pub variants: Vec<Key>,
}

/// If `when` is true (or left out), the units inside `rollout` get the split's variant; for all other units
/// the next rule is evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagRule {
    pub key: Key,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    #[serde(default = "all_buckets")]
    pub rollout: BasisPoints,
    pub split: Vec<Share>,
}

/// A variant's part of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub variant: Key,
    pub weight: BasisPoints,
    /// The buckets allocated for the weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<BucketRange>,
}

/// A flag with a control, metrics and a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub hypothesis: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub state: State,
    /// The phase, from 1. Each change of the allocation after the start opens the next phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
    #[serde(default)]
    pub assignment: Assignment,
    #[serde(default = "default_unit_type")]
    pub unit_type: Key,
    /// Part of the hash; the default is the key. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Key>,
    /// Experiments in one layer never share a unit. Without a layer, it overlaps with all other experiments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Key>,
    /// Its share of the layer.
    #[serde(default = "all_buckets")]
    pub slots: BasisPoints,
    /// The layer's buckets allocated for the share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slot_ranges: Vec<BucketRange>,
    /// The share of the units in its slots that take part.
    #[serde(default = "all_buckets")]
    pub rollout: BasisPoints,
    /// Which units may take part; all units if left out. The first rule that matches is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targeting: Vec<TargetingRule>,
    pub variants: Vec<Variant>,
    /// The variant that the others are compared with.
    pub control: Key,
    pub metrics: Metrics,
    #[serde(default)]
    pub plan: Plan,
    /// Overrides for some environments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<Key, ExperimentOverride>,
    /// The environments whose events count, at least one. Events of other environments are stored but never
    /// counted.
    #[serde(
        default = "environments::counted_by_default",
        skip_serializing_if = "environments::is_counted_by_default"
    )]
    pub counted_environments: Vec<Key>,
    /// Phases that the owner excluded from the analysis. An excluded phase stays excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_phases: Vec<ExcludedPhase>,
}

/// A phase whose units are not analyzed, for example after an SRM alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExcludedPhase {
    pub phase: u32,
    /// 1 to 1,024 bytes.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Draft,
    Running,
    Stopped,
    Archived,
}

/// Who decides which variant a unit sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assignment {
    /// The hash contract. Every exposure can be verified.
    #[default]
    Hashed,
    /// Another system, for example for imported data.
    External,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetingRule {
    pub key: Key,
    pub when: Condition,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub key: Key,
    pub weight: BasisPoints,
    /// The buckets allocated for the weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<BucketRange>,
    /// The value that the evaluation returns in addition to the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The metric that decides.
    pub primary: Key,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary: Vec<Key>,
    /// Metrics that must not be harmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<Key>,
}

/// How the result will be judged. It is fixed before the first unit is exposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The two-sided error rate, in (0, 0.5].
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// In [0.5, 1).
    #[serde(default = "default_power")]
    pub power: f64,
    /// The smallest relative effect worth finding, above 0; 0.1 is ten percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mde_relative: Option<f64>,
    /// The number of units in all arms together at which the final analysis is due. If left out, no horizon is
    /// planned and the decision depends on the always-valid interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon_units: Option<u64>,
    #[serde(default)]
    pub method: Method,
    /// The smallest relative effect worth shipping, at least 0. Below it, statistical significance alone does
    /// not lead to shipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub practical_lift_relative: Option<f64>,
    /// When units take part: from the start on, and before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Group sequential if a horizon is planned, always valid otherwise.
    #[default]
    Auto,
    AlwaysValid,
    GroupSequential,
    FixedHorizon,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<crate::time::Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<crate::time::Micros>,
}

/// A space of slots. Its experiments own disjoint parts of it, so that no unit is in two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    /// Part of the hash; the default is the key. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Key>,
}

/// Which change of a metric is an improvement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Increase,
    Decrease,
}

/// A set of units. Its members are stored in ClickHouse, where they can be forgotten; the log has their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub key: Key,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default = "default_unit_type")]
    pub unit_type: Key,
    /// The SHA-256 of the sorted members, one per line, in lower-case hexadecimal.
    pub members_sha256: String,
    /// The number of members.
    pub members: u64,
}

impl Definition {
    pub fn kind(&self) -> Kind {
        match self {
            Definition::Flag(_) => Kind::Flag,
            Definition::Experiment(_) => Kind::Experiment,
            Definition::Layer(_) => Kind::Layer,
            Definition::Metric(_) => Kind::Metric,
            Definition::List(_) => Kind::List,
            Definition::Settings(_) => Kind::Settings,
        }
    }

    pub fn key(&self) -> &Key {
        match self {
            Definition::Flag(flag) => &flag.key,
            Definition::Experiment(experiment) => &experiment.key,
            Definition::Layer(layer) => &layer.key,
            Definition::Metric(metric) => &metric.key,
            Definition::List(list) => &list.key,
            Definition::Settings(settings) => &settings.key,
        }
    }

    /// Returns the JSON that the log stores, without the kind, which has its own field in the record. The same
    /// definition always gives the same text.
    pub fn to_json(&self) -> String {
        let text = match self {
            Definition::Flag(flag) => serde_json::to_string(flag),
            Definition::Experiment(experiment) => serde_json::to_string(experiment),
            Definition::Layer(layer) => serde_json::to_string(layer),
            Definition::Metric(metric) => serde_json::to_string(metric),
            Definition::List(list) => serde_json::to_string(list),
            Definition::Settings(settings) => serde_json::to_string(settings),
        };
        text.expect("every map in a definition has text keys")
    }

    /// Returns the JSON with the kind: a definition file of the same definition.
    pub fn to_document(&self) -> Value {
        let mut document: Value = serde_json::from_str(&self.to_json()).expect("a definition's JSON is JSON");
        document["kind"] = Value::from(self.kind().as_str());
        document
    }

    /// Reads the JSON like [`Definition::from_json`], but reports every problem.
    fn read(kind: Kind, value: Value) -> Result<Definition, Unfit> {
        match kind {
            Kind::Metric => Metric::read(value).map(Definition::Metric),
            kind => Definition::from_json(kind, value).map_err(Unfit::Unreadable),
        }
    }

    /// Reads the JSON of [`Definition::to_json`]. The error names the field.
    pub fn from_json(kind: Kind, value: Value) -> Result<Definition, Problem> {
        match kind {
            Kind::Flag => reading::read(value).map(Definition::Flag),
            Kind::Experiment => reading::read(value).map(Definition::Experiment),
            Kind::Layer => reading::read(value).map(Definition::Layer),
            Kind::Metric => {
                Metric::read(value).map(Definition::Metric).map_err(|unfit| unfit.problems().remove(0))
            }
            Kind::List => reading::read(value).map(Definition::List),
            Kind::Settings => reading::read(value).map(Definition::Settings),
        }
    }
}

/// Why a JSON value is not a definition.
enum Unfit {
    /// A field cannot be read.
    Unreadable(Problem),
    /// Every field can be read, but they do not fit together. At least one problem.
    Misfit(Vec<Problem>),
}

impl Unfit {
    fn problems(self) -> Vec<Problem> {
        match self {
            Unfit::Unreadable(problem) => vec![problem],
            Unfit::Misfit(problems) => problems,
        }
    }
}

impl Metrics {
    /// Iterates over all metrics, each with the path of its field in the experiment.
    pub fn fields(&self) -> impl Iterator<Item = (String, &Key)> {
        let of = |role: &'static str, keys| {
            let keys: &Vec<Key> = keys;
            keys.iter().enumerate().map(move |(index, key)| (format!("metrics.{role}[{index}]"), key))
        };
        std::iter::once(("metrics.primary".to_owned(), &self.primary))
            .chain(of("secondary", &self.secondary))
            .chain(of("guardrails", &self.guardrails))
    }

    pub fn names(&self, key: &Key) -> bool {
        self.fields().any(|(_, named)| named == key)
    }
}

impl Experiment {
    /// Returns whether somebody may have looked at its results: it runs, or has run and may run again.
    pub fn has_looks(&self) -> bool {
        matches!(self.state, State::Running | State::Stopped)
    }

    /// Returns the text that the input of this experiment's hash begins with.
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }

    pub fn phase(&self) -> u32 {
        self.phase.unwrap_or(1)
    }
}

impl Layer {
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }
}

impl Flag {
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            alpha: default_alpha(),
            power: default_power(),
            mde_relative: None,
            horizon_units: None,
            method: Method::default(),
            practical_lift_relative: None,
            schedule: None,
        }
    }
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Flag, Kind::Experiment, Kind::Layer, Kind::Metric, Kind::List, Kind::Settings];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Flag => "flag",
            Kind::Experiment => "experiment",
            Kind::Layer => "layer",
            Kind::Metric => "metric",
            Kind::List => "list",
            Kind::Settings => "settings",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Draft => "draft",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Archived => "archived",
        }
    }
}

fn enabled() -> bool {
    true
}

fn default_unit_type() -> Key {
    Key::new("user").expect("`user` is a key")
}

fn all_buckets() -> BasisPoints {
    BasisPoints::ALL
}

fn default_alpha() -> f64 {
    0.05
}

fn default_power() -> f64 {
    0.8
}
