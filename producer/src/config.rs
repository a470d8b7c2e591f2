//! The settings of these commands.

use ops::config::{Kafka, Page, Registry, Required};
use sdk::emitter::Settings;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// `[kafka]`, `[producer]` and `[registry]`. The sections `[clickhouse]`, `[http]` and `[log]` are accepted and
/// ignored, so that one file can serve the services and these commands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kafka: Kafka,
    pub producer: Settings,
    #[serde(default)]
    pub registry: Registry,
    #[serde(rename = "clickhouse")]
    _clickhouse: IgnoredAny,
    #[serde(rename = "http")]
    _http: IgnoredAny,
    #[serde(rename = "log")]
    _log: IgnoredAny,
}

impl ops::config::Config for Config {
    fn pages(&self) -> Vec<Page> {
        vec![Page::of(&self.kafka), Page::of(&self.producer), Page::of(&self.registry)]
    }

    fn required() -> Vec<Required> {
        vec![Required::of::<Kafka>()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_sections_pass_and_unknown_ones_do_not() {
        let file =
            "[kafka]\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c'\n[consumer]\nbatch_rows = 1\n";
        let variable = ("SPLITSTREAM_HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
        let config: Config = ops::config::parse(Some(("all.toml", file)), [variable]).unwrap();
        assert_eq!(config.kafka.brokers.as_str(), "k:9092");
        assert_eq!(config.producer.queue_events.get(), 200_000);

        let wrong = ops::config::parse::<Config>(Some(("all.toml", "[kafkaa]\n")), []).err().unwrap();
        assert!(wrong.to_string().starts_with("all.toml, line 1: kafkaa: "), "{wrong}");
    }
}
