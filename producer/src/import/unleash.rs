//! Imports the features that Unleash serves to its clients, or its export of features. A feature is a flag that is on if any of its
//! strategies is, so each strategy becomes a rule: a unit outside of its rollout is tried with the next one, as it is there. A
//! feature with variants serves one of them, or `disabled`.

use serde_json::{Map, Value, json};

use super::Draft;
use super::finding::{Findings, Inexpressible};
use super::flag::FlagDraft;
use super::logic::Logic;
use super::name::Names;
use super::source::{Source, Step, Unreadable};
use shape::Shape;

mod constraint;
mod export;
mod shape;
mod strategy;

/// The fields of a feature that are read, or on which nothing depends that is served.
const FIELDS: [&str; 16] = [
    "name",
    "type",
    "description",
    "enabled",
    "strategies",
    "variants",
    "dependencies",
    "stale",
    "impressionData",
    "project",
    "createdAt",
    "lastSeenAt",
    "environment",
    "environments",
    "favorite",
    "id",
];

/// The features of a source and their segments.
struct Features<'s> {
    features: Vec<(&'s str, &'s Value)>,
    segments: &'s [Value],
    names: Names,
    shapes: Vec<Shape>,
}

pub(super) fn import(source: &Source<'_>, findings: &mut Findings) -> Result<Vec<Draft>, Unreadable> {
    source.fields(&[])?;
    let list = Step::Field("features");
    let items = source.items(&[list])?;
    if source.value.get("features").is_none() {
        return Err(source.wrong(&[], "has no list of `features`"));
    }
    for (index, feature) in items.iter().enumerate() {
        let place = [list, Step::Index(index)];
        if feature.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(source.wrong(&place, "the feature has no name"));
        }
        let name = feature["name"].as_str();
        if items[..index].iter().any(|other| other["name"].as_str() == name) {
            return Err(
                source.wrong(&[place[0], place[1], Step::Field("name")], "is the name of two features")
            );
        }
        for field in ["strategies", "variants", "dependencies"] {
            source.items(&[place[0], place[1], Step::Field(field)])?;
        }
    }
    let segments = source.items(&[Step::Field("segments")])?;
    let joined = export::join(&source.value, findings);
    let items = joined.as_deref().unwrap_or(items);
    let features: Vec<(&str, &Value)> = items.iter().map(named).collect();
    let names = Names::new(features.iter().map(|(name, _)| *name));
    let shapes = features.iter().map(|(_, feature)| Shape::of(feature)).collect();
    let mut all = Features { features, segments, names, shapes };
    Ok((0..all.features.len()).map(|index| all.import(index, findings)).collect())
}

impl Features<'_> {
    fn import(&mut self, index: usize, findings: &mut Findings) -> Draft {
        let (name, feature) = self.features[index];
        let path = format!("features.{name}");
        let key = self.names.key(name);
        if key != name {
            findings.changed(&path, format!("the feature is called `{key}` here"), "ask for it by this key");
        }
        for field in feature.as_object().into_iter().flat_map(Map::keys) {
            if !FIELDS.contains(&field.as_str()) {
                findings.note(&format!("{path}.{field}"), "is not taken over", "");
            }
        }
        let shape = &self.shapes[index];
        shape.tell(&path, findings);
        let description = feature.get("description").and_then(Value::as_str).unwrap_or_default();
        let mut draft = FlagDraft {
            path: path.clone(),
            key,
            description: description.to_owned(),
            variants: shape.variants(),
            default: shape.off.clone(),
            enabled: feature.get("enabled") == Some(&json!(true)),
            salt: None,
            prerequisites: Vec::new(),
            rules: Vec::new(),
        };
        if let Err(why) = self.fill(index, &path, &mut draft, findings) {
            draft.give_up(why, findings);
        }
        Draft { path, document: draft.document(findings) }
    }

    fn fill(
        &mut self,
        index: usize,
        path: &str,
        draft: &mut FlagDraft,
        findings: &mut Findings,
    ) -> Result<(), Inexpressible> {
        let (_, feature) = self.features[index];
        let may_serve = self.dependencies(index, path, draft, findings)?;
        if !may_serve {
            findings.note(path, "depends on what Unleash never finds fulfilled", "");
            return Ok(());
        }
        let (strategies, of_feature) = (list(feature, "strategies"), list(feature, "variants"));
        let shape = &self.shapes[index];
        if strategies.is_empty() {
            let every = strategy::Strategy { path, when: Logic::TRUE, rollout: None };
            return every.serve(&[], of_feature, shape, draft, findings);
        }
        for (number, one) in strategies.iter().enumerate() {
            let path = format!("{path}.strategies[{number}]");
            if one.get("disabled") == Some(&json!(true)) {
                continue;
            }
            let read = strategy::Strategy::read(one, self.segments, &path, findings)?;
            read.serve(list(one, "variants"), of_feature, shape, draft, findings)?;
        }
        Ok(())
    }

    /// Adds what the feature depends on. Returns whether that can be fulfilled at all: Unleash accepts neither a feature that is
    /// not there nor one that depends on another.
    fn dependencies(
        &mut self,
        index: usize,
        path: &str,
        draft: &mut FlagDraft,
        findings: &mut Findings,
    ) -> Result<bool, Inexpressible> {
        for (number, dependency) in list(self.features[index].1, "dependencies").iter().enumerate() {
            let path = format!("{path}.dependencies[{number}]");
            let parent = dependency.get("feature").and_then(Value::as_str);
            let Some(found) = self.features.iter().position(|(name, _)| Some(*name) == parent) else {
                return Ok(false);
            };
            let (name, feature) = self.features[found];
            if !list(feature, "dependencies").is_empty() {
                return Ok(false);
            }
            let key = self.names.key(name);
            let shape = &self.shapes[found];
            let variants = if dependency.get("enabled") == Some(&json!(false)) {
                vec![shape.off.clone()]
            } else {
                shape.on_with(&constraint::texts(dependency.get("variants")))
            };
            if variants.is_empty() {
                return Ok(false);
            }
            if draft.prerequisites.iter().any(|(other, _)| *other == key) {
                return Err(Inexpressible::new(path, "depends twice on one feature", ""));
            }
            draft.prerequisites.push((key, variants));
        }
        if !draft.prerequisites.is_empty() {
            findings.note(&format!("{path}.dependencies"), "became prerequisites of the flag", "");
        }
        Ok(true)
    }
}

/// The feature with its name.
fn named(feature: &Value) -> (&str, &Value) {
    (feature["name"].as_str().unwrap_or_default(), feature)
}

fn list<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
