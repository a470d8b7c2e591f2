//! Parses a statement as far as this server needs: an INSERT and the position of its rows, a KILL QUERY and
//! its condition, whether a statement can return many rows or acts on the session, and the format that the
//! text seems to name. The engine decides whether the statement may run, and what it changes.

use std::ops::Range;

use super::exception::{Exception, code};
use super::insert::{self, Insert};
use super::lexer::{Kind, Token, tokens};
use super::syntax::{refuse_more, syntax_error};

/// A parsed statement. All positions are bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// An INSERT with rows, which follow in the text or in the rest of the request.
    Insert(Insert),
    /// KILL QUERY.
    Kill(Kill),
    /// Everything else.
    Other(Other),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The expression after WHERE.
    pub condition: Range<usize>,
    pub mode: KillMode,
    /// See [`Other::format`].
    pub format: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillMode {
    /// Answer when the queries have been asked to stop.
    Async,
    /// Answer when they are gone.
    Sync,
    /// Only show what would be killed.
    Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub class: Class,
    /// The name after FORMAT at the statement's end. It can also be a column called format with an alias or a
    /// direction, so the engine is asked.
    pub format: Option<String>,
    /// The position of each `system.processes` that the statement reads.
    pub processes: Vec<Range<usize>>,
}

/// How the server runs a statement. A wrong class does no harm: the engine refuses to stream a statement that
/// is no SELECT, and to write in a read-only request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Returns rows, possibly many.
    Select,
    /// Changes nothing but the session.
    Read,
    /// SET or USE: its effect must outlive the query.
    Session,
    Write,
}

/// Parses `sql`. Refuses what the client part of the engine would carry out itself: several statements at
/// once, INTO OUTFILE, FROM INFILE, the commands of its shell.
pub fn read(sql: &[u8]) -> Result<Statement, Exception> {
    let mut all = tokens(sql, 0);
    let Some(first) = all.next() else {
        return Err(Exception::new(
            code::SYNTAX_ERROR,
            "Syntax error: failed at position 1 (end of query): Empty query",
        ));
    };
    const SHELL: [&str; 5] = ["EXIT", "QUIT", "LOGOUT", "Q", "HELP"];
    if !matches!(first.kind, Kind::Word | Kind::Punctuation(b'('))
        || SHELL.iter().any(|command| first.is(command))
    {
        return Err(syntax_error(&first, "a query"));
    }
    // The rows of an INSERT are no SQL, so the statement before them is parsed first.
    if let Some(insert) = insert_at(sql, first)
        && let Some(insert) = insert::read(sql, insert)?
    {
        return Ok(Statement::Insert(insert));
    }
    let all: Vec<Token> = tokens(sql, 0).collect();
    refuse_client_clauses(&all)?;
    if first.is("KILL") && all.get(1).is_some_and(|second| second.is("QUERY")) {
        return read_kill(sql, &all);
    }
    let class = classify(&all);
    Ok(Statement::Other(Other { class, format: format_of(&all), processes: find_processes(&all) }))
}

/// Finds the token INSERT of the statement: its first word, or the word before the first INTO after WITH.
fn insert_at<'sql>(sql: &'sql [u8], first: Token<'sql>) -> Option<Token<'sql>> {
    if first.is("INSERT") {
        return Some(first);
    }
    if !first.is("WITH") {
        return None;
    }
    let mut depth = 0_usize;
    let mut before = first;
    for token in tokens(sql, first.end()) {
        match token.kind {
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && before.is("INSERT") && token.is("INTO") {
            return Some(before);
        }
        before = token;
    }
    None
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
        // A mode is the last word, or the last before FORMAT and SETTINGS. Before that, `test` can be a column.
        let clause_or_end = |next: Option<&Token>| match next {
            None => true,
            Some(next) => next.is("FORMAT") || next.is("SETTINGS") || next.is_punctuation(b';'),
        };
        if let Some(named) = named
            && clause_or_end(all.get(index + 1))
        {
            mode = named;
            end = end.or(Some(token.at));
        }
        if token.is("FORMAT") || token.is("SETTINGS") || token.is_punctuation(b';') {
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
    let Some(first) = all.iter().find(|token| !token.is_punctuation(b'(')) else {
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
        // WITH can begin an INSERT.
        let inserts =
            first.is("WITH") && all.windows(2).any(|pair| pair[0].is("INSERT") && pair[1].is("INTO"));
        return if inserts { Class::Write } else { Class::Select };
    }
    Class::Write
}

/// The name after the last FORMAT outside of parentheses, if nothing but SETTINGS follows.
fn format_of(all: &[Token]) -> Option<String> {
    let mut depth = 0_usize;
    let mut format = None;
    for (at, token) in all.iter().enumerate() {
        match token.kind {
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > 0 || !token.is("FORMAT") {
            continue;
        }
        let ends = all.get(at + 2).is_none_or(|next| next.is("SETTINGS") || next.is_punctuation(b';'));
        let name = all.get(at + 1).filter(|_| ends).and_then(Token::name);
        format = name.map(|name| String::from_utf8_lossy(&name).into_owned());
    }
    format
}

/// Each `system.processes` after FROM, JOIN or a comma.
fn find_processes(all: &[Token]) -> Vec<Range<usize>> {
    let names = |token: &Token, name: &str| token.name().is_some_and(|it| *it == *name.as_bytes());
    let mut found = Vec::new();
    for (index, window) in all.windows(4).enumerate() {
        let [before, database, dot, table] = window else { continue };
        let reads = before.is("FROM") || before.is("JOIN") || before.is_punctuation(b',');
        let whole =
            all.get(index + 4).is_none_or(|next| !next.is_punctuation(b'.') && !next.is_punctuation(b'('));
        if reads
            && whole
            && names(database, "system")
            && dot.is_punctuation(b'.')
            && names(table, "processes")
        {
            found.push(database.at..table.end());
        }
    }
    found
}

fn refuse_client_clauses(all: &[Token]) -> Result<(), Exception> {
    let semicolon = all.iter().position(|token| token.is_punctuation(b';'));
    if let Some(semicolon) = semicolon {
        refuse_more(all.get(semicolon + 1).copied())?;
    }
    let writes_file = all.windows(2).any(|pair| pair[0].is("INTO") && pair[1].is("OUTFILE"));
    if writes_file {
        return Err(Exception::new(code::INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed"));
    }
    // A table may be called infile; only a path in quotes makes it a clause.
    let reads_file = all
        .windows(3)
        .any(|three| three[0].is("FROM") && three[1].is("INFILE") && three[2].kind == Kind::String);
    if reads_file {
        return Err(Exception::new(
            code::UNKNOWN_TYPE_OF_QUERY,
            "Query has infile and was sent directly to the server",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_kill_query_is_parsed() {
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
        check("\u{feff}SELECT\u{a0}1\u{3000}FORMAT `CSV`;", Class::Select, Some("CSV"));
        check("SELECT format FROM t", Class::Select, None);
        check("SELECT format, 1 FROM t", Class::Select, None);
        check("SELECT 1 FORMAT CSV UNION ALL SELECT 2", Class::Select, None);
        // The engine decides whether this is a format.
        check("SELECT a FROM t ORDER BY format ASC", Class::Select, Some("ASC"));
    }

    #[test]
    fn reads_of_system_processes_are_found() {
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
    fn commands_of_the_shell_are_refused() {
        let code = |sql: &str| read(sql.as_bytes()).expect_err(sql).code;
        assert_eq!(code(""), 62);
        assert_eq!(code(" -- nothing\n"), 62);
        assert_eq!(code("exit"), 62);
        assert_eq!(code("\\l"), 62);
        assert_eq!(code("SELECT 1; SELECT 2"), 62);
        assert_eq!(code("SELECT 1 INTO OUTFILE 'x'"), 358);
        assert_eq!(code("SELECT 1 INTO\u{a0}/* /* */ */OUTFILE 'x'"), 358);
        assert_eq!(code("/* /* ' */ */ SELECT 1 INTO OUTFILE 'x' -- '"), 358);
        assert_eq!(code("WITH 1 AS y INSERT INTO t FROM INFILE 'x' FORMAT CSV"), 78);
        assert_eq!(code("EXPLAIN INSERT INTO t FROM INFILE 'x' FORMAT CSV"), 78);
        assert!(read(b"SELECT * FROM infile").is_ok());
        assert_eq!(code("INSERT INTO t FROM INFILE 'x' FORMAT CSV"), 78);
        assert!(read(b"SELECT 1;  -- end").is_ok());
    }
}
