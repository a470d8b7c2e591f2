//! clickhouse-embedded over plain HTTP: its answers are those of a ClickHouse server, byte for byte where it
//! matters.

mod server;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use server::{Answer, Server, escape, read_answer};

/// A query that runs until it is stopped.
const ENDLESS: &str = "SELECT sum(sleepEachRow(0.01)) FROM system.numbers SETTINGS max_block_size = 1";

#[test]
fn queries_come_in_the_address_the_body_or_both() {
    let server = Server::start(&[]);
    let get = |address: &str| server.send("GET", address, &[], b"");
    assert_eq!(get("").text(), "Ok.\n");
    assert_eq!(get("query=SELECT%201%2B1").text(), "2\n");
    assert_eq!(server.sql("SELECT 'a\tb'"), "a\\tb\n");
    assert_eq!(server.sql_with("query=SELECT+number+FROM", "numbers(2) FORMAT CSV"), "0\n1\n");
    assert_eq!(server.sql("-- a note\nSELECT 1; "), "1\n");
    assert_eq!(server.send("GET", "query=DROP+TABLE+t", &[], b"").code(), 164);
    assert_eq!(get("query=SHOW+DATABASES+LIKE+'def%25'").text(), "default\n");

    let ping = |path: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sends");
        let answer = read_answer(stream);
        (answer.status, answer.text().lines().next().unwrap_or("").to_owned())
    };
    assert_eq!(ping("/ping"), (200, "Ok.".to_owned()));
    assert_eq!(ping("/replicas_status"), (200, "Ok.".to_owned()));
    assert_eq!(ping("/nowhere"), (404, "There is no handle /nowhere".to_owned()));
}

#[test]
fn parameters_settings_formats_and_databases_are_the_requests_own() {
    let server = Server::start(&[]);
    let bound = format!("param_s={}&param_n=7", escape("it's; \\\\ \\n"));
    assert_eq!(server.sql_with(&bound, "SELECT {n:UInt8} + 1, {s:String}"), "8\tit\\'s; \\\\ \\n\n");
    assert_eq!(server.refused("", b"SELECT {n:UInt8}"), (500, 456));
    assert_eq!(server.sql_with("max_threads=3", "SELECT getSetting('max_threads')"), "3\n");
    let quoted = format!("log_comment={}", escape("a', max_threads = '9\\"));
    assert_eq!(
        server.sql_with(&quoted, "SELECT getSetting('log_comment') FORMAT RawBLOB"),
        "a', max_threads = '9\\"
    );
    assert_eq!(server.refused("no_such_setting=1", b"SELECT 1"), (404, 115));
    server.sql("CREATE DATABASE d");
    server.sql_with("database=d", "CREATE TABLE t (a UInt8) ENGINE = Memory");
    assert_eq!(server.sql("EXISTS TABLE d.t"), "1\n");
    assert_eq!(server.refused("database=nowhere", b"SELECT 1"), (404, 81));

    let answer = server.post("default_format=JSONCompactEachRow&query_id=mine", b"SELECT 1, 'x'");
    assert_eq!(answer.text(), "[1, \"x\"]\n");
    assert_eq!(answer.header("X-ClickHouse-Format"), Some("JSONCompactEachRow"));
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson; charset=UTF-8"));
    assert_eq!(answer.header("X-ClickHouse-Query-Id"), Some("mine"));
    assert!(answer.header("X-ClickHouse-Server-Display-Name").is_some());
    assert!(answer.header("X-ClickHouse-Timezone").is_some());
    let named = server.send("POST", "", &[("X-ClickHouse-Format", "CSV")], b"SELECT 'x'");
    assert_eq!((named.text().as_str(), named.header("X-ClickHouse-Format")), ("\"x\"\n", Some("CSV")));
    let summary = server.post("", b"SELECT * FROM numbers(1000)");
    let summary = summary.header("X-ClickHouse-Summary").expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(summary).expect("JSON");
    assert_eq!((&summary["read_rows"], &summary["result_rows"]), (&"1000".into(), &"1000".into()));
}

#[test]
fn errors_have_clickhouses_codes_and_statuses() {
    let server = Server::start(&[]);
    for (sql, expected) in [
        ("SELEC 1", (400, 62)),
        ("", (400, 62)),
        ("exit", (400, 62)),
        ("SELECT 1; SELECT 2", (400, 62)),
        ("SELECT * FROM nowhere", (404, 60)),
        ("SELECT nowhere", (404, 47)),
        ("SELECT 1 FORMAT Nowhere", (404, 73)),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", (500, 358)),
        ("INSERT INTO t FROM INFILE 'x' FORMAT CSV", (404, 78)),
        ("SELECT throwIf(1)", (500, 395)),
        ("SELECT sleep(3) SETTINGS max_execution_time = 1", (408, 159)),
    ] {
        assert_eq!(server.refused("", sql.as_bytes()), expected, "{sql}");
    }
    let text = server.post("", b"SELECT throwIf(1, 'a reason')").text();
    assert!(text.starts_with("Code: 395. DB::Exception: a reason: "), "{text}");
    assert!(text.trim_end().ends_with("(official build))"), "{text}");
}

#[test]
fn one_user_with_a_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "open sesame\n").expect("writes");
    let server = Server::start(&["--user", "app", "--password-file", file.to_str().expect("UTF-8")]);
    let status = |address: &str, headers: &[(&str, &str)]| {
        let answer = server.send("POST", address, headers, b"SELECT 1");
        (answer.status, answer.code())
    };
    assert_eq!(status("user=app&password=open+sesame", &[]), (200, 0));
    assert_eq!(status("", &[("X-ClickHouse-User", "app"), ("X-ClickHouse-Key", "open sesame")]), (200, 0));
    assert_eq!(status("", &[("Authorization", "Basic YXBwOm9wZW4gc2VzYW1l")]), (200, 0));
    assert_eq!(status("", &[]), (403, 516));
    assert_eq!(status("user=app&password=open", &[]), (403, 516));
    assert_eq!(status("user=default&password=open+sesame", &[]), (403, 516));
}

#[test]
fn sessions_keep_tables_and_settings() {
    let server = Server::start(&[]);
    server.sql_with("session_id=a", "CREATE TEMPORARY TABLE own (n UInt8)");
    server.sql_with("session_id=a&query=INSERT+INTO+own+FORMAT+CSV", "1\n2\n");
    assert_eq!(server.sql_with("session_id=a", "SELECT sum(n) FROM own"), "3\n");
    assert_eq!(server.refused("session_id=b", b"SELECT sum(n) FROM own"), (404, 60));
    assert_eq!(server.refused("", b"SELECT sum(n) FROM own"), (404, 60));
    server.sql_with("session_id=a", "SET max_block_size = 1234");
    let asked = "SELECT getSetting('max_block_size'), currentDatabase()";
    assert_eq!(server.sql_with("session_id=a&max_block_size=99&database=system", asked), "99\tsystem\n");
    assert_eq!(server.sql_with("session_id=a", asked), "1234\tdefault\n");
    server.sql_with("session_id=a", "USE system");
    assert_eq!(server.sql_with("session_id=a", asked), "1234\tsystem\n");
    // A failed query leaves the session as it was.
    assert_eq!(server.refused("session_id=a&max_block_size=98", b"SELECT nowhere"), (404, 47));
    assert_eq!(server.sql_with("session_id=a", asked), "1234\tsystem\n");

    assert_eq!(server.refused("session_id=new&session_check=1", b"SELECT 1"), (404, 372));
    thread::scope(|scope| {
        let first = scope.spawn(|| server.refused("session_id=a&query_id=first", ENDLESS.as_bytes()));
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'first'", "1\n");
        assert_eq!(server.refused("session_id=a", b"SELECT 1"), (500, 373));
        server.sql("KILL QUERY WHERE query_id = 'first' SYNC");
        assert_eq!(first.join().expect("ends"), (500, 394));
    });
    assert_eq!(server.sql_with("session_id=a&session_check=1", asked), "1234\tsystem\n");
}

#[test]
fn a_killed_query_is_gone_when_kill_sync_answers() {
    let server = Server::start(&[]);
    let started = Instant::now();
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.refused("query_id=slow", ENDLESS.as_bytes()));
        server.wait_for("SELECT query_id FROM system.processes WHERE query_id = 'slow'", "slow\n");
        // In seconds since the request arrived.
        let elapsed = server.sql("SELECT elapsed FROM system.processes WHERE query_id = 'slow'");
        let elapsed: f64 = elapsed.trim().parse().expect("a number");
        assert!(0.0 < elapsed && elapsed <= started.elapsed().as_secs_f64(), "{elapsed}");
        // Only one query with an id runs at a time.
        assert_eq!(server.refused("query_id=slow", b"SELECT 1"), (500, 216));
        let test = server.sql("KILL QUERY WHERE query_id = 'slow' TEST FORMAT CSV");
        assert!(test.starts_with("\"unknown_status\",\"slow\",\"default\",\"SELECT sum"), "{test}");
        let killed =
            server.sql_with("param_id=slow", "KILL QUERY WHERE query_id = {id:String} SYNC FORMAT CSV");
        assert!(killed.starts_with("\"finished\",\"slow\",\"default\",\"SELECT sum"), "{killed}");
        assert_eq!(server.sql("SELECT count() FROM system.processes WHERE query_id = 'slow'"), "0\n");
        assert_eq!(slow.join().expect("ends"), (500, 394));
    });
    assert_eq!(server.sql("KILL QUERY WHERE query_id = 'slow' SYNC"), "");
    // A query is killed by its text, without waiting for its end.
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.refused("query_id=slow", ENDLESS.as_bytes()));
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'slow'", "1\n");
        let killed = server.sql("KILL QUERY WHERE query LIKE '%sleepEachRow%' AND elapsed > 0");
        assert!(killed.starts_with("waiting\tslow\tdefault\t"), "{killed}");
        assert_eq!(slow.join().expect("ends"), (500, 394));
    });
    // A newer query replaces the one with its id.
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.refused("query_id=slow", ENDLESS.as_bytes()));
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'slow'", "1\n");
        assert_eq!(server.sql_with("query_id=slow&replace_running_query=1", "SELECT 2"), "2\n");
        assert_eq!(slow.join().expect("ends"), (500, 394));
    });
}

#[test]
fn a_query_whose_body_still_arrives_can_be_killed() {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    let mut stream = server.connect();
    let head = "POST /?query_id=up&query=INSERT+INTO+t+FORMAT+RowBinary HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 800\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sends");
    stream.write_all(&[1; 80]).expect("sends");
    server.wait_for(
        "SELECT query FROM system.processes WHERE query_id = 'up'",
        "INSERT INTO t FORMAT RowBinary\n",
    );
    assert_eq!(
        server.sql("KILL QUERY WHERE query_id = 'up' SYNC"),
        "finished\tup\tdefault\tINSERT INTO t FORMAT RowBinary\n"
    );
    assert_eq!(read_answer(stream).code(), 394);
    assert_eq!(server.sql("SELECT count() FROM t"), "0\n");
}

#[test]
fn a_client_that_leaves_stops_its_reads_but_not_its_writes() {
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a");
    let leave = |id: &str, sql: &str| {
        let mut stream = server.connect();
        let length = sql.len();
        let head =
            format!("POST /?query_id={id} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{sql}");
        stream.write_all(head.as_bytes()).expect("sends");
        server.wait_for(&format!("SELECT count() FROM system.processes WHERE query_id = '{id}'"), "1\n");
    };
    // This query ends only if it is stopped.
    leave("read", ENDLESS);
    server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'read'", "0\n");
    leave("write", "INSERT INTO t SELECT sleepEachRow(0.5) + 7 FROM numbers(3)");
    server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'write'", "0\n");
    assert_eq!(server.sql("SELECT a, count() FROM t GROUP BY a"), "7\t3\n");
}

#[test]
fn queries_run_in_parallel_within_the_limit() {
    let server = Server::start(&["--max-concurrent-queries", "4"]);
    let send = |id: &str| {
        let mut stream = server.connect();
        let head = format!("POST /?query_id={id} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        let rest = format!("Content-Length: {}\r\n\r\n{ENDLESS}", ENDLESS.len());
        stream.write_all((head + &rest).as_bytes()).expect("sends");
        stream
    };
    let mut endless: Vec<TcpStream> = Vec::new();
    for count in 1..=3 {
        endless.push(send(&format!("endless{count}")));
        // All of them are running, and so is the query that counts them.
        let running = "SELECT count() FROM system.processes WHERE query_id LIKE 'endless%'";
        server.wait_for(running, &format!("{count}\n"));
    }
    // The fourth gets the last slot, unless the query that checks for it has the slot at that moment.
    let fourth = thread::scope(|scope| {
        let fourth = scope.spawn(|| {
            loop {
                let answer = read_answer(send("endless4"));
                if answer.status != 503 {
                    return answer;
                }
            }
        });
        let full = |answer: &Answer| (answer.status, answer.code()) == (503, 202);
        while !full(&server.post("", b"SELECT 1")) {}
        // Clients that leave free their slots, for the KILL QUERY.
        drop(endless);
        while full(&server.post("", b"KILL QUERY WHERE query_id = 'endless4' SYNC")) {}
        fourth.join().expect("ends")
    });
    assert_eq!(fourth.code(), 394);
    assert_eq!(server.sql("SELECT 1"), "1\n");
}

#[test]
fn a_large_result_streams_in_bounded_memory() {
    let server = Server::start(&[]);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("readable");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok()).expect("kilobytes") * 1024
    };
    server.sql("SELECT number, toString(number) FROM numbers(1000000) FORMAT Null");
    let before = resident();
    let answer = server.post("", b"SELECT number, repeat('x', 90) FROM numbers(3000000)");
    assert!(answer.whole);
    assert_eq!(answer.body.len(), 3_000_000 * 92 + 19_888_890);
    let grown = resident() - before;
    assert!(grown < 150 << 20, "a result of {} bytes took {grown} bytes of memory", answer.body.len());
}

#[test]
fn an_exception_in_the_middle_cannot_be_overlooked() {
    let server = Server::start(&[]);
    let failing = b"SELECT rand64(), throwIf(number = 1000000, 'too far') FROM numbers(2000000)";
    let answer = server.post("", failing);
    assert_eq!((answer.status, answer.whole), (200, false));
    let tag = answer.header("X-ClickHouse-Exception-Tag").expect("a tag");
    let text = answer.text();
    let (_, exception) = text.split_once("\r\n__exception__\r\n").expect("an exception behind the rows");
    let exception =
        exception.strip_prefix(&format!("{tag}\r\nCode: 395. DB::Exception: too far: ")).expect(exception);
    assert!(exception.ends_with(&format!(" {tag}\r\n__exception__\r\n")), "{exception}");
    // With wait_end_of_query the answer has an error status.
    assert_eq!(server.refused("wait_end_of_query=1", failing), (500, 395));
    let waited = server.post("wait_end_of_query=1", b"SELECT number FROM numbers(1000000)");
    assert_eq!((waited.status, waited.whole, waited.body.len()), (200, true, 6_888_890));
    let summary = waited.header("X-ClickHouse-Summary").expect("a summary");
    assert!(summary.contains("\"result_rows\":\"1000000\""), "{summary}");
}

#[test]
fn a_large_result_is_one_document_in_every_format() {
    let server = Server::start(&[]);
    let rows = 400_000;
    let sql = |format: &str| {
        format!("SELECT number AS n, toString(n) AS \"a\nb\" FROM numbers({rows}) FORMAT {format}")
    };
    let lines = |format: &str| {
        let answer = server.post("", sql(format).as_bytes());
        assert!(answer.whole && answer.status == 200, "{format}: {}", answer.status);
        answer.text().lines().count()
    };
    // The name of the second column has a line end, which TSV escapes and CSV quotes.
    for (format, head) in [
        ("TSV", 0),
        ("TSVWithNames", 1),
        ("TSVWithNamesAndTypes", 2),
        ("CSV", 0),
        ("CSVWithNames", 2),
        ("CSVWithNamesAndTypes", 3),
        ("JSONEachRow", 0),
        ("JSONCompactEachRowWithNamesAndTypes", 2),
    ] {
        assert_eq!(lines(format), rows + head, "{format}");
    }
    for format in ["JSON", "JSONCompact"] {
        let answer = server.post("", sql(format).as_bytes());
        let document: serde_json::Value = serde_json::from_slice(&answer.body).expect(format);
        assert_eq!(document["data"].as_array().map(Vec::len), Some(rows), "{format}");
        assert_eq!(document["rows"], rows, "{format}");
    }
    // The engine itself reads binary formats back.
    for format in ["Native", "RowBinaryWithNamesAndTypes", "Parquet", "ArrowStream", "Arrow", "ORC", "Avro"] {
        let named = sql(format).replace("\"a\nb\"", "s");
        let answer = server.post("", named.as_bytes());
        assert!(answer.whole && answer.status == 200, "{format}: {}", answer.text());
        let structure = "n UInt64, s String";
        let counted = format!("query=SELECT+count(),sum(n),max(s)+FROM+input('{structure}')");
        server.sql("CREATE OR REPLACE TABLE back (c UInt64, t UInt64, m String) ENGINE = Memory");
        let insert = format!("query=INSERT+INTO+back+{}+FORMAT+{format}", &counted["query=".len()..]);
        let inserted = server.post(&escape_spaces(&insert), &answer.body);
        assert_eq!(inserted.status, 200, "{format}: {}", inserted.text());
        assert_eq!(server.sql("SELECT * FROM back"), "400000\t79999800000\t99999\n", "{format}");
    }
}

fn escape_spaces(address: &str) -> String {
    address.replace(' ', "+")
}

#[test]
fn empty_results_totals_and_extremes_are_a_servers() {
    let server = Server::start(&[]);
    let none = "SELECT number AS n FROM numbers(10) WHERE n > 99 FORMAT ";
    for (format, expected) in
        [("TSV", ""), ("CSVWithNames", "\"n\"\n"), ("TSVWithNamesAndTypes", "n\nUInt64\n"), ("Native", "")]
    {
        assert_eq!(server.sql(&format!("{none}{format}")), expected, "{format}");
    }
    let totals = "SELECT number % 2 AS k, count() FROM numbers(5) GROUP BY k WITH TOTALS ORDER BY k FORMAT ";
    assert_eq!(server.sql(&format!("{totals}TSV")), "0\t3\n1\t2\n\n0\t5\n");
    let document: serde_json::Value =
        serde_json::from_str(&server.sql(&format!("{totals}JSONCompact"))).expect("JSON");
    assert_eq!((&document["totals"], &document["rows"]), (&serde_json::json!([0, 5]), &2.into()));
    assert_eq!(server.sql_with("extremes=1", "SELECT number FROM numbers(3)"), "0\n1\n2\n\n0\n2\n");
}

#[test]
fn external_tables_exist_as_long_as_their_query() {
    let server = Server::start(&[]);
    let form = "--b\r\nContent-Disposition: form-data; name=\"ext\"; filename=\"ext\"\r\n\r\n1\tone\n2\ttwo\n\r\n--b--\r\n";
    let ask = |address: &str| {
        let form_type = [("Content-Type", "multipart/form-data; boundary=b")];
        let answer = server.send("POST", address, &form_type, form.as_bytes());
        (answer.status, answer.code(), answer.text())
    };
    let typed = "query=SELECT+_2+FROM+ext+WHERE+_1=2&ext_types=UInt8,String";
    assert_eq!(ask(typed), (200, 0, "two\n".to_owned()));
    let named =
        "query=SELECT+b+FROM+ext+ORDER+BY+a&ext_structure=a+UInt8,b+String&ext_format=TSV&max_threads=1";
    assert_eq!(ask(named), (200, 0, "one\ntwo\n".to_owned()));
    assert_eq!(ask(&format!("{named}&session_id=s")), (200, 0, "one\ntwo\n".to_owned()));
    assert_eq!(ask(&format!("{named}&session_id=s")), (200, 0, "one\ntwo\n".to_owned()));
    assert_eq!(server.refused("session_id=s", b"SELECT * FROM ext"), (404, 60));
    let (status, code, _) = ask("query=SELECT+1+FROM+ext");
    assert_eq!((status, code), (400, 36));
    let (status, code, _) = ask("query=SELECT+1+FROM+ext&ext_structure=a+UInt8,b+UInt8");
    assert_eq!((status, code), (400, 27));
}
