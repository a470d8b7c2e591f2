//! The stack: [`Stack::up`] starts Kafka, ClickHouse and, on request, a schema registry, or uses servers that
//! run already. Services and single commands then run against them. Dropping the stack stops everything that
//! it started, the services first and Kafka last. The demo, `splitstream local up` and the end-to-end tests
//! all use it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::disk;
use crate::kafka::{self, metadata};
use crate::part::{Address, Part, Plan};
use crate::ports;
use crate::probe::Probe;
use crate::process::{self, Launch};
use crate::programs;
use crate::registry;
use crate::service::{Service, ServiceOptions};
use crate::state::Claim;
use fetch::Cache;
use fetch::progress::Step;

/// Subdirectories of a stack's directory, besides those of the servers.
const LOGS: &str = "logs";
const PORTS: &str = "ports";

/// A server that the services use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Kafka,
    ClickHouse,
    Registry,
}

/// The parts to start, their ports and their directory.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory for all data and logs; created if it does not exist. One stack at a time can use it.
    pub dir: PathBuf,
    /// The servers that the stack has, started by it or given.
    pub servers: Vec<Server>,
    /// The number of Kafka nodes, 1 to 5.
    pub brokers: u8,
    /// "host:port,...": use this Kafka and start none.
    pub kafka: Option<String>,
    /// "http://host:port": use this ClickHouse and start none.
    pub clickhouse: Option<String>,
    /// "http://host:port": use this schema registry and start none.
    pub registry: Option<String>,
    /// The first node's port; a free port if not given.
    pub kafka_port: Option<u16>,
    /// The port of a relay to the first node, for tests that put a proxy in front of it.
    pub kafka_relay: Option<u16>,
    /// A free port if not given.
    pub clickhouse_port: Option<u16>,
    /// A free port if not given.
    pub registry_port: Option<u16>,
    /// Additional arguments for `clickhouse-embedded`.
    pub clickhouse_args: Vec<String>,
    /// Whether to build the programs first; false if the caller has just built them.
    pub build: bool,
    /// Whether to delete first the data that an earlier stack left in the directory.
    pub fresh: bool,
}

impl Options {
    /// One Kafka node and one ClickHouse on free ports, with their data in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            servers: vec![Server::Kafka, Server::ClickHouse],
            brokers: 1,
            kafka: None,
            clickhouse: None,
            registry: None,
            kafka_port: None,
            kafka_relay: None,
            clickhouse_port: None,
            registry_port: None,
            clickhouse_args: Vec::new(),
            build: true,
            fresh: false,
        }
    }

    /// Builds and fetches everything that a stack with these options needs, so that its start takes only
    /// seconds.
    pub fn prepare(&self) -> Result<()> {
        if self.build {
            programs::ensure_built()?;
        }
        let cache = Cache::open()?;
        if self.starts(Server::Kafka) {
            kafka::Program::open(&cache)?;
        }
        if self.starts(Server::ClickHouse) {
            cache.engine()?;
        }
        if self.starts(Server::Registry) {
            cache.registry()?;
        }
        Ok(())
    }

    fn wants(&self, server: Server) -> bool {
        self.servers.contains(&server)
    }

    fn starts(&self, server: Server) -> bool {
        let given = match server {
            Server::Kafka => &self.kafka,
            Server::ClickHouse => &self.clickhouse,
            Server::Registry => &self.registry,
        };
        self.wants(server) && given.is_none()
    }
}

/// A running stack. Dropping it stops every part that it started.
#[derive(Debug)]
pub struct Stack {
    dir: PathBuf,
    nodes: Vec<kafka::Node>,
    /// One for each node.
    kafka: Vec<Part>,
    brokers: String,
    clickhouse: Option<Part>,
    clickhouse_url: String,
    registry: Option<Part>,
    registry_url: String,
    /// In the order of their first start; includes the stopped ones.
    services: Mutex<Vec<Arc<Part>>>,
    claim: Arc<Claim>,
}

impl Stack {
    /// Builds the programs, fetches what is missing, and starts the servers. Returns when they are ready.
    /// Uses the data that is in the directory already, unless `fresh` is set.
    pub fn up(options: Options) -> Result<Stack> {
        options.prepare()?;
        let dir = create(&options.dir)?;
        let claim = Arc::new(Claim::acquire(&dir)?);
        if options.fresh {
            delete_data(&dir)?;
        }
        if options.starts(Server::Kafka) || options.starts(Server::ClickHouse) {
            disk::require_free_space(&dir)?;
        }
        for directory in [dir.join(LOGS), dir.join(PORTS)] {
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        let mut stack = Stack {
            dir,
            nodes: Vec::new(),
            kafka: Vec::new(),
            brokers: String::new(),
            clickhouse: None,
            clickhouse_url: String::new(),
            registry: None,
            registry_url: String::new(),
            services: Mutex::new(Vec::new()),
            claim,
        };
        if options.wants(Server::Kafka) {
            stack.plan_kafka(&options)?;
        }
        if options.wants(Server::ClickHouse) {
            stack.plan_clickhouse(&options)?;
        }
        if options.wants(Server::Registry) {
            stack.plan_registry(&options)?;
        }
        stack.start_servers()?;
        Ok(stack)
    }

    /// The directory of all data and logs, as an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bootstrap addresses, "host:port,..."; empty if the stack has no Kafka.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The address where the first node listens for the relay of [`Options::kafka_relay`].
    pub fn relayed_kafka(&self) -> Option<String> {
        self.nodes.first().and_then(kafka::Node::relayed_address)
    }

    /// "http://host:port"; empty if the stack has no ClickHouse.
    pub fn clickhouse_url(&self) -> &str {
        &self.clickhouse_url
    }

    /// The URL of the schema registry's Confluent interface; empty if the stack has none.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// The settings with the addresses of the servers.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("SPLITSTREAM_KAFKA__BROKERS", &self.brokers),
            ("SPLITSTREAM_CLICKHOUSE__URL", &self.clickhouse_url),
            ("SPLITSTREAM_REGISTRY__URL", &self.registry_url),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
    }

    /// Starts a service (for "consumer", `splitstream consumer run`) and returns when its `/readyz` answers
    /// 200.
    pub fn service(&self, service: &str) -> Result<Service> {
        self.service_with(service, ServiceOptions::default())
    }

    /// Like [`Stack::service`], with options. A second process of the same service is called "consumer-2".
    pub fn service_with(&self, service: &str, options: ServiceOptions) -> Result<Service> {
        let program = programs::path(programs::SPLITSTREAM)?;
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let name = free_name(service, &services);
        let mut environment = self.environment();
        environment
            .extend(options.settings.iter().map(|(name, value)| (String::from(*name), String::from(*value))));
        let part = Arc::new(self.part(Plan {
            launch: Launch {
                program,
                args: vec![service.to_owned(), "run".to_owned()],
                environment,
                log: self.log(&name),
            },
            address: Address::InFile { file: self.port_file(&name), port: options.port.unwrap_or(0) },
            probe: Probe::Http { path: "/readyz".to_owned() },
            name,
        }));
        services.push(Arc::clone(&part));
        // Released before the wait, so that other services can be started meanwhile.
        drop(services);
        let service = Service { part };
        service.start()?;
        Ok(service)
    }

    /// Runs a command to its end (for ["topics"], `splitstream topics`). An exit code other than 0 is an
    /// error, which contains the command's stderr.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let command_line = format!("{} {}", programs::SPLITSTREAM, args.join(" "));
        let output = process::spawn_bound(command)
            .and_then(|child| child.wait_with_output())
            .with_context(|| format!("running `{command_line}`"))?;
        ensure!(
            output.status.success(),
            "`{command_line}` failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(output)
    }

    /// Creates the missing topics, with the replication factor for a cluster of `brokers`.
    pub fn create_topics(&self, brokers: u8) -> Result<()> {
        let replication = kafka::replication_factor(usize::from(brokers)).to_string();
        self.run(&["topics", "--replication", &replication])?;
        Ok(())
    }

    /// A command with the stack's settings in its environment, for callers that need its exit code or its
    /// stdin. Start it with [`process::spawn_bound`] if it must not outlive this process.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(programs::path(programs::SPLITSTREAM)?);
        command.args(args).envs(self.environment());
        Ok(command)
    }

    /// Restarts the servers that have ended by themselves. Called while no supervisor watches them yet.
    pub(crate) fn restart_ended(&self) -> Result<()> {
        for part in self.parts(&[]) {
            if part.ended()?.is_some() {
                part.start()?;
            }
        }
        Ok(())
    }

    /// Sends SIGKILL to ClickHouse. Returns when it has ended.
    pub fn kill_clickhouse(&self) -> Result<()> {
        self.own_clickhouse()?.kill()
    }

    /// Starts ClickHouse again, with the same port and data, and returns when it is ready.
    pub fn start_clickhouse(&self) -> Result<()> {
        self.own_clickhouse()?.start()
    }

    /// The exit status of ClickHouse if it ended by itself; `None` while it runs, or if it was killed on
    /// purpose.
    pub fn clickhouse_ended(&self) -> Result<Option<ExitStatus>> {
        self.own_clickhouse()?.ended()
    }

    pub fn clickhouse_pid(&self) -> Option<u32> {
        self.clickhouse.as_ref().and_then(Part::pid)
    }

    /// Sends SIGKILL to the schema registry. Returns when it has ended.
    pub fn kill_registry(&self) -> Result<()> {
        self.own_registry()?.kill()
    }

    /// Starts the schema registry again, with the same port and data, and returns when it is ready.
    pub fn start_registry(&self) -> Result<()> {
        self.own_registry()?.start()
    }

    /// Sends SIGKILL to Kafka's node `index`, from 0. Returns when it has ended.
    pub fn kill_kafka(&self, index: usize) -> Result<()> {
        self.own_kafka(index)?.kill()
    }

    /// Starts Kafka's node `index` again, with the same port and data, and returns when it is ready.
    pub fn start_kafka(&self, index: usize) -> Result<()> {
        self.own_kafka(index)?.start()
    }

    pub fn kafka_pid(&self, index: usize) -> Option<u32> {
        self.kafka.get(index).and_then(Part::pid)
    }

    /// Records in the stack's state where clients ask the edge.
    pub(crate) fn record_edge(&self, url: &str) -> Result<()> {
        self.claim.change(|state| url.clone_into(&mut state.edge))
    }

    /// Records in the stack's state that all requested parts are ready.
    pub fn mark_ready(&self) -> Result<()> {
        self.claim.change(|state| state.ready = true)
    }

    /// Every part that should be running: the servers, then `services`.
    pub(crate) fn parts<'a>(&'a self, services: &'a [Arc<Service>]) -> impl Iterator<Item = &'a Part> {
        let services = services.iter().map(|service| &*service.part);
        self.kafka.iter().chain(&self.clickhouse).chain(&self.registry).chain(services)
    }

    /// Stops every part: the services first, in reverse order, and Kafka last. If a part cannot be stopped,
    /// the others are stopped all the same, and the first error is returned.
    pub fn down(&self) -> Result<()> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut outcomes: Vec<Result<()>> = Vec::new();
        for part in
            services.iter().rev().map(|service| &**service).chain(&self.registry).chain(&self.clickhouse)
        {
            outcomes.push(part.stop().map(drop));
        }
        // All nodes at the same time: a node of a cluster waits until the others have taken over its
        // leaderships.
        std::thread::scope(|scope| {
            let stops: Vec<_> = self.kafka.iter().map(|node| scope.spawn(|| node.stop())).collect();
            for stop in stops {
                let stopped = stop.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                outcomes.push(stopped.map(drop));
            }
        });
        outcomes.into_iter().collect()
    }

    fn plan_kafka(&mut self, options: &Options) -> Result<()> {
        if let Some(given) = &options.kafka {
            check_kafka(given)?;
            self.brokers.clone_from(given);
            return Ok(());
        }
        let program = kafka::Program::open(&Cache::open()?)?;
        self.nodes = kafka::plan(&self.dir, options.brokers, options.kafka_port, options.kafka_relay)?;
        let addresses: Vec<String> = self.nodes.iter().map(kafka::Node::address).collect();
        self.brokers = addresses.join(",");
        for node in &self.nodes {
            let log = self.log(&node.name());
            let part = self.part(Plan {
                name: node.name(),
                launch: kafka::launch(node, &program, log),
                address: Address::Known(node.address()),
                probe: Probe::Kafka { brokers: self.nodes.len() },
            });
            self.kafka.push(part);
        }
        Ok(())
    }

    fn plan_clickhouse(&mut self, options: &Options) -> Result<()> {
        if let Some(given) = &options.clickhouse {
            check_clickhouse(given)?;
            self.clickhouse_url.clone_from(given);
            return Ok(());
        }
        let library = Cache::open()?.engine()?;
        let address = format!("127.0.0.1:{}", ports::given_or_free(options.clickhouse_port)?);
        self.clickhouse_url = format!("http://{address}");
        let data = self.dir.join("clickhouse");
        let mut args: Vec<String> = Vec::new();
        for (name, value) in [
            ("--path", data.display().to_string()),
            ("--listen", address.clone()),
            ("--library", library.display().to_string()),
        ] {
            args.push(name.to_owned());
            args.push(value);
        }
        args.extend(options.clickhouse_args.iter().cloned());
        let name = "clickhouse".to_owned();
        self.clickhouse = Some(self.part(Plan {
            launch: Launch {
                program: programs::path("clickhouse-embedded")?,
                args,
                environment: Vec::new(),
                log: self.log(&name),
            },
            address: Address::Known(address),
            probe: Probe::Http { path: "/ping".to_owned() },
            name,
        }));
        Ok(())
    }

    fn plan_registry(&mut self, options: &Options) -> Result<()> {
        if let Some(given) = &options.registry {
            registry::check_given(given)?;
            self.registry_url.clone_from(given);
            return Ok(());
        }
        let runner = Cache::open()?.registry()?;
        let port = ports::given_or_free(options.registry_port)?;
        let address = format!("127.0.0.1:{port}");
        self.registry_url = registry::url(&address);
        let name = "registry".to_owned();
        self.registry = Some(self.part(Plan {
            launch: registry::launch(&runner, &self.dir.join(&name), port, self.log(&name))?,
            address: Address::Known(address),
            probe: registry::probe(),
            name,
        }));
        Ok(())
    }

    fn start_servers(&self) -> Result<()> {
        self.claim.change(|state| {
            state.kafka.clone_from(&self.brokers);
            state.clickhouse.clone_from(&self.clickhouse_url);
            state.registry.clone_from(&self.registry_url);
        })?;
        if self.parts(&[]).next().is_none() {
            return Ok(());
        }
        let step = Step::start("starting the servers");
        for server in self.clickhouse.iter().chain(&self.registry) {
            server.spawn()?;
        }
        self.prepare_kafka()?;
        for node in &self.kafka {
            node.spawn()?;
        }
        for part in self.parts(&[]) {
            step.note(&format!("waiting for {}", part.name()));
            part.wait_ready()?;
        }
        if self.registry.is_some() {
            registry::require_full_compatibility(&self.registry_url)?;
        }
        let addresses = [self.brokers(), self.clickhouse_url(), self.registry_url()].map(str::to_owned);
        step.done(addresses.join(" ").trim());
        Ok(())
    }

    /// Prepares the nodes, all at the same time: formatting a new one takes a second.
    fn prepare_kafka(&self) -> Result<()> {
        if self.nodes.is_empty() {
            return Ok(());
        }
        let program = kafka::Program::open(&Cache::open()?)?;
        std::thread::scope(|scope| {
            let prepare = |node| kafka::prepare(node, &self.nodes, &program);
            let threads: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || prepare(node))).collect();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })
    }

    fn own_clickhouse(&self) -> Result<&Part> {
        self.clickhouse.as_ref().context("this stack started no ClickHouse")
    }

    fn own_registry(&self) -> Result<&Part> {
        self.registry.as_ref().context("this stack started no schema registry")
    }

    fn own_kafka(&self, index: usize) -> Result<&Part> {
        let started = self.kafka.len();
        self.kafka
            .get(index)
            .with_context(|| format!("this stack started {started} Kafka nodes, none with index {index}"))
    }

    fn part(&self, plan: Plan) -> Part {
        Part::new(plan, Arc::clone(&self.claim))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(LOGS).join(format!("{name}.log"))
    }

    fn port_file(&self, name: &str) -> PathBuf {
        self.dir.join(PORTS).join(name)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("stopping the stack in {}: {error:#}", self.dir.display());
        }
    }
}

/// Removes the data, the logs and the port files of a stack that does not run. Other files in its directory
/// remain.
pub fn delete_data(dir: &Path) -> Result<()> {
    let nodes = (1..=kafka::BROKERS_MAX).map(|id| format!("kafka-{id}"));
    for name in nodes.chain(["clickhouse", "registry", "edge", LOGS, PORTS].map(str::to_owned)) {
        let path = dir.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Creates the directory and returns its absolute path.
fn create(dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("resolving {}", dir.display()))
}

/// Checks that a Kafka of the user answers. If it has security settings, this check is left to the services:
/// the request that is used here works only without security.
fn check_kafka(brokers: &str) -> Result<()> {
    if std::env::var_os("SPLITSTREAM_KAFKA__SECURITY").is_some() {
        return Ok(());
    }
    let mut reasons = Vec::new();
    for address in brokers.split(',') {
        match metadata::live_brokers(address.trim()) {
            Ok(_) => return Ok(()),
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    bail!("no Kafka answers there: {}", reasons.join("; "))
}

/// Checks that a ClickHouse of the user answers. Over TLS this is left to the services, which have the
/// certificate authority.
fn check_clickhouse(url: &str) -> Result<()> {
    if url.starts_with("https://") {
        return Ok(());
    }
    ensure!(url.starts_with("http://"), "{url:?} is not the URL of a ClickHouse, as http://host:8123 is");
    let ping = Probe::Http { path: "/ping".to_owned() };
    ping.check(url).map_err(|reason| anyhow::anyhow!("no ClickHouse answers at {url}: {reason}"))
}

/// The first free name for a service: "consumer", or "consumer-2" if the first one runs.
fn free_name(program: &str, services: &[Arc<Part>]) -> String {
    let taken = |name: &str| services.iter().any(|part| part.name() == name && part.is_running());
    let mut name = program.to_owned();
    let mut number = 2;
    while taken(&name) {
        name = format!("{program}-{number}");
        number += 1;
    }
    name
}
