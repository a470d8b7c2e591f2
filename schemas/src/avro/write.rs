//! Writes the primitives of Avro binary. Source: Apache Avro 1.12 specification, "Binary Encoding".

use crate::event::{Decimal6, Pairs};

/// Writes a number in zig-zag encoding, seven bits per byte, least significant first.
pub fn long(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

pub fn text(bytes: &mut Vec<u8>, value: &str) {
    long(bytes, value.len() as i64);
    bytes.extend_from_slice(value.as_bytes());
}

/// Writes one block with all entries, then the empty block.
pub fn map(bytes: &mut Vec<u8>, pairs: &Pairs<'_>) {
    if !pairs.is_empty() {
        long(bytes, pairs.len() as i64);
        for (name, value) in pairs.iter() {
            text(bytes, name);
            text(bytes, value);
        }
    }
    long(bytes, 0);
}

/// Writes the unscaled number in big-endian two's complement, in as few bytes as possible.
pub fn decimal(bytes: &mut Vec<u8>, value: Decimal6) {
    let all = value.millionths().to_be_bytes();
    let redundant = |at: usize| {
        let sign = if all[at + 1] & 0x80 == 0 { 0x00 } else { 0xFF };
        all[at] == sign
    };
    let start = (0..7).find(|&at| !redundant(at)).unwrap_or(7);
    long(bytes, (8 - start) as i64);
    bytes.extend_from_slice(&all[start..]);
}
