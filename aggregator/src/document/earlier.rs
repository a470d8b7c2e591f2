//! What an earlier look showed by phases that are left out now. It was told then; that the phase was left out later does not
//! unsay it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A difference that a recorded look showed while phases counted that are left out now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownBefore {
    pub treatment: String,
    pub by: ShownBy,
    /// Of the looks at this comparison, from 1: the boundary's, or the recorded ones.
    pub look: u32,
    /// Those that counted then, had units, and are left out now.
    pub phases: BTreeSet<u32>,
    pub side: Side,
    /// Treatment minus control, as that look had it; null if it cannot be told any more.
    pub lift_absolute: Option<f64>,
}

/// Which test showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShownBy {
    /// A planned look crossed its boundary.
    Boundary,
    /// The always-valid test of the primary metric, where no horizon is planned.
    AlwaysValid,
    /// The always-valid test of a guardrail's harm.
    Guardrail,
}

/// Where a treatment lies beside the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Better,
    Worse,
}
