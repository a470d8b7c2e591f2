//! The ClickHouse client of every service, made from the section `[clickhouse]`: credentials, TLS with the operator's own
//! authorities, and connections that are given up in time. It knows no table.

use std::path::Path;
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ops::config::{self, ClickHouse, Secret};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

pub use exit::{exit_of, tables_are_missing};

mod exit;

/// A connection is set up within this time or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is kept shorter than the shortest keep-alive of a server, which is 3 s.
const IDLE: Duration = Duration::from_secs(2);
/// A peer that vanished is noticed by the kernel's probes, which begin after this.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// A client of the database, with the user's credentials. It connects when it is first used.
///
/// # Errors
/// When the password's or the authorities' file cannot be read, or the system has no authorities.
pub fn open(settings: &ClickHouse) -> Result<clickhouse::Client, config::Error> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_nodelay(true);
    let mut http = HttpClient::builder(TokioExecutor::new());
    http.pool_idle_timeout(IDLE);
    let client = if settings.url.https() {
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config(tls(settings)?)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        clickhouse::Client::with_http_client(http.build(tls))
    } else {
        clickhouse::Client::with_http_client(http.build(tcp))
    };
    let client = client
        .with_url(settings.url.as_str())
        .with_database(settings.database.as_str())
        .with_user(&settings.user);
    let password = Secret::resolve(settings.password.as_ref(), settings.password_file.as_ref())?;
    Ok(match password {
        Some(password) => client.with_password(password.reveal()),
        None => client,
    })
}

fn tls(settings: &ClickHouse) -> Result<ClientConfig, String> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring implements the default protocol versions");
    let builder = match &settings.ca_file {
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
