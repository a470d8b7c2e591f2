//! Experiments of GrowthBook as drafts: a draft serves its control until somebody names its metric and starts it.

use serde_json::{Value, json};

use super::super::Draft;
use super::{hash_attribute, unit_of};
use crate::import::attribute::is_unit;
use crate::import::finding::{Findings, Inexpressible};
use crate::import::growthbook::condition::attribute_of;
use crate::import::logic::Logic;
use crate::import::name::Names;
use crate::import::share::{self, ALL, percent};
use schemas::key::is_key;

/// The metric of an experiment whose metric the source does not name.
const PLACEHOLDER: &str = "to-be-named";

/// The deepest condition of a definition.
const DEPTH_MAX: usize = 8;

const BUCKETS_PER_BASIS_POINT: u32 = 100;

/// Where an experiment is in the source, and its key here.
pub struct Place {
    pub path: String,
    pub key: String,
}

/// The definitions that experiments share: the metric that is to be named, and the layers of their namespaces.
#[derive(Default)]
pub struct Experiments {
    pub shared: Vec<Draft>,
    layers: Names,
}

/// The part of a namespace that an experiment has.
struct Slots {
    namespace: String,
    from: f64,
    to: f64,
}

/// Whether a feature whose only rule this is can be an experiment under the feature's key: it has at least two variations, and
/// the units outside get what the control gets.
pub fn is_alone(rule: &Value, default: &Value) -> bool {
    let variations = rule.get("variations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    variations.len() > 1
        && variations[0] == *default
        && rule.get("force").is_none()
        && rule.get("parentConditions").is_none()
}

/// The variants of an experiment with their values: by the keys that the source gives them, or by their numbers.
pub fn variants_of(rule: &Value) -> Vec<(String, Value)> {
    let variations = rule.get("variations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut names = Names::default();
    let mut variants = Vec::new();
    for (index, value) in variations.iter().enumerate() {
        let named = meta(rule, index, "key").unwrap_or_else(|| index.to_string());
        variants.push((names.fresh(&named), value.clone()));
    }
    variants
}

/// The share of all units that the experiment would take, in basis points.
pub fn share(rule: &Value, path: &str) -> Result<u32, Inexpressible> {
    let (rollout, _) = division(rule, path)?;
    let width = slots(rule, path)?.map_or(1.0, |slots| slots.to - slots.from);
    Ok(share::absolute(rollout * width).0)
}

impl Experiments {
    /// Writes the experiment as a draft.
    pub fn draft(
        &mut self,
        place: &Place,
        rule: &Value,
        when: Logic,
        findings: &mut Findings,
    ) -> Result<Value, Inexpressible> {
        let Place { path, key } = place;
        let lost = |what: String| Inexpressible::new(path.as_str(), what, "");
        let unit = attribute_of(hash_attribute(rule));
        if !is_key(unit) {
            return Err(lost(format!("hashes `{unit}`, which cannot be the name of a type of units")));
        }
        let when = Logic::all([when, is_unit(unit)]);
        if when.depth() > DEPTH_MAX {
            return Err(lost(format!("nests deeper than {DEPTH_MAX}")));
        }
        let (rollout, weights) = division(rule, path)?;
        let weights =
            share::relative(&weights).ok_or_else(|| lost("its weights add up to nothing".to_owned()))?;
        if !weights.exact {
            findings.changed(path, "the weights are rounded to hundredths of a percent", "");
        }
        let variants = variants_of(rule);
        let mut written = Vec::new();
        for (index, ((variant, value), weight)) in variants.iter().zip(&weights.basis_points).enumerate() {
            if rule.pointer(&format!("/meta/{index}/passthrough")) == Some(&json!(true)) {
                return Err(lost("a holdout passes its units on to other rules".to_owned()));
            }
            let mut one = json!({ "key": variant, "weight": percent(*weight), "value": value });
            if let Some(name) = meta(rule, index, "name") {
                one["description"] = Value::from(name);
            }
            written.push(one);
        }
        let mut document = json!({
            "kind": "experiment",
            "key": key,
            "state": "draft",
            "rollout": percent(share::absolute(rollout).0),
            "targeting": [{ "key": "imported", "when": when.condition() }],
            "variants": written,
            "control": variants[0].0,
            "metrics": { "primary": PLACEHOLDER },
        });
        if let Some(name) = rule.get("name").and_then(Value::as_str) {
            document["description"] = Value::from(name);
        }
        if unit_of(rule) != "user" {
            document["unit_type"] = Value::from(unit);
        }
        if let Some(slots) = slots(rule, path)? {
            self.put_in_layer(&slots, path, &mut document);
        }
        self.tell(place, rule, findings);
        Ok(document)
    }

    fn put_in_layer(&mut self, slots: &Slots, path: &str, document: &mut Value) {
        let layer = self.layers.key(&slots.namespace);
        let (width, _) = share::absolute(slots.to - slots.from);
        let (from, exact_from) = share::absolute(slots.from);
        let (to, exact_to) = share::absolute(slots.to);
        document["layer"] = Value::from(layer.as_str());
        document["slots"] = Value::from(percent(width));
        if exact_from && exact_to && from < to {
            let ends = [from, to].map(|end| end * BUCKETS_PER_BASIS_POINT);
            document["slot_ranges"] = json!([ends]);
        }
        self.share(path, json!({ "kind": "layer", "key": layer }));
    }

    /// Adds a definition unless it is there already.
    fn share(&mut self, path: &str, document: Value) {
        if !self.shared.iter().any(|draft| draft.document == document) {
            self.shared.push(Draft { path: path.to_owned(), document });
        }
    }

    fn tell(&mut self, place: &Place, rule: &Value, findings: &mut Findings) {
        let Place { path, key } = place;
        findings.changed(
            path,
            "the experiment is a draft: units are hashed otherwise here, so that its data would mix two assignments",
            "end it where it runs, or start it here anew; until then it serves its first variation",
        );
        findings.changed(
            path,
            format!("the source does not name the metric that decides, so it is `{PLACEHOLDER}`"),
            "name the metric and its event before you start the experiment",
        );
        if let Some(tracked) = rule.get("key").and_then(Value::as_str).filter(|tracked| tracked != key) {
            findings.note(path, format!("is tracked as `{tracked}` in GrowthBook, and as `{key}` here"), "");
        }
        let metric =
            json!({ "kind": "metric", "key": PLACEHOLDER, "event": PLACEHOLDER, "type": "conversion" });
        self.share(path, metric);
    }
}

/// The share of units that take part, and the weights of the variations.
fn division(rule: &Value, path: &str) -> Result<(f64, Vec<f64>), Inexpressible> {
    let count = rule.get("variations").and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(ranges) = rule.get("ranges") {
        let width = |range: &Value| Some(range.get(1)?.as_f64()? - range.get(0)?.as_f64()?);
        let widths: Option<Vec<f64>> = ranges.as_array().and_then(|all| all.iter().map(width).collect());
        return match widths {
            Some(widths) if widths.len() == count => Ok((widths.iter().sum(), widths)),
            _ => Err(Inexpressible::new(format!("{path}.ranges"), "is no range for each variation", "")),
        };
    }
    let coverage = rule.get("coverage").and_then(Value::as_f64).unwrap_or(1.0);
    let weights: Option<Vec<f64>> = rule
        .get("weights")
        .and_then(Value::as_array)
        .and_then(|weights| weights.iter().map(Value::as_f64).collect());
    // GrowthBook takes equal weights where these are not one for each or do not add up to 1.
    let weights = weights
        .filter(|weights| weights.len() == count && (weights.iter().sum::<f64>() - 1.0).abs() <= 0.01)
        .unwrap_or_else(|| vec![1.0; count]);
    Ok((coverage.clamp(0.0, 1.0), weights))
}

fn slots(rule: &Value, path: &str) -> Result<Option<Slots>, Inexpressible> {
    let lost = |field: &str, what: &str| Inexpressible::new(format!("{path}.{field}"), what, "");
    let of = |name: &Value, from: &Value, to: &Value| {
        Some(Slots { namespace: name.as_str()?.to_owned(), from: from.as_f64()?, to: to.as_f64()? })
    };
    if let Some(filters) = rule.get("filters").and_then(Value::as_array).filter(|all| !all.is_empty()) {
        let [filter] = filters.as_slice() else { return Err(lost("filters", "is in several namespaces")) };
        let same_unit = filter.get("attribute").is_none_or(|attribute| attribute == hash_attribute(rule));
        let range =
            filter.get("ranges").and_then(Value::as_array).filter(|ranges| ranges.len() == 1 && same_unit);
        let slots = range.and_then(|ranges| of(filter.get("seed")?, ranges[0].get(0)?, ranges[0].get(1)?));
        return slots
            .map(Some)
            .ok_or_else(|| lost("filters", "is no single range of the same unit in a namespace"));
    }
    match rule.get("namespace") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(parts)) if parts.len() == 3 => {
            let slots = of(&parts[0], &parts[1], &parts[2]);
            slots.map(Some).ok_or_else(|| lost("namespace", "is no name with two numbers"))
        }
        Some(_) => Err(lost("namespace", "is no name with two numbers")),
    }
}

fn meta(rule: &Value, index: usize, field: &str) -> Option<String> {
    let text = rule.pointer(&format!("/meta/{index}/{field}"))?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Everything, so that a share of a layer is never more.
const _: () = assert!(ALL * BUCKETS_PER_BASIS_POINT == schemas::BUCKETS);
