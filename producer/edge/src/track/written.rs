//! The events of a request as they are written, and what is said of one that cannot be read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::VALUE_CHARACTERS_MAX;
use crate::metadata::{Scalar, Sent};
use crate::ofrep::request::SentContext;

/// An exposure or a conversion as it is written. Fields that nobody knows are ignored.
#[derive(Deserialize)]
#[serde(expecting = "an event, which is an object")]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    pub(super) event_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    #[serde(borrow, default, rename = "targetingKey")]
    pub(super) targeting_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) context: Option<SentContext<'a>>,
    #[serde(borrow, default)]
    pub(super) variant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) value: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "or_none")]
    pub(super) metadata: Sent<'a>,
    #[serde(borrow, default)]
    pub(super) experiment: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) ts: Option<&'a RawValue>,
}

/// An alias as it is written: it names both of its units, and has no context.
#[derive(Deserialize)]
pub(super) struct WrittenAlias<'a> {
    #[serde(borrow)]
    pub(super) event_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) from: &'a RawValue,
    #[serde(borrow)]
    pub(super) to: &'a RawValue,
    #[serde(borrow, default)]
    pub(super) ts: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EventKind {
    Exposure,
    Conversion,
    Alias,
}

/// The reading that tells in which form the event is written.
#[derive(Deserialize)]
#[serde(expecting = "an event, which is an object")]
pub(super) struct Typed {
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
}

/// Metadata that is null is none.
fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Sent<'de>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(super) fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|error| wrong_field(raw).unwrap_or_else(|| without_place(&error)))
}

/// Says which field has another type than it may have. serde says only where in the text it is.
fn wrong_field(raw: &RawValue) -> Option<String> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(raw.get()).ok()?;
    fields.iter().find_map(|(name, value)| wrong_value(name, value))
}

fn wrong_value(name: &str, raw: &RawValue) -> Option<String> {
    let expected = match name {
        "type" if !reads::<EventKind>(raw) => "`exposure`, `conversion` or `alias`",
        "event_id" | "key" if !reads::<String>(raw) => "a text",
        "targetingKey" | "variant" | "experiment" if !reads::<Option<String>>(raw) => "a text",
        "context" => {
            let read = serde_json::from_str::<Option<SentContext<'_>>>(raw.get());
            return read.err().map(|error| format!("context: {}", without_place(&error)));
        }
        "metadata" => match serde_json::from_str::<Option<BTreeMap<String, &RawValue>>>(raw.get()) {
            Ok(entries) => {
                let mut entries = entries.into_iter().flatten();
                let (name, value) = entries.find(|(_, value)| !reads::<Scalar<'_>>(value))?;
                return Some(expectation(&format!("metadata.{name}"), value, Scalar::EXPECTED));
            }
            Err(_) => "an object",
        },
        _ => return None,
    };
    Some(expectation(name, raw, expected))
}

fn reads<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> bool {
    serde_json::from_str::<T>(raw.get()).is_ok()
}

fn expectation(field: &str, raw: &RawValue, expected: &str) -> String {
    let cut = |text: &str| text.chars().take(VALUE_CHARACTERS_MAX).collect::<String>();
    format!("{} is {} where {expected} is expected", cut(field), cut(raw.get()))
}

/// The error without the place in the text: nobody has the text of one event.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(place) if error.line() > 0 => text[..place].to_owned(),
        _ => text,
    }
}
