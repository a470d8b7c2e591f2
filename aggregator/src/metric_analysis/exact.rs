//! Where an arm has too few conversions for a normal approximation, exact tests of the counts decide: all of one arm
//! against none of the other is no lack of data. Pure.

use schemas::definition::Direction;
use stats::conditional::Levels;
use stats::conversion_counts::CONCENTRATION;
use stats::few_conversions::{Few, Outcome};
use stats::group_sequential::{self, CountBoundary, PhaseTotal};
use stats::phases::{self, CountTest, FewByPhase, PhaseCounts};
use stats::{Alpha, Arm, Counts, Interval, Invalid, Pair, Side};

use super::{AlwaysValidPlan, Data, Names};
use crate::document::{
    AlwaysValidResult, BoundaryLook, BoundaryMethod, Bounds, CountedUnits, ExactMethod, ExactTest,
};

/// Computes the always-valid test of the counts, in place of the interval. A guardrail's harm is tested
/// one-sided.
pub(super) fn always_valid(
    names: &Names,
    data: &Data,
    plan: &AlwaysValidPlan,
    below: &FewByPhase,
    result: &mut AlwaysValidResult,
) -> Result<(), String> {
    let few = &below.few;
    result.lift_absolute = data.difference();
    if few.total() == 0 {
        result.missing = Some(nothing(names, few));
        return Ok(());
    }
    result.missing = Some(names.sentence(few.missing()));
    let invalid = |invalid: Invalid| invalid.to_string();
    let look = CountTest::new(CONCENTRATION, plan.alpha).map_err(invalid)?.look(&below.by_phase);
    let rejects = look.p_value <= plan.alpha.get();
    result.p_value_now = Some(look.p_value);
    result.log_e_value = Some(look.log_e_value);
    result.includes_zero = Some(!rejects);
    result.exact = Some(ExactTest {
        // Where no single ratio fits all phases, every ratio is possible.
        ratio: ratio(look.interval.unwrap_or(Interval::EVERYTHING)),
        ..test(ExactMethod::ConversionCounts, few, look.p_value, rejects)
    });
    if let Some(better) = plan.any_harm() {
        result.harm_p_value = Some(if data.is_of_rates() {
            let suspect = has_more_if_worse(better, few.outcome);
            phases::more_than_its_share(&below.by_phase, CONCENTRATION, suspect).map_err(invalid)?.p_value
        } else if is_worse(better, data) {
            // Fewer units with an event may mean less or, with values below zero, more: the mean decides which,
            // and a side chosen by the data is tested at the level of both.
            look.p_value
        } else {
            1.0
        });
    }
    Ok(())
}

/// Returns the message for data without any conversion to count.
pub(super) fn nothing(names: &Names, few: &Few) -> String {
    match few.outcome {
        Outcome::Converted => {
            format!("neither `{}` nor `{}` has any conversions", names.control, names.treatment)
        }
        Outcome::NotConverted => {
            format!("all units of `{}` and `{}` converted", names.control, names.treatment)
        }
    }
}

fn has_more_if_worse(better: Direction, counted: Outcome) -> Side {
    match (better, counted) {
        (Direction::Increase, Outcome::Converted) | (Direction::Decrease, Outcome::NotConverted) => {
            Side::Control
        }
        (Direction::Decrease, Outcome::Converted) | (Direction::Increase, Outcome::NotConverted) => {
            Side::Treatment
        }
    }
}

fn is_worse(better: Direction, data: &Data) -> bool {
    let difference = data.difference().unwrap_or_default();
    match better {
        Direction::Increase => difference < 0.0,
        Direction::Decrease => difference > 0.0,
    }
}

/// One planned look at few conversions.
pub(super) struct PlannedLook<'a> {
    pub method: BoundaryMethod,
    pub design: group_sequential::Design,
    /// The earlier looks, in order.
    pub earlier: &'a [EarlierLook],
    pub fraction: f64,
    pub is_final: bool,
}

/// An earlier look, and the counts of each phase if counts decided it.
pub(super) struct EarlierLook {
    pub look: BoundaryLook,
    pub totals: Vec<PhaseTotal>,
}

/// Computes the exact test of this look. A single planned look uses Fisher's test; interim looks share alpha by
/// the count boundary.
pub(super) fn at_a_look(
    planned: &PlannedLook<'_>,
    data: &Data,
    few: &FewByPhase,
) -> Result<ExactTest, String> {
    match planned.method {
        BoundaryMethod::FixedHorizon => fisher(planned.design.alpha, data, few),
        BoundaryMethod::GroupSequential => {
            count_boundary(planned, few).map_err(|invalid| invalid.to_string())
        }
    }
}

fn fisher(alpha: Alpha, data: &Data, few: &FewByPhase) -> Result<ExactTest, String> {
    let counted = |(arms, of): (Pair<Arm>, &PhaseCounts)| {
        arms.with(of.counts, |arm, conversions| {
            Arm::new(Counts { units: arm.units(), conversions }).expect("they were counted among the units")
        })
    };
    let counted: Vec<Pair<Arm>> = data.arms()?.into_iter().zip(&few.by_phase).map(counted).collect();
    let tails = phases::fisher_tails(&counted).map_err(|missing| missing.to_string())?;
    let p_value = tails.p_value();
    let odds = ratio(phases::log_odds_ratio(&counted, alpha));
    Ok(ExactTest { ratio: odds, ..test(ExactMethod::FisherExact, &few.few, p_value, p_value <= alpha.get()) })
}

/// Computes the count boundary. A crossing is final, so looks after it need no bound any more.
fn count_boundary(planned: &PlannedLook<'_>, few: &FewByPhase) -> Result<ExactTest, Invalid> {
    let p_value = phases::binomial_tails(&few.by_phase).p_value();
    let look = test(ExactMethod::CountBoundary, &few.few, p_value, false);
    if planned.earlier.iter().any(|earlier| earlier.look.crossed) {
        return Ok(look);
    }
    let continued = continued(planned.earlier, &look);
    let others = planned.earlier.len() - continued.len();
    let spent = planned.earlier[..others].last().map_or(0.0, |earlier| earlier.look.alpha_spent);
    let mut boundary = CountBoundary::by_phase(planned.design, spent);
    for earlier in continued {
        boundary.look_by_phase(earlier.look.fraction, false, &earlier.totals)?;
    }
    let bound = boundary.look_by_phase(planned.fraction, planned.is_final, &totals(few))?;
    // The levels at which the interval excludes 1 exactly where the counts cross.
    let tail = |treatment: u64| phases::binomial_tails(&with_treatment(&few.by_phase, treatment));
    let levels = Levels {
        below: bound.at_least.map_or(0.0, |least| tail(least).at_least),
        above: bound.at_most.map_or(0.0, |most| tail(most).at_most),
    };
    Ok(ExactTest {
        rejects: bound.rejects(few.few.counts.treatment),
        at_most: bound.at_most,
        at_least: bound.at_least,
        ratio: ratio(phases::log_rate_ratio(&few.by_phase, levels)?),
        ..look
    })
}

pub(super) fn totals(few: &FewByPhase) -> Vec<PhaseTotal> {
    few.by_phase.iter().map(PhaseCounts::total).collect()
}

/// Returns the same totals with this many under the treatment. Tails depend only on this number and the totals
/// by phase.
fn with_treatment(phases: &[PhaseCounts], treatment: u64) -> Vec<PhaseCounts> {
    let mut left = treatment;
    let moved = |of: &PhaseCounts| {
        let total = of.counts.control + of.counts.treatment;
        let treatment = left.min(total);
        left -= treatment;
        PhaseCounts { counts: Pair { control: total - treatment, treatment }, ..*of }
    };
    phases.iter().map(moved).collect()
}

/// Returns the looks right before `now` at the same growing counts, whose boundary this look continues. The
/// alpha spent by any other looks stays spent.
fn continued<'a>(earlier: &'a [EarlierLook], now: &ExactTest) -> &'a [EarlierLook] {
    let total = |exact: &ExactTest| exact.control + exact.treatment;
    let mut after = *now;
    let mut first = earlier.len();
    for (index, look) in earlier.iter().enumerate().rev() {
        let Some(exact) = look.look.exact.filter(|exact| {
            (exact.method, exact.counted) == (now.method, now.counted) && total(exact) <= total(&after)
        }) else {
            break;
        };
        (after, first) = (exact, index);
    }
    &earlier[first..]
}

fn test(method: ExactMethod, few: &Few, p_value: f64, rejects: bool) -> ExactTest {
    ExactTest {
        method,
        counted: match few.outcome {
            Outcome::Converted => CountedUnits::Converted,
            Outcome::NotConverted => CountedUnits::NotConverted,
        },
        control: few.counts.control,
        treatment: few.counts.treatment,
        needed: few.need,
        p_value,
        rejects,
        ratio: Bounds { lower: Some(0.0), upper: None },
        at_most: None,
        at_least: None,
    }
}

/// Converts an interval of the logarithm to one of the ratio.
fn ratio(log: Interval) -> Bounds {
    Bounds::from(Interval { lower: log.lower.exp(), upper: log.upper.exp() })
}
