//! clickhouse-embedded closes the connections of clients that send their head slowly or never, and of clients
//! that do not read their answer.

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use server::{Server, read_answer};

const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";
const LAST_PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// Sends `request` and waits until its answer begins, which shows that the connection was accepted.
fn begin(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(request).expect("sends");
    let mut beginning = [0; 15];
    stream.read_exact(&mut beginning).expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn a_connection_whose_head_does_not_arrive_is_closed() {
    let server = Server::start(&["--head-timeout", "1"]);
    let started = Instant::now();
    let silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"GET /ping HTTP/1.1\r\nHost: test\r\nX: ").expect("sends");
    let mut long_address = server.connect();
    long_address.write_all(&[b"GET /?query=".as_slice(), &[b'x'; 70_000]].concat()).expect("sends");
    let idle = begin(&server, PING);
    for (mut stream, name) in
        [(silent, "silent"), (slow, "slow"), (long_address, "long address"), (idle, "idle")]
    {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{name} is not closed: {error}"));
        assert!(started.elapsed() >= Duration::from_secs(1), "{name} was closed too early");
    }
    assert_eq!(server.sql("SELECT 1"), "1\n");
}

#[test]
fn the_connection_of_a_running_query_is_not_idle() {
    let server = Server::start(&["--head-timeout", "1", "--unread-timeout", "1"]);
    assert_eq!(server.sql("SELECT sleep(2.5)"), "0\n");
}

#[test]
fn a_connection_beyond_the_limit_waits_until_another_is_closed() {
    let server = Server::start(&["--max-connections", "1", "--head-timeout", "3600"]);
    let first = begin(&server, PING);
    let mut second = server.connect();
    second.write_all(LAST_PING).expect("sends");
    second.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(second.read(&mut [0]).is_err(), "the second connection was answered while the first was open");
    second.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    drop(first);
    let answer = read_answer(second);
    assert_eq!((answer.status, answer.text().as_str()), (200, "Ok.\n"));
}

/// The only connection becomes free for the next client, and the query of the first client is stopped.
#[test]
fn an_unread_answer_keeps_neither_its_connection_nor_its_query() {
    let server = Server::start(&["--max-connections", "1", "--unread-timeout", "1"]);
    let endless =
        "GET /?query_id=unread&query=SELECT+number+FROM+system.numbers HTTP/1.1\r\nHost: test\r\n\r\n";
    let unread = begin(&server, endless.as_bytes());
    server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'unread'", "0\n");
    drop(unread);
}
