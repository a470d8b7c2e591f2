//! The requests that clickhouse-embedded refuses: writes by methods other than POST, files, and pages of
//! other sites.

mod server;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::libc;
use server::{Server, escape};

fn query(sql: &str) -> String {
    format!("query={}", escape(sql))
}

fn server_with_table() -> Server {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a");
    server.sql("INSERT INTO t VALUES (7)");
    server
}

/// Without these bounds the engine once overflowed its stack and ended.
#[test]
fn the_bounds_of_a_statement_cannot_be_lifted() {
    let server = server_with_table();
    let deep = format!("SELECT 1{}", "-1".repeat(50_000));
    for (setting, value) in [
        ("max_parser_depth", "0"),
        ("max_parser_depth", "100000"),
        ("max_ast_depth", "0"),
        ("max_ast_elements", "0"),
        ("max_expanded_ast_elements", "0"),
        ("max_subquery_depth", "0"),
        ("input_format_json_max_depth", "100000"),
    ] {
        let answer = server.post(&format!("{setting}={value}"), deep.as_bytes());
        assert_eq!(answer.code(), 452, "{setting} = {value}: {}", answer.text());
    }
    assert_eq!(server.sql_with("max_parser_depth=500", "SELECT a FROM t"), "7\n");
}

#[test]
fn a_request_other_than_post_changes_nothing() {
    let server = server_with_table();
    for sql in [
        "DROP TABLE t",
        "-- a note\n/* /* nested */ */ DROP TABLE t",
        "\u{feff}DROP\u{a0}TABLE t",
        "SELECT 1 PARALLEL WITH DROP TABLE t",
        "SHOW TABLES PARALLEL WITH DROP TABLE t",
        "DROP TABLE t PARALLEL WITH SELECT 1",
        "CREATE TABLE u (a Int8) ENGINE = Memory PARALLEL WITH DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t SETTINGS async_insert = 1 VALUES (1)",
        "WITH 1 AS x INSERT INTO t SELECT x",
        "WITH 1 AS x INSERT INTO t VALUES (1)",
        "INSERT INTO FUNCTION null('a Int8') SELECT 1",
        "INSERT INTO FUNCTION file('own.csv', 'CSV', 'a Int8') VALUES (1)",
        "CREATE TEMPORARY TABLE u ENGINE = Memory AS SELECT 1",
        "TRUNCATE TABLE t",
        "RENAME TABLE t TO u",
        "ALTER TABLE t DELETE WHERE 1",
        "DELETE FROM t WHERE 1",
        "OPTIMIZE TABLE t",
        "CREATE VIEW v AS SELECT 1",
        "CREATE DATABASE d",
        "CREATE FUNCTION f AS x -> x",
        "SYSTEM FLUSH LOGS",
        "SYSTEM STOP MERGES",
        "CREATE NAMED COLLECTION c AS a = 1",
        "BACKUP TABLE t TO Null",
        "KILL QUERY WHERE 1",
        "KILL MUTATION WHERE 1",
        "DROP TABLE nowhere",
        "INSERT INTO nowhere SELECT 1",
        "DROP TABLE t SETTINGS readonly = 0",
        "DROP TABLE t SETTINGS readonly = DEFAULT",
        "INSERT INTO t SELECT 1 SETTINGS readonly = 0",
        "INSERT INTO t SETTINGS `read\\x6fnly` = DEFAULT SELECT 1",
        "SELECT 1 SETTINGS readonly = 0",
        "SET readonly = 0",
        "SET readonly = DEFAULT",
    ] {
        for method in ["GET", "HEAD", "PUT"] {
            let answer = server.send(method, &query(sql), &[], b"");
            assert_eq!((answer.status, answer.code()), (500, 164), "{method} {sql}: {}", answer.text());
        }
    }
    for method in ["GET", "PUT"] {
        let rows = server.send(method, &query("INSERT INTO t FORMAT CSV"), &[], b"1\n");
        assert_eq!(rows.code(), 164);
        let in_body = server.send(method, "default_format=CSV&query=%20", &[], b"DROP TABLE t");
        assert_eq!(in_body.code(), 164);
        let lifted = server.send(method, &format!("readonly=0&{}", query("DROP TABLE t")), &[], b"");
        assert_eq!(lifted.code(), 164);
        let several = server.send(method, &query("SELECT 1; DROP TABLE t"), &[], b"");
        assert_eq!((several.status, several.code()), (400, 62));
    }
    // Statements that the engine can parse only without EXPLAIN AST before them.
    for sql in ["SELECT 1 PARALLEL WITH DROP TABLE t", "SYSTEM STOP MERGES"] {
        for more in 0..20 {
            let bound = format!("max_query_size={}&{}", sql.len() + more, query(sql));
            let answer = server.send("GET", &bound, &[], b"");
            assert!([62, 164].contains(&answer.code()), "{sql} {more}: {}", answer.text());
        }
    }
    let misspelt = server.send("GET", &query("SELECT 1 FORM t"), &[], b"");
    assert_eq!(misspelt.text(), server.post("", b"SELECT 1 FORM t").text());
    let text = server.send("GET", &query("DROP TABLE t"), &[], b"").text();
    assert!(text.contains("You should use method POST for modifying queries"), "{text}");
    assert_eq!(server.sql("SELECT a FROM t"), "7\n");
    assert_eq!(server.sql("SHOW TABLES"), "t\n");
    assert_eq!(server.sql("SELECT count() FROM system.named_collections"), "0\n");
}

#[test]
fn a_request_other_than_post_reads_with_its_own_settings() {
    let server = server_with_table();
    for (sql, expected) in [
        ("SELECT a FROM t", "7\n"),
        ("WITH 1 AS x SELECT x", "1\n"),
        ("SELECT getSetting('max_threads'), getSetting('readonly') SETTINGS max_threads = 3", "3\t2\n"),
        ("SHOW TABLES", "t\n"),
        ("EXISTS TABLE t", "1\n"),
        ("SELECT count() AS parallel FROM t GROUP BY a WITH TOTALS", "1\n\n1\n"),
        ("SELECT count() FROM (EXPLAIN SELECT 1) WHERE explain != ''", "2\n"),
    ] {
        for method in ["GET", "PUT"] {
            assert_eq!(server.send(method, &query(sql), &[], b"").text(), expected, "{method} {sql}");
        }
    }
    // Limits on the result do not apply to parsing the statement.
    for bound in [
        "max_result_rows=1",
        "max_result_rows=1&readonly=1",
        "max_result_bytes=1",
        "max_block_size=1&limit=1&offset=0",
    ] {
        let address = format!("{bound}&{}", query("SELECT a AS format FROM t ORDER BY format ASC"));
        assert_eq!(server.send("GET", &address, &[], b"").text(), "7\n", "{bound}");
        let address = format!("{bound}&{}", query("SELECT 1 PARALLEL WITH DROP TABLE t"));
        assert_eq!(server.send("GET", &address, &[], b"").code(), 164, "{bound}");
        let dropping = format!("{bound}&session_id=s&{}", query("SYSTEM STOP MERGES"));
        assert_eq!(server.send("GET", &dropping, &[], b"").code(), 164, "{bound}");
    }
    let too_many = server.send(
        "GET",
        &format!("max_result_rows=1&{}", query("SELECT number FROM numbers(2)")),
        &[],
        b"",
    );
    assert_eq!(too_many.code(), 396);
    let set =
        server.send("GET", &format!("max_threads=5&{}", query("SELECT getSetting('max_threads')")), &[], b"");
    assert_eq!(set.text(), "5\n");
}

#[test]
fn a_post_may_ask_for_read_only() {
    let server = server_with_table();
    for address in ["readonly=1", "readonly=2", "max_threads=1&readonly=1"] {
        assert_eq!(server.refused(address, b"DROP TABLE t"), (500, 164), "{address}");
        assert_eq!(
            server.refused(address, b"DROP TABLE t SETTINGS readonly = DEFAULT"),
            (500, 164),
            "{address}"
        );
        assert_eq!(server.sql_with(address, "SELECT a FROM t"), "7\n");
    }
    assert_eq!(server.sql_with("readonly=2", "SELECT 1 SETTINGS max_threads = 1"), "1\n");
    assert_eq!(server.refused("readonly=1", b"SELECT 1 SETTINGS max_threads = 1"), (500, 164));
    let get = |address: &str, sql: &str| server.send("GET", &format!("{address}&{}", query(sql)), &[], b"");
    assert_eq!(get("readonly=1", "SELECT 1 SETTINGS max_threads = 1").code(), 164);
    assert_eq!(get("readonly=1&max_threads=1", "SELECT getSetting('max_threads')").text(), "1\n");
    assert_eq!(get("readonly=2", "SELECT 1 SETTINGS max_threads = 1").text(), "1\n");
    assert_eq!(server.refused("readonly=x", b"SELECT 1"), (400, 36));
}

#[test]
fn a_session_keeps_its_own_setting_of_readonly() {
    let server = server_with_table();
    let get = |sql: &str| server.send("GET", &format!("session_id=s&{}", query(sql)), &[], b"");
    let post = |sql: &str| server.post("session_id=s", sql.as_bytes());
    server.sql_with("session_id=s", "CREATE TEMPORARY TABLE own (n UInt8)");
    assert_eq!(get("INSERT INTO t SELECT 1").code(), 164);
    assert_eq!(get("DROP TABLE t").code(), 164);
    assert_eq!(get("SELECT count() FROM own").text(), "0\n");
    // A request that may only read does not restrict the next one.
    assert_eq!(post("INSERT INTO own SELECT 1").status, 200);
    assert_eq!(get("SET max_block_size = 77").status, 200);
    assert_eq!(get("SELECT getSetting('max_block_size')").text(), "77\n");

    for (value, settings) in [("2", 200), ("1", 500)] {
        assert_eq!(post(&format!("SET readonly = {value}")).status, 200);
        for answer in [
            post("DROP TABLE t"),
            get("DROP TABLE t"),
            post("SET readonly = 0"),
            post("SET readonly = DEFAULT"),
        ] {
            assert_eq!(answer.code(), 164, "readonly = {value}");
        }
        assert_eq!(post("SELECT getSetting('readonly')").text(), format!("{value}\n"));
        let set = server.post("session_id=s&max_threads=1", b"SELECT getSetting('max_threads')");
        assert_eq!(set.status, settings, "readonly = {value}");
        assert_eq!(get("SELECT count() FROM own").text(), "1\n");
        assert_eq!(server.sql_with("session_id=s&close_session=1", "SELECT 1"), "1\n");
        server.sql_with("session_id=s", "CREATE TEMPORARY TABLE own (n UInt8)");
        server.sql_with("session_id=s", "INSERT INTO own SELECT 1");
    }
    assert_eq!(server.sql("SELECT a FROM t"), "7\n");
}

/// Returns whether the kernel can confine the server, which needs version 2 of Landlock.
fn kernel_confines() -> bool {
    // SAFETY: with this flag the call reads nothing and returns a version.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0, 1) >= 2 }
}

#[test]
fn sql_opens_no_file_outside_of_its_folder_and_starts_no_program() {
    let server = server_with_table();
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret.tsv"), "secret\n").expect("writes");
    let there = |sql: &str| sql.replace("$", outside.path().to_str().expect("UTF-8"));
    for (sql, code) in [
        ("SELECT * FROM file('$/secret.tsv', 'LineAsString')", 291),
        ("SELECT file('../../../../../..$/secret.tsv')", 291),
        ("SELECT file(concat('$', '/secret.tsv'))", 291),
        ("SELECT * FROM file('../../../../../..$/secret.tsv', 'LineAsString')", 291),
        ("SELECT * FROM file(concat('$', '/secret.tsv'), 'LineAsString')", 291),
        ("SELECT * FROM file(0, 'LineAsString', 'line String')", 291),
        ("SELECT * FROM fileCluster('default', '$/*', 'LineAsString')", 291),
        ("SELECT file('$/secret.tsv')", 291),
        ("SELECT * FROM filesystem('$')", 291),
        ("SELECT * FROM `$/secret.tsv`", 291),
        ("SELECT * FROM default.`$/secret.tsv`", 291),
        ("SELECT * FROM '$/secret.tsv'", 291),
        ("DESCRIBE TABLE `$/secret.tsv`", 291),
        ("DESCRIBE TABLE file('/etc/hosts')", 291),
        ("INSERT INTO `$/secret.tsv` SELECT 'new'", 291),
        ("CREATE TABLE x AS `$/secret.tsv`", 390),
        ("CREATE TABLE x AS file('$/secret.tsv', 'LineAsString')", 291),
        ("CREATE VIEW x AS SELECT * FROM file('$/secret.tsv', 'LineAsString')", 291),
        ("SELECT * FROM remote('127.0.0.1', file('$/secret.tsv', 'LineAsString', 'line String'))", 291),
        ("SELECT * FROM sqlite('$/new.db', 't')", 291),
        ("SELECT * FROM icebergLocal('$/')", 291),
        ("SELECT * FROM odbc('DSN=x', 'y')", 291),
        ("INSERT INTO FUNCTION file('$/new', 'TSV', 'a Int8') VALUES (1)", 291),
        ("INSERT INTO FUNCTION file('$/new', 'TSV', 'a Int8') SELECT 1", 291),
        ("CREATE TABLE x (a String) ENGINE = File(LineAsString, '$/secret.tsv')", 291),
        ("CREATE TABLE x (a String) ENGINE File(LineAsString)", 291),
        ("CREATE TEMPORARY TABLE x (a String) ENGINE = `File`(TSV, '$/new')", 291),
        ("CREATE MATERIALIZED VIEW x ENGINE = File(TSV, '$/new') AS SELECT 1 AS a", 291),
        ("CREATE TABLE x (a String) ENGINE = EmbeddedRocksDB(0, '$/new') PRIMARY KEY a", 291),
        ("CREATE TABLE x (a String) ENGINE = Executable('id', 'TSV')", 291),
        ("CREATE DATABASE x ENGINE = Filesystem('$')", 291),
        ("CREATE DATABASE x ENGINE = SQLite('$/new')", 291),
        (
            "CREATE DICTIONARY x (k UInt64, v String) PRIMARY KEY k LAYOUT(FLAT()) LIFETIME(0) \
             SOURCE(EXECUTABLE(command 'touch $/new' format 'TSV'))",
            291,
        ),
        (
            "CREATE DICTIONARY x (k UInt64, v String) PRIMARY KEY k LAYOUT(FLAT()) LIFETIME(0) \
             SOURCE(FILE(path '$/secret.tsv' format 'TSV'))",
            291,
        ),
        ("ATTACH TABLE x FROM '$' (a Int8) ENGINE = MergeTree ORDER BY a", 291),
        (
            "CREATE TABLE x (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS \
             disk = disk(type = 'object_storage', object_storage_type = 'local', metadata_type = 'plain', path = '$/new/')",
            291,
        ),
        ("SELECT 1 AS a FORMAT Template SETTINGS format_template_row = '$/secret.tsv'", 291),
        ("SELECT 1 AS a FORMAT Protobuf SETTINGS output_format_schema = '$/new'", 291),
        ("SET format_schema = '$/secret.tsv:M'", 291),
        ("BACKUP TABLE t TO File('$/new')", 291),
        ("BACKUP TABLE t TO Disk('default', 'new')", 318),
        ("SELECT 1 INTO OUTFILE '$/new'", 358),
        ("/* /* ' */ */ SELECT 1 INTO OUTFILE '$/new' -- '", 358),
        ("INSERT INTO t FROM INFILE '$/secret.tsv' FORMAT TSV", 78),
        ("WITH 1 AS x INSERT INTO t FROM INFILE '$/secret.tsv' FORMAT TSV", 78),
        ("SYSTEM SHUTDOWN", 497),
    ] {
        let answer = server.post("", there(sql).as_bytes());
        assert_eq!(answer.code(), code, "{sql}: {}", answer.text());
        assert!(!answer.text().contains("secret\n"), "{sql}: {}", answer.text());
    }
    assert_eq!(server.refused("format_template_row=/etc/hosts", b"SELECT 1"), (500, 291));
    let read_by_get = query(&there("SELECT * FROM file('$/secret.tsv', 'LineAsString')"));
    assert_eq!(server.send("GET", &read_by_get, &[], b"").code(), 291);
    assert_eq!(names(outside.path()), ["secret.tsv"]);
    assert_eq!(server.sql("SHOW TABLES"), "t\n");
}

#[test]
fn sql_reads_and_writes_the_files_of_its_folder() {
    if !kernel_confines() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret.tsv"), "secret\n").expect("writes");
    let server = Server::start_at(directory.path(), &[]);
    let folder = directory.path().join("user_files");
    fs::write(folder.join("a.csv"), "1,one\n").expect("writes");
    assert_eq!(server.sql("SELECT c2 FROM file('a.csv')"), "one\n");
    assert_eq!(server.sql("SELECT file('a.csv')"), "1,one\\n\n");
    let read_by_get = query("SELECT * FROM file('*.csv', 'CSV', 'n UInt8, s String')");
    assert_eq!(server.send("GET", &read_by_get, &[], b"").text(), "1\tone\n");
    server.sql("INSERT INTO FUNCTION file('deeper/b.csv', 'CSV', 'n UInt8') SELECT 2");
    server.sql("INSERT INTO FUNCTION file('c.csv', 'CSV', 'n UInt8') VALUES (3)");
    assert_eq!(fs::read_to_string(folder.join("deeper/b.csv")).expect("readable"), "2\n");
    assert_eq!(fs::read_to_string(folder.join("c.csv")).expect("readable"), "3\n");
    let write_by_get = query("INSERT INTO FUNCTION file('d.csv', 'CSV', 'n UInt8') SELECT 4");
    assert_eq!(server.send("GET", &write_by_get, &[], b"").code(), 164);
    assert_eq!(server.refused("", b"SELECT * FROM file('nowhere.csv', 'CSV', 'n UInt8')").1, 107);

    // A symbolic link to another directory cannot be followed.
    symlink(outside.path(), folder.join("out")).expect("links");
    symlink(outside.path().join("secret.tsv"), folder.join("link.tsv")).expect("links");
    for sql in [
        "SELECT * FROM file('link.tsv', 'LineAsString')",
        "SELECT * FROM file('out/secret.tsv', 'LineAsString')",
        "SELECT file('out/secret.tsv')",
        "INSERT INTO FUNCTION file('out/new.tsv', 'TSV', 'n UInt8') SELECT 1",
        "SELECT * FROM file('../metadata/default.sql', 'LineAsString')",
        "SELECT * FROM file('a.csv', 'LineAsString'), file('../../a', 'LineAsString')",
    ] {
        let answer = server.post("", sql.as_bytes());
        assert_eq!((answer.status, answer.code()), (500, 291), "{sql}: {}", answer.text());
    }
    assert_eq!(server.sql("SELECT count() FROM file('out/*', 'LineAsString', 'line String')"), "0\n");
    assert_eq!(names(outside.path()), ["secret.tsv"]);
    assert_eq!(names(&folder), ["a.csv", "c.csv", "deeper", "link.tsv", "out"]);
}

#[test]
fn the_kernel_refuses_files_that_the_tokens_do_not_show() {
    if !kernel_confines() {
        return;
    }
    let server = server_with_table();
    let outside = tempfile::tempdir().expect("a directory");
    let secret = outside.path().join("secret.tsv");
    fs::write(&secret, "secret\n").expect("writes");
    server.sql("CREATE TABLE texts (a String) ENGINE = Memory");
    for place in [secret.to_str().expect("UTF-8"), "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline"] {
        let hidden = format!(
            "SELECT y FROM format(JSONEachRow, 'x String, y String DEFAULT file(''{place}'')', '{{\"x\":\"1\"}}')"
        );
        let answer = server.post("", hidden.as_bytes());
        assert_eq!(answer.code(), 291, "{place}: {}", answer.text());
        let among_rows = format!("INSERT INTO texts VALUES (file('{place}'))");
        assert_eq!(server.refused("", among_rows.as_bytes()), (500, 291), "{place}");
    }
    assert_eq!(server.sql("SELECT count() FROM texts"), "0\n");
    // The engine's own work inside the data directory is not affected.
    server.sql("CREATE TABLE u (a Int8, b Int8) ENGINE = MergeTree ORDER BY a");
    server.sql("INSERT INTO u VALUES (1, 2)");
    server.sql("ALTER TABLE u UPDATE b = 3 WHERE 1 SETTINGS mutations_sync = 2");
    server.sql("OPTIMIZE TABLE u FINAL");
    server.sql("ALTER TABLE u FREEZE");
    server.sql("RENAME TABLE u TO v");
    assert_eq!(server.sql("SELECT * FROM v"), "1\t3\n");
}

#[test]
fn relative_names_and_configurations_are_not_read_from_the_working_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let elsewhere = tempfile::tempdir().expect("a directory");
    // An engine that read this file would not start: the element is not closed.
    fs::write(elsewhere.path().join("config.xml"), "<clickhouse>").expect("writes");
    fs::write(elsewhere.path().join("rows.csv"), "1\n").expect("writes");
    let path = directory.path().join("data");
    let server = Server::start_in(elsewhere.path(), &path);
    assert_eq!(server.refused("", b"SELECT * FROM `rows.csv`"), (404, 60));
    assert_eq!(server.sql("SELECT 1 AS x FORMAT Protobuf"), "\u{2}\u{8}\u{1}");
    assert_eq!(names(elsewhere.path()), ["address", "config.xml", "rows.csv"]);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn pages_of_this_machine_may_send_requests_and_read_answers() {
    let server = Server::start(&[]);
    let page = ("Origin", "http://localhost:5173");
    let asked = [
        page,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-encoding"),
    ];
    let preflight = server.send("OPTIONS", "query=SELECT+1", &asked, b"");
    let header = |name: &str| preflight.header(name).map(str::to_owned);
    assert_eq!((preflight.status, preflight.body.as_slice()), (204, b"".as_slice()));
    assert_eq!(header("Access-Control-Allow-Origin").as_deref(), Some("http://localhost:5173"));
    assert_eq!(header("Access-Control-Allow-Methods").as_deref(), Some("GET, HEAD, POST, PUT, OPTIONS"));
    assert_eq!(header("Access-Control-Allow-Headers").as_deref(), Some("authorization,content-encoding"));
    assert_eq!(header("Access-Control-Max-Age").as_deref(), Some("86400"));
    assert_eq!(preflight.headers.iter().filter(|(name, _)| name == "vary").count(), 1);

    let may_read = |address: &str, sql: &str| {
        let answer = server.send("POST", address, &[page], sql.as_bytes());
        (answer.status, answer.header("Access-Control-Allow-Origin").map(str::to_owned))
    };
    let allowed = Some("http://localhost:5173".to_owned());
    assert_eq!(may_read("add_http_cors_header=1", "SELECT 1"), (200, allowed.clone()));
    assert_eq!(may_read("", "SELECT 1"), (200, allowed.clone()));
    assert_eq!(may_read("", "SELECT nowhere"), (404, allowed.clone()));
    assert_eq!(may_read("wait_end_of_query=maybe", "SELECT 1"), (500, allowed));
    assert_eq!(may_read("add_http_cors_header=0", "SELECT 1"), (200, None));
    let exposed = server.send("POST", "", &[page], b"SELECT 1");
    let exposed = exposed.header("Access-Control-Expose-Headers").expect("names headers");
    assert!(exposed.contains("X-ClickHouse-Query-Id, X-ClickHouse-Summary"), "{exposed}");
    let alone = server.send("OPTIONS", "", &[], b"");
    assert_eq!((alone.status, alone.header("Allow")), (204, Some("GET, HEAD, POST, PUT, OPTIONS")));
    assert_eq!(alone.header("Access-Control-Allow-Origin"), None);
    assert_eq!(server.post("", b"SELECT 1").header("Access-Control-Allow-Origin"), None);
}

#[test]
fn pages_of_other_sites_may_not() {
    let server = server_with_table();
    // The request of a form on any page, which browsers send without a preflight.
    let form = [("Origin", "https://evil.example"), ("Content-Type", "text/plain")];
    let refused = |headers: &[(&str, &str)], method: &str| {
        let answer = server.send(method, &query("SELECT a FROM t"), headers, b"");
        (answer.status, answer.code(), answer.header("Access-Control-Allow-Origin").is_some())
    };
    let dropped = server.send("POST", "", &form, b"DROP TABLE t");
    assert_eq!((dropped.status, dropped.code()), (403, 497));
    assert!(dropped.text().contains("--allow-origin https://evil.example"), "{}", dropped.text());
    assert_eq!(refused(&form, "POST"), (403, 497, false));
    assert_eq!(refused(&form, "OPTIONS"), (403, 497, false));
    assert_eq!(refused(&[("Origin", "null")], "POST"), (403, 497, false));
    let sandboxed = server.send("POST", "", &[("Origin", "null")], b"SELECT 1").text();
    assert!(sandboxed.contains("--allow-origin '*' to let them"), "{sandboxed}");
    // The request of an image on any page, and of a page whose name points to this machine.
    assert_eq!(refused(&[("Sec-Fetch-Site", "cross-site")], "GET"), (403, 497, false));
    assert_eq!(server.send_to("evil.example:80", "GET", &query("SELECT 1")).code(), 497);
    assert_eq!(server.send_to("localhost:80", "GET", &query("SELECT 1")).text(), "1\n");
    assert_eq!(server.sql("SELECT a FROM t"), "7\n");

    let named =
        Server::start(&["--allow-origin", "https://app.example", "--allow-origin", "http://b.example:81"]);
    for origin in ["https://app.example", "http://b.example:81", "http://127.0.0.1:9"] {
        let answer = named.send("POST", "", &[("Origin", origin)], b"SELECT 1");
        assert_eq!((answer.status, answer.header("Access-Control-Allow-Origin")), (200, Some(origin)));
    }
    assert_eq!(named.send("POST", "", &[("Origin", "http://b.example")], b"SELECT 1").code(), 497);
    let directory = tempfile::tempdir().expect("a directory");
    let broken = server::command(directory.path(), &["--allow-origin", "app.example"]).output();
    let broken = broken.expect("runs");
    assert_eq!(broken.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(reason.contains("--allow-origin app.example is no origin"), "{reason}");
}
