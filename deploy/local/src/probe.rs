//! Checks the health of a running part with a request that its clients would send.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kafka::metadata;

/// Longer than any healthy part needs to answer on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A reason longer than this is cut.
const REASON_CHARS: usize = 600;

/// The request, and the answer that a healthy part gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A Metadata request, answered with at least this many live brokers.
    Kafka { brokers: usize },
    /// A GET request for this path, answered with 200.
    Http { path: String },
}

impl Probe {
    /// Checks the part at `address` ("host:port", or a URL for HTTP). The error is the reason, quoted from
    /// the part's answer if it gave one.
    pub fn check(&self, address: &str) -> Result<(), String> {
        match self {
            Probe::Kafka { brokers } => {
                let live = metadata::live_brokers(address).map_err(|error| error.to_string())?;
                if live < *brokers {
                    return Err(format!("{live} of {brokers} brokers are live"));
                }
                Ok(())
            }
            Probe::Http { path } => {
                let base = address.trim_end_matches('/');
                let scheme = if base.contains("://") { "" } else { "http://" };
                get(&format!("{scheme}{base}{path}")).map(|_| ())
            }
        }
    }
}

/// Requests `url` and returns the body of a 200. The error is the reason why there is none.
pub fn get(url: &str) -> Result<String, String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if answer.status() == 200 {
        return Ok(body);
    }
    let reason: String = body.trim().chars().take(REASON_CHARS).collect();
    Err(format!("{} {reason}", answer.status()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Starts a server that answers one request, whatever it is, with `answer`.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = connection.read(&mut [0; 1024]).unwrap();
            connection.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_service_that_is_not_ready_reports_why() {
        let address =
            server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 23\r\n\r\nclickhouse: no answer\r\n");
        let refused = Probe::Http { path: "/readyz".to_owned() }.check(&address);
        assert_eq!(refused, Err("503 Service Unavailable clickhouse: no answer".to_owned()));
    }

    #[test]
    fn a_ready_service_passes_with_or_without_a_scheme() {
        let ready = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        let probe = Probe::Http { path: "/ping".to_owned() };
        assert_eq!(probe.check(&server(ready)), Ok(()));
        assert_eq!(probe.check(&format!("http://{}/", server(ready))), Ok(()));
    }

    #[test]
    fn a_server_that_is_not_kafka_is_refused() {
        let address = server("HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(
            Probe::Kafka { brokers: 1 }.check(&address),
            Err("the answer's size is not one that Kafka would send".to_owned())
        );
    }
}
