//! Definitions: flags, experiments, layers, metrics, lists and the settings of the platform. The file that a
//! person writes and the record in the log have the same types. What the file may leave out (salts, phases,
//! bucket ranges) is resolved before the change is proposed, so that the evaluation has nothing to guess.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bucket::BasisPoints;
use crate::key::Key;

mod check;
mod condition;
mod environments;
mod event_filter;
mod experiment;
mod file;
mod flag;
mod holdout;
mod log;
mod metric;
mod reading;
mod refusal;
mod rule;
mod serving;
mod settings;
mod step;
mod switchback;

pub use check::Problem;
pub use condition::{Bound, Condition, Operator, TARGETING_KEY, Test};
pub use environments::{
    ExperimentInEnvironment, ExperimentOverride, FlagInEnvironment, FlagOverride, PRODUCTION,
};
pub use event_filter::{EventFilter, EventTest};
pub use experiment::{
    Assignment, ExcludedPhase, Experiment, Method, Metrics, Plan, State, TargetingRule, Variant,
};
pub use file::{FileError, parse_file, parse_share};
pub use flag::{Flag, FlagRule, FlagVariant, Prerequisite, Share, ValueType};
pub use holdout::WHOLE_SALT;
pub use log::{Accepted, Change, Definitions, HoldoutSpan, Refusal, UnknownRule, Version};
pub use metric::{Limit, Metric, MetricKind, MetricType, PerUnit, RatioTerm};
pub use rule::{RULE_VERSION, Rule};
pub use serving::{Allowed, RampStep, Schedule, Serve, ServeTo};
pub use settings::{RETENTION_DAYS_MAX, RetentionDays, SETTINGS_KEY, Settings};
pub use step::{ListsSince, opens_phase};
pub use switchback::Switchback;

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
    /// The hours for which slots that an experiment gave up go to no other, 0 to 8,760, so that what it did to
    /// their units can wear off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cooldown_hours: u32,
}

/// Which change of a metric is an improvement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Increase,
    Decrease,
}

/// A set of units. The log has the digest of its members; the topic of lists has their hashes, and nothing has
/// their ids.
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
    /// Part of the hash of each member; the default is the key. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Key>,
    /// The SHA-256 of the members' hashes, in lower-case hexadecimal. The package `assignment` says over which bytes.
    pub members_sha256: String,
    /// The number of members.
    pub members: u64,
}

impl Definition {
    /// The keys of the variants of what is evaluated.
    fn variants(&self) -> Vec<&Key> {
        match self {
            Definition::Flag(flag) => flag.variants.iter().map(|variant| &variant.key).collect(),
            Definition::Experiment(experiment) => {
                experiment.variants.iter().map(|variant| &variant.key).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The variants that `new` does not have any more.
    fn variants_gone_from(&self, new: &Definition) -> Vec<&Key> {
        let kept = new.variants();
        self.variants().into_iter().filter(|variant| !kept.contains(variant)).collect()
    }

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

impl Layer {
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }
}

impl List {
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
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

fn enabled() -> bool {
    true
}

fn default_unit_type() -> Key {
    Key::new("user").expect("`user` is a key")
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn all_buckets() -> BasisPoints {
    BasisPoints::ALL
}
