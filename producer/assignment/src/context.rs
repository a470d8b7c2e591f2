//! What is known of a unit when it is evaluated: its ids and its attributes, borrowed from the caller, so that nothing has
//! to be built first. It does not know what a condition asks.

use std::cmp::Ordering;

use schemas::definition::TARGETING_KEY;
use serde_json::Value as Json;

use crate::number::Number;
use crate::text::Text;

/// The type of the unit that the targeting key identifies.
pub const DEFAULT_UNIT_TYPE: &str = "user";

/// The ids and attributes of the unit that is evaluated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The id of the unit of the default type, used exactly as given.
    pub targeting_key: Option<&'a str>,
    /// By name. Of two with the same name the first counts.
    pub attributes: &'a [(&'a str, Value<'a>)],
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Boolean(bool),
    Integer(i64),
    /// Not NaN; a number that is not finite compares as such.
    Number(f64),
    Text(&'a str),
    /// A value as it was parsed from JSON, for lists and nested attributes.
    Json(&'a Json),
}

/// The path of an attribute, looked at once.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    text: Text,
    kind: PathKind,
}

#[derive(Clone, Debug)]
enum PathKind {
    /// The name of an attribute: it has no dot.
    Name,
    TargetingKey,
    Nested(Box<Nested>),
}

/// The parts of a path before and after the first dot.
#[derive(Clone, Debug)]
struct Nested {
    name: Text,
    rest: Box<str>,
}

impl Path {
    pub(crate) fn of(text: &str) -> Path {
        let kind = match text.split_once('.') {
            _ if text == TARGETING_KEY => PathKind::TargetingKey,
            Some((name, rest)) => {
                PathKind::Nested(Box::new(Nested { name: Text::of(name), rest: rest.into() }))
            }
            None => PathKind::Name,
        };
        Path { text: Text::of(text), kind }
    }
}

/// A value by its type, whatever form it came in. A null and a nested object pass no test but `exists` and `equals`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(&'a str),
    List(&'a [Json]),
    Object(&'a serde_json::Map<String, Json>),
}

impl<'a> Context<'a> {
    /// Returns an attribute by its path: the name as a whole or, if there is none of that name, the attribute named
    /// before the first dot, which must be an object that has the rest. [`TARGETING_KEY`] is the targeting key. A value
    /// that is no attribute by itself is put into `place`: to copy a value would cost more than what is asked of it.
    #[inline]
    pub(crate) fn find<'p>(&self, path: &Path, place: &'p mut Option<Value<'a>>) -> Option<&'p Value<'a>>
    where
        'a: 'p,
    {
        match path.kind {
            PathKind::Name => self.named(&path.text),
            _ => self.find_elsewhere(path, place),
        }
    }

    #[inline(never)]
    fn find_elsewhere<'p>(&self, path: &Path, place: &'p mut Option<Value<'a>>) -> Option<&'p Value<'a>>
    where
        'a: 'p,
    {
        if let (PathKind::TargetingKey, Some(id)) = (&path.kind, self.targeting_key) {
            return Some(place.insert(Value::Text(id)));
        }
        let whole = self.named(&path.text);
        match &path.kind {
            PathKind::Nested(parts) if whole.is_none() => match self.named(&parts.name)? {
                Value::Json(json) => Some(place.insert(Value::Json(nested(json, &parts.rest)?))),
                _ => None,
            },
            _ => whole,
        }
    }

    fn attribute(&self, path: &str) -> Option<Value<'a>> {
        let named =
            |name: &str| self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        if let Some(value) = named(path) {
            return Some(value);
        }
        let (name, rest) = path.split_once('.')?;
        match named(name)? {
            Value::Json(json) => nested(json, rest).map(Value::Json),
            _ => None,
        }
    }

    /// Of two with the same name the first counts.
    #[inline(always)]
    fn named(&self, name: &Text) -> Option<&'a Value<'a>> {
        for (own, value) in self.attributes {
            if name.is(own) {
                return Some(value);
            }
        }
        None
    }

    /// Returns the id of the unit of this type: the targeting key for the default type, otherwise the text of the attribute
    /// that is named like the type, which may be a path as in a condition.
    #[inline]
    pub fn unit(&self, unit_type: &str) -> Option<&'a str> {
        if unit_type == DEFAULT_UNIT_TYPE
            && let Some(id) = self.targeting_key
        {
            return Some(id);
        }
        self.attribute(unit_type)?.text()
    }
}

/// Returns the field of an object by its path, by the rule of [`Context::find`].
fn nested<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    let object = json.as_object()?;
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let (name, rest) = path.split_once('.')?;
    nested(object.get(name)?, rest)
}

impl<'a> Value<'a> {
    #[inline]
    pub(crate) fn text(&self) -> Option<&'a str> {
        match *self {
            Value::Text(text) => Some(text),
            Value::Json(Json::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<Number> {
        match *self {
            Value::Integer(value) => Some(Number::Integer(value)),
            Value::Number(value) => Some(Number::Double(value)),
            Value::Json(Json::Number(number)) => Some(Number::of(number)),
            _ => None,
        }
    }

    /// Compares a number; anything else has no order.
    #[inline]
    pub(crate) fn compare(&self, bound: Number) -> Option<Ordering> {
        match (self, bound) {
            (Value::Integer(value), Number::Integer(bound)) => Some(value.cmp(&bound)),
            _ => self.number()?.compare(bound),
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> Option<&'a [Json]> {
        match *self {
            Value::Json(Json::Array(items)) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn view(self) -> View<'a> {
        match self {
            Value::Boolean(value) => View::Boolean(value),
            Value::Integer(value) => View::Number(Number::Integer(value)),
            Value::Number(value) => View::Number(Number::Double(value)),
            Value::Text(text) => View::Text(text),
            Value::Json(json) => View::of(json),
        }
    }
}

impl<'a> View<'a> {
    pub(crate) fn of(json: &'a Json) -> View<'a> {
        match json {
            Json::Null => View::Null,
            Json::Bool(value) => View::Boolean(*value),
            Json::Number(number) => View::Number(Number::of(number)),
            Json::String(text) => View::Text(text),
            Json::Array(items) => View::List(items),
            Json::Object(fields) => View::Object(fields),
        }
    }

    /// Returns whether both are the same value: numbers by their value, so that 1 and 1.0 are the same and 2^53 and
    /// 2^53 + 1 are not, wherever in the value they are.
    pub(crate) fn same(self, other: View<'_>) -> bool {
        match (self, other) {
            (View::Null, View::Null) => true,
            (View::Boolean(left), View::Boolean(right)) => left == right,
            (View::Number(left), View::Number(right)) => {
                left.compare(right).is_some_and(|order| order.is_eq())
            }
            (View::Text(left), View::Text(right)) => left == right,
            (View::List(left), View::List(right)) => {
                left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| View::of(left).same(View::of(right)))
            }
            (View::Object(left), View::Object(right)) => {
                let same_field =
                    |(name, left)| right.get(name).is_some_and(|right| View::of(left).same(View::of(right)));
                left.len() == right.len() && left.iter().all(same_field)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_a_whole_name_before_it_is_nested() {
        let company = json!({"plan": {"name": "pro", "seats.paid": 12}});
        let attributes = [
            ("company", Value::Json(&company)),
            ("company.city", Value::Text("Rome")),
            ("company", Value::Text("the second of its name does not count")),
        ];
        let context = Context { targeting_key: Some("u1"), attributes: &attributes };
        let find = |path| context.find(&Path::of(path), &mut None).copied();
        let text = |path| find(path).and_then(|value| value.text()).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(text("company.city"), "Rome");
        assert_eq!(text("company.plan.name"), "pro");
        assert_eq!(
            find("company.plan.seats.paid").and_then(|value| value.number()),
            Some(Number::Integer(12))
        );
        for absent in ["company.size", "company.plan.name.first", "plan", "company.city.zip", ""] {
            assert!(find(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn a_unit_is_the_targeting_key_or_an_attribute_of_its_type() {
        let attributes =
            [("account", Value::Text("a7")), ("device", Value::Integer(4)), ("user", Value::Text("u9"))];
        let context = Context { targeting_key: Some("u1"), attributes: &attributes };
        assert_eq!(context.unit("user"), Some("u1"));
        assert_eq!(context.unit("account"), Some("a7"));
        // A number has more than one text; an id is used as it was sent.
        assert_eq!(context.unit("device"), None);
        assert_eq!(context.unit("session"), None);
        let company = json!({"id": "c3"});
        let employed = Context { attributes: &[("company", Value::Json(&company))], ..context };
        assert_eq!(employed.unit("company.id"), Some("c3"));
        let anonymous = Context { targeting_key: None, ..context };
        assert_eq!(anonymous.unit("user"), Some("u9"));
    }
}
