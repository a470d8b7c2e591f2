//! Apache Kafka in KRaft mode, where each node is both broker and controller: its configuration, its
//! directory and the command that runs it. Nodes listen on the loopback interface only, without security: a
//! stack for one machine.

mod classes;
pub mod metadata;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::ports;
use crate::process::{self, Launch};
use fetch::{Cache, JAVA};

/// The cluster's id: "splitstreamlocal" in base64, since Kafka requires the base64 of sixteen bytes.
const CLUSTER: &str = "c3BsaXRzdHJlYW1sb2NhbA";

/// With these and the archive of its classes a node starts in two seconds and uses 350 MB of memory. The compiler C1,
/// which makes slower code, and the serial garbage collector leave the two cores to the work.
const JVM: &[&str] = &[
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
];

/// One machine is too small for more nodes than this.
pub const BROKERS_MAX: u8 = 5;

/// Kafka's jars, and the archive of their classes if Java makes one.
#[derive(Debug, Clone)]
pub struct Program {
    jars: PathBuf,
    classes: Option<PathBuf>,
}

impl Program {
    /// Fetches the jars and makes the archive if they are not in the cache.
    pub fn open(cache: &Cache) -> Result<Program> {
        let jars = cache.kafka()?;
        let classes = classes::archive(&jars).unwrap_or_else(|error| {
            eprintln!("kafka starts slowly, since its classes could not be archived: {error:#}");
            None
        });
        Ok(Program { jars, classes })
    }

    fn arguments(&self) -> Vec<String> {
        let mut args: Vec<String> = JVM.iter().map(|arg| (*arg).to_owned()).collect();
        if let Some(classes) = &self.classes {
            args.push(format!("-XX:SharedArchiveFile={}", classes.display()));
        }
        args.push("-cp".to_owned());
        args.push(format!("{}/*", self.jars.display()));
        args
    }
}

/// One node: its id, its ports and its directory.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: u8,
    pub broker: u16,
    controller: u16,
    relayed: Option<Relayed>,
    directory: PathBuf,
}

/// A second listener of a node, which advertises the address of a relay to its clients. This is how a proxy
/// gets between a client and a broker; on its first listener the broker advertises its own address.
#[derive(Debug, Clone, Copy)]
pub struct Relayed {
    /// The port where the node listens for the relay.
    pub port: u16,
    /// The port where the relay listens for the clients.
    pub relay: u16,
}

impl Node {
    /// The address for clients, "127.0.0.1:port".
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.broker)
    }

    pub fn name(&self) -> String {
        format!("kafka-{}", self.id)
    }

    /// The address for the relay, "127.0.0.1:port"; `None` if the node has no relay.
    pub fn relayed_address(&self) -> Option<String> {
        self.relayed.map(|relayed| format!("127.0.0.1:{}", relayed.port))
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }
}

/// Plans a cluster of `brokers` nodes with their data under `dir`. The first node's port may be given, and
/// the port of a relay in front of it. Fails if `dir` contains a cluster of another size: its quorum would
/// not recognize the new one.
pub fn plan(dir: &Path, brokers: u8, port: Option<u16>, relay: Option<u16>) -> Result<Vec<Node>> {
    ensure!((1..=BROKERS_MAX).contains(&brokers), "{brokers} brokers: from 1 to {BROKERS_MAX} can be run");
    ensure!(
        !dir.to_string_lossy().contains([',', '\n']),
        "{} contains a comma or a line break, which Kafka takes for the end of a directory's name",
        dir.display()
    );
    let node_directory = |id: u8| dir.join(format!("kafka-{id}"));
    let existing = (1..=BROKERS_MAX).filter(|id| node_directory(*id).join("data").is_dir()).count();
    if existing != 0 && existing != usize::from(brokers) {
        bail!(
            "{} contains the data of {existing} brokers, but {brokers} were requested: use --brokers \
             {existing}, or delete the data with `splitstream local down --delete`",
            dir.display()
        );
    }
    let mut nodes = Vec::new();
    for id in 1..=brokers {
        let broker = if id == 1 { ports::given_or_free(port)? } else { ports::free()? };
        let relayed = match relay {
            Some(relay) if id == 1 => Some(Relayed { port: ports::free()?, relay }),
            _ => None,
        };
        nodes.push(Node { id, broker, controller: ports::free()?, relayed, directory: node_directory(id) });
    }
    Ok(nodes)
}

/// Writes the node's configuration and formats its data directory if that is new, which takes a second.
pub fn prepare(node: &Node, all: &[Node], program: &Program) -> Result<()> {
    fs::create_dir_all(&node.directory).with_context(|| format!("creating {}", node.directory.display()))?;
    let properties = node.properties();
    fs::write(&properties, properties_of(node, all))
        .with_context(|| format!("writing {}", properties.display()))?;
    if node.data().join("meta.properties").is_file() {
        return Ok(());
    }
    let mut command = Command::new(JAVA.program);
    command
        .args(program.arguments())
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config"])
        .arg(&properties)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let formatted = process::spawn_bound(command)
        .and_then(|child| child.wait_with_output())
        .with_context(|| format!("running {} ({}; to get it: {})", JAVA.program, JAVA.why, JAVA.how))?;
    ensure!(
        formatted.status.success(),
        "formatting {} for Kafka: {}\n{}{}",
        node.data().display(),
        formatted.status,
        String::from_utf8_lossy(&formatted.stdout),
        String::from_utf8_lossy(&formatted.stderr),
    );
    Ok(())
}

/// The command that runs a prepared node.
pub fn launch(node: &Node, program: &Program, log: PathBuf) -> Launch {
    let mut args = program.arguments();
    args.push("kafka.Kafka".to_owned());
    args.push(node.properties().display().to_string());
    Launch { program: JAVA.program.into(), args, environment: Vec::new(), log }
}

/// The replication factor of a topic in a cluster of `brokers`: three, of which two must be in sync, or one.
pub fn replication_factor(brokers: usize) -> u8 {
    if brokers >= 3 { 3 } else { 1 }
}

/// The text of server.properties: first identity and addresses, then durability, then the settings for a
/// quick start.
fn properties_of(node: &Node, all: &[Node]) -> String {
    let voters: Vec<String> =
        all.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller)).collect();
    let replicas = replication_factor(all.len());
    let in_sync = if replicas == 3 { 2 } else { 1 };
    let (listener, advertised) = match node.relayed {
        Some(Relayed { port, relay }) => {
            (format!(",RELAYED://127.0.0.1:{port}"), format!(",RELAYED://127.0.0.1:{relay}"))
        }
        None => (String::new(), String::new()),
    };
    let mut text = format!(
        "node.id={id}
process.roles=broker,controller
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{listener}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,RELAYED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
",
        id = node.id,
        voters = voters.join(","),
        broker = node.broker,
        controller = node.controller,
        data = node.data().display().to_string().replace('\\', "\\\\"),
    );
    if all.len() == 1 {
        // A killed broker may register again once its old session has expired: with these values 6 s after
        // the kill instead of 13 s. A cluster keeps the defaults, because there an expired session moves
        // leaders.
        text.push_str("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> Vec<Node> {
        (1..=count)
            .map(|id| Node {
                id,
                broker: 20_000 + u16::from(id),
                controller: 21_000 + u16::from(id),
                relayed: None,
                directory: PathBuf::from(format!("/data/kafka-{id}")),
            })
            .collect()
    }

    fn setting(properties: &str, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        properties.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    }

    #[test]
    fn one_node_keeps_one_replica_and_three_keep_three_of_which_two_must_be_in_sync() {
        for (count, replicas, in_sync) in [(1, "1", "1"), (3, "3", "2")] {
            let all = nodes(count);
            let properties = properties_of(&all[0], &all);
            let value = |name| setting(&properties, name).unwrap();
            assert_eq!(value("offsets.topic.replication.factor"), replicas);
            assert_eq!(value("transaction.state.log.replication.factor"), replicas);
            assert_eq!(value("share.coordinator.state.topic.replication.factor"), replicas);
            assert_eq!(value("min.insync.replicas"), in_sync);
        }
    }

    #[test]
    fn every_node_knows_all_controllers_and_listens_on_the_loopback_only() {
        let all = nodes(3);
        let properties = properties_of(&all[1], &all);
        assert_eq!(
            setting(&properties, "controller.quorum.voters").unwrap(),
            "1@127.0.0.1:21001,2@127.0.0.1:21002,3@127.0.0.1:21003"
        );
        assert_eq!(
            setting(&properties, "listeners").unwrap(),
            "PLAINTEXT://127.0.0.1:20002,CONTROLLER://127.0.0.1:21002"
        );
        assert_eq!(setting(&properties, "log.dirs").unwrap(), "/data/kafka-2/data");
    }

    #[test]
    fn the_second_listener_advertises_the_address_of_the_relay() {
        let mut all = nodes(1);
        all[0].relayed = Some(Relayed { port: 22_001, relay: 23_001 });
        let properties = properties_of(&all[0], &all);
        assert_eq!(
            setting(&properties, "listeners").unwrap(),
            "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:21001,RELAYED://127.0.0.1:22001"
        );
        assert_eq!(
            setting(&properties, "advertised.listeners").unwrap(),
            "PLAINTEXT://127.0.0.1:20001,RELAYED://127.0.0.1:23001"
        );
        assert_eq!(all[0].relayed_address().unwrap(), "127.0.0.1:22001");
    }

    #[test]
    fn data_of_one_broker_is_refused_for_a_cluster_of_three() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        fs::create_dir_all(dir.join("kafka-1/data")).unwrap();
        assert_eq!(
            plan(dir, 3, None, None).unwrap_err().to_string(),
            format!(
                "{} contains the data of 1 brokers, but 3 were requested: use --brokers 1, or delete the data \
                 with `splitstream local down --delete`",
                dir.display()
            )
        );
        assert_eq!(plan(dir, 1, None, None).unwrap().len(), 1);
    }
}
