//! The aggregator's settings.

use std::path::PathBuf;

use definitions::http::Writers;
use ops::config::{
    ClickHouse, Count, Field, Http, Kafka, Log, Millis, Page, Required, Secret, Section, ServerUrl, Setting,
    Shown,
};
use serde::Deserialize;

/// The aggregator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Access to the log of looks, and to the log of definitions.
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    pub http: Http,
    pub log: Log,
    pub aggregator: AggregatorSection,
}

impl ops::config::Config for Config {
    fn pages(&self) -> Vec<Page> {
        vec![
            Page::of(&self.kafka),
            Page::of(&self.clickhouse),
            Page::of(&self.http),
            Page::of(&self.log),
            Page::of(&self.aggregator),
        ]
    }

    fn required() -> Vec<Required> {
        vec![Required::of::<Kafka>(), Required::of::<ClickHouse>()]
    }
}

/// The section `[aggregator]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregatorSection {
    pub interval_ms: Millis<100, 3_600_000>,
    pub follow_stopped_hours: Count<0, 8_760>,
    pub query_timeout_ms: Millis<1_000, 600_000>,
    pub document_interval_ms: Millis<0, 86_400_000>,
    pub write_tokens: Option<Secret>,
    pub write_tokens_file: Option<PathBuf>,
    pub writes_per_minute: Count<1, 6_000>,
    pub edges: Edges,
    pub edge_token: Option<Secret>,
    pub edge_token_file: Option<PathBuf>,
    pub edge_interval_ms: Millis<100, 3_600_000>,
    pub edge_timeout_ms: Millis<10, 60_000>,
}

impl Default for AggregatorSection {
    fn default() -> AggregatorSection {
        AggregatorSection {
            interval_ms: Millis::of(10_000),
            follow_stopped_hours: Count::of(168),
            query_timeout_ms: Millis::of(60_000),
            document_interval_ms: Millis::of(600_000),
            write_tokens: None,
            write_tokens_file: None,
            writes_per_minute: Count::of(60),
            edges: Edges::default(),
            edge_token: None,
            edge_token_file: None,
            edge_interval_ms: Millis::of(60_000),
            edge_timeout_ms: Millis::of(5_000),
        }
    }
}

impl Section for AggregatorSection {
    const NAME: &'static str = "aggregator";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of(
                "interval_ms",
                &self.interval_ms,
                "from the start of one round of analyses to the next",
            ),
            Field::of(
                "follow_stopped_hours",
                &self.follow_stopped_hours,
                "hours for which a stopped experiment is still analyzed, for conversions that come late",
            ),
            Field::of("query_timeout_ms", &self.query_timeout_ms, "time that one query may take"),
            Field::of(
                "document_interval_ms",
                &self.document_interval_ms,
                "time after which a document is written again that says nothing new",
            ),
            Field::of(
                "write_tokens",
                &self.write_tokens,
                "who may change definitions over HTTP: `name:token`, separated by spaces, commas or line breaks; the name \
                 becomes the author; without any, nobody may, and with some, the Kafka user must be allowed to write to \
                 the topic of definitions",
            ),
            Field::of("write_tokens_file", &self.write_tokens_file, "file that holds the write tokens"),
            Field::of(
                "writes_per_minute",
                &self.writes_per_minute,
                "changes that one write token may ask for in a minute; one more gets 429",
            ),
            Field::of(
                "edges",
                &self.edges,
                "private addresses (http.listen) of the edges whose counts of evaluations are added to the table; each \
                 process by its own address, not that of a load balancer",
            ),
            Field::of("edge_token", &self.edge_token, "token of the edges' [http], if they have one"),
            Field::of("edge_token_file", &self.edge_token_file, "file that holds that token"),
            Field::of(
                "edge_interval_ms",
                &self.edge_interval_ms,
                "from one reading of an edge's counts to the next; a process of an edge that ends takes along what it \
                 counted since its last reading",
            ),
            Field::of(
                "edge_timeout_ms",
                &self.edge_timeout_ms,
                "time for an edge's answer; after it the reading has failed, and comes again with the next",
            ),
        ]
    }

    fn check(&self) -> Result<(), String> {
        if self.write_tokens.is_some() && self.write_tokens_file.is_some() {
            return Err(
                "aggregator.write_tokens and aggregator.write_tokens_file are both set; remove one".into()
            );
        }
        if self.edge_token.is_some() && self.edge_token_file.is_some() {
            return Err(
                "aggregator.edge_token and aggregator.edge_token_file are both set; remove one".into()
            );
        }
        Ok(())
    }
}

/// The URLs of edges; none by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Edges {
    text: String,
    urls: Vec<ServerUrl>,
}

/// Each edge has a task and a connection.
const EDGES_MAX: usize = 256;

impl Edges {
    pub fn urls(&self) -> &[ServerUrl] {
        &self.urls
    }
}

impl TryFrom<String> for Edges {
    type Error = String;

    fn try_from(text: String) -> Result<Edges, String> {
        let mut urls: Vec<ServerUrl> = Vec::new();
        for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let url = ServerUrl::try_from(url.to_owned())?;
            if urls.contains(&url) {
                return Err(format!("{} twice where {} is expected", url.as_str(), Edges::allowed()));
            }
            urls.push(url);
        }
        if urls.len() > EDGES_MAX {
            return Err(format!("{} edges where {} is expected", urls.len(), Edges::allowed()));
        }
        Ok(Edges { text, urls })
    }
}

impl Setting for Edges {
    fn allowed() -> String {
        format!(
            "http://host:port or https://host:port, up to {EDGES_MAX} of them, each once, separated by commas"
        )
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.text)
    }
}

impl Config {
    /// Reads who may change definitions over HTTP.
    ///
    /// # Errors
    /// If the tokens cannot be read or are not safe, or the token for reading is among them.
    pub fn writers(&self) -> Result<Writers, String> {
        let AggregatorSection { write_tokens, write_tokens_file, writes_per_minute, .. } = &self.aggregator;
        let tokens = Secret::resolve(write_tokens.as_ref(), write_tokens_file.as_ref())?;
        let setting = match (write_tokens, write_tokens_file) {
            (Some(_), _) => "aggregator.write_tokens",
            _ => "aggregator.write_tokens_file",
        };
        let writers = Writers::new(tokens.as_ref(), writes_per_minute.get(), setting)?;
        let reader = Secret::resolve(self.http.token.as_ref(), self.http.token_file.as_ref())?;
        if reader.is_some_and(|reader| writers.accept(&reader)) {
            return Err(format!(
                "{setting}: the token of [http], which is for reading, is among them; make another"
            ));
        }
        Ok(writers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(file: &str) -> Result<Config, ops::config::Error> {
        ops::config::parse(Some(("aggregator.toml", file)), [])
    }

    #[test]
    fn the_settings_are_declared_soundly() {
        ops::config::check_declaration::<AggregatorSection>().unwrap();
    }

    #[test]
    fn a_file_shared_with_the_other_services_is_read() {
        let file = "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c:8123'\n[consumer]\nx = 1";
        assert_eq!(parse(file).unwrap().aggregator.interval_ms.get(), 10_000);
    }

    #[test]
    fn who_reads_does_not_write_with_the_same_token() {
        let file = "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c:8123'";
        let with = |tokens: &str, reader: &str| {
            let variables =
                [("SPLITSTREAM_AGGREGATOR__WRITE_TOKENS", tokens), ("SPLITSTREAM_HTTP__TOKEN", reader)];
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let config: Config = ops::config::parse(Some(("aggregator.toml", file)), variables).unwrap();
            config.writers().map(|writers| format!("{writers:?}"))
        };
        assert_eq!(with("ann:0123456789abcdef", "fedcba9876543210"), Ok(r#"["ann"]"#.to_owned()));
        assert_eq!(
            with("ann:0123456789abcdef", "0123456789abcdef"),
            Err("aggregator.write_tokens: the token of [http], which is for reading, is among them; make another"
                .to_owned())
        );
        let none: Config = parse(file).unwrap();
        assert_eq!(format!("{:?}", none.writers().unwrap()), "[]");
    }

    #[test]
    fn edges_are_named_by_their_urls() {
        let with = |edges: &str| {
            let file =
                "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c:8123'\n[aggregator]\nedges = ";
            let config = parse(&format!("{file}'{edges}'")).map_err(|error| error.to_string())?;
            Ok(config.aggregator.edges.urls().iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(with(""), Ok(vec![]));
        assert_eq!(with("http://a:1, https://b:2/x"), Ok(vec!["http://a:1".into(), "https://b:2/x".into()]));
        let refused = |edges: &str| with(edges).map_err(|error: String| error.contains("up to 256 of them"));
        assert_eq!(refused("http://a:1,http://a:1"), Err(true));
        let many: Vec<String> = (0..257).map(|port| format!("http://a:{port}")).collect();
        assert_eq!(refused(&many.join(",")), Err(true));
        assert!(with("a:1").is_err() && with("http://u:p@a:1").is_err());
    }

    #[test]
    fn an_interval_out_of_bounds_is_refused() {
        let file = "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c:8123'\n[aggregator]\ninterval_ms = 99";
        assert_eq!(
            parse(file).unwrap_err().to_string(),
            "aggregator.toml, line 6: aggregator.interval_ms: integer `99` where a whole number \
             from 100 to 3600000 milliseconds is expected"
        );
    }
}
