//! The choice of the monitoring method of an experiment, which depends only on whether its end is planned.
//! With a planned number of units a boundary costs almost no power; without one only an always-valid method
//! is valid, at 1.6 to 2 times the units for the same power ([`crate::always_valid_power`]).

use crate::{
    Alpha, Alternative, Invalid, Pair,
    confidence_sequence::{self, DEFAULT_TUNING_UNITS, Mixing},
    group_sequential::{Continued, Design, Reserve, Spending},
};

/// The monitoring method, fixed before the first look.
#[derive(Clone, Debug)]
pub enum Monitoring {
    /// A Lan-DeMets O'Brien-Fleming boundary up to the planned units, and past them a test with the reserved
    /// alpha.
    Planned {
        /// The boundary, to which the looks are added.
        plan: Continued,
        /// Planned units of each arm, for [`crate::group_sequential::information_fraction`].
        planned: Pair<u64>,
    },
    /// An asymptotic confidence sequence, for any number of looks.
    Open {
        /// The design, whose results are valid at all looks at once.
        sequence: confidence_sequence::Design,
    },
}

impl Monitoring {
    /// The platform's default: a boundary where the units of both arms are planned (both above 0), else a
    /// confidence sequence tuned for [`DEFAULT_TUNING_UNITS`]. `reserve` is the share of alpha for decisions
    /// past the plan; without it there are none. It is not used without a plan.
    pub fn default_for(
        planned: Option<Pair<u64>>,
        alpha: Alpha,
        alternative: Alternative,
        reserve: Option<Reserve>,
    ) -> Result<Monitoring, Invalid> {
        let Some(planned) = planned else {
            let mixing = Mixing::TunedForUnits(DEFAULT_TUNING_UNITS);
            let sequence = confidence_sequence::Design::new(alpha, alternative, mixing)?;
            return Ok(Monitoring::Open { sequence });
        };
        if let Some(&empty) = [planned.control, planned.treatment].iter().find(|&&units| units == 0) {
            let range = "above 0 in both arms";
            return Err(Invalid::OutOfRange { what: "planned units", value: empty as f64, range });
        }
        let design = Design { alpha, alternative, spending: Spending::OBrienFleming };
        let plan = Continued::new(design, reserve, planned.control.saturating_add(planned.treatment))?;
        Ok(Monitoring::Planned { plan, planned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_for(planned: Option<Pair<u64>>) -> Result<Monitoring, Invalid> {
        Monitoring::default_for(planned, Alpha::FIVE_PERCENT, Alternative::TwoSided, Some(Reserve::FIFTH))
    }

    #[test]
    fn a_planned_end_decides_the_method() {
        let planned = Pair { control: 500, treatment: 500 };
        let Ok(Monitoring::Planned { plan, .. }) = default_for(Some(planned)) else {
            panic!("a plan has a boundary");
        };
        assert_eq!(plan.boundary().design().spending, Spending::OBrienFleming);
        assert!(plan.beyond().is_some());
        assert!(matches!(default_for(None), Ok(Monitoring::Open { .. })));
        assert!(default_for(Some(Pair { control: 500, treatment: 0 })).is_err());
    }
}
