//! A small map of texts that keeps the order of its entries, so that encoding it twice gives the same bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// The most pairs that are kept in their encoded form.
const ENCODED_PAIRS_MAX: usize = 16;

/// Names and values, in the order given. A name given twice is kept once, with the last value, as in any
/// other map.
#[derive(Clone)]
pub struct Pairs<'a>(Repr<'a>);

#[derive(Clone)]
enum Repr<'a> {
    Separate(Vec<(Cow<'a, str>, Cow<'a, str>)>),
    /// The bytes of a message: one text after the other, each after a byte that is twice its length.
    Encoded {
        text: &'a str,
        entries: usize,
    },
}

impl<'a> Pairs<'a> {
    /// Keeps names and values as Avro encodes them; `None` unless each has less than 64 bytes, no name occurs
    /// twice, and there are at most [`ENCODED_PAIRS_MAX`].
    pub(crate) fn from_encoded(text: &'a str, entries: usize) -> Option<Pairs<'a>> {
        let mut names = [""; ENCODED_PAIRS_MAX];
        let mut rest = text;
        for at in 0..entries {
            let (name, behind) = split_first_text(rest)?;
            (_, rest) = split_first_text(behind)?;
            if names[..at].contains(&name) {
                return None;
            }
            *names.get_mut(at)? = name;
        }
        rest.is_empty().then_some(Pairs(Repr::Encoded { text, entries }))
    }

    pub fn insert(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        let entries = self.separate();
        match entries.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => entries.push((name, value)),
        }
    }

    /// Reserves space for `more` pairs.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.separate().reserve_exact(more);
    }

    fn separate(&mut self) -> &mut Vec<(Cow<'a, str>, Cow<'a, str>)> {
        if let Repr::Encoded { text, .. } = self.0 {
            self.0 =
                Repr::Separate(EncodedPairs(text).map(|(name, value)| (name.into(), value.into())).collect());
        }
        match &mut self.0 {
            Repr::Separate(entries) => entries,
            Repr::Encoded { .. } => unreachable!("the pairs have been decoded"),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let (separate, encoded) = match &self.0 {
            Repr::Separate(entries) => (entries.as_slice(), ""),
            Repr::Encoded { text, .. } => (&[][..], *text),
        };
        separate.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).chain(EncodedPairs(encoded))
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Separate(entries) => entries.len(),
            Repr::Encoded { entries, .. } => *entries,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Iterates over the pairs of a [`Repr::Encoded`].
#[derive(Clone)]
struct EncodedPairs<'a>(&'a str);

impl<'a> Iterator for EncodedPairs<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let (name, rest) = split_first_text(self.0)?;
        let (value, rest) = split_first_text(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// Splits off the first text; returns it and the rest.
#[inline]
fn split_first_text(texts: &str) -> Option<(&str, &str)> {
    let length = usize::from(*texts.as_bytes().first()? >> 1);
    texts.get(1..)?.split_at_checked(length)
}

impl Default for Pairs<'_> {
    fn default() -> Self {
        Pairs(Repr::Separate(Vec::new()))
    }
}

impl PartialEq for Pairs<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Pairs<'_> {}

impl fmt::Debug for Pairs<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, N: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> FromIterator<(N, V)> for Pairs<'a> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut made = Pairs::default();
        for (name, value) in pairs {
            made.insert(name, value);
        }
        made
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs<'static>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a map of text to text")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut pairs = Pairs::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    pairs.insert(name, value);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_the_last_value_wins() {
        let pairs: Pairs = serde_json::from_str(r#"{"b": "1", "a": "2", "b": "3"}"#).unwrap();
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [("b", "3"), ("a", "2")]);
        assert_eq!(serde_json::to_string(&pairs).unwrap(), r#"{"b":"3","a":"2"}"#);
    }
}
