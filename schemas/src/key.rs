//! Keys: the names of flags, experiments, variants, layers, metrics, lists, unit types and events. A key is
//! safe in a URL, in a topic key and in a metric's label, and does not contain the separator that salts use.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64;

/// A name that matches `[A-Za-z0-9._-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// Why a text is not a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct NotAKey {
    pub text: String,
}

impl Key {
    pub fn new(text: impl Into<String>) -> Result<Key, NotAKey> {
        let text = text.into();
        if is_key(&text) { Ok(Key(text)) } else { Err(NotAKey { text }) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether `text` is a valid [`Key`].
pub fn is_key(text: &str) -> bool {
    // The fold does not stop at the first invalid byte, because invalid bytes are rare.
    !text.is_empty()
        && text.len() <= KEY_BYTES_MAX
        && text.bytes().fold(true, |all, byte| all & IN_A_KEY[usize::from(byte)])
}

/// Which bytes a key may contain. A table, because every byte of about ten keys per event is checked.
const IN_A_KEY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        byte += 1;
    }
    table
};

impl TryFrom<String> for Key {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Key, NotAKey> {
        Key::new(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_and_both_ends_of_the_length() {
        assert!(is_key("a"));
        assert!(is_key("Checkout-2.button_color"));
        assert!(is_key(&"k".repeat(64)));
        assert!(!is_key(&"k".repeat(65)));
        assert!(!is_key(""));
        for refused in ["a b", "a/b", "é", "a\n", "a:b", "a%"] {
            assert!(!is_key(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_refused_key_says_why() {
        let refused = Key::new("a/b").unwrap_err();
        assert_eq!(refused.to_string(), "`a/b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -");
    }
}
