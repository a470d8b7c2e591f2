//! From bare servers to the platform: topics, tables, then the services.

use std::sync::Arc;

use anyhow::Result;

use crate::interrupt;
use crate::patience::patiently;
use crate::service::{Service, ServiceOptions};
use crate::stack::Stack;

/// What is wanted on top of the servers.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// Size of the Kafka cluster, for the number of copies of its topics.
    pub brokers: u8,
    pub consumer: bool,
    pub aggregator: bool,
    /// Where the aggregator listens; a free port if not given.
    pub http_port: Option<u16>,
    pub aggregator_settings: &'a [(&'a str, &'a str)],
}

/// Creates what is missing of the topics and tables, then starts the services. Returns when they are ready.
pub fn start(stack: &Stack, wanted: &Services) -> Result<Vec<Arc<Service>>> {
    if !stack.brokers().is_empty() {
        patiently(|| stack.revive().and_then(|()| stack.create_topics(wanted.brokers)))?;
    }
    if !stack.clickhouse_url().is_empty() {
        patiently(|| stack.revive().and_then(|()| stack.run(&["migrate"]).map(drop)))?;
    }
    stack.revive()?;
    let mut services = Vec::new();
    if wanted.consumer {
        interrupt::check()?;
        services.push(Arc::new(stack.service("consumer")?));
    }
    if wanted.aggregator {
        interrupt::check()?;
        let options = ServiceOptions { settings: wanted.aggregator_settings, port: wanted.http_port };
        services.push(Arc::new(stack.service_with("aggregator", options)?));
    }
    Ok(services)
}
