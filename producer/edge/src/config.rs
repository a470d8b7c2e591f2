//! The edge's own settings. Each field has its unit, its bounds and what happens at them.

use std::path::PathBuf;

use http_server::IntakeBounds;
use ops::config::{
    Address, Bytes, Config as Declared, Count, Field, Http, Kafka, Log, Millis, Page, Registry, Required,
    Section, Setting, Shown,
};
use schemas::Key;
use sdk::emitter::{Settings, SpoolSettings};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Everything that `splitstream edge run` reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kafka: Kafka,
    /// The private port: operators, samples and counts.
    pub http: Http,
    pub log: Log,
    pub producer: Settings,
    /// Where events wait on disk while Kafka is away. An edge accepts events for others, so it has one.
    pub spool: SpoolSettings,
    #[serde(default)]
    pub registry: Registry,
    pub edge: EdgeSection,
    #[serde(rename = "clickhouse")]
    _clickhouse: IgnoredAny,
}

impl Declared for Config {
    fn pages(&self) -> Vec<Page> {
        vec![
            Page::of(&self.kafka),
            Page::of(&self.http),
            Page::of(&self.log),
            Page::of(&self.producer),
            Page::of(&self.spool),
            Page::of(&self.registry),
            Page::of(&self.edge),
        ]
    }

    fn required() -> Vec<Required> {
        vec![Required::of::<Kafka>(), Required::of::<SpoolSettings>()]
    }
}

/// Section `[edge]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeSection {
    pub environment: EnvironmentName,
    pub listen: Address,
    pub port_file: Option<PathBuf>,
    pub path_prefix: PathPrefix,
    pub token_file: Option<PathBuf>,
    pub open_without_tokens: bool,
    pub snapshot_file: Option<PathBuf>,
    pub stale_after_ms: Millis<2_500, 3_600_000>,
    pub head_timeout_ms: Millis<10, 600_000>,
    pub unread_timeout_ms: Millis<10, 600_000>,
    pub connections: Count<1, 100_000>,
    pub body_timeout_ms: Millis<10, 600_000>,
    pub bodies_at_once: Count<1, 100_000>,
    pub request_timeout_ms: Millis<10, 600_000>,
    pub requests_at_once: Count<1, 100_000>,
    pub body_bytes: Bytes<1_024, 1_048_576>,
    pub track_body_bytes: Bytes<1_024, 67_108_864>,
    pub track_events: Count<1, 10_000>,
    pub track_timeout_ms: Millis<10, 60_000>,
    pub streams: Count<0, 100_000>,
    pub streams_per_token: Count<1, 100_000>,
    pub stream_keep_alive_ms: Millis<100, 300_000>,
    pub suppressed_exposures: Count<1_000, 100_000_000>,
    pub samples: Count<0, 10_000>,
}

impl Default for EdgeSection {
    fn default() -> EdgeSection {
        EdgeSection {
            environment: EnvironmentName::default(),
            listen: Http::default().listen,
            port_file: None,
            path_prefix: PathPrefix::default(),
            token_file: None,
            open_without_tokens: false,
            snapshot_file: None,
            stale_after_ms: Millis::of(10_000),
            head_timeout_ms: Millis::of(10_000),
            unread_timeout_ms: Millis::of(30_000),
            connections: Count::of(20_000),
            body_timeout_ms: Millis::of(10_000),
            bodies_at_once: Count::of(1_024),
            request_timeout_ms: Millis::of(15_000),
            requests_at_once: Count::of(4_096),
            body_bytes: Bytes::of(65_536),
            track_body_bytes: Bytes::of(1_048_576),
            track_events: Count::of(1_000),
            track_timeout_ms: Millis::of(5_000),
            streams: Count::of(10_000),
            streams_per_token: Count::of(5_000),
            stream_keep_alive_ms: Millis::of(15_000),
            suppressed_exposures: Count::of(1_000_000),
            samples: Count::of(500),
        }
    }
}

impl Section for EdgeSection {
    const NAME: &'static str = "edge";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of(
                "environment",
                &self.environment,
                "the environment whose definitions are served; one a process",
            ),
            Field::of("listen", &self.listen, "where clients ask; http.listen is for operators alone"),
            Field::of(
                "port_file",
                &self.port_file,
                "file into which the service writes that address once it listens",
            ),
            Field::of(
                "path_prefix",
                &self.path_prefix,
                "path under which a proxy serves this one, for the addresses in answers",
            ),
            Field::of(
                "token_file",
                &self.token_file,
                "file of the tokens that may ask, in TOML; read again when it changes",
            ),
            Field::of(
                "open_without_tokens",
                &self.open_without_tokens,
                "serve everybody as a server; only where edge.listen is an address of this machine alone",
            ),
            Field::of(
                "snapshot_file",
                &self.snapshot_file,
                "file that keeps the definitions, for a start while Kafka is away; without it such a start waits",
            ),
            Field::of(
                "stale_after_ms",
                &self.stale_after_ms,
                "silence of Kafka after which answers say that they may be old",
            ),
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
                "connections at once, event streams included; one more waits until another is closed",
            ),
            Field::of(
                "body_timeout_ms",
                &self.body_timeout_ms,
                "time for the body of a request; then the request gets 408",
            ),
            Field::of(
                "bodies_at_once",
                &self.bodies_at_once,
                "bodies awaited at once; with one more, the request whose body has been awaited longest gets 503",
            ),
            Field::of(
                "request_timeout_ms",
                &self.request_timeout_ms,
                "time for the body of a request and the head of its answer; then the request gets 503",
            ),
            Field::of(
                "requests_at_once",
                &self.requests_at_once,
                "requests worked on at once, once their bodies are here; one more gets 503",
            ),
            Field::of("body_bytes", &self.body_bytes, "size of an evaluation's body; a larger one gets 413"),
            Field::of(
                "track_body_bytes",
                &self.track_body_bytes,
                "size of a batch of events; a larger one gets 413",
            ),
            Field::of("track_events", &self.track_events, "events of a batch; a larger one gets 400"),
            Field::of(
                "track_timeout_ms",
                &self.track_timeout_ms,
                "time for events to become safe; then those that are not get `retry`, and the request 503",
            ),
            Field::of("streams", &self.streams, "event streams at once; one more gets 503"),
            Field::of(
                "streams_per_token",
                &self.streams_per_token,
                "event streams of one token at once; one more gets 429",
            ),
            Field::of(
                "stream_keep_alive_ms",
                &self.stream_keep_alive_ms,
                "silence after which a stream sends a comment, so that proxies keep it open",
            ),
            Field::of(
                "suppressed_exposures",
                &self.suppressed_exposures,
                "exposures remembered for up to an hour, about 40 bytes each, so that a repeat is not logged; \
                 beyond it the oldest are logged again",
            ),
            Field::of(
                "samples",
                &self.samples,
                "contexts sampled in ten minutes for /samples, of up to 8 KiB each; none where http.listen can be reached \
                 from elsewhere and http.token is not set; 0 keeps none",
            ),
        ]
    }

    fn check(&self) -> Result<(), String> {
        match (&self.token_file, self.open_without_tokens) {
            (Some(_), true) => {
                Err("edge.token_file and edge.open_without_tokens are both set; remove one".into())
            }
            (None, false) => Ok(()),
            (None, true) if !self.listen.get().ip().is_loopback() => Err(format!(
                "edge.open_without_tokens is set and edge.listen is {}, which others can reach; set edge.token_file, \
                 or listen on 127.0.0.1",
                self.listen.get()
            )),
            _ => Ok(()),
        }
    }
}

impl EdgeSection {
    /// Whether it is said who may ask. Not part of the check of the section: `config edge` must be able to print it.
    pub fn check_access(&self) -> Result<(), String> {
        if self.token_file.is_none() && !self.open_without_tokens {
            return Err("edge.token_file is not set: nobody could ask; set it, or edge.open_without_tokens = true on a \
                        machine where everybody may"
                .into());
        }
        Ok(())
    }

    /// How many contexts are sampled. They may name people, so none are where others could ask for them without a token.
    pub fn samples_kept(&self, private: &Http) -> usize {
        let guarded = private.token.is_some() || private.token_file.is_some();
        if guarded || private.listen.get().ip().is_loopback() { self.samples.usize() } else { 0 }
    }

    /// What an answer says besides the evaluation follows from this: a tag has it.
    pub fn place(&self) -> String {
        let streams = self.streams.get() > 0;
        format!("{} {} {streams}", self.environment.as_str(), self.path_prefix.as_str())
    }

    /// The bounds of bodies and of the work on them.
    pub fn intake(&self) -> IntakeBounds {
        IntakeBounds {
            requests_at_once: self.requests_at_once.usize(),
            bodies_at_once: self.bodies_at_once.usize(),
            body_timeout: self.body_timeout_ms.duration(),
        }
    }

    /// The public listener's settings in the form of the HTTP server.
    pub fn public(&self) -> Http {
        Http {
            listen: self.listen,
            port_file: self.port_file.clone(),
            token: None,
            token_file: None,
            head_timeout_ms: self.head_timeout_ms,
            unread_timeout_ms: self.unread_timeout_ms,
            connections: self.connections,
            request_timeout_ms: self.request_timeout_ms,
            requests_at_once: self.requests_at_once,
            // The handlers read bodies themselves, each with its own bound.
            ..Http::default()
        }
    }
}

/// The name of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EnvironmentName(Key);

impl EnvironmentName {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn key(&self) -> &Key {
        &self.0
    }
}

impl Default for EnvironmentName {
    fn default() -> EnvironmentName {
        EnvironmentName(
            Key::new(schemas::definition::PRODUCTION).expect("the name of the environment is a key"),
        )
    }
}

impl TryFrom<String> for EnvironmentName {
    type Error = String;

    fn try_from(text: String) -> Result<EnvironmentName, String> {
        Key::new(text)
            .map(EnvironmentName)
            .map_err(|error| format!("{:?} where {} is expected", error.text, EnvironmentName::allowed()))
    }
}

impl Setting for EnvironmentName {
    fn allowed() -> String {
        "1 to 64 of the characters A-Z a-z 0-9 . _ -".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

/// A path without a slash at its end; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPrefix(String);

impl PathPrefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PathPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<PathPrefix, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        let whole = text.starts_with('/') && !text.ends_with('/') && !text.contains("//");
        if text.is_empty() || (whole && text.len() <= 200 && text.chars().all(legal)) {
            Ok(PathPrefix(text))
        } else {
            Err(format!("{text:?} where {} is expected", PathPrefix::allowed()))
        }
    }
}

impl Setting for PathPrefix {
    fn allowed() -> String {
        "a path such as /flags, without a slash at its end; empty for none".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(file: &str) -> Result<Config, String> {
        let file = format!("[kafka]\nbrokers = 'k:9092'\n[spool]\ndirectory = 'spool'\n[edge]\n{file}");
        ops::config::parse(Some(("edge.toml", &file)), []).map_err(|error| error.to_string())
    }

    #[test]
    fn the_settings_are_declared_soundly() {
        ops::config::check_declaration::<EdgeSection>().unwrap();
    }

    #[test]
    fn who_may_ask_must_be_said() {
        assert!(
            parse("").unwrap().edge.check_access().unwrap_err().starts_with("edge.token_file is not set")
        );
        assert_eq!(parse("token_file = 't'").unwrap().edge.check_access(), Ok(()));
        assert_eq!(parse("open_without_tokens = true").unwrap().edge.check_access(), Ok(()));
        assert_eq!(
            parse("open_without_tokens = true\ntoken_file = 't'").unwrap_err(),
            "edge.token_file and edge.open_without_tokens are both set; remove one"
        );
        assert_eq!(
            parse("open_without_tokens = true\nlisten = '0.0.0.0:80'").unwrap_err(),
            "edge.open_without_tokens is set and edge.listen is 0.0.0.0:80, which others can reach; set edge.token_file, \
             or listen on 127.0.0.1"
        );
    }

    #[test]
    fn contexts_are_sampled_only_where_a_token_or_the_address_guards_them() {
        let kept = |http: &str| {
            let file = format!("[kafka]\nbrokers = 'k:9092'\n[spool]\ndirectory = 'spool'\n[http]\n{http}");
            let config: Config = ops::config::parse(Some(("edge.toml", &file)), []).unwrap();
            config.edge.samples_kept(&config.http)
        };
        assert_eq!(kept(""), 500);
        assert_eq!(kept("listen = '[::1]:80'"), 500);
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.7:80"] {
            assert_eq!(kept(&format!("listen = '{open}'")), 0, "{open}");
            assert_eq!(kept(&format!("listen = '{open}'\ntoken_file = 't'")), 500, "{open}");
        }
    }

    #[test]
    fn a_place_has_all_that_an_answer_says_of_it() {
        let place = |file: &str| parse(file).unwrap().edge.place();
        assert_eq!(place(""), "production  true");
        assert_eq!(place("environment = 'staging'"), "staging  true");
        assert_eq!(place("path_prefix = '/flags'"), "production /flags true");
        assert_eq!(place("streams = 0"), "production  false");
    }

    #[test]
    fn names_and_paths_are_checked() {
        assert!(parse("environment = 'two words'").unwrap_err().contains("where 1 to 64 of the characters"));
        assert_eq!(parse("path_prefix = '/a/b'").unwrap().edge.path_prefix.as_str(), "/a/b");
        for wrong in ["a", "/a/", "/", "/a?b", "//a"] {
            assert!(parse(&format!("path_prefix = '{wrong}'")).is_err(), "{wrong}");
        }
    }
}
