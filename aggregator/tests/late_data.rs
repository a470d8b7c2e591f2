//! Late events that take units back, in simulated experiments without an effect: with no look at less information than the
//! last look had, all looks together keep alpha as long as few units are taken back.

use stats::group_sequential::{Bound, Boundary, Design, Spending};
use stats::random::Random;
use stats::{Alpha, Alternative};

const RUNS: u32 = 400_000;
/// Units of each arm, planned and added between two analyses.
const PLANNED: f64 = 10_000.0;
const ADDED: f64 = 1_000.0;

/// An arm of normal values with mean 0 and variance 1.
#[derive(Clone, Copy, Default)]
struct Arm {
    units: f64,
    sum: f64,
}

impl Arm {
    fn add(&mut self, units: f64, random: &mut Random) {
        self.units += units;
        self.sum += units.sqrt() * random.normal();
    }

    /// Takes back units drawn at random. Given the sum of all, that of m of n is normal, with the mean m S / n and the
    /// variance m (1 - m / n).
    fn take_back(&mut self, units: f64, random: &mut Random) {
        let share = units / self.units;
        let sum = share * self.sum + (units * (1.0 - share)).sqrt() * random.normal();
        self.units -= units;
        self.sum -= sum;
    }
}

/// The units that are taken back after each analysis, of so many that are there then.
type TakenBack = fn(f64) -> f64;

/// The bounds by the rule of the planned looks: none at less information than before, and none after the final one. Units
/// come before every other analysis, and go before those between; how many is the same in every run.
fn bounds(taken_back: TakenBack) -> Vec<Option<Bound>> {
    let design = Design {
        alpha: Alpha::FIVE_PERCENT,
        alternative: Alternative::TwoSided,
        spending: Spending::OBrienFleming,
    };
    let mut boundary = Boundary::new(design);
    let (mut units, mut last) = (0.0, 0.0);
    let mut bounds = Vec::new();
    while last < PLANNED {
        for change in [ADDED, -taken_back(units + ADDED)] {
            units += change;
            bounds.push((units > last && last < PLANNED).then(|| {
                last = units;
                boundary.look(units / PLANNED).unwrap()
            }));
        }
    }
    bounds
}

/// Returns the share of experiments that cross.
fn crossing(taken_back: TakenBack, seed: u64) -> f64 {
    let bounds = bounds(taken_back);
    let mut random = Random::new(seed);
    let mut crossed = 0_u32;
    for _ in 0..RUNS {
        let (mut control, mut treatment) = (Arm::default(), Arm::default());
        let mut crosses = false;
        for pair in bounds.chunks(2) {
            for arm in [&mut control, &mut treatment] {
                arm.add(ADDED, &mut random);
            }
            let difference = treatment.sum / treatment.units - control.sum / control.units;
            let z = difference / (1.0 / treatment.units + 1.0 / control.units).sqrt();
            crosses |= pair[0].as_ref().is_some_and(|bound| bound.rejects(z));
            assert!(pair[1].is_none(), "there is less information than at the look before");
            for arm in [&mut control, &mut treatment] {
                arm.take_back(taken_back(arm.units), &mut random);
            }
        }
        crossed += u32::from(crosses);
    }
    f64::from(crossed) / f64::from(RUNS)
}

/// Three standard errors of the simulation.
#[track_caller]
fn assert_crossing(taken_back: TakenBack, expected: f64) {
    let (seed, found) = (1, crossing(taken_back, 1));
    println!("seed {seed}: {:.2} % of {RUNS} experiments without an effect crossed", found * 100.0);
    let error = (expected * (1.0 - expected) / f64::from(RUNS)).sqrt();
    assert!((found - expected).abs() < 3.0 * error, "seed {seed}: {found} is not {expected}");
}

#[test]
fn late_data_that_takes_one_unit_of_a_hundred_back_keeps_alpha() {
    assert_crossing(|_| 0.01 * ADDED, 0.05);
}

/// A look then shares fewer units with the one before than the boundary takes them to share. With this share of all units
/// taken back after each of eleven looks or more, it is not late data any more but other data, and alpha shows it.
#[test]
fn units_taken_back_again_and_again_cost_alpha() {
    assert_crossing(|units| 0.01 * units, 0.052);
    assert_crossing(|units| 0.05 * units, 0.0682);
}
