//! A client for ClickHouse's HTTP interface that shares no code with the platform's own client. Every
//! statement is fixed text with bound parameters.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A query that reads millions of rows takes seconds on a busy machine, never this long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Two million rows of the widest query of the tests take 60 MB.
const ANSWER_BYTES_MAX: u64 = 1_000_000_000;

/// A connection to the database of a platform.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    agent: ureq::Agent,
    url: String,
}

impl ClickHouse {
    /// `url` is "http://host:port".
    pub fn at(url: &str) -> ClickHouse {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        ClickHouse { agent, url: url.to_owned() }
    }

    /// Runs `sql` and returns the answer's bytes. Parameters are `("name", "value")` for `{name:Type}`.
    pub fn bytes(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut request = self.agent.post(&self.url).query("database", "splitstream");
        for (name, value) in parameters {
            request = request.query(format!("param_{name}"), value);
        }
        let mut answer = request.send(sql).with_context(|| format!("asking ClickHouse: {sql}"))?;
        let mut bytes = Vec::new();
        answer
            .body_mut()
            .as_reader()
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut bytes)
            .context("reading ClickHouse's answer")?;
        ensure!(
            answer.status() == 200,
            "ClickHouse answers {} to {sql}: {}",
            answer.status(),
            String::from_utf8_lossy(&bytes)
        );
        Ok(bytes)
    }

    /// Runs `sql` and returns the answer as text, without the line break at its end.
    pub fn text(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let text = String::from_utf8(self.bytes(sql, parameters)?).context("ClickHouse's answer")?;
        Ok(text.trim_end().to_owned())
    }

    /// Runs `sql`, whose answer is one number.
    pub fn number(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<u64> {
        let text = self.text(sql, parameters)?;
        text.parse().with_context(|| format!("{text:?} is not a number, the answer to {sql}"))
    }

    /// The number of the consumer's inserts that run at this moment.
    pub fn running_inserts(&self) -> Result<u64> {
        let sql = "SELECT count() FROM system.processes WHERE startsWith(query_id, 'splitstream')";
        self.number(sql, &[])
    }
}
