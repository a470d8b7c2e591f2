//! INSERT: finds where the statement ends and its rows begin, and the format of the rows, and rewrites the
//! statement so that the engine reads the rows from a file or a table. The text of a query cannot contain
//! arbitrary bytes.

use std::ops::Range;

use super::exception::{Exception, code};
use super::lexer::{Kind, Token, tokens};
use super::syntax::{refuse_more, syntax_error};

/// An INSERT that is followed by rows. All positions are bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub source: Source,
    /// The format's name.
    pub format: String,
    /// Where the rows begin; the text's length if the text contains none.
    pub rows_at: usize,
}

/// The clause from which the statement reads the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `INSERT INTO t (a) [SETTINGS ...] FORMAT x` or `VALUES`: `infile_at` is before SETTINGS,
    /// `format_at` before FORMAT or VALUES.
    Rows { infile_at: usize, format_at: usize },
    /// `INSERT INTO t SELECT ... FROM input('structure') FORMAT x`: the call, its columns, and where FORMAT
    /// begins.
    Input { call: Range<usize>, structure: Option<String>, format_at: usize },
}

impl Insert {
    /// The statement for the engine, which reads the rows of [`Source::Rows`] from the file at `path`. The
    /// path needs no escaping.
    pub fn reading_file(&self, sql: &[u8], path: &str) -> Vec<u8> {
        let Source::Rows { infile_at, format_at } = self.source else {
            unreachable!("rows of input() are read from a table: {self:?}")
        };
        [
            &sql[..infile_at],
            b" FROM INFILE '",
            path.as_bytes(),
            b"' ",
            &sql[infile_at..format_at],
            b" FORMAT ",
            self.format.as_bytes(),
        ]
        .concat()
    }

    /// The statement for the engine, with `table` instead of input(). The table's name needs no quotes.
    pub fn reading_table(&self, sql: &[u8], table: &str) -> Vec<u8> {
        let Source::Input { call, format_at, .. } = &self.source else {
            unreachable!("only input() is read from a table: {self:?}")
        };
        [&sql[..call.start], table.as_bytes(), &sql[call.end..*format_at]].concat()
    }
}

/// Parses the INSERT at the token `insert`; `None` if no rows follow it.
pub fn read(sql: &[u8], insert: Token) -> Result<Option<Insert>, Exception> {
    let mut depth = 0_usize;
    let mut settings_at = None;
    let mut selects = false;
    let mut input = None;
    let mut before = insert;
    let mut reads_infile = false;
    let mut rest = tokens(sql, insert.end());
    while let Some(token) = rest.next() {
        match token.kind {
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            // A semicolon ends the statement: no rows can follow.
            Kind::Punctuation(b';') => {
                refuse_more(rest.next())?;
                break;
            }
            _ => {}
        }
        // A table may be called format: the name of the target is not a clause.
        let names_target =
            before.is_punctuation(b'.') || ["INSERT", "INTO", "TABLE"].iter().any(|word| before.is(word));
        if depth == 0 && !names_target {
            if token.is("VALUES") && !selects {
                let source = Source::Rows { infile_at: settings_at.unwrap_or(token.at), format_at: token.at };
                return Ok(Some(Insert { source, format: "Values".to_owned(), rows_at: token.end() }));
            }
            if token.is("FORMAT") && (!selects || input.is_some()) {
                let source = match input {
                    Some((call, structure)) => Source::Input { call, structure, format_at: token.at },
                    None => Source::Rows { infile_at: settings_at.unwrap_or(token.at), format_at: token.at },
                };
                return read_format(sql, token, rest.next(), source).map(Some);
            }
            if token.is("SETTINGS") && !selects {
                settings_at = Some(token.at);
            }
            // A table may be called infile; only a path in quotes makes it a clause.
            if reads_infile && token.kind == Kind::String {
                return Err(Exception::new(
                    code::UNKNOWN_TYPE_OF_QUERY,
                    "Query has infile and was sent directly to the server",
                ));
            }
            if token.is("SELECT") || token.is("WITH") || token.is("FROM") {
                selects = true;
            }
        }
        if token.is("SELECT") {
            selects = true;
        }
        if token.is("INPUT")
            && selects
            && let Some(call) = call_of(sql, &token)
        {
            input = Some((call.clone(), structure_in(&sql[call])?));
        }
        reads_infile = token.is("INFILE") && before.is("FROM");
        before = token;
    }
    Ok(None)
}

fn read_format(sql: &[u8], keyword: Token, name: Option<Token>, source: Source) -> Result<Insert, Exception> {
    let Some((token, name)) = name.and_then(|token| Some((token, token.name()?))) else {
        return Err(syntax_error(&keyword, "FORMAT and its name"));
    };
    let format = String::from_utf8_lossy(&name).into_owned();
    if !format.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Exception::new(code::UNKNOWN_FORMAT, format_args!("Unknown format {format}")));
    }
    let rows_at = skip_line_end(sql, token.end());
    if sql.get(rows_at) == Some(&b';') {
        refuse_more(tokens(sql, rows_at + 1).next())?;
        return Ok(Insert { source, format, rows_at: sql.len() });
    }
    Ok(Insert { source, format, rows_at })
}

/// The call `name(...)` that starts at `name`.
fn call_of(sql: &[u8], name: &Token) -> Option<Range<usize>> {
    let mut depth = 0;
    for token in tokens(sql, name.end()) {
        match token.kind {
            Kind::Punctuation(b'(') => depth += 1,
            Kind::Punctuation(b')') if depth > 0 => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(name.at..token.end());
        }
    }
    None
}

/// The columns in `input('columns')`; `None` if the engine is to infer them from the rows.
fn structure_in(call: &[u8]) -> Result<Option<String>, Exception> {
    let inside: Vec<Token> = tokens(call, 0).skip(2).collect();
    match inside.as_slice() {
        [_close] => Ok(None),
        [text, _close] if text.kind == Kind::String => {
            Ok(Some(String::from_utf8_lossy(&text.unescaped()).into_owned()))
        }
        _ => Err(Exception::new(
            code::BAD_ARGUMENTS,
            "input() takes its columns as one text in quotes, such as input('a String, b UInt8')",
        )),
    }
}

/// Rows begin after the spaces that follow the format's name, and after one line end if there is one.
fn skip_line_end(sql: &[u8], from: usize) -> usize {
    let mut at = from;
    while matches!(sql.get(at), Some(b' ' | b'\t' | b'\x0c')) {
        at += 1;
    }
    if sql.get(at) == Some(&b'\r') {
        at += 1;
    }
    if sql.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::super::statement::{self, Statement};
    use super::*;

    fn insert(sql: &str) -> Insert {
        match statement::read(sql.as_bytes()) {
            Ok(Statement::Insert(insert)) => insert,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn from_file(sql: &str) -> String {
        String::from_utf8(insert(sql).reading_file(sql.as_bytes(), "/f")).expect("utf-8")
    }

    fn rows(sql: &str) -> &str {
        &sql[insert(sql).rows_at..]
    }

    #[test]
    fn an_inserts_rows_become_a_file() {
        assert_eq!(
            from_file("INSERT INTO t (a, b) FORMAT Native"),
            "INSERT INTO t (a, b)  FROM INFILE '/f'  FORMAT Native"
        );
        assert_eq!(
            from_file(
                "insert into d.t settings async_insert=0, insert_deduplication_token='x' format JSONEachRow {}"
            ),
            "insert into d.t  FROM INFILE '/f' settings async_insert=0, insert_deduplication_token='x'  FORMAT JSONEachRow"
        );
        assert_eq!(from_file("INSERT INTO t VALUES (1)"), "INSERT INTO t  FROM INFILE '/f'  FORMAT Values");
        assert_eq!(
            from_file("WITH 1 AS x INSERT INTO t FORMAT `CSV` 1"),
            "WITH 1 AS x INSERT INTO t  FROM INFILE '/f'  FORMAT CSV"
        );
    }

    #[test]
    fn the_rows_of_input_become_a_table() {
        let read = |call: &str| {
            let sql = format!("INSERT INTO t SELECT upper(a) FROM {call} AS i WHERE a != ')' FORMAT CSV\nx");
            let insert = insert(&sql);
            let Source::Input { structure, .. } = &insert.source else { panic!("{insert:?}") };
            let text = String::from_utf8(insert.reading_table(sql.as_bytes(), "rows")).expect("utf-8");
            assert_eq!(text, "INSERT INTO t SELECT upper(a) FROM rows AS i WHERE a != ')' ");
            structure.clone()
        };
        assert_eq!(read("input('a String, b Array(UInt8)')").as_deref(), Some("a String, b Array(UInt8)"));
        assert_eq!(read("input ( 'a Enum8(\\'x\\' = 1)' )").as_deref(), Some("a Enum8('x' = 1)"));
        assert_eq!(read("input()"), None);
        let expression = "INSERT INTO t SELECT 1 FROM input('a ' || 'String') FORMAT CSV";
        assert_eq!(statement::read(expression.as_bytes()).expect_err("refused").code, 36);
    }

    #[test]
    fn rows_begin_after_the_format() {
        assert_eq!(rows("INSERT INTO t FORMAT CSV\n1,2\n"), "1,2\n");
        assert_eq!(rows("INSERT INTO t FORMAT CSV \t\r\n\n1"), "\n1");
        assert_eq!(rows("INSERT INTO t FORMAT JSONEachRow {\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(rows("INSERT INTO t FORMAT Native"), "");
        assert_eq!(rows("INSERT INTO t FORMAT CSV;"), "");
        assert_eq!(rows("INSERT INTO t VALUES (1, 'a;b'), (2, 'FORMAT')"), " (1, 'a;b'), (2, 'FORMAT')");
        assert_eq!(rows("INSERT INTO format FORMAT CSV\n1"), "1");
        assert_eq!(rows("INSERT format FORMAT CSV\n1"), "1");
        assert_eq!(rows("INSERT INTO FUNCTION remote('h', 'values') (a) VALUES (3)"), " (3)");
    }

    #[test]
    fn a_formats_name_is_a_name() {
        let refused = statement::read(b"INSERT INTO t FORMAT `CSV SETTINGS a = 1`").expect_err("refused");
        assert_eq!(refused.code, 73);
        assert_eq!(statement::read(b"INSERT INTO t FORMAT 'CSV'").expect_err("refused").code, 62);
        assert_eq!(
            statement::read(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV").expect_err("refused").code,
            78
        );
        assert!(matches!(statement::read(b"INSERT INTO t SELECT * FROM infile"), Ok(Statement::Other(_))));
    }
}
