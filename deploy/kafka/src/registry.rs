//! A client of a schema registry with Confluent's interface. It fetches a schema by its id or by its version of
//! a subject, and the id of a schema under a subject. It blocks until the registry answers, and distinguishes
//! what the registry refuses from what it does not answer. It caches nothing and does not interpret schemas.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::TlsConfig;

use ops::config::{self, Secret, ServerUrl};

use crate::https;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1_024 * 1_024;
/// Longer explanations are truncated to this length.
const REASON_CHARS: usize = 600;

/// The client. It connects on its first request.
pub struct Registry {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    register: bool,
}

/// The registry did not answer, or not in a registry's form. Another attempt later may succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema registry at {url} is not available: {reason}")]
pub struct Unavailable {
    pub url: String,
    pub reason: String,
}

/// The reason why there is no id for a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaIdError {
    /// The schema is incompatible with those registered under the subject.
    #[error("the schema registry refuses the schema of {subject} as incompatible with its others: {reason}")]
    Incompatible { subject: String, reason: String },
    /// The schema was only to be looked up, and nobody has registered it.
    #[error(
        "the schema registry does not have the schema of {subject}, and registry.register is false: {reason}"
    )]
    NotRegistered { subject: String, reason: String },
    /// The registry considers the schema invalid, or does not allow us to register it.
    #[error("the schema registry refuses the schema of {subject}: {reason}")]
    Refused { subject: String, reason: String },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A registered schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Registered {
    /// The text of the schema.
    pub schema: String,
    /// The schemas that declare the types which the text names and does not declare.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub references: Vec<Reference>,
}

/// A type that a schema names, and the schema that declares it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reference {
    pub name: String,
    pub subject: String,
    pub version: i32,
}

/// A registry's error codes: an HTTP status, alone or with two more digits. A plain 404 says nothing about a
/// schema: a registry also returns it for an unknown path.
const SUBJECT_NOT_FOUND: u32 = 40_401;
const VERSION_NOT_FOUND: u32 = 40_402;
const SCHEMA_NOT_FOUND: u32 = 40_403;

/// The body of a registry's error answer.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

enum Answer<T> {
    Success(T),
    /// The registry's own error code and message.
    Error(u32, String),
}

impl Registry {
    /// Creates a client; `None` if no registry is configured.
    ///
    /// # Errors
    /// If the password file or the certificate file cannot be read.
    pub fn open(settings: &config::Registry) -> Result<Option<Registry>, String> {
        let Some(url) = &settings.url else { return Ok(None) };
        let password = Secret::resolve(settings.password.as_ref(), settings.password_file.as_ref())?;
        let authorization = settings.user.as_ref().map(|user| {
            let password = password.as_ref().map_or("", Secret::reveal);
            format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
        });
        Ok(Some(Registry {
            agent: agent(url, settings)?,
            url: url.as_str().trim_end_matches('/').to_owned(),
            authorization,
            register: settings.register,
        }))
    }

    /// The URL of the registry.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the schema with this id; `None` if the registry answers that it has none.
    pub fn schema(&self, id: u32) -> Result<Option<Registered>, Unavailable> {
        self.registered(format!("{}/schemas/ids/{id}", self.url), &[SCHEMA_NOT_FOUND])
    }

    /// Returns a version of a subject, even one that was deleted since: what was written with it has not
    /// changed. `None` if the registry answers that it does not have it.
    pub fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, Unavailable> {
        let path =
            format!("{}/subjects/{}/versions/{version}?deleted=true", self.url, percent_encoded(subject));
        self.registered(path, &[SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND])
    }

    /// Returns the schema at `path`; `None` if the answer is one of the codes in `absent`.
    fn registered(&self, path: String, absent: &[u32]) -> Result<Option<Registered>, Unavailable> {
        let answer = self.authorized(self.agent.get(path).header("Accept", MEDIA_TYPE)).call();
        match self.read::<Registered>(answer)? {
            Answer::Success(registered) => Ok(Some(registered)),
            Answer::Error(code, _) if absent.contains(&code) => Ok(None),
            Answer::Error(code, reason) => Err(self.unavailable(format!("{code}: {reason}"))),
        }
    }

    /// Returns the id of a schema under a subject. Registers the schema first if that is configured and needed.
    pub fn id(&self, subject: &str, schema: &str) -> Result<u32, SchemaIdError> {
        let path = format!("{}/subjects/{}", self.url, percent_encoded(subject));
        let path = if self.register { format!("{path}/versions") } else { path };
        let subject = subject.to_owned();
        let request = self.agent.post(path).header("Accept", MEDIA_TYPE).content_type(MEDIA_TYPE);
        let body = json!({"schema": schema}).to_string();
        let answer = self.authorized(request).send(body);
        match self.read::<Id>(answer)? {
            Answer::Success(Id { id }) => Ok(id),
            Answer::Error(SUBJECT_NOT_FOUND | SCHEMA_NOT_FOUND, reason) if !self.register => {
                Err(SchemaIdError::NotRegistered { subject, reason })
            }
            Answer::Error(code, reason) => match status_of(code) {
                409 => Err(SchemaIdError::Incompatible { subject, reason }),
                401 | 403 | 422 => Err(SchemaIdError::Refused { subject, reason }),
                _ => Err(self.unavailable(format!("{code}: {reason}")).into()),
            },
        }
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// Reads the answer. An error counts as the registry's only in a registry's own form: a proxy's 404 says
    /// nothing about a schema.
    fn read<T: serde::de::DeserializeOwned>(
        &self,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer<T>, Unavailable> {
        let mut answer = answer.map_err(|error| self.unavailable(error.to_string()))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| self.unavailable(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_str(&body).map(Answer::Success).map_err(|error| {
                self.unavailable(format!("an answer of another form ({error}): {}", truncate(&body)))
            });
        }
        match serde_json::from_str::<ErrorBody>(&body) {
            Ok(body) if status_of(body.error_code) == u32::from(status.as_u16()) => {
                Ok(Answer::Error(body.error_code, truncate(&body.message)))
            }
            _ => Err(self.unavailable(format!("{status} {}", truncate(&body)))),
        }
    }

    fn unavailable(&self, reason: String) -> Unavailable {
        Unavailable { url: self.url.clone(), reason }
    }
}

fn agent(url: &ServerUrl, settings: &config::Registry) -> Result<Agent, String> {
    let tls = url.https().then(|| tls(settings)).transpose()?;
    Ok(https::agent(settings.timeout_ms.duration(), tls).build().new_agent())
}

fn tls(settings: &config::Registry) -> Result<TlsConfig, String> {
    let Some(path) = &settings.ca_file else {
        return https::system_tls().ok_or_else(|| {
            "registry.url is https, and the system has no certificate authorities; install them, or \
                    name a PEM file in registry.ca_file"
                .to_owned()
        });
    };
    let problem =
        |error: String| format!("reading the certificates in registry.ca_file, {}: {error}", path.display());
    let mut read = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(error.to_string()))? {
        read.push(certificate.map_err(|error| problem(error.to_string()))?);
    }
    if read.is_empty() {
        return Err(problem("there is none".to_owned()));
    }
    Ok(https::tls(&read))
}

fn status_of(code: u32) -> u32 {
    if code >= 1_000 { code / 100 } else { code }
}

fn truncate(text: &str) -> String {
    text.trim().chars().take(REASON_CHARS).collect()
}

/// Reads `null` as an empty list, because some registries write it.
fn null_as_empty<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Vec<Reference>, D::Error> {
    Option::<Vec<Reference>>::deserialize(list).map(Option::unwrap_or_default)
}

/// Encodes a text as one segment of a path: all but the unreserved characters of RFC 3986, section 2.3.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Encodes bytes as base64 (RFC 4648, section 4). It is meant for one header, not for much data.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = 0_u32;
        for at in 0..3 {
            group = group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_segment_of_a_path() {
        for (text, encoded) in [
            ("exposures-value", "exposures-value"),
            ("splitstream.events.Sender~1", "splitstream.events.Sender~1"),
            (":.shop:a/b?c#d e%f", "%3A.shop%3Aa%2Fb%3Fc%23d%20e%25f"),
            ("größe", "gr%C3%B6%C3%9Fe"),
        ] {
            assert_eq!(percent_encoded(text), encoded);
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
