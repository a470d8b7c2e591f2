//! Quotes strings and names for SQL. Knows no statement but SET's assignments and USE.

/// A string or an identifier, depending on `quote`, whose value is exactly `text`.
pub fn quote(text: &str, quote: u8) -> Vec<u8> {
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

/// `name = 'value'`. The name has only letters, digits, `_` and `.`.
pub fn assignment(name: &str, value: &str) -> Vec<u8> {
    [name.as_bytes(), b" = ", &quote(value, b'\'')].concat()
}

/// `USE database`.
pub fn use_database(database: &str) -> Vec<u8> {
    [b"USE ".as_slice(), &quote(database, b'`')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_end_its_literal() {
        assert_eq!(quote("a'b\\c", b'\''), b"'a\\'b\\\\c'");
        assert_eq!(use_database("d`; DROP"), b"USE `d\\`; DROP`");
        assert_eq!(assignment("log_comment", "x' , y = '1"), b"log_comment = 'x\\' , y = \\'1'");
    }
}
