//! Everything that an answer follows from, compiled once from the definitions: the snapshot, and for each key who may see
//! it, how its numbers are written and which attributes its exposures carry. It knows no log and no clock.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use assignment::{
    Context, DEFAULT_UNIT_TYPE, Environment, Evaluation, EvaluationError, Lists, Snapshot, evaluate_all,
    evaluate_client_safe,
};
use schemas::definition::{Definition, Definitions, RetentionDays, Switchback, ValueType, Version};
use schemas::{Key, Micros, Pairs};
use sdk::attributes::{AttributeFilter, AttributeNames};
use serde_json::Value as Json;

use crate::counts::{Count, Counts};
use crate::etag::Revision;
use crate::tokens::TokenKind;

/// The definitions of one environment, ready to answer.
#[derive(Debug)]
pub struct Configuration {
    pub snapshot: Snapshot,
    /// Identifies the log: offsets of two logs cannot be compared.
    log: String,
    /// The log as a revision names it. Other members of a list make other answers of the same version, which cannot be
    /// compared with these.
    revision_log: String,
    /// A revision's text up to the epoch.
    revision_prefix: String,
    /// When the last accepted change was made, by the log's clock.
    changed_at: Micros,
    /// In the order of the snapshot's keys.
    entries: Box<[Entry]>,
    /// The holdouts that cover a key which a client may see: a page reports its side of them.
    safe_holdouts: BTreeSet<Key>,
    by_key: HashMap<Key, usize>,
    /// The types of units that any flag or experiment asks for, and that of users, who are the members of all others; in
    /// ascending order.
    unit_types: Box<[Key]>,
    /// How long the tables keep what clients report.
    pub kept: RetentionDays,
}

/// What is known of a flag or an experiment besides its evaluation.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// Whether a key that everybody can read out of a page may see it.
    pub client_safe: bool,
    pub numbers: NumberForm,
    /// Of an experiment.
    attributes: Option<AttributeFilter>,
    /// Of an experiment that is one.
    pub switchback: Option<Switchback>,
    variants: Box<[(Key, Arc<Count>)]>,
}

/// How the numbers of a key are written. Some clients take `1` for an integer and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberForm {
    /// As they are defined: integers, and the numbers inside a JSON value.
    AsDefined,
    /// Always with a point: `1.0`.
    Double,
}

/// What a configuration is compiled with besides the definitions.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub environment: Environment<'a>,
    pub log: &'a str,
    pub changed_at: Micros,
    /// Attributes that every exposure carries.
    pub attributes: &'a AttributeNames,
    pub counts: &'a Counts,
    /// The members of lists that are known.
    pub lists: &'a Lists,
}

impl Configuration {
    pub fn compile(definitions: &Definitions, inputs: &Inputs<'_>) -> Configuration {
        let snapshot = Snapshot::compile(definitions, inputs.lists, inputs.environment);
        let mut entries = Vec::with_capacity(snapshot.keys().len());
        let mut unit_types = BTreeSet::from([Key::new(DEFAULT_UNIT_TYPE).expect("`user` is a key")]);
        let mut safe_holdouts = BTreeSet::new();
        for accepted in definitions.iter() {
            match &accepted.definition {
                Definition::Flag(flag) => unit_types.insert(flag.unit_type.clone()),
                Definition::Experiment(experiment) => {
                    if experiment.client_safe {
                        let covering = definitions.holdouts_over(experiment);
                        safe_holdouts.extend(covering.map(|span| span.holdout().key.clone()));
                    }
                    unit_types.insert(experiment.unit_type.clone())
                }
                _ => continue,
            };
            entries.push(Entry::of(&accepted.definition, inputs));
        }
        assert!(
            snapshot.keys().eq(entries.iter().map(|entry| &entry.key)),
            "the snapshot has the keys of the flags and experiments in their order"
        );
        let revision_log = match snapshot.lists_tag() {
            0 => inputs.log.to_owned(),
            tag => format!("{}~{tag:x}", inputs.log),
        };
        let by_key = entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        Configuration {
            revision_prefix: format!("{revision_log}.{}.", snapshot.configuration_version()),
            revision_log,
            snapshot,
            log: inputs.log.to_owned(),
            changed_at: inputs.changed_at,
            entries: entries.into(),
            safe_holdouts,
            by_key,
            unit_types: unit_types.into_iter().collect(),
            kept: definitions.settings().map(|settings| settings.retention_days).unwrap_or_default(),
        }
    }

    pub fn log(&self) -> &str {
        &self.log
    }

    pub fn version(&self) -> Version {
        self.snapshot.configuration_version()
    }

    /// The lists whose current members are not known: an earlier version of them is in force.
    pub fn lacking_lists(&self) -> &[Key] {
        self.snapshot.lacking_lists()
    }

    /// What is in force at `now`.
    pub fn revision(&self, now: Micros) -> Revision {
        Revision { log: self.revision_log.clone(), version: self.version(), epoch: self.epoch(now) }
    }

    /// The text of [`Configuration::revision`], which every answer names.
    pub fn revision_text(&self, now: Micros) -> String {
        let mut text = String::with_capacity(self.revision_prefix.len() + 20);
        text.push_str(&self.revision_prefix);
        write!(text, "{}", self.epoch(now)).expect("memory can be written");
        text
    }

    fn epoch(&self, now: Micros) -> u64 {
        self.snapshot.last_instant(now).map_or(0, |instant| instant.get().unsigned_abs())
    }

    /// When the answers last changed for everybody, in seconds since 1970: by a change, or by an instant that has passed.
    pub fn modified_s(&self, now: Micros) -> i64 {
        let passed = self.snapshot.last_instant(now);
        passed.map_or(self.changed_at, |instant| self.changed_at.max(instant)).get() / 1_000_000
    }

    /// The next instant at which an answer may change by time alone.
    pub fn next_instant(&self, now: Micros) -> Option<Micros> {
        self.snapshot.next_instant(now)
    }

    /// Evaluates one key for whoever holds a token of this kind; what it may not see is as if it were not there.
    ///
    /// # Errors
    /// As [`assignment::evaluate`].
    pub fn evaluate<'s>(
        &'s self,
        key: &str,
        kind: TokenKind,
        context: &Context<'_>,
        now: Micros,
    ) -> Result<(&'s Entry, Evaluation<'s>), EvaluationError> {
        let entry = self.entry(key).filter(|entry| entry.is_visible_to(kind));
        let entry = entry.ok_or_else(|| EvaluationError::NotFound(key.to_owned()))?;
        Ok((entry, assignment::evaluate(&self.snapshot, key, context, now)?))
    }

    /// Evaluates every key that a token of this kind may see, in ascending order.
    pub fn evaluate_all<'s>(
        &'s self,
        kind: TokenKind,
        context: &Context<'_>,
        now: Micros,
    ) -> impl Iterator<Item = (&'s Entry, Result<Evaluation<'s>, EvaluationError>)> {
        // What the token may not see is not evaluated either. Both have the entries' order.
        let (all, safe) = match kind {
            TokenKind::Server => (Some(evaluate_all(&self.snapshot, context, now)), None),
            TokenKind::Client => (None, Some(evaluate_client_safe(&self.snapshot, context, now))),
        };
        let evaluated = all.into_iter().flatten().chain(safe.into_iter().flatten());
        let visible = self.entries.iter().filter(move |entry| entry.is_visible_to(kind));
        visible.zip(evaluated.map(|(_, evaluated)| evaluated))
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.by_key.get(key).map(|index| &self.entries[*index])
    }

    /// Returns whether a client may report exposures to this experiment: it may see it, or it may see what the holdout
    /// covers. One that is not here is as one that is hidden, so that nobody can tell them apart.
    pub fn is_reportable_by_clients(&self, key: &str) -> bool {
        let is_visible = self.entry(key).is_some_and(|entry| entry.is_visible_to(TokenKind::Client));
        is_visible || self.safe_holdouts.iter().any(|holdout| holdout.as_str() == key)
    }

    /// Returns whether there is such an experiment, as far as a token of this kind may know.
    pub fn has_experiment(&self, key: &str, kind: TokenKind) -> bool {
        let is_experiment = self.entry(key).is_some_and(|entry| entry.attributes().is_some());
        is_experiment && (kind == TokenKind::Server || self.is_reportable_by_clients(key))
    }

    pub fn keys(&self) -> usize {
        self.entries.len()
    }

    /// The types in use of units, in ascending order.
    pub fn unit_types(&self) -> &[Key] {
        &self.unit_types
    }

    /// The ids in the context of the types in use, besides the unit's own.
    pub fn other_ids<'c>(&self, context: &Context<'c>, unit_type: &str) -> Pairs<'c> {
        let mut ids = Pairs::default();
        for other in self.unit_types.iter().filter(|other| other.as_str() != unit_type) {
            if let Some(id) = context.unit(other.as_str()).filter(|id| is_unit_id(id)) {
                ids.insert(other.as_str().to_owned(), id);
            }
        }
        ids
    }

    /// The unit that an event without a unit type is about: of the preferred type or, if the context has no id of it, of the
    /// only type in use of which it has one.
    ///
    /// # Errors
    /// If the context has no id, or ids of several other types: which of them comes first would change with the definitions,
    /// and an event that is sent again must keep its unit, since that decides its partition.
    pub fn unit_of<'c>(&self, context: &Context<'c>, preferred: &Key) -> Result<(Key, &'c str), NoUnit> {
        if let Some(id) = context.unit(preferred.as_str()) {
            return Ok((preferred.clone(), id));
        }
        let in_use = self.unit_types.iter();
        let mut found = in_use.filter_map(|of| Some((of.clone(), context.unit(of.as_str())?)));
        match (found.next(), found.next()) {
            (None, _) => Err(NoUnit::Missing),
            (Some(unit), None) => Ok(unit),
            (Some((one, _)), Some((another, _))) => Err(NoUnit::Ambiguous(one, another)),
        }
    }
}

/// Why it is not known which unit an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoUnit {
    Missing,
    /// The context has ids of both types, and perhaps of more.
    Ambiguous(Key, Key),
}

/// An event carries ids of 1 to 256 bytes; an id that is too long must not cost the event.
fn is_unit_id(id: &str) -> bool {
    (1..=schemas::event::UNIT_ID_BYTES_MAX).contains(&id.len())
}

impl Entry {
    fn of(definition: &Definition, inputs: &Inputs<'_>) -> Entry {
        let key = definition.key().clone();
        let (client_safe, numbers, variants, experiment): (bool, NumberForm, Vec<&Key>, _) = match definition
        {
            Definition::Flag(flag) => {
                let numbers = match flag.value_type {
                    ValueType::Number => NumberForm::Double,
                    _ => NumberForm::AsDefined,
                };
                let variants = flag.variants.iter().map(|variant| &variant.key).collect();
                (flag.client_safe, numbers, variants, None)
            }
            Definition::Experiment(experiment) => (
                experiment.client_safe,
                NumberForm::of(experiment.variants.iter().filter_map(|variant| variant.value.as_ref())),
                experiment.variants.iter().map(|variant| &variant.key).collect(),
                Some(experiment),
            ),
            other => unreachable!("a {} is not evaluated", other.kind()),
        };
        let counted = variants.into_iter().map(|variant| (variant.clone(), inputs.counts.of(&key, variant)));
        Entry {
            variants: counted.collect(),
            client_safe,
            key,
            numbers,
            attributes: experiment.map(|experiment| AttributeFilter::of(experiment, inputs.attributes)),
            switchback: experiment.and_then(|experiment| experiment.switchback),
        }
    }

    pub fn is_visible_to(&self, kind: TokenKind) -> bool {
        kind == TokenKind::Server || self.client_safe
    }

    /// The attributes that exposures of this experiment carry; `None` for a flag.
    pub fn attributes(&self) -> Option<&AttributeFilter> {
        self.attributes.as_ref()
    }

    /// The counts of a variant; `None` if it is no variant of this key, as one that a client reports may be.
    pub fn count(&self, variant: &str) -> Option<&Count> {
        let found = self.variants.iter().find(|(key, _)| key.as_str() == variant);
        found.map(|(_, count)| &**count)
    }
}

impl NumberForm {
    /// An experiment declares no type: if one of its values is a double, all of them are.
    fn of<'a>(values: impl Iterator<Item = &'a Json>) -> NumberForm {
        let mut any_double = false;
        for value in values {
            any_double |= value.is_f64();
        }
        if any_double { NumberForm::Double } else { NumberForm::AsDefined }
    }
}

#[cfg(test)]
mod tests {
    use assignment::{Name, Value};

    use super::*;
    use crate::etag::{Asked, Known, Verdict, decide};
    use crate::sample_definitions;

    const DEFINITIONS: &str = r#"
{kind: metric, key: buy, event: buy, type: conversion}
---
{kind: flag, key: a-safe, client_safe: true, value_type: boolean, variants: [{key: "on", value: true}], default_variant: "on"}
---
{kind: flag, key: b-secret, value_type: number, variants: [{key: one, value: 1}], default_variant: one}
---
{kind: experiment, key: c-safe, client_safe: true, state: running, unit_type: account, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000, value: 1}, {key: b, weight: 5000, value: 2}]}
---
{kind: experiment, key: d-secret, state: running, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000, value: 1}, {key: b, weight: 5000, value: 2.5}]}
"#;

    fn configuration() -> Configuration {
        compiled(DEFINITIONS)
    }

    fn compiled(definitions: &str) -> Configuration {
        let definitions = sample_definitions::definitions(definitions);
        let inputs = Inputs {
            environment: Environment::PRODUCTION,
            log: "log",
            changed_at: Micros::EPOCH,
            attributes: &AttributeNames::default(),
            counts: &Counts::default(),
            lists: &Lists::default(),
        };
        Configuration::compile(&definitions, &inputs)
    }

    #[test]
    fn a_client_key_sees_what_is_safe_and_nothing_else() {
        let configuration = configuration();
        let context =
            Context { targeting_key: Some("u1"), attributes: &[(Name::of("account"), Value::Text("a1"))] };
        let seen = |kind| -> Vec<&str> {
            let all = configuration.evaluate_all(kind, &context, Micros::EPOCH);
            all.map(|(entry, evaluated)| {
                assert_eq!(evaluated.unwrap().key, &entry.key);
                entry.key.as_str()
            })
            .collect()
        };
        assert_eq!(seen(TokenKind::Client), ["a-safe", "c-safe"]);
        assert_eq!(seen(TokenKind::Server), ["a-safe", "b-secret", "c-safe", "d-secret"]);
        let single = |key, kind| {
            let evaluated = configuration.evaluate(key, kind, &context, Micros::EPOCH);
            evaluated.map(|(entry, _)| entry.key.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(single("a-safe", TokenKind::Client).unwrap(), "a-safe");
        assert_eq!(single("b-secret", TokenKind::Server).unwrap(), "b-secret");
        // It does not learn that there is one.
        for key in ["b-secret", "nobody"] {
            let refused = single(key, TokenKind::Client).unwrap_err();
            assert_eq!(refused, format!("there is no flag or experiment `{key}`"));
        }
    }

    #[test]
    fn an_experiment_that_a_client_key_may_not_see_is_one_that_there_is_not() {
        let configuration = configuration();
        let has =
            |key| [TokenKind::Server, TokenKind::Client].map(|kind| configuration.has_experiment(key, kind));
        assert_eq!(has("c-safe"), [true, true]);
        assert_eq!(has("d-secret"), [true, false]);
        assert_eq!(has("nobody"), [false, false]);
        // A flag exposes nobody.
        assert_eq!(has("a-safe"), [false, false]);
        let keys = ["c-safe", "d-secret", "nobody"];
        assert_eq!(keys.map(|key| configuration.is_reportable_by_clients(key)), [true, false, false]);
    }

    #[test]
    fn numbers_are_doubles_if_the_type_or_one_of_the_values_is() {
        let configuration = configuration();
        let numbers = |key| configuration.entry(key).unwrap().numbers;
        assert_eq!(numbers("b-secret"), NumberForm::Double);
        assert_eq!(numbers("c-safe"), NumberForm::AsDefined);
        assert_eq!(numbers("d-secret"), NumberForm::Double);
    }

    /// A cache that has the answer of one window must not keep it in the next.
    #[test]
    fn a_switchback_makes_another_revision_in_every_window() {
        let windows = "{kind: experiment, key: surge, state: running, unit_type: region, control: a, metrics: {primary: buy},
                        switchback: {window_seconds: 3600}, variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}";
        let configuration = compiled(&format!("{DEFINITIONS}---\n{windows}"));
        let at = |text: &str| Micros::parse(text).unwrap();
        let (midnight, one) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
        let before_one = at("2026-01-01T00:59:59.999999Z");
        let tag = |now| {
            let asked = Asked { context: 7, class: "server user", place: "production" };
            configuration.revision(now).tag(&asked)
        };
        assert_eq!(tag(midnight), tag(before_one));
        assert_ne!(tag(before_one), tag(one));
        let known = tag(before_one);
        let known = Known { tags: vec![&known], ..Known::default() };
        let verdict =
            |now| decide(&configuration.revision(now), &tag(now), configuration.modified_s(now), &known);
        assert_eq!((verdict(before_one), verdict(one)), (Verdict::NotModified, Verdict::Answer));
        assert_eq!(configuration.revision_text(before_one), "log.6.1767225600000000");
        assert_eq!(configuration.revision_text(one), "log.6.1767229200000000");
        assert_eq!(configuration.revision(one).to_string(), "log.6.1767229200000000");
        assert_eq!(configuration.next_instant(midnight), Some(one));
        assert_eq!(configuration.next_instant(before_one), Some(one));
        assert_eq!(configuration.modified_s(before_one), midnight.get() / 1_000_000);
        assert_eq!(configuration.modified_s(one), one.get() / 1_000_000);
    }

    #[test]
    fn an_exposure_of_a_cluster_carries_its_member_though_nothing_else_is_about_users() {
        let definitions = "{kind: metric, key: buy, event: buy, type: conversion}
---
{kind: experiment, key: plain, state: running, unit_type: account, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}
---
{kind: experiment, key: windows, state: running, unit_type: account, control: a, metrics: {primary: buy},
 switchback: {window_seconds: 3600}, variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}";
        let configuration = compiled(definitions);
        let now = Micros::parse("2026-01-01T00:30:00Z").unwrap();
        let exposed = |key: &str, context: &Context<'_>| {
            let (_, evaluation) = configuration.evaluate(key, TokenKind::Server, context, now).unwrap();
            let exposure = crate::exposures::of_evaluation(&evaluation, context, now).remove(0);
            let carried = exposure.other_ids.iter().map(|(name, id)| format!("{name} {id}")).collect();
            (exposure.unit_id.into_owned(), carried)
        };
        let attributes = [(Name::of("account"), Value::Text("a1"))];
        let member = Context { targeting_key: Some("u1"), attributes: &attributes };
        assert_eq!(exposed("plain", &member), ("a1".to_owned(), vec!["user u1".to_owned()]));
        let unit = "a1\x001767225600".to_owned();
        let both = vec!["account a1".to_owned(), "user u1".to_owned()];
        assert_eq!(exposed("windows", &member), (unit.clone(), both));
        let nobody = Context { targeting_key: None, ..member };
        assert_eq!(exposed("plain", &nobody), ("a1".to_owned(), vec![]));
        assert_eq!(exposed("windows", &nobody), (unit, vec!["account a1".to_owned()]));
        // What is reported by `track` has the ids of the types in use.
        assert_eq!(configuration.other_ids(&member, "account").get("user"), Some("u1"));
    }

    /// It was about the token's unit, so a user's request met a rule for accounts by the user's id.
    #[test]
    fn a_condition_on_the_targeting_key_is_about_the_keys_own_unit() {
        let definitions = "{kind: flag, key: f, value_type: boolean, unit_type: account, default_variant: none,
 variants: [{key: none, value: false}, {key: of-account, value: true}, {key: of-user, value: true}],
 rules: [{key: account, when: {attribute: targetingKey, equals: a1}, split: [{variant: of-account, weight: 10000}]},
         {key: user, when: {attribute: targetingKey, equals: u1}, split: [{variant: of-user, weight: 10000}]}]}";
        let configuration = compiled(definitions);
        let served = |unit_type: &str, body: &str| {
            let unit_type = Key::new(unit_type).unwrap();
            let sent = crate::ofrep::request::read(body.as_bytes()).unwrap();
            let attributes = sent.attributes(&unit_type);
            let context = sent.context(&unit_type, &attributes);
            let (_, evaluation) =
                configuration.evaluate("f", TokenKind::Server, &context, Micros::EPOCH).unwrap();
            evaluation.variant.to_string()
        };
        assert_eq!(served("account", r#"{"context": {"targetingKey": "a1"}}"#), "of-account");
        assert_eq!(served("user", r#"{"context": {"targetingKey": "u1", "account": "a1"}}"#), "of-account");
        assert_eq!(served("user", r#"{"context": {"account": "a1"}}"#), "of-account");
        assert_eq!(served("user", r#"{"context": {"targetingKey": "u1"}}"#), "none");
        assert_eq!(served("device", r#"{"context": {"targetingKey": "a1"}}"#), "none");
    }

    #[test]
    fn ids_of_types_in_use_go_along() {
        let configuration = configuration();
        let attributes = [(Name::of("account"), Value::Text("a1")), (Name::of("device"), Value::Text("d1"))];
        let context = Context { targeting_key: Some("u1"), attributes: &attributes };
        let other = |context: &Context<'_>, unit_type| -> Vec<(String, String)> {
            let ids = configuration.other_ids(context, unit_type);
            ids.iter().map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
        };
        let pair = |name: &str, id: &str| (name.to_owned(), id.to_owned());
        assert_eq!(other(&context, "user"), [pair("account", "a1")]);
        assert_eq!(other(&context, "account"), [pair("user", "u1")]);
        // An id that no event can carry is left out, and costs the event nothing.
        let long = "x".repeat(257);
        let attributes = [(Name::of("account"), Value::Text(&long))];
        assert_eq!(other(&Context { targeting_key: Some("u1"), attributes: &attributes }, "user"), []);
        let user = Key::new("user").unwrap();
        let unit_of = |context: &Context<'_>, preferred: &Key| {
            configuration.unit_of(context, preferred).map(|(unit_type, id)| pair(unit_type.as_str(), id))
        };
        assert_eq!(unit_of(&context, &user), Ok(pair("user", "u1")));
        assert_eq!(unit_of(&Context { targeting_key: None, ..context }, &user), Ok(pair("account", "a1")));
        assert_eq!(unit_of(&Context::default(), &user), Err(NoUnit::Missing));
        let (account, other) = (Key::new("account").unwrap(), Key::new("company").unwrap());
        assert_eq!(unit_of(&context, &other), Err(NoUnit::Ambiguous(account, user)));
    }
}
