//! The aggregator's settings.

use ops::config::{ClickHouse, Count, Field, Http, Kafka, Log, Millis, Page, Section};
use serde::Deserialize;

/// The aggregator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Access to the log of looks.
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
}

/// The section `[aggregator]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregatorSection {
    pub interval_ms: Millis<100, 3_600_000>,
    pub follow_stopped_hours: Count<0, 8_760>,
    pub query_timeout_ms: Millis<1_000, 600_000>,
    pub document_interval_ms: Millis<0, 86_400_000>,
}

impl Default for AggregatorSection {
    fn default() -> AggregatorSection {
        AggregatorSection {
            interval_ms: Millis::of(10_000),
            follow_stopped_hours: Count::of(168),
            query_timeout_ms: Millis::of(60_000),
            document_interval_ms: Millis::of(600_000),
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
        ]
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
    fn an_interval_out_of_bounds_is_refused() {
        let file = "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c:8123'\n[aggregator]\ninterval_ms = 99";
        assert_eq!(
            parse(file).unwrap_err().to_string(),
            "aggregator.toml, line 6: aggregator.interval_ms: integer `99` where a whole number \
             from 100 to 3600000 milliseconds is expected"
        );
    }
}
