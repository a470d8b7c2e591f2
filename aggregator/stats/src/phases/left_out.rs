//! A phase is left out of the analysis: what the remaining ones said at every look that was taken.

use std::collections::BTreeSet;

use super::{AlwaysValid, Score, Stratum, information_fraction};
use crate::{
    Invalid, Missing, Pair,
    group_sequential::{Boundary, Design},
};

/// A look as it was taken, with all the phases of its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Each with the number of its phase, which stays its own at all looks.
    pub strata: Vec<(u32, Stratum)>,
    /// Of the boundary's alpha, up to and including this look, of both sides when two-sided.
    pub alpha_spent: f64,
}

/// The looks again, from the remaining phases.
#[derive(Clone, Debug, PartialEq)]
pub struct Remaining {
    /// One for each recorded look, in their order.
    pub looks: Vec<RemainingLook>,
    /// The always-valid p-value: the smallest of the looks, 1 where none has one.
    pub p_value: f64,
    /// That of the last look as it was taken, in units.
    weight_of_last_look: f64,
}

/// One look again.
#[derive(Clone, Debug, PartialEq)]
pub struct RemainingLook {
    /// The remaining phases' weight as a share of the planned one; 0 where none of them had begun. Never below that of
    /// the look before, though units that were forgotten since may have made it so.
    pub fraction: f64,
    /// As it was recorded: what is spent stays spent.
    pub alpha_spent: f64,
    /// What the remaining phases say, or what they lack.
    pub score: Result<Score, Missing>,
    /// Of this look alone, by [`AlwaysValid::p_value`].
    pub p_value: Result<f64, Missing>,
}

/// The recorded looks without the phases `left_out`; the looks are in the order in which they were taken. `planned` are
/// the units planned with the first phase's shares.
///
/// The remaining phases' scores are a martingale of their own, so the boundary and the always-valid minimum of them keep
/// their levels, as long as a phase is not left out because of the effect it shows.
pub fn without(
    left_out: &BTreeSet<u32>,
    looks: &[Recorded],
    planned: Pair<u64>,
    always_valid: &AlwaysValid,
) -> Result<Remaining, Invalid> {
    let mut remaining = Remaining { looks: Vec::new(), p_value: 1.0, weight_of_last_look: 0.0 };
    let mut fraction = 0.0;
    for recorded in looks {
        let kept: Vec<Stratum> = recorded
            .strata
            .iter()
            .filter(|(phase, _)| !left_out.contains(phase))
            .map(|(_, stratum)| *stratum)
            .collect();
        fraction = information_fraction(&kept, planned)?.max(fraction);
        let p_value = always_valid.p_value(&kept);
        remaining.p_value = p_value.map_or(remaining.p_value, |p_value| p_value.min(remaining.p_value));
        remaining.weight_of_last_look = recorded.strata.iter().map(|(_, stratum)| stratum.weight()).sum();
        remaining.looks.push(RemainingLook {
            fraction,
            alpha_spent: recorded.alpha_spent,
            score: Score::of(&kept),
            p_value,
        });
    }
    Ok(remaining)
}

impl Remaining {
    /// Whether the boundary may take a look at the remaining strata: their weight exceeds that of the last look as it was
    /// taken. Below it the spending function has nothing that was not spent.
    pub fn allows(&self, strata: &[Stratum]) -> bool {
        strata.iter().map(Stratum::weight).sum::<f64>() > self.weight_of_last_look
    }

    /// The boundary after these looks: at the fractions of the remaining phases, with alpha spent as it was recorded. It
    /// has a bound for each look with a fraction above 0, in their order; the next look is [`Boundary::look`].
    pub fn boundary(&self, design: Design) -> Result<Boundary, Invalid> {
        let mut boundary = Boundary::new(design);
        for look in self.looks.iter().filter(|look| look.fraction > 0.0) {
            boundary.look_having_spent(look.fraction, look.alpha_spent)?;
        }
        Ok(boundary)
    }
}
