//! Edges of a platform, and what a client sends them. An edge has a place that outlives its process: the files with its
//! address, its definitions and its spool. It knows only the edge's outside.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use local::{Service, ServiceOptions};
use serde::Deserialize;
use serde_json::Value;

use crate::platform::Platform;

/// Longer than an edge waits for events to become safe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an edge has its files. A process that starts there takes over what the one before has left.
#[derive(Debug, Clone)]
pub struct EdgePlace {
    directory: PathBuf,
}

/// An answer with any status.
#[derive(Debug)]
pub struct EdgeAnswer {
    pub status: u16,
    pub body: Value,
}

/// The answer to one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tracked {
    pub event_id: Option<String>,
    pub status: String,
    #[serde(default)]
    pub error: Option<String>,
}

impl EdgePlace {
    pub fn new(platform: &Platform, name: &str) -> Result<EdgePlace> {
        let directory = platform.path(name);
        std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(EdgePlace { directory })
    }

    /// Starts a process there and returns when it is ready. It asks for no tokens, unless `settings` say so.
    pub fn start(&self, platform: &Platform, settings: &[(&str, &str)]) -> Result<Service> {
        let [spool, snapshot, port] = ["spool", "snapshot", "port"].map(|name| self.file(name));
        self.forget_address()?;
        let own = [
            ("SPLITSTREAM_SPOOL__DIRECTORY", spool.as_str()),
            ("SPLITSTREAM_EDGE__SNAPSHOT_FILE", snapshot.as_str()),
            ("SPLITSTREAM_EDGE__PORT_FILE", port.as_str()),
            ("SPLITSTREAM_EDGE__OPEN_WITHOUT_TOKENS", "true"),
            ("SPLITSTREAM_EDGE__TRACK_TIMEOUT_MS", "2000"),
        ];
        let all = [&own[..], settings].concat();
        platform.stack().service_with("edge", ServiceOptions { settings: &all, port: None })
    }

    /// Kills the process there. Its clients find nobody until another one has written where it listens.
    pub fn kill(&self, edge: &Service) -> Result<()> {
        edge.kill()?;
        self.forget_address()
    }

    fn forget_address(&self) -> Result<()> {
        let file = self.file("port");
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {file}"))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// A client of whatever process is there.
    pub fn client(&self) -> EdgeClient {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        EdgeClient { agent, port_file: self.directory.join("port") }
    }
}

/// Sends requests to the process at one place.
pub struct EdgeClient {
    agent: ureq::Agent,
    port_file: PathBuf,
}

impl EdgeClient {
    /// # Errors
    /// If no answer came; then it is not known what became of the request.
    pub fn post(&self, path: &str, body: &str) -> Result<EdgeAnswer> {
        let address = read_address(&self.port_file)?;
        let mut answer = self.agent.post(format!("http://{address}{path}")).send(body)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string()?;
        let body = serde_json::from_str(&text).with_context(|| format!("{status}: {text:?}"))?;
        Ok(EdgeAnswer { status, body })
    }

    /// Evaluates one key.
    pub fn evaluate(&self, key: &str, context: &Value) -> Result<EdgeAnswer> {
        let body = serde_json::json!({ "context": context }).to_string();
        self.post(&format!("/ofrep/v1/evaluate/flags/{key}"), &body)
    }

    /// Sends a batch of events as it is written. The answer has an entry for each event, unless the request as a whole
    /// was not taken.
    pub fn track(&self, batch: &str) -> Result<Vec<Tracked>> {
        let answer = self.post("/ofrep/v1/track", batch)?;
        let events = answer.body.get("events").cloned();
        let events = events.with_context(|| format!("{}: {}", answer.status, answer.body))?;
        Ok(serde_json::from_value(events)?)
    }
}

fn read_address(port_file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(port_file)
        .with_context(|| format!("no edge has written {}", port_file.display()))?;
    Ok(text.trim().to_owned())
}
