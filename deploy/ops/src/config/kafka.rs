//! `[kafka]`: how to reach the cluster. Our own settings are translated to librdkafka's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Field, Secret, Section, Setting, Shown};

/// How to reach Kafka.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: Brokers,
    #[serde(default)]
    pub topic_prefix: TopicPrefix,
    #[serde(default)]
    pub security: Security,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub sasl_mechanism: SaslMechanism,
    #[serde(default)]
    pub sasl_username: Option<String>,
    #[serde(default)]
    pub sasl_password: Option<Secret>,
    #[serde(default)]
    pub sasl_password_file: Option<PathBuf>,
}

impl Section for Kafka {
    const NAME: &'static str = "kafka";
    const REQUIRED: &'static str = "brokers = \"127.0.0.1:9092\"";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("brokers", &self.brokers, "the brokers through which the cluster is found"),
            Field::of(
                "topic_prefix",
                &self.topic_prefix,
                "prefix of every topic's name, so that several installations can share a cluster",
            ),
            Field::of("security", &self.security, "the protocol of the connections to the brokers"),
            Field::of(
                "ca_file",
                &self.ca_file,
                "PEM file of the authorities that sign the brokers' certificates, instead of the system's",
            ),
            Field::of("sasl_mechanism", &self.sasl_mechanism, "how to log in, if security uses SASL"),
            Field::of("sasl_username", &self.sasl_username, "the user that logs in, if security uses SASL"),
            Field::of("sasl_password", &self.sasl_password, "the password for SASL"),
            Field::of(
                "sasl_password_file",
                &self.sasl_password_file,
                "file that holds the password for SASL; read when a connection is set up",
            ),
        ]
    }

    fn check(&self) -> Result<(), String> {
        let passwords =
            usize::from(self.sasl_password.is_some()) + usize::from(self.sasl_password_file.is_some());
        if self.security.sasl() {
            if self.sasl_username.is_none() {
                return Err("kafka.sasl_username is not set, and kafka.security asks for SASL; set it, \
                            or choose plaintext or tls"
                    .into());
            }
            if passwords != 1 {
                return Err(format!(
                    "kafka.security asks for SASL, which takes one password: {}",
                    if passwords == 0 {
                        "set the environment variable SPLITSTREAM_KAFKA__SASL_PASSWORD or \
                         kafka.sasl_password_file"
                    } else {
                        "remove kafka.sasl_password or kafka.sasl_password_file"
                    }
                ));
            }
        } else if self.sasl_username.is_some() || passwords > 0 {
            return Err("kafka.sasl_username or a SASL password is set, and kafka.security does not use \
                 them; choose sasl_tls or sasl_plaintext, or remove them"
                .into());
        }
        if self.ca_file.is_some() && !self.security.tls() {
            return Err("kafka.ca_file is set, and kafka.security does not use it; choose tls or sasl_tls, \
                 or remove it"
                .into());
        }
        Ok(())
    }
}

impl Kafka {
    /// Returns the full name of one of our topics, prefix included.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix.0)
    }

    /// Returns the connection's settings under librdkafka's names. They include the password, so they must not
    /// be printed.
    ///
    /// # Errors
    /// If the password file cannot be read.
    pub fn properties(&self) -> Result<BTreeMap<&'static str, String>, String> {
        let mut properties = BTreeMap::from([
            ("bootstrap.servers", self.brokers.0.clone()),
            ("security.protocol", self.security.librdkafka().to_string()),
        ]);
        if let Some(path) = &self.ca_file {
            properties.insert("ssl.ca.location", path.display().to_string());
        }
        if self.security.sasl() {
            properties.insert("sasl.mechanism", self.sasl_mechanism.name().to_string());
            if let Some(username) = &self.sasl_username {
                properties.insert("sasl.username", username.clone());
            }
            let password = Secret::resolve(self.sasl_password.as_ref(), self.sasl_password_file.as_ref())?;
            if let Some(password) = password {
                properties.insert("sasl.password", password.reveal().to_string());
            }
        }
        Ok(properties)
    }
}

/// One or more `host:port`, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Brokers(String);

impl Brokers {
    /// The list in librdkafka's form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Brokers {
    type Error = String;

    fn try_from(text: String) -> Result<Brokers, String> {
        for broker in text.split(',') {
            let valid = match broker.trim().rsplit_once(':') {
                Some((host, port)) => {
                    !host.is_empty()
                        && !host.contains(char::is_whitespace)
                        && port.parse::<u16>().is_ok_and(|port| port > 0)
                }
                None => false,
            };
            if !valid {
                return Err(format!("{broker:?} where {} is expected", Brokers::allowed()));
            }
        }
        Ok(Brokers(text))
    }
}

impl Setting for Brokers {
    fn allowed() -> String {
        "host:port, several separated by commas".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

/// The prefix of every topic's name; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TopicPrefix(String);

impl TryFrom<String> for TopicPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<TopicPrefix, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.len() <= 100 && text.chars().all(legal) {
            Ok(TopicPrefix(text))
        } else {
            Err(format!("{text:?} where {} is expected", TopicPrefix::allowed()))
        }
    }
}

impl Setting for TopicPrefix {
    fn allowed() -> String {
        "0 to 100 of the characters A-Z a-z 0-9 . _ -".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

/// The protocol of the connections to the brokers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    #[default]
    Plaintext,
    Tls,
    SaslPlaintext,
    SaslTls,
}

impl Security {
    fn tls(self) -> bool {
        matches!(self, Security::Tls | Security::SaslTls)
    }

    fn sasl(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslTls)
    }

    fn librdkafka(self) -> &'static str {
        match self {
            Security::Plaintext => "plaintext",
            Security::Tls => "ssl",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslTls => "sasl_ssl",
        }
    }
}

impl Setting for Security {
    fn allowed() -> String {
        "one of plaintext, tls, sasl_plaintext, sasl_tls".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(match self {
            Security::Plaintext => "plaintext",
            Security::Tls => "tls",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslTls => "sasl_tls",
        })
    }
}

/// The mechanism of a SASL login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Setting for SaslMechanism {
    fn allowed() -> String {
        "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(self.name())
    }
}
