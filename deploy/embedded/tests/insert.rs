//! Inserts into clickhouse-embedded: in every format, compressed or not, completely or not at all.

mod server;

use std::io::{Read, Write};

use server::{Server, escape, read_answer};

fn server() -> Server {
    let server = Server::start(&["--max-body-bytes", "100000000"]);
    server.sql(
        "CREATE TABLE t (a UInt64, b String DEFAULT 'none', c UInt8 MATERIALIZED 9) ENGINE = MergeTree ORDER BY a \
         SETTINGS non_replicated_deduplication_window = 100",
    );
    server
}

/// Returns the rows of the table and empties it.
fn take_rows(server: &Server) -> String {
    let rows = server.sql("SELECT a, b FROM t ORDER BY a, b");
    server.sql("TRUNCATE TABLE t");
    rows
}

/// `rows` rows as one Native block.
fn native(server: &Server, rows: u64) -> Vec<u8> {
    let sql = format!(
        "SELECT number AS a, toString(number) AS b FROM numbers({rows}) \
         SETTINGS max_block_size = 2000000, max_threads = 1 FORMAT Native"
    );
    server.post("", sql.as_bytes()).body
}

#[test]
fn every_format_inserts_its_rows() {
    let server = server();
    let bytes_of = |sql: &str| server.post("", sql.as_bytes()).body;
    let source =
        "SELECT toUInt64(number + 1) AS a, concat('x;\\'\\n', toString(number)) AS b FROM numbers(2)";
    let expected = "1\tx;\\'\\n0\n2\tx;\\'\\n1\n";
    for format in [
        "Native",
        "RowBinary",
        "RowBinaryWithNamesAndTypes",
        "JSONEachRow",
        "CSV",
        "TabSeparated",
        "Parquet",
        "Values",
    ] {
        let rows = bytes_of(&format!("{source} FORMAT {format}"));
        // The statement in the URL and the rows in the body; then both in the body.
        let address = format!("query={}", escape(&format!("INSERT INTO t (a, b) FORMAT {format}")));
        let answer = server.post(&address, &rows);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{format}");
        let summary = answer.header("X-ClickHouse-Summary").expect("a summary");
        assert!(summary.contains("\"written_rows\":\"2\""), "{format}: {summary}");
        assert_eq!(take_rows(&server), expected, "{format}");
        let together = [format!("INSERT INTO t (a, b) FORMAT {format}\n").as_bytes(), &rows].concat();
        assert_eq!(server.post("", &together).status, 200, "{format}");
        assert_eq!(take_rows(&server), expected, "{format}");
    }
}

#[test]
fn statements_of_every_shape() {
    let server = server();
    server.sql("INSERT INTO t VALUES (1, 'a;b'), (2, DEFAULT), (1 + 2, upper('c'))");
    assert_eq!(take_rows(&server), "1\ta;b\n2\tnone\n3\tC\n");
    server.sql_with("query=INSERT+INTO+t+(a)+VALUES", "(1), (2)");
    assert_eq!(take_rows(&server), "1\tnone\n2\tnone\n");
    server.sql_with("query=INSERT+INTO+t+FORMAT+CSV+1,x", "2,y\n");
    assert_eq!(take_rows(&server), "1\tx\n2\ty\n");
    server.sql(
        "INSERT INTO t SETTINGS async_insert = 0 FORMAT JSONEachRow {\"a\": 1}\n{\"a\": 2, \"b\": \"x\"}",
    );
    assert_eq!(take_rows(&server), "1\tnone\n2\tx\n");
    server.sql_with("query=INSERT+INTO+t+(a,b)+SELECT+n*2,'in'+FROM+input('n+UInt64')+FORMAT+CSV", "1\n2\n");
    assert_eq!(take_rows(&server), "2\tin\n4\tin\n");
    server.sql("INSERT INTO t (a) SELECT number FROM numbers(2)");
    assert_eq!(take_rows(&server), "0\tnone\n1\tnone\n");
    server.sql_with("param_b=it%27s", "INSERT INTO t VALUES (1, {b:String})");
    assert_eq!(take_rows(&server), "1\tit\\'s\n");
    assert_eq!(server.refused("query=INSERT+INTO+nowhere+FORMAT+CSV", b"1"), (404, 60));
    assert_eq!(server.refused("query=INSERT+INTO+t+(a)+FORMAT+TSV", b"word\n"), (400, 27));
    assert_eq!(server.refused("query=INSERT+INTO+t+(a)+FORMAT+CSV", b"word\n"), (400, 117));
    assert_eq!(take_rows(&server), "");
}

#[test]
fn a_block_is_one_part_and_a_token_counts_once() {
    let server = server();
    let parts = "SELECT rows FROM system.parts WHERE table = 't' AND active ORDER BY rows";
    let block = native(&server, 1_048_448);
    let address = "query=INSERT+INTO+t+(a,b)+FORMAT+Native&async_insert=0&insert_deduplication_token=first";
    assert_eq!(server.post(address, &block).status, 200);
    assert_eq!(server.sql(parts), "1048448\n");
    assert_eq!(server.post(address, &block).status, 200);
    assert_eq!(server.sql(parts), "1048448\n");
    // The token decides, not the rows.
    let small = native(&server, 3);
    assert_eq!(server.post(address, &small).status, 200);
    assert_eq!(server.sql("SELECT count() FROM t"), "1048448\n");
    assert_eq!(server.post(&address.replace("first", "second"), &small).status, 200);
    assert_eq!(server.sql("SELECT count() FROM t"), "1048451\n");
}

#[test]
fn a_body_that_is_cut_inserts_nothing() {
    let server = server();
    let block = native(&server, 1000);
    let refused = server.post("query=INSERT+INTO+t+(a,b)+FORMAT+Native", &block[..block.len() - 1]);
    assert_eq!(refused.code(), 33, "{}", refused.text());
    assert!(
        refused.text().starts_with("Code: 33. DB::Exception: Cannot read all data"),
        "{}",
        refused.text()
    );
    assert_eq!(take_rows(&server), "");
    // Complete rows in a body that is cut short.
    let head = "POST /?query_id=cut&query=INSERT+INTO+t+(a)+FORMAT+RowBinary HTTP/1.1\r\nHost: test\r\n";
    for rest in ["Content-Length: 80\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n8\r\n"] {
        let mut stream = server.connect();
        stream.write_all(format!("{head}{rest}").as_bytes()).expect("sends");
        stream.write_all(&[1, 0, 0, 0, 0, 0, 0, 0]).expect("sends");
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'cut'", "1\n");
        drop(stream);
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'cut'", "0\n");
        assert_eq!(take_rows(&server), "", "{rest}");
    }
}

#[test]
fn bodies_are_compressed_in_both_directions() {
    let server = server();
    let plain = b"1,x\n2,y\n";
    let gzip = |bytes: &[u8]| {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(bytes, flate2::Compression::fast())
            .read_to_end(&mut packed)
            .expect("packs");
        packed
    };
    let zlib = |bytes: &[u8]| {
        let mut packed = Vec::new();
        flate2::read::ZlibEncoder::new(bytes, flate2::Compression::fast())
            .read_to_end(&mut packed)
            .expect("packs");
        packed
    };
    let insert = "query=INSERT+INTO+t+(a,b)+FORMAT+CSV";
    for (coding, packed) in [("gzip", gzip(plain)), ("deflate", zlib(plain))] {
        let answer = server.send("POST", insert, &[("Content-Encoding", coding)], &packed);
        assert_eq!(answer.status, 200, "{coding}: {}", answer.text());
        assert_eq!(take_rows(&server), "1\tx\n2\ty\n", "{coding}");
        let cut = server.send("POST", insert, &[("Content-Encoding", coding)], &packed[..packed.len() - 6]);
        assert_eq!((cut.status, take_rows(&server)), (500, String::new()), "{coding}");
    }
    // The server reads back what it has compressed, in each coding.
    let rows = "SELECT number AS a, repeat('z', 50) AS b FROM numbers(50000) FORMAT CSV";
    for coding in ["lz4", "zstd", "br", "gzip", "deflate"] {
        let packed = server.send("POST", "", &[("Accept-Encoding", coding)], rows.as_bytes());
        assert_eq!(packed.header("Content-Encoding"), Some(coding));
        assert!(packed.whole && packed.body.len() < 1_000_000, "{coding}: {} bytes", packed.body.len());
        let back = server.send("POST", insert, &[("Content-Encoding", coding)], &packed.body);
        assert_eq!(back.status, 200, "{coding}: {}", back.text());
        assert_eq!(
            server.sql("SELECT count(), sum(a), any(length(b)) FROM t"),
            "50000\t1249975000\t50\n",
            "{coding}"
        );
        take_rows(&server);
    }
    let blocks = server.post("compress=1", rows.as_bytes());
    assert_eq!((blocks.header("Content-Encoding"), blocks.body[16]), (None, 0x82));
    assert_eq!(server.post(&format!("decompress=1&{insert}"), &blocks.body).status, 200);
    assert_eq!(server.sql("SELECT count(), sum(a) FROM t"), "50000\t1249975000\n");
    take_rows(&server);
    let mut broken = blocks.body.clone();
    broken[100] ^= 1;
    assert_eq!(server.refused(&format!("decompress=1&{insert}"), &broken), (500, 40));
    let unwanted =
        server.send("POST", "enable_http_compression=0", &[("Accept-Encoding", "gzip")], b"SELECT 1");
    assert_eq!((unwanted.header("Content-Encoding"), unwanted.text().as_str()), (None, "1\n"));
}

#[test]
fn bodies_have_a_maximum_size() {
    let server = server();
    let insert = "query=INSERT+INTO+t+(a)+FORMAT+RowBinary";
    let mut stream = server.connect();
    let head = format!(
        "POST /?{insert} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 100000001\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sends");
    let answer = read_answer(stream);
    assert_eq!((answer.status, answer.code()), (413, 229), "{}", answer.text());
    // A small body that is large when it is decompressed.
    let mut packed = Vec::new();
    let zeros = std::io::repeat(0).take(100_000_001);
    flate2::read::GzEncoder::new(zeros, flate2::Compression::fast()).read_to_end(&mut packed).expect("packs");
    let answer = server.send("POST", insert, &[("Content-Encoding", "gzip")], &packed);
    assert_eq!((answer.status, answer.code()), (413, 229), "{}", answer.text());
    assert_eq!(take_rows(&server), "");
}
