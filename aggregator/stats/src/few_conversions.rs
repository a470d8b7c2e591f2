//! The gate that decides whether an arm has too few conversions for a normal approximation, and the counts to
//! test instead. Below the gate no asymptotic test may decide, but an exact test of the counts may: 2,010
//! conversions against none are no lack of data.
//!
//! Below the gate the exact tests decide ([`crate::conversion_counts`] at any time,
//! [`crate::group_sequential`]'s count boundary at planned looks, Fisher's test at one planned look), above
//! it the normal ones. The gate itself depends on the counts, so gate and tests are one procedure, which was
//! simulated as a whole; see the aggregator's README.

use crate::{Arm, Missing, Pair, Side, two_proportion::smaller_share};

/// Each arm needs this many conversions for a normal approximation, and as many units without a conversion.
/// In 20,000 simulated null experiments at 1 % base rate and a 90/10 split, false positives of the
/// always-valid interval were 32.6 % with the plug-in variance and no gate, and 3.0 % with the pooled
/// variance and this gate.
pub const MIN_CONVERSIONS: u64 = 10;

/// The same when the split is more uneven than [`UNEVEN_SHARE`].
pub const MIN_CONVERSIONS_UNEVEN: u64 = 25;

/// A split is uneven if the smaller arm has less than this share of the units (80/20).
pub const UNEVEN_SHARE: f64 = 0.2;

/// A planned look uses z once this many times the conversions that the gate requires are *expected* in each
/// arm. The choice between the two tests must not depend on how the conversions split, or each test spends
/// its alpha on the side where it rejects more easily: of 18,000 experiments at 90/10 without an effect, with
/// 20 conversions planned in the smaller arm, 5.5 % were rejected where the gate chose the test, and 4.6 %
/// where this number does. With this many expected, an arm below the gate is not a chance result.
const EXPECTED_AT_PLANNED_LOOKS: u64 = 4;

/// The slack for rounding: a planned share of 0.8 leaves a little less than 0.2.
const ROUNDING: f64 = 1e-9;

/// Which units are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Units that converted.
    Converted,
    /// Units that did not convert, where they are fewer: a rate of 99 % is known as badly as one of 1 %.
    NotConverted,
}

/// Two arms of which at least one has too few units with the rarer outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Few {
    /// The outcome that is rarer over both arms.
    pub outcome: Outcome,
    /// Units of each arm with this outcome.
    pub counts: Pair<u64>,
    /// The arm with too few; the one with fewer if both have too few.
    pub arm: Side,
    /// The number that a normal approximation needs in each arm.
    pub need: u64,
}

impl Few {
    /// Returns the counts of two rates if they are below the gate: at least one arm has too few of the rarer
    /// outcome.
    pub fn of_rates(arms: Pair<Arm>) -> Option<Few> {
        Few::counted(rarer_outcome(arms), arms, needed(smaller_share(arms).1)).below_the_gate()
    }

    /// Does the same for a mean. Its units without events are all 0, and vary no more than units that did not
    /// convert. Units with events vary in their values, so there may be any number of them.
    pub fn of_means(arms: Pair<Arm>) -> Option<Few> {
        Few::counted(Outcome::Converted, arms, needed(smaller_share(arms).1)).below_the_gate()
    }

    /// Returns the counts of two rates at a planned look if the normal approximation is not good yet: they
    /// are below the gate, or fewer than four times the gate's number are expected in an arm.
    /// `treatment_share` is the planned share of the units.
    pub fn of_rates_at_a_planned_look(arms: Pair<Arm>, treatment_share: f64) -> Option<Few> {
        let share = treatment_share.min(1.0 - treatment_share);
        Few::counted(rarer_outcome(arms), arms, needed(share)).below(EXPECTED_AT_PLANNED_LOOKS, share)
    }

    /// Does the same for a mean. Where most units have events there are few zeros, and only the gate applies.
    pub fn of_means_at_a_planned_look(arms: Pair<Arm>, treatment_share: f64) -> Option<Few> {
        let share = treatment_share.min(1.0 - treatment_share);
        let few = Few::counted(Outcome::Converted, arms, needed(share));
        match rarer_outcome(arms) {
            Outcome::Converted => few.below(EXPECTED_AT_PLANNED_LOOKS, share),
            Outcome::NotConverted => few.below_the_gate(),
        }
    }

    fn counted(outcome: Outcome, arms: Pair<Arm>, need: u64) -> Few {
        let counts = arms.map(|arm| match outcome {
            Outcome::Converted => arm.conversions(),
            Outcome::NotConverted => arm.units() - arm.conversions(),
        });
        let arm = if counts.control < counts.treatment { Side::Control } else { Side::Treatment };
        Few { outcome, counts, arm, need }
    }

    /// The count of the arm with fewer.
    fn have(&self) -> u64 {
        self.counts.control.min(self.counts.treatment)
    }

    /// Returns whether an arm has fewer than a normal approximation needs.
    pub fn is_below_the_gate(&self) -> bool {
        self.have() < self.need
    }

    fn below_the_gate(self) -> Option<Few> {
        self.is_below_the_gate().then_some(self)
    }

    fn below(self, times: u64, share: f64) -> Option<Few> {
        let expected = share * self.total() as f64;
        let enough = (times * self.need) as f64 * (1.0 - ROUNDING);
        (self.is_below_the_gate() || expected < enough).then_some(self)
    }

    /// The count of both arms together.
    pub fn total(&self) -> u64 {
        self.counts.control + self.counts.treatment
    }

    /// Returns what a normal approximation lacks.
    pub fn missing(&self) -> Missing {
        let (arm, have, need) = (self.arm, self.have(), self.need);
        match self.outcome {
            Outcome::Converted => Missing::Conversions { arm, have, need },
            Outcome::NotConverted => Missing::Unconverted { arm, have, need },
        }
    }
}

/// Returns the rarer outcome over both arms; `Converted` where both are equally frequent.
pub(crate) fn rarer_outcome(arms: Pair<Arm>) -> Outcome {
    let both = arms.control.merge(arms.treatment);
    // In f64, because twice a count may exceed 64 bits.
    if 2.0 * both.conversions() as f64 <= both.units() as f64 {
        Outcome::Converted
    } else {
        Outcome::NotConverted
    }
}

/// Returns the number needed in each arm, given the smaller arm's share of the units.
fn needed(smaller_share: f64) -> u64 {
    if smaller_share < UNEVEN_SHARE - ROUNDING { MIN_CONVERSIONS_UNEVEN } else { MIN_CONVERSIONS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counts;

    fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    fn few(control: (u64, u64), treatment: (u64, u64)) -> Option<(Outcome, u64, u64, Side, u64)> {
        Few::of_rates(arms(control, treatment))
            .map(|few| (few.outcome, few.counts.control, few.counts.treatment, few.arm, few.need))
    }

    #[test]
    fn each_arm_needs_ten_conversions_and_25_when_the_split_is_uneven() {
        use Outcome::Converted;
        assert_eq!(few((2_010, 20_000), (0, 20_000)), Some((Converted, 2_010, 0, Side::Treatment, 10)));
        assert_eq!(few((9, 500), (40, 500)), Some((Converted, 9, 40, Side::Control, 10)));
        assert_eq!(few((10, 500), (40, 500)), None);
        assert_eq!(few((50, 801), (24, 199)), Some((Converted, 50, 24, Side::Treatment, 25)));
        assert_eq!(few((50, 800), (10, 200)), None);
        assert_eq!(few((0, 0), (0, 0)), Some((Converted, 0, 0, Side::Treatment, 25)));
    }

    /// Where nearly all units convert, those that do not are counted.
    #[test]
    fn the_rarer_outcome_is_the_one_that_is_gated() {
        use Outcome::NotConverted;
        assert_eq!(
            few((17_933, 20_000), (20_000, 20_000)),
            Some((NotConverted, 2_067, 0, Side::Treatment, 10))
        );
        assert_eq!(few((990, 1_000), (989, 1_000)), None);
        assert_eq!(few((991, 1_000), (980, 1_000)), Some((NotConverted, 9, 20, Side::Control, 10)));
        let all = Few::of_means(arms((20, 20), (30, 30)));
        assert_eq!(all, None);
    }

    /// At a planned look the split of the conversions does not choose the test, unless it cannot be a chance
    /// result.
    #[test]
    fn a_planned_look_chooses_by_the_expected_counts() {
        let few = |control, treatment, share| {
            Few::of_rates_at_a_planned_look(arms((control, 20_000), (treatment, 20_000)), share)
                .map(|few| few.is_below_the_gate())
        };
        assert_eq!(few(60, 19, 0.5), Some(false));
        assert_eq!(few(61, 19, 0.5), None);
        assert_eq!(few(72, 9, 0.5), Some(true));
        assert_eq!(few(1_899, 100, 0.05), Some(false));
        assert_eq!(few(1_900, 100, 0.05), None);
        assert_eq!(few(160, 39, 0.8), Some(false));
        assert_eq!(few(160, 40, 0.8), None);
        let mean = |control, treatment, units| {
            Few::of_means_at_a_planned_look(arms((control, units), (treatment, units)), 0.5)
                .map(|few| few.is_below_the_gate())
        };
        assert_eq!([mean(60, 19, 20_000), mean(61, 19, 20_000)], [Some(false), None]);
        assert_eq!([mean(30, 19, 30), mean(30, 9, 30), mean(30, 0, 30)], [None, Some(true), Some(true)]);
    }

    #[test]
    fn the_missing_counts_are_named() {
        let lacking = |control, treatment| Few::of_rates(arms(control, treatment)).unwrap().missing();
        assert_eq!(
            lacking((40, 500), (9, 500)),
            Missing::Conversions { arm: Side::Treatment, have: 9, need: 10 }
        );
        assert_eq!(
            lacking((499, 500), (400, 500)),
            Missing::Unconverted { arm: Side::Control, have: 1, need: 10 }
        );
    }
}
