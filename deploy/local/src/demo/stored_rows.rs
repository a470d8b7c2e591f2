//! Waits until ClickHouse has stored a row for every event that was sent. Counts the rows there with SQL.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::interrupt;
use crate::stack::Stack;
use fetch::progress::Step;

const POLL: Duration = Duration::from_millis(300);

/// How long to wait for a new row before giving up. Longer than any restart takes.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(120);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Count the rows of experiments whose keys begin with `prefix`.
const EXPOSURES: &str = "SELECT count() FROM exposures WHERE startsWith(experiment, {prefix:String})";
const CONVERSIONS: &str = "SELECT count() FROM conversions WHERE startsWith(experiment, {prefix:String})";

/// The rows of events that an edge has sent since a time: exposures that it made, and conversions of units whose ids begin
/// with `prefix`, which carry the name of a token or, without tokens, `open`.
const EXPOSURES_OF_EDGE: &str = "SELECT count() FROM exposures WHERE experiment = {experiment:String} \
    AND sender_service = 'edge' AND created_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')";
const CONVERSIONS_OF_EDGE: &str = "SELECT count() FROM conversions WHERE startsWith(unit_id, {prefix:String}) \
    AND startsWith(sender_version, 'edge ') AND created_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')";

/// Numbers of rows, found or expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rows {
    pub exposures: u64,
    pub conversions: u64,
}

impl Rows {
    fn total(self) -> u64 {
        self.exposures + self.conversions
    }
}

/// Returns when ClickHouse has exactly the `expected` rows of the experiments whose keys begin with `prefix`.
/// More rows are an error: some event was stored twice.
pub fn wait(stack: &Stack, prefix: &str, expected: Rows) -> Result<()> {
    let client = Client::new(stack)?;
    let step = Step::start(format!("waiting for {} rows in ClickHouse", expected.total()));
    let mut best = 0;
    let mut last_progress = Instant::now();
    loop {
        interrupt::check()?;
        // ClickHouse may be restarting: a failed request is not an error, only no progress.
        let reason = match client.rows(prefix) {
            Ok(found) if found == expected => {
                step.done(&format!("{} exposures, {} conversions", found.exposures, found.conversions));
                return Ok(());
            }
            Ok(found) if found.exposures > expected.exposures || found.conversions > expected.conversions => {
                bail!("ClickHouse holds {found:?} where {expected:?} were sent: some event was stored twice")
            }
            Ok(found) => {
                if found.total() > best {
                    best = found.total();
                    last_progress = Instant::now();
                }
                step.note(&format!("{} of {}", found.total(), expected.total()));
                format!("there are {} of {}", found.total(), expected.total())
            }
            Err(error) => format!("{error:#}"),
        };
        if last_progress.elapsed() >= PROGRESS_TIMEOUT {
            bail!(
                "no new row in ClickHouse for {} s ({reason}); see the consumer's log, {}",
                PROGRESS_TIMEOUT.as_secs(),
                stack.dir().join("logs/consumer.log").display()
            );
        }
        std::thread::sleep(POLL);
    }
}

/// Counts the rows of the live experiment that came through the edge since `since`. The ids of its units begin with
/// `batch_id`.
pub fn of_edge(stack: &Stack, experiment: &str, batch_id: &str, since: SystemTime) -> Result<Rows> {
    let client = Client::new(stack)?;
    let prefix = format!("{batch_id}-");
    let since = since.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros().to_string();
    Ok(Rows {
        exposures: client.count(EXPOSURES_OF_EDGE, &[("experiment", experiment), ("since", &since)])?,
        conversions: client.count(CONVERSIONS_OF_EDGE, &[("prefix", &prefix), ("since", &since)])?,
    })
}

/// A client of ClickHouse with the settings that the services use.
struct Client {
    agent: ureq::Agent,
    url: String,
    database: String,
    user: Option<String>,
    password: Option<String>,
}

impl Client {
    fn new(stack: &Stack) -> Result<Client> {
        let setting = |name: &str| std::env::var(format!("SPLITSTREAM_CLICKHOUSE__{name}")).ok();
        let password = match (setting("PASSWORD"), setting("PASSWORD_FILE")) {
            (Some(password), _) => Some(password),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("reading the password of ClickHouse from {file}"))?;
                Some(text.trim_end().to_owned())
            }
            (None, None) => None,
        };
        Ok(Client {
            agent: ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build().new_agent(),
            url: stack.clickhouse_url().to_owned(),
            database: setting("DATABASE").unwrap_or_else(|| "splitstream".to_owned()),
            user: setting("USER"),
            password,
        })
    }

    fn rows(&self, prefix: &str) -> Result<Rows> {
        let parameters = [("prefix", prefix)];
        Ok(Rows {
            exposures: self.count(EXPOSURES, &parameters)?,
            conversions: self.count(CONVERSIONS, &parameters)?,
        })
    }

    /// `parameters` are the query's, by name.
    fn count(&self, query: &str, parameters: &[(&str, &str)]) -> Result<u64> {
        let mut request = self.agent.post(&self.url).query("database", &self.database);
        for (name, value) in parameters {
            request = request.query(format!("param_{name}"), value);
        }
        if let Some(user) = &self.user {
            request = request.header("X-ClickHouse-User", user);
        }
        if let Some(password) = &self.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        let mut answer = request.send(query).context("asking ClickHouse for the number of rows")?;
        let text = answer.body_mut().read_to_string().context("reading ClickHouse's answer")?;
        text.trim().parse().with_context(|| format!("ClickHouse counts {text:?} rows"))
    }
}
