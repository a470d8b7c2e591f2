//! The rules of evaluation written a second time, from the JSON of the definitions alone and without any of the code that
//! evaluates them: slow, plain, and the judge of the fast one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// All definitions by key, as the log stores them.
pub struct Reference {
    pub definitions: Map<String, Value>,
    pub environment: String,
    /// The version with which each experiment first ran.
    pub started: BTreeMap<String, u64>,
    /// The ids of the members of each list.
    pub members: BTreeMap<String, Vec<String>>,
}

/// An experiment or holdout that the unit is exposed to: the unit's id, its key, the variant, the reason, and the three
/// buckets.
pub type Exposure = (String, String, String, &'static str, Option<[u32; 3]>);

/// What a key answers: variant, value, reason, the rule that matched, and what reading it exposes the unit to.
pub type Answer = Result<(String, Value, &'static str, Option<String>, Vec<Exposure>), &'static str>;

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

    /// The id of the unit, of whatever length.
    fn id<'a>(
        definition: &Value,
        unit: Option<&'a str>,
        attributes: &'a Map<String, Value>,
    ) -> Option<&'a str> {
        let unit_type = text(definition, "unit_type");
        let named = || attributes.get(unit_type).and_then(Value::as_str);
        if unit_type == "user" { unit.or_else(named) } else { named() }
    }

    fn unit<'a>(
        definition: &Value,
        unit: Option<&'a str>,
        attributes: &'a Map<String, Value>,
    ) -> Result<&'a str, &'static str> {
        match Reference::id(definition, unit, attributes) {
            None => Err("no unit"),
            Some(id) if id.is_empty() || id.len() > 256 => Err("unit id"),
            Some(id) => Ok(id),
        }
    }

    fn flag(&self, flag: &Value, unit: Option<&str>, attributes: &Map<String, Value>, now: &str) -> Answer {
        let answer = |variant: &str, reason: &'static str, rule: Option<String>| {
            let found = list(flag, "variants").iter().find(|one| text(one, "key") == variant).unwrap();
            Ok((variant.to_owned(), found["value"].clone(), reason, rule, Vec::new()))
        };
        let serve = |variant: &str, reason: &'static str| answer(variant, reason, None);
        let default = text(flag, "default_variant");
        if flag["archived"] == json!(true) || *self.field(flag, "enabled") == json!(false) {
            return serve(default, "STATIC");
        }
        if let Ok(id) = Reference::unit(flag, unit, attributes) {
            if self.denied(flag, id) {
                return serve(default, "DEFAULT");
            }
            if let Some(variant) = self.allowed(flag, id) {
                return serve(variant, "TARGETING_MATCH");
            }
        }
        for prerequisite in list(flag, "prerequisites") {
            let (served, ..) = self.answer(text(prerequisite, "flag"), unit, attributes, now)?;
            if !list(prerequisite, "variants").contains(&json!(served)) {
                return serve(default, "DEFAULT");
            }
        }
        let rules = self.field(flag, "rules").as_array().cloned().unwrap_or_default();
        for rule in &rules {
            let known = self.with_id(flag, unit, attributes);
            if rule.get("when").is_some_and(|when| !self.holds(when, &known))
                || outside(&rule["schedule"], now)
            {
                continue;
            }
            let split = list(rule, "split");
            let all = |share: &Value| share["ranges"] == json!([[0, 1_000_000]]);
            let rollout = share(rule, now);
            let constant = rule.get("ramp").is_none() && rollout == 1_000_000;
            if let (Some(share), true) = (split.iter().find(|share| all(share)), constant) {
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
        let key = text(experiment, "key");
        let serve = |variant: &str, reason: &'static str, rule: Option<String>, exposures: Vec<Exposure>| {
            let found = list(experiment, "variants").iter().find(|one| text(one, "key") == variant).unwrap();
            let value = found.get("value").cloned().unwrap_or_else(|| json!(variant));
            Ok((variant.to_owned(), value, reason, rule, exposures))
        };
        let control = text(experiment, "control");
        let schedule = &experiment["plan"]["schedule"];
        let closed = experiment["state"] != json!("running")
            || experiment["assignment"] == json!("external")
            || *self.field(experiment, "enabled") == json!(false)
            || outside(schedule, now);
        let shipped = experiment.get("serve");
        if closed && shipped.is_none() {
            return serve(control, "DEFAULT", None, Vec::new());
        }
        let id = Reference::unit(experiment, unit, attributes);
        if experiment.get("holdout") == Some(&json!(true)) {
            let slot = bucket(&self.slot_salt(experiment, "/holdout"), id?);
            let side = owner(list(experiment, "variants"), "key", slot).unwrap();
            let exposure = (id?.to_owned(), key.to_owned(), side.to_owned(), "split", Some([slot; 3]));
            return serve(side, "SPLIT", None, vec![exposure]);
        }
        let mut exposures = Vec::new();
        if let Ok(id) = id {
            let sides = self.sides(experiment, id);
            // Every holdout calls its control so.
            let held_out = sides.iter().any(|(_, _, side, ..)| side == "held");
            exposures.extend(sides);
            if held_out || self.denied(experiment, id) {
                return serve(control, "DEFAULT", None, exposures);
            }
            if let Some(variant) = self.allowed(experiment, id) {
                if !closed {
                    let unit = in_window(experiment, id, now)?;
                    exposures.push((unit, key.to_owned(), variant.to_owned(), "forced", None));
                }
                return serve(variant, "TARGETING_MATCH", None, exposures);
            }
        }
        let only_targeted = shipped.is_none_or(|serve| serve["to"] == json!("targeted"));
        let rules = self.field(experiment, "targeting").as_array().cloned().unwrap_or_default();
        let known = self.with_id(experiment, unit, attributes);
        let matched = rules.iter().find(|rule| only_targeted && self.holds(&rule["when"], &known));
        let needs_a_rule = only_targeted && (shipped.is_some() || !rules.is_empty());
        if needs_a_rule && matched.is_none() {
            return serve(control, "DEFAULT", None, exposures);
        }
        let rule = matched.map(|rule| text(rule, "key").to_owned());
        if let Some(shipped) = shipped
            && shipped.get("ramp").is_none()
            && shipped["rollout"] == json!(10_000)
        {
            let reason = if only_targeted { "TARGETING_MATCH" } else { "STATIC" };
            return serve(text(shipped, "variant"), reason, rule, exposures);
        }
        let id = id?;
        // What is served afterwards depends on the cluster alone.
        let windowed = if shipped.is_none() { in_window(experiment, id, now)? } else { id.to_owned() };
        let own = text(experiment, "salt");
        let layer = experiment.get("layer").and_then(Value::as_str);
        let buckets = [
            bucket(&self.slot_salt(experiment, &format!("{own}/slot")), id),
            bucket(&format!("{own}/rollout"), id),
            bucket(&format!("{own}/variant"), &windowed),
        ];
        let slots = [json!({"ranges": experiment["slot_ranges"], "key": "own"})];
        let inside = (layer.is_none() || owner(&slots, "key", buckets[0]).is_some())
            && u64::from(buckets[1]) < self.field(experiment, "rollout").as_u64().unwrap() * 100
            && *self.field(experiment, "enabled") != json!(false)
            && (rules.is_empty() || rules.iter().any(|rule| self.holds(&rule["when"], &known)));
        let own_variant =
            owner(list(experiment, "variants"), "key", buckets[2]).filter(|_| inside).map(str::to_owned);
        if let Some(shipped) = shipped {
            let variant = text(shipped, "variant");
            let kept = experiment.get("switchback").is_none() && own_variant.as_deref() == Some(variant);
            let gets = u64::from(buckets[1]) < share(shipped, now) || kept;
            return match gets {
                true => serve(variant, "SPLIT", rule, exposures),
                false => serve(control, "DEFAULT", rule, exposures),
            };
        }
        match own_variant {
            Some(variant) => {
                exposures.push((windowed, key.to_owned(), variant.clone(), "split", Some(buckets)));
                serve(&variant, "SPLIT", rule, exposures)
            }
            None => serve(control, "DEFAULT", rule, exposures),
        }
    }

    /// The unit's side of each holdout that covers the experiment: of the whole, then of its layer.
    fn sides(&self, experiment: &Value, id: &str) -> Vec<Exposure> {
        let started = self.started.get(text(experiment, "key"));
        let mut sides = Vec::new();
        for of_layer in [false, true] {
            for holdout in self.definitions.values() {
                let layer = holdout.get("layer");
                let covers = holdout.get("holdout") == Some(&json!(true))
                    && holdout["state"] == json!("running")
                    && *self.field(holdout, "enabled") != json!(false)
                    && holdout["unit_type"] == experiment["unit_type"]
                    && layer.is_some() == of_layer
                    && (layer.is_none() || layer == experiment.get("layer"))
                    && started.is_none_or(|started| self.started[text(holdout, "key")] < *started);
                if !covers {
                    continue;
                }
                let slot = bucket(&self.slot_salt(holdout, "/holdout"), id);
                let side = owner(list(holdout, "variants"), "key", slot).unwrap();
                let key = text(holdout, "key").to_owned();
                sides.push((id.to_owned(), key, side.to_owned(), "split", Some([slot; 3])));
            }
        }
        sides
    }

    /// The salt of the slots of the layer; outside of layers it is `otherwise`.
    fn slot_salt(&self, experiment: &Value, otherwise: &str) -> String {
        match experiment.get("layer").and_then(Value::as_str) {
            Some(layer) => format!("{}/slot", text(&self.definitions[&format!("layer {layer}")], "salt")),
            None => otherwise.to_owned(),
        }
    }

    fn denied(&self, definition: &Value, id: &str) -> bool {
        list(definition, "deny").iter().any(|key| self.is_member(key.as_str().unwrap(), id))
    }

    fn allowed<'a>(&self, definition: &'a Value, id: &str) -> Option<&'a str> {
        let allow = list(definition, "allow").iter();
        allow.filter(|one| self.is_member(text(one, "list"), id)).map(|one| text(one, "variant")).next()
    }

    fn is_member(&self, list: &str, id: &str) -> bool {
        self.members.get(list).is_some_and(|members| members.iter().any(|member| member == id))
    }

    /// The attributes, with the id of the definition's unit as `targetingKey`.
    fn with_id(
        &self,
        definition: &Value,
        unit: Option<&str>,
        attributes: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut known = attributes.clone();
        known.remove("targetingKey");
        if let Some(id) = Reference::id(definition, unit, attributes) {
            known.insert("targetingKey".to_owned(), json!(id));
        }
        known
    }

    fn holds(&self, condition: &Value, attributes: &Map<String, Value>) -> bool {
        if let Some(list) = condition.get("in_list") {
            let value = attribute(attributes, text(condition, "attribute")).and_then(Value::as_str);
            return value.is_some_and(|value| self.is_member(list.as_str().unwrap(), value));
        }
        let inner = |field: &str| condition.get(field).and_then(Value::as_array);
        if let Some(all) = inner("all") {
            return all.iter().all(|one| self.holds(one, attributes));
        }
        if let Some(any) = inner("any") {
            return any.iter().any(|one| self.holds(one, attributes));
        }
        match condition.get("not") {
            Some(not) => !self.holds(not, attributes),
            None => passes(condition, attributes),
        }
    }
}

/// The id that the exposure names: of a switchback the cluster's, a zero byte, and the window's start in seconds.
fn in_window(experiment: &Value, id: &str, now: &str) -> Result<String, &'static str> {
    let Some(switchback) = experiment.get("switchback") else { return Ok(id.to_owned()) };
    let seconds = schemas::Micros::parse(now).unwrap().get() / 1_000_000;
    let length = switchback["window_seconds"].as_i64().unwrap();
    let unit = format!("{id}\0{}", seconds - seconds % length);
    if unit.len() > 256 || id.contains('\0') { Err("cluster") } else { Ok(unit) }
}

/// Times of one form, with the same digits, are in order as texts.
fn outside(schedule: &Value, now: &str) -> bool {
    schedule["start"].as_str().is_some_and(|start| now < start)
        || schedule["end"].as_str().is_some_and(|end| now >= end)
}

/// The share of a rule or of what is served, in buckets.
fn share(of: &Value, now: &str) -> u64 {
    let share = match of.get("ramp") {
        None => of["rollout"].as_u64().unwrap(),
        Some(ramp) => {
            let mut steps = ramp.as_array().unwrap().iter().rev();
            steps.find(|step| text(step, "from") <= now).map_or(0, |step| step["rollout"].as_u64().unwrap())
        }
    };
    share * 100
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

/// Tests one attribute.
fn passes(condition: &Value, attributes: &Map<String, Value>) -> bool {
    let fields = condition.as_object().unwrap();
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
        "has_any" => {
            let (values, wanted) = (value.as_array(), operand.as_array().unwrap());
            values.is_some_and(|values| values.iter().any(|one| wanted.iter().any(|other| same(one, other))))
        }
        "has_all" => {
            let (values, wanted) = (value.as_array(), operand.as_array().unwrap());
            values.is_some_and(|values| wanted.iter().all(|one| values.iter().any(|other| same(one, other))))
        }
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
