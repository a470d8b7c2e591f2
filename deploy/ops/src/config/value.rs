//! Types for single settings. Each has a unit and bounds and checks them when it is read. It can also describe
//! them, so that errors and documentation come from the same declaration.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};

/// Milliseconds from `MIN` to `MAX`.
pub type Millis<const MIN: u64, const MAX: u64> = Bounded<unit::Milliseconds, MIN, MAX>;
/// Bytes from `MIN` to `MAX`.
pub type Bytes<const MIN: u64, const MAX: u64> = Bounded<unit::Bytes, MIN, MAX>;
/// A count from `MIN` to `MAX`; the name of the field says what is counted.
pub type Count<const MIN: u64, const MAX: u64> = Bounded<unit::Items, MIN, MAX>;

/// A whole number of some unit, from `MIN` to `MAX` inclusive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bounded<U, const MIN: u64, const MAX: u64> {
    value: u64,
    unit: PhantomData<U>,
}

/// The units of [`Bounded`].
pub mod unit {
    /// The name of a unit after a number.
    pub trait Unit {
        /// For example `" milliseconds"`; empty if the name of the field says it.
        const NAME: &'static str;
    }

    /// Thousandths of a second.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Milliseconds;
    /// Octets.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Bytes;
    /// Countable items.
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
    /// Creates a value that is known when the program is written, such as a default.
    ///
    /// # Panics
    /// If the value is out of bounds; in a `const` that is an error at compile time.
    pub const fn of(value: u64) -> Self {
        assert!(MIN <= value && value <= MAX, "out of the setting's bounds");
        Bounded { value, unit: PhantomData }
    }

    /// The number in the field's unit.
    pub const fn get(self) -> u64 {
        self.value
    }

    /// The number as a size or a length.
    ///
    /// # Panics
    /// If the number does not fit a `usize`; never on the 64-bit targets that we build for.
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

/// A value that is never printed or logged: `Debug` masks it and there is no `Display`. It comes from the
/// environment or from a file of its own, never from the configuration file, and has 1 to 65,536 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The type name by which the deserializer recognizes a secret.
pub(super) const SECRET: &str = "ops::Secret";
/// The largest secret in bytes: room for a certificate chain.
const SECRET_BYTES_MAX: usize = 65_536;

impl Secret {
    /// The value. Pass it only to the code that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Checks the length of a secret; the error does not contain the secret.
    pub fn new(text: String) -> Result<Secret, String> {
        if text.is_empty() || text.len() > SECRET_BYTES_MAX {
            return Err(format!(
                "{} bytes where a secret of 1 to {SECRET_BYTES_MAX} bytes is expected",
                text.len()
            ));
        }
        Ok(Secret(text))
    }

    /// Reads a secret from its file, without one line break at the end.
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

    /// Returns the secret of a pair of settings `x` and `x_file`, if either is set.
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

/// A type that can be a setting. It describes the allowed values and renders its own.
pub trait Setting {
    /// Returns the allowed values as a noun phrase with unit and bounds.
    fn allowed() -> String;

    /// Returns the value as it would be written in the configuration file.
    fn shown(&self) -> Shown;
}

/// The rendered value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The value as TOML.
    Toml(String),
    /// A secret that is set and not printed.
    Hidden,
    /// The setting is left out.
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
    /// Quotes a text. TOML has the same escapes as JSON.
    pub fn text(text: impl fmt::Display) -> Shown {
        Shown::Toml(serde_json::Value::from(text.to_string()).to_string())
    }
}
