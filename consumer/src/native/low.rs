//! LowCardinality columns: each text once, and for every row which one it is. Made here rather than by the
//! server, since most texts of a batch are the same few, and one comparison finds them.

use std::collections::HashMap;

use super::{Column, Texts};

/// The form of the dictionary: one that comes with the block.
const ADDITIONAL_KEYS: u64 = 1;
/// The block brings its keys, and they are new.
const HAS_KEYS: u64 = 1 << 9;
const IS_NEW: u64 = 1 << 10;

/// Texts of up to this many bytes are compared as one number.
const SHORT_BYTES_MAX: usize = 16;
const REMEMBERED: usize = 64;

/// A column of texts of which most are the same few.
pub struct LowTexts {
    keys: Texts,
    places: HashMap<Box<str>, u32>,
    rows: Vec<u32>,
    /// Short texts met lately, at the place that their bytes lead to.
    lately: Box<[Option<(u128, u8, u32)>; REMEMBERED]>,
}

impl Default for LowTexts {
    fn default() -> LowTexts {
        LowTexts {
            keys: Texts::default(),
            places: HashMap::new(),
            rows: Vec::new(),
            lately: Box::new([None; REMEMBERED]),
        }
    }
}

impl LowTexts {
    pub fn push(&mut self, value: &str) {
        if value.len() > SHORT_BYTES_MAX {
            let place = self.place(value);
            self.rows.push(place);
            return;
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..value.len()].copy_from_slice(value.as_bytes());
        let number = u128::from_le_bytes(bytes);
        let length = value.len() as u8;
        let mixed = ((number as u64) ^ (number >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (mixed >> 58) as usize;
        let place = match self.lately[at] {
            Some((known, known_length, place)) if known == number && known_length == length => place,
            _ => {
                let place = self.place(value);
                self.lately[at] = Some((number, length, place));
                place
            }
        };
        self.rows.push(place);
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
    pub(super) fn write_rows(&self, out: &mut Vec<u8>) {
        if self.rows.is_empty() {
            return;
        }
        let (width, write): (u64, fn(&mut Vec<u8>, u32)) = match self.places.len() {
            0..=0x100 => (0, |out, place| out.push(place as u8)),
            0x101..=0x1_0000 => (1, |out, place| out.extend_from_slice(&(place as u16).to_le_bytes())),
            _ => (2, |out, place| out.extend_from_slice(&place.to_le_bytes())),
        };
        out.extend_from_slice(&(width | HAS_KEYS | IS_NEW).to_le_bytes());
        out.extend_from_slice(&(self.places.len() as u64).to_le_bytes());
        self.keys.write(out);
        out.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        for place in &self.rows {
            write(out, *place);
        }
    }
}

impl Column for LowTexts {
    fn write(&self, out: &mut Vec<u8>) {
        LowTexts::write_head(out);
        self.write_rows(out);
    }

    fn byte_count(&self) -> usize {
        self.keys.byte_count() + 4 * self.rows.len() + 32
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
        column.write(&mut out);
        out
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
