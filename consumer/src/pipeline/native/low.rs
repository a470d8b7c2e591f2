//! LowCardinality columns: each text once, and for every row which one it is. Made here rather than by the
//! server, since most texts of a batch are the same few, and one comparison finds them.

use std::collections::HashMap;

use super::{Column, Texts, short};

/// The form of the dictionary: one that comes with the block.
const ADDITIONAL_KEYS: u64 = 1;
/// The block brings its keys, and they are new.
const HAS_KEYS: u64 = 1 << 9;
const IS_NEW: u64 = 1 << 10;

/// What no short text is as a number.
const NOTHING: u128 = u128::MAX;
const REMEMBERED: usize = 64;

/// A column of texts of which most are the same few.
pub struct LowTexts {
    keys: Texts,
    places: HashMap<Box<str>, u32>,
    rows: Vec<u32>,
    /// The last row's text, if it was short, and its place.
    last: (u128, u32),
    /// Short texts met lately, where their bytes lead to, and their places.
    lately: Box<([u128; REMEMBERED], [u32; REMEMBERED])>,
}

impl Default for LowTexts {
    fn default() -> LowTexts {
        LowTexts {
            keys: Texts::default(),
            places: HashMap::new(),
            rows: Vec::new(),
            last: (NOTHING, 0),
            lately: Box::new(([NOTHING; REMEMBERED], [0; REMEMBERED])),
        }
    }
}

impl LowTexts {
    pub fn push(&mut self, value: &str) {
        let Some(number) = number(value.as_bytes()) else {
            let place = self.place(value);
            self.rows.push(place);
            return;
        };
        if self.last.0 != number {
            let mixed = ((number as u64) ^ (number >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let at = (mixed >> 58) as usize;
            if self.lately.0[at] != number {
                self.lately.1[at] = self.place(value);
                self.lately.0[at] = number;
            }
            self.last = (number, self.lately.1[at]);
        }
        self.rows.push(self.last.1);
    }

    fn place(&mut self, value: &str) -> u32 {
        if let Some(place) = self.places.get(value) {
            return *place;
        }
        let place = u32::try_from(self.places.len()).expect("a batch has fewer rows than that");
        self.places.insert(value.into(), place);
        self.keys.push(value);
        place
    }

    /// What stands before the data of a column, or of the column that this one is inside.
    pub(super) fn write_head(out: &mut Vec<u8>) {
        out.extend_from_slice(&ADDITIONAL_KEYS.to_le_bytes());
    }

    /// Nothing, if there is no row.
    pub(super) fn drain_rows(&mut self, out: &mut Vec<u8>) {
        if self.rows.is_empty() {
            return;
        }
        let keys = self.places.len();
        let width: u64 = match keys {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        out.extend_from_slice(&(width | HAS_KEYS | IS_NEW).to_le_bytes());
        out.extend_from_slice(&(keys as u64).to_le_bytes());
        self.keys.drain(out);
        out.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        match width {
            0 => out.extend(self.rows.iter().map(|place| *place as u8)),
            1 => out.extend(self.rows.iter().flat_map(|place| (*place as u16).to_le_bytes())),
            _ => out.extend(self.rows.iter().flat_map(|place| place.to_le_bytes())),
        }
        self.rows.clear();
        self.places.clear();
        self.last = (NOTHING, 0);
        self.lately.0.fill(NOTHING);
    }
}

/// A text of at most 15 bytes as a number that no other text has: its length stands in the last byte.
fn number(bytes: &[u8]) -> Option<u128> {
    Some(short(bytes)? | (bytes.len() as u128) << 120)
}

impl Column for LowTexts {
    fn drain(&mut self, out: &mut Vec<u8>) {
        LowTexts::write_head(out);
        self.drain_rows(out);
    }

    fn byte_count(&self) -> usize {
        self.keys.byte_count() + 4 * self.rows.len() + 32
    }

    fn room(&self) -> usize {
        // A key's text stands twice, once in a box of its own.
        2 * self.keys.room()
            + 4 * self.rows.capacity()
            + 64 * self.places.capacity()
            + size_of_val(&*self.lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: impl IntoIterator<Item = String>) -> Vec<u8> {
        let mut column = LowTexts::default();
        for value in values {
            column.push(&value);
        }
        let mut out = Vec::new();
        column.drain(&mut out);
        out
    }

    /// Every text of up to 15 bytes that differs from another in one byte or in its length is another number.
    #[test]
    fn short_texts_are_numbers_of_their_own() {
        let mut seen = HashMap::new();
        for length in 0..=15 {
            let plain = vec![0; length];
            let changed = (0..length).map(|at| {
                let mut bytes = plain.clone();
                bytes[at] = 1 + at as u8;
                bytes
            });
            for bytes in changed.chain([plain.clone()]) {
                let other = seen.insert(number(&bytes), bytes.clone());
                assert_eq!(other, None, "{bytes:?}");
                assert_ne!(number(&bytes).unwrap(), NOTHING);
            }
        }
        assert_eq!(seen.len(), 16 + 15 * 16 / 2);
    }

    #[test]
    fn a_column_that_was_written_begins_anew() {
        let mut column = LowTexts::default();
        let texts = ["a", "b", "b"];
        texts.iter().for_each(|text| column.push(text));
        let mut first = Vec::new();
        column.drain(&mut first);
        let mut second = Vec::new();
        texts.iter().for_each(|text| column.push(text));
        column.drain(&mut second);
        assert_eq!(first, second);
    }

    #[test]
    fn each_text_stands_once_and_every_row_says_which() {
        let long = "a text of more than sixteen bytes";
        let values = ["b", "", long, "b", "b\0", long].map(str::to_owned);
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[0, 6, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[1, b'b', 0, 33]);
        expected.extend_from_slice(long.as_bytes());
        expected.extend_from_slice(&[2, b'b', 0]);
        expected.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 1, 2, 0, 3, 2]);
        assert_eq!(written(values), expected);
    }

    #[test]
    fn places_are_as_wide_as_they_must_be() {
        let widths: Vec<u8> = [256, 257, 65_536, 65_537]
            .map(|count: u32| written((0..count).map(|number| number.to_string()))[8])
            .to_vec();
        assert_eq!(widths, [0, 1, 1, 2]);
    }
}
