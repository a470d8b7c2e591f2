//! What is known of a unit when it is evaluated: its ids and its attributes, borrowed from the caller, so that nothing has
//! to be built first. It does not know what a condition asks.

use std::fmt;

use schemas::definition::TARGETING_KEY;
use serde_json::Value as Json;

use crate::number::Number;

/// The type of the unit that the targeting key identifies.
pub const DEFAULT_UNIT_TYPE: &str = "user";

/// The ids and attributes of the unit that is evaluated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The id of the unit of the default type, used exactly as given.
    pub targeting_key: Option<&'a str>,
    /// By name. Of two with the same name the first counts.
    pub attributes: &'a [(Name<'a>, Value<'a>)],
}

/// The name of an attribute, with its first bytes as a number: most names are told apart by that alone. The compiler
/// can find a literal's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    start: u64,
    text: &'a str,
}

impl<'a> Name<'a> {
    #[inline]
    pub const fn of(text: &'a str) -> Name<'a> {
        Name { start: start_of(text), text }
    }

    pub const fn as_str(&self) -> &'a str {
        self.text
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(out)
    }
}

/// Names up to this length, in bytes, are known by their start alone.
const START_BYTES: usize = 7;

/// The first bytes of a name and, in the highest byte, its length.
#[inline]
const fn start_of(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let length = if bytes.len() > 255 { 255 } else { bytes.len() as u64 };
    let mut start = length << 56;
    let mut at = 0;
    while at < bytes.len() && at < START_BYTES {
        start |= (bytes[at] as u64) << (8 * at);
        at += 1;
    }
    start
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
    /// As in a [`Name`].
    start: u64,
    kind: PathKind,
    text: Box<str>,
}

#[derive(Clone, Debug)]
enum PathKind {
    /// A name without a dot that is known by its start alone.
    Short,
    /// [`TARGETING_KEY`], with the type of the unit whose id it is.
    Id(Box<str>),
    /// Any other name without a dot.
    Long,
    Nested(Box<Nested>),
}

/// The parts before and after the first dot.
#[derive(Clone, Debug)]
struct Nested {
    name: Box<str>,
    name_start: u64,
    rest: Box<str>,
}

impl Path {
    /// `unit_type` is the type of the unit that is tested.
    pub(crate) fn of(text: &str, unit_type: &str) -> Path {
        let kind = match text.split_once('.') {
            _ if text == TARGETING_KEY => PathKind::Id(unit_type.into()),
            Some((name, rest)) => PathKind::Nested(Box::new(Nested {
                name: name.into(),
                name_start: start_of(name),
                rest: rest.into(),
            })),
            None if text.len() <= START_BYTES => PathKind::Short,
            None => PathKind::Long,
        };
        Path { start: start_of(text), kind, text: text.into() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    fn whole(&self) -> Name<'_> {
        Name { start: self.start, text: &self.text }
    }

    fn parts(&self) -> Option<(Name<'_>, &str)> {
        match &self.kind {
            PathKind::Nested(parts) => {
                Some((Name { start: parts.name_start, text: &parts.name }, &parts.rest))
            }
            _ => None,
        }
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
    /// before the first dot, which must be an object that has the rest. [`TARGETING_KEY`] is the id of the path's unit,
    /// whatever attribute has that name. A value that is no attribute by itself is put into `place`: to copy a value would
    /// cost more than what is asked of it.
    #[inline]
    pub(crate) fn find<'p>(&self, path: &Path, place: &'p mut Option<Value<'a>>) -> Option<&'p Value<'a>>
    where
        'a: 'p,
    {
        if let PathKind::Short = path.kind {
            let has = |(name, _): &&(Name<'_>, _)| name.start == path.start;
            return self.attributes.iter().find(has).map(|(_, value)| value);
        }
        self.find_elsewhere(path, place)
    }

    #[inline(never)]
    fn find_elsewhere<'p>(&self, path: &Path, place: &'p mut Option<Value<'a>>) -> Option<&'p Value<'a>>
    where
        'a: 'p,
    {
        *place = match &path.kind {
            PathKind::Id(unit_type) => self.unit(unit_type).map(Value::Text),
            _ => self.at(path.whole(), path.parts()),
        };
        place.as_ref()
    }

    /// The attribute that is named by a whole path, or else the one that its parts lead to.
    fn at(&self, whole: Name<'_>, parts: Option<(Name<'_>, &str)>) -> Option<Value<'a>> {
        let named = |name| self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        if let Some(value) = named(whole) {
            return Some(value);
        }
        let (name, rest) = parts?;
        match named(name)? {
            Value::Json(json) => nested(json, rest).map(Value::Json),
            _ => None,
        }
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
        let parts = unit_type.split_once('.').map(|(name, rest)| (Name::of(name), rest));
        self.at(Name::of(unit_type), parts)?.text()
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
            (Name::of("company"), Value::Json(&company)),
            (Name::of("company.city"), Value::Text("Rome")),
            (Name::of("company"), Value::Text("the second of its name does not count")),
        ];
        let context = Context { targeting_key: Some("u1"), attributes: &attributes };
        let find = |path| context.find(&Path::of(path, DEFAULT_UNIT_TYPE), &mut None).copied();
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

    /// Lengths around those at which a start tells less: with the eighth byte, and where the length is no longer part of it.
    #[test]
    fn names_of_every_length_are_told_apart() {
        for bytes in (0..20).chain(250..260).chain(510..514) {
            let name = "n".repeat(bytes);
            let longer = format!("{name}n");
            let twin = format!("{}m", &name[..bytes.saturating_sub(1)]);
            let attributes = [(Name::of(&longer), Value::Integer(1)), (Name::of(&twin), Value::Integer(2))];
            let context = Context { targeting_key: None, attributes: &attributes };
            let number = |name: &str| context.find(&Path::of(name, DEFAULT_UNIT_TYPE), &mut None)?.number();
            assert_eq!(number(&name), None, "{bytes}");
            assert_eq!(number(&longer), Some(Number::Integer(1)), "{bytes}");
            assert_eq!(number(&twin), Some(Number::Integer(2)), "{bytes}");
        }
    }

    #[test]
    fn a_unit_is_the_targeting_key_or_an_attribute_of_its_type() {
        let attributes = [
            (Name::of("account"), Value::Text("a7")),
            (Name::of("device"), Value::Integer(4)),
            (Name::of("user"), Value::Text("u9")),
        ];
        let context = Context { targeting_key: Some("u1"), attributes: &attributes };
        assert_eq!(context.unit("user"), Some("u1"));
        assert_eq!(context.unit("account"), Some("a7"));
        // A number has more than one text; an id is used as it was sent.
        assert_eq!(context.unit("device"), None);
        assert_eq!(context.unit("session"), None);
        let company = json!({"id": "c3"});
        let employed = Context { attributes: &[(Name::of("company"), Value::Json(&company))], ..context };
        assert_eq!(employed.unit("company.id"), Some("c3"));
        let anonymous = Context { targeting_key: None, ..context };
        assert_eq!(anonymous.unit("user"), Some("u9"));
    }
}
