//! Texts and names as parts of SQL.

/// A literal or identifier, by its quote, that means exactly `text`.
pub fn quoted(text: &str, quote: u8) -> Vec<u8> {
    let mut literal = vec![quote];
    for &byte in text.as_bytes() {
        if byte == quote || byte == b'\\' {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    literal.push(quote);
    literal
}

/// `name = 'value'`. The name has letters, digits, `_` and `.` alone.
pub fn assignment(name: &str, value: &str) -> Vec<u8> {
    [name.as_bytes(), b" = ", &quoted(value, b'\'')].concat()
}

/// Makes `database` the current one.
pub fn use_database(database: &str) -> Vec<u8> {
    [b"USE ".as_slice(), &quoted(database, b'`')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(quoted("a'b\\c", b'\''), b"'a\\'b\\\\c'");
        assert_eq!(use_database("d`; DROP"), b"USE `d\\`; DROP`");
        assert_eq!(assignment("log_comment", "x' , y = '1"), b"log_comment = 'x\\' , y = \\'1'");
    }
}
