//! The boundary of looks at few conversions. Given the conversions of both arms at each look, the treatment's
//! conversions are a walk whose steps are binomial with its share of the units, whenever the conversions
//! came. So the probability of having crossed by a look is a sum, exact for any counts. The boundary spends
//! the alpha that the boundary for z may spend by the same share of the information; the part that whole
//! counts leave unspent goes to the next look.

use super::{Design, NEGLIGIBLE_SPENDING};
use crate::{Alternative, Invalid, TreatmentShare, count_mass::Mass};

/// The bounds of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountBound {
    /// Conversions of both arms.
    pub total: u64,
    /// The treatment crosses with at most this many of them; `None` where no count is small enough.
    pub at_most: Option<u64>,
    /// The treatment crosses with at least this many of them; `None` where no count is large enough.
    pub at_least: Option<u64>,
}

impl CountBound {
    /// Returns whether these conversions of the treatment cross a bound.
    pub fn rejects(&self, treatment: u64) -> bool {
        self.at_most.is_some_and(|most| treatment <= most)
            || self.at_least.is_some_and(|least| treatment >= least)
    }
}

/// Conversions of both arms among the units that were first exposed in one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseTotal {
    /// The planned share of the phase's units.
    pub treatment_share: TreatmentShare,
    /// Conversions of both arms.
    pub total: u64,
}

/// The boundary of the looks so far.
#[derive(Clone, Debug)]
pub struct CountBoundary {
    design: Design,
    /// The totals at the last look.
    phases: Vec<PhaseTotal>,
    /// The distribution of the treatment's conversions on the paths that have not crossed.
    walk: Mass,
    has_bounds: bool,
    spent_low: f64,
    spent_high: f64,
}

impl CountBoundary {
    /// The boundary before the first look, for units that are assigned with one share throughout.
    /// `treatment_share` is the share of the units, strictly between 0 and 1; `spent` is the alpha that other
    /// looks have already spent, of both sides together when two-sided.
    pub fn new(design: Design, treatment_share: f64, spent: f64) -> Result<CountBoundary, Invalid> {
        let treatment_share = TreatmentShare::new(treatment_share)?;
        let phases = vec![PhaseTotal { treatment_share, total: 0 }];
        Ok(CountBoundary { phases, ..CountBoundary::by_phase(design, spent) })
    }

    /// The boundary before the first [`CountBoundary::look_by_phase`].
    pub fn by_phase(design: Design, spent: f64) -> CountBoundary {
        let spent = spent / design.sides();
        CountBoundary {
            design,
            phases: Vec::new(),
            walk: Mass::none(),
            has_bounds: false,
            spent_low: spent,
            spent_high: spent,
        }
    }

    /// Adds a look at this share of the planned information, at which both arms together have `total`
    /// conversions, no fewer than before. The final look spends all remaining alpha. This is for one phase;
    /// for several use [`CountBoundary::look_by_phase`].
    ///
    /// Under equal rates the probability to cross at any look is at most alpha, and at most half of it on
    /// each side when two-sided, whatever the totals are. (Jennison & Turnbull 2000, chapter 12, has the
    /// recursion for equal steps.)
    pub fn look(&mut self, fraction: f64, is_final: bool, total: u64) -> Result<CountBound, Invalid> {
        let Some(&PhaseTotal { treatment_share, .. }) = self.phases.first() else {
            return Err(Invalid::TooFew { what: "phases", have: 0, need: 1 });
        };
        self.look_by_phase(fraction, is_final, &[PhaseTotal { treatment_share, total }])
    }

    /// Adds a look at units that were assigned in phases. `totals` has all phases of the last look, in the
    /// same order and with no fewer conversions, followed by those that began since. The bound is for the
    /// treatment's conversions over all phases together.
    ///
    /// Given the totals, the treatment's new conversions of a phase are binomial with the phase's share,
    /// independent of the other phases', so those of a look are a convolution of binomials. That is exact
    /// whenever the conversions come and however many phases there are, as long as neither the looks nor the
    /// shares depend on how the conversions so far split between the arms. Where they do, the boundary is
    /// only as good as the one for z, which has the same weakness; [`crate::phases::CountTest`] does not have
    /// it.
    pub fn look_by_phase(
        &mut self,
        fraction: f64,
        is_final: bool,
        totals: &[PhaseTotal],
    ) -> Result<CountBound, Invalid> {
        let new = self.since_the_last_look(totals)?;
        // If no look could have crossed yet, the earlier totals do not matter.
        let (from, steps) =
            if self.has_bounds { (self.walk.clone(), new.as_slice()) } else { (Mass::none(), totals) };
        let step = |mass: Mass, of: &PhaseTotal| match of.total {
            0 => mass,
            total => mass.after(&Mass::binomial(total, of.treatment_share.into())),
        };
        self.walk = steps.iter().fold(from, step);
        self.phases = totals.to_vec();
        let total = totals.iter().map(|phase| phase.total).sum();
        let alpha = self.design.alternative.tail(self.design.alpha);
        let target = if is_final { alpha } else { self.design.spending.spent(fraction, alpha) };
        let mut bound = CountBound { total, at_most: None, at_least: None };
        if self.design.alternative != Alternative::Greater && target - self.spent_low >= NEGLIGIBLE_SPENDING {
            let crossed = self.walk.cut_low(target - self.spent_low);
            self.spent_low += crossed;
            bound.at_most = self.walk.first().checked_sub(1);
            self.has_bounds |= bound.at_most.is_some();
        }
        if self.design.alternative != Alternative::Less && target - self.spent_high >= NEGLIGIBLE_SPENDING {
            let crossed = self.walk.cut_high(target - self.spent_high);
            self.spent_high += crossed;
            let next = self.walk.end();
            bound.at_least = (next <= total).then_some(next);
            self.has_bounds |= bound.at_least.is_some();
        }
        Ok(bound)
    }

    fn since_the_last_look(&self, totals: &[PhaseTotal]) -> Result<Vec<PhaseTotal>, Invalid> {
        if totals.len() < self.phases.len() {
            let (left, right) = (self.phases.len(), totals.len());
            return Err(Invalid::Lengths { what: "phases of the last look and of this one", left, right });
        }
        let mut new = totals.to_vec();
        for (now, before) in new.iter_mut().zip(&self.phases) {
            if now.treatment_share != before.treatment_share {
                let value = now.treatment_share.get();
                return Err(Invalid::OutOfRange {
                    what: "treatment share",
                    value,
                    range: "the phase's at the last look",
                });
            }
            let Some(grown) = now.total.checked_sub(before.total) else {
                let (what, range) = ("conversions of both arms", "not below that of the last look");
                return Err(Invalid::OutOfRange { what, value: now.total as f64, range });
            };
            now.total = grown;
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alpha, group_sequential::Spending};

    fn design(alternative: Alternative) -> Design {
        Design { alpha: Alpha::FIVE_PERCENT, alternative, spending: Spending::OBrienFleming }
    }

    fn boundary(share: f64) -> CountBoundary {
        CountBoundary::new(design(Alternative::TwoSided), share, 0.0).unwrap()
    }

    /// 8 fair coins: at most 0 in 1 of 256 ways, at most 1 in 9 of them, which is 3.5 % and too many.
    #[test]
    fn one_look_is_the_binomial_test_at_half_of_alpha_a_side() {
        let bound = boundary(0.5).look(1.0, true, 8).unwrap();
        assert_eq!(bound, CountBound { total: 8, at_most: Some(0), at_least: Some(8) });
        assert!(bound.rejects(0) && !bound.rejects(1) && !bound.rejects(7) && bound.rejects(8));
        let nothing = boundary(0.5).look(1.0, true, 5).unwrap();
        assert_eq!((nothing.at_most, nothing.at_least), (None, None));
        // 0.95^72 = 2.49 %, 0.95^71 = 2.6 %.
        assert_eq!(boundary(0.05).look(1.0, true, 71).unwrap().at_most, None);
        assert_eq!(boundary(0.05).look(1.0, true, 72).unwrap().at_most, Some(0));
    }

    #[test]
    fn no_conversions_and_too_early_looks_have_no_bound() {
        let mut boundary = boundary(0.5);
        let none = boundary.look(0.5, false, 0).unwrap();
        assert_eq!((none.at_most, none.at_least), (None, None));
        let mut early = super::tests::boundary(0.5);
        let bound = early.look(0.01, false, 1_000_000).unwrap();
        assert_eq!((bound.at_most, bound.at_least), (None, None));
        assert!(early.look(0.02, false, 999_999).is_err());
    }

    /// A first look whose bounds contain the whole mass of few trials, and then 2,010 conversions, none of
    /// the treatment.
    #[test]
    fn all_against_none_crosses_as_soon_as_alpha_may_be_spent() {
        let bound = boundary(0.5).look(0.1, false, 2_010).unwrap();
        assert!(bound.rejects(0) && bound.rejects(2_010) && !bound.rejects(1_005), "{bound:?}");
        let far = boundary(0.5).look(0.2, false, 50_000_000).unwrap();
        assert!(far.rejects(0) && far.rejects(24_000_000) && !far.rejects(25_000_000), "{far:?}");
    }

    /// The probability to cross at any of the looks, by a walk conversion by conversion that shares only the
    /// bounds with the boundary.
    fn crossing(share: f64, looks: &[CountBound]) -> (f64, f64) {
        let mut paths = vec![1.0];
        let (mut low, mut high, mut total) = (0.0, 0.0, 0);
        for look in looks {
            while total < look.total {
                let mut next = vec![0.0; paths.len() + 1];
                for (count, mass) in paths.iter().enumerate() {
                    next[count] += mass * (1.0 - share);
                    next[count + 1] += mass * share;
                }
                (paths, total) = (next, total + 1);
            }
            for (count, mass) in paths.iter_mut().enumerate() {
                let count = count as u64;
                if look.at_most.is_some_and(|most| count <= most) {
                    low += std::mem::take(mass);
                } else if look.at_least.is_some_and(|least| count >= least) {
                    high += std::mem::take(mass);
                }
            }
        }
        (low, high)
    }

    /// A hundred looks, with few conversions and with many, at even and at uneven splits.
    #[test]
    fn all_looks_together_spend_at_most_half_of_alpha_a_side() {
        for share in [0.05, 0.1, 0.5, 0.95] {
            for at_the_end in [8, 40, 400] {
                let mut boundary = boundary(share);
                let looks: Vec<CountBound> = (1..=100)
                    .map(|k| boundary.look(k as f64 / 100.0, k == 100, at_the_end * k / 100).unwrap())
                    .collect();
                let (low, high) = crossing(share, &looks);
                assert!(low <= 0.025 + 1e-12 && high <= 0.025 + 1e-12, "{share} {at_the_end}: {low} {high}");
                assert!((low - boundary.spent_low).abs() < 1e-12, "{low} {}", boundary.spent_low);
                assert!((high - boundary.spent_high).abs() < 1e-12, "{high} {}", boundary.spent_high);
                if at_the_end == 400 {
                    // Whole counts leave little unspent.
                    assert!(low > 0.015 && high > 0.015, "{share}: {low} {high}");
                }
            }
        }
    }

    #[test]
    fn alpha_of_other_looks_stays_spent_and_a_one_sided_test_has_one_bound() {
        let two_sided = design(Alternative::TwoSided);
        let mut rest = CountBoundary::new(two_sided, 0.5, 0.045).unwrap();
        // 0.0025 a side remains: 2^-9 = 0.00195, and 10 of 512 are too many.
        assert_eq!(rest.look(1.0, true, 8).unwrap().at_most, None);
        assert_eq!(rest.look(1.0, true, 9).unwrap().at_most, Some(0));
        let mut less = CountBoundary::new(design(Alternative::Less), 0.5, 0.0).unwrap();
        let bound = less.look(1.0, true, 8).unwrap();
        assert_eq!((bound.at_most, bound.at_least), (Some(1), None));
        assert!(CountBoundary::new(two_sided, 0.0, 0.0).is_err());
    }
}
