//! `[http]`: where a service listens for operators and clients, and how many connections and requests it
//! accepts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::{Bytes, Count, Field, Millis, Secret, Section, Setting, Shown};

/// Where and how a service listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: Address,
    pub port_file: Option<PathBuf>,
    pub token: Option<Secret>,
    pub token_file: Option<PathBuf>,
    pub head_timeout_ms: Millis<10, 600_000>,
    pub unread_timeout_ms: Millis<10, 600_000>,
    pub connections: Count<1, 100_000>,
    pub request_timeout_ms: Millis<10, 600_000>,
    pub requests_at_once: Count<1, 100_000>,
    pub body_bytes: Bytes<1_024, 67_108_864>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            port_file: None,
            token: None,
            token_file: None,
            head_timeout_ms: Millis::of(10_000),
            unread_timeout_ms: Millis::of(30_000),
            connections: Count::of(1_024),
            request_timeout_ms: Millis::of(30_000),
            requests_at_once: Count::of(256),
            body_bytes: Bytes::of(1_048_576),
        }
    }
}

impl Section for Http {
    const NAME: &'static str = "http";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("listen", &self.listen, "where the service listens"),
            Field::of(
                "port_file",
                &self.port_file,
                "file into which the service writes its address once it listens",
            ),
            Field::of(
                "token",
                &self.token,
                "token that the service's own routes ask for, as a bearer or as the password of basic auth; without \
                 one they are open, and /metrics, /healthz and /readyz always are",
            ),
            Field::of("token_file", &self.token_file, "file that holds the token"),
            Field::of(
                "head_timeout_ms",
                &self.head_timeout_ms,
                "time for the head of a request, and between two on one connection; then it is closed",
            ),
            Field::of(
                "unread_timeout_ms",
                &self.unread_timeout_ms,
                "time that a client may leave an answer unread; then its connection is closed",
            ),
            Field::of(
                "connections",
                &self.connections,
                "connections at once; one more waits until another is closed",
            ),
            Field::of(
                "request_timeout_ms",
                &self.request_timeout_ms,
                "time for the head of an answer; then the request gets 503",
            ),
            Field::of(
                "requests_at_once",
                &self.requests_at_once,
                "requests under way at once; one more gets 503",
            ),
            Field::of("body_bytes", &self.body_bytes, "size of a request's body; a larger one gets 413"),
        ]
    }

    fn check(&self) -> Result<(), String> {
        if self.token.is_some() && self.token_file.is_some() {
            return Err("http.token and http.token_file are both set; remove one".into());
        }
        Ok(())
    }
}

/// An IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(SocketAddr);

impl Address {
    /// The address itself.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Address, String> {
        match text.parse() {
            Ok(address) => Ok(Address(address)),
            Err(_) => Err(format!("{text:?} where {} is expected", Address::allowed())),
        }
    }
}

impl Setting for Address {
    fn allowed() -> String {
        "an IP address and port, as in 0.0.0.0:8080 (port 0 takes a free one)".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(self.0)
    }
}
