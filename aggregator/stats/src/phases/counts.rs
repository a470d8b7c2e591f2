//! Tests of few conversions over phases. They compare the counts of each phase with its own shares, and are
//! exact for any counts.

use super::{Outcome, Stratum, TreatmentShare};
use crate::{
    Alpha, Arm, Interval, Invalid, Missing, Pair, Side,
    conditional::{self, Levels, Tails},
    conversion_counts::{self, Evidence, OneSided},
    count_mass::{Chance, Mass},
    few_conversions::{Few, Outcome as Counted, rarer_outcome},
    group_sequential::PhaseTotal,
    terms::positive,
};

/// The smallest tail that is reported: sums leave out outcomes that are far less probable than any level.
const SMALLEST_TAIL: f64 = 1e-18;

/// The largest logarithm of a ratio that is searched.
const LOG_RATIO_MAX: f64 = 700.0;

/// The units of one phase that converted or, where those are rarer, that did not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseCounts {
    /// The planned share of the phase's units.
    pub treatment_share: TreatmentShare,
    /// The count of each arm.
    pub counts: Pair<u64>,
}

impl PhaseCounts {
    /// Returns the total of both arms, for a count boundary.
    pub fn total(&self) -> PhaseTotal {
        PhaseTotal { treatment_share: self.treatment_share, total: self.both() }
    }

    /// Returns the same counts with the share of them that the treatment has where its rate is `rate_ratio` times the
    /// control's: `s r / (s r + 1 - s)`. A test against this share is one against that ratio.
    pub fn at_rate_ratio(&self, rate_ratio: f64) -> Result<PhaseCounts, Invalid> {
        let treated = self.treatment_share.get() * positive("rate ratio", rate_ratio)?;
        let share = treated / (treated + self.treatment_share.of_control());
        Ok(PhaseCounts { treatment_share: TreatmentShare::new(share)?, ..*self })
    }

    fn both(&self) -> u64 {
        self.counts.control + self.counts.treatment
    }
}

/// The counts of each phase, where an arm has too few conversions over all phases.
#[derive(Clone, Debug, PartialEq)]
pub struct FewByPhase {
    /// The counts over all phases.
    pub few: Few,
    /// One entry for each stratum, in the same order, because a count is exact whether or not both arms have
    /// units.
    pub by_phase: Vec<PhaseCounts>,
}

/// [`Few::of_rates`] or [`Few::of_means`] of all phases together; `None` for means whose events were not
/// counted.
pub fn few(strata: &[Stratum]) -> Option<FewByPhase> {
    let (arms, rates) = all(strata)?;
    let few = if rates { Few::of_rates(arms) } else { Few::of_means(arms) }?;
    Some(FewByPhase { few, by_phase: counted(strata, few.outcome) })
}

/// [`Few::of_rates_at_a_planned_look`] or [`Few::of_means_at_a_planned_look`] of all phases together. The
/// count expected in the smaller arm is the sum of each phase's total times its smaller share.
pub fn few_at_a_planned_look(strata: &[Stratum]) -> Option<FewByPhase> {
    let (arms, rates) = all(strata)?;
    let outcome = if rates { rarer_outcome(arms) } else { Counted::Converted };
    let by_phase = counted(strata, outcome);
    let share = smaller_share(strata, &by_phase);
    let few = if rates {
        Few::of_rates_at_a_planned_look(arms, share)
    } else {
        Few::of_means_at_a_planned_look(arms, share)
    }?;
    Some(FewByPhase { few, by_phase })
}

/// The smaller arm's share of the counts, or of the units if all counts are 0.
fn smaller_share(strata: &[Stratum], by_phase: &[PhaseCounts]) -> f64 {
    if let [one] = strata {
        return one.treatment_share().get();
    }
    let units = |stratum: &Stratum| (stratum.units().control + stratum.units().treatment) as f64;
    let counted: f64 = by_phase.iter().map(|phase| phase.both() as f64).sum();
    let (mut smaller, mut sum) = (0.0, 0.0);
    for (stratum, phase) in strata.iter().zip(by_phase) {
        let weight = if counted > 0.0 { phase.both() as f64 } else { units(stratum) };
        smaller += weight * stratum.treatment_share().smaller();
        sum += weight;
    }
    if sum > 0.0 { smaller / sum } else { 0.5 }
}

/// Returns the counts of all strata together, and whether the strata are rates.
fn all(strata: &[Stratum]) -> Option<(Pair<Arm>, bool)> {
    let first = strata.first()?;
    let mut sum = Pair::<Arm>::default();
    for stratum in strata {
        sum = sum.with(stratum.arms()?, Arm::merge);
    }
    Some((sum, matches!(first.outcome, Outcome::Rates(_))))
}

fn counted(strata: &[Stratum], outcome: Counted) -> Vec<PhaseCounts> {
    let of = |stratum: &Stratum| {
        let arms = stratum.arms().unwrap_or_default();
        let counts = arms.map(|arm| match outcome {
            Counted::Converted => arm.conversions(),
            Counted::NotConverted => arm.units() - arm.conversions(),
        });
        PhaseCounts { treatment_share: stratum.treatment_share(), counts }
    };
    strata.iter().map(of).collect()
}

/// The anytime-valid test on counts over phases, exact whatever caused the shares to change. Its e-value is
/// the product of each phase's e-value of [`conversion_counts`] against the phase's share. Without an effect
/// each factor is a martingale that begins at 1, so the product is one too (Lindon & Malek 2022, NeurIPS;
/// Ville 1939).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountTest {
    concentration: f64,
    alpha: Alpha,
}

/// The result of one look at the counts so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountLook {
    /// The logarithm of the e-value against no effect in any phase.
    pub log_e_value: f64,
    /// `min(1, 1/e)` of this look; the always-valid p-value is the smallest over all looks.
    pub p_value: f64,
    /// The most likely ln(treatment rate / control rate), assumed equal in all phases; infinite while one arm
    /// has no conversions, `None` while neither has any.
    pub log_rate_ratio: Option<f64>,
    /// Every common log rate ratio that the product does not exclude; if the ratio is the same in all phases,
    /// it covers it at all looks at once. `None` where no single ratio fits the phases.
    pub interval: Option<Interval>,
}

impl CountTest {
    /// `concentration` as in [`conversion_counts::Design::new`]; `alpha` is that of the interval.
    pub fn new(concentration: f64, alpha: Alpha) -> Result<CountTest, Invalid> {
        conversion_counts::Design::new(TreatmentShare::HALF.get(), concentration, alpha)?;
        Ok(CountTest { concentration, alpha })
    }

    /// Runs the test alone. It rejects where the p-value is at most alpha.
    pub fn evidence(&self, phases: &[PhaseCounts]) -> Evidence {
        let of = |phase: &PhaseCounts| self.design(phase).evidence(phase.counts).log_e_value;
        evidence(phases.iter().map(of).sum())
    }

    /// Runs the test and computes the interval. One phase gives exactly [`conversion_counts::Design::look`].
    pub fn look(&self, phases: &[PhaseCounts]) -> CountLook {
        match counting(phases).as_slice() {
            [] => CountLook {
                log_e_value: 0.0,
                p_value: 1.0,
                log_rate_ratio: None,
                interval: Some(Interval::EVERYTHING),
            },
            [one] => {
                let look = self.design(one).look(one.counts);
                CountLook {
                    log_e_value: look.log_bayes_factor,
                    p_value: look.p_value,
                    log_rate_ratio: look.log_rate_ratio,
                    interval: Some(look.interval),
                }
            }
            several => self.look_at_several(several),
        }
    }

    fn look_at_several(&self, phases: &[PhaseCounts]) -> CountLook {
        let Evidence { log_e_value, p_value } = self.evidence(phases);
        let likeliest = likeliest_log_ratio(phases);
        // By how much the evidence against a ratio exceeds the limit; convex in the ratio.
        let excess = |log_ratio: f64| {
            let mut log = log_e_value + self.alpha.get().ln();
            for phase in phases {
                let (treated, control) = log_shares(phase.treatment_share, log_ratio);
                let share = phase.treatment_share;
                log += times(phase.counts.treatment, share.get().ln() - treated);
                log += times(phase.counts.control, share.of_control().ln() - control);
            }
            log
        };
        let interval = not_excluded(likeliest, &excess).map(|inside| {
            let excluded = |ratio| excess(ratio) >= 0.0;
            Interval { lower: crossing(inside, -1.0, excluded), upper: crossing(inside, 1.0, excluded) }
        });
        CountLook { log_e_value, p_value, log_rate_ratio: Some(likeliest), interval }
    }

    fn design(&self, phase: &PhaseCounts) -> conversion_counts::Design {
        let share = phase.treatment_share.get();
        conversion_counts::Design::new(share, self.concentration, self.alpha).expect("both were checked")
    }
}

/// Tests whether `suspect` has more of the counts than its share, over phases, as for the harm of a
/// guardrail. The e-value is the product of [`OneSided`]'s e-values, a supermartingale as long as the arm has
/// at most its share in each phase. `concentration` as in [`CountTest::new`].
pub fn more_than_its_share(
    phases: &[PhaseCounts],
    concentration: f64,
    suspect: Side,
) -> Result<Evidence, Invalid> {
    let mut log_e_value = 0.0;
    for phase in counting(phases) {
        let test = OneSided::new(phase.treatment_share.get(), concentration, suspect)?;
        log_e_value += test.look(phase.counts).log_e_value;
    }
    Ok(evidence(log_e_value))
}

fn evidence(log_e_value: f64) -> Evidence {
    Evidence { log_e_value, p_value: (-log_e_value).exp().min(1.0) }
}

/// The tails of the treatment's counts over all phases, given each phase's total: a convolution of binomials
/// with the phases' shares. One phase gives [`conditional::binomial_tails`]; for several, a tail below 1e-18
/// is returned as 1e-18.
pub fn binomial_tails(phases: &[PhaseCounts]) -> Tails {
    match counting(phases).as_slice() {
        [one] => {
            conditional::binomial_tails(one.counts, one.treatment_share.get()).expect("the share was checked")
        }
        several => tails(&sum_at(several, 0.0), sum(several).treatment),
    }
}

/// The interval of ln(treatment rate / control rate), assumed equal in all phases: the ratios at which
/// neither tail of the treatment's counts is below its level. One phase gives
/// [`conditional::log_rate_ratio`]. Levels below 1e-18 are not reached.
pub fn log_rate_ratio(phases: &[PhaseCounts], levels: Levels) -> Result<Interval, Invalid> {
    let several = match counting(phases).as_slice() {
        [] => return Ok(Interval::EVERYTHING),
        [one] => return conditional::log_rate_ratio(one.counts, one.treatment_share.get(), levels),
        several => several.to_vec(),
    };
    let sum = sum(&several);
    let tails_at = |log_ratio: f64| tails(&sum_at(&several, log_ratio), sum.treatment);
    let mut interval = Interval::EVERYTHING;
    if sum.treatment > 0 && levels.below > 0.0 {
        interval.lower = threshold(|ratio| tails_at(ratio).at_least >= levels.below);
    }
    if sum.control > 0 && levels.above > 0.0 {
        interval.upper = threshold(|ratio| tails_at(ratio).at_most < levels.above);
    }
    Ok(interval)
}

/// The tails of the treatment's conversions given both arms' units and conversions of every phase: a
/// convolution of hypergeometric counts, that is, Fisher's test in each phase added up (the exact test of a
/// common odds ratio, Mehta, Patel & Gray 1985, Journal of the American Statistical Association 80(392); R's
/// `mantelhaen.test(exact = TRUE)`). Phases in which an arm has no units add nothing. One phase gives
/// [`conditional::fisher_tails`]; for several, a tail below 1e-18 is returned as 1e-18.
pub fn fisher_tails(phases: &[Pair<Arm>]) -> Result<Tails, Missing> {
    match with_both_arms(phases).as_slice() {
        [] => Err(Missing::Units { arm: Side::Treatment, have: 0, need: 1 }),
        [one] => conditional::fisher_tails(*one),
        several => Ok(tails(&sum_of_tables(several, 0.0), treated_conversions(several))),
    }
}

/// The exact interval of the log odds ratio, assumed equal in all phases: every ratio at which both tails of
/// [`fisher_tails`] are at half of alpha or more. One phase gives [`conditional::log_odds_ratio`].
pub fn log_odds_ratio(phases: &[Pair<Arm>], alpha: Alpha) -> Interval {
    let several = match with_both_arms(phases).as_slice() {
        [] => return Interval::EVERYTHING,
        [one] => return conditional::log_odds_ratio(*one, alpha),
        several => several.to_vec(),
    };
    let half = alpha.get() / 2.0;
    let observed = treated_conversions(&several);
    let tails_at = |log_odds: f64| tails(&sum_of_tables(&several, log_odds), observed);
    let tables = || several.iter().map(|arms| Table::of(*arms));
    let mut interval = Interval::EVERYTHING;
    if observed > tables().map(|table| table.smallest).sum() {
        interval.lower = threshold(|odds| tails_at(odds).at_least >= half);
    }
    if observed < tables().map(|table| table.largest).sum() {
        interval.upper = threshold(|odds| tails_at(odds).at_most < half);
    }
    interval
}

fn counting(phases: &[PhaseCounts]) -> Vec<PhaseCounts> {
    phases.iter().copied().filter(|phase| phase.both() > 0).collect()
}

fn with_both_arms(phases: &[Pair<Arm>]) -> Vec<Pair<Arm>> {
    let has_both = |arms: &&Pair<Arm>| arms.control.units() > 0 && arms.treatment.units() > 0;
    phases.iter().filter(has_both).copied().collect()
}

fn treated_conversions(phases: &[Pair<Arm>]) -> u64 {
    phases.iter().map(|arms| arms.treatment.conversions()).sum()
}

fn sum(phases: &[PhaseCounts]) -> Pair<u64> {
    phases.iter().fold(Pair::default(), |sum: Pair<u64>, phase| sum.with(phase.counts, |sum, of| sum + of))
}

/// The logarithms of the treatment's and the control's share of the counts, where the rates have this log
/// ratio.
fn log_shares(share: TreatmentShare, log_ratio: f64) -> (f64, f64) {
    let log_odds = (share.get() / share.of_control()).ln() + log_ratio;
    (-(-log_odds).exp().ln_1p(), -log_odds.exp().ln_1p())
}

/// `count * log`, where 0 times minus infinity is 0.
fn times(count: u64, log: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * log }
}

/// The log ratio at which the treatment's expected counts are the observed ones; infinite where an arm has
/// none.
fn likeliest_log_ratio(phases: &[PhaseCounts]) -> f64 {
    let sum = sum(phases);
    if sum.treatment == 0 {
        return f64::NEG_INFINITY;
    }
    if sum.control == 0 {
        return f64::INFINITY;
    }
    threshold(|log_ratio| {
        let expected =
            |phase: &PhaseCounts| phase.both() as f64 * log_shares(phase.treatment_share, log_ratio).0.exp();
        phases.iter().map(expected).sum::<f64>() >= sum.treatment as f64
    })
}

/// Returns a ratio that is not excluded, if there is one: the likeliest or, where that is infinite, one far
/// enough in its direction.
fn not_excluded(likeliest: f64, excess: &impl Fn(f64) -> f64) -> Option<f64> {
    if likeliest.is_finite() {
        return (excess(likeliest) < 0.0).then_some(likeliest);
    }
    // All counts are in one arm. In that direction every phase's likelihood rises to its maximum, which no
    // mixture exceeds.
    let mut at: f64 = 0.0;
    while excess(at) >= 0.0 && at.abs() < LOG_RATIO_MAX {
        at += 1.0_f64.copysign(likeliest);
    }
    (excess(at) < 0.0).then_some(at)
}

/// Returns the point from which `excluded` is true in `direction` from `inside`, by doubled steps and
/// bisection; infinite if it is never true.
fn crossing(inside: f64, direction: f64, excluded: impl Fn(f64) -> bool) -> f64 {
    let mut step = direction;
    while !excluded(inside + step) {
        step *= 2.0;
        if step.abs() > LOG_RATIO_MAX {
            return f64::INFINITY.copysign(direction);
        }
    }
    bisect(inside, inside + step, excluded)
}

/// Returns the point from which `holds` is true; below it must be false. Infinite if it is true, or false,
/// everywhere.
fn threshold(holds: impl Fn(f64) -> bool) -> f64 {
    let holds_at_0 = holds(0.0);
    let mut step = if holds_at_0 { -1.0 } else { 1.0_f64 };
    let mut last = 0.0;
    while holds(step) == holds_at_0 {
        last = step;
        step *= 2.0;
        if step.abs() > LOG_RATIO_MAX {
            return f64::INFINITY.copysign(step);
        }
    }
    bisect(last, step, |at| holds(at) != holds_at_0)
}

/// Bisects between `from`, where `turned` is false, and `to`, where it is true.
fn bisect(mut from: f64, mut to: f64, turned: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = 0.5 * (from + to);
        if turned(middle) {
            to = middle;
        } else {
            from = middle;
        }
    }
    0.5 * (from + to)
}

fn tails(mass: &Mass, observed: u64) -> Tails {
    let (at_most, at_least) = mass.tails(observed);
    Tails { at_most: at_most.max(SMALLEST_TAIL), at_least: at_least.max(SMALLEST_TAIL) }
}

/// The distribution of the treatment's counts over all phases where the rates have this log ratio.
fn sum_at(phases: &[PhaseCounts], log_ratio: f64) -> Mass {
    let add = |mass: Mass, phase: &PhaseCounts| {
        let (treated, control) = log_shares(phase.treatment_share, log_ratio);
        mass.after(&Mass::binomial(phase.both(), Chance { success: treated.exp(), failure: control.exp() }))
    };
    phases.iter().fold(Mass::none(), add)
}

fn sum_of_tables(phases: &[Pair<Arm>], log_odds: f64) -> Mass {
    let add = |mass: Mass, arms: &Pair<Arm>| mass.after(&Table::of(*arms).mass(log_odds));
    phases.iter().fold(Mass::none(), add)
}

/// The possible conversions of the treatment in one phase, given all margins.
struct Table {
    treated: u64,
    untreated: u64,
    converted: u64,
    smallest: u64,
    largest: u64,
}

impl Table {
    fn of(arms: Pair<Arm>) -> Table {
        let (treated, untreated) = (arms.treatment.units(), arms.control.units());
        let converted = arms.treatment.conversions() + arms.control.conversions();
        Table {
            treated,
            untreated,
            converted,
            smallest: converted.saturating_sub(untreated),
            largest: converted.min(treated),
        }
    }

    fn mass(&self, log_odds: f64) -> Mass {
        let odds = log_odds.exp();
        let up = |k: u64| {
            let ways_up = (self.treated - k) as f64 * (self.converted - k) as f64;
            let ways_down = (k + 1) as f64 * (self.untreated + k + 1 - self.converted) as f64;
            odds * ways_up / ways_down
        };
        // The ratios fall, so the mode is the first count that is not less probable than the next.
        let (mut low, mut high) = (self.smallest, self.largest);
        while low < high {
            let middle = low + (high - low) / 2;
            if up(middle) > 1.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Mass::around(low, self.smallest, self.largest, up)
    }
}
