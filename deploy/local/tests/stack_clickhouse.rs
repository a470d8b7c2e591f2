//! The embedded ClickHouse as a server of a stack: it answers, acknowledged rows survive a SIGKILL, and no
//! process is left when the stack is dropped.

use std::path::Path;

use local::process::Identity;
use local::{Options, Server, Stack};

/// `build` is false: the test expects `clickhouse-embedded` to be built already.
fn clickhouse_alone(dir: &Path) -> Stack {
    let options = Options { servers: vec![Server::ClickHouse], build: false, ..Options::at(dir) };
    Stack::up(options).unwrap()
}

fn query(stack: &Stack, text: &str) -> String {
    let mut answer = ureq::post(stack.clickhouse_url()).send(text).unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn rows_survive_a_kill_on_the_same_port_and_another_stack_on_another() {
    let directory = tempfile::tempdir().unwrap();
    let stack = clickhouse_alone(directory.path());
    assert_eq!(
        stack.environment(),
        [("SPLITSTREAM_CLICKHOUSE__URL".to_owned(), stack.clickhouse_url().to_owned())]
    );
    query(&stack, "CREATE TABLE words (word String) ENGINE = MergeTree ORDER BY word");
    query(&stack, "INSERT INTO words VALUES ('one'), ('two')");
    let first = Identity::of(stack.clickhouse_pid().unwrap()).unwrap();

    stack.kill_clickhouse().unwrap();
    assert!(!first.is_alive());
    ureq::get(stack.clickhouse_url()).call().expect_err("no server answers on a killed server's port");
    stack.start_clickhouse().unwrap();
    assert_eq!(query(&stack, "SELECT word FROM words ORDER BY word"), "one\ntwo\n");

    let second = Identity::of(stack.clickhouse_pid().unwrap()).unwrap();
    let url = stack.clickhouse_url().to_owned();
    drop(stack);
    assert!(!second.is_alive());
    ureq::get(&url).call().expect_err("no server answers on a stopped server's port");

    let stack = clickhouse_alone(directory.path());
    assert_eq!(query(&stack, "SELECT word FROM words ORDER BY word"), "one\ntwo\n");
}
