//! A sample ratio test that may be looked at after every unit: the probability that it ever raises an alarm
//! for a correct experiment is at most its level.

use crate::{
    Invalid,
    multinomial_mixture::{self, Cell, log_bayes_factor},
    srm::shares,
};

/// The platform's concentration (Optimizely's): how closely the mixture is concentrated around the planned
/// shares. At 10,000 a split of 50.5/49.5 is found after a median of 120,000 units at level 0.01, at 100
/// after 160,000 (simulated, 10,000 a day).
pub const CONCENTRATION: f64 = 10_000.0;

/// The platform's alarm level for the p-value's running minimum.
pub const ALARM_LEVEL: f64 = 0.01;

/// The units since the planned shares last changed. A unit belongs to the phase in which it was
/// first exposed.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// Planned weights, in any scale; at least one must be above 0. Arms of weight 0 are ignored while they
    /// have no units.
    pub weights: &'a [f64],
    /// The units of each arm so far.
    pub units: &'a [u64],
}

/// The evidence of the counts so far against the planned shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Above 0 is evidence against the plan, below 0 is evidence for it.
    pub log_bayes_factor: f64,
    /// `min(1, 1/BF)` of this look. The always-valid p-value is the smallest over all looks.
    pub p_value: f64,
}

impl Evidence {
    /// The posterior probability that the shares are wrong, with a prior probability of a half.
    pub fn posterior_probability(&self) -> f64 {
        1.0 / (1.0 + (-self.log_bayes_factor).exp())
    }
}

/// The test of Lindon & Malek (2022), NeurIPS, multiplied over phases: each factor is a
/// martingale under its own planned shares, so their product is one and changing the split costs
/// no false alarm. `concentration` is from 1e-6 to 1e15.
///
/// Units in an arm of weight 0 are impossible under the plan: the evidence against it is infinite and p is 0.
/// If only one arm has a weight above 0 there is no ratio, so its units are no evidence.
pub fn evidence(phases: &[Phase<'_>], concentration: f64) -> Result<Evidence, Invalid> {
    multinomial_mixture::concentration(concentration)?;
    let mut log = 0.0;
    for phase in phases {
        log += match cells(phase)? {
            Some(cells) => log_bayes_factor(&cells, concentration),
            None => f64::INFINITY,
        };
    }
    Ok(Evidence { log_bayes_factor: log, p_value: (-log).exp().min(1.0) })
}

/// Returns the planned arms; `None` where an arm of weight 0 has units.
fn cells(phase: &Phase<'_>) -> Result<Option<Vec<Cell>>, Invalid> {
    let Phase { weights, units } = *phase;
    if weights.len() != units.len() {
        let what = "weights and units";
        return Err(Invalid::Lengths { what, left: weights.len(), right: units.len() });
    }
    let planned = shares(weights, 1)?;
    if planned.iter().zip(units).any(|(&share, &units)| share == 0.0 && units > 0) {
        return Ok(None);
    }
    let counted = planned.into_iter().zip(units).filter(|(share, _)| *share > 0.0);
    Ok(Some(counted.map(|(share, &units)| Cell { share, count: units as f64 }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 50/50 for 1000 units and then 90/10 for 1000: each phase is as planned, so there is no alarm, although
    /// the totals fit neither plan.
    #[test]
    fn a_ramp_is_no_mismatch() {
        let phases = [
            Phase { weights: &[1.0, 1.0], units: &[500, 500] },
            Phase { weights: &[9.0, 1.0], units: &[900, 100] },
        ];
        let found = evidence(&phases, 100.0).unwrap();
        assert!(found.log_bayes_factor < 0.0);
        let ignored = Phase { weights: &[1.0, 1.0], units: &[1400, 600] };
        assert!(evidence(&[ignored], 100.0).unwrap().p_value < 1e-60);
    }

    #[test]
    fn no_units_are_no_evidence() {
        let none = Phase { weights: &[1.0, 1.0], units: &[0, 0] };
        let found = evidence(&[none], 100.0).unwrap();
        assert_eq!(found, Evidence { log_bayes_factor: 0.0, p_value: 1.0 });
        assert_eq!(found.posterior_probability(), 0.5);
    }

    #[test]
    fn lists_must_match() {
        let phase = Phase { weights: &[1.0, 1.0], units: &[1] };
        assert!(matches!(evidence(&[phase], 100.0), Err(Invalid::Lengths { .. })));
        let phase = Phase { weights: &[0.0, 0.0], units: &[1, 1] };
        assert!(matches!(evidence(&[phase], 100.0), Err(Invalid::TooFew { .. })));
    }

    /// Units that the plan makes impossible are infinite evidence, whatever the evidence of the other phases.
    #[test]
    fn units_in_an_arm_of_weight_0_are_infinite_evidence() {
        let impossible = Evidence { log_bayes_factor: f64::INFINITY, p_value: 0.0 };
        let sound = Phase { weights: &[1.0, 1.0], units: &[500, 500] };
        let one_arm = Phase { weights: &[10_000.0, 0.0], units: &[300, 50] };
        let two_arms = Phase { weights: &[1.0, 1.0, 0.0], units: &[334, 333, 1] };
        for phase in [one_arm, two_arms] {
            let found = evidence(&[sound, phase], 100.0).unwrap();
            assert_eq!((found, found.posterior_probability()), (impossible, 1.0));
        }
        let as_planned = Phase { weights: &[10_000.0, 0.0], units: &[300, 0] };
        let nothing = Evidence { log_bayes_factor: 0.0, p_value: 1.0 };
        assert_eq!(evidence(&[as_planned], 100.0), Ok(nothing));
    }
}
