//! Asks an edge for its counts, on its private port. It blocks until the edge answers or the time is over, and does not know
//! what becomes of the answer.

use std::time::Duration;

use anyhow::{Context, ensure};
use kafka::https;
use ops::config::{Secret, ServerUrl};
use schemas::evaluation_counts::CountsReading;
use ureq::Agent;

/// The largest answer that is read: about 500,000 rows, which are 60,000 flags of four variants. A larger one is a failure.
const ANSWER_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// A client of one edge. It connects when it is first used.
#[derive(Clone)]
pub struct EdgeClient {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

impl EdgeClient {
    /// # Errors
    /// If the URL is https and the system has no certificate authorities.
    pub fn open(url: &ServerUrl, token: Option<&Secret>, timeout: Duration) -> Result<EdgeClient, String> {
        let tls = url.https().then(|| {
            https::system_tls().ok_or_else(|| {
                "aggregator.edges has an https URL, and the system has no certificate authorities; \
                            install them"
                    .to_owned()
            })
        });
        // The token is shown to nobody else.
        let agent = https::agent(timeout, tls.transpose()?).max_redirects(0).build().new_agent();
        Ok(EdgeClient {
            agent,
            url: format!("{}/counts", url.as_str().trim_end_matches('/')),
            authorization: token.map(|token| format!("Bearer {}", token.reveal())),
        })
    }

    /// Reads the counts as they are now.
    pub fn read(&self) -> anyhow::Result<CountsReading> {
        let mut request = self.agent.get(&self.url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut answer = request.call().with_context(|| format!("asking {}", self.url))?;
        let status = answer.status();
        ensure!(
            status == 200,
            "{} answers {status}; is it the private address of an edge, and aggregator.edge_token the token of its [http]?",
            self.url
        );
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("reading the answer of {}", self.url))?;
        serde_json::from_slice(&body)
            .with_context(|| format!("{} answers in another form than an edge of this build", self.url))
    }
}
