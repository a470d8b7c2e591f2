//! ClickHouse's Native format, written: a block of columns that carries its own row count, so that a body
//! cut anywhere is refused as a whole. Columns are filled value by value; writing empties them, and they keep
//! their room to be filled again.
//! Enum columns are sent as the plain numbers that they are made of; the server converts.

use uuid::Uuid;

pub use low::LowTexts;

mod low;

/// Fixed-width values, little-endian.
#[derive(Default)]
pub struct Fixed {
    bytes: Vec<u8>,
}

impl Fixed {
    pub fn push<const N: usize>(&mut self, value: [u8; N]) {
        self.bytes.extend_from_slice(&value);
    }

    /// The values so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// UUIDs: two little-endian halves, the high one first.
#[derive(Default)]
pub struct Uuids {
    bytes: Vec<u8>,
}

impl Uuids {
    pub fn push(&mut self, value: Uuid) {
        let (high, low) = value.as_u64_pair();
        self.bytes.extend_from_slice(&high.to_le_bytes());
        self.bytes.extend_from_slice(&low.to_le_bytes());
    }
}

/// Fixed-width values that may be absent.
#[derive(Default)]
pub struct Optional {
    absent: Vec<u8>,
    bytes: Vec<u8>,
}

impl Optional {
    pub fn push<const N: usize>(&mut self, value: Option<[u8; N]>) {
        self.absent.push(u8::from(value.is_none()));
        self.bytes.extend_from_slice(&value.unwrap_or([0; N]));
    }
}

/// Texts, each with its length before it.
#[derive(Default)]
pub struct Texts {
    bytes: Vec<u8>,
}

impl Texts {
    pub fn push(&mut self, value: &str) {
        match short(value.as_bytes()) {
            // Sixteen bytes whatever the length is, and what is too much taken off again.
            Some(number) => {
                let end = self.bytes.len() + 1 + value.len();
                self.bytes.extend_from_slice(&(number << 8 | value.len() as u128).to_le_bytes());
                self.bytes.truncate(end);
            }
            None => {
                varint(&mut self.bytes, value.len() as u64);
                self.bytes.extend_from_slice(value.as_bytes());
            }
        }
    }
}

/// A text of at most 15 bytes as a number, its first byte the lowest.
fn short(bytes: &[u8]) -> Option<u128> {
    fn number<const N: usize>(bytes: &[u8]) -> u128 {
        let mut wide = [0; 16];
        wide[..N].copy_from_slice(&bytes[..N]);
        u128::from_le_bytes(wide)
    }
    let length = bytes.len();
    // Two pieces of a fixed size that overlap, rather than a loop over so many bytes.
    Some(match length {
        16.. => return None,
        8.. => number::<8>(bytes) | number::<8>(&bytes[length - 8..]) << (8 * (length - 8)),
        4.. => number::<4>(bytes) | number::<4>(&bytes[length - 4..]) << (8 * (length - 4)),
        2.. => number::<2>(bytes) | number::<2>(&bytes[length - 2..]) << (8 * (length - 2)),
        1 => u128::from(bytes[0]),
        0 => 0,
    })
}

/// Maps of text to text, the names of low cardinality: where each ends, then all names, then all values.
#[derive(Default)]
pub struct Maps {
    ends: Vec<u8>,
    entries: u64,
    names: LowTexts,
    values: Texts,
}

impl Maps {
    pub fn push<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, value) in pairs {
            self.names.push(name);
            self.values.push(value);
            self.entries += 1;
        }
        self.ends.extend_from_slice(&self.entries.to_le_bytes());
    }
}

/// Lists of 64-bit numbers: where each ends, then all numbers.
#[derive(Default)]
pub struct Lists {
    ends: Vec<u8>,
    numbers: Vec<u8>,
}

impl Lists {
    pub fn push(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.numbers.extend_from_slice(&number.to_le_bytes());
        }
        let end = (self.numbers.len() / size_of::<u64>()) as u64;
        self.ends.extend_from_slice(&end.to_le_bytes());
    }
}

/// The types of columns that are used more than once.
pub const LOW: &str = "LowCardinality(String)";
pub const MAP: &str = "Map(LowCardinality(String), String)";
pub const KEY: &str = "UInt64";
pub const KEYS: &str = "Array(UInt64)";

/// Something that can stand as a column's data.
pub trait Column {
    /// Writes the data and leaves the column empty.
    fn drain(&mut self, out: &mut Vec<u8>);
    /// Of the data, about.
    fn byte_count(&self) -> usize;
    /// Bytes of memory held, about.
    fn room(&self) -> usize;
}

impl Column for Fixed {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
    }

    fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    fn room(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Column for Uuids {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
    }

    fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    fn room(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Column for Optional {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.absent);
        out.append(&mut self.bytes);
    }

    fn byte_count(&self) -> usize {
        self.absent.len() + self.bytes.len()
    }

    fn room(&self) -> usize {
        self.absent.capacity() + self.bytes.capacity()
    }
}

impl Column for Texts {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
    }

    fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    fn room(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Column for Maps {
    fn drain(&mut self, out: &mut Vec<u8>) {
        LowTexts::write_head(out);
        out.append(&mut self.ends);
        self.entries = 0;
        self.names.drain_rows(out);
        self.values.drain(out);
    }

    fn byte_count(&self) -> usize {
        self.ends.len() + self.names.byte_count() + self.values.byte_count()
    }

    fn room(&self) -> usize {
        self.ends.capacity() + self.names.room() + self.values.room()
    }
}

impl Column for Lists {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.ends);
        out.append(&mut self.numbers);
    }

    fn byte_count(&self) -> usize {
        self.ends.len() + self.numbers.len()
    }

    fn room(&self) -> usize {
        self.ends.capacity() + self.numbers.capacity()
    }
}

/// The same value in every row of a block.
pub struct Repeated<const N: usize> {
    pub value: [u8; N],
    pub rows: usize,
}

impl<const N: usize> Column for Repeated<N> {
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.extend(std::iter::repeat_n(self.value, self.rows).flatten());
        self.rows = 0;
    }

    fn byte_count(&self) -> usize {
        N * self.rows
    }

    fn room(&self) -> usize {
        0
    }
}

/// A column as the block's header names it.
pub struct Named<'a> {
    pub name: &'static str,
    pub kind: &'static str,
    pub column: &'a mut dyn Column,
}

/// The block: how many columns and rows, then each column with its name and type. The columns are empty then.
pub fn block(rows: usize, columns: &mut [Named<'_>]) -> Vec<u8> {
    let bytes: usize = columns.iter().map(|named| named.column.byte_count() + 64).sum();
    let mut out = Vec::with_capacity(bytes + 16);
    varint(&mut out, columns.len() as u64);
    varint(&mut out, rows as u64);
    for named in columns {
        for text in [named.name, named.kind] {
            varint(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        named.column.drain(&mut out);
    }
    out
}

/// Seven bits a byte, least significant first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_two_rows_byte_by_byte() {
        let mut numbers = Optional::default();
        numbers.push(Some(7_u32.to_le_bytes()));
        numbers.push::<4>(None);
        let mut maps = Maps::default();
        maps.push([("k", "vw")].into_iter());
        maps.push(std::iter::empty());
        let columns = &mut [
            Named { name: "n", kind: "Nullable(UInt32)", column: &mut numbers },
            Named { name: "m", kind: MAP, column: &mut maps },
        ];
        let first = block(2, columns);
        let mut expected = vec![2, 2, 1, b'n', 16];
        expected.extend_from_slice(b"Nullable(UInt32)");
        expected.extend_from_slice(&[0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 1, b'm', 35]);
        expected.extend_from_slice(b"Map(LowCardinality(String), String)");
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 6, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'k']);
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 2, b'v', b'w']);
        assert_eq!(first, expected);
        // Empty again: what is written next has nothing of what was.
        let columns = &mut [
            Named { name: "n", kind: "Nullable(UInt32)", column: &mut numbers },
            Named { name: "m", kind: MAP, column: &mut maps },
        ];
        let mut expected = vec![2, 0, 1, b'n', 16];
        expected.extend_from_slice(b"Nullable(UInt32)");
        expected.extend_from_slice(&[1, b'm', 35]);
        expected.extend_from_slice(b"Map(LowCardinality(String), String)");
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block(0, columns), expected);
    }

    #[test]
    fn a_list_is_known_by_where_it_ends() {
        let mut lists = Lists::default();
        lists.push([1, 2].into_iter());
        lists.push(std::iter::empty());
        lists.push([3].into_iter());
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        lists.drain(&mut out);
        for number in [2_u64, 2, 3, 1, 2, 3] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(out, expected);
        // Empty again: the ends count from nothing.
        lists.push([4].into_iter());
        out.clear();
        lists.drain(&mut out);
        assert_eq!(out, [1_u64.to_le_bytes(), 4_u64.to_le_bytes()].concat());
    }

    /// A text is its length and its bytes, and nothing of another one is left behind it.
    #[test]
    fn texts_of_every_length_are_written_as_they_are() {
        let (mut column, mut expected) = (Texts::default(), Vec::new());
        for length in (0..40).chain([127, 128, 300]) {
            let text: String = (0..length).map(|at| char::from(b'A' + (at % 50) as u8)).collect();
            column.push(&text);
            varint(&mut expected, length);
            expected.extend_from_slice(text.as_bytes());
        }
        assert_eq!(column.bytes, expected);
    }

    #[test]
    fn a_repeated_value_stands_in_every_row() {
        let mut out = Vec::new();
        Repeated { value: [1, 2], rows: 3 }.drain(&mut out);
        assert_eq!(out, [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn a_uuid_is_two_little_endian_halves() {
        let mut uuids = Uuids::default();
        uuids.push(Uuid::from_u128(0x0102030405060708_090a0b0c0d0e0f10));
        assert_eq!(uuids.bytes, [8, 7, 6, 5, 4, 3, 2, 1, 16, 15, 14, 13, 12, 11, 10, 9]);
    }
}
