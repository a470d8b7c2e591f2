//! Types for single settings: each carries its unit and its bounds, checks them when it is read,
//! and can state them, so that the error and the documentation are the declaration's own words.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};

/// Milliseconds from `MIN` to `MAX`.
pub type Millis<const MIN: u64, const MAX: u64> = Bounded<unit::Milliseconds, MIN, MAX>;
/// Bytes from `MIN` to `MAX`.
pub type Bytes<const MIN: u64, const MAX: u64> = Bounded<unit::Bytes, MIN, MAX>;
/// A number of things from `MIN` to `MAX`; the field's name says of what.
pub type Count<const MIN: u64, const MAX: u64> = Bounded<unit::Items, MIN, MAX>;

/// A whole number of some unit, from `MIN` to `MAX` inclusive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bounded<U, const MIN: u64, const MAX: u64> {
    value: u64,
    unit: PhantomData<U>,
}

/// The units of [`Bounded`].
pub mod unit {
    /// What a unit is called after a number.
    pub trait Unit {
        /// For example `" milliseconds"`; empty where the field's name says it.
        const NAME: &'static str;
    }

    /// Thousandths of a second.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Milliseconds;
    /// Octets.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Bytes;
    /// Countable things.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Items;

    impl Unit for Milliseconds {
        const NAME: &'static str = " milliseconds";
    }
    impl Unit for Bytes {
        const NAME: &'static str = " bytes";
    }
    impl Unit for Items {
        const NAME: &'static str = "";
    }
}

impl<U, const MIN: u64, const MAX: u64> Bounded<U, MIN, MAX> {
    /// A value known when the program is written, such as a default.
    ///
    /// # Panics
    /// If it is out of bounds; in a `const` that is an error at compile time.
    pub const fn of(value: u64) -> Self {
        assert!(MIN <= value && value <= MAX, "out of the setting's bounds");
        Bounded { value, unit: PhantomData }
    }

    /// The number itself, in the field's unit.
    pub const fn get(self) -> u64 {
        self.value
    }

    /// The number as a size or a length.
    ///
    /// # Panics
    /// Where a `usize` is narrower than the bound; on the 64-bit targets we build for, never.
    pub fn usize(self) -> usize {
        usize::try_from(self.value).expect("a setting's bound fits a 64-bit usize")
    }
}

impl<const MIN: u64, const MAX: u64> Bounded<unit::Milliseconds, MIN, MAX> {
    /// The number as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.value)
    }
}

impl<U, const MIN: u64, const MAX: u64> fmt::Debug for Bounded<U, MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, U: unit::Unit, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<U, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<U, const MIN: u64, const MAX: u64>(PhantomData<U>);

        impl<U: unit::Unit, const MIN: u64, const MAX: u64> Visitor<'_> for Number<U, MIN, MAX> {
            type Value = Bounded<U, MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Bounded::<U, MIN, MAX>::allowed())
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                if (MIN..=MAX).contains(&value) {
                    Ok(Bounded::of(value))
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(value), &self))
                }
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
                }
            }
        }

        deserializer.deserialize_u64(Number(PhantomData))
    }
}

/// A value that is never printed, logged or shown: `Debug` masks it and there is no `Display`. In
/// a configuration it may come from the environment or from a file of its own, never from the
/// configuration file, and it has 1 to 65,536 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The name by which the configuration's reader knows that a secret is asked for.
pub(super) const SECRET: &str = "ops::Secret";
/// The most bytes of a secret: room for a certificate chain, and no more.
const SECRET_BYTES_MAX: usize = 65_536;

impl Secret {
    /// The value, to be handed to whoever needs it and nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Checks a secret's length; the error does not repeat it.
    pub fn new(text: String) -> Result<Secret, String> {
        if text.is_empty() || text.len() > SECRET_BYTES_MAX {
            return Err(format!(
                "{} bytes where a secret of 1 to {SECRET_BYTES_MAX} bytes is expected",
                text.len()
            ));
        }
        Ok(Secret(text))
    }

    /// Reads a secret from its file; one line break at the end is not part of it.
    pub fn read(path: &Path) -> Result<Secret, String> {
        let mut text = std::fs::read_to_string(path)
            .map_err(|error| format!("reading the secret in {}: {error}", path.display()))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Secret::new(text).map_err(|error| format!("the secret in {}: {error}", path.display()))
    }

    /// The secret of a pair of settings `x` and `x_file`, if either is set.
    pub fn resolve(value: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<Secret>, String> {
        match (value, file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(path)) => Secret::read(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Secret, D::Error> {
                Secret::new(String::deserialize(inner)?).map_err(serde::de::Error::custom)
            }
        }

        deserializer.deserialize_newtype_struct(SECRET, Text)
    }
}

/// A type that can be a setting: it states what it allows and shows what it holds.
pub trait Setting {
    /// What is allowed, as a noun phrase with unit and bounds.
    fn allowed() -> String;

    /// The value as it would stand in the configuration file.
    fn shown(&self) -> Shown;
}

/// How a setting's value is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// As TOML.
    Toml(String),
    /// A secret: set, but not shown.
    Hidden,
    /// Left out.
    Unset,
}

impl<U: unit::Unit, const MIN: u64, const MAX: u64> Setting for Bounded<U, MIN, MAX> {
    fn allowed() -> String {
        format!("a whole number from {MIN} to {MAX}{}", U::NAME)
    }

    fn shown(&self) -> Shown {
        Shown::Toml(self.value.to_string())
    }
}

impl Setting for bool {
    fn allowed() -> String {
        "true or false".into()
    }

    fn shown(&self) -> Shown {
        Shown::Toml(self.to_string())
    }
}

impl Setting for String {
    fn allowed() -> String {
        "text".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(self)
    }
}

impl Setting for PathBuf {
    fn allowed() -> String {
        "a path".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(self.display())
    }
}

impl Setting for Secret {
    fn allowed() -> String {
        "a secret, from the environment only".into()
    }

    fn shown(&self) -> Shown {
        Shown::Hidden
    }
}

impl<T: Setting> Setting for Option<T> {
    fn allowed() -> String {
        format!("{}; may be left out", T::allowed())
    }

    fn shown(&self) -> Shown {
        match self {
            Some(value) => value.shown(),
            None => Shown::Unset,
        }
    }
}

impl Shown {
    /// Text, quoted; JSON's escapes are TOML's too.
    pub fn text(text: impl fmt::Display) -> Shown {
        Shown::Toml(serde_json::Value::from(text.to_string()).to_string())
    }
}
