//! Splits ClickHouse SQL into tokens exactly as the engine's own lexer does: quoted strings, comments, words.
//! Works on bytes, since an INSERT's rows may follow in the same text. Knows no statement.
//!
//! If the two differed, a text could mean one thing here and another in the engine. tests/lexer.rs compares
//! them (the engine shows its own tokens with `tokenizeQuery`).

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a bare identifier.
    Word,
    /// "a", `a` or “a”.
    Identifier,
    /// 'a', ‘a’, $tag$a$tag$, x'61' or b'01100001'.
    String,
    Number,
    /// Punctuation of one byte.
    Punctuation(u8),
    /// An operator of several bytes, or bytes that are no token for the engine.
    Other,
    /// A quoted token or a comment without its end.
    Unfinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'sql> {
    pub kind: Kind,
    pub text: &'sql [u8],
    /// The position of the token's first byte.
    pub at: usize,
}

impl<'sql> Token<'sql> {
    /// Returns whether this is the keyword, given in upper case.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    pub fn is_punctuation(&self, mark: u8) -> bool {
        self.kind == Kind::Punctuation(mark)
    }

    pub fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// The name that a word or a quoted identifier denotes; `None` for any other token.
    pub fn name(&self) -> Option<Cow<'sql, [u8]>> {
        match self.kind {
            Kind::Word => Some(Cow::Borrowed(self.text)),
            Kind::Identifier => Some(Cow::Owned(unquoted(self.text))),
            _ => None,
        }
    }

    /// The value of a string or a quoted identifier, without its quotes and escapes.
    pub fn unescaped(&self) -> Vec<u8> {
        match self.text[0] {
            b'$' => {}
            b'x' | b'X' => return bytes_of(&self.text[2..self.text.len() - 1], 16),
            b'b' | b'B' => return bytes_of(&self.text[2..self.text.len() - 1], 2),
            _ => return unquoted(self.text),
        }
        // A heredoc: the same tag on both sides, without escapes.
        let tag = self.text[1..].iter().position(|&byte| byte == b'$').map_or(0, |inside| inside + 2);
        self.text.get(tag..self.text.len() - tag).unwrap_or_default().to_vec()
    }

    /// Returns whether this names `name`, quoted or not; not case-sensitive.
    pub fn names(&self, name: &str) -> bool {
        self.name().is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The tokens of `sql` from byte `from`, which must not be inside a token; without whitespace and comments.
pub fn tokens(sql: &[u8], from: usize) -> Tokens<'_> {
    Tokens { sql, at: from, before: None }
}

pub struct Tokens<'sql> {
    sql: &'sql [u8],
    at: usize,
    /// The token before this position: `1.1` is one number, and `x.1.1` contains two.
    before: Option<Kind>,
}

impl<'sql> Iterator for Tokens<'sql> {
    type Item = Token<'sql>;

    fn next(&mut self) -> Option<Token<'sql>> {
        loop {
            let rest = &self.sql[self.at..];
            if rest.is_empty() {
                return None;
            }
            match skipped(rest) {
                Skipped::Nothing => break,
                Skipped::Bytes(length) => self.at += length,
                Skipped::Unfinished => return Some(self.take(Kind::Unfinished, rest.len())),
            }
        }
        let rest = &self.sql[self.at..];
        let (kind, length) = match rest[0] {
            quote @ (b'\'' | b'"' | b'`') => quoted(rest, quote),
            b'$' => dollar(rest),
            b'0'..=b'9' => number(rest, self.before == Some(Kind::Punctuation(b'.'))),
            b'.' if self.starts_a_number(rest) => (Kind::Number, fraction(rest)),
            b'x' | b'X' | b'b' | b'B' if rest.len() > 2 && rest[1] == b'\'' => digits_in_quotes(rest),
            0xe2 => curly(rest),
            byte if is_word(byte) => (Kind::Word, word(rest)),
            _ => operator(rest),
        };
        Some(self.take(kind, length))
    }
}

impl<'sql> Tokens<'sql> {
    fn take(&mut self, kind: Kind, length: usize) -> Token<'sql> {
        let token = Token { kind, text: &self.sql[self.at..self.at + length], at: self.at };
        self.at += length;
        self.before = Some(kind);
        token
    }

    /// Returns whether the dot that `rest` starts with begins a number, instead of an access to the value
    /// before it. The engine reads a dot at the start of a text as a number, whatever follows.
    fn starts_a_number(&self, rest: &[u8]) -> bool {
        use Kind::{Identifier, Number, Punctuation, Word};
        let follows_a_value =
            matches!(self.before, Some(Punctuation(b')' | b']') | Word | Identifier | Number));
        self.at == 0 || (rest.get(1).is_some_and(u8::is_ascii_digit) && !follows_a_value)
    }
}

enum Skipped {
    Nothing,
    Bytes(usize),
    /// A comment without its end.
    Unfinished,
}

/// The whitespace or comment that `rest` starts with.
fn skipped(rest: &[u8]) -> Skipped {
    match rest[0] {
        b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => Skipped::Bytes(1),
        b'-' | b'/' if rest.starts_with(b"--") || rest.starts_with(b"//") => Skipped::Bytes(line(rest)),
        b'#' if rest.starts_with(b"# ") || rest.starts_with(b"#!") => Skipped::Bytes(line(rest)),
        b'/' if rest.starts_with(b"/*") => match nested_comment(rest) {
            Some(length) => Skipped::Bytes(length),
            None => Skipped::Unfinished,
        },
        _ => match unicode_whitespace(rest) {
            0 => Skipped::Nothing,
            length => Skipped::Bytes(length),
        },
    }
}

/// The length of the whitespace beyond ASCII that `rest` starts with. The engine counts as whitespace: U+0085,
/// U+00A0, U+180E, U+2000 to U+200D, U+2028, U+2029, U+202F, U+205F, U+2060, U+3000, U+FEFF.
fn unicode_whitespace(rest: &[u8]) -> usize {
    match rest {
        [0xc2, 0x85 | 0xa0, ..] => 2,
        [0xe1, 0xa0, 0x8e, ..]
        | [0xe2, 0x80, 0x80..=0x8d | 0xa8 | 0xa9 | 0xaf, ..]
        | [0xe2, 0x81, 0x9f | 0xa0, ..]
        | [0xe3, 0x80, 0x80, ..]
        | [0xef, 0xbb, 0xbf, ..] => 3,
        _ => 0,
    }
}

fn nested_comment(rest: &[u8]) -> Option<usize> {
    let mut depth = 1;
    let mut at = 2;
    while at + 2 <= rest.len() {
        match &rest[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// A quoted token: a backslash escapes, a doubled quote means one quote.
fn quoted(rest: &[u8], quote: u8) -> (Kind, usize) {
    let kind = if quote == b'\'' { Kind::String } else { Kind::Identifier };
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return (kind, at + 1),
            _ => at += 1,
        }
    }
    (Kind::Unfinished, rest.len())
}

/// x'6f' or b'01': a string by its digits. Another character before the closing quote makes it unfinished.
fn digits_in_quotes(rest: &[u8]) -> (Kind, usize) {
    let is_digit = |byte: &u8| match rest[0] {
        b'x' | b'X' => byte.is_ascii_hexdigit(),
        _ => matches!(byte, b'0' | b'1'),
    };
    let end = 2 + rest[2..].iter().take_while(|byte| is_digit(byte)).count();
    match rest.get(end) {
        Some(b'\'') => (Kind::String, end + 1),
        _ => (Kind::Unfinished, rest.len()),
    }
}

/// ‘string’, “identifier” or the mathematical minus sign. Curly quotes know no escapes. After an opening
/// quote, the text must be long enough for a closing one.
fn curly(rest: &[u8]) -> (Kind, usize) {
    let (kind, end): (Kind, &[u8]) = match rest {
        [0xe2, 0x88, 0x92, ..] => return (Kind::Other, 3),
        _ if rest.len() < 2 * "’".len() => return operator(rest),
        [0xe2, 0x80, 0x98, ..] => (Kind::String, "’".as_bytes()),
        [0xe2, 0x80, 0x9c, ..] => (Kind::Identifier, "”".as_bytes()),
        _ => return operator(rest),
    };
    match find(&rest[3..], end) {
        Some(inside) => (kind, 3 + inside + end.len()),
        None => (Kind::Unfinished, rest.len()),
    }
}

/// A heredoc, a word that starts with a dollar sign, or the sign alone.
fn dollar(rest: &[u8]) -> (Kind, usize) {
    let tag = 1 + rest[1..].iter().take_while(|&&byte| is_word(byte)).count();
    if rest.get(tag) == Some(&b'$') {
        let tag = tag + 1;
        if let Some(inside) = find(&rest[tag..], &rest[..tag]) {
            return (Kind::String, tag + inside + tag);
        }
    }
    match rest.get(1) {
        Some(&next) if is_word(next) => (Kind::Word, word(rest)),
        _ => (Kind::Punctuation(b'$'), 1),
    }
}

/// A token that starts with a digit: a number, or a word like `2nd`, which ends at a dollar sign.
fn number(rest: &[u8], after_dot: bool) -> (Kind, usize) {
    let at = if after_dot { digits(rest, 1, Digits::Decimal, false) } else { whole_number(rest) };
    let end = at + rest[at..].iter().take_while(|&&byte| is_word(byte)).count();
    if end == at {
        return (Kind::Number, at);
    }
    match rest[..end].iter().copied().all(is_word) {
        true => (Kind::Word, end),
        false => (Kind::Other, end),
    }
}

fn whole_number(rest: &[u8]) -> usize {
    let prefixed = match rest {
        [b'0', b'x' | b'X', next, ..] if next.is_ascii_hexdigit() => Some(Digits::Hexadecimal),
        [b'0', b'b' | b'B', b'0' | b'1', ..] => Some(Digits::Decimal),
        _ => None,
    };
    let base = prefixed.unwrap_or(Digits::Decimal);
    let mut at = match prefixed {
        Some(_) => digits(rest, 2, base, true),
        None => digits(rest, 1, base, false),
    };
    if rest.get(at) == Some(&b'.') {
        at = digits(rest, at + 1, base, true);
    }
    exponent(rest, at, base)
}

/// `.5e3`.
fn fraction(rest: &[u8]) -> usize {
    exponent(rest, digits(rest, 1, Digits::Decimal, true), Digits::Decimal)
}

fn exponent(rest: &[u8], at: usize, base: Digits) -> usize {
    let sign = match base {
        Digits::Decimal => b'e',
        Digits::Hexadecimal => b'p',
    };
    if at + 1 >= rest.len() || rest[at].to_ascii_lowercase() != sign {
        return at;
    }
    let mut at = at + 1;
    if at + 1 < rest.len() && matches!(rest[at], b'+' | b'-') {
        at += 1;
    }
    digits(rest, at, Digits::Decimal, true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Digits {
    Decimal,
    Hexadecimal,
}

/// The end of the digits from `at` on; two digits may have an underscore between them.
fn digits(rest: &[u8], at: usize, base: Digits, at_start: bool) -> usize {
    let is_digit = |byte: &u8| match base {
        Digits::Decimal => byte.is_ascii_digit(),
        Digits::Hexadecimal => byte.is_ascii_hexdigit(),
    };
    let mut at = at;
    let mut at_start = at_start;
    loop {
        let separates = !at_start && rest.get(at) == Some(&b'_') && rest.get(at + 1).is_some_and(is_digit);
        if !separates && !rest.get(at).is_some_and(is_digit) {
            return at;
        }
        at += 1;
        at_start = false;
    }
}

fn operator(rest: &[u8]) -> (Kind, usize) {
    const LONG: [&[u8]; 11] = [b"<=>", b"->", b"==", b"!=", b"<=", b"<>", b">=", b"::", b"||", b"@@", b"\\G"];
    if let Some(long) = LONG.iter().find(|long| rest.starts_with(long)) {
        return (Kind::Other, long.len());
    }
    let means_nothing = rest[0].is_ascii_control() || matches!(rest[0], b'&' | b'~');
    if rest[0].is_ascii() && !means_nothing {
        return (Kind::Punctuation(rest[0]), 1);
    }
    // No token: the bytes of one character.
    let more = rest[1..].iter().take_while(|&&byte| byte & 0xc0 == 0x80).count();
    (Kind::Other, 1 + more)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_word_part(byte: u8) -> bool {
    is_word(byte) || byte == b'$'
}

fn word(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| !is_word_part(byte)).unwrap_or(rest.len())
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// The value of a quoted token, without its quotes and escapes.
fn unquoted(token: &[u8]) -> Vec<u8> {
    let quote = token[0];
    if !quote.is_ascii() {
        return token[3..token.len() - 3].to_vec();
    }
    let inside = &token[1..token.len() - 1];
    let mut meant = Vec::with_capacity(inside.len());
    let mut at = 0;
    while at < inside.len() {
        let (byte, length) = match &inside[at..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
                // Two hexadecimal digits make at most 255.
                ((digit(*high) * 16 + digit(*low)) as u8, 4)
            }
            [b'\\', escaped, ..] => (unescaped(*escaped), 2),
            [first, second, ..] if *first == quote && *second == quote => (quote, 2),
            [first, ..] => (*first, 1),
            [] => break,
        };
        meant.push(byte);
        at += length;
    }
    meant
}

/// The bytes of `digits` in base 16 or 2; the first byte is padded with zeros.
fn bytes_of(digits: &[u8], base: u32) -> Vec<u8> {
    let per_byte = if base == 16 { 2 } else { 8 };
    let byte = |part: &[u8]| {
        part.iter().fold(0, |byte, &it| byte * base + char::from(it).to_digit(base).unwrap_or(0))
    };
    // The digits of one byte.
    let mut bytes: Vec<u8> = digits.rchunks(per_byte).map(|part| byte(part) as u8).collect();
    bytes.reverse();
    bytes
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'a' => 0x07,
        b'b' => 0x08,
        b'e' => 0x1b,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'0' => 0,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        tokens(sql.as_bytes(), 0).map(|token| String::from_utf8_lossy(token.text).into_owned()).collect()
    }

    fn kinds(sql: &str) -> Vec<Kind> {
        tokens(sql.as_bytes(), 0).map(|token| token.kind).collect()
    }

    #[test]
    fn splits_words_quotes_and_marks() {
        assert_eq!(
            texts("SELECT a.b, 'it''s; \\' x', `q``r`, 1.5 -- end; \nFROM t /* ; */;"),
            ["SELECT", "a", ".", "b", ",", "'it''s; \\' x'", ",", "`q``r`", ",", "1.5", "FROM", "t", ";"]
        );
        assert_eq!(texts("$x$ a ; $y$ $x$ b"), ["$x$ a ; $y$ $x$", "b"]);
        assert_eq!(texts("# note\n#!sh\n// note\na"), ["a"]);
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!(
            texts("x.1.1, .5e-3, 1_000.5, 0xFFp-2, 2nd"),
            ["x", ".", "1", ".", "1", ",", ".5e-3", ",", "1_000.5", ",", "0xFFp-2", ",", "2nd"]
        );
        // A dollar sign goes on with a word, but not with one that starts with a digit.
        assert_eq!(texts("a$a$'$a$ 1a$a$'$a$"), ["a$a$", "'$a$ 1a$a$'", "$a$"]);
        assert_eq!(texts("1a$a$'$a$"), ["1a", "$a$'$a$"]);
    }

    #[test]
    fn digits_in_quotes_are_a_text() {
        assert_eq!(
            texts("x'41' B'01'x'' ax'41' 1x'4'"),
            ["x'41'", "B'01'", "x''", "ax", "'41'", "1x", "'4'"]
        );
        assert_eq!(kinds("x'41' b'0' x '41'"), [Kind::String, Kind::String, Kind::Word, Kind::String]);
    }

    #[test]
    fn comments_nest() {
        assert_eq!(texts("a /* /* ' */ ' */ b"), ["a", "b"]);
    }

    #[test]
    fn whitespace_beyond_ascii_separates() {
        for blank in ["\u{feff}", "\u{a0}", "\u{3000}", "\u{2003}", "\u{200b}", "\u{85}", "\u{2028}"] {
            assert_eq!(texts(&format!("{blank}INTO{blank}OUTFILE")), ["INTO", "OUTFILE"], "{blank:?}");
        }
    }

    #[test]
    fn curly_quotes_quote() {
        assert_eq!(
            kinds("SELECT ‘a;\\’, “b;”"),
            [Kind::Word, Kind::String, Kind::Punctuation(b','), Kind::Identifier]
        );
    }

    #[test]
    fn a_curly_quote_without_room_quotes_nothing() {
        assert_eq!(kinds("‘a"), [Kind::Other, Kind::Word]);
        assert_eq!(kinds("‘abc"), [Kind::Unfinished]);
    }

    #[test]
    fn unfinished_tokens_are_reported() {
        for sql in ["'a", "'a\\'", "`a", "/* a", "/* /* a */", "x'4g'", "b'2'", "x'4"] {
            assert_eq!(kinds(sql), [Kind::Unfinished], "{sql}");
        }
    }

    #[test]
    fn names_are_read_through_their_quotes() {
        let names = |sql: &str| tokens(sql.as_bytes(), 0).all(|token| token.names("readonly"));
        for sql in ["readonly", "ReadOnly", "`readonly`", "\"READONLY\"", "`read\\x6fnly`", "“readonly”"]
        {
            assert!(names(sql), "{sql}");
        }
        assert!(!names("'readonly'") && !names("`read``only`"));
        let name = |sql: &str| tokens(sql.as_bytes(), 0).next().and_then(|it| it.name().map(Cow::into_owned));
        assert_eq!(name("`a``b\\n\\``").as_deref(), Some(b"a`b\n`".as_slice()));
    }

    #[test]
    fn texts_are_read_through_their_quotes() {
        let meaning = |sql: &str| {
            let token = tokens(sql.as_bytes(), 0).next().expect("a token");
            assert_eq!(token.kind, Kind::String, "{sql}");
            String::from_utf8(token.unescaped()).expect("utf-8")
        };
        assert_eq!(meaning("'it''s \\'\\t\\x41'"), "it's '\tA");
        assert_eq!(meaning("$x$it's $y$$x$"), "it's $y$");
        assert_eq!(meaning("$$$$"), "");
        assert_eq!(meaning("‘a\\n’"), "a\\n");
        assert_eq!(meaning("x'2F6574632F'"), "/etc/");
        assert_eq!(meaning("X'a41'"), "\nA");
        assert_eq!(meaning("b'100101111'"), "\u{1}/");
        assert_eq!(meaning("x''"), "");
    }
}
