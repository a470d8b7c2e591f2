//! `[clickhouse]`: how to reach the database.

use std::path::PathBuf;

use http::Uri;
use serde::Deserialize;

use super::{Field, Secret, Section, Setting, Shown};

/// How to reach ClickHouse.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    pub url: ServerUrl,
    #[serde(default)]
    pub database: Identifier,
    #[serde(default = "default_user")]
    pub user: String,
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn default_user() -> String {
    "default".into()
}

impl Section for ClickHouse {
    const NAME: &'static str = "clickhouse";
    const REQUIRED: &'static str = "url = \"http://127.0.0.1:8123\"";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("url", &self.url, "the server's HTTP interface"),
            Field::of("database", &self.database, "the database with our tables"),
            Field::of("user", &self.user, "the user that logs in"),
            Field::of("password", &self.password, "the user's password"),
            Field::of(
                "password_file",
                &self.password_file,
                "file that holds the user's password; read when a client is made",
            ),
            Field::of(
                "ca_file",
                &self.ca_file,
                "PEM file of the authorities that sign the server's certificate, instead of the system's",
            ),
        ]
    }

    fn check(&self) -> Result<(), String> {
        if self.password.is_some() && self.password_file.is_some() {
            return Err("clickhouse.password and clickhouse.password_file are both set; remove one".into());
        }
        if self.ca_file.is_some() && !self.url.https() {
            return Err(
                "clickhouse.ca_file is set, and clickhouse.url does not use it; choose an https URL, \
                 or remove it"
                    .into(),
            );
        }
        Ok(())
    }
}

/// `http://host:port` or `https://host:port`, with a path if a proxy needs one. Credentials and settings have
/// their own fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the URL uses TLS.
    pub fn https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<ServerUrl, String> {
        // The text could contain a password, so no message repeats it.
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("not a URL ({error}), {} is expected", ServerUrl::allowed()))?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https"))
            && text.starts_with("http")
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none();
        if plain {
            Ok(ServerUrl(text))
        } else {
            Err(format!(
                "a URL with another scheme, with credentials or with a query, where {} is expected",
                ServerUrl::allowed()
            ))
        }
    }
}

impl Setting for ServerUrl {
    fn allowed() -> String {
        "http://host:port or https://host:port".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

/// A name that needs no quoting in SQL; `splitstream` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Identifier(String);

impl Identifier {
    /// The name; it is safe to use in SQL unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Identifier {
    fn default() -> Identifier {
        Identifier("splitstream".into())
    }
}

impl TryFrom<String> for Identifier {
    type Error = String;

    fn try_from(text: String) -> Result<Identifier, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let sound = (1..=64).contains(&text.len())
            && text.chars().all(legal)
            && !text.starts_with(|c: char| c.is_ascii_digit());
        if sound {
            Ok(Identifier(text))
        } else {
            Err(format!("{text:?} where {} is expected", Identifier::allowed()))
        }
    }
}

impl Setting for Identifier {
    fn allowed() -> String {
        "a name of 1 to 64 of the characters A-Z a-z 0-9 _, not beginning with a digit".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}
