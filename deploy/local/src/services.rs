//! Turns a stack of servers into the platform: creates the topics and tables, then starts the services.

use std::sync::Arc;

use anyhow::Result;

use crate::interrupt;
use crate::retry::retry;
use crate::service::{Service, ServiceOptions};
use crate::stack::Stack;

/// The services to start, and their settings.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// The size of the Kafka cluster, which determines the replication factor of the topics.
    pub brokers: u8,
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
