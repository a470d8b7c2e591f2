//! Where the values of a metric are cut, if that is a quantile of them.

use serde::{Deserialize, Serialize};

/// The cap of a winsorized metric. What is compared is the mean of the capped values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cap {
    /// In the unit of the values. It was frozen at the first look with enough values, and never moves; null before.
    pub value: Option<f64>,
    /// Values of matured units, over all variants, that are not 0.
    pub values: u64,
    /// So many of them freeze the cap.
    pub values_needed: u64,
}
