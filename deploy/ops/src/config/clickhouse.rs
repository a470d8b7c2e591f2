//! `[clickhouse]`: how to reach the database, and the client that does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
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
            Field::of("database", &self.database, "the database that holds our tables"),
            Field::of("user", &self.user, "who asks"),
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

/// A connection is set up within this time or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is kept shorter than the shortest keep-alive of a server, which is 3 s.
const IDLE: Duration = Duration::from_secs(2);
/// A peer that vanished is noticed by the kernel's probes, which begin after this.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

impl ClickHouse {
    /// A client of the database, with the user's credentials. It connects when it is first used.
    ///
    /// # Errors
    /// When the password's or the authorities' file cannot be read, or the system has no
    /// authorities.
    pub fn client(&self) -> Result<clickhouse::Client, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_nodelay(true);
        let mut http = HttpClient::builder(TokioExecutor::new());
        http.pool_idle_timeout(IDLE);
        let client = if self.url.https() {
            tcp.enforce_http(false);
            let tls = HttpsConnectorBuilder::new()
                .with_tls_config(self.tls()?)
                .https_only()
                .enable_http1()
                .wrap_connector(tcp);
            clickhouse::Client::with_http_client(http.build(tls))
        } else {
            clickhouse::Client::with_http_client(http.build(tcp))
        };
        let client = client.with_url(&self.url.0).with_database(&self.database.0).with_user(&self.user);
        let password = Secret::resolve(self.password.as_ref(), self.password_file.as_ref())?;
        Ok(match password {
            Some(password) => client.with_password(password.reveal()),
            None => client,
        })
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("ring implements the default protocol versions");
        let builder = match &self.ca_file {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.with_native_roots().map_err(|error| {
                format!(
                    "clickhouse.url is https, and the system's certificate authorities cannot be \
                     read ({error}); install them, or name a PEM file in clickhouse.ca_file"
                )
            })?,
        };
        Ok(builder.with_no_client_auth())
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let trouble = |error: &dyn std::fmt::Display| {
        format!("reading the certificates in clickhouse.ca_file, {}: {error}", path.display())
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| trouble(&error))? {
        let certificate = certificate.map_err(|error| trouble(&error))?;
        store.add(certificate).map_err(|error| trouble(&error))?;
    }
    if store.is_empty() {
        return Err(trouble(&"there is none"));
    }
    Ok(store)
}

/// `http://host:port` or `https://host:port`, with a path where a proxy wants one; credentials and
/// settings have fields of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<ServerUrl, String> {
        // A password could stand in the text, so no message repeats it.
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
    /// The name, safe to stand in SQL as it is.
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
