//! Imports the features that GrowthBook serves to its SDKs. A feature becomes a flag whose variants are the values that its rules
//! name. An experiment becomes a draft of its own, because units are hashed otherwise here and its data would mix two
//! assignments.

use assignment::{CompiledCondition, Context, ListSource, Lists, Name};
use schemas::definition::Definitions;
use serde_json::{Map, Value, json};

use super::Draft;
use super::attribute::TARGETING_KEY;
use super::finding::{Findings, Inexpressible};
use super::flag::{FlagDraft, Rule, Serve};
use super::logic::Logic;
use super::name::Names;
use super::share::{self, ALL};
use super::source::{Source, Step, Unreadable};
pub use condition::is_version;
use condition::{Conditions, ID, attribute_of};
use experiment::{Experiments, Place};

mod condition;
mod experiment;

/// The fields of a rule whose meaning is known. Any other might restrict who gets the rule's value.
const RULE_FIELDS: [&str; 23] = [
    "id",
    "key",
    "name",
    "phase",
    "meta",
    "tracks",
    "condition",
    "parentConditions",
    "force",
    "variations",
    "weights",
    "coverage",
    "range",
    "ranges",
    "filters",
    "namespace",
    "seed",
    "hashAttribute",
    "hashVersion",
    "fallbackAttribute",
    "disableStickyBucketing",
    "bucketVersion",
    "minBucketVersion",
];

/// The features of a source, and what all of them share.
struct Features<'s> {
    features: &'s Map<String, Value>,
    saved_groups: &'s Map<String, Value>,
    names: Names,
}

pub(super) fn import(source: &Source<'_>, findings: &mut Findings) -> Result<Vec<Draft>, Unreadable> {
    let root = source.fields(&[])?;
    if root.contains_key("encryptedFeatures") {
        return Err(
            source.wrong(&[Step::Field("encryptedFeatures")], "is encrypted; export the features in clear")
        );
    }
    let place: &[Step<'_>] = if root.contains_key("features") { &[Step::Field("features")] } else { &[] };
    let features = source.fields(place)?;
    let nothing = Map::new();
    let saved_groups = match root.get("savedGroups") {
        Some(_) if !place.is_empty() => source.fields(&[Step::Field("savedGroups")])?,
        _ => &nothing,
    };
    if !place.is_empty()
        && root.get("experiments").and_then(Value::as_array).is_some_and(|all| !all.is_empty())
    {
        findings.lost(Inexpressible::new(
            "experiments",
            "experiments of the visual editor and of URLs change pages, not values",
            "they are left out",
        ));
    }
    for (name, feature) in features {
        let place = [place, &[Step::Field(name)]].concat();
        if !feature.is_object() {
            return Err(source.wrong(&place, "must be an object"));
        }
        source.items(&[place.as_slice(), &[Step::Field("rules")]].concat())?;
    }
    let names = Names::new(features.keys().map(String::as_str));
    let mut all = Features { features, saved_groups, names };
    let mut experiments = Experiments::default();
    let mut drafts = Vec::new();
    for name in features.keys() {
        all.import(name, &mut experiments, &mut drafts, findings);
    }
    drafts.extend(experiments.shared);
    Ok(drafts)
}

/// What keeps a feature's rules from being asked.
#[derive(Default)]
struct Waits {
    prerequisites: Vec<(String, Vec<String>)>,
    /// A feature that it waits for never has the value.
    never: bool,
    /// Nothing is served while it waits, instead of the default.
    blocks: bool,
}

impl Features<'_> {
    fn import(
        &mut self,
        name: &str,
        experiments: &mut Experiments,
        drafts: &mut Vec<Draft>,
        findings: &mut Findings,
    ) {
        let path = format!("features.{name}");
        let key = self.names.key(name);
        if key != name {
            findings.changed(&path, format!("the feature is called `{key}` here"), "ask for it by this key");
        }
        let rules = rules_of(&self.features[name]);
        let default = default_of(&self.features[name]);
        if let [rule] = rules
            && experiment::is_alone(rule, default)
        {
            let place = Place { path: format!("{path}.rules[0]"), key: key.clone() };
            let when = self.when(rule, &place.path, findings);
            match when.and_then(|when| experiments.draft(&place, rule, when, findings)) {
                Ok(document) => return drafts.push(Draft { path, document }),
                Err(why) => {
                    let mut draft = self.flag(&path, key, default, rules);
                    draft.give_up(why, findings);
                    return drafts.push(Draft { path, document: draft.document(findings) });
                }
            }
        }
        let mut draft = self.flag(&path, key, default, rules);
        let made = self.waits(name, rules, &path, findings).and_then(|waits| {
            for (index, rule) in rules.iter().enumerate() {
                let path = format!("{path}.rules[{index}]");
                self.rule(rule, &path, &mut draft, experiments, drafts, findings)?;
            }
            apply_waits(&waits, default, &mut draft, findings);
            Ok(())
        });
        if let Err(why) = made {
            draft.give_up(why, findings);
        }
        drafts.push(Draft { path, document: draft.document(findings) });
    }

    fn flag(&self, path: &str, key: String, default: &Value, rules: &[Value]) -> FlagDraft {
        let variants = values_of(default, rules);
        FlagDraft {
            path: path.to_owned(),
            key,
            description: String::new(),
            default: variants[0].0.clone(),
            variants,
            enabled: true,
            salt: None,
            prerequisites: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Reads the condition of a rule, after checking that nothing else restricts it.
    fn when(&self, rule: &Value, path: &str, findings: &mut Findings) -> Result<Logic, Inexpressible> {
        let unknown = rule
            .as_object()
            .and_then(|fields| fields.keys().find(|field| !RULE_FIELDS.contains(&field.as_str())));
        if let Some(unknown) = unknown {
            return Err(Inexpressible::new(
                format!("{path}.{unknown}"),
                "is not known, and may restrict the rule",
                "",
            ));
        }
        if rule.get("tracks").is_some() {
            findings.note(
                &format!("{path}.tracks"),
                "is not taken over: it only tells of other experiments",
                "",
            );
        }
        for field in ["fallbackAttribute", "disableStickyBucketing", "bucketVersion", "minBucketVersion"] {
            if rule.get(field).is_some() {
                findings.changed(
                    &format!("{path}.{field}"),
                    "there are no sticky buckets here: the hash alone decides",
                    "",
                );
            }
        }
        match rule.get("condition") {
            None | Some(Value::Null) => Ok(Logic::TRUE),
            Some(condition) => Conditions { saved_groups: self.saved_groups, findings }
                .read(condition, &format!("{path}.condition")),
        }
    }

    fn rule(
        &mut self,
        rule: &Value,
        path: &str,
        draft: &mut FlagDraft,
        experiments: &mut Experiments,
        drafts: &mut Vec<Draft>,
        findings: &mut Findings,
    ) -> Result<(), Inexpressible> {
        let when = self.when(rule, path, findings)?;
        if hashes(rule)
            && rule.get("hashVersion").is_some_and(|version| !matches!(version.as_u64(), Some(1 | 2)))
        {
            findings.note(path, "has no known version of the hash, so that GrowthBook skips it", "");
            return Ok(());
        }
        let variations = rule.get("variations").and_then(Value::as_array);
        if let Some(value) = rule.get("force") {
            let serve = serve(rule, draft.variant(value), path)?;
            draft.rules.push(Rule { path: path.to_owned(), when, serve });
        } else if let Some([control, ..]) = variations.map(Vec::as_slice) {
            let key = rule.get("key").and_then(Value::as_str).unwrap_or("experiment");
            let place = Place { path: path.to_owned(), key: self.names.fresh(&own_key(key, &draft.key)) };
            let document = experiments.draft(&place, rule, when.clone(), findings)?;
            let share = experiment::share(rule, path)?;
            let unit = attribute_of(hash_attribute(rule)).to_owned();
            let shares = vec![(draft.variant(control), ALL)];
            let serve = Serve::Split { unit, rollout: share, shares };
            draft.rules.push(Rule { path: path.to_owned(), when, serve });
            findings.lost(Inexpressible::new(
                path,
                "an experiment among other rules: the flag serves its first variation to the units that it would take",
                format!("start the draft `{}` and ask for it where the flag is asked", place.key),
            ));
            drafts.push(Draft { path: path.to_owned(), document });
        } else if rule.get("parentConditions").is_none() {
            findings.note(path, "serves nothing", "");
        }
        Ok(())
    }

    /// Reads the features that this one waits for. A flag waits as a whole: a rule alone cannot.
    fn waits(
        &mut self,
        name: &str,
        rules: &[Value],
        path: &str,
        findings: &mut Findings,
    ) -> Result<Waits, Inexpressible> {
        let parents: Vec<&[Value]> = rules.iter().map(parents_of).collect();
        let mut waits = Waits::default();
        if parents.iter().all(|all| all.is_empty()) {
            return Ok(waits);
        }
        let is_gate = |parent: &Value| parent.get("gate") == Some(&json!(true));
        // Rules that only wait stand before those that serve.
        let leading = rules.iter().take_while(|rule| !serves(rule)).count();
        let (first, rest) = parents.split_at((leading + 1).min(parents.len()));
        let are_gates = first.iter().copied().flatten().all(is_gate);
        let is_whole = rest.iter().all(|all| all.is_empty()) && (are_gates || rules.len() == 1);
        let are_same = parents.iter().all(|all| *all == parents[0]);
        let asked: Vec<&Value> = match (is_whole, are_same) {
            (true, _) => first.iter().copied().flatten().collect(),
            (false, true) => parents[0].iter().collect(),
            (false, false) => {
                let path = format!("{path}.rules");
                return Err(Inexpressible::new(path, "a rule of its own waits for another feature", ""));
            }
        };
        if self.waits_for_itself(name) {
            return Err(Inexpressible::new(path, "waits for features that wait for it", ""));
        }
        waits.blocks = asked.iter().any(|parent| is_gate(parent));
        for parent in asked {
            self.wait(parent, &format!("{path}.rules"), &mut waits, findings)?;
        }
        Ok(waits)
    }

    fn wait(
        &mut self,
        parent: &Value,
        path: &str,
        waits: &mut Waits,
        findings: &mut Findings,
    ) -> Result<(), Inexpressible> {
        let id = parent.get("id").and_then(Value::as_str).unwrap_or_default();
        let wanted = parent.get("condition").unwrap_or(&Value::Null);
        let asked = Conditions { saved_groups: self.saved_groups, findings }.read(wanted, path)?;
        let condition = serde_json::from_value(asked.condition())
            .map_err(|error| Inexpressible::new(path, format!("cannot be asked of a value: {error}"), ""))?;
        // A condition of GrowthBook names no list.
        let nothing = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
        let condition = CompiledCondition::compile(&nothing, "user", &condition);
        let holds = |value: &Value| {
            let attributes = [(Name::of("value"), assignment::Value::Json(value))];
            condition.holds(&Context { targeting_key: None, attributes: &attributes })
        };
        let Some(feature) = self.features.get(id) else {
            waits.never |= !holds(&Value::Null);
            return Ok(());
        };
        let (rules, default) = (rules_of(feature), default_of(feature));
        let all = match rules {
            [rule] if experiment::is_alone(rule, default) => experiment::variants_of(rule),
            rules => values_of(default, rules),
        };
        let met: Vec<String> =
            all.iter().filter(|(_, value)| holds(value)).map(|(key, _)| key.clone()).collect();
        if met.is_empty() {
            waits.never = true;
        } else if met.len() < all.len() {
            waits.prerequisites.push((self.names.key(id), met));
        }
        Ok(())
    }

    fn waits_for_itself(&self, name: &str) -> bool {
        let mut seen: Vec<&str> = Vec::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            let Some(feature) = self.features.get(next) else { continue };
            for parent in rules_of(feature).iter().flat_map(parents_of) {
                let Some(id) = parent.get("id").and_then(Value::as_str) else { continue };
                if id == name {
                    return true;
                }
                if !seen.contains(&id) {
                    seen.push(id);
                    open.push(id);
                }
            }
        }
        false
    }
}

impl FlagDraft {
    /// Returns the key of the variant with this value.
    fn variant(&self, value: &Value) -> String {
        let found = self.variants.iter().find(|(_, other)| other == value);
        found.map(|(key, _)| key.clone()).expect("the variants are the values of all rules")
    }
}

/// Puts what the feature waits for onto the flag. While it waits, a flag serves its default variant, and a feature that blocks
/// serves nothing.
fn apply_waits(waits: &Waits, default: &Value, draft: &mut FlagDraft, findings: &mut Findings) {
    if waits.blocks {
        let is_boolean = draft.variants.iter().all(|(_, value)| value.is_boolean());
        let nothing = if is_boolean { json!(false) } else { Value::Null };
        // A null is replaced where the flag is written.
        let what = if is_boolean { "serves false" } else { "serves nothing" };
        findings.changed(
            &draft.path,
            format!("{what} while a feature that it waits for has another value"),
            "",
        );
        if *default != nothing {
            let path = draft.path.clone();
            let serve = Serve::Variant(draft.variant(default));
            draft.rules.push(Rule { path, when: Logic::TRUE, serve });
        }
        if !draft.variants.iter().any(|(_, value)| *value == nothing) {
            let key = Names::new(draft.variants.iter().map(|(key, _)| key.as_str())).fresh("nothing");
            draft.variants.push((key, nothing.clone()));
        }
        draft.default = draft.variant(&nothing);
    }
    if waits.never {
        findings.note(&draft.path, "waits for a value that a feature never has", "");
        draft.rules.clear();
    } else {
        draft.prerequisites = waits.prerequisites.clone();
    }
}

/// What a rule with a fixed value serves, and to which share of the units.
fn serve(rule: &Value, variant: String, path: &str) -> Result<Serve, Inexpressible> {
    if rule.get("filters").is_some_and(|filters| filters.as_array().is_none_or(|all| !all.is_empty())) {
        return Err(Inexpressible::new(
            format!("{path}.filters"),
            "a rule that shares units with others by a namespace has no counterpart",
            "",
        ));
    }
    let pair = |range: &Value| Some((range.get(0)?.as_f64()?, range.get(1)?.as_f64()?));
    let share = match (rule.get("range"), rule.get("coverage")) {
        (Some(range), _) => {
            let (from, to) = pair(range)
                .ok_or_else(|| Inexpressible::new(format!("{path}.range"), "is no pair of numbers", ""))?;
            to - from
        }
        (None, Some(coverage)) => coverage
            .as_f64()
            .ok_or_else(|| Inexpressible::new(format!("{path}.coverage"), "is no number", ""))?,
        (None, None) => return Ok(Serve::Variant(variant)),
    };
    let unit = attribute_of(hash_attribute(rule)).to_owned();
    Ok(Serve::Split { unit, rollout: share::absolute(share).0, shares: vec![(variant, ALL)] })
}

/// Whether the rule serves a value to anybody.
fn serves(rule: &Value) -> bool {
    rule.get("force").is_some() || rule.get("variations").is_some()
}

/// Whether the rule hashes a unit.
fn hashes(rule: &Value) -> bool {
    ["variations", "coverage", "range"].into_iter().any(|field| rule.get(field).is_some())
}

fn hash_attribute(rule: &Value) -> &str {
    rule.get("hashAttribute").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or(ID)
}

/// The key of an experiment that shares its feature with other rules, which has the feature's key.
fn own_key(key: &str, feature: &str) -> String {
    if key == feature { format!("{feature}-experiment") } else { key.to_owned() }
}

fn rules_of(feature: &Value) -> &[Value] {
    feature.get("rules").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn parents_of(rule: &Value) -> &[Value] {
    rule.get("parentConditions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn default_of(feature: &Value) -> &Value {
    feature.get("defaultValue").unwrap_or(&Value::Null)
}

/// The values of a feature as variants, its default first.
fn values_of(default: &Value, rules: &[Value]) -> Vec<(String, Value)> {
    let mut values = vec![default];
    for rule in rules {
        let variations = rule.get("variations").and_then(Value::as_array);
        match (rule.get("force"), variations) {
            (Some(value), _) => values.push(value),
            (None, variations) => values.extend(variations.into_iter().flatten()),
        }
    }
    let mut names = Names::default();
    let mut variants: Vec<(String, Value)> = Vec::new();
    for value in values {
        if variants.iter().any(|(_, other)| other == value) {
            continue;
        }
        let name = match value {
            Value::String(text) if schemas::key::is_key(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Null => value.to_string(),
            _ => format!("value-{}", variants.len() + 1),
        };
        variants.push((names.fresh(&name), value.clone()));
    }
    variants
}

/// The attribute that identifies a unit to GrowthBook, for the messages of experiments.
fn unit_of(rule: &Value) -> &str {
    match attribute_of(hash_attribute(rule)) {
        TARGETING_KEY => "user",
        attribute => attribute,
    }
}
