//! The test by which a plan with a horizon decides, and its looks.

use schemas::Micros;
use serde::{Deserialize, Serialize};

use super::{Bounds, ExactTest};

/// The test by which a plan with a horizon decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundaryMethod {
    /// Interim looks, by Lan-DeMets spending of the O'Brien-Fleming type.
    GroupSequential,
    /// One look, when the planned units have been reached.
    FixedHorizon,
}

/// The stage of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundaryStage {
    BeforeFirstLook,
    Interim,
    /// The look that spent all of alpha.
    Final,
    /// Units came after the final look: estimates continue, and decide nothing.
    PastEnd,
    /// Looks at units that no longer count left no alpha: there are estimates only, and no look is taken.
    AlphaSpent,
}

/// A test with planned units and its looks so far, as the log of looks has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boundary {
    pub metric: String,
    pub control: String,
    pub treatment: String,
    pub method: BoundaryMethod,
    /// The part of the plan's alpha that earlier looks left, divided by the number of treatments.
    pub alpha: f64,
    /// Alpha spent, by all treatments together, on looks at units that no longer count: before a change of the
    /// weights, the control or what the metric counts.
    #[serde(default)]
    pub alpha_spent_before: f64,
    pub planned_units_control: u64,
    pub planned_units_treatment: u64,
    /// Share of the planned information that both arms have now; a look is taken at some of these only.
    pub fraction: f64,
    pub stage: BoundaryStage,
    pub looks: Vec<BoundaryLook>,
    /// Whether there is less information now than at the last look, because late events took units or conversions back. No
    /// look is taken until there is more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub information_fell: bool,
    /// When the final look is due, if it waits only for units whose window is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_look_due: Option<FinalLookDue>,
    /// The first look that crossed; later looks do not undo it.
    pub crossed_at_look: Option<u32>,
    /// The first look that crossed while phases counted that are left out now: the decision then rested on
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossed_with_phases_left_out: Option<u32>,
    /// Set once it has crossed or ended by a look at z.
    pub after_stopping: Option<AfterStopping>,
    /// The reason why no look could be taken now.
    pub missing: Option<String>,
}

/// The wait for the final look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinalLookDue {
    /// The units exposed so far. Once all of them have matured it is due, or earlier: when the planned number has.
    pub units: u64,
    /// When the last of them has matured, if it was exposed just now.
    pub at_latest: Option<Micros>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// One look, as it was taken. Treatment minus control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundaryLook {
    /// The number of the look, from 1.
    pub look: u32,
    pub units_control: u64,
    pub units_treatment: u64,
    /// Share of the planned information.
    pub fraction: f64,
    pub is_final: bool,
    /// Whether it is final because the experiment was stopped before its planned end. It keeps alpha if the stop did not
    /// depend on the effect seen.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_early: bool,
    /// The look crosses if |z| is at least this; null where too little may be spent for any bound, or where
    /// `exact` decided.
    pub critical_value: Option<f64>,
    /// Alpha spent up to and including this look.
    pub alpha_spent: f64,
    pub z: f64,
    pub crossed: bool,
    pub lift_absolute: f64,
    pub standard_error: f64,
    pub lift_relative: Option<f64>,
    /// The repeated interval: the intervals of all looks hold at once.
    pub interval_absolute: Bounds,
    /// The interval divided by the control's mean as observed: for reading, not exact.
    pub interval_relative_to_control: Option<Bounds>,
    /// The exact test that decided this look in place of z, because an arm had too few conversions; the
    /// interval of the difference is then open on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactTest>,
}

/// The estimate that is adjusted for the stopping, by stage-wise ordering. Treatment minus control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AfterStopping {
    /// The first look that crossed, else the final one.
    pub look: u32,
    pub p_value: f64,
    /// The median-unbiased estimate.
    pub lift_absolute: f64,
    pub interval_absolute: Bounds,
}

impl Boundary {
    /// Returns the look that settled the test: the first that crossed, else the final one, if any.
    pub fn settled(&self) -> Option<&BoundaryLook> {
        let crossed = self.looks.iter().find(|look| look.crossed);
        crossed.or_else(|| self.looks.last().filter(|look| look.is_final))
    }

    pub fn has_ended(&self) -> bool {
        self.looks.last().is_some_and(|look| look.is_final)
    }
}
