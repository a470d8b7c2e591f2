//! An effect that an earlier look showed with phases that are left out now. It was published then; leaving the
//! phase out later does not retract it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A difference that a recorded look showed while phases counted that are left out now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownBefore {
    pub treatment: String,
    pub by: ShownBy,
    /// The number of the look among those at this comparison, from 1: among the boundary's looks, or the
    /// recorded ones.
    pub look: u32,
    /// The phases that counted then, had units, and are left out now.
    pub phases: BTreeSet<u32>,
    pub side: Side,
    /// Treatment minus control at that look; null if it can no longer be determined.
    pub lift_absolute: Option<f64>,
}

/// The test that showed it.
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

/// The side of the treatment relative to the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Better,
    Worse,
}
