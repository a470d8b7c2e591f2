//! Rows that clickhouse-embedded has acknowledged are stored after a stop, a kill and a restart on the same
//! path.

mod server;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use server::{Server, command};

const INSERT: &str = "query=INSERT+INTO+t+FORMAT+RowBinary&async_insert=0";

#[test]
fn a_stop_finishes_running_queries() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start_at(directory.path(), &[]);
    server.sql("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            server
                .sql_with("query_id=slow", "INSERT INTO t SELECT number + sleepEachRow(0.5) FROM numbers(4)")
        });
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'slow'", "1\n");
        server.signal(Signal::SIGTERM);
        assert_eq!(slow.join().expect("answered"), "");
    });
    assert!(server.wait().success());
    assert!(!directory.path().join("address").exists(), "the port file is gone");
    let server = Server::start_at(directory.path(), &[]);
    assert_eq!(server.sql("SELECT count(), sum(a) FROM t"), "4\t6\n");
    assert!(server.stop().success());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut server = Server::start(&["--stop-timeout", "1"]);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            server.refused(
                "query_id=slow",
                b"SELECT sum(sleepEachRow(1)) FROM numbers(60) \
                  SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 100000000",
            )
        });
        server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'slow'", "1\n");
        server.signal(Signal::SIGTERM);
        assert_eq!(slow.join().expect("answered"), (500, 394));
    });
    assert!(server.wait().success());
}

#[test]
fn acknowledged_rows_survive_sigkill() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..3 {
        let server = Server::start_at(directory.path(), &[]);
        server.sql("CREATE TABLE IF NOT EXISTS t (a UInt64) ENGINE = MergeTree ORDER BY a");
        let found: u64 = server.sql("SELECT count() FROM t").trim().parse().expect("a number");
        // The last insert before the kill may have been stored without its answer arriving.
        assert!(
            found == acknowledged || found == acknowledged + 1000,
            "{found} rows of {acknowledged}, round {round}"
        );
        acknowledged = found;
        let answered = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let rows: Vec<u8> = (0..1000_u64).flat_map(u64::to_le_bytes).collect();
                // The kill closes the connection: the head of the answer may not arrive.
                while std::panic::catch_unwind(|| server.post(INSERT, &rows).status)
                    .is_ok_and(|status| status == 200)
                {
                    answered.fetch_add(1000, Ordering::SeqCst);
                }
            });
            while answered.load(Ordering::SeqCst) < 20_000 {
                thread::sleep(Duration::from_millis(5));
            }
            server.signal(Signal::SIGKILL);
        });
        acknowledged += answered.load(Ordering::SeqCst);
        drop(server);
    }
    let server = Server::start_at(directory.path(), &[]);
    let found: u64 = server.sql("SELECT count() FROM t").trim().parse().expect("a number");
    assert!(found == acknowledged || found == acknowledged + 1000, "{found} rows of {acknowledged}");
}

#[test]
fn a_path_has_one_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start_at(directory.path(), &[]);
    let second = command(directory.path(), &[]).output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(reason.contains("another clickhouse-embedded serves"), "{reason}");
    assert_eq!(server.sql("SELECT 1"), "1\n");
}
