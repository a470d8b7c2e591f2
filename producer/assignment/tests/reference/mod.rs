//! The rules of evaluation written a second time, from the JSON of the definitions alone and without any of the code that
//! evaluates them: slow, plain, and the judge of the fast one.

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// All definitions by key, as the log stores them.
pub struct Reference {
    pub definitions: Map<String, Value>,
    pub environment: String,
}

/// What a key answers: variant, value, reason, the rule that matched, and the three buckets where the unit is exposed.
pub type Answer = Result<(String, Value, &'static str, Option<String>, Option<[u32; 3]>), &'static str>;

fn bucket(salt: &str, unit: &str) -> u32 {
    let hash = xxh3_64_with_seed(unit.as_bytes(), xxh3_64(salt.as_bytes()));
    (u128::from(hash) * 1_000_000 / (1_u128 << 64)) as u32
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn owner<'a>(parts: &'a [Value], name: &str, bucket: u32) -> Option<&'a str> {
    let holds =
        |range: &Value| (range[0].as_u64().unwrap()..range[1].as_u64().unwrap()).contains(&u64::from(bucket));
    parts.iter().find(|part| list(part, "ranges").iter().any(holds)).map(|part| text(part, name))
}

impl Reference {
    pub fn answer(
        &self,
        key: &str,
        unit: Option<&str>,
        attributes: &Map<String, Value>,
        now: &str,
    ) -> Answer {
        let Some(definition) = self.definitions.get(key) else { return Err("not found") };
        match definition.get("control") {
            Some(_) => self.experiment(definition, unit, attributes, now),
            None => self.flag(definition, unit, attributes, now),
        }
    }

    /// The definition's own field, unless the environment has another.
    fn field<'a>(&'a self, definition: &'a Value, field: &str) -> &'a Value {
        match definition["environments"][&self.environment].get(field) {
            Some(other) => other,
            None => &definition[field],
        }
    }

    fn unit<'a>(
        definition: &Value,
        unit: Option<&'a str>,
        attributes: &'a Map<String, Value>,
    ) -> Result<&'a str, &'static str> {
        let unit_type = text(definition, "unit_type");
        let named = || attributes.get(unit_type).and_then(Value::as_str);
        let id = if unit_type == "user" { unit.or_else(named) } else { named() };
        match id {
            None => Err("no unit"),
            Some(id) if id.is_empty() || id.len() > 256 => Err("unit id"),
            Some(id) => Ok(id),
        }
    }

    fn flag(&self, flag: &Value, unit: Option<&str>, attributes: &Map<String, Value>, now: &str) -> Answer {
        let answer = |variant: &str, reason: &'static str, rule: Option<String>| {
            let found = list(flag, "variants").iter().find(|one| text(one, "key") == variant).unwrap();
            Ok((variant.to_owned(), found["value"].clone(), reason, rule, None))
        };
        let serve = |variant: &str, reason: &'static str| answer(variant, reason, None);
        let default = text(flag, "default_variant");
        if flag["archived"] == json!(true) || *self.field(flag, "enabled") == json!(false) {
            return serve(default, "STATIC");
        }
        for prerequisite in list(flag, "prerequisites") {
            let (served, ..) = self.answer(text(prerequisite, "flag"), unit, attributes, now)?;
            if !list(prerequisite, "variants").contains(&json!(served)) {
                return serve(default, "DEFAULT");
            }
        }
        let rules = self.field(flag, "rules").as_array().cloned().unwrap_or_default();
        for rule in &rules {
            if rule.get("when").is_some_and(|when| !holds(when, attributes)) {
                continue;
            }
            let split = list(rule, "split");
            let all = |share: &Value| share["ranges"] == json!([[0, 1_000_000]]);
            let rollout = rule["rollout"].as_u64().unwrap() * 100;
            if let (Some(share), 1_000_000) = (split.iter().find(|share| all(share)), rollout) {
                return answer(text(share, "variant"), "TARGETING_MATCH", Some(text(rule, "key").to_owned()));
            }
            let id = Reference::unit(flag, unit, attributes)?;
            let salt = format!("{}/{}", text(flag, "salt"), text(rule, "key"));
            if u64::from(bucket(&format!("{salt}/rollout"), id)) >= rollout {
                continue;
            }
            if let Some(variant) = owner(split, "variant", bucket(&format!("{salt}/variant"), id)) {
                return answer(variant, "SPLIT", Some(text(rule, "key").to_owned()));
            }
        }
        serve(default, if rules.is_empty() { "STATIC" } else { "DEFAULT" })
    }

    fn experiment(
        &self,
        experiment: &Value,
        unit: Option<&str>,
        attributes: &Map<String, Value>,
        now: &str,
    ) -> Answer {
        let serve = |variant: &str, reason: &'static str, rule: Option<String>, buckets: Option<[u32; 3]>| {
            let found = list(experiment, "variants").iter().find(|one| text(one, "key") == variant).unwrap();
            let value = found.get("value").cloned().unwrap_or_else(|| json!(variant));
            Ok((variant.to_owned(), value, reason, rule, buckets))
        };
        let control = |rule: Option<String>| serve(text(experiment, "control"), "DEFAULT", rule, None);
        let schedule = &experiment["plan"]["schedule"];
        // Times of one form, with the same digits, are in order as texts.
        let closed = experiment["state"] != json!("running")
            || experiment["assignment"] == json!("external")
            || *self.field(experiment, "enabled") == json!(false)
            || schedule["start"].as_str().is_some_and(|start| now < start)
            || schedule["end"].as_str().is_some_and(|end| now >= end);
        if closed {
            return control(None);
        }
        let rules = self.field(experiment, "targeting").as_array().cloned().unwrap_or_default();
        let matched = rules.iter().find(|rule| holds(&rule["when"], attributes));
        if !rules.is_empty() && matched.is_none() {
            return control(None);
        }
        let rule = matched.map(|rule| text(rule, "key").to_owned());
        let id = Reference::unit(experiment, unit, attributes)?;
        let own = text(experiment, "salt");
        let layer = experiment.get("layer").and_then(Value::as_str);
        let of_slots = layer.map_or(own, |layer| text(&self.definitions[&format!("layer {layer}")], "salt"));
        let buckets = [
            bucket(&format!("{of_slots}/slot"), id),
            bucket(&format!("{own}/rollout"), id),
            bucket(&format!("{own}/variant"), id),
        ];
        let slots = [json!({"ranges": experiment["slot_ranges"], "key": "own"})];
        if layer.is_some() && owner(&slots, "key", buckets[0]).is_none() {
            return control(rule);
        }
        if u64::from(buckets[1]) >= self.field(experiment, "rollout").as_u64().unwrap() * 100 {
            return control(rule);
        }
        match owner(list(experiment, "variants"), "key", buckets[2]) {
            Some(variant) => serve(variant, "SPLIT", rule, Some(buckets)),
            None => control(rule),
        }
    }
}

fn attribute<'a>(attributes: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = attributes.get(path) {
        return Some(value);
    }
    let dot = path.find('.')?;
    attribute(attributes.get(&path[..dot])?.as_object()?, &path[dot + 1..])
}

/// Numbers here are small, so a double is exact.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn holds(condition: &Value, attributes: &Map<String, Value>) -> bool {
    let fields = condition.as_object().unwrap();
    if let Some(all) = fields.get("all") {
        return all.as_array().unwrap().iter().all(|one| holds(one, attributes));
    }
    if let Some(any) = fields.get("any") {
        return any.as_array().unwrap().iter().any(|one| holds(one, attributes));
    }
    if let Some(not) = fields.get("not") {
        return !holds(not, attributes);
    }
    let value = attribute(attributes, fields["attribute"].as_str().unwrap());
    let (operator, operand) = fields.iter().find(|(name, _)| *name != "attribute").unwrap();
    if operator == "exists" {
        return value.is_some() == operand.as_bool().unwrap();
    }
    let Some(value) = value else { return false };
    let numbers = || value.as_f64().zip(operand.as_f64());
    let texts = || value.as_str().zip(operand.as_str());
    match operator.as_str() {
        "equals" => same(value, operand),
        "in" => operand.as_array().unwrap().iter().any(|one| same(value, one)),
        "above" => numbers().is_some_and(|(value, bound)| value > bound),
        "at_least" => numbers().is_some_and(|(value, bound)| value >= bound),
        "below" => numbers().is_some_and(|(value, bound)| value < bound),
        "at_most" => numbers().is_some_and(|(value, bound)| value <= bound),
        "starts_with" => texts().is_some_and(|(value, part)| value.starts_with(part)),
        "ends_with" => texts().is_some_and(|(value, part)| value.ends_with(part)),
        "contains" => texts().is_some_and(|(value, part)| value.contains(part)),
        other => panic!("the reference does not know `{other}`"),
    }
}
