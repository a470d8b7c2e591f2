//! Reads events from JSON; `type` names the kind. The text is read twice, first for the kind and then for the
//! event: serde's own support for tagged unions buffers every value in memory, and decimals as doubles.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

use super::{Alias, Conversion, Event, Exposure};

/// The field that names the kind of event.
const TYPE: &str = "type";

/// Only the deserializer of `serde_json` can read an event, as for [`super::Decimal6`].
impl<'de, 'a> Deserialize<'de> for Event<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Event<'a>, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        read(text.get()).map_err(D::Error::custom)
    }
}

fn read<'a>(text: &str) -> Result<Event<'a>, serde_json::Error> {
    let Tagged { kind } = serde_json::from_str(text)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let body = Body(&mut json);
    Ok(match kind {
        Kind::Exposure => Event::Exposure(Exposure::deserialize(body)?),
        Kind::Conversion => Event::Conversion(Conversion::deserialize(body)?),
        Kind::Alias => Event::Alias(Alias::deserialize(body)?),
    })
}

/// The first reading: the kind. The other fields are skipped.
#[derive(Deserialize)]
#[serde(expecting = "an event")]
struct Tagged {
    #[serde(rename = "type")]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Exposure,
    Conversion,
    Alias,
}

/// A map without its `type`. Its values are read directly from the text.
struct Body<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Body<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(WithoutType(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct WithoutType<T>(T);

impl<'de, V: Visitor<'de>> Visitor<'de> for WithoutType<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<V::Value, M::Error> {
        self.0.visit_map(WithoutType(map))
    }
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for WithoutType<M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, M::Error> {
        while let Some(name) = self.0.next_key::<String>()? {
            if name != TYPE {
                let name: StringDeserializer<M::Error> = name.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            self.0.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.0.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: &str = r#"{"from": {"unit_type": "device", "unit_id": "d"}, "type": "alias", "event_id":
        "0191e3a0-0000-7000-8000-000000000001", "to": {"unit_type": "user", "unit_id": "u"},
        "created_at": "2026-01-01T00:00:00Z"}"#;

    fn conversion(value: &str) -> String {
        format!(
            r#"{{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000001", "name": "rep",
            "unit_type": "user", "unit_id": "c", "value": {value}, "created_at": "2026-01-01T00:00:00Z"}}"#
        )
    }

    /// A fixed bug: values passed through a double, and 123456789012.123456 became 123456789012.123460.
    #[test]
    fn a_value_is_read_by_its_digits() {
        for (json, expected) in [
            ("0.000001", "0.000001"),
            ("1e-6", "0.000001"),
            ("9999999999.123456", "9999999999.123456"),
            ("123456789012.123456", "123456789012.123456"),
            ("\"12.5\"", "12.500000"),
        ] {
            let Event::Conversion(read) = serde_json::from_str(&conversion(json)).unwrap() else {
                panic!("a conversion")
            };
            assert_eq!(read.value.unwrap().to_string(), expected, "{json}");
        }
        let Event::Conversion(read) = serde_json::from_str(&conversion("null")).unwrap() else {
            panic!("a conversion")
        };
        assert_eq!(read.value, None);
        let refused = serde_json::from_str::<Event>(&conversion("123456789012.1234567")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`123456789012.1234567` is not a decimal with at most 12 digits before and 6 after the point at line 2 \
             column 78"
        );
    }

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        let event: Event = serde_json::from_str(ALIAS).unwrap();
        assert!(matches!(event, Event::Alias(_)));
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.starts_with(r#"{"type":"alias","event_id":"#), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }

    #[test]
    fn the_error_for_an_invalid_event_has_its_position() {
        let error = |text: &str| serde_json::from_str::<Event>(text).unwrap_err().to_string();
        assert_eq!(error("{}"), "missing field `type` at line 1 column 2");
        assert_eq!(error("{"), "EOF while parsing an object at line 1 column 1");
        assert_eq!(error("7"), "invalid type: integer `7`, expected an event at line 1 column 1");
        assert_eq!(
            error(r#"{"type": "exposed"}"#),
            "unknown variant `exposed`, expected one of `exposure`, `conversion`, `alias` at line 1 column 18"
        );
        assert_eq!(
            error(r#"{"type": "alias", "type": "alias"}"#),
            "duplicate field `type` at line 1 column 24"
        );
        assert_eq!(
            error(r#"{"type": "alias", "colour": 1}"#),
            "unknown field `colour`, expected one of `event_id`, `from`, `to`, `environment`, `sender`, \
             `created_at` at line 1 column 26"
        );
        let torn = serde_json::from_slice::<Event>(b"{\"type\": \"al\xe9\"}").unwrap_err().to_string();
        assert_eq!(torn, "invalid unicode code point at line 1 column 13");
        assert_eq!(error(r#"["alias"]"#), "invalid type: sequence, expected struct Alias at line 1 column 0");
    }
}
