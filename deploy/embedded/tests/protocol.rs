//! Details of clickhouse-embedded that clients rely on: the format of the answer, characters beyond ASCII,
//! long URLs, the end of a session, response headers that the client sets.

mod server;

use std::io::Write;

use server::{Server, escape, read_answer};

#[test]
fn the_answers_format_is_the_one_that_the_engine_uses() {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE format (format UInt8, ASC UInt8) ENGINE = Memory");
    server.sql("INSERT INTO format VALUES (1, 2)");
    for (sql, format, body) in [
        ("SELECT format FROM (SELECT 1 AS format) ORDER BY format ASC", "JSONEachRow", "{\"format\":1}\n"),
        ("SELECT format FROM (SELECT 1 AS format)", "JSONEachRow", "{\"format\":1}\n"),
        ("SELECT ASC, format json FROM format", "JSONEachRow", "{\"ASC\":2,\"json\":1}\n"),
        ("SELECT 1 AS format, 2 * format CSV", "JSONEachRow", "{\"format\":1,\"CSV\":2}\n"),
        ("SELECT 1 AS x ORDER BY x ASC FORMAT CSV", "CSV", "1\n"),
        ("SELECT 1 AS x FORMAT CSV SETTINGS max_threads = 1;", "CSV", "1\n"),
        ("SELECT 1 AS x SETTINGS max_threads = 1 FORMAT `CSV` -- end", "CSV", "1\n"),
        ("SELECT * FROM format FORMAT CSV", "CSV", "1,2\n"),
        ("SELECT (SELECT 1 AS x) AS y FORMAT CSV", "CSV", "1\n"),
        ("SELECT 'FORMAT CSV' AS x", "JSONEachRow", "{\"x\":\"FORMAT CSV\"}\n"),
        ("SELECT {x:String} AS x FORMAT CSV", "CSV", "\"FORMAT TSV\"\n"),
        ("SHOW TABLES FORMAT CSV", "CSV", "\"format\"\n"),
        ("EXISTS TABLE format", "JSONEachRow", "{\"result\":1}\n"),
        ("EXISTS TABLE format FORMAT CSV", "CSV", "1\n"),
        ("KILL QUERY WHERE query_id = 'none' FORMAT CSV", "CSV", ""),
    ] {
        let address = format!("default_format=JSONEachRow&param_x={}", escape("FORMAT TSV"));
        let answer = server.post(&address, sql.as_bytes());
        let found = (answer.status, answer.header("X-ClickHouse-Format"));
        assert_eq!((found, answer.text().as_str()), ((200, Some(format)), body), "{sql}");
    }
    // Here the clause belongs to the explained statement.
    let explained = server.post("default_format=JSONEachRow", b"EXPLAIN AST SELECT 1 FORMAT CSV");
    assert_eq!(explained.header("X-ClickHouse-Format"), Some("JSONEachRow"));
    assert!(explained.text().starts_with("{\"explain\":"), "{}", explained.text());
    let json = server.post("default_format=JSON", b"SELECT format FROM format ORDER BY format ASC");
    assert_eq!(json.header("Content-Type"), Some("application/json; charset=UTF-8"));
    let ends = server.post("max_result_rows=1&output_format_tsv_crlf_end_of_line=1", b"SELECT 1 FORMAT CSV");
    assert_eq!((ends.header("X-ClickHouse-Format"), ends.text().as_str()), (Some("CSV"), "1\n"));
    let small = server.post("", b"SELECT 1 FORMAT csv");
    assert_eq!(small.header("Content-Type"), Some("text/csv; charset=UTF-8; header=absent"));
    // A column called format does not change how the chunks of a large result are concatenated.
    let large = "SELECT number AS format FROM numbers(400000) ORDER BY format DESC";
    let answer = server.post("default_format=JSON", large.as_bytes());
    assert_eq!(answer.header("X-ClickHouse-Format"), Some("JSON"));
    let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("one document");
    assert_eq!(document["rows"], 400_000);
}

#[test]
fn characters_that_the_engine_skips_or_quotes_with() {
    let server = Server::start(&[]);
    for blank in ["\u{feff}", "\u{a0}", "\u{3000}", "\u{2003}", "\u{200b}", "\u{85}", "\u{2028}"] {
        assert_eq!(server.sql(&format!("{blank}SELECT{blank}1{blank}")), "1\n", "{blank:?}");
        assert_eq!(server.sql(&format!("{blank}SELECT 1{blank}FORMAT{blank}CSV")), "1\n", "{blank:?}");
    }
    server.sql("\u{feff}CREATE TABLE t (a String) ENGINE = Memory");
    server.sql("\u{feff}INSERT\u{a0}INTO t FORMAT CSV\n1\n");
    server.sql("\u{3000}INSERT INTO t VALUES ('2')");
    assert_eq!(server.sql("SELECT a FROM t ORDER BY a"), "1\n2\n");
    assert_eq!(server.sql("SELECT ‘it's; FORMAT CSV’ AS “a`b”"), "it\\'s; FORMAT CSV\n");
    assert_eq!(server.sql("SELECT ‘; SELECT 2’, 5 − 3"), "; SELECT 2\t2\n");
    assert_eq!(server.sql("/* /* ' */ ; ' */ SELECT 1"), "1\n");
    assert_eq!(server.refused("", "SELECT 1\u{a0};\u{a0}SELECT 2".as_bytes()), (400, 62));
}

#[test]
fn rows_after_an_insert_with_with_are_rows() {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (a String) ENGINE = Memory");
    // The client part of the engine would run a statement after the empty line.
    server.sql("WITH 1 AS x INSERT INTO t FORMAT LineAsString\na\n\nDROP TABLE t");
    assert_eq!(server.sql("SELECT a FROM t"), "a\n\nDROP TABLE t\n");
    server.sql_with("query=WITH+1+AS+x+INSERT+INTO+t+VALUES", "('b')");
    assert_eq!(server.sql("SELECT count() FROM t"), "4\n");
}

#[test]
fn rows_of_input_are_read_as_its_columns() {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a");
    let insert = |sql: &str, session: &str, rows: &str| {
        server.sql_with(&format!("{session}&query={}", escape(sql)), rows);
        let found = server.sql("SELECT * FROM t ORDER BY a, b");
        server.sql("TRUNCATE TABLE t");
        found
    };
    for session in ["", "session_id=s"] {
        let named = "INSERT INTO t SELECT n * 2, concat('in ', e) FROM input('n UInt64, e Enum8(\\'x\\' = 1)') FORMAT CSV";
        assert_eq!(insert(named, session, "1,x\n2,x\n"), "2\tin x\n4\tin x\n");
        let joined = "INSERT INTO t (a) SELECT sum(i.n) FROM input('n UInt64') AS i FORMAT JSONEachRow";
        assert_eq!(insert(joined, session, "{\"n\":1}{\"n\":2}"), "3\t\n");
        let inferred = "INSERT INTO t SELECT c1, c2 FROM input() FORMAT CSV";
        assert_eq!(insert(inferred, session, "5,five\n"), "5\tfive\n");
    }
    let types = "query=INSERT+INTO+t+SELECT+n,''+FROM+input('n+UInt64')+FORMAT+CSV";
    assert_eq!(server.refused(types, b"word\n"), (400, 117));
    let columns = format!(
        "query={}",
        escape("INSERT INTO t SELECT 1, '' FROM input('a UInt8) ENGINE = Memory') FORMAT CSV")
    );
    assert_eq!(server.refused(&columns, b"1\n"), (400, 62));
    assert_eq!(server.sql_with("session_id=s", "SHOW TEMPORARY TABLES"), "");
    assert_eq!(server.sql("SELECT count() FROM t"), "0\n");
}

#[test]
fn a_url_may_have_a_mebibyte() {
    let server = Server::start(&[]);
    let get = |bytes: usize| {
        let head = "query=SELECT+length({x:String})&param_x=";
        let value = "x".repeat(bytes - "/?".len() - head.len());
        let answer = server.send("GET", &format!("{head}{value}"), &[], b"");
        (answer.status, answer.code(), answer.text(), value.len())
    };
    for bytes in [59_999, 60_001, 65_534, 65_535, 70_000, 1 << 20] {
        let (status, _, text, length) = get(bytes);
        assert_eq!((status, text), (200, format!("{length}\n")), "{bytes} bytes");
    }
    for bytes in [(1 << 20) + 1, 1_500_000, 5_000_000] {
        let (status, code, text, _) = get(bytes);
        assert_eq!((status, code), (414, 408), "{bytes} bytes: {text}");
        assert!(text.contains("the address has more than 1048576 bytes (http_max_uri_size)"), "{text}");
    }
    // Several requests on one connection, with bodies between them.
    let mut stream = server.connect();
    let long = "x".repeat(70_000);
    let requests = [
        format!("POST /?param_x={long}&query=SELECT+length({{x:String}}) HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n, 1 "),
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nSEL\r\n5\r\nECT 2\r\n0\r\n\r\n".to_owned(),
        format!("GET /?query=SELECT+3&param_x={long} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"),
    ];
    stream.write_all(requests.concat().as_bytes()).expect("sends");
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut all).expect("reads");
    let text = String::from_utf8_lossy(&all).into_owned();
    let bodies: Vec<&str> =
        text.split("\r\n\r\n").skip(1).map(|part| part.split('\n').next().unwrap_or("")).collect();
    assert_eq!(bodies, ["70000\t1", "2", "3"], "{text}");
    let ping = |path: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sends");
        let answer = read_answer(stream);
        (answer.status, answer.text())
    };
    assert_eq!(ping(&format!("/ping?{long}")), (200, "Ok.\n".to_owned()));
    assert_eq!(ping("/address-put-aside").0, 404);
}

#[test]
fn a_session_ends_with_the_query_that_closes_it() {
    let server = Server::start(&[]);
    let own = "SELECT count() FROM own";
    server.sql_with("session_id=a", "CREATE TEMPORARY TABLE own (n UInt8)");
    assert_eq!(server.sql_with("session_id=a&close_session=0", own), "0\n");
    assert_eq!(server.sql_with("session_id=a&close_session=1", own), "0\n");
    assert_eq!(server.refused("session_id=a&session_check=1", b"SELECT 1"), (404, 372));
    assert_eq!(server.refused("session_id=a", own.as_bytes()), (404, 60));
    // A query that fails also ends it, whether it fails in the engine or before.
    for failing in ["SELECT nowhere", "SELEC"] {
        server.sql_with("session_id=b", "CREATE TEMPORARY TABLE own (n UInt8)");
        let answer = server.post("session_id=b&close_session=1", failing.as_bytes());
        assert_ne!(answer.status, 200, "{failing}");
        assert_eq!(server.refused("session_id=b&session_check=1", b"SELECT 1"), (404, 372), "{failing}");
    }
    // A new session can end with its first query. A session that must exist is not created.
    assert_eq!(server.sql_with("session_id=c&close_session=1", "SELECT 1"), "1\n");
    assert_eq!(server.refused("session_id=c&session_check=1&close_session=1", b"SELECT 1"), (404, 372));
    assert_eq!(server.refused("session_id=c&close_session=maybe", b"SELECT 1"), (500, 408));
    // The shortest session ends at once, the longest after an hour.
    server.sql_with("session_id=d&session_timeout=0", "CREATE TEMPORARY TABLE own (n UInt8)");
    assert_eq!(server.refused("session_id=d&session_check=1", b"SELECT 1"), (404, 372));
    server.sql_with("session_id=d&session_timeout=3600", "CREATE TEMPORARY TABLE own (n UInt8)");
    assert_eq!(server.sql_with("session_id=d&session_check=1", own), "0\n");
    for timeout in ["3601", "-1", "x", ""] {
        let address = format!("session_id=d&session_timeout={timeout}");
        assert_eq!(server.refused(&address, b"SELECT 1"), (500, 374), "{timeout:?}");
    }
}

#[test]
fn the_response_has_the_headers_that_the_client_sets() {
    let server = Server::start(&[]);
    let headers = |address: &str, sql: &str| {
        let answer = server.post(address, sql.as_bytes());
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        let all: Vec<&(String, String)> = answer
            .headers
            .iter()
            .filter(|(name, _)| ["x-my", "content-type"].contains(&name.as_str()))
            .collect();
        all.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    let wanted = format!("http_response_headers={}", escape("{'X-My':'it\\'s','Content-Type':'image/png'}"));
    assert_eq!(headers(&wanted, "SELECT 1"), ["content-type: image/png", "x-my: it's"]);
    let plain = "content-type: text/tab-separated-values; charset=UTF-8";
    assert_eq!(headers("", "SELECT 1"), [plain]);
    let clause = "SELECT 1 SETTINGS http_response_headers = {'X-My': '2'}";
    assert_eq!(headers("", clause), [plain, "x-my: 2"]);
    assert_eq!(headers(&wanted, clause), [plain, "x-my: 2"]);
    // A session keeps the headers of a SET.
    server.sql_with("session_id=s", "SET http_response_headers = '{\\'X-My\\': \\'3\\'}'");
    assert_eq!(headers("session_id=s", "SELECT 1"), [plain, "x-my: 3"]);
    assert_eq!(headers("session_id=s", "SELECT number FROM numbers(1000000)"), [plain, "x-my: 3"]);
    server.sql_with("session_id=s", "SET http_response_headers = DEFAULT");
    assert_eq!(headers("session_id=s", "SELECT 1"), [plain]);
    for broken in
        ["{'X':'a\\nSet-Cookie: b'}", "{'X\\r\\nY':'a'}", "{'X Y':'a'}", "{'Content-Length':'0'}", "nothing"]
    {
        let address = format!("http_response_headers={}", escape(broken));
        assert_eq!(server.refused(&address, b"SELECT 1"), (400, 36), "{broken}");
    }
    assert_eq!(server.refused("", b"SELECT 1 SETTINGS http_response_headers = {'X': 'a\\nb'}"), (400, 36));
}
