//! Reads documents of this and of other forms. A document that this build cannot read is refused.

use serde::Deserialize;

use super::{DOCUMENT_VERSION, ExperimentResult, Role};

/// The first form. Its documents did not name it.
pub const FIRST_FORM: u32 = 1;

/// A document that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the document of `{experiment}` is of form {version}, and this build reads form {DOCUMENT_VERSION}: analyze again, \
         or install the build that wrote it"
    )]
    OtherVersion { experiment: String, version: u32 },
    #[error("the document of `{experiment}` cannot be read: {why}")]
    Damaged { experiment: String, why: String },
}

/// The part that all forms have in common.
#[derive(Deserialize)]
struct Form {
    #[serde(default = "first_form")]
    document_version: u32,
}

fn first_form() -> u32 {
    FIRST_FORM
}

impl ExperimentResult {
    /// Reads a document from its JSON.
    pub fn read(experiment: &str, text: &str) -> Result<ExperimentResult, Unreadable> {
        let damaged = |error: serde_json::Error| Unreadable::Damaged {
            experiment: experiment.to_owned(),
            why: error.to_string(),
        };
        let Form { document_version: version } = serde_json::from_str(text).map_err(damaged)?;
        if version != DOCUMENT_VERSION {
            return Err(Unreadable::OtherVersion { experiment: experiment.to_owned(), version });
        }
        serde_json::from_str(text).map_err(damaged)
    }
}

/// The part of a document that a request for the history needs.
#[derive(Deserialize)]
pub struct MetricKeys {
    metrics: Vec<MetricKey>,
}

#[derive(Deserialize)]
struct MetricKey {
    key: String,
    role: Role,
}

impl MetricKeys {
    /// Reads the keys from the JSON of a document of this build's form.
    pub fn read(experiment: &str, text: &str) -> Result<MetricKeys, Unreadable> {
        serde_json::from_str(text).map_err(|error| Unreadable::Damaged {
            experiment: experiment.to_owned(),
            why: error.to_string(),
        })
    }

    /// Returns the key of the requested metric, by default of the primary one; none if the document has no such
    /// metric.
    pub fn find(&self, key: Option<&str>) -> Option<&str> {
        let is_meant = |metric: &&MetricKey| match key {
            Some(key) => metric.key == key,
            None => metric.role == Role::Primary,
        };
        self.metrics.iter().find(is_meant).map(|metric| metric.key.as_str())
    }
}
