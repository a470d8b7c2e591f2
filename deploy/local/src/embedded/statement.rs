//! Tells what a statement is, as far as this server has to know: an INSERT and where its rows begin, a
//! KILL QUERY and its condition, a read, a write, the format that the text asks for. The engine's own
//! parser has the last word on everything else.

use std::ops::Range;

use super::exception::{Exception, code};
use super::lexer::{Kind, Token, tokens};

/// What the text holds. All positions are bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// An INSERT whose rows follow its head, here or in the rest of the request.
    Insert(Insert),
    /// KILL QUERY.
    Kill(Kill),
    /// Everything else.
    Other(Other),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub source: Source,
    /// The format's name as the text has it.
    pub format: String,
    /// Where the head ends and rows begin; the text's length if none follow in it.
    pub rows_at: usize,
}

/// How the rows come into the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `INSERT INTO t (a) [SETTINGS ...] FORMAT x` or `VALUES`: `infile_at` is before SETTINGS,
    /// `format_at` before FORMAT or VALUES.
    Rows { infile_at: usize, format_at: usize },
    /// `INSERT INTO t SELECT ... FROM input('structure') FORMAT x`: the call, what is inside its
    /// parentheses, and where FORMAT begins.
    Input { call: Range<usize>, inside: Range<usize>, format_at: usize },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The expression after WHERE.
    pub condition: Range<usize>,
    pub mode: KillMode,
    pub format: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillMode {
    /// Answer when the queries are told to stop.
    Async,
    /// Answer when they are gone.
    Sync,
    /// Only tell what would be killed.
    Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub class: Class,
    pub format: Option<String>,
    /// Each `system.processes` that is read from.
    pub processes: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Returns rows, and possibly many.
    Select,
    /// Changes nothing but the session.
    Read,
    /// SET or USE: its effect must outlive the query.
    Session,
    Write,
}

impl Class {
    pub fn changes_data(self) -> bool {
        self == Class::Write
    }
}

/// Reads `sql`. What the engine's client half would act on here, instead of sending it to a server, is
/// refused: several statements at once, INTO OUTFILE, FROM INFILE, the shell's commands.
pub fn read(sql: &[u8]) -> Result<Statement, Exception> {
    let mut all = tokens(sql, 0);
    let Some(first) = all.next() else {
        return Err(Exception::new(
            code::SYNTAX_ERROR,
            "Syntax error: failed at position 1 (end of query): Empty query",
        ));
    };
    if first.is("INSERT") {
        return read_insert(sql, first);
    }
    const SHELL: [&str; 5] = ["EXIT", "QUIT", "LOGOUT", "Q", "HELP"];
    if !matches!(first.kind, Kind::Word | Kind::Mark(b'(')) || SHELL.iter().any(|command| first.is(command)) {
        return Err(syntax_error(&first, "a query"));
    }
    let all: Vec<Token> = tokens(sql, 0).collect();
    refuse_client_clauses(&all)?;
    if first.is("KILL") && all.get(1).is_some_and(|second| second.is("QUERY")) {
        return read_kill(sql, &all);
    }
    let class = classify(&all);
    Ok(Statement::Other(Other { class, format: format_of(&all), processes: find_processes(&all) }))
}

impl Insert {
    /// The statement for the engine, with the rows in the file at `path`, which needs no escaping.
    pub fn reading_file(&self, sql: &[u8], path: &str) -> Vec<u8> {
        let format = self.format.as_bytes();
        match &self.source {
            Source::Rows { infile_at, format_at } => [
                &sql[..*infile_at],
                b" FROM INFILE '",
                path.as_bytes(),
                b"' ",
                &sql[*infile_at..*format_at],
                b" FORMAT ",
                format,
            ]
            .concat(),
            Source::Input { call, inside, format_at } => {
                let comma: &[u8] = if inside.is_empty() { b"" } else { b", " };
                [
                    &sql[..call.start],
                    b"file('",
                    path.as_bytes(),
                    b"', '",
                    format,
                    b"'",
                    comma,
                    &sql[inside.clone()],
                    b")",
                    &sql[call.end..*format_at],
                ]
                .concat()
            }
        }
    }
}

fn read_insert(sql: &[u8], insert: Token) -> Result<Statement, Exception> {
    let mut depth = 0_usize;
    let mut settings_at = None;
    let mut selects = false;
    let mut input = None;
    let mut before = insert;
    let mut rest = tokens(sql, insert.end());
    while let Some(token) = rest.next() {
        match token.kind {
            Kind::Mark(b'(' | b'[' | b'{') => depth += 1,
            Kind::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            // The head ends with a semicolon: no rows can follow.
            Kind::Mark(b';') => {
                refuse_more(rest.next())?;
                break;
            }
            _ => {}
        }
        // A table may be called format: the name of the target is not a clause.
        let names_target = before.is_mark(b'.') || before.is("INTO") || before.is("TABLE");
        if depth == 0 && !names_target {
            if token.is("VALUES") && !selects {
                let source = Source::Rows { infile_at: settings_at.unwrap_or(token.at), format_at: token.at };
                return Ok(insert_of(source, "Values".to_owned(), token.end()));
            }
            if token.is("FORMAT") && (!selects || input.is_some()) {
                let Some(name) = rest.next().filter(|name| name.kind == Kind::Word) else {
                    return Err(syntax_error(&token, "FORMAT and its name"));
                };
                let source = match input {
                    Some((call, inside)) => Source::Input { call, inside, format_at: token.at },
                    None => Source::Rows { infile_at: settings_at.unwrap_or(token.at), format_at: token.at },
                };
                let format = String::from_utf8_lossy(name.text).into_owned();
                let rows_at = skip_line_end(sql, name.end());
                if sql.get(rows_at) == Some(&b';') {
                    refuse_more(tokens(sql, rows_at + 1).next())?;
                    return Ok(insert_of(source, format, sql.len()));
                }
                return Ok(insert_of(source, format, rows_at));
            }
            if token.is("SETTINGS") && !selects {
                settings_at = Some(token.at);
            }
            if token.is("INFILE") && before.is("FROM") {
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
            input = Some(call);
        }
        before = token;
    }
    let all: Vec<Token> = tokens(sql, 0).collect();
    refuse_client_clauses(&all)?;
    let other = Other { class: Class::Write, format: None, processes: find_processes(&all) };
    Ok(Statement::Other(other))
}

fn insert_of(source: Source, format: String, rows_at: usize) -> Statement {
    Statement::Insert(Insert { source, format, rows_at })
}

/// The call `name(...)` that starts at `name`, and what is inside its parentheses.
fn call_of(sql: &[u8], name: &Token) -> Option<(Range<usize>, Range<usize>)> {
    let mut rest = tokens(sql, name.end());
    let open = rest.next().filter(|token| token.is_mark(b'('))?;
    let mut depth = 1;
    for token in rest {
        match token.kind {
            Kind::Mark(b'(') => depth += 1,
            Kind::Mark(b')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((name.at..token.end(), open.end()..token.at));
        }
    }
    None
}

/// Rows begin after the blanks that follow the format's name, and after one line end if there is one.
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

fn read_kill(sql: &[u8], all: &[Token]) -> Result<Statement, Exception> {
    let Some(filter) = all.iter().position(|token| token.is("WHERE")) else {
        return Err(syntax_error(all.last().unwrap_or(&all[0]), "WHERE and a condition"));
    };
    let mut mode = KillMode::Async;
    let mut end = None;
    for (index, token) in all.iter().enumerate().skip(filter + 1) {
        let named = match () {
            () if token.is("SYNC") => Some(KillMode::Sync),
            () if token.is("ASYNC") => Some(KillMode::Async),
            () if token.is("TEST") => Some(KillMode::Test),
            () => None,
        };
        // A mode is the last word but for FORMAT and SETTINGS: `test` may be a column before that.
        let clause_or_end = |next: Option<&Token>| match next {
            None => true,
            Some(next) => next.is("FORMAT") || next.is("SETTINGS") || next.is_mark(b';'),
        };
        if let Some(named) = named
            && clause_or_end(all.get(index + 1))
        {
            mode = named;
            end = end.or(Some(token.at));
        }
        if token.is("FORMAT") || token.is("SETTINGS") || token.is_mark(b';') {
            end = end.or(Some(token.at));
        }
    }
    let condition = all[filter].end()..end.unwrap_or(sql.len());
    if tokens(&sql[condition.clone()], 0).next().is_none() {
        return Err(syntax_error(&all[filter], "a condition after WHERE"));
    }
    Ok(Statement::Kill(Kill { condition, mode, format: format_of(all) }))
}

fn classify(all: &[Token]) -> Class {
    let Some(first) = all.iter().find(|token| !token.is_mark(b'(')) else {
        return Class::Write;
    };
    let is_any = |keywords: &[&str]| keywords.iter().any(|keyword| first.is(keyword));
    if is_any(&["SET", "USE"]) {
        return Class::Session;
    }
    if is_any(&["SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"]) {
        return Class::Read;
    }
    if is_any(&["SELECT", "WITH", "FROM", "VALUES"]) {
        // WITH can open an INSERT.
        let inserts =
            first.is("WITH") && all.windows(2).any(|pair| pair[0].is("INSERT") && pair[1].is("INTO"));
        return if inserts { Class::Write } else { Class::Select };
    }
    Class::Write
}

/// The name after the last FORMAT outside of parentheses.
fn format_of(all: &[Token]) -> Option<String> {
    let mut depth = 0_usize;
    let mut format = None;
    for pair in all.windows(2) {
        match pair[0].kind {
            Kind::Mark(b'(' | b'[' | b'{') => depth += 1,
            Kind::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && pair[0].is("FORMAT") && pair[1].kind == Kind::Word {
            format = Some(String::from_utf8_lossy(pair[1].text).into_owned());
        }
    }
    format
}

/// Each `system.processes` after FROM, JOIN or a comma.
fn find_processes(all: &[Token]) -> Vec<Range<usize>> {
    let names = |token: &Token, name: &str| match token.kind {
        Kind::Word => token.text == name.as_bytes(),
        Kind::Identifier => token.text.get(1..token.text.len() - 1) == Some(name.as_bytes()),
        _ => false,
    };
    let mut found = Vec::new();
    for (index, window) in all.windows(4).enumerate() {
        let [before, database, dot, table] = window else { continue };
        let reads = before.is("FROM") || before.is("JOIN") || before.is_mark(b',');
        let whole = all.get(index + 4).is_none_or(|next| !next.is_mark(b'.') && !next.is_mark(b'('));
        if reads && whole && names(database, "system") && dot.is_mark(b'.') && names(table, "processes") {
            found.push(database.at..table.end());
        }
    }
    found
}

fn refuse_client_clauses(all: &[Token]) -> Result<(), Exception> {
    let semicolon = all.iter().position(|token| token.is_mark(b';'));
    if let Some(semicolon) = semicolon {
        refuse_more(all.get(semicolon + 1).copied())?;
    }
    let writes_file = all.windows(2).any(|pair| pair[0].is("INTO") && pair[1].is("OUTFILE"));
    if writes_file {
        return Err(Exception::new(code::INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed"));
    }
    Ok(())
}

/// Refuses what follows a semicolon.
fn refuse_more(next: Option<Token>) -> Result<(), Exception> {
    match next {
        None => Ok(()),
        Some(token) => Err(Exception::new(
            code::SYNTAX_ERROR,
            format_args!(
                "Syntax error (Multi-statements are not allowed): failed at position {}: {}",
                token.at + 1,
                String::from_utf8_lossy(token.text)
            ),
        )),
    }
}

fn syntax_error(token: &Token, expected: &str) -> Exception {
    let text = String::from_utf8_lossy(token.text);
    let position = token.at + 1;
    Exception::new(
        code::SYNTAX_ERROR,
        format_args!("Syntax error: failed at position {position} ({text}): {text}. Expected {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sql: &str) -> Insert {
        match read(sql.as_bytes()) {
            Ok(Statement::Insert(insert)) => insert,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn engine_sql(sql: &str) -> String {
        String::from_utf8(insert(sql).reading_file(sql.as_bytes(), "/f")).expect("utf-8")
    }

    fn rows(sql: &str) -> &str {
        &sql[insert(sql).rows_at..]
    }

    #[test]
    fn an_inserts_rows_become_a_file() {
        assert_eq!(
            engine_sql("INSERT INTO t (a, b) FORMAT Native"),
            "INSERT INTO t (a, b)  FROM INFILE '/f'  FORMAT Native"
        );
        assert_eq!(
            engine_sql(
                "insert into d.t settings async_insert=0, insert_deduplication_token='x' format JSONEachRow {}"
            ),
            "insert into d.t  FROM INFILE '/f' settings async_insert=0, insert_deduplication_token='x'  FORMAT JSONEachRow"
        );
        assert_eq!(engine_sql("INSERT INTO t VALUES (1)"), "INSERT INTO t  FROM INFILE '/f'  FORMAT Values");
        assert_eq!(
            engine_sql("INSERT INTO t SELECT upper(a) FROM input('a String, b Array(UInt8)') FORMAT CSV\nx"),
            "INSERT INTO t SELECT upper(a) FROM file('/f', 'CSV', 'a String, b Array(UInt8)') "
        );
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
        assert_eq!(rows("INSERT INTO FUNCTION remote('h', 'values') (a) VALUES (3)"), " (3)");
    }

    #[test]
    fn an_insert_without_rows_is_a_write() {
        for sql in
            ["INSERT INTO t SELECT 1", "INSERT INTO t WITH 1 AS x SELECT x", "INSERT INTO t (a) (SELECT 1)"]
        {
            let read = read(sql.as_bytes());
            let Ok(Statement::Other(other)) = read else { panic!("{sql}: {read:?}") };
            assert_eq!(other, Other { class: Class::Write, format: None, processes: vec![] }, "{sql}");
        }
    }

    #[test]
    fn a_kill_is_taken_apart() {
        let check = |sql: &str, condition: &str, mode, format: Option<&str>| {
            let read = read(sql.as_bytes());
            let Ok(Statement::Kill(kill)) = read else { panic!("{sql}: {read:?}") };
            assert_eq!(sql[kill.condition].trim(), condition);
            assert_eq!((kill.mode, kill.format.as_deref()), (mode, format));
        };
        check("KILL QUERY WHERE query_id = 'a b' SYNC", "query_id = 'a b'", KillMode::Sync, None);
        check("kill query on cluster c where 1 async format JSON", "1", KillMode::Async, Some("JSON"));
        check("KILL QUERY WHERE test = 1 OR sync", "test = 1 OR", KillMode::Sync, None);
        check("KILL QUERY WHERE user = {u:String} TEST;", "user = {u:String}", KillMode::Test, None);
        check("KILL QUERY WHERE elapsed > 5", "elapsed > 5", KillMode::Async, None);
    }

    #[test]
    fn classes_and_formats() {
        let check = |sql: &str, class, format: Option<&str>| {
            let read = read(sql.as_bytes());
            let Ok(Statement::Other(other)) = read else { panic!("{sql}: {read:?}") };
            assert_eq!((other.class, other.format.as_deref()), (class, format), "{sql}");
        };
        check("SELECT 1 FORMAT JSONEachRow SETTINGS max_threads = 1", Class::Select, Some("JSONEachRow"));
        check("(select format from t) union all (select 1);", Class::Select, None);
        check("WITH x AS (SELECT 1) SELECT * FROM x", Class::Select, None);
        check("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Class::Write, None);
        check("SHOW TABLES", Class::Read, None);
        check("SET max_threads = 1", Class::Session, None);
        check("KILL MUTATION WHERE 1", Class::Write, None);
        check("CREATE TABLE t (a UInt8) ENGINE = Memory", Class::Write, None);
    }

    #[test]
    fn finds_the_processes_that_are_read() {
        let found = |sql: &str| match read(sql.as_bytes()) {
            Ok(Statement::Other(other)) => {
                other.processes.iter().map(|place| (place.start, place.end)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(found("SELECT * FROM system.processes"), [(14, 30)]);
        assert_eq!(found("SELECT 'FROM system.processes' FROM `system`.\"processes\" p"), [(36, 56)]);
        assert_eq!(found("SELECT system.processes.query_id FROM system.processes_x"), []);
    }

    #[test]
    fn refuses_what_a_shell_would_do() {
        let code = |sql: &str| read(sql.as_bytes()).expect_err(sql).code;
        assert_eq!(code(""), 62);
        assert_eq!(code(" -- nothing\n"), 62);
        assert_eq!(code("exit"), 62);
        assert_eq!(code("\\l"), 62);
        assert_eq!(code("SELECT 1; SELECT 2"), 62);
        assert_eq!(code("SELECT 1 INTO OUTFILE 'x'"), 358);
        assert_eq!(code("INSERT INTO t FROM INFILE 'x' FORMAT CSV"), 78);
        assert!(read(b"SELECT 1;  -- end").is_ok());
    }
}
