//! Where an arm has too few conversions for a normal approximation, their counts decide: all of one arm against none of
//! the other is no lack of data. Pure.

use schemas::definition::Direction;
use stats::conditional::{self, Levels};
use stats::conversion_counts::{CONCENTRATION, Design, OneSided};
use stats::few_conversions::{Few, Outcome};
use stats::group_sequential::CountBoundary;
use stats::{Alpha, Arm, Counts, Interval, Invalid, Pair, Side, group_sequential};

use super::{Data, Names, Planned, named};
use crate::document::{
    AlwaysValid, BoundaryLook, BoundaryMethod, Bounds, CountedUnits, ExactMethod, ExactTest,
};

/// The always-valid test of the counts, in place of the interval. A guardrail's harm is asked of it one-sided.
pub(super) fn always_valid(
    names: &Names,
    data: &Data,
    planned: &Planned,
    few: &Few,
    result: &mut AlwaysValid,
) -> Result<(), String> {
    result.lift_absolute = data.difference();
    if few.total() == 0 {
        result.missing = Some(nothing(names, few));
        return Ok(());
    }
    result.missing = Some(named(few.missing(), names));
    let invalid = |invalid: Invalid| invalid.to_string();
    let design = Design::new(planned.treatment_share, CONCENTRATION, planned.alpha).map_err(invalid)?;
    let look = design.look(few.counts);
    let rejects = look.p_value <= planned.alpha.get();
    result.p_value_now = Some(look.p_value);
    result.log_e_value = Some(look.log_bayes_factor);
    result.includes_zero = Some(!rejects);
    result.exact = Some(ExactTest {
        ratio: ratio(look.interval),
        ..test(ExactMethod::ConversionCounts, few, look.p_value, rejects)
    });
    if let Some(better) = planned.harm {
        result.harm_p_value = Some(match data {
            Data::Rates(_) => {
                let suspect = has_more_if_worse(better, few.outcome);
                let harm = OneSided::new(planned.treatment_share, CONCENTRATION, suspect).map_err(invalid)?;
                harm.look(few.counts).p_value
            }
            // Fewer units with an event may mean less or, of values below zero, more: the mean says which, and a side
            // chosen by the data is tested at the level of both.
            Data::Means { .. } if is_worse(better, data) => look.p_value,
            Data::Means { .. } => 1.0,
        });
    }
    Ok(())
}

/// Without any conversion there is nothing to count.
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
pub(super) struct Planning<'a> {
    pub method: BoundaryMethod,
    pub treatment_share: f64,
    pub design: group_sequential::Design,
    /// The looks before, the last one last.
    pub before: &'a [BoundaryLook],
    pub fraction: f64,
    pub is_final: bool,
}

/// The exact test of this look. One planned test is Fisher's; looks on the way share alpha by the count boundary.
pub(super) fn at_a_look(planning: &Planning<'_>, arms: Pair<Arm>, few: &Few) -> Result<ExactTest, String> {
    match planning.method {
        BoundaryMethod::FixedHorizon => fisher(planning.design.alpha, arms, few),
        BoundaryMethod::GroupSequential => {
            count_boundary(planning, few).map_err(|invalid| invalid.to_string())
        }
    }
}

fn fisher(alpha: Alpha, arms: Pair<Arm>, few: &Few) -> Result<ExactTest, String> {
    let counted = arms.with(few.counts, |arm, conversions| {
        Arm::new(Counts { units: arm.units(), conversions }).expect("they were counted among the units")
    });
    let tails = conditional::fisher_tails(counted).map_err(|missing| missing.to_string())?;
    let p_value = tails.p_value();
    let odds = ratio(conditional::log_odds_ratio(counted, alpha));
    Ok(ExactTest { ratio: odds, ..test(ExactMethod::FisherExact, few, p_value, p_value <= alpha.get()) })
}

/// A crossing stands, so that looks after it need no bound any more.
fn count_boundary(planning: &Planning<'_>, few: &Few) -> Result<ExactTest, Invalid> {
    let share = planning.treatment_share;
    let p_value = conditional::binomial_tails(few.counts, share)?.p_value();
    let look = test(ExactMethod::CountBoundary, few, p_value, false);
    if planning.before.iter().any(|look| look.crossed) {
        return Ok(look);
    }
    let walked = walked(planning.before, &look);
    let others = planning.before.len() - walked.len();
    let spent = planning.before[..others].last().map_or(0.0, |look| look.alpha_spent);
    let mut boundary = CountBoundary::new(planning.design, share, spent)?;
    for (fraction, exact) in walked {
        boundary.look(fraction, false, exact.control + exact.treatment)?;
    }
    let bound = boundary.look(planning.fraction, planning.is_final, few.total())?;
    // The levels at which the interval leaves 1 out exactly where the counts cross.
    let tail = |treatment: u64| {
        conditional::binomial_tails(Pair { control: few.total() - treatment, treatment }, share)
    };
    let levels = Levels {
        below: bound.at_least.map_or(Ok(0.0), |least| Ok(tail(least)?.at_least))?,
        above: bound.at_most.map_or(Ok(0.0), |most| Ok(tail(most)?.at_most))?,
    };
    Ok(ExactTest {
        rejects: bound.rejects(few.counts.treatment),
        at_most: bound.at_most,
        at_least: bound.at_least,
        ratio: ratio(conditional::log_rate_ratio(few.counts, share, levels)?),
        ..look
    })
}

/// The looks right before `now` at the same growing counts. What looks at anything else have spent is spent.
fn walked(before: &[BoundaryLook], now: &ExactTest) -> Vec<(f64, ExactTest)> {
    let total = |exact: &ExactTest| exact.control + exact.treatment;
    let mut walked: Vec<(f64, ExactTest)> = Vec::new();
    for look in before.iter().rev() {
        let after = walked.last().map_or(now, |(_, exact)| exact);
        let Some(exact) = look.exact.filter(|exact| {
            (exact.method, exact.counted) == (now.method, now.counted) && total(exact) <= total(after)
        }) else {
            break;
        };
        walked.push((look.fraction, exact));
    }
    walked.reverse();
    walked
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

/// The ratio of an interval of its logarithm.
fn ratio(log: Interval) -> Bounds {
    let finite = |end: f64| end.is_finite().then_some(end);
    Bounds { lower: finite(log.lower.exp()), upper: finite(log.upper.exp()) }
}
