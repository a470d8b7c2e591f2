//! Decodes the text of files: UTF-8, with or without a byte order mark. A file in another encoding is refused
//! with the name of the encoding and the way to convert it.

/// The bytes that some editors put before a text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The reason why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUtf8 {
    #[error("the text is {0}, not UTF-8; save it as UTF-8, or convert it with `iconv -f {0} -t UTF-8`")]
    Other(&'static str),
    /// A replay unpacks a file only if its name ends in .gz.
    #[error("it is compressed with gzip; unpack it first")]
    Gzip,
    #[error("line {line} is not UTF-8: byte {byte:#04x} is no part of a character; save the text as UTF-8")]
    Byte { line: usize, byte: u8 },
}

/// Decodes the bytes of a whole file, without the byte order mark.
pub fn decode_file(bytes: &[u8]) -> Result<&str, NotUtf8> {
    check_encoding(bytes)?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        NotUtf8::Byte { line, byte: rest[0] }
    })
}

/// Returns an error if the beginning of a file shows another encoding than UTF-8. Four bytes are enough,
/// because our files begin with ASCII: RFC 4627, section 3.
pub(crate) fn check_encoding(bytes: &[u8]) -> Result<(), NotUtf8> {
    let other = match bytes {
        [0x1f, 0x8b, ..] => return Err(NotUtf8::Gzip),
        [0xff, 0xfe, 0, 0, ..] | [_, 0, 0, 0, ..] => "UTF-32LE",
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => "UTF-32BE",
        [0xff, 0xfe, ..] | [1..=u8::MAX, 0, ..] => "UTF-16LE",
        [0xfe, 0xff, ..] | [0, 1..=u8::MAX, ..] => "UTF-16BE",
        _ => return Ok(()),
    };
    Err(NotUtf8::Other(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(decode_file(b"\xef\xbb\xbfkind: layer\r\n"), Ok("kind: layer\r\n"));
        assert_eq!(decode_file(b"kind: layer"), Ok("kind: layer"));
        assert_eq!(decode_file(b"\xef\xbb\xbf"), Ok(""));
        assert_eq!(decode_file(b""), Ok(""));
        assert_eq!(decode_file("é".as_bytes()), Ok("é"));
    }

    #[test]
    fn another_encoding_is_named() {
        let utf16 =
            |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for text in ["\u{feff}{}", "{}", "kind: layer"] {
            assert_eq!(
                decode_file(&utf16(text, u16::to_le_bytes)),
                Err(NotUtf8::Other("UTF-16LE")),
                "{text}"
            );
            assert_eq!(
                decode_file(&utf16(text, u16::to_be_bytes)),
                Err(NotUtf8::Other("UTF-16BE")),
                "{text}"
            );
        }
        let utf32 = |text: &str, bytes: fn(u32) -> [u8; 4]| {
            text.chars().flat_map(|character| bytes(u32::from(character))).collect::<Vec<u8>>()
        };
        for text in ["\u{feff}{}", "{}"] {
            assert_eq!(
                decode_file(&utf32(text, u32::to_le_bytes)),
                Err(NotUtf8::Other("UTF-32LE")),
                "{text}"
            );
            assert_eq!(
                decode_file(&utf32(text, u32::to_be_bytes)),
                Err(NotUtf8::Other("UTF-32BE")),
                "{text}"
            );
        }
        assert_eq!(decode_file(b"\x1f\x8b\x08\x00"), Err(NotUtf8::Gzip));
        assert_eq!(decode_file(b"kind: layer\nowner: caf\xe9\n"), Err(NotUtf8::Byte { line: 2, byte: 0xe9 }));
        assert_eq!(
            decode_file(b"\xff\xfek\x00").unwrap_err().to_string(),
            "the text is UTF-16LE, not UTF-8; save it as UTF-8, or convert it with `iconv -f UTF-16LE -t UTF-8`"
        );
    }
}
