//! A flag: named values, chosen by ordered rules. What it serves to a unit is decided in the package `assignment`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Allowed, Condition, FlagOverride, RampStep, Schedule, all_buckets, default_unit_type, enabled, is_false,
};
use crate::bucket::{BasisPoints, BucketRange};
use crate::key::Key;

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
    /// Whether a client key may see it, such as that of a web page.
    #[serde(default, skip_serializing_if = "is_false")]
    pub client_safe: bool,
    /// Units that see a variant whatever the prerequisites and rules say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allowed>,
    /// Lists of units that see the default. They are asked before `allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Key>,
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
    /// Instead of `rollout`: the share by time; nobody before the first step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ramp: Vec<RampStep>,
    /// When the rule matches; always if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
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

impl Flag {
    pub fn salt(&self) -> &Key {
        self.salt.as_ref().unwrap_or(&self.key)
    }
}
