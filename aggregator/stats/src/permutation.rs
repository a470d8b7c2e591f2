//! Exact p-values for few assigned things: every assignment that the design could have drawn is
//! compared with the one it drew. No assumption about the outcomes is made.

use crate::{Invalid, Missing, NoAnswer, Side, random::Random};

/// Up to this many assignments all of them are tried, beyond it [`DRAWS`] are drawn.
pub const MOST_ASSIGNMENTS: u64 = 1 << 14;

/// Assignments drawn where there are too many.
pub const DRAWS: u64 = 10_000;

/// How the assignment was drawn; the p-value is wrong for any other design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// Each by a fair coin; drawn again if all fell the same way.
    FairCoins,
    /// As many treated as there are, all such choices equally likely.
    FixedNumber,
    /// The first and second, the third and fourth, ...: one of each pair treated, by a fair coin.
    Pairs,
}

/// One assigned thing: a cluster, a time window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assigned {
    /// Whether it got the treatment.
    pub treated: bool,
    /// Measured in it; 0 counts for nothing.
    pub units: u64,
    /// The sum of the outcome over its units.
    pub sum: f64,
}

/// The two-sided p-value of the difference of the arms' ratios `sum / units`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permutation {
    /// From 0 (exclusive) to 1.
    pub p_value: f64,
    /// How many assignments were compared, the true one included when all were.
    pub assignments: u64,
    /// All were tried; otherwise p is `(1 + extreme) / (1 + draws)`.
    pub exact: bool,
}

/// Fisher's randomization test (Design of Experiments, 1935) with the difference of ratios of
/// totals. `seed` decides the draws where there are too many assignments to try; at most 63 things.
pub fn test(things: &[Assigned], design: Design, seed: u64) -> Result<Permutation, NoAnswer> {
    let n = things.len();
    if n > 63 {
        let range = "at most 63";
        return Err(Invalid::OutOfRange { what: "assigned things", value: n as f64, range }.into());
    }
    let drawn = mask(things);
    let Some(observed) = difference(things, drawn) else {
        let arm = if drawn == 0 { Side::Treatment } else { Side::Control };
        return Err(Missing::Clusters { arm, have: 0, need: 1 }.into());
    };
    if design == Design::Pairs {
        check_pairs(things)?;
    }
    // Equal up to rounding counts as extreme: the true assignment is one of those tried. The rounding is
    // relative to the ratios, in whatever unit they are.
    let ratios =
        things.iter().filter(|thing| thing.units > 0).map(|thing| (thing.sum / thing.units as f64).abs());
    let least = observed.abs() - 1e-14 * n as f64 * ratios.fold(0.0, f64::max);
    let extreme = |mask: u64| difference(things, mask).map(|d| u64::from(d.abs() >= least));

    let possible = number_of_assignments(n, drawn.count_ones() as usize, design);
    if possible.is_some_and(|possible| possible <= MOST_ASSIGNMENTS) {
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

/// Bit i is set when thing i is treated.
fn mask(things: &[Assigned]) -> u64 {
    things.iter().enumerate().fold(0, |mask, (i, thing)| mask | u64::from(thing.treated) << i)
}

/// Treatment ratio minus control ratio under an assignment; none if an arm has no units.
fn difference(things: &[Assigned], mask: u64) -> Option<f64> {
    let (mut sums, mut units) = ([0.0; 2], [0.0; 2]);
    for (i, thing) in things.iter().enumerate() {
        let arm = (mask >> i & 1) as usize;
        sums[arm] += thing.sum;
        units[arm] += thing.units as f64;
    }
    (units[0] > 0.0 && units[1] > 0.0).then(|| sums[1] / units[1] - sums[0] / units[0])
}

fn check_pairs(things: &[Assigned]) -> Result<(), Invalid> {
    if !things.len().is_multiple_of(2) {
        let (have, range) = (things.len() as f64, "even for a design of pairs");
        return Err(Invalid::OutOfRange { what: "assigned things", value: have, range });
    }
    for (i, pair) in things.chunks(2).enumerate() {
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

/// The next larger number with as many ones (Gosper's hack).
fn next_with_equal_ones(mask: u64) -> u64 {
    let lowest = mask & mask.wrapping_neg();
    let carried = mask + lowest;
    carried | (((mask ^ carried) >> 2) / lowest)
}

/// Coin i decides which of things 2i and 2i + 1 is treated.
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

    fn things(outcomes: &[(bool, f64)]) -> Vec<Assigned> {
        outcomes.iter().map(|&(treated, sum)| Assigned { treated, units: 1, sum }).collect()
    }

    /// Treated 3 and 4 against 1 and 2: of the 6 choices of two, this one and its opposite are as
    /// extreme.
    #[test]
    fn six_choices_of_two_in_four() {
        let four = things(&[(false, 1.0), (false, 2.0), (true, 3.0), (true, 4.0)]);
        let found = test(&four, Design::FixedNumber, 0).unwrap();
        assert_eq!(found, Permutation { p_value: 2.0 / 6.0, assignments: 6, exact: true });
        let coins = test(&four, Design::FairCoins, 0).unwrap();
        assert_eq!(coins.assignments, 14);
    }

    /// 3 and 4 against 1 and 2 in units of 10^-30 and 10^30, where an absolute slack called everything extreme.
    #[test]
    fn the_unit_of_measure_does_not_matter() {
        for unit in [1e-30, 1.0, 1e30] {
            let four = [(false, 1.0), (false, 2.0), (true, 3.0), (true, 4.0)]
                .map(|(treated, sum)| (treated, sum * unit));
            assert_eq!(test(&things(&four), Design::FixedNumber, 0).unwrap().p_value, 2.0 / 6.0, "{unit}");
        }
    }

    #[test]
    fn pairs_must_be_pairs() {
        let good = things(&[(false, 1.0), (true, 2.0), (true, 3.0), (false, 1.0)]);
        assert_eq!(test(&good, Design::Pairs, 0).unwrap().assignments, 4);
        let same = things(&[(false, 1.0), (false, 2.0), (true, 3.0), (true, 1.0)]);
        assert!(test(&same, Design::Pairs, 0).is_err());
        assert!(test(&good[..3], Design::Pairs, 0).is_err());
        assert!(test(&good[..1], Design::FairCoins, 0).is_err());
    }

    /// Where all can be tried, drawing comes to the same within three standard errors.
    #[test]
    fn drawing_agrees_with_trying_all() {
        const SEED: u64 = 7;
        let many: Vec<(bool, f64)> =
            (0..20).map(|i| (i % 2 == 1, f64::from(i * 7 % 11) + f64::from(i % 2))).collect();
        let few = things(&many[..12]);
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
        let drawn = test(&things(&many), Design::FixedNumber, SEED).unwrap();
        assert_eq!((drawn.exact, drawn.assignments), (false, DRAWS));
    }
}
