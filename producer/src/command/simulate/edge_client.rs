//! One keep-alive connection to an edge: evaluations over OFREP, and conversions by `track`. A request is sent again, with
//! the same bytes, until every part of it is accepted, it is refused, too much time has passed, or a signal ends the program.
//! What an answer means is decided in `edge_answer`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use kafka::https;
use ops::config::{Secret, ServerUrl};
use ops::retry::{End, Retry};
use ops::{Exit, Shutdown};
use schemas::Key;
use schemas::definition::Version;
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::edge_answer::{self, Answer, Judgement};
use crate::simulate::EdgeAnswer;

/// The longest time for which an edge may accept nothing of a request. A restart of an edge, or of its Kafka, takes much
/// less.
const RETRY_WITHIN: Duration = Duration::from_secs(120);
const RETRY: Retry = Retry {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(5),
    end: End::Within(RETRY_WITHIN),
};
/// Longer than the edge waits for events to become safe (`edge.track_timeout_ms`) by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1_024 * 1_024;
/// The time between two looks at whether everything stops.
const STOP_POLL: Duration = Duration::from_millis(50);

const EVALUATE_PATH: &str = "/ofrep/v1/evaluate/flags";
const TRACK_PATH: &str = "/ofrep/v1/track";

/// Names the environment variable of the token.
pub const TOKEN_VARIABLE: &str = "SPLITSTREAM_TOKEN";

/// Where an edge is, and what all connections to it share.
pub struct Edge {
    url: String,
    authorization: Option<String>,
    /// Where the token is from; `None` if none is shown.
    token_source: Option<String>,
    tls: Option<TlsConfig>,
    /// Requests that were answered or failed.
    requests: AtomicU64,
    /// Those of them that were sent again.
    resent: AtomicU64,
    /// Whether another request has failed for good.
    stopped: AtomicBool,
    shutdown: Shutdown,
    /// Whether it was said that the edge gives no answer, and none has come since.
    is_away: AtomicBool,
    bar: ProgressBar,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent<T> {
    Accepted(T),
    /// A signal, or another request that failed for good, ended the attempts before the edge accepted it.
    Stopped,
}

/// What is sent, once or again.
#[derive(Clone, Copy)]
struct Request<'a> {
    path: &'a str,
    body: &'a [u8],
    /// Whether an evaluation logs exposures.
    exposes: bool,
}

/// A connection; it is opened by the first request.
pub struct EdgeClient<'a> {
    edge: &'a Edge,
    agent: Agent,
}

impl Edge {
    /// Reads the token from `token_file` or from [`TOKEN_VARIABLE`]; without either none is shown. What there is to say
    /// while requests wait is printed above `bar`.
    pub fn new(
        url: &ServerUrl,
        token_file: Option<&Path>,
        shutdown: Shutdown,
        bar: ProgressBar,
    ) -> anyhow::Result<Edge> {
        let token = match (token_file, std::env::var(TOKEN_VARIABLE)) {
            (Some(file), _) => Some(Secret::read(file)),
            (None, Ok(token)) => {
                Some(Secret::new(token).map_err(|error| format!("{TOKEN_VARIABLE}: {error}")))
            }
            (None, Err(_)) => None,
        };
        let token_source = token.is_some().then(|| match token_file {
            Some(file) => file.display().to_string(),
            None => TOKEN_VARIABLE.to_owned(),
        });
        let token = token.transpose().map_err(|error| anyhow!(error).context(Exit::InvalidInput))?;
        Ok(Edge {
            url: url.as_str().trim_end_matches('/').to_owned(),
            authorization: token.map(|token| format!("Bearer {}", token.reveal())),
            token_source,
            tls: url.https().then(system_tls).transpose()?,
            requests: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            shutdown,
            is_away: AtomicBool::new(false),
            bar,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Makes requests that wait for another attempt end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn connect(&self) -> EdgeClient<'_> {
        EdgeClient { edge: self, agent: https::agent(REQUEST_TIMEOUT, self.tls.clone()).build().new_agent() }
    }

    /// Sleeps. Returns whether everything stops meanwhile.
    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.shutdown.begun();
            }
            if self.shutdown.sleep_blocking(left.min(STOP_POLL)) {
                return true;
            }
        }
    }

    /// Says once that the edge gives no answer, and until when it is asked.
    fn say_away(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            self.say(&format!("the edge at {} gives no answer: {why}", self.url));
        }
    }

    fn say(&self, what: &str) {
        let seconds = RETRY_WITHIN.as_secs();
        self.bar.suspend(|| eprintln!("{what}; trying again for up to {seconds} s"));
    }

    /// How to mend that the edge lets nobody in.
    fn token_hint(&self, status: u16) -> String {
        match (status, &self.token_source) {
            (401, None) => {
                format!(
                    "; no token was shown: put one into {TOKEN_VARIABLE}, or name its file with --edge-token-file"
                )
            }
            (401, Some(source)) => {
                format!("; the token of {source} is none of the edge's: see `edge.token_file`")
            }
            _ => String::new(),
        }
    }
}

/// How long a request was tried in vain, and the pause `asked` by the edge if that is why it is given up.
fn waited(elapsed: Duration, asked: Option<Duration>) -> String {
    let tried = format!("{:.1} s", elapsed.as_secs_f64());
    match asked.filter(|pause| elapsed + *pause > RETRY_WITHIN) {
        Some(pause) => format!(
            "{tried}, and asks for a pause of {} s, where a request is given up after {} s",
            pause.as_secs(),
            RETRY_WITHIN.as_secs()
        ),
        None => tried,
    }
}

/// TLS with the system's authorities.
fn system_tls() -> anyhow::Result<TlsConfig> {
    https::system_tls().ok_or_else(|| {
        anyhow!("the edge's URL is https, and the system has no certificate authorities; install them")
            .context(Exit::InvalidInput)
    })
}

impl EdgeClient<'_> {
    /// Evaluates the experiment until its exposures are logged.
    pub fn evaluate(&self, experiment: &Key, body: &[u8]) -> anyhow::Result<Sent<EdgeAnswer>> {
        // A key needs no encoding.
        let request = Request { path: &format!("{EVALUATE_PATH}/{experiment}"), body, exposes: true };
        self.until_accepted(request, edge_answer::of_evaluation)
    }

    /// Sends a batch of events until each of them is accepted.
    pub fn track(&self, body: &[u8], events: usize) -> anyhow::Result<Sent<()>> {
        let request = Request { path: TRACK_PATH, body, exposes: true };
        self.until_accepted(request, |answer| edge_answer::of_track(answer, events))
    }

    /// Waits until the edge evaluates by `version` of all definitions or a newer one: it follows the log like everybody. Asks
    /// for the experiment alone with the `body` of an evaluation, which exposes nobody. Says why it waits.
    pub fn await_version(&self, experiment: &Key, body: &[u8], version: Version) -> anyhow::Result<Sent<()>> {
        let request = Request { path: &format!("{EVALUATE_PATH}/{experiment}"), body, exposes: false };
        let mut said = false;
        self.until_accepted(request, |answer| {
            let judgement = edge_answer::of_version(answer, version);
            if let Judgement::Again { why, .. } = &judgement
                && !std::mem::replace(&mut said, true)
            {
                self.edge.say(&format!("the edge at {} is not ready: {why}", self.edge.url));
            }
            judgement
        })
    }

    fn until_accepted<T>(
        &self,
        request: Request<'_>,
        mut judge: impl FnMut(&Answer) -> Judgement<T>,
    ) -> anyhow::Result<Sent<T>> {
        let path = request.path;
        let began = Instant::now();
        let mut pauses = RETRY.pauses();
        loop {
            let answer = self.post(request);
            self.edge.requests.fetch_add(1, Ordering::Relaxed);
            let (judgement, status) = match &answer {
                Ok(answer) => {
                    self.edge.is_away.store(false, Ordering::Relaxed);
                    (judge(answer), answer.status)
                }
                // Sent again, whether or not the edge got it: neither an exposure nor an event counts twice.
                Err(error) => {
                    let why = error.to_string();
                    self.edge.say_away(&why);
                    (Judgement::Again { why, after: None }, 0)
                }
            };
            let (why, after) = match judgement {
                Judgement::Accepted(accepted) => return Ok(Sent::Accepted(accepted)),
                Judgement::Refused(why) => {
                    let hint = self.edge.token_hint(status);
                    let refused = anyhow!("the edge at {} refuses {path}: {why}{hint}", self.edge.url);
                    return Err(refused.context(Exit::Refused));
                }
                Judgement::Again { why, after } => (why, after),
            };
            let elapsed = began.elapsed();
            let pause = pauses.next().map(|pause| pause.max(after.unwrap_or_default()));
            let Some(pause) = pause.filter(|pause| elapsed + *pause <= RETRY_WITHIN) else {
                let waited = waited(elapsed, after);
                let error = anyhow!(
                    "the edge at {} did not accept {path} within {waited}: {why}; sending all of it again is safe",
                    self.edge.url
                );
                return Err(error.context(Exit::Unreachable));
            };
            if self.edge.pause(pause) {
                return Ok(Sent::Stopped);
            }
            self.edge.resent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn post(&self, Request { path, body, exposes }: Request<'_>) -> anyhow::Result<Answer> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.edge.url))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json");
        if !exposes {
            request = request.header("X-Splitstream-Exposure", "off");
        }
        if let Some(authorization) = &self.edge.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.send(body)?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (retry_after, version) = (header("retry-after"), header("x-splitstream-version"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status, retry_after, version, body: body.context("reading the answer")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_is_too_long_is_named_with_the_time_that_has_passed() {
        let seconds = Duration::from_secs;
        assert_eq!(
            waited(Duration::from_millis(1_300), Some(seconds(300))),
            "1.3 s, and asks for a pause of 300 s, where a request is given up after 120 s"
        );
        assert_eq!(waited(seconds(118), Some(seconds(2))), "118.0 s");
        assert_eq!(waited(seconds(118), None), "118.0 s");
    }
}
