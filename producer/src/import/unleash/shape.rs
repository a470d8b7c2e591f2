//! Which variants the flag of a feature has. Without variants it is on or off. With variants it serves one of them, `disabled`
//! while it is off, and `enabled` where it is on and no variant applies.

use serde_json::{Value, json};

use super::list;
use crate::import::finding::Findings;
use crate::import::flag::value_type;
use crate::import::name::Names;

/// The name of the variant that Unleash answers while a feature is off, or has none.
const DISABLED: &str = "disabled";

/// The variants of a flag.
pub struct Shape {
    /// The key of the variant that is served while the feature is off.
    pub off: String,
    /// The key of the variant that is served where the feature is on without a variant.
    pub on: String,
    variants: Vec<Named>,
    /// The values of `off` and `on`.
    constants: [Value; 2],
    is_boolean: bool,
    has_on: bool,
}

/// A variant of the source.
struct Named {
    key: String,
    name: String,
    payload: Option<Value>,
    value: Value,
}

impl Shape {
    pub fn of(feature: &Value) -> Shape {
        let strategies = list(feature, "strategies");
        let of_feature = list(feature, "variants");
        let mut all: Vec<&Value> = of_feature.iter().collect();
        all.extend(strategies.iter().flat_map(|strategy| list(strategy, "variants")));
        if all.is_empty() {
            return Shape {
                off: "off".to_owned(),
                on: "on".to_owned(),
                variants: Vec::new(),
                constants: [json!(false), json!(true)],
                is_boolean: true,
                has_on: true,
            };
        }
        let mut names = Names::default();
        let (off, on) = (names.fresh(DISABLED), names.fresh("enabled"));
        let mut variants: Vec<Named> = Vec::new();
        for variant in all {
            let name = variant.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let payload = variant.get("payload").cloned();
            if !variants.iter().any(|other| other.name == name && other.payload == payload) {
                variants.push(Named { key: names.fresh(&name), name, payload, value: Value::Null });
            }
        }
        let nothing = give_values(&mut variants);
        let has_on = match strategies {
            [] => weight(of_feature) <= 0.0,
            strategies => strategies.iter().any(|strategy| match list(strategy, "variants") {
                [] => weight(of_feature) <= 0.0,
                own => weight(own) <= 0.0,
            }),
        };
        Shape { off, on, variants, constants: [nothing.clone(), nothing], is_boolean: false, has_on }
    }

    /// The variants of the definition.
    pub fn variants(&self) -> Vec<(String, Value)> {
        let [off, on] = self.constants.clone();
        let mut all = vec![(self.off.clone(), off)];
        if self.has_on {
            all.push((self.on.clone(), on));
        }
        all.extend(self.variants.iter().map(|named| (named.key.clone(), named.value.clone())));
        all
    }

    /// The key of a variant of the source.
    pub fn key_of(&self, variant: &Value) -> Option<&str> {
        let name = variant.get("name").and_then(Value::as_str).unwrap_or_default();
        let found = self
            .variants
            .iter()
            .find(|named| named.name == name && named.payload.as_ref() == variant.get("payload"));
        found.map(|named| named.key.as_str())
    }

    /// The keys that are served while the feature is on with one of these variants, or with any if none is named.
    pub fn on_with(&self, wanted: &[String]) -> Vec<String> {
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
        let mut keys = Vec::new();
        if self.has_on && is_wanted(DISABLED) {
            keys.push(self.on.clone());
        }
        keys.extend(
            self.variants.iter().filter(|named| is_wanted(&named.name)).map(|named| named.key.clone()),
        );
        keys
    }

    /// Tells what a caller has to know of the variants.
    pub fn tell(&self, path: &str, findings: &mut Findings) {
        if self.is_boolean {
            return;
        }
        findings.changed(
            path,
            format!(
                "the feature has variants: it is off where the flag serves `{}`, with an empty value",
                self.off
            ),
            "ask for the variant, and compare it with that one to know whether the feature is on",
        );
        for named in self.variants.iter().filter(|named| named.key != named.name) {
            findings.changed(
                path,
                format!("the variant `{}` is called `{}` here", named.name, named.key),
                "",
            );
        }
        if self.variants.iter().all(|named| named.payload.is_none()) {
            findings.note(path, "the variants have no payload: their value is their name", "");
        }
    }
}

fn weight(variants: &[Value]) -> f64 {
    variants.iter().map(|variant| variant.get("weight").and_then(Value::as_f64).unwrap_or(0.0)).sum()
}

/// Gives each variant the value of its payload, and returns the empty value of the same type.
fn give_values(variants: &mut [Named]) -> Value {
    if variants.iter().all(|named| named.payload.is_none()) {
        for named in variants {
            named.value = json!(named.name);
        }
        return json!("");
    }
    for named in variants.iter_mut() {
        named.value = named.payload.as_ref().map_or(Value::Null, payload_value);
    }
    match value_type(variants.iter().map(|named| &named.value)) {
        "string" => json!(""),
        "integer" | "number" => json!(0),
        _ => Value::Null,
    }
}

/// The value of a payload by its type; a payload that is not of its type stays a text.
fn payload_value(payload: &Value) -> Value {
    let text = match payload.get("value") {
        Some(Value::String(text)) => text.as_str(),
        Some(value) => return value.clone(),
        None => return Value::Null,
    };
    let parsed = match payload.get("type").and_then(Value::as_str) {
        Some("number") => serde_json::from_str(text).ok().filter(Value::is_number),
        Some("json") => serde_json::from_str(text).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| json!(text))
}
