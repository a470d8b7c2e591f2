//! Texts that are compared with every evaluation: the operands of conditions, and keys. Most are
//! short, and for those a call to the system's comparison costs more than the comparison; so each carries its ends as
//! numbers. It does not know what a text is for.

use std::cmp::Ordering;

/// Texts up to this length, in bytes, are known by their first end alone.
const ONE_END_MAX: usize = 8;
/// Texts up to this length, in bytes, are known by both their ends.
const TWO_ENDS_MAX: usize = 16;

/// The length of a text and its first and last bytes. Two texts that differ in one of them are different; if they do not,
/// and are not longer than [`TWO_ENDS_MAX`], they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    pub(crate) bytes: usize,
    /// The whole text, up to [`ONE_END_MAX`].
    pub(crate) first: u64,
    /// 0 up to [`ONE_END_MAX`].
    pub(crate) last: u64,
}

impl Ends {
    #[inline(always)]
    pub(crate) fn of(text: &str) -> Ends {
        let text = text.as_bytes();
        let bytes = text.len();
        if bytes > ONE_END_MAX {
            Ends { bytes, first: eight(&text[..8]), last: eight(&text[bytes - 8..]) }
        } else {
            Ends { bytes, first: one_end(text), last: 0 }
        }
    }

    /// Returns whether no other text has these ends.
    #[inline]
    pub(crate) fn are_all(self) -> bool {
        self.bytes <= TWO_ENDS_MAX
    }
}

/// Returns all of a text of at most [`ONE_END_MAX`] bytes. The parts that are read overlap where it is shorter.
#[inline(always)]
fn one_end(text: &[u8]) -> u64 {
    let bytes = text.len();
    if bytes >= 4 {
        four(&text[..4]) | four(&text[bytes - 4..]) << 32
    } else if bytes > 0 {
        u64::from(text[0]) | u64::from(text[bytes / 2]) << 8 | u64::from(text[bytes - 1]) << 16
    } else {
        0
    }
}

#[inline]
fn eight(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("they are eight"))
}

#[inline]
fn four(bytes: &[u8]) -> u64 {
    u32::from_le_bytes(bytes.try_into().expect("they are four")).into()
}

/// A text with its ends.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    ends: Ends,
    text: Box<str>,
}

impl Text {
    pub(crate) fn of(text: &str) -> Text {
        Text { ends: Ends::of(text), text: text.into() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether it is `other`.
    #[inline(always)]
    pub(crate) fn is(&self, other: &str) -> bool {
        // The length decides most often, and spares the ends of the other.
        if self.ends.bytes != other.len() {
            return false;
        }
        if other.len() <= ONE_END_MAX {
            return self.ends.first == one_end(other.as_bytes());
        }
        self.has(Ends::of(other), other)
    }

    /// As [`Text::is`], of a text whose ends are known.
    #[inline]
    pub(crate) fn has(&self, ends: Ends, other: &str) -> bool {
        self.ends == ends && (ends.are_all() || *self.text == *other)
    }

    /// The place of this text beside another one, in some order of all texts.
    pub(crate) fn compare(&self, ends: Ends, other: &str) -> Ordering {
        self.ends
            .cmp(&ends)
            .then_with(|| if ends.are_all() { Ordering::Equal } else { (*self.text).cmp(other) })
    }

    pub(crate) fn ends(&self) -> Ends {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_differ_from_those_with_another_byte() {
        for length in 0..40 {
            let text: String = ('A'..).take(length).collect();
            let own = Text::of(&text);
            assert!(own.is(&text), "{text}");
            assert!(!own.is(&format!("{text}~")), "{text}");
            for at in 0..length {
                let mut other = text.clone();
                other.replace_range(at..=at, "~");
                assert!(!own.is(&other), "{text} {other}");
                assert_eq!(
                    own.compare(Ends::of(&other), &other),
                    Text::of(&other).compare(Ends::of(&text), &text).reverse(),
                    "{text} {other}"
                );
            }
        }
    }
}
