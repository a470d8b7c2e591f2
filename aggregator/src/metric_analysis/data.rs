//! Two arms' units by split, and the quantities that the tests need: means, counts that are too few, the score
//! of all splits.

use std::collections::BTreeSet;

use stats::phases::{self, FewByPhase, Score, Stratum};
use stats::{Arm, Missing, Moments, Pair};

use crate::look::{PhaseSums, Sums, splits, strata};

/// Two arms' units in the phases that count.
pub(super) struct Data {
    pub(super) splits: Vec<PhaseSums>,
    pub(super) strata: Vec<Stratum>,
}

impl Data {
    pub(super) fn of(phases: &[PhaseSums], left_out: &BTreeSet<u32>) -> Result<Data, String> {
        let splits = splits(phases, left_out)?;
        Ok(Data { strata: strata(&splits)?, splits })
    }

    pub(super) fn score(&self) -> Result<Score, Missing> {
        Score::of(&self.strata)
    }

    /// Returns the units of each arm over all splits.
    pub(super) fn units(&self) -> Pair<u64> {
        self.strata.iter().map(Stratum::units).fold(Pair { control: 0, treatment: 0 }, |all, of| Pair {
            control: all.control + of.control,
            treatment: all.treatment + of.treatment,
        })
    }

    /// Returns both arms' means, weighted as the effect is; none without units in both.
    pub(super) fn means(&self) -> Option<Pair<f64>> {
        let mut sums = Pair { control: 0.0, treatment: 0.0 };
        let mut weights = 0.0;
        for of in &self.splits {
            let rate = |sums: &Sums| (sums.units > 0).then(|| sums.conversions as f64 / sums.units as f64);
            let (control, treatment) = match of.moments() {
                Ok(None) => (rate(&of.control), rate(&of.treatment)),
                Ok(Some(arms)) => {
                    let mean = |arm: Moments| (arm.count() > 0).then(|| arm.mean());
                    (mean(arms.control), mean(arms.treatment))
                }
                Err(_) => (None, None),
            };
            let (Some(control), Some(treatment)) = (control, treatment) else { continue };
            let (c, t) = (of.control.units as f64, of.treatment.units as f64);
            let weight = c * (t / (c + t));
            sums = Pair {
                control: weight.mul_add(control, sums.control),
                treatment: weight.mul_add(treatment, sums.treatment),
            };
            weights += weight;
        }
        (weights > 0.0).then(|| sums.map(|sum| sum / weights))
    }

    /// Returns the control's mean, if it can be the base of a relative lift.
    pub(super) fn control_mean(&self) -> Option<f64> {
        self.means().map(|means| means.control).filter(|mean| *mean > 0.0)
    }

    /// Returns treatment minus control; none without units.
    pub(super) fn difference(&self) -> Option<f64> {
        self.means().map(|means| means.treatment - means.control)
    }

    /// Returns both arms' units with any event, by split.
    pub(super) fn arms(&self) -> Result<Vec<Pair<Arm>>, String> {
        let arms = |of: &PhaseSums| Ok(Pair { control: of.control.arm()?, treatment: of.treatment.arm()? });
        self.splits.iter().map(arms).collect()
    }

    pub(super) fn is_of_rates(&self) -> bool {
        self.splits.iter().all(|of| of.control.values.is_none() && of.control.quantile.is_none())
    }

    pub(super) fn has_units(&self) -> bool {
        let units = self.units();
        units.control > 0 && units.treatment > 0
    }

    /// Returns the counts that decide, if they are too few for a normal approximation.
    pub(super) fn few(&self) -> Option<FewByPhase> {
        if self.has_units() { phases::few(&self.strata) } else { None }
    }

    /// Returns the same at a planned look.
    pub(super) fn few_at_a_planned_look(&self) -> Option<FewByPhase> {
        if self.has_units() { phases::few_at_a_planned_look(&self.strata) } else { None }
    }
}
