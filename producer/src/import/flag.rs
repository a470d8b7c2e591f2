//! A flag under construction: an importer says what is served when, and this module makes a definition of it. Where that is not
//! possible, the flag keeps what could be said before, and is switched off.

use schemas::key::is_key;
use serde_json::{Map, Value, json};

use super::attribute::{TARGETING_KEY, is_unit};
use super::finding::{Findings, Inexpressible};
use super::logic::{Logic, Window};
use super::share::{ALL, percent};

/// The deepest condition of a definition.
const DEPTH_MAX: usize = 8;

/// The most rules of a definition.
const RULES_MAX: usize = 100;

const TAKE_OVER: &str =
    "the flag is imported switched off and serves its default; complete it, then enable it";

/// A flag as it will be defined. All names are keys already.
#[derive(Clone, Debug)]
pub struct FlagDraft {
    /// Its place in the source.
    pub path: String,
    pub key: String,
    pub description: String,
    pub variants: Vec<(String, Value)>,
    pub default: String,
    pub enabled: bool,
    pub salt: Option<String>,
    /// Flags, each with the variants of which it must serve one.
    pub prerequisites: Vec<(String, Vec<String>)>,
    pub rules: Vec<Rule>,
}

/// What is served where the condition holds. What a split does not serve falls to the next rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub path: String,
    pub when: Logic,
    pub serve: Serve,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Serve {
    Variant(String),
    Split {
        /// The attribute that has the id of the unit, or [`TARGETING_KEY`].
        unit: String,
        /// In basis points.
        rollout: u32,
        /// Variants with their basis points.
        shares: Vec<(String, u32)>,
    },
}

impl FlagDraft {
    /// Switches the flag off, for the reason given. The rules so far stay, for whoever completes it.
    pub fn give_up(&mut self, why: Inexpressible, findings: &mut Findings) {
        self.enabled = false;
        let action = if why.action.is_empty() {
            TAKE_OVER.to_owned()
        } else {
            format!("{TAKE_OVER} ({})", why.action)
        };
        findings.lost(Inexpressible { action, ..why });
    }

    /// Writes the definition.
    pub fn document(mut self, findings: &mut Findings) -> Value {
        let mut rules = Vec::new();
        let mut unit: Option<String> = None;
        for rule in std::mem::take(&mut self.rules) {
            if let Err(why) = write_rule(&rule, &mut unit, &mut rules) {
                self.give_up(why, findings);
                break;
            }
            self.tell_of_hashing(&rule, findings);
        }
        if rules.len() > RULES_MAX {
            let what = format!("takes {} rules, which is more than {RULES_MAX}", rules.len());
            self.give_up(Inexpressible::new(self.path.clone(), what, ""), findings);
            rules.truncate(RULES_MAX);
        }
        self.replace_nulls(findings);
        let variants: Vec<Value> =
            self.variants.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let mut document = json!({
            "kind": "flag",
            "key": self.key,
            "value_type": value_type(self.variants.iter().map(|(_, value)| value)),
            "variants": variants,
            "default_variant": self.default,
            "enabled": self.enabled,
        });
        let mut set = |name: &str, value: Value| document[name] = value;
        if !self.description.is_empty() {
            set("description", Value::from(self.description));
        }
        if let Some(unit) = unit.filter(|unit| unit != TARGETING_KEY) {
            set("unit_type", Value::from(unit));
        }
        if let Some(salt) = self.salt {
            set("salt", Value::from(salt));
        }
        if !rules.is_empty() {
            set("rules", Value::from(rules));
        }
        if !self.prerequisites.is_empty() {
            let all = self.prerequisites.iter();
            let all: Vec<Value> =
                all.map(|(flag, variants)| json!({ "flag": flag, "variants": variants })).collect();
            set("prerequisites", Value::from(all));
        }
        document
    }

    /// OpenFeature has no null, so no client could read one, and a change with one is refused. What is closest to nothing takes
    /// its place.
    fn replace_nulls(&mut self, findings: &mut Findings) {
        let values = || self.variants.iter().map(|(_, value)| value).filter(|value| !value.is_null());
        let nothing = match value_type(values()) {
            _ if values().next().is_none() => json!({}),
            "boolean" => json!(false),
            "string" => json!(""),
            _ => json!({}),
        };
        for (key, value) in &mut self.variants {
            if value.is_null() {
                findings.changed(
                    &self.path,
                    format!("serves {nothing} in place of null (variant `{key}`), which no client can read"),
                    "",
                );
                *value = nothing.clone();
            }
        }
    }

    fn tell_of_hashing(&self, rule: &Rule, findings: &mut Findings) {
        let Serve::Split { unit, rollout, shares } = &rule.serve else { return };
        if *rollout < ALL || shares.len() > 1 {
            findings.changed(
                &rule.path,
                "units are hashed otherwise here: the shares are kept, but other units get them",
                "expect units to change their variant once, when you switch over",
            );
        }
        if unit != TARGETING_KEY {
            findings.changed(
                &rule.path,
                format!("the unit is the attribute `{unit}`, and only a text is the id of a unit"),
                "send it as text; without it the rule does not serve",
            );
        }
    }
}

/// Writes a rule as one rule or, if its times are joined by `or`, as several.
fn write_rule(rule: &Rule, unit: &mut Option<String>, rules: &mut Vec<Value>) -> Result<(), Inexpressible> {
    let lost = |what: String| Inexpressible::new(rule.path.as_str(), what, "");
    let mut when = rule.when.clone();
    if let Serve::Split { unit: wanted, .. } = &rule.serve {
        match unit {
            Some(unit) if unit != wanted => {
                return Err(lost(format!(
                    "hashes `{wanted}` where an earlier rule of the flag hashes `{unit}`"
                )));
            }
            _ if !is_key(wanted) => {
                return Err(lost(format!("hashes `{wanted}`, which cannot be the name of a type of units")));
            }
            _ => *unit = Some(wanted.clone()),
        }
        when = Logic::all([when, is_unit(wanted)]);
    }
    let windows = when.windows().ok_or_else(|| lost("joins too many times by `or`".to_owned()))?;
    if windows.len() > 1 && matches!(rule.serve, Serve::Split { .. }) {
        return Err(lost(
            "splits units in several spans of time, which takes several hashes here".to_owned(),
        ));
    }
    for Window { when, start, end } in windows {
        if when.depth() > DEPTH_MAX {
            return Err(lost(format!("nests deeper than {DEPTH_MAX}")));
        }
        let mut written = Map::new();
        written.insert("key".to_owned(), Value::from(format!("rule-{}", rules.len() + 1)));
        if !when.is_true() {
            written.insert("when".to_owned(), when.condition());
        }
        let mut schedule = Map::new();
        schedule.extend(start.map(|start| ("start".to_owned(), Value::from(start.to_string()))));
        schedule.extend(end.map(|end| ("end".to_owned(), Value::from(end.to_string()))));
        if !schedule.is_empty() {
            written.insert("schedule".to_owned(), Value::from(schedule));
        }
        written.extend(serve(&rule.serve));
        rules.push(Value::from(written));
    }
    Ok(())
}

fn serve(serve: &Serve) -> Vec<(String, Value)> {
    match serve {
        Serve::Variant(variant) => {
            vec![("split".to_owned(), json!([{ "variant": variant, "weight": percent(ALL) }]))]
        }
        Serve::Split { rollout, shares, .. } => {
            let shares: Vec<Value> = shares
                .iter()
                .map(|(variant, weight)| json!({ "variant": variant, "weight": percent(*weight) }))
                .collect();
            let rollout = (*rollout < ALL).then(|| ("rollout".to_owned(), Value::from(percent(*rollout))));
            rollout.into_iter().chain([("split".to_owned(), Value::from(shares))]).collect()
        }
    }
}

/// The narrowest type that all values have.
pub fn value_type<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> &'static str {
    let all = |fits: fn(&Value) -> bool| values.clone().all(fits);
    if all(Value::is_boolean) {
        "boolean"
    } else if all(Value::is_string) {
        "string"
    } else if all(Value::is_i64) {
        "integer"
    } else if all(Value::is_number) {
        "number"
    } else {
        "json"
    }
}

#[cfg(test)]
mod tests {
    use schemas::Micros;

    use super::*;

    fn draft(rules: Vec<Rule>) -> FlagDraft {
        FlagDraft {
            path: "flags.a".to_owned(),
            key: "a".to_owned(),
            description: String::new(),
            variants: vec![("on".to_owned(), json!(true)), ("off".to_owned(), json!(false))],
            default: "off".to_owned(),
            enabled: true,
            salt: None,
            prerequisites: Vec::new(),
            rules,
        }
    }

    fn split(unit: &str) -> Serve {
        Serve::Split { unit: unit.to_owned(), rollout: 2_500, shares: vec![("on".to_owned(), ALL)] }
    }

    fn rule(when: Logic, serve: Serve) -> Rule {
        Rule { path: "flags.a.rule".to_owned(), when, serve }
    }

    #[test]
    fn a_share_needs_a_unit_and_tells_of_its_hash() {
        let mut findings = Findings::default();
        let document = draft(vec![rule(Logic::TRUE, split(TARGETING_KEY))]).document(&mut findings);
        assert_eq!(
            document["rules"],
            json!([{
                "key": "rule-1",
                "when": {"attribute": "targetingKey", "exists": true},
                "rollout": "25%",
                "split": [{"variant": "on", "weight": "100%"}],
            }])
        );
        assert_eq!(findings.sorted().len(), 1);
    }

    #[test]
    fn two_units_in_one_flag_switch_it_off() {
        let mut findings = Findings::default();
        let rules = vec![rule(Logic::TRUE, split("device")), rule(Logic::TRUE, split("account"))];
        let document = draft(rules).document(&mut findings);
        assert_eq!((&document["enabled"], &document["unit_type"]), (&json!(false), &json!("device")));
        assert_eq!(
            findings.sorted()[0].what,
            "hashes `account` where an earlier rule of the flag hashes `device`"
        );
    }

    #[test]
    fn spans_of_time_become_rules_with_a_schedule() {
        let [one, two] = [1, 2].map(|second| Micros::new(second * 1_000_000).unwrap());
        let outside = Logic::any([Logic::From(one).not(), Logic::From(two)]);
        let serve = Serve::Variant("on".to_owned());
        let document = draft(vec![rule(outside.clone(), serve)]).document(&mut Findings::default());
        assert_eq!(document["rules"][0]["schedule"], json!({"end": "1970-01-01T00:00:01.000000Z"}));
        assert_eq!(document["rules"][1]["schedule"], json!({"start": "1970-01-01T00:00:02.000000Z"}));
        let mut findings = Findings::default();
        let document = draft(vec![rule(outside, split(TARGETING_KEY))]).document(&mut findings);
        assert_eq!(document["enabled"], json!(false));
    }

    #[test]
    fn what_is_closest_to_nothing_takes_the_place_of_a_null() {
        for (others, value_type, nothing) in [
            (json!([true]), "boolean", json!(false)),
            (json!(["a"]), "string", json!("")),
            (json!([1]), "json", json!({})),
            (json!([]), "json", json!({})),
        ] {
            let mut draft = draft(Vec::new());
            let others = others.as_array().unwrap().iter().map(|value| ("other".to_owned(), value.clone()));
            draft.variants = others.chain([("null".to_owned(), Value::Null)]).collect();
            let mut findings = Findings::default();
            let document = draft.document(&mut findings);
            assert_eq!(document["value_type"], value_type);
            assert_eq!(document["variants"].as_array().unwrap().last().unwrap()["value"], nothing);
            assert_eq!(findings.sorted().len(), 1);
        }
    }

    #[test]
    fn the_type_is_the_narrowest() {
        for (values, expected) in [
            (json!([true, false]), "boolean"),
            (json!(["a", ""]), "string"),
            (json!([1, 10]), "integer"),
            (json!([1, 10.0]), "number"),
            (json!([1, "a"]), "json"),
            (json!([{}]), "json"),
        ] {
            assert_eq!(value_type(values.as_array().unwrap().iter()), expected, "{values}");
        }
    }
}
