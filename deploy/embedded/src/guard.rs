//! Refuses SQL that would open a file outside of the user files, start a program, or write in a read-only
//! request. The refusal names what was found and where. It looks at tokens only; the engine's own rules
//! (`rules/users.xml`) and [`super::confine`] stop what the tokens do not show.

use super::exception::{Exception, code};
use super::lexer::{Kind, Token};

/// Table functions that open files of this machine or start a program. file() is also an ordinary function;
/// it may name a user file.
const FILE_FUNCTIONS: [&str; 11] = [
    "file",
    "fileCluster",
    "filesystem",
    "sqlite",
    "executable",
    "icebergLocal",
    "icebergLocalCluster",
    "deltaLakeLocal",
    "paimonLocal",
    "odbc",
    "jdbc",
];

/// Table and database engines that open files or start programs.
const FILE_ENGINES: [&str; 12] = [
    "File",
    "FileLog",
    "Filesystem",
    "SQLite",
    "EmbeddedRocksDB",
    "Executable",
    "ExecutablePool",
    "IcebergLocal",
    "DeltaLakeLocal",
    "PaimonLocal",
    "ODBC",
    "JDBC",
];

/// Sources and layouts of dictionaries that open files or start programs.
const FILE_SOURCES: [&str; 7] =
    ["FILE", "EXECUTABLE", "EXECUTABLE_POOL", "LIBRARY", "YAMLRegExpTree", "ODBC", "JDBC"];
const FILE_LAYOUTS: [&str; 2] = ["SSD_CACHE", "COMPLEX_KEY_SSD_CACHE"];

/// Settings of queries and tables whose value is the name of a file.
const FILE_SETTINGS: [&str; 8] = [
    "format_schema",
    "format_template_resultset",
    "format_template_row",
    "output_format_schema",
    "input_format_record_errors_file_path",
    "kafka_schema",
    "nats_schema",
    "rabbitmq_schema",
];

/// Refuses a statement, given by its tokens, that names a program, or a file that is no user file.
pub fn refuse_files(all: &[Token]) -> Result<(), Exception> {
    let attaches = all.iter().any(|token| token.is("ATTACH"));
    for (at, token) in all.iter().enumerate() {
        let (before, rest) = (&all[..at], &all[at + 1..]);
        let found = if let Some(function) = file_function(before, token, rest) {
            Some(format!("{function}()"))
        } else if let Some(engine) = file_engine(token, rest) {
            Some(format!("the engine {engine}"))
        } else if let Some(part) = dictionary_part(token, rest) {
            Some(format!("a dictionary of {part}"))
        } else if let Some(setting) = file_setting(token, rest) {
            Some(format!("the setting {setting}"))
        } else if token.names("disk")
            && is_call(rest)
            && before.last().is_some_and(|it| it.is_punctuation(b'='))
        {
            Some("disk()".to_owned())
        } else if attaches && token.is("FROM") && rest.first().is_some_and(|next| next.kind == Kind::String) {
            Some("ATTACH ... FROM a path".to_owned())
        } else {
            None
        };
        if let Some(found) = found {
            return Err(refused(&format!("{found} at position {}", token.at + 1)));
        }
    }
    Ok(())
}

/// Refuses a setting of the URL whose value is the name of a file.
pub fn refuse_file_setting(name: &str) -> Result<(), Exception> {
    match FILE_SETTINGS.contains(&name) {
        true => Err(refused(&format!("the setting {name}"))),
        false => Ok(()),
    }
}

/// Refuses `readonly = DEFAULT`, which would reset the setting and which the engine allows. The engine itself
/// refuses other values.
pub fn refuse_readonly_reset(all: &[Token]) -> Result<(), Exception> {
    let resets_readonly = all
        .windows(3)
        .any(|three| three[0].names("readonly") && three[1].is_punctuation(b'=') && three[2].is("DEFAULT"));
    match resets_readonly {
        true => Err(Exception::new(code::READONLY, "Cannot modify 'readonly' setting in readonly mode")),
        false => Ok(()),
    }
}

/// Replaces the engine's refusals by a server's, with advice. `may_write` is whether the method allows writes.
pub fn reword(exception: Exception, may_write: bool) -> Exception {
    let has = |text: &str| exception.message.contains(text);
    match exception.code {
        code::READONLY if !may_write && has("Cannot execute query in readonly mode") => {
            Exception::new(code::READONLY, READONLY_METHOD)
        }
        code::ACCESS_DENIED if FILE_GRANTS.iter().any(|grant| has(&format!("have the grant {grant}"))) => {
            refused("this statement")
        }
        code::CANNOT_OPEN_FILE if has("errno: 13,") => {
            refused(&format!("this statement ({})", exception.message))
        }
        _ => exception,
    }
}

const READONLY_METHOD: &str = "Cannot execute query in readonly mode. For queries over HTTP, method GET implies \
                               readonly. You should use method POST for modifying queries";

const FILE_GRANTS: [&str; 6] =
    ["READ ON FILE", "WRITE ON FILE", "READ ON SQLITE", "WRITE ON SQLITE", "READ ON ODBC", "READ ON JDBC"];

fn refused(what: &str) -> Exception {
    Exception::new(
        code::DATABASE_ACCESS_DENIED,
        format_args!(
            "Access to files outside of user_files is denied, and {what} needs it: the SQL of this server starts no \
             program and opens the files of that folder alone (in the data directory), by a relative path in quotes \
             without `..`. Rows need no file: send them in the request's body, after INSERT INTO t FORMAT CSV"
        ),
    )
}

fn file_function(before: &[Token], token: &Token, rest: &[Token]) -> Option<&'static str> {
    let function = FILE_FUNCTIONS.into_iter().find(|function| token.names(function))?;
    if !is_call(rest) || is_defined(before) {
        return None;
    }
    let may = function == "file" && is_user_file(&rest[1..]);
    (!may).then_some(function)
}

/// Returns whether a table's name follows. A table may be called file, with its columns in parentheses after
/// the name.
fn is_defined(before: &[Token]) -> bool {
    const KINDS: [&str; 5] = ["INTO", "TABLE", "EXISTS", "VIEW", "DICTIONARY"];
    match before {
        // After DESCRIBE TABLE, a function can follow too.
        [.., describe, table] if table.is("TABLE") && (describe.is("DESCRIBE") || describe.is("DESC")) => {
            false
        }
        [.., last] => last.is_punctuation(b'.') || KINDS.iter().any(|kind| last.is(kind)),
        [] => false,
    }
}

fn is_call(rest: &[Token]) -> bool {
    rest.first().is_some_and(|next| next.is_punctuation(b'('))
}

/// `ENGINE = name` or `ENGINE name`.
fn file_engine(token: &Token, rest: &[Token]) -> Option<&'static str> {
    if !token.is("ENGINE") {
        return None;
    }
    let name = match rest {
        [equals, name, ..] if equals.is_punctuation(b'=') => name,
        [name, ..] => name,
        [] => return None,
    };
    FILE_ENGINES.into_iter().find(|engine| name.names(engine))
}

/// Returns whether the first of `arguments` is a string that names a user file: a relative path without `..`,
/// whichever of its `{alternatives}` are chosen, and no name of a standard stream.
fn is_user_file(arguments: &[Token]) -> bool {
    const STREAMS: [&[u8]; 4] = [b"-", b"stdin", b"stdout", b"stderr"];
    /// The engine replaces it by a value from each row.
    const PARTITION: &[u8] = b"{_partition_id}";
    let [path, end, ..] = arguments else { return false };
    // Any other token after the string makes it part of an expression.
    if path.kind != Kind::String || !(end.is_punctuation(b',') || end.is_punctuation(b')')) {
        return false;
    }
    let path = path.unescaped();
    let is_filled_in = path.windows(PARTITION.len()).any(|window| window == PARTITION);
    !path.is_empty()
        && !path.starts_with(b"/")
        && !path.split(|&byte| byte == b'/').any(may_be_dots)
        && !is_filled_in
        && !STREAMS.contains(&path.as_slice())
}

/// Returns whether a component of a path is `..`, or can be for one choice of its `{alternatives}`.
fn may_be_dots(component: &[u8]) -> bool {
    let dots = |part: &[u8]| part.iter().all(|&byte| byte == b'.');
    let count = |wanted: u8| component.iter().filter(|&&byte| byte == wanted).count();
    let Some((_, behind)) = split_at(component, b'{') else {
        return count(b'}') > 0 || (!component.is_empty() && dots(component));
    };
    let Some((alternatives, _)) = split_at(behind, b'}') else { return true };
    // Safe if every alternative of the first braces is more than dots, and none contains a slash.
    count(b'{') != count(b'}') || alternatives.split(|&byte| byte == b',').any(dots)
}

fn split_at(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == mark)?;
    Some((&text[..at], &text[at + 1..]))
}

/// `SOURCE(name(` or `LAYOUT(name(` of a dictionary.
fn dictionary_part(token: &Token, rest: &[Token]) -> Option<&'static str> {
    let [open, name, call, ..] = rest else { return None };
    if !open.is_punctuation(b'(') || !call.is_punctuation(b'(') {
        return None;
    }
    let sources = FILE_SOURCES.iter().filter(|_| token.is("SOURCE"));
    let layouts = FILE_LAYOUTS.iter().filter(|_| token.is("LAYOUT"));
    sources.chain(layouts).copied().find(|part| name.names(part))
}

/// `name =` in SET, in SETTINGS of a query, or in those of a table.
fn file_setting(token: &Token, rest: &[Token]) -> Option<&'static str> {
    let assigned = rest.first().is_some_and(|next| next.is_punctuation(b'='));
    FILE_SETTINGS.into_iter().find(|setting| assigned && token.names(setting))
}

#[cfg(test)]
mod tests {
    use super::super::lexer::tokens;
    use super::*;

    fn refusal(sql: &str) -> Option<String> {
        let all: Vec<Token> = tokens(sql.as_bytes(), 0).collect();
        refuse_files(&all).err().map(|exception| {
            assert_eq!(exception.code, 291, "{sql}");
            let (_, what) =
                exception.message.split_once("denied, and ").expect("the message names what was found");
            what.split(" needs it").next().unwrap_or("").to_owned()
        })
    }

    #[test]
    fn a_name_of_a_file_is_refused_with_its_position() {
        let found = |sql: &str, what: &str| assert_eq!(refusal(sql).as_deref(), Some(what), "{sql}");
        found("SELECT * FROM file('/etc/hostname', 'TSV')", "file() at position 15");
        found("SELECT file /* */ ('../a')", "file() at position 8");
        found("SELECT `f\\x69le`('/a')", "file() at position 8");
        found("INSERT INTO FUNCTION file('/a', 'TSV') SELECT 1", "file() at position 22");
        found("DESCRIBE TABLE file('/a')", "file() at position 16");
        found("desc table file(concat('/', 'a'))", "file() at position 12");
        found("INSERT INTO TABLE FUNCTION\u{a0}file('/a')", "file() at position 29");
        found("CREATE TABLE t (a String DEFAULT file(name))", "file() at position 34");
        found("CREATE TABLE t (a Int8) ENGINE = File(TSV, 'a')", "the engine File at position 25");
        found("CREATE TABLE t (a Int8) ENGINE `file`(TSV)", "the engine File at position 25");
        found("CREATE TABLE t (a Int8) engine sqlite('a', 'b')", "the engine SQLite at position 25");
        found("CREATE DATABASE d ENGINE=\"Filesystem\"('/')", "the engine Filesystem at position 19");
        found(
            "CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(EXECUTABLE(command 'id'))",
            "a dictionary of EXECUTABLE at position 46",
        );
        found(
            "CREATE DICTIONARY d (k UInt64) PRIMARY KEY k LAYOUT(ssd_cache(PATH '/a'))",
            "a dictionary of SSD_CACHE at position 46",
        );
        found("ATTACH TABLE t FROM '/tmp' (a Int8)", "ATTACH ... FROM a path at position 16");
        found(
            "SELECT 1 SETTINGS format_template_row = 'a'",
            "the setting format_template_row at position 19",
        );
        found(
            "CREATE TABLE t (a Int8) ENGINE = Log SETTINGS disk = disk(type = 'local')",
            "disk() at position 54",
        );
    }

    #[test]
    fn user_files_are_named_by_a_relative_path() {
        for name in [
            "'a.csv'",
            "'a/b..c/.d'",
            "'*/part-{1..3}.{csv,tsv}'",
            "'**'",
            "$x$it's.csv$x$",
            "‘a’",
            "x'61'",
            "'a.zip :: b'",
        ] {
            assert_eq!(refusal(&format!("SELECT * FROM file({name}, 'CSV')")), None, "{name}");
            assert_eq!(refusal(&format!("SELECT file({name})")), None, "{name}");
        }
        for name in [
            "'/a'",
            "'../a'",
            "'a/../../b'",
            "'\\x2e./a'",
            "x'2f61'",
            "'..'",
            "'a/..'",
            "'{.,a}{.,b}/c'",
            "'{,a}.{,b}./c'",
            "'{x}{/..,}{/..,}/c'",
            "'{x}{c/..,d}'",
            "''",
            "'-'",
            "'stdin'",
            "'{_partition_id}'",
            "'a' || '/../../b'",
            "concat('a', 'b')",
            "0",
            "a",
            "{a:String}",
            "collection, path = '/a'",
        ] {
            let refused = refusal(&format!("SELECT * FROM file({name}, 'CSV')"));
            assert_eq!(refused.as_deref(), Some("file() at position 15"), "{name}");
        }
        assert_eq!(refusal("SELECT file('a'").as_deref(), Some("file() at position 8"));
        assert_eq!(refusal("SELECT file(").as_deref(), Some("file() at position 8"));
        assert_eq!(refusal("SELECT * FROM filesystem('a')").as_deref(), Some("filesystem() at position 15"));
    }

    #[test]
    fn names_that_only_look_like_a_file_are_allowed() {
        for sql in [
            "SELECT file FROM t WHERE file IN (1)",
            "CREATE TABLE file (file String) ENGINE = MergeTree ORDER BY file",
            "CREATE TABLE IF NOT EXISTS d.file (a Int8) ENGINE = Memory",
            "INSERT INTO file (a) SELECT 1",
            "SELECT 'file(1)', \"file\"",
            "SELECT engine FROM system.tables WHERE engine = 'File'",
            "INSERT INTO source (executable, file) VALUES",
            "ALTER TABLE t ATTACH PARTITION 1 FROM u",
            "CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE(TABLE 'file'))",
        ] {
            assert_eq!(refusal(sql), None, "{sql}");
        }
    }

    #[test]
    fn readonly_cannot_be_reset_to_its_default() {
        let code = |sql: &str| {
            let all: Vec<Token> = tokens(sql.as_bytes(), 0).collect();
            refuse_readonly_reset(&all).err().map(|exception| exception.code)
        };
        assert_eq!(code("SELECT 1 SETTINGS readonly = DEFAULT"), Some(164));
        assert_eq!(code("SET max_threads = 1, `read\\x6fnly`=default"), Some(164));
        assert_eq!(code("SELECT readonly, 1 = DEFAULT FROM t"), None);
    }

    #[test]
    fn settings_of_the_url_are_checked_too() {
        assert_eq!(refuse_file_setting("format_schema").expect_err("refused").code, 291);
        assert!(refuse_file_setting("format_schema_source").is_ok());
    }
}
