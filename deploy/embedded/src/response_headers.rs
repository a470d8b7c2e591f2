//! The setting `http_response_headers`: response headers that the client sets, as a map of strings. It comes
//! in the URL, in a SET or in a SETTINGS clause. It is read here, since the engine knows nothing of HTTP.

use axum::http::{HeaderName, HeaderValue};

use super::exception::{Exception, code};
use super::lexer::{Kind, Token, tokens};

pub const SETTING: &str = "http_response_headers";

pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Headers for the length and the coding of the response, which only the server may set.
const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "connection", "content-encoding"];

/// Reads `{'name': 'value', ...}`.
///
/// # Errors
/// The text is no map of strings, or a name or a value cannot be in a header (such as a line end), or a
/// header is in [`FRAMING`].
pub fn read(map: &str) -> Result<Headers, Exception> {
    let all: Vec<Token> = tokens(map.as_bytes(), 0).collect();
    match read_map(&all)? {
        (headers, []) => Ok(headers),
        (_, [more, ..]) => {
            Err(broken(&format!("{:?} follows the map", more.text.escape_ascii().to_string())))
        }
    }
}

/// The headers of the last assignment in a statement's SET or SETTINGS; `None` without one.
pub fn find(all: &[Token]) -> Result<Option<Headers>, Exception> {
    let mut depth = 0_usize;
    let mut found = None;
    for (at, token) in all.iter().enumerate() {
        match token.kind {
            Kind::Punctuation(b'(' | b'[') => depth += 1,
            Kind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let [equals, value, ..] = &all[at + 1..] else { break };
        if depth > 0 || !token.names(SETTING) || !equals.is_punctuation(b'=') {
            continue;
        }
        found = Some(match value.kind {
            Kind::String => read(&String::from_utf8_lossy(&value.unescaped()))?,
            Kind::Word if value.is("DEFAULT") => Headers::new(),
            _ => read_map(&all[at + 2..])?.0,
        });
    }
    Ok(found)
}

/// The map that `all` starts with, and the tokens after it.
fn read_map<'all, 'sql>(all: &'all [Token<'sql>]) -> Result<(Headers, &'all [Token<'sql>]), Exception> {
    let mut rest = all;
    let mut take = |what: &str, fits: &dyn Fn(&Token) -> bool| match rest.split_first() {
        Some((token, behind)) if fits(token) => {
            rest = behind;
            Ok(*token)
        }
        _ => Err(broken(&format!("{what} is missing"))),
    };
    let is_text = |token: &Token| token.kind == Kind::String;
    let mut headers = Headers::new();
    take("an opening brace", &|token| token.is_punctuation(b'{'))?;
    if take("", &|token| token.is_punctuation(b'}')).is_ok() {
        return Ok((headers, rest));
    }
    loop {
        let name = take("a name in quotes", &is_text)?;
        take("a colon", &|token| token.is_punctuation(b':'))?;
        let value = take("a value in quotes", &is_text)?;
        headers.push(header(&name.unescaped(), &value.unescaped())?);
        if take("", &|token| token.is_punctuation(b'}')).is_ok() {
            return Ok((headers, rest));
        }
        take("a comma or a closing brace", &|token| token.is_punctuation(b','))?;
    }
}

fn header(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Exception> {
    let shown = String::from_utf8_lossy(name).escape_debug().to_string();
    let name = HeaderName::from_bytes(name).map_err(|_| broken(&format!("{shown:?} is no header's name")))?;
    if FRAMING.contains(&name.as_str()) {
        return Err(broken(&format!("{shown} is the server's own to say")));
    }
    let value = HeaderValue::from_bytes(value)
        .map_err(|_| broken(&format!("the value of {shown} has a character that no header can have")))?;
    Ok((name, value))
}

fn broken(why: &str) -> Exception {
    Exception::new(
        code::BAD_ARGUMENTS,
        format_args!("the setting {SETTING} is no map of headers such as {{'X-Name': 'value'}}: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: Headers) -> Vec<(String, String)> {
        let text = |value: HeaderValue| value.to_str().expect("plain text").to_owned();
        headers.into_iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn maps_are_read() {
        let headers = |map: &str| shown(read(map).expect(map));
        assert_eq!(headers("{'X-My':'1'}"), [pair("x-my", "1")]);
        assert_eq!(headers("{ 'A' : 'it\\'s, {b}' , 'C':'' }"), [pair("a", "it's, {b}"), pair("c", "")]);
        assert_eq!(headers("{}"), []);
    }

    #[test]
    fn invalid_headers_are_refused() {
        for map in [
            "",
            "{",
            "{'a'}",
            "{'a': 1}",
            "{'a': 'b',}",
            "{'a': 'b'} x",
            "{'a b': 'c'}",
            "{'a': 'b\\r\\nc: d'}",
            "{'a\\n': 'b'}",
            "{'': 'b'}",
            "{'Content-Length': '1'}",
            "{'transfer-encoding': 'chunked'}",
        ] {
            assert_eq!(read(map).expect_err(map).code, 36, "{map}");
        }
    }

    #[test]
    fn a_statement_sets_headers() {
        let found = |sql: &str| {
            let all: Vec<Token> = tokens(sql.as_bytes(), 0).collect();
            find(&all).expect(sql).map(shown)
        };
        assert_eq!(found("SELECT 1"), None);
        let own = Some(vec![pair("x", "1")]);
        assert_eq!(found("SELECT 1 SETTINGS http_response_headers = {'X': '1'}, max_threads = 1"), own);
        assert_eq!(found("SET http_response_headers = '{\\'X\\': \\'1\\'}'"), own);
        assert_eq!(found("SET http_response_headers = DEFAULT"), Some(vec![]));
        assert_eq!(found("SELECT (SELECT 1 SETTINGS http_response_headers = {'X': '1'})"), None);
    }
}
