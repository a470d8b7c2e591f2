//! The events that clients report, each read and judged for itself. The time of an event is part of it: it is sent, or it is
//! in the event's id, and never this process's clock, so that an event that is sent again, through whatever edge, keeps its id,
//! its unit and its time. The clock only refuses a time that cannot be right.

use std::borrow::Cow;
use std::time::Duration;

use assignment::Context;
use schemas::definition::Version;
use schemas::event::OutOfRange;
use schemas::{
    Alias, Conversion, Decimal6, Event, Exposure, Key, Micros, Pairs, Sender, SwitchbackUnit, Unit, Uuid,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::configuration::{Configuration, NoUnit};
use crate::metadata::{self, Scalar};
use crate::ofrep::error::{ErrorCode, Problem};
use crate::ofrep::request::{Attribute, SentContext, is_list};
use crate::tokens::{Token, TokenKind};

mod time;
mod written;

use time::{Table, TimeBounds, created_at};
use written::{EventKind, Typed, Written, WrittenAlias, parse, without_place};

/// The longest text of an event's id that an answer repeats, in characters.
const ID_CHARACTERS_MAX: usize = 64;

/// The longest key, name or value that an error repeats, in characters.
const VALUE_CHARACTERS_MAX: usize = 80;

/// What the events of a request have in common.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub configuration: &'a Configuration,
    pub token: &'a Token,
    pub now: Micros,
    /// How far the time of an event may be ahead of `now`.
    pub ahead_max: Duration,
}

/// One event of a request.
#[derive(Debug)]
pub struct Read {
    /// As it was sent; `None` if there is no text.
    pub event_id: Option<String>,
    pub event: Result<Event<'static>, NotTaken>,
}

/// Why an event is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It can never be accepted.
    Wrong(String),
    /// It was made by a newer configuration than is here, with which it may be right.
    Behind(String),
}

impl From<String> for NotTaken {
    fn from(why: String) -> NotTaken {
        NotTaken::Wrong(why)
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is in Kafka, or on this machine's disk.
    Accepted,
    /// It is wrong; sending it again does not help.
    Refused,
    /// It is in neither; send it again, unchanged.
    Retry,
}

/// The answer for one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventAnswer {
    pub event_id: Option<String>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is probably wrong with an event that was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object with events")]
struct Body<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Splits the body into its events.
///
/// # Errors
/// If it is no object with a list of 1 to `events_max` events.
pub fn split(body: &[u8], events_max: usize) -> Result<Vec<&RawValue>, Problem> {
    let refused = |error: serde_json::Error| Problem::new(ErrorCode::ParseError, error.to_string());
    if is_list(body) {
        return Err(Problem::new(
            ErrorCode::ParseError,
            "the body is a list where an object with events is expected",
        ));
    }
    let Body { events } = serde_json::from_slice(body).map_err(refused)?;
    if events.is_empty() || events.len() > events_max {
        return Err(Problem::general(format!("{} events; a request has 1 to {events_max}", events.len())));
    }
    Ok(events)
}

/// The first reading: the id alone, which an answer names whatever else is wrong.
#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
}

/// Reads one event.
pub fn read(raw: &RawValue, scope: Scope<'_>) -> Read {
    if is_list(raw.get().as_bytes()) {
        return Read { event_id: None, event: Err("an event is an object, not a list".to_owned().into()) };
    }
    let identified: Option<Identified> = serde_json::from_str(raw.get()).ok();
    let event_id = identified.map(|of| of.event_id.chars().take(ID_CHARACTERS_MAX).collect());
    Read { event_id, event: event(raw, scope) }
}

fn event(raw: &RawValue, scope: Scope<'_>) -> Result<Event<'static>, NotTaken> {
    let event = match parse::<Typed>(raw)?.kind {
        EventKind::Exposure => event_of(parse(raw)?, scope, Table::Exposures, exposure)?,
        EventKind::Conversion => event_of(parse(raw)?, scope, Table::Conversions, conversion)?,
        EventKind::Alias => alias_of(parse(raw)?, scope)?,
    };
    check(&event)?;
    Ok(event)
}

/// Warns of an event that names what is not known here, or not to the token. It is accepted all the same, because this edge's
/// definitions may be behind the client's.
pub fn warning(event: &Event<'_>, scope: Scope<'_>) -> Option<String> {
    let Scope { configuration, token, .. } = scope;
    let experiment = experiment_of(event)?;
    let here = configuration.version();
    if !configuration.has_experiment(experiment, token.kind) {
        return Some(format!(
            "no experiment `{experiment}` is known to this token here, at configuration version {here}: if there is none, \
             the event counts nowhere; check the key"
        ));
    }
    let Event::Exposure(exposure) = event else { return None };
    if exposure.definition_version > here {
        return Some(format!(
            "definition_version {} is above the configuration version here, {here}: either this edge is behind, or the \
             metadata is from no evaluation",
            exposure.definition_version
        ));
    }
    let has_variant =
        configuration.entry(experiment).is_some_and(|entry| entry.count(&exposure.variant).is_some());
    (!has_variant).then(|| {
        format!(
            "the experiment `{experiment}` has no variant `{}` here, at configuration version {here}: if there is none, \
             the exposure counts in no variant; check the variant",
            exposure.variant
        )
    })
}

/// The experiment that the event names.
pub fn experiment_of<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    match event {
        Event::Exposure(exposure) => Some(&exposure.experiment),
        Event::Conversion(conversion) => conversion.experiment.as_deref(),
        Event::Alias(_) => None,
    }
}

/// An error names the field as it was sent.
fn check(event: &Event<'_>) -> Result<(), String> {
    event.check().map_err(|OutOfRange { field, what }| match (event, field) {
        (Event::Exposure(_), "experiment") | (Event::Conversion(_), "name") => format!("key: {what}"),
        _ => format!("{field}: {what}"),
    })
}

fn id_of(event_id: &str) -> Result<Uuid, String> {
    event_id.parse().map_err(|_| "event_id is no UUID".to_owned())
}

/// A page reports aliases too, as when a visitor logs in. Its `to` is of the token's unit type, so a page of users can join no
/// two accounts or regions; whom among the users it joins is its own word.
fn alias_of(written: WrittenAlias<'_>, scope: Scope<'_>) -> Result<Event<'static>, String> {
    let Scope { configuration, token, .. } = scope;
    let event_id = id_of(&written.event_id)?;
    let (from, to) = (unit_of("from", written.from)?, unit_of("to", written.to)?);
    if from == to {
        return Err("from and to are the same unit: an alias joins two ids".to_owned());
    }
    if token.kind == TokenKind::Client && to.unit_type != token.unit_type.as_str() {
        return Err(format!(
            "to.unit_type is `{}`: a client key may report aliases to a {} alone",
            to.unit_type, token.unit_type
        ));
    }
    Ok(Event::Alias(Alias {
        event_id,
        from,
        to,
        environment: configuration.snapshot.environment().0.to_owned().into(),
        sender: sender(token),
        created_at: created_at(written.ts, event_id, &TimeBounds::of(Table::Aliases, scope))?,
    }))
}

fn unit_of(field: &str, raw: &RawValue) -> Result<Unit<'static>, String> {
    if is_list(raw.get().as_bytes()) {
        return Err(format!("{field}: a unit is an object, not a list"));
    }
    serde_json::from_str(raw.get()).map_err(|error| format!("{field}: {}", without_place(&error)))
}

/// Makes the event of a context by `make`.
fn event_of(
    mut written: Written<'_>,
    scope: Scope<'_>,
    table: Table,
    make: fn(&Known<'_>, &Written<'_>) -> Result<Event<'static>, NotTaken>,
) -> Result<Event<'static>, NotTaken> {
    let event_id = id_of(&written.event_id)?;
    let created_at = created_at(written.ts, event_id, &TimeBounds::of(table, scope))?;
    let mut sent = written.context.take().unwrap_or_default();
    if let Some(key) = written.targeting_key.take().filter(|key| !key.is_empty()) {
        sent.targeting_key = Some(key);
    }
    let attributes = sent.attributes(&scope.token.unit_type);
    let known = Known {
        scope,
        event_id,
        created_at,
        sent: &sent,
        context: sent.context(&scope.token.unit_type, &attributes),
    };
    make(&known, &written)
}

/// What both kinds of event need.
struct Known<'a> {
    scope: Scope<'a>,
    event_id: Uuid,
    created_at: Micros,
    sent: &'a SentContext<'a>,
    context: Context<'a>,
}

fn exposure(known: &Known<'_>, written: &Written<'_>) -> Result<Event<'static>, NotTaken> {
    let Scope { configuration, token, .. } = known.scope;
    let experiment = &*written.key;
    let reported = metadata::read(&written.metadata, experiment, written.variant.as_ref())?;
    // Anybody can read a client key and make up metadata, so a key that is hidden and one that is not here get one answer.
    if token.kind == TokenKind::Client && !configuration.is_reportable_by_clients(experiment) {
        return Err(not_seen(experiment, reported.configuration_version, configuration.version()));
    }
    let unit_id = known.context.unit(&reported.unit_type).ok_or_else(|| {
        format!(
            "TARGETING_KEY_MISSING: the context has no id of the {}, the experiment's unit{}",
            reported.unit_type,
            id_of_another_type(known.sent, [&*reported.unit_type])
        )
    })?;
    let mut other_ids = owned(&configuration.other_ids(&known.context, &reported.unit_type));
    let switchback = configuration.entry(experiment).and_then(|entry| entry.switchback);
    let unit_id = match reported.window_start_s {
        None if switchback.is_some() => {
            return Err("metadata.window_start is missing: the experiment is a switchback".to_owned().into());
        }
        None => unit_id.to_owned(),
        Some(start_s) => {
            // It would be no unit of either window: the value is of the one, and what follows it is of the other.
            if switchback.is_some_and(|windows| windows.window_start_s(known.created_at) != start_s) {
                return Err(NotTaken::Wrong(format!(
                    "metadata.window_start is {start_s}, and the event's time is not in that window: evaluate again"
                )));
            }
            let unit = SwitchbackUnit::new(unit_id, start_s).map_err(|why| {
                format!("the {} cannot be the cluster of a switchback: {why}", reported.unit_type)
            })?;
            other_ids.insert(reported.unit_type.clone().into_owned(), unit_id.to_owned());
            unit.id().as_str().to_owned()
        }
    };
    let texts = known.sent.texts();
    let attributes = configuration.attributes_of(experiment).select(&texts).into_owned().into_pairs();
    let mut exposure = Exposure {
        event_id: known.event_id,
        experiment: reported.experiment.into_owned().into(),
        variant: reported.variant.into_owned().into(),
        unit_id: unit_id.into(),
        other_ids,
        unit_type: reported.unit_type.into_owned().into(),
        phase: reported.phase,
        definition_version: reported.definition_version,
        configuration_version: reported.configuration_version,
        buckets: reported.buckets,
        rule: reported.rule.into_owned().into(),
        reason: reported.reason,
        attributes,
        environment: configuration.snapshot.environment().0.to_owned().into(),
        sender: sender(token),
        created_at: known.created_at,
    };
    exposure.fit_attributes();
    Ok(Event::Exposure(exposure))
}

/// A client that has seen a newer configuration may know the key from there.
fn not_seen(key: &str, evaluated: Version, here: Version) -> NotTaken {
    let key: String = key.chars().take(VALUE_CHARACTERS_MAX).collect();
    let why = format!("`{key}` is no flag or experiment that this token may see");
    match evaluated > here {
        true => NotTaken::Behind(format!(
            "{why} at configuration version {here}, and the event is of version {evaluated}: send it again"
        )),
        false => NotTaken::Wrong(why),
    }
}

/// Says of an id that is there and no text that it is none. Empty if there is no such id.
fn id_of_another_type<'t>(sent: &SentContext<'_>, unit_types: impl IntoIterator<Item = &'t str>) -> String {
    let is_null = |value: &Attribute<'_>| matches!(value, Attribute::Json(serde_json::Value::Null));
    for unit_type in unit_types {
        let mut attributes = sent.attributes.iter();
        let found = attributes.find(|(name, value)| name == unit_type && !is_null(value));
        if let Some((_, value)) = found
            && !matches!(value, Attribute::Text(_))
        {
            return format!("; `{unit_type}` is there, but is no text: send the id as a text");
        }
    }
    String::new()
}

fn conversion(known: &Known<'_>, written: &Written<'_>) -> Result<Event<'static>, NotTaken> {
    let Scope { configuration, token, .. } = known.scope;
    let unit = configuration.unit_of(&known.context, &token.unit_type);
    let (unit_type, unit_id) = unit.map_err(|why| match why {
        NoUnit::Missing => format!(
            "TARGETING_KEY_MISSING: the context has no id, neither of the {} nor of another unit{}",
            token.unit_type,
            id_of_another_type(known.sent, configuration.unit_types().iter().map(Key::as_str))
        ),
        NoUnit::Ambiguous(one, another) => format!(
            "TARGETING_KEY_MISSING: the context has no id of the {}, and ids of the {one} and of the {another}; send \
             targetingKey, or ask with a token whose unit_type is one of them",
            token.unit_type
        ),
    })?;
    let value = match written.value {
        None => None,
        Some(raw) => {
            let read = serde_json::from_str::<Option<Decimal6>>(raw.get());
            read.map_err(|error| format!("value: {}", without_place(&error)))?
        }
    };
    let text = |(name, value): (&Cow<'_, str>, &Scalar<'_>)| (name.clone().into_owned(), value.to_string());
    Ok(Event::Conversion(Conversion {
        event_id: known.event_id,
        name: written.key.clone().into_owned().into(),
        unit_id: unit_id.to_owned().into(),
        other_ids: owned(&configuration.other_ids(&known.context, unit_type.as_str())),
        unit_type: String::from(unit_type).into(),
        experiment: written.experiment.as_ref().map(|key| key.clone().into_owned().into()),
        value,
        metadata: written.metadata.iter().map(text).collect(),
        environment: configuration.snapshot.environment().0.to_owned().into(),
        sender: sender(token),
        created_at: known.created_at,
    }))
}

fn owned(pairs: &Pairs<'_>) -> Pairs<'static> {
    pairs.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same for every edge, as an event that is sent again may come through another one.
fn sender(token: &Token) -> Sender<'static> {
    Sender {
        service: token.name.as_str().to_owned().into(),
        instance: "".into(),
        library_version: concat!("edge ", env!("CARGO_PKG_VERSION")).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use assignment::{Environment, Lists};
    use sdk::attributes::AttributeNames;
    use serde_json::json;

    use super::*;
    use crate::configuration::Inputs;
    use crate::counts::Counts;
    use crate::sample_definitions;
    use crate::tokens::Tokens;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    const V7: &str = "019c1360-2c7b-7000-8000-000000000001";

    #[test]
    fn a_request_has_a_bounded_number_of_events() {
        assert_eq!(split(br#"{"events": [1, {}, "x"]}"#, 3).unwrap().len(), 3);
        let refused = |body: &str| split(body.as_bytes(), 3).unwrap_err();
        assert_eq!(refused(r#"{"events": [1, 2, 3, 4]}"#).details, "4 events; a request has 1 to 3");
        assert_eq!(refused(r#"{"events": []}"#).details, "0 events; a request has 1 to 3");
        for body in ["", "[]", "[[1]]", "{}", r#"{"events": {}}"#, r#"{"events": [}"#] {
            assert_eq!(refused(body).code, ErrorCode::ParseError, "{body}");
        }
    }

    const DEFINITIONS: &str = r#"
{kind: metric, key: buy, event: buy, type: conversion}
---
{kind: experiment, key: hidden, state: running, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}
---
{kind: experiment, key: shown, client_safe: true, unit_type: account, state: running, control: a, metrics: {primary: buy},
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}]}
"#;

    /// Reads an event with a key of this kind, as an edge does that has three definitions. Returns why it is not taken, or the
    /// warning.
    fn judged(kind: &str, event: &serde_json::Value) -> Result<Option<String>, NotTaken> {
        let definitions = sample_definitions::definitions(DEFINITIONS);
        let inputs = Inputs {
            environment: Environment::PRODUCTION,
            log: "log",
            changed_at: Micros::EPOCH,
            attributes: &AttributeNames::default(),
            counts: &Counts::default(),
            lists: &Lists::default(),
        };
        let configuration = Configuration::compile(&definitions, &inputs);
        assert_eq!(configuration.version(), 3);
        let tokens = format!("[[token]]\nname = 'x'\nkind = '{kind}'\nsecret = '0123456789abcdef'");
        let tokens = Tokens::parse(&tokens, "production", None, Instant::now()).unwrap();
        let token = tokens.find(Some(b"0123456789abcdef")).unwrap();
        let scope = Scope {
            configuration: &configuration,
            token: &token,
            now: Micros::parse("2026-03-01T12:00:00Z").unwrap(),
            ahead_max: Duration::from_secs(600),
        };
        read(&raw(&event.to_string()), scope).event.map(|event| warning(&event, scope))
    }

    fn exposure_of(key: &str, changed: &serde_json::Value) -> serde_json::Value {
        let mut event = json!({
            "event_id": V7, "type": "exposure", "key": key, "targetingKey": "u1", "context": {"account": "a1"},
            "metadata": {"variant": "a", "unit_type": "account", "phase": 1, "definition_version": 2,
                         "configuration_version": 3},
        });
        for (field, value) in changed.as_object().unwrap() {
            match field.strip_prefix("metadata.") {
                Some(field) => event["metadata"][field] = value.clone(),
                None => event[field] = value.clone(),
            }
        }
        event
    }

    /// Made-up metadata told which keys there are that a client may not see.
    #[test]
    fn a_client_key_cannot_tell_a_hidden_key_from_one_that_is_not_here() {
        let why = |key: &str, version: u64| {
            let event = exposure_of(key, &json!({"metadata.configuration_version": version}));
            judged("client", &event).unwrap_err()
        };
        for key in ["hidden", "nothing"] {
            let not_seen = format!("`{key}` is no flag or experiment that this token may see");
            assert_eq!(why(key, 3), NotTaken::Wrong(not_seen.clone()));
            // This edge may be behind.
            assert_eq!(
                why(key, 4),
                NotTaken::Behind(format!(
                    "{not_seen} at configuration version 3, and the event is of version 4: send it again"
                ))
            );
        }
        assert_eq!(judged("client", &exposure_of("shown", &json!({}))), Ok(None));
        assert_eq!(
            judged("server", &exposure_of("hidden", &json!({"metadata.unit_type": "user"}))),
            Ok(None)
        );
    }

    #[test]
    fn what_an_experiment_does_not_have_is_warned_of() {
        let warned = |changed| judged("server", &exposure_of("shown", &changed)).unwrap().unwrap();
        assert_eq!(
            warned(json!({"metadata.variant": "purple"})),
            "the experiment `shown` has no variant `purple` here, at configuration version 3: if there is none, the exposure \
             counts in no variant; check the variant"
        );
        assert_eq!(
            warned(json!({"metadata.definition_version": 9999})),
            "definition_version 9999 is above the configuration version here, 3: either this edge is behind, or the metadata \
             is from no evaluation"
        );
    }

    #[test]
    fn what_is_wrong_with_an_event_names_the_field_as_it_was_sent() {
        let wrong = |changed| match judged("server", &exposure_of("shown", &changed)).unwrap_err() {
            NotTaken::Wrong(why) => why,
            NotTaken::Behind(why) => panic!("{why}"),
        };
        for (changed, why) in [
            (json!({"key": "odd 2"}), "key: `odd 2` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -"),
            (
                json!({"key": "odd 2", "type": "conversion"}),
                "key: `odd 2` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -",
            ),
            (json!({"key": null}), "key is null where a text is expected"),
            (json!({"targetingKey": 7}), "targetingKey is 7 where a text is expected"),
            (json!({"type": "foo"}), "type is \"foo\" where `exposure`, `conversion` or `alias` is expected"),
            (
                json!({"metadata.plan": null}),
                "metadata.plan is null where a text, a number, true or false is expected",
            ),
            (json!({"metadata": 7}), "metadata is 7 where an object is expected"),
            (
                json!({"context": 7}),
                "context: invalid type: integer `7`, expected a context, which is an object",
            ),
            (
                json!({"context": {"account": 42}}),
                "TARGETING_KEY_MISSING: the context has no id of the account, the experiment's unit; `account` is there, but \
                 is no text: send the id as a text",
            ),
            (
                json!({"context": {"account": 42}, "type": "conversion", "targetingKey": null}),
                "TARGETING_KEY_MISSING: the context has no id, neither of the user nor of another unit; `account` is there, \
                 but is no text: send the id as a text",
            ),
        ] {
            assert_eq!(wrong(changed), why);
        }
    }
}
