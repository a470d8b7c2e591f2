//! Reads the body of a request into a context, borrowed from the body where JSON allows it. It does not know flags. What
//! clients leave out (the context, the targeting key) is empty; what has another type than the protocol's is refused.

use std::borrow::Cow;
use std::fmt;

use assignment::{Context, DEFAULT_UNIT_TYPE, Name, Value};
use schemas::definition::TARGETING_KEY;
use schemas::{Key, Pairs};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::error::Category;

use super::error::{ErrorCode, Problem};

/// The most attributes of a context; a request with more is refused. Conditions look attributes up one by one.
pub const ATTRIBUTES_MAX: usize = 256;

/// The deepest field that becomes an attribute of an exposure, in names; deeper ones are not tested in practice.
const NESTED_NAMES_MAX: usize = 8;

/// A context as it was sent. An attribute that is given twice has its last value, as in any other reader of JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SentContext<'a> {
    /// `None` if it is left out, null or empty.
    pub targeting_key: Option<Cow<'a, str>>,
    pub attributes: Vec<(Cow<'a, str>, Attribute<'a>)>,
}

/// The value of an attribute as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute<'a> {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(Cow<'a, str>),
    /// A null, a list, an object, or an integer above those of 64 bits with a sign.
    Json(Json),
}

/// The body of both kinds of evaluation. Fields that the protocol does not know are ignored.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object with a context")]
struct Body<'a> {
    #[serde(borrow, default)]
    context: Option<SentContext<'a>>,
}

/// Reads the body of an evaluation.
///
/// # Errors
/// `PARSE_ERROR` if it is no JSON, or nested too deeply; `INVALID_CONTEXT` if the context is no object, has a targeting key
/// that is no text, or too many attributes.
pub fn read(body: &[u8]) -> Result<SentContext<'_>, Problem> {
    if is_list(body) {
        return Err(Problem::new(
            ErrorCode::InvalidContext,
            "the body is a list where an object with a context is expected",
        ));
    }
    // Checked once as a whole, its texts need no check of their own; bytes that are no text are refused with their place.
    let read = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str::<Body>(text),
        Err(_) => serde_json::from_slice(body),
    };
    match read {
        Ok(body) => Ok(body.context.unwrap_or_default()),
        Err(error) => Err(problem(&error)),
    }
}

/// Whether the text begins a list: serde would read one as the fields of a struct in their order.
pub fn is_list(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

fn problem(error: &serde_json::Error) -> Problem {
    match error.classify() {
        Category::Data => Problem::new(ErrorCode::InvalidContext, error.to_string()),
        _ => Problem::new(ErrorCode::ParseError, format!("the body is not JSON that can be read: {error}")),
    }
}

impl<'a> SentContext<'a> {
    /// The attributes as evaluation takes them. `unit_type` is the type of the unit that the targeting key identifies; where
    /// that is not the platform's default, the key is the attribute of that name.
    pub fn attributes<'c>(&'c self, unit_type: &'c Key) -> Vec<(Name<'c>, Value<'c>)> {
        let named = self.targeting_key.as_deref().filter(|_| unit_type.as_str() != DEFAULT_UNIT_TYPE);
        let own = named.map(|id| (Name::of(unit_type.as_str()), Value::Text(id)));
        own.into_iter()
            .chain(self.attributes.iter().map(|(name, value)| (Name::of(name), value.borrowed())))
            .collect()
    }

    /// The context that has these attributes, which [`SentContext::attributes`] made for the same type.
    pub fn context<'c>(&'c self, unit_type: &Key, attributes: &'c [(Name<'c>, Value<'c>)]) -> Context<'c> {
        let is_default = unit_type.as_str() == DEFAULT_UNIT_TYPE;
        Context { targeting_key: self.targeting_key.as_deref().filter(|_| is_default), attributes }
    }

    /// The attributes as texts, for an exposure. A field of an object is named by its path, unless an attribute has that name.
    pub fn texts(&self) -> Pairs<'_> {
        let mut pairs = Pairs::default();
        for (name, value) in &self.attributes {
            match value {
                Attribute::Boolean(value) => pairs.insert(&**name, if *value { "true" } else { "false" }),
                Attribute::Integer(value) => pairs.insert(&**name, value.to_string()),
                Attribute::Number(value) => pairs.insert(&**name, Json::from(*value).to_string()),
                Attribute::Text(text) => pairs.insert(&**name, &**text),
                Attribute::Json(json) => insert_texts(&mut pairs, name, json, 1),
            }
        }
        pairs
    }
}

/// The longest path of a nested attribute that an exposure may carry, in bytes: a longer one would cost more than it tells.
const PATH_BYTES_MAX: usize = 256;

fn insert_texts(pairs: &mut Pairs<'_>, path: &str, json: &Json, names: usize) {
    if path.len() > PATH_BYTES_MAX {
        return;
    }
    let text = match json {
        Json::Null => return,
        Json::Object(fields) => {
            if names < NESTED_NAMES_MAX {
                for (name, value) in fields.iter().take(ATTRIBUTES_MAX.saturating_sub(pairs.len())) {
                    insert_texts(pairs, &format!("{path}.{name}"), value, names + 1);
                }
            }
            return;
        }
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    if pairs.get(path).is_none() {
        pairs.insert(path.to_owned(), text);
    }
}

impl<'a> Attribute<'a> {
    fn borrowed(&self) -> Value<'_> {
        match self {
            Attribute::Boolean(value) => Value::Boolean(*value),
            Attribute::Integer(value) => Value::Integer(*value),
            Attribute::Number(value) => Value::Number(*value),
            Attribute::Text(text) => Value::Text(text),
            Attribute::Json(json) => Value::Json(json),
        }
    }
}

/// A text that is borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for SentContext<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SentContext<'a>, D::Error> {
        deserializer.deserialize_map(ContextVisitor)
    }
}

struct ContextVisitor;

impl<'de> Visitor<'de> for ContextVisitor {
    type Value = SentContext<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a context, which is an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<SentContext<'de>, M::Error> {
        let mut context = SentContext::default();
        while let Some(Text(name)) = map.next_key()? {
            if name == TARGETING_KEY {
                let key: Option<TargetingKey> = map.next_value()?;
                context.targeting_key = key.map(|key| key.0).filter(|key| !key.is_empty());
                continue;
            }
            let value = map.next_value()?;
            match context.attributes.iter().position(|(known, _)| *known == name) {
                Some(known) => context.attributes[known].1 = value,
                None if context.attributes.len() == ATTRIBUTES_MAX => {
                    return Err(M::Error::custom(format_args!(
                        "a context has at most {ATTRIBUTES_MAX} attributes"
                    )));
                }
                None => context.attributes.push((name, value)),
            }
        }
        Ok(context)
    }
}

struct TargetingKey<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for TargetingKey<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TargetingKey<'a>, D::Error> {
        struct Key;

        impl<'de> Visitor<'de> for Key {
            type Value = TargetingKey<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a targetingKey, which is a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<TargetingKey<'de>, E> {
                Ok(TargetingKey(text.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TargetingKey<'de>, E> {
                Ok(TargetingKey(text.to_owned().into()))
            }
        }

        deserializer.deserialize_str(Key)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Attribute<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attribute<'a>, D::Error> {
        deserializer.deserialize_any(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl<'de> Visitor<'de> for AttributeVisitor {
    type Value = Attribute<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Attribute<'de>, E> {
        Ok(i64::try_from(value).map_or_else(|_| Attribute::Json(value.into()), Attribute::Integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Text(text.into()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Text(text.to_owned().into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Json(Json::Null))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, list: S) -> Result<Attribute<'de>, S::Error> {
        Json::deserialize(SeqAccessDeserializer::new(list)).map(Attribute::Json)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Attribute<'de>, M::Error> {
        Json::deserialize(MapAccessDeserializer::new(map)).map(Attribute::Json)
    }
}

impl Serialize for SentContext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = &self.targeting_key {
            map.serialize_entry(TARGETING_KEY, key)?;
        }
        for (name, value) in &self.attributes {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Attribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Attribute::Boolean(value) => value.serialize(serializer),
            Attribute::Integer(value) => value.serialize(serializer),
            Attribute::Number(value) => value.serialize(serializer),
            Attribute::Text(text) => text.serialize(serializer),
            Attribute::Json(json) => json.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(body: &str) -> (ErrorCode, String) {
        let problem = read(body.as_bytes()).unwrap_err();
        (problem.code, problem.details)
    }

    #[test]
    fn what_clients_leave_out_is_empty() {
        for body in [
            "{}",
            r#"{"context": null}"#,
            r#"{"context": {}}"#,
            r#"{"context": {"targetingKey": null}}"#,
            r#"{"context": {"targetingKey": ""}, "other": [1]}"#,
        ] {
            assert_eq!(read(body.as_bytes()).unwrap(), SentContext::default(), "{body}");
        }
    }

    #[test]
    fn a_value_keeps_its_type() {
        let body = r#"{"context": {"targetingKey": "u\u0031", "i": 9007199254740993, "low": -9223372036854775808,
            "u": 18446744073709551615, "f": 1.0, "t": "a", "b": true, "n": null, "l": [1], "o": {"p": {"q": 2}}}}"#;
        let context = read(body.as_bytes()).unwrap();
        assert_eq!(context.targeting_key.as_deref(), Some("u1"));
        let of = |name: &str| context.attributes.iter().find(|(own, _)| own == name).unwrap().1.clone();
        assert_eq!(of("i"), Attribute::Integer(9_007_199_254_740_993));
        assert_eq!(of("low"), Attribute::Integer(i64::MIN));
        assert_eq!(of("u"), Attribute::Json(json!(u64::MAX)));
        assert_eq!(of("f"), Attribute::Number(1.0));
        assert!(matches!(of("t"), Attribute::Text(Cow::Borrowed("a"))));
        assert_eq!(of("b"), Attribute::Boolean(true));
        assert_eq!(of("n"), Attribute::Json(Json::Null));
        assert_eq!(of("l"), Attribute::Json(json!([1])));
        assert_eq!(of("o"), Attribute::Json(json!({"p": {"q": 2}})));
    }

    #[test]
    fn of_two_values_the_last_counts() {
        let context = read(br#"{"context": {"a": 1, "b": 2, "a": 3}}"#).unwrap();
        assert_eq!(context.attributes[0], ("a".into(), Attribute::Integer(3)));
        assert_eq!(context.attributes.len(), 2);
    }

    #[test]
    fn another_type_is_refused_by_its_name() {
        let (code, details) = refused(r#"{"context": []}"#);
        assert_eq!(code, ErrorCode::InvalidContext);
        assert!(
            details.starts_with("invalid type: sequence, expected a context, which is an object"),
            "{details}"
        );
        let (code, details) = refused(r#"{"context": {"targetingKey": 7}}"#);
        assert_eq!(code, ErrorCode::InvalidContext);
        assert!(
            details.starts_with("invalid type: integer `7`, expected a targetingKey, which is a text"),
            "{details}"
        );
        for body in ["[]", r#" [{"targetingKey": "u1"}]"#, "7", "null"] {
            assert_eq!(refused(body).0, ErrorCode::InvalidContext, "{body}");
        }
        for body in ["", "{", "nope", r#"{"context": {"a": 1e999}}"#] {
            assert_eq!(refused(body).0, ErrorCode::ParseError, "{body}");
        }
        assert_eq!(read(b"{\"context\": {\"a\": \"\xff\"}}").unwrap_err().code, ErrorCode::ParseError);
    }

    #[test]
    fn deep_json_is_refused_and_not_followed() {
        let deep = format!(r#"{{"context": {{"a": {}{}}}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        let (code, details) = refused(&deep);
        assert_eq!(code, ErrorCode::ParseError);
        assert!(details.contains("recursion limit exceeded"), "{details}");
        let ignored = format!(r#"{{"a": {}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(read(ignored.as_bytes()).unwrap(), SentContext::default());
    }

    #[test]
    fn a_context_has_a_bounded_number_of_attributes() {
        let body = |count: usize| {
            let fields: Vec<String> = (0..count).map(|index| format!(r#""a{index}": 1"#)).collect();
            format!(r#"{{"context": {{{}}}}}"#, fields.join(","))
        };
        assert_eq!(read(body(256).as_bytes()).unwrap().attributes.len(), 256);
        assert_eq!(refused(&body(257)).0, ErrorCode::InvalidContext);
    }

    #[test]
    fn the_targeting_key_is_the_unit_of_the_tokens_type() {
        let context = read(br#"{"context": {"targetingKey": "x1", "user": "u1", "account": "a9"}}"#).unwrap();
        let of = |unit_type: &str, asked: &str| {
            let unit_type = Key::new(unit_type).unwrap();
            let attributes = context.attributes(&unit_type);
            context.context(&unit_type, &attributes).unit(asked).map(str::to_owned)
        };
        assert_eq!(of("user", "user").as_deref(), Some("x1"));
        assert_eq!(of("user", "account").as_deref(), Some("a9"));
        assert_eq!(of("account", "account").as_deref(), Some("x1"));
        assert_eq!(of("account", "user").as_deref(), Some("u1"));
        assert_eq!(of("account", "device"), None);
    }

    #[test]
    fn an_exposure_gets_texts_by_their_paths() {
        let body = r#"{"context": {"n": 1.50, "i": 7, "b": false, "none": null, "l": [1, "x"],
            "company": {"plan": "pro", "size": {"seats": 3}}, "company.plan": "own"}}"#;
        let context = read(body.as_bytes()).unwrap();
        let texts = context.texts();
        let got: Vec<(&str, &str)> = texts.iter().collect();
        assert_eq!(
            got,
            [
                ("n", "1.5"),
                ("i", "7"),
                ("b", "false"),
                ("l", "[1,\"x\"]"),
                ("company.plan", "own"),
                ("company.size.seats", "3")
            ]
        );
    }
}
