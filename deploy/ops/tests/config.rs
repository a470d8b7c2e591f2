//! What an operator may write in the file and the environment, and the errors for what is wrong.

use ops::config::{
    self, ClickHouse, Config, Count, Error, Field, Http, Kafka, Log, Millis, Page, Required, Section,
    check_declaration,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    kafka: Kafka,
    clickhouse: ClickHouse,
    http: Http,
    log: Log,
    consumer: Settings,
}

impl Config for Service {
    fn pages(&self) -> Vec<Page> {
        vec![
            Page::of(&self.kafka),
            Page::of(&self.clickhouse),
            Page::of(&self.http),
            Page::of(&self.log),
            Page::of(&self.consumer),
        ]
    }

    fn required() -> Vec<Required> {
        vec![Required::of::<Kafka>(), Required::of::<ClickHouse>()]
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    batch_rows: Count<1, 1_000_000>,
    batch_age_ms: Millis<10, 60_000>,
    verify: bool,
    name: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { batch_rows: Count::of(100_000), batch_age_ms: Millis::of(1_000), verify: true, name: None }
    }
}

impl Section for Settings {
    const NAME: &'static str = "consumer";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("batch_rows", &self.batch_rows, "rows at which a batch is closed"),
            Field::of("batch_age_ms", &self.batch_age_ms, "age at which a batch is closed"),
            Field::of("verify", &self.verify, "whether assignments are computed again"),
            Field::of("name", &self.name, "what the consumer calls itself"),
        ]
    }
}

const FILE: &str = r#"
[kafka]
brokers = "kafka-1:9092,kafka-2:9092"

[clickhouse]
url = "http://clickhouse:8123"

[consumer]
batch_rows = 5000

[producer]
spool_bytes = 77
"#;

fn parse(file: &str, variables: &[(&str, &str)]) -> Result<Service, Error> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    config::parse(Some(("s.toml", file)), variables)
}

#[track_caller]
fn refused(file: &str, variables: &[(&str, &str)], message: &str) {
    assert_eq!(parse(file, variables).unwrap_err().to_string(), message);
}

fn with(lines: &str) -> String {
    format!("{FILE}{lines}")
}

#[test]
fn the_declaration_of_every_section_is_consistent() {
    assert_eq!(check_declaration::<Kafka>(), Ok(()));
    assert_eq!(check_declaration::<ClickHouse>(), Ok(()));
    assert_eq!(check_declaration::<Http>(), Ok(()));
    assert_eq!(check_declaration::<Log>(), Ok(()));
    assert_eq!(check_declaration::<Settings>(), Ok(()));
}

#[test]
fn a_declaration_that_lacks_a_field_is_found() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Drifted {
        one: bool,
        two: bool,
    }
    impl Default for Drifted {
        fn default() -> Drifted {
            Drifted { one: true, two: true }
        }
    }
    impl Section for Drifted {
        const NAME: &'static str = "drifted";
        fn fields(&self) -> Vec<Field> {
            assert!(self.one && self.two);
            vec![Field::of("one", &self.one, "the first")]
        }
    }
    assert_eq!(
        check_declaration::<Drifted>(),
        Err(r#"fields() lists ["one"], serde reads ["one", "two"]"#.into())
    );
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let service = parse(FILE, &[("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "250")]).unwrap();
    assert_eq!(service.consumer.batch_rows.get(), 5_000);
    assert_eq!(service.consumer.batch_age_ms.get(), 250);
    assert!(service.consumer.verify);
    let service = parse(
        FILE,
        &[
            ("SPLITSTREAM_CONSUMER__BATCH_ROWS", "7"),
            ("SPLITSTREAM_CONSUMER__VERIFY", "false"),
            ("SPLITSTREAM_CONSUMER__NAME", "left"),
        ],
    )
    .unwrap();
    assert_eq!(service.consumer.batch_rows.get(), 7);
    assert!(!service.consumer.verify);
    assert_eq!(service.consumer.name.as_deref(), Some("left"));
}

#[test]
fn the_environment_alone_is_enough() {
    let variables = [
        ("SPLITSTREAM_KAFKA__BROKERS", "kafka:9092"),
        ("SPLITSTREAM_CLICKHOUSE__URL", "http://clickhouse:8123"),
        ("SPLITSTREAM_PRODUCER__SPOOL_BYTES", "77"),
        ("SPLITSTREAM_CACHE", "elsewhere"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()));
    let service: Service = config::parse(None, variables).unwrap();
    assert_eq!(service.kafka.brokers.as_str(), "kafka:9092");
    assert_eq!(service.clickhouse.database.as_str(), "splitstream");
}

#[test]
fn a_missing_required_setting_is_an_error() {
    refused(
        "",
        &[],
        "kafka.brokers is not set and has no default; set it as brokers under [kafka] in the \
         configuration file, or as the environment variable SPLITSTREAM_KAFKA__BROKERS",
    );
}

#[test]
fn an_unknown_setting_is_refused_with_its_location() {
    refused(
        &with("[consumers]\nx = 1"),
        &[],
        "s.toml, line 13: consumers: no such section; there are kafka, clickhouse, http, log, consumer",
    );
    refused(
        "[kafka]\nbrokers = 'a:1'\nbroker = 'a:1'",
        &[],
        "s.toml, line 3: kafka.broker: no such setting; kafka has brokers, topic_prefix, security, \
         ca_file, sasl_mechanism, sasl_username, sasl_password, sasl_password_file",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CONSUMER__BATCH_ROW", "1")],
        "environment variable SPLITSTREAM_CONSUMER__BATCH_ROW: consumer.batch_row: no such setting; \
         consumer has batch_rows, batch_age_ms, verify, name",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_METRICS__PORT", "1")],
        "environment variable SPLITSTREAM_METRICS__PORT: metrics: no such section; there are kafka, \
         clickhouse, http, log, consumer",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CONSUMER_BATCH_ROWS", "1")],
        "environment variable SPLITSTREAM_CONSUMER_BATCH_ROWS: section and field are separated by \
         two underscores: SPLITSTREAM_CONSUMER__BATCH_ROWS",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CONSUMER__NAME__FIRST", "x")],
        "environment variable SPLITSTREAM_CONSUMER__NAME__FIRST: consumer.name: map where a string \
         is expected",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_KAFKA__BROKERS__ONE", "x")],
        "environment variable SPLITSTREAM_KAFKA__BROKERS__ONE: the configuration has a value, not \
         a table, above one (at s.toml, line 3)",
    );
}

#[test]
fn an_error_about_a_bound_states_the_bound() {
    for (value, service) in [("1", true), ("1000000", true), ("0", false), ("1000001", false)] {
        let file = FILE.replace("5000", value);
        assert_eq!(parse(&file, &[]).is_ok(), service, "{value}");
    }
    refused(
        &FILE.replace("5000", "1000001"),
        &[],
        "s.toml, line 9: consumer.batch_rows: integer `1000001` where a whole number from 1 to \
         1000000 is expected",
    );
    refused(
        &FILE.replace("5000", "-3"),
        &[],
        "s.toml, line 9: consumer.batch_rows: integer `-3` where a whole number from 1 to 1000000 \
         is expected",
    );
    refused(
        &FILE.replace("5000", "\"many\""),
        &[],
        "s.toml, line 9: consumer.batch_rows: string \"many\" where a whole number from 1 to \
         1000000 is expected",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "5s")],
        "environment variable SPLITSTREAM_CONSUMER__BATCH_AGE_MS: consumer.batch_age_ms: string \
         \"5s\" where a whole number from 10 to 60000 milliseconds is expected",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "9")],
        "environment variable SPLITSTREAM_CONSUMER__BATCH_AGE_MS: consumer.batch_age_ms: integer \
         `9` where a whole number from 10 to 60000 milliseconds is expected",
    );
}

#[test]
fn an_invalid_value_is_repeated_with_what_is_allowed() {
    refused(
        "[kafka]\nbrokers = 'kafka'",
        &[],
        "s.toml, line 2: kafka.brokers: \"kafka\" where host:port, several separated by commas is expected",
    );
    refused(
        "[kafka]\nbrokers = 'a:1'\nsecurity = 'ssl'",
        &[],
        "s.toml, line 3: kafka.security: \"ssl\" where one of plaintext, tls, sasl_plaintext, \
         sasl_tls is expected",
    );
    refused(
        &with("[http]\nlisten = 'localhost'"),
        &[],
        "s.toml, line 14: http.listen: \"localhost\" where an IP address and port, as in 0.0.0.0:8080 \
         (port 0 takes a free one) is expected",
    );
    refused(
        &with("[log]\nlevel = 'inof'"),
        &[],
        "s.toml, line 14: log.level: \"inof\" where one of off, error, warn, info, debug, trace, \
         or levels by module as in warn,consumer=debug is expected",
    );
    refused(
        &FILE.replace("url = \"http", "url = \"tcp"),
        &[],
        "s.toml, line 6: clickhouse.url: a URL with another scheme, with credentials or with a \
         query, where http://host:port or https://host:port is expected",
    );
    refused(
        &FILE.replace("//clickhouse", "//me:s3cret@clickhouse"),
        &[],
        "s.toml, line 6: clickhouse.url: a URL with another scheme, with credentials or with a \
         query, where http://host:port or https://host:port is expected",
    );
    refused("[kafka\nbrokers = 1", &[], "s.toml, line 1: not TOML: unclosed table, expected `]`");
}

#[test]
fn a_secret_comes_from_the_environment_or_its_own_file_and_is_never_printed() {
    refused(
        &FILE.replace("[consumer]", "password = 's3cret'\n[consumer]"),
        &[],
        "s.toml, line 8: clickhouse.password: a secret is not read from a configuration file; set \
         the environment variable SPLITSTREAM_CLICKHOUSE__PASSWORD, or name a file that holds it in \
         clickhouse.password_file",
    );
    refused(
        FILE,
        &[("SPLITSTREAM_CLICKHOUSE__PASSWORD", "")],
        "environment variable SPLITSTREAM_CLICKHOUSE__PASSWORD: clickhouse.password: 0 bytes where \
         a secret of 1 to 65536 bytes is expected",
    );
    let secret = [("SPLITSTREAM_CLICKHOUSE__PASSWORD", "s3cret")];
    let service = parse(FILE, &secret).unwrap();
    assert_eq!(service.clickhouse.password.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{service:?}").contains("s3cret"));
    assert!(!config::render(&service).contains("s3cret"));
    refused(
        &FILE.replace("[consumer]", "password_file = 'p'\n[consumer]"),
        &secret,
        "clickhouse.password and clickhouse.password_file are both set; remove one",
    );
}

#[test]
fn a_secrets_file_loses_one_line_break_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    for (text, secret) in [
        ("s3cret", "s3cret"),
        ("s3cret\n", "s3cret"),
        ("s3cret\r\n", "s3cret"),
        (" s3cret \n\n", " s3cret \n"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(config::Secret::read(&path).unwrap().reveal(), secret);
    }
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(
        config::Secret::read(&path).unwrap_err(),
        format!("the secret in {}: 0 bytes where a secret of 1 to 65536 bytes is expected", path.display())
    );
    let missing = directory.path().join("missing");
    assert_eq!(
        config::Secret::read(&missing).unwrap_err(),
        format!("reading the secret in {}: No such file or directory (os error 2)", missing.display())
    );
}

#[test]
fn settings_of_kafka_become_librdkafkas() {
    let service = parse(
        &FILE.replace(
            "[clickhouse]",
            "topic_prefix = 'eu.'\nsecurity = 'sasl_tls'\nca_file = 'ca.pem'\n\
             sasl_mechanism = 'SCRAM-SHA-256'\nsasl_username = 'me'\n[clickhouse]",
        ),
        &[("SPLITSTREAM_KAFKA__SASL_PASSWORD", "s3cret")],
    )
    .unwrap();
    let mut properties = Vec::new();
    for (name, value) in service.kafka.properties().unwrap() {
        properties.push(format!("{name}={value}"));
    }
    assert_eq!(
        properties,
        [
            "bootstrap.servers=kafka-1:9092,kafka-2:9092",
            "sasl.mechanism=SCRAM-SHA-256",
            "sasl.password=s3cret",
            "sasl.username=me",
            "security.protocol=sasl_ssl",
            "ssl.ca.location=ca.pem",
        ]
    );
    assert_eq!(service.kafka.topic("exposures"), "eu.exposures");
}

#[test]
fn settings_of_kafka_that_contradict_each_other_are_refused() {
    let kafka =
        |lines: &str| format!("{}\n", FILE.replace("[clickhouse]", &format!("{lines}\n[clickhouse]")));
    refused(
        &kafka("security = 'sasl_tls'"),
        &[],
        "kafka.sasl_username is not set, and kafka.security asks for SASL; set it, or choose \
         plaintext or tls",
    );
    refused(
        &kafka("security = 'sasl_tls'\nsasl_username = 'me'"),
        &[],
        "kafka.security asks for SASL, which takes one password: set the environment variable \
         SPLITSTREAM_KAFKA__SASL_PASSWORD or kafka.sasl_password_file",
    );
    refused(
        &kafka("sasl_username = 'me'"),
        &[],
        "kafka.sasl_username or a SASL password is set, and kafka.security does not use them; \
         choose sasl_tls or sasl_plaintext, or remove them",
    );
    refused(
        &kafka("ca_file = 'ca.pem'"),
        &[],
        "kafka.ca_file is set, and kafka.security does not use it; choose tls or sasl_tls, or \
         remove it",
    );
}

/// It was refused, setting after setting, to whom wanted to know what to set.
#[test]
fn a_configuration_that_is_not_set_is_described_nevertheless() {
    let describe = |file: &str, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        config::describe_text::<Service>(Some(("s.toml", file)), variables).map_err(|error| error.to_string())
    };
    let unset = describe("", &[]).unwrap();
    let brokers =
        "Required, for example \"127.0.0.1:9092\".\n# brokers is not set: nothing starts without it\n";
    let url = "# url is not set: nothing starts without it\n";
    assert!(unset.contains(brokers) && unset.contains(url), "{unset}");
    let set = describe("", &[("SPLITSTREAM_KAFKA__BROKERS", "k:9092")]).unwrap();
    assert!(set.contains("brokers = \"k:9092\"\n") && set.contains(url), "{set}");
    // What is wrong is still refused.
    assert_eq!(
        describe("[kafka]\nbroker = 'k:9092'", &[]).unwrap_err(),
        parse("[kafka]\nbroker = 'k:9092'\nbrokers = 'k:9092'\n[clickhouse]\nurl = 'http://c'", &[])
            .unwrap_err()
            .to_string()
    );
}

#[test]
fn the_whole_configuration_is_printed_as_a_file_that_can_be_read_again() {
    let service = parse(FILE, &[("SPLITSTREAM_CLICKHOUSE__PASSWORD", "s3cret")]).unwrap();
    let text = config::render(&service);
    let page = |name: &str| {
        let (_, page) = text.split_once(&format!("\n[{name}]\n")).unwrap();
        page.split("\n\n").next().unwrap().trim_end().to_string()
    };
    assert_eq!(
        page("consumer"),
        "# batch_rows: rows at which a batch is closed.\n\
         #   Allowed: a whole number from 1 to 1000000. Default: 100000.\n\
         batch_rows = 5000\n\
         # batch_age_ms: age at which a batch is closed.\n\
         #   Allowed: a whole number from 10 to 60000 milliseconds. Default: 1000.\n\
         batch_age_ms = 1000\n\
         # verify: whether assignments are computed again.\n\
         #   Allowed: true or false. Default: true.\n\
         verify = true\n\
         # name: what the consumer calls itself.\n\
         #   Allowed: text; may be left out. Default: none.\n\
         # name is not set"
    );
    assert!(page("kafka").starts_with(
        "# brokers: the brokers through which the cluster is found.\n\
         #   Allowed: host:port, several separated by commas. Required, for example \"127.0.0.1:9092\".\n\
         brokers = \"kafka-1:9092,kafka-2:9092\"\n"
    ));
    assert!(page("clickhouse").contains("\n# password is set, and hidden\n"));
    assert_eq!(parse(&text, &[]).unwrap().consumer.batch_rows.get(), 5_000, "{text}");
}

#[test]
fn a_file_of_another_version_is_refused() {
    let file = with("");
    assert!(parse(&format!("version = 1\n{file}"), &[]).is_ok());
    for version in ["2", "'1'", "0"] {
        refused(
            &format!("version = {version}\n{file}"),
            &[],
            "s.toml, line 1: version: this build reads configuration files of version 1; write `version = 1` where \
             the settings are those that `config` prints, or install the build that the file is for",
        );
    }
}
