//! Reads the primitives of Avro binary from untrusted bytes: every length is checked before it is used.
//! Source: Apache Avro 1.12 specification, "Binary Encoding".

use uuid::Uuid;

use super::DecodeError;
use crate::event::{Decimal6, MAP_ENTRIES_MAX, Pairs};

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at }
    }

    /// The position of the next byte in the message.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub fn long(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        // Most lengths and counts have one byte.
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(unzigzag(byte.into()))
            }
            _ => self.long_of_many_bytes(field),
        }
    }

    fn long_of_many_bytes(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let mut value: u64 = 0;
        for (index, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                if index == 9 && byte > 1 {
                    return Err(self.malformed(field, "the number does not fit 64 bits"));
                }
                self.at += index + 1;
                return Ok(unzigzag(value));
            }
        }
        if self.remaining() < 10 {
            return Err(self.truncated(field));
        }
        Err(self.malformed(field, "the number has more than ten bytes"))
    }

    pub fn int(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        let start = self.at;
        let value = self.long(field)?;
        i32::try_from(value).map_err(|_| DecodeError::Malformed {
            field,
            what: "the number does not fit 32 bits",
            at: start,
        })
    }

    /// Reads `size` bytes that have no length before them.
    #[inline]
    pub fn fixed(&mut self, field: &'static str, size: usize) -> Result<&'a [u8], DecodeError> {
        if size > self.remaining() {
            return Err(self.truncated(field));
        }
        let bytes = &self.bytes[self.at..self.at + size];
        self.at += size;
        Ok(bytes)
    }

    #[inline]
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        let length = self.long(field)?;
        if length < 0 {
            return Err(DecodeError::Malformed { field, what: "negative", at: start });
        }
        self.fixed(field, usize::try_from(length).unwrap_or(usize::MAX))
    }

    #[inline]
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let start = self.at;
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed { field, what: "not UTF-8", at: start })
    }

    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        let text = self.bytes(field)?;
        Uuid::try_parse_ascii(text).map_err(|_| self.malformed(field, "not a UUID"))
    }

    /// Reads the index of a union's branch, which must be below `branches`.
    #[inline]
    pub fn branch(&mut self, field: &'static str, branches: i64) -> Result<i64, DecodeError> {
        let start = self.at;
        let branch = self.long(field)?;
        if (0..branches).contains(&branch) {
            Ok(branch)
        } else {
            Err(DecodeError::Malformed { field, what: "no such branch of the union", at: start })
        }
    }

    /// Reads the number of entries or items in the next block of a map or an array; 0 at the end.
    #[inline]
    pub fn block(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let start = self.at;
        let count = self.long(field)?;
        if count >= 0 {
            return Ok(count);
        }
        // A negative count is followed by the block's size in bytes, which is not needed.
        self.long(field)?;
        count.checked_neg().ok_or(DecodeError::Malformed { field, what: "impossible count", at: start })
    }

    pub fn map(&mut self, field: &'static str) -> Result<Pairs<'a>, DecodeError> {
        let mut pairs = Pairs::default();
        let mut entries: i64 = 0;
        loop {
            let start = self.at;
            let count = self.block(field)?;
            if count == 0 {
                return Ok(pairs);
            }
            entries = entries.saturating_add(count);
            if entries > MAP_ENTRIES_MAX as i64 {
                return Err(DecodeError::Malformed { field, what: "more than 64 entries", at: start });
            }
            pairs.reserve(count as usize);
            for _ in 0..count {
                let name = self.text(field)?;
                let value = self.text(field)?;
                pairs.insert(name, value);
            }
        }
    }

    pub fn decimal(&mut self, field: &'static str) -> Result<Decimal6, DecodeError> {
        let start = self.at;
        let bytes = self.bytes(field)?;
        let too_large = DecodeError::Malformed { field, what: "more than 18 digits", at: start };
        if bytes.is_empty() {
            return Err(DecodeError::Malformed { field, what: "a number of no bytes", at: start });
        }
        if bytes.len() > 16 {
            return Err(too_large);
        }
        let mut wide = [if bytes[0] & 0x80 == 0 { 0x00 } else { 0xFF }; 16];
        wide[16 - bytes.len()..].copy_from_slice(bytes);
        let Ok(millionths) = i64::try_from(i128::from_be_bytes(wide)) else {
            return Err(too_large);
        };
        Decimal6::from_millionths(millionths).map_err(|_| too_large)
    }

    #[cold]
    pub fn malformed(&self, field: &'static str, what: &'static str) -> DecodeError {
        DecodeError::Malformed { field, what, at: self.at }
    }

    #[cold]
    fn truncated(&self, field: &'static str) -> DecodeError {
        DecodeError::Truncated { field, at: self.at }
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
