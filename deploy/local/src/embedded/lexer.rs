//! Splits ClickHouse SQL into tokens, as far as telling statements apart needs it: what is quoted, what
//! is a comment, what is a word. Works on bytes, since an INSERT's rows may follow in the same text.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a bare identifier.
    Word,
    /// "a" or `a`.
    Identifier,
    /// 'a' or $tag$a$tag$.
    Text,
    Number,
    /// One byte of anything else.
    Mark(u8),
    /// A quote or comment that the text ends inside of.
    Unfinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'sql> {
    pub kind: Kind,
    pub text: &'sql [u8],
    /// The byte that the token starts at.
    pub at: usize,
}

impl Token<'_> {
    /// Whether this is the keyword, given in upper case.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    pub fn is_mark(&self, mark: u8) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// The tokens of `sql` from byte `from`; blanks and comments are left out.
pub fn tokens(sql: &[u8], from: usize) -> Tokens<'_> {
    Tokens { sql, at: from }
}

pub struct Tokens<'sql> {
    sql: &'sql [u8],
    at: usize,
}

impl<'sql> Iterator for Tokens<'sql> {
    type Item = Token<'sql>;

    fn next(&mut self) -> Option<Token<'sql>> {
        loop {
            let rest = &self.sql[self.at..];
            let first = *rest.first()?;
            let blank = match first {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => Some(1),
                b'-' if rest.starts_with(b"--") => Some(line(rest)),
                b'#' if rest.starts_with(b"# ") || rest.starts_with(b"#!") => Some(line(rest)),
                b'/' if rest.starts_with(b"/*") => match find(&rest[2..], b"*/") {
                    Some(inside) => Some(inside + 4),
                    None => return Some(self.take(Kind::Unfinished, rest.len())),
                },
                _ => None,
            };
            match blank {
                Some(length) => self.at += length,
                None => break,
            }
        }
        let rest = &self.sql[self.at..];
        let first = *rest.first()?;
        let token = match first {
            b'\'' => self.quoted(rest, Kind::Text),
            b'"' | b'`' => self.quoted(rest, Kind::Identifier),
            b'$' => match heredoc(rest) {
                Some(length) => self.take(Kind::Text, length),
                None => self.take(Kind::Mark(first), 1),
            },
            b'0'..=b'9' => self.take(Kind::Number, word(rest)),
            _ if is_word(first) => self.take(Kind::Word, word(rest)),
            _ => self.take(Kind::Mark(first), 1),
        };
        Some(token)
    }
}

impl<'sql> Tokens<'sql> {
    fn take(&mut self, kind: Kind, length: usize) -> Token<'sql> {
        let token = Token { kind, text: &self.sql[self.at..self.at + length], at: self.at };
        self.at += length;
        token
    }

    /// A quoted token: a backslash escapes, a doubled quote stands for itself.
    fn quoted(&mut self, rest: &'sql [u8], kind: Kind) -> Token<'sql> {
        let quote = rest[0];
        let mut at = 1;
        while at < rest.len() {
            match rest[at] {
                b'\\' => at += 2,
                byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
                byte if byte == quote => return self.take(kind, at + 1),
                _ => at += 1,
            }
        }
        self.take(Kind::Unfinished, rest.len())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn word(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len())
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
}

/// The length of a heredoc that `rest` starts with, if it is one and ends.
fn heredoc(rest: &[u8]) -> Option<usize> {
    let tag = 1 + word(&rest[1..]) + 1;
    if rest.get(tag - 1) != Some(&b'$') {
        return None;
    }
    let inside = find(&rest[tag..], &rest[..tag])?;
    Some(tag + inside + tag)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        tokens(sql.as_bytes(), 0).map(|token| String::from_utf8_lossy(token.text).into_owned()).collect()
    }

    #[test]
    fn splits_words_quotes_and_marks() {
        assert_eq!(
            texts("SELECT a.b, 'it''s; \\' x', `q``r`, 1.5 -- end; \nFROM t /* ; */;"),
            [
                "SELECT",
                "a",
                ".",
                "b",
                ",",
                "'it''s; \\' x'",
                ",",
                "`q``r`",
                ",",
                "1",
                ".",
                "5",
                "FROM",
                "t",
                ";"
            ]
        );
        assert_eq!(texts("$x$ a ; $y$ $x$ b"), ["$x$ a ; $y$ $x$", "b"]);
        assert_eq!(texts("# note\n#!sh\na"), ["a"]);
    }

    #[test]
    fn says_what_is_unfinished() {
        for sql in ["'a", "'a\\'", "`a", "/* a"] {
            let kinds: Vec<Kind> = tokens(sql.as_bytes(), 0).map(|token| token.kind).collect();
            assert_eq!(kinds, [Kind::Unfinished], "{sql}");
        }
    }
}
