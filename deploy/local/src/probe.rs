//! Asks a running part whether it is well, the way its clients would.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kafka::metadata;

/// Longer than any healthy part needs to say so on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// An explanation longer than this is cut.
const REASON_CHARS: usize = 600;

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A Metadata request, answered with at least so many live brokers.
    Kafka { brokers: usize },
    /// A GET of this path, answered with 200.
    Http { path: String },
}

impl Probe {
    /// Asks the part at `address` ("host:port", or a URL for HTTP). The error is the reason, in its
    /// own words where it gives any.
    pub fn ask(&self, address: &str) -> Result<(), String> {
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

/// The body of a 200; else the reason why there is none.
pub fn get(url: &str) -> Result<String, String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if answer.status() == 200 {
        return Ok(body);
    }
    let said: String = body.trim().chars().take(REASON_CHARS).collect();
    Err(format!("{} {said}", answer.status()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one request with `answer`, whatever it is.
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
    fn a_service_that_is_not_ready_tells_why() {
        let address =
            server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 23\r\n\r\nclickhouse: no answer\r\n");
        let refused = Probe::Http { path: "/readyz".to_owned() }.ask(&address);
        assert_eq!(refused, Err("503 Service Unavailable clickhouse: no answer".to_owned()));
    }

    #[test]
    fn a_ready_one_passes_with_or_without_a_scheme() {
        let ready = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        let probe = Probe::Http { path: "/ping".to_owned() };
        assert_eq!(probe.ask(&server(ready)), Ok(()));
        assert_eq!(probe.ask(&format!("http://{}/", server(ready))), Ok(()));
    }

    #[test]
    fn something_that_is_not_kafka_is_not_taken_for_it() {
        let address = server("HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(
            Probe::Kafka { brokers: 1 }.ask(&address),
            Err("the answer's size is not one that Kafka would send".to_owned())
        );
    }
}
