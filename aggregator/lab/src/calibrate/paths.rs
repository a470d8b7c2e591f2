//! Draws experiments, with the counts and the means at each look.

use stats::random::{Binomial, Random};
use stats::two_proportion::{self, ZTest};
use stats::welch::{self, Welch};
use stats::{Alternative, Arm, Counts, Moments, Pair};

use super::Planned;

/// The treatment's share of the units under a broken assignment, where an even split is planned.
pub const BROKEN_SHARE: f64 = 0.51;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    NoEffect,
    Effect,
}

impl Truth {
    /// Returns the value of a treatment: `some` if it has an effect, else `none`.
    pub fn treated<T>(self, none: T, some: T) -> T {
        match self {
            Truth::NoEffect => none,
            Truth::Effect => some,
        }
    }

    /// Returns the values of both arms; the control never has an effect.
    pub fn arms<T: Clone>(self, none: T, some: T) -> Pair<T> {
        Pair { control: none.clone(), treatment: self.treated(none, some) }
    }
}

/// All data up to one look.
pub struct At {
    pub index: usize,
    /// The units of both arms.
    pub units: u64,
    pub arms: Pair<Arm>,
    pub rates: ZTest,
    pub moments: Pair<Moments>,
    pub means: Welch,
    /// The units of each arm, `units` in total, assigned evenly or, where there is an effect, with
    /// [`BROKEN_SHARE`].
    pub assigned: [u64; 2],
}

/// Draws one experiment with two outcomes and one assignment.
pub fn draw(plan: &Planned, truth: Truth, looks: usize, random: &mut Random) -> Vec<At> {
    let (rate, mean_effect, share) = match truth {
        Truth::NoEffect => (plan.settings.baseline, 0.0, 0.5),
        Truth::Effect => (plan.settings.treatment, plan.mean_effect, BROKEN_SHARE),
    };
    let binomial = |rate| Binomial::new(rate).expect("checked with the settings");
    let rates = Pair { control: binomial(plan.settings.baseline), treatment: binomial(rate) };
    let means = Pair { control: 0.0, treatment: mean_effect };
    let mut found = Vec::with_capacity(looks);
    let (mut arms, mut moments) = (Pair::<Arm>::default(), Pair::<Moments>::default());
    let (mut units_before, mut to_treatment) = (0, 0.0);
    for index in 0..looks {
        let units = plan.units_at(index);
        let new = units - units_before;
        units_before = units;
        let counts = rates.map(|rate| batch(rate, new, random));
        let values = means.map(|mean| normal_batch(mean, new, random));
        arms = Pair {
            control: arms.control.merge(counts.control),
            treatment: arms.treatment.merge(counts.treatment),
        };
        moments = Pair {
            control: moments.control.merge(values.control),
            treatment: moments.treatment.merge(values.treatment),
        };
        // The sum of hundreds of fair coins is drawn as a normal number.
        let both = 2.0 * new as f64;
        to_treatment += both * share + (both * share * (1.0 - share)).sqrt() * random.normal();
        let treated = (to_treatment.round().max(0.0) as u64).min(2 * units);
        found.push(At {
            index,
            units: 2 * units,
            arms,
            rates: two_proportion::pooled_z(arms, Alternative::TwoSided).expect("both arms have units"),
            moments,
            means: welch::test(moments, Alternative::TwoSided).expect("normal values vary"),
            assigned: [2 * units - treated, treated],
        });
    }
    found
}

fn batch(rate: Binomial, units: u64, random: &mut Random) -> Arm {
    let conversions = rate.draw(units, random);
    Arm::new(Counts { units, conversions }).expect("no more convert than there are")
}

/// Draws the moments of `units` normal values of variance 1: the mean is normal, the variance chi-square
/// (drawn by Wilson and Hilferty's cube, 1931, whose error at hundreds of degrees is below 1e-4 of its
/// spread).
pub fn normal_batch(mean: f64, units: u64, random: &mut Random) -> Moments {
    let n = units as f64;
    let found = mean + random.normal() / n.sqrt();
    let spread = 2.0 / (9.0 * (n - 1.0).max(1.0));
    let variance = (1.0 - spread + spread.sqrt() * random.normal()).powi(3).max(0.0);
    Moments::from_variance(units, found, variance).expect("finite")
}

/// Returns whether uncorrected tests of all data so far ever reject, and whether tests of each batch alone
/// ever do.
pub fn peek(plan: &Planned, peeks: u64, units: u64, random: &mut Random) -> (bool, bool) {
    let rate = Binomial::new(plan.settings.baseline).expect("checked with the settings");
    let rejects = |arms: Pair<Arm>| {
        two_proportion::pooled_z(arms, Alternative::TwoSided)
            .is_ok_and(|test| test.p_value <= plan.alpha.get())
    };
    let mut all = Pair::<Arm>::default();
    let (mut accumulating, mut batches) = (false, false);
    for _ in 0..peeks {
        let new = Pair { control: batch(rate, units, random), treatment: batch(rate, units, random) };
        all = all.with(new, |all, more| all.merge(more));
        accumulating |= rejects(all);
        batches |= rejects(new);
    }
    (accumulating, batches)
}
