//! The ClickHouse client over TLS: it trusts the authority that the operator names and no other.
//! The certificates in `tls/` are for these tests alone; the authority's key was thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ops::config::{ClickHouse, Config, Page};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    clickhouse: ClickHouse,
}

impl Config for Service {
    fn pages(&self) -> Vec<Page> {
        vec![Page::of(&self.clickhouse)]
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A server that shows its certificate and answers every request with an empty result.
async fn server() -> std::net::SocketAddr {
    let chain = CertificateDer::pem_file_iter(fixture("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up in the handshake.
            let Ok(mut connection) = acceptor.accept(connection).await else {
                continue;
            };
            let mut request = [0; 4_096];
            let _ = connection.read(&mut request).await.unwrap();
            connection
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let _ = connection.shutdown().await;
        }
    });
    address
}

fn client(lines: &str) -> clickhouse::Client {
    let file = format!("[clickhouse]\n{lines}");
    let service: Service = ops::config::parse(Some(("s.toml", &file)), []).unwrap();
    clickhouse_client::open(&service.clickhouse).unwrap()
}

#[tokio::test]
async fn the_named_authority_is_trusted_for_the_names_in_the_certificate() {
    let port = server().await.port();
    let authority = fixture("authority.pem");
    let lines = |host: &str| format!("url = 'https://{host}:{port}'\nca_file = '{}'", authority.display());
    client(&lines("127.0.0.1")).query("SELECT 1").execute().await.unwrap();
    let error = client(&lines("localhost")).query("SELECT 1").execute().await.unwrap_err();
    assert!(format!("{error:?}").contains("NotValidForName"), "{error:?}");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let port = server().await.port();
    let lines =
        format!("url = 'https://127.0.0.1:{port}'\nca_file = '{}'", fixture("stranger.pem").display());
    let error = client(&lines).query("SELECT 1").execute().await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}

#[test]
fn a_client_is_made_for_http_and_not_without_the_authorities_that_are_named() {
    let settings = |more: &str| -> ClickHouse {
        let file = format!("[clickhouse]\n{more}");
        ops::config::parse::<Service>(Some(("s.toml", &file)), []).unwrap().clickhouse
    };
    assert!(clickhouse_client::open(&settings("url = 'http://clickhouse:8123'")).is_ok());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, "no certificate\n").unwrap();
    let https = format!("url = 'https://clickhouse:8443'\nca_file = '{}'", path.display());
    assert_eq!(
        clickhouse_client::open(&settings(&https)).err().unwrap().to_string(),
        format!("reading the certificates in clickhouse.ca_file, {}: there is none", path.display())
    );
}
