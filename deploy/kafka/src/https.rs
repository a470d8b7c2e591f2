//! What the plain HTTP clients of services have in common, those of the schema registry and of edges: how long a connection is
//! kept, and whom they trust over TLS. It does not know what is asked.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// The settings of a client whose whole request may take `timeout`. Without `tls` it can ask for no https URL.
pub fn agent(timeout: Duration, tls: Option<TlsConfig>) -> ConfigBuilder<AgentScope> {
    let builder = Agent::config_builder()
        .timeout_global(Some(timeout))
        // Shorter than a server's keep-alive, so that no request uses a connection that was just closed.
        .max_idle_age(Duration::from_secs(2))
        .http_status_as_error(false)
        .user_agent("splitstream");
    match tls {
        Some(tls) => builder.tls_config(tls),
        None => builder,
    }
}

/// TLS that trusts the system's certificate authorities; `None` if it has none.
pub fn system_tls() -> Option<TlsConfig> {
    let authorities = rustls_native_certs::load_native_certs().certs;
    (!authorities.is_empty()).then(|| tls(&authorities))
}

/// TLS that trusts these authorities.
pub fn tls(authorities: &[CertificateDer<'_>]) -> TlsConfig {
    let owned: Vec<_> = authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&owned))
        .build()
}
