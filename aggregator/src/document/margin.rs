//! The harm that a guardrail tolerates.

use serde::{Deserialize, Serialize};

use super::Bounds;

/// What a look shows about the harm that a guardrail tolerates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// The tolerated relative harm.
    pub relative: f64,
    /// The always-valid interval of the treatment's mean minus what is tolerated, which is `1 - relative` times the control's
    /// mean (`1 + relative` where lower is better); null where counts decide.
    pub interval: Option<Bounds>,
    /// Whether the interval, or that of the ratio of the counts, proves that the treatment is no worse than the margin.
    pub is_no_worse: bool,
    /// The reason why there is no test of the margin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}
