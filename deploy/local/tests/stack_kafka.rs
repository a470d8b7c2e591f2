//! Real Kafka as a server of a stack: it answers, its data survives a SIGKILL, and no process is left when
//! the stack is dropped. The tests write and read with Kafka's own console tools.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fetch::Cache;
use local::kafka::metadata::live_brokers;
use local::process::{Identity, spawn_bound};
use local::{Options, Server, Stack};

/// `build` is false, since these tests need no program of ours.
fn kafka_alone(dir: &Path, brokers: u8) -> Stack {
    let options = Options { servers: vec![Server::Kafka], brokers, build: false, ..Options::at(dir) };
    Stack::up(options).unwrap()
}

/// Runs one of Kafka's own tools with `input` on stdin and returns its output.
fn tool(class: &str, args: &[&str], input: &str) -> String {
    let jars = Cache::open().unwrap().kafka().unwrap();
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", jars.display())]);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command.arg(format!("org.apache.kafka.tools.{class}")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_bound(command).unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{class}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn create_topic(stack: &Stack, topic: &str, replication: &str) {
    let args = ["--bootstrap-server", stack.brokers(), "--create", "--topic", topic];
    tool("TopicCommand", &[&args[..], &["--replication-factor", replication]].concat(), "");
}

fn produce(stack: &Stack, topic: &str, lines: &str) {
    tool("ConsoleProducer", &["--bootstrap-server", stack.brokers(), "--topic", topic], lines);
}

fn consume(stack: &Stack, topic: &str, count: &str) -> String {
    let args = ["--bootstrap-server", stack.brokers(), "--topic", topic, "--from-beginning"];
    let bounds = ["--max-messages", count, "--timeout-ms", "60000"];
    tool("consumer.ConsoleConsumer", &[&args[..], &bounds[..]].concat(), "")
}

#[test]
fn messages_survive_a_killed_broker_and_no_process_survives_the_stack() {
    let directory = tempfile::tempdir().unwrap();
    let stack = kafka_alone(directory.path(), 1);
    assert_eq!(live_brokers(stack.brokers()).unwrap(), 1);
    assert_eq!(stack.environment(), [("SPLITSTREAM_KAFKA__BROKERS".to_owned(), stack.brokers().to_owned())]);
    create_topic(&stack, "words", "1");
    produce(&stack, "words", "one\ntwo\n");

    let first = Identity::of(stack.kafka_pid(0).unwrap()).unwrap();
    stack.kill_kafka(0).unwrap();
    assert!(!first.is_alive());
    live_brokers(stack.brokers()).expect_err("no broker answers on a killed broker's port");

    stack.start_kafka(0).unwrap();
    assert_eq!(consume(&stack, "words", "2"), "one\ntwo\n");

    let second = Identity::of(stack.kafka_pid(0).unwrap()).unwrap();
    assert_ne!(second, first);
    let brokers = stack.brokers().to_owned();
    drop(stack);
    assert!(!second.is_alive());
    live_brokers(&brokers).expect_err("no broker answers on a stopped broker's port");

    // Another stack in the same directory, on other ports, has the same data.
    let stack = kafka_alone(directory.path(), 1);
    assert_eq!(consume(&stack, "words", "2"), "one\ntwo\n");
}

#[test]
fn a_cluster_of_three_works_without_one_node_and_readmits_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = kafka_alone(directory.path(), 3);
    let addresses: Vec<&str> = stack.brokers().split(',').collect();
    assert_eq!(addresses.len(), 3);
    for address in &addresses {
        assert_eq!(live_brokers(address).unwrap(), 3);
    }
    create_topic(&stack, "words", "3");
    stack.kill_kafka(0).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while live_brokers(addresses[1]).unwrap() != 2 {
        assert!(Instant::now() < deadline, "the killed broker still counts as live");
        std::thread::sleep(Duration::from_millis(100));
    }
    produce(&stack, "words", "without the first\n");
    stack.start_kafka(0).unwrap();
    assert_eq!(live_brokers(addresses[0]).unwrap(), 3);
    assert_eq!(consume(&stack, "words", "1"), "without the first\n");
}
