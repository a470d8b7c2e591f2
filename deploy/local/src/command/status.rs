//! `splitstream local status`: reports for each process of a stack whether it is healthy, and if not, why.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::{DEFAULT_DIR, Dir};
use crate::state::{PartState, State};

#[derive(Debug, Clone, Args)]
pub struct Status {
    #[command(flatten)]
    pub dir: Dir,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The current state of a stack.
#[derive(Debug, Serialize)]
pub struct Report {
    pub dir: PathBuf,
    pub kafka: String,
    pub clickhouse: String,
    /// Empty if the stack has no schema registry.
    pub registry: String,
    /// The URL where clients ask for flags and send events; empty if the stack has no edge.
    pub edge: String,
    /// The URL of the results page; `None` if no aggregator runs.
    pub page: Option<String>,
    pub parts: Vec<Health>,
}

#[derive(Debug, Serialize)]
pub struct Health {
    pub name: String,
    pub pid: u32,
    pub address: Option<String>,
    pub healthy: bool,
    /// The reason why it is not healthy.
    pub reason: Option<String>,
    pub log: PathBuf,
}

/// Prints the report. Fails if no stack runs or a part is not healthy.
pub fn run(status: &Status) -> Result<()> {
    let report = Report::load(&status.dir.dir)?;
    print(&report, status.json)?;
    let unhealthy = report.parts.iter().filter(|part| !part.healthy).count();
    if unhealthy > 0 {
        bail!("{unhealthy} of {} parts are not healthy", report.parts.len());
    }
    Ok(())
}

impl Report {
    /// The state of the stack in `dir`.
    ///
    /// # Errors
    /// If no stack runs there.
    pub fn load(dir: &Path) -> Result<Report> {
        let Some(state) = State::load(dir)? else {
            bail!("no stack runs in {}: `splitstream local up` starts one", dir.display());
        };
        Ok(Report::of(dir, &state))
    }

    pub fn of(dir: &Path, state: &State) -> Report {
        let parts: Vec<Health> = state.parts.iter().map(health).collect();
        let aggregator = parts.iter().find(|part| part.name == "aggregator");
        Report {
            dir: dir.to_owned(),
            kafka: state.kafka.clone(),
            clickhouse: state.clickhouse.clone(),
            registry: state.registry.clone(),
            edge: state.edge.clone(),
            page: aggregator
                .and_then(|part| part.address.as_ref())
                .map(|address| format!("http://{address}/")),
            parts,
        }
    }
}

fn health(part: &PartState) -> Health {
    let result = match &part.address {
        _ if !part.process.is_alive() => Err("its process is gone".to_owned()),
        None => Err("it does not listen yet".to_owned()),
        Some(address) => part.probe.check(address),
    };
    Health {
        name: part.name.clone(),
        pid: part.process.pid,
        address: part.address.clone(),
        healthy: result.is_ok(),
        reason: result.err(),
        log: part.log.clone(),
    }
}

/// Prints the report as a table, or as JSON.
pub fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    print!("{}", table(report));
    Ok(())
}

/// What people use comes first, then each process with the address at which its health is asked for.
fn table(report: &Report) -> String {
    let mut text = String::new();
    let page = report.page.as_deref().unwrap_or_default();
    for (title, value) in [
        ("Page", page),
        ("Edge", &report.edge),
        ("ClickHouse", &report.clickhouse),
        ("Kafka", &report.kafka),
        ("Registry", &report.registry),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("{title:<12} {value}\n"));
        }
    }
    text.push_str(&format!("{:<12} {:>8}  {:<22} {}\n", "part", "pid", "operator's address", "health"));
    for part in &report.parts {
        let address = part.address.as_deref().unwrap_or("-");
        let health = part.reason.as_deref().unwrap_or("healthy");
        text.push_str(&format!("{:<12} {:>8}  {address:<22} {health}\n", part.name, part.pid));
    }
    let dir = match report.dir.to_str() {
        Some(DEFAULT_DIR) => String::new(),
        _ => format!(" --dir {}", report.dir.display()),
    };
    text.push_str(&format!(
        "A shell knows the addresses after (without `splitstream` on its PATH: cargo local env)\n  eval \"$(splitstream local \
         env{dir})\"\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_unhealthy_parts_and_the_reason() {
        let part = |name: &str, address: Option<&str>, reason: Option<&str>| Health {
            name: name.to_owned(),
            pid: 4711,
            address: address.map(str::to_owned),
            healthy: reason.is_none(),
            reason: reason.map(str::to_owned),
            log: PathBuf::new(),
        };
        let report = Report {
            dir: PathBuf::from(".splitstream"),
            kafka: "127.0.0.1:20001".to_owned(),
            clickhouse: String::new(),
            registry: String::new(),
            edge: "http://127.0.0.1:20002".to_owned(),
            page: Some("http://127.0.0.1:40001/".to_owned()),
            parts: vec![
                part("kafka-1", Some("127.0.0.1:20001"), None),
                part("consumer", None, Some("it does not listen yet")),
            ],
        };
        assert_eq!(
            table(&report),
            "Page         http://127.0.0.1:40001/\n\
             Edge         http://127.0.0.1:20002\n\
             Kafka        127.0.0.1:20001\n\
             part              pid  operator's address     health\n\
             kafka-1          4711  127.0.0.1:20001        healthy\n\
             consumer         4711  -                      it does not listen yet\n\
             A shell knows the addresses after (without `splitstream` on its PATH: cargo local env)\n  \
             eval \"$(splitstream local env)\"\n"
        );
        let elsewhere = Report { dir: PathBuf::from("/var/stack"), ..report };
        assert!(table(&elsewhere).ends_with("  eval \"$(splitstream local env --dir /var/stack)\"\n"));
    }
}
