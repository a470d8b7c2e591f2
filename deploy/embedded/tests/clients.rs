//! clickhouse-embedded with unmodified clients: the clickhouse crate, clickhouse-connect for Python,
//! @clickhouse/client for Node and @clickhouse/client-web for web pages.

mod server;

use std::path::Path;
use std::process::Command;

use clickhouse::{Client, Compression, Row};
use fetch::Cache;
use serde::{Deserialize, Serialize};
use server::Server;

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    tags: Vec<String>,
    score: Option<f64>,
}

fn records(count: u64) -> Vec<Record> {
    (0..count)
        .map(|id| Record {
            id,
            name: format!("name {id} 'ü;\n\0"),
            tags: vec!["a".to_owned(); (id % 3) as usize],
            score: (id % 2 == 0).then_some(id as f64 / 4.0),
        })
        .collect()
}

#[tokio::test]
async fn the_clickhouse_crate() {
    let server = Server::start(&[]);
    for compression in [Compression::None, Compression::Lz4] {
        let client = Client::default().with_url(server.url()).with_compression(compression);
        let table = format!("records_{compression:?}").to_lowercase();
        let create = format!(
            "CREATE TABLE {table} (id UInt64, name String, tags Array(String), score Nullable(Float64)) \
             ENGINE = MergeTree ORDER BY id"
        );
        client.query(&create).execute().await.expect("creates");
        // RowBinaryWithNamesAndTypes, checked against the table's columns.
        let mut insert = client.insert::<Record>(&table).await.expect("begins");
        for record in &records(10_000) {
            insert.write(record).await.expect("writes");
        }
        insert.end().await.expect("inserts");

        let select = format!("SELECT ?fields FROM {table} WHERE id < ? ORDER BY id");
        let mut cursor = client.query(&select).bind(5_000).fetch::<Record>().expect("asks");
        let mut found = Vec::new();
        while let Some(record) = cursor.next().await.expect("reads") {
            found.push(record);
        }
        assert!(found == records(5_000));
        let total = client.query(&format!("SELECT count() FROM {table}")).fetch_one::<u64>().await;
        assert_eq!(total.expect("counts"), 10_000);
        let bound =
            client.query("SELECT {text:String}").param("text", "it's \\ \n").fetch_one::<String>().await;
        assert_eq!(bound.expect("answers"), "it's \\ \n");
        let set = client.query("SELECT toUInt64(getSetting('max_threads'))").with_setting("max_threads", "3");
        assert_eq!(set.fetch_one::<u64>().await.expect("answers"), 3);

        let refused =
            client.query("SELECT * FROM nowhere").execute().await.expect_err("there is no such table");
        assert!(refused.to_string().contains("Code: 60. DB::Exception: "), "{refused}");
        // The exception comes after many rows; the client must not take them for the whole result.
        let failing = "SELECT rand64() AS a, throwIf(number = 3000000, 'too far') AS b FROM numbers(6000000)";
        let mut cursor = client.query(failing).fetch::<(u64, u8)>().expect("asks");
        let broken = loop {
            match cursor.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a broken result was read as a whole one"),
                Err(error) => break error,
            }
        };
        assert!(broken.to_string().contains("Code: 395. DB::Exception: too far"), "{broken}");
    }
    let mut wrong =
        Client::default().with_url(server.url()).insert::<Record>("records_none").await.expect("begins");
    wrong.write(&records(1)[0]).await.expect("writes");
    // The insert is dropped before its end: none of its rows may be stored.
    drop(wrong);
    assert_eq!(server.sql("SELECT count() FROM records_none"), "10000\n");
}

#[test]
fn clickhouse_connect_for_python() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let cache = Cache::open().expect("a cache");
    let python = cache.python(&here.join("requirements.txt")).expect("the packages can be fetched");
    let server = Server::start(&[]);
    let (host, port) = server.address.split_once(':').expect("host:port");
    passes(
        Command::new(python).arg(here.join("client.py")).args([host, port]),
        "clickhouse-connect: all checks passed",
    );
}

#[test]
fn the_javascript_client() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/javascript");
    let cache = Cache::open().expect("a cache");
    let modules = cache.node(&here).expect("the packages can be fetched");
    let server = Server::start(&[]);
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here.join("client.cjs")).arg(server.url());
    passes(&mut command, "@clickhouse/client: all checks passed");
}

#[test]
fn the_javascript_client_in_a_page() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/javascript");
    let cache = Cache::open().expect("a cache");
    let modules = cache.node(&here).expect("the packages can be fetched");
    let server = Server::start(&[]);
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here.join("web.cjs")).arg(server.url());
    passes(&mut command, "@clickhouse/client-web: all checks passed");
}

fn passes(command: &mut Command, expected: &str) {
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.trim_end() == expected, "{text}\n{errors}");
}
