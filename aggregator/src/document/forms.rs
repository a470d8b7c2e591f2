//! Documents of this and of other forms, read back. One that this build cannot read is refused; what the first form tells
//! of looks is remembered, for they are in no log.

use serde::Deserialize;

use super::{DOCUMENT_VERSION, ExperimentResult};

/// A document that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the document of `{experiment}` is of form {version}, and this build reads form {DOCUMENT_VERSION}: analyze again, \
         or install the build that wrote it"
    )]
    OtherVersion { experiment: String, version: u64 },
    #[error("the document of `{experiment}` cannot be read: {why}")]
    Damaged { experiment: String, why: String },
}

/// The part that all forms have in common. The first one had no version.
#[derive(Deserialize)]
struct Form {
    #[serde(default = "first_form")]
    document_version: u64,
}

fn first_form() -> u64 {
    1
}

/// Of the plan's alpha, by the boundaries of a document of the first form; 0 for any other, whose looks are in the log.
pub fn alpha_spent_by_version_1(text: &str) -> f64 {
    #[derive(Deserialize)]
    struct Old {
        document_version: Option<u32>,
        #[serde(default)]
        alpha_spent_before: f64,
        #[serde(default)]
        metrics: Vec<OldMetric>,
    }
    #[derive(Deserialize)]
    struct OldMetric {
        #[serde(default)]
        boundaries: Vec<OldBoundary>,
    }
    #[derive(Deserialize)]
    struct OldBoundary {
        looks: Vec<OldLook>,
    }
    #[derive(Deserialize)]
    struct OldLook {
        alpha_spent: f64,
    }
    let Ok(old) = serde_json::from_str::<Old>(text) else { return 0.0 };
    if old.document_version.is_some() {
        return 0.0;
    }
    let boundaries = old.metrics.iter().flat_map(|metric| &metric.boundaries);
    let spent = boundaries.filter_map(|boundary| boundary.looks.last()).map(|look| look.alpha_spent);
    old.alpha_spent_before + spent.sum::<f64>()
}

impl ExperimentResult {
    /// From its JSON.
    pub fn read(experiment: &str, text: &str) -> Result<ExperimentResult, Unreadable> {
        let damaged = |error: serde_json::Error| Unreadable::Damaged {
            experiment: experiment.to_owned(),
            why: error.to_string(),
        };
        let Form { document_version: version } = serde_json::from_str(text).map_err(damaged)?;
        if version != u64::from(DOCUMENT_VERSION) {
            return Err(Unreadable::OtherVersion { experiment: experiment.to_owned(), version });
        }
        serde_json::from_str(text).map_err(damaged)
    }
}
