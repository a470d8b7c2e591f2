//! The context of one unit whose type a definition names: the id of a `user` is the targeting key, any other id is the
//! attribute named like its type. It does not know what is evaluated, nor by whom.

use std::borrow::Cow;

use assignment::{Context, DEFAULT_UNIT_TYPE, Name, Value};
use schemas::definition::TARGETING_KEY;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// The id and the attributes of a unit. It is written as JSON in the form in which clients send it to an edge.
#[derive(Clone, Debug)]
pub struct UnitContext<'a> {
    targeting_key: Option<&'a str>,
    attributes: Cow<'a, [(Name<'a>, Value<'a>)]>,
}

impl<'a> UnitContext<'a> {
    /// An attribute that is named like the type of the unit gives way to the id.
    pub fn new(
        unit_type: &'a str,
        unit_id: &'a str,
        attributes: &'a [(Name<'a>, Value<'a>)],
    ) -> UnitContext<'a> {
        if unit_type == DEFAULT_UNIT_TYPE {
            return UnitContext { targeting_key: Some(unit_id), attributes: attributes.into() };
        }
        let id = (Name::of(unit_type), Value::Text(unit_id));
        let others = attributes.iter().filter(|(name, _)| name.as_str() != unit_type).copied();
        UnitContext { targeting_key: None, attributes: std::iter::once(id).chain(others).collect() }
    }

    pub fn get(&self) -> Context<'_> {
        Context { targeting_key: self.targeting_key, attributes: &self.attributes }
    }
}

impl Serialize for UnitContext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = self.targeting_key {
            map.serialize_entry(TARGETING_KEY, id)?;
        }
        for (name, value) in self.attributes.iter() {
            let name = name.as_str();
            match value {
                Value::Boolean(value) => map.serialize_entry(name, value)?,
                Value::Integer(value) => map.serialize_entry(name, value)?,
                Value::Number(value) => map.serialize_entry(name, value)?,
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Json(json) => map.serialize_entry(name, json)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: [(Name<'_>, Value<'_>); 2] =
        [(Name::of("plan"), Value::Text("pro")), (Name::of("device"), Value::Text("mobile"))];

    fn json(unit_type: &str, unit_id: &str) -> String {
        serde_json::to_string(&UnitContext::new(unit_type, unit_id, &ATTRIBUTES)).unwrap()
    }

    #[test]
    fn the_id_of_a_user_is_the_targeting_key_and_any_other_an_attribute() {
        assert_eq!(json("user", "u\"1"), r#"{"targetingKey":"u\"1","plan":"pro","device":"mobile"}"#);
        assert_eq!(json("account", "a1"), r#"{"account":"a1","plan":"pro","device":"mobile"}"#);
        for (unit_type, unit_id) in [("user", "u1"), ("account", "a1"), ("device", "d1")] {
            let context = UnitContext::new(unit_type, unit_id, &ATTRIBUTES);
            assert_eq!(context.get().unit(unit_type), Some(unit_id));
        }
    }

    #[test]
    fn an_attribute_named_like_the_units_type_gives_way_to_the_id() {
        assert_eq!(json("device", "d1"), r#"{"device":"d1","plan":"pro"}"#);
    }
}
