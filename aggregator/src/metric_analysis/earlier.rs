//! Effects that recorded looks showed while phases counted that are left out now. People saw them then, so they
//! stay visible: leaving out a phase after its result is choosing the result.

use std::collections::BTreeSet;

use schemas::definition::Direction;

use super::Data;
use super::always_valid::PastLooks;
use crate::document::{Role, ShownBefore, ShownBy, Side};
use crate::look::Comparison;

/// The test that judges a comparison.
pub(super) struct Asked {
    pub(super) role: Role,
    pub(super) direction: Direction,
    pub(super) has_boundary: bool,
}

/// Returns, for each side, the first look that showed something with phases that no such look before had.
/// `alpha_then` returns the alpha of a treatment's always-valid test at the time of the given last phase.
pub(super) fn shown_before(
    past: &PastLooks<'_>,
    asked: &Asked,
    alpha_then: impl Fn(u32) -> f64,
) -> Result<Vec<ShownBefore>, String> {
    let mut shown: Vec<ShownBefore> = Vec::new();
    for (index, (kept, left_out)) in past.looks().into_iter().enumerate() {
        let phases = past.left_out_since(kept, left_out);
        if phases.is_empty() {
            continue;
        }
        let last = kept.phases.iter().map(|of| of.phase).max().unwrap_or_default();
        let recorded = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        let Some(found) = found(kept, left_out, asked, alpha_then(last), recorded)? else { continue };
        if shown.iter().all(|before| before.side != found.side || !phases.is_subset(&before.phases)) {
            shown.push(ShownBefore { treatment: past.names.treatment.clone(), phases, ..found });
        }
    }
    Ok(shown)
}

fn found(
    kept: &Comparison,
    left_out: &BTreeSet<u32>,
    asked: &Asked,
    alpha: f64,
    recorded: u32,
) -> Result<Option<ShownBefore>, String> {
    let difference = || Ok::<_, String>(Data::of(&kept.phases, left_out)?.difference());
    let (by, look, lift_absolute) = if asked.role == Role::Guardrail {
        if kept.harm_p_value.is_none_or(|p| p > alpha) {
            return Ok(None);
        }
        (ShownBy::Guardrail, recorded, difference()?)
    } else if asked.has_boundary {
        let Some(planned) = kept.planned.filter(|planned| planned.crossed) else { return Ok(None) };
        (ShownBy::Boundary, planned.look, Some(planned.lift_absolute))
    } else {
        if kept.p_value.is_none_or(|p| p > alpha) {
            return Ok(None);
        }
        (ShownBy::AlwaysValid, recorded, difference()?)
    };
    let is_better = lift_absolute.is_some_and(|lift| match asked.direction {
        Direction::Increase => lift > 0.0,
        Direction::Decrease => lift < 0.0,
    });
    let side = if is_better && by != ShownBy::Guardrail { Side::Better } else { Side::Worse };
    let (treatment, phases) = (String::new(), BTreeSet::new());
    Ok(Some(ShownBefore { treatment, by, look, phases, side, lift_absolute }))
}
