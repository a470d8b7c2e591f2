//! Turns a stack of servers into the platform: creates the topics and tables, then starts the services.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::interrupt;
use crate::ports;
use crate::retry::retry;
use crate::service::{Service, ServiceOptions};
use crate::stack::Stack;

/// The services to start, and their settings.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// The size of the Kafka cluster, which determines the replication factor of the topics.
    pub brokers: u8,
    pub edge: bool,
    /// The port where the edge answers clients; a free one if not given.
    pub edge_port: Option<u16>,
    pub consumer: bool,
    pub aggregator: bool,
    /// The port of the aggregator; a free one if not given.
    pub http_port: Option<u16>,
    pub aggregator_settings: &'a [(&'a str, &'a str)],
}

/// Creates the missing topics and tables, then starts the services. Returns when they are ready.
pub fn start(stack: &Stack, wanted: &Services) -> Result<Vec<Arc<Service>>> {
    if !stack.brokers().is_empty() {
        retry(|| stack.restart_ended().and_then(|()| stack.create_topics(wanted.brokers)))?;
    }
    if !stack.clickhouse_url().is_empty() {
        retry(|| stack.restart_ended().and_then(|()| stack.run(&["migrate"]).map(drop)))?;
    }
    stack.restart_ended()?;
    let mut services = Vec::new();
    if wanted.edge {
        interrupt::check()?;
        services.push(Arc::new(start_edge(stack, wanted.edge_port)?));
    }
    if wanted.consumer {
        interrupt::check()?;
        services.push(Arc::new(stack.service("consumer")?));
    }
    if wanted.aggregator {
        interrupt::check()?;
        let edges: Vec<String> =
            services.iter().filter(|it| it.name() == "edge").map(|it| it.url()).collect();
        services.push(Arc::new(start_aggregator(stack, wanted, &edges.join(","))?));
    }
    Ok(services)
}

/// The variable with the token of the services' own routes, and the one with which the aggregator shows it to the edge.
const HTTP_TOKEN: &str = "SPLITSTREAM_HTTP__TOKEN";
const EDGE_TOKEN: &str = "SPLITSTREAM_AGGREGATOR__EDGE_TOKEN";

/// The variable of the edges whose counts the aggregator takes, if somebody has others than the stack's.
const EDGES: &str = "SPLITSTREAM_AGGREGATOR__EDGES";

/// Starts the aggregator, which adds the counts of these edges to their table, unless the environment names others.
fn start_aggregator(stack: &Stack, wanted: &Services, edges: &str) -> Result<Service> {
    let token = std::env::var(HTTP_TOKEN).unwrap_or_default();
    // Soon enough for somebody who watches.
    let mut settings = vec![("SPLITSTREAM_AGGREGATOR__EDGE_INTERVAL_MS", "5000")];
    if std::env::var_os(EDGES).is_none() {
        settings.push((EDGES, edges));
    }
    if !token.is_empty() && std::env::var_os(EDGE_TOKEN).is_none() {
        settings.push((EDGE_TOKEN, &token));
    }
    settings.extend_from_slice(wanted.aggregator_settings);
    stack.service_with("aggregator", ServiceOptions { settings: &settings, port: wanted.http_port })
}

/// The variable that names the file of tokens, if somebody wants the edge to ask for them.
pub(crate) const TOKEN_FILE: &str = "SPLITSTREAM_EDGE__TOKEN_FILE";

/// The variable of the connections that the edge takes at once, and their number on one machine: without it the edge would
/// ask for more open files than many systems allow a user.
const EDGE_CONNECTIONS: &str = "SPLITSTREAM_EDGE__CONNECTIONS";
const LOCAL_CONNECTIONS: &str = "2000";

/// Starts the edge. It listens on this machine alone, so it asks for no token unless a file of tokens is set.
fn start_edge(stack: &Stack, port: Option<u16>) -> Result<Service> {
    let directory = stack.dir().join("edge");
    std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    // Chosen here and not by the service, which must find its clients again after a restart.
    let listen = format!("127.0.0.1:{}", ports::given_or_free(port)?);
    let snapshot = directory.join("definitions").display().to_string();
    let spool = directory.join("spool").display().to_string();
    let mut settings = vec![
        ("SPLITSTREAM_EDGE__LISTEN", listen.as_str()),
        ("SPLITSTREAM_EDGE__SNAPSHOT_FILE", &snapshot),
        ("SPLITSTREAM_SPOOL__DIRECTORY", &spool),
    ];
    if std::env::var_os(TOKEN_FILE).is_none() {
        settings.push(("SPLITSTREAM_EDGE__OPEN_WITHOUT_TOKENS", "true"));
    }
    if std::env::var_os(EDGE_CONNECTIONS).is_none() {
        settings.push((EDGE_CONNECTIONS, LOCAL_CONNECTIONS));
    }
    let service = stack.service_with("edge", ServiceOptions { settings: &settings, port: None })?;
    stack.record_edge(&format!("http://{listen}"))?;
    Ok(service)
}
