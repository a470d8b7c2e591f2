//! Exact p-values for few clusters or time windows: the drawn assignment is compared with every assignment that
//! the design could have drawn. No assumption about the outcomes is made.

use crate::{Invalid, Missing, NoAnswer, Side, random::Random};

/// Up to this many possible assignments all of them are compared; of more, [`DRAWS`] are drawn.
pub const ASSIGNMENTS_MAX: u64 = 1 << 14;

/// The number of assignments to draw where there are too many to compare all.
pub const DRAWS: u64 = 10_000;

/// How the assignment was drawn; the p-value is wrong for any other design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// A fair coin for each; drawn again if all have the same result.
    FairCoins,
    /// The number of treated ones is fixed, and all such choices are equally likely.
    FixedNumber,
    /// The first and second form a pair, the third and fourth, and so on; a fair coin chooses the treated one
    /// of each.
    Pairs,
}

/// One item of the assignment: a cluster or a time window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assigned {
    /// Whether it got the treatment.
    pub treated: bool,
    /// The units measured in it; with 0 it does not count.
    pub units: u64,
    /// The sum of the outcome over its units.
    pub sum: f64,
}

/// The two-sided p-value of the difference of the arms' ratios `sum / units`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permutation {
    /// From 0 (exclusive) to 1.
    pub p_value: f64,
    /// The number of assignments compared, including the true one when all were.
    pub assignments: u64,
    /// Whether all were compared; otherwise p is `(1 + extreme) / (1 + draws)`.
    pub exact: bool,
}

/// Fisher's randomization test (Design of Experiments, 1935) with the difference of ratios of
/// totals. `seed` determines the draws where there are too many assignments to compare all. At most 63 items.
pub fn test(items: &[Assigned], design: Design, seed: u64) -> Result<Permutation, NoAnswer> {
    let n = items.len();
    if n > 63 {
        let range = "at most 63";
        return Err(Invalid::OutOfRange { what: "assigned items", value: n as f64, range }.into());
    }
    let drawn = mask(items);
    let Some(observed) = difference(items, drawn) else {
        let arm = if drawn == 0 { Side::Treatment } else { Side::Control };
        return Err(Missing::Clusters { arm, have: 0, need: 1 }.into());
    };
    if design == Design::Pairs {
        check_pairs(items)?;
    }
    // A difference equal up to rounding counts as extreme, because the true assignment is among those
    // compared. The slack is relative to the ratios, so it does not depend on the unit.
    let ratios = items.iter().filter(|item| item.units > 0).map(|item| (item.sum / item.units as f64).abs());
    let least = observed.abs() - 1e-14 * n as f64 * ratios.fold(0.0, f64::max);
    let extreme = |mask: u64| difference(items, mask).map(|d| u64::from(d.abs() >= least));

    let possible = number_of_assignments(n, drawn.count_ones() as usize, design);
    if possible.is_some_and(|possible| possible <= ASSIGNMENTS_MAX) {
        let (mut count, mut assignments) = (0, 0);
        for mask in all_assignments(n, drawn.count_ones(), design) {
            if let Some(is_extreme) = extreme(mask) {
                count += is_extreme;
                assignments += 1;
            }
        }
        let p_value = count as f64 / assignments as f64;
        return Ok(Permutation { p_value, assignments, exact: true });
    }
    let mut random = Random::new(seed);
    let (mut count, mut assignments) = (0, 0);
    while assignments < DRAWS {
        let mask = draw(n, drawn.count_ones() as usize, design, &mut random);
        if let Some(is_extreme) = extreme(mask) {
            count += is_extreme;
            assignments += 1;
        }
    }
    let p_value = (1 + count) as f64 / (1 + assignments) as f64;
    Ok(Permutation { p_value, assignments, exact: false })
}

/// Returns a mask in which bit i is set when item i is treated.
fn mask(items: &[Assigned]) -> u64 {
    items.iter().enumerate().fold(0, |mask, (i, item)| mask | u64::from(item.treated) << i)
}

/// Returns the treatment ratio minus the control ratio under an assignment; `None` if an arm has no units.
fn difference(items: &[Assigned], mask: u64) -> Option<f64> {
    let (mut sums, mut units) = ([0.0; 2], [0.0; 2]);
    for (i, item) in items.iter().enumerate() {
        let arm = (mask >> i & 1) as usize;
        sums[arm] += item.sum;
        units[arm] += item.units as f64;
    }
    (units[0] > 0.0 && units[1] > 0.0).then(|| sums[1] / units[1] - sums[0] / units[0])
}

fn check_pairs(items: &[Assigned]) -> Result<(), Invalid> {
    if !items.len().is_multiple_of(2) {
        let (have, range) = (items.len() as f64, "even for a design of pairs");
        return Err(Invalid::OutOfRange { what: "assigned items", value: have, range });
    }
    for (i, pair) in items.chunks(2).enumerate() {
        if pair[0].treated == pair[1].treated {
            let (value, range) = (i as f64, "one with one treated and one not");
            return Err(Invalid::OutOfRange { what: "pair", value, range });
        }
    }
    Ok(())
}

/// `None` when it exceeds 64 bits.
fn number_of_assignments(n: usize, treated: usize, design: Design) -> Option<u64> {
    match design {
        Design::FairCoins => 1u64.checked_shl(n as u32),
        Design::Pairs => 1u64.checked_shl(n as u32 / 2),
        Design::FixedNumber => {
            let fewer = treated.min(n - treated) as u64;
            (0..fewer).try_fold(1u64, |ways, i| Some(ways.checked_mul(n as u64 - i)? / (i + 1)))
        }
    }
}

fn all_assignments(n: usize, treated: u32, design: Design) -> Box<dyn Iterator<Item = u64>> {
    match design {
        Design::FairCoins => Box::new(0..1u64 << n),
        Design::Pairs => Box::new((0..1u64 << (n / 2)).map(move |coins| spread_pairs(coins, n))),
        Design::FixedNumber => {
            let last = ((1u64 << treated) - 1) << (n as u32 - treated);
            let first = (1u64 << treated) - 1;
            let next = move |&mask: &u64| (mask != last).then(|| next_with_equal_ones(mask));
            Box::new(std::iter::successors(Some(first), next))
        }
    }
}

/// Returns the next larger number with the same number of ones (Gosper's hack).
fn next_with_equal_ones(mask: u64) -> u64 {
    let lowest = mask & mask.wrapping_neg();
    let carried = mask + lowest;
    carried | (((mask ^ carried) >> 2) / lowest)
}

/// Converts coins to a mask: coin i decides which of items 2i and 2i + 1 is treated.
fn spread_pairs(coins: u64, n: usize) -> u64 {
    (0..n / 2).fold(0, |mask, i| mask | (1 + (coins >> i & 1)) << (2 * i))
}

fn draw(n: usize, treated: usize, design: Design, random: &mut Random) -> u64 {
    match design {
        Design::FairCoins => random.bits() >> (64 - n as u32),
        Design::Pairs => spread_pairs(random.bits(), n),
        Design::FixedNumber => {
            // Selection sampling (Knuth, The Art of Computer Programming, 3.4.2, algorithm S).
            let (mut mask, mut left) = (0, treated as u64);
            for i in 0..n {
                if random.below((n - i) as u64) < left {
                    mask |= 1 << i;
                    left -= 1;
                }
            }
            mask
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(outcomes: &[(bool, f64)]) -> Vec<Assigned> {
        outcomes.iter().map(|&(treated, sum)| Assigned { treated, units: 1, sum }).collect()
    }

    /// Treated outcomes of 3 and 4 against 1 and 2: of the 6 choices of two, this one and its opposite are the
    /// most extreme.
    #[test]
    fn six_choices_of_two_in_four() {
        let four = items(&[(false, 1.0), (false, 2.0), (true, 3.0), (true, 4.0)]);
        let found = test(&four, Design::FixedNumber, 0).unwrap();
        assert_eq!(found, Permutation { p_value: 2.0 / 6.0, assignments: 6, exact: true });
        let coins = test(&four, Design::FairCoins, 0).unwrap();
        assert_eq!(coins.assignments, 14);
    }

    /// 3 and 4 against 1 and 2 in units of 10^-30 and 10^30, where an absolute slack made every assignment
    /// extreme.
    #[test]
    fn the_unit_of_measure_does_not_matter() {
        for unit in [1e-30, 1.0, 1e30] {
            let four = [(false, 1.0), (false, 2.0), (true, 3.0), (true, 4.0)]
                .map(|(treated, sum)| (treated, sum * unit));
            assert_eq!(test(&items(&four), Design::FixedNumber, 0).unwrap().p_value, 2.0 / 6.0, "{unit}");
        }
    }

    #[test]
    fn pairs_must_be_pairs() {
        let good = items(&[(false, 1.0), (true, 2.0), (true, 3.0), (false, 1.0)]);
        assert_eq!(test(&good, Design::Pairs, 0).unwrap().assignments, 4);
        let same = items(&[(false, 1.0), (false, 2.0), (true, 3.0), (true, 1.0)]);
        assert!(test(&same, Design::Pairs, 0).is_err());
        assert!(test(&good[..3], Design::Pairs, 0).is_err());
        assert!(test(&good[..1], Design::FairCoins, 0).is_err());
    }

    /// Where all assignments can be compared, drawing gives the same p-value within three standard errors.
    #[test]
    fn drawing_agrees_with_comparing_all() {
        const SEED: u64 = 7;
        let many: Vec<(bool, f64)> =
            (0..20).map(|i| (i % 2 == 1, f64::from(i * 7 % 11) + f64::from(i % 2))).collect();
        let few = items(&many[..12]);
        let exact = test(&few, Design::FixedNumber, SEED).unwrap();
        assert_eq!((exact.exact, exact.assignments), (true, 924));
        let mut random = Random::new(SEED);
        let observed = difference(&few, mask(&few)).unwrap().abs();
        let hits = (0..DRAWS)
            .filter(|_| {
                let drawn = draw(12, 6, Design::FixedNumber, &mut random);
                assert_eq!(drawn.count_ones(), 6);
                difference(&few, drawn).unwrap().abs() >= observed - 1e-12
            })
            .count();
        let share = hits as f64 / DRAWS as f64;
        let error = (exact.p_value * (1.0 - exact.p_value) / DRAWS as f64).sqrt();
        assert!((share - exact.p_value).abs() < 3.0 * error, "seed {SEED}: {share} {exact:?}");
        let drawn = test(&items(&many), Design::FixedNumber, SEED).unwrap();
        assert_eq!((drawn.exact, drawn.assignments), (false, DRAWS));
    }
}
