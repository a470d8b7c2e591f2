//! The findings of the exact tests of counts, and the sentences for them.

use schemas::definition::{Direction, Plan};

use super::{IntervalFinding, smallest_worthwhile, toward};
use crate::document::{
    AlwaysValidResult, BoundaryLook, Bounds, CountedUnits, ExactMethod, ExactTest, MetricResult, Test,
};
use lab::format;

/// Returns the finding of one treatment's counts, where they decide in place of the always-valid interval.
pub(super) fn finding(
    plan: &Plan,
    metric: &MetricResult,
    look: &AlwaysValidResult,
    test: &Test,
    exact: &ExactTest,
) -> IntervalFinding {
    let direction = metric.direction;
    // If a mean is the same in both arms, the counts show no side.
    let lift = toward(direction, look.lift_absolute.unwrap_or_default());
    let is_shown = exact.rejects && lift != 0.0;
    if is_shown && lift < 0.0 {
        return IntervalFinding::Worse;
    }
    let hoped = relative(metric, exact).and_then(|interval| interval.toward_better(direction).upper);
    if let (Some((smallest, _)), Some(hoped)) = (smallest_worthwhile(plan), hoped)
        && hoped < smallest
    {
        return IntervalFinding::NotWorthwhile;
    }
    if !is_shown {
        return IntervalFinding::TooEarly;
    }
    let lift = test.lift_relative.or_else(|| lift_of_means(metric, look));
    if is_worth_shipping(plan, direction, lift, Some(exact)) {
        IntervalFinding::Better
    } else {
        IntervalFinding::Open
    }
}

/// Returns the observed lift, also where a test has no interval for it: without conversions under the treatment
/// it is -1.
fn lift_of_means(metric: &MetricResult, look: &AlwaysValidResult) -> Option<f64> {
    let control = metric.variants.iter().find(|variant| variant.key == look.control)?.mean?;
    look.lift_absolute.filter(|_| control > 0.0).map(|lift| lift / control)
}

/// Returns whether a lift towards the better side is as large as the plan requires. Over a control without any
/// conversion it is larger than any share of it.
pub(super) fn is_worth_shipping(
    plan: &Plan,
    direction: Direction,
    lift_relative: Option<f64>,
    exact: Option<&ExactTest>,
) -> bool {
    let Some(practical) = plan.practical_lift_relative else {
        return true;
    };
    match lift_relative {
        Some(lift) => toward(direction, lift) >= practical,
        None => exact.is_some_and(|exact| exact.counted == CountedUnits::Converted && exact.control == 0),
    }
}

/// Returns the exact interval as one of the relative lift: only for a rate, and not for odds.
pub(super) fn relative(metric: &MetricResult, exact: &ExactTest) -> Option<Bounds> {
    let of_rate = metric.is_rate()
        && exact.counted == CountedUnits::Converted
        && exact.method != ExactMethod::FisherExact;
    of_rate.then(|| Bounds {
        lower: exact.ratio.lower.map(|end| end - 1.0),
        upper: exact.ratio.upper.map(|end| end - 1.0),
    })
}

/// Returns whether counts decide on this metric now.
pub(super) fn decides(metric: &MetricResult) -> bool {
    if metric.boundaries.is_empty() {
        metric.always_valid.iter().any(|look| look.exact.is_some())
    } else {
        metric
            .boundaries
            .iter()
            .any(|boundary| boundary.looks.last().is_some_and(|look| look.exact.is_some()))
    }
}

/// Formats the test: "exact test of conversion counts, 0 against 2,010".
pub(super) fn counts_tested(exact: &ExactTest) -> String {
    format!("{}, {}", name(exact), against(exact))
}

/// Formats the test with its p-value: "exact test of conversion counts (9 against 40, always-valid p = 0.06)".
pub(super) fn named_with_p(exact: &ExactTest) -> String {
    format!("{} ({}, always-valid {})", name(exact), against(exact), format::p_value(exact.p_value))
}

/// Formats the test with its p-value and the interval.
pub(super) fn shown_by(look: &AlwaysValidResult, exact: &ExactTest) -> String {
    format!("{}: {}", named_with_p(exact), ratio(exact, &look.control, &look.treatment))
}

/// Formats the test for tables, in place of the interval.
pub fn described(look: &AlwaysValidResult) -> Option<String> {
    let exact = look.exact.as_ref()?;
    let lacking = look.missing.as_deref().unwrap_or_default();
    Some(format!("{lacking}; in place of the interval the {}", shown_by(look, exact)))
}

fn name(exact: &ExactTest) -> &'static str {
    match (exact.method, exact.counted) {
        (ExactMethod::FisherExact, _) => "Fisher's exact test",
        (_, CountedUnits::Converted) => "exact test of conversion counts",
        (_, CountedUnits::NotConverted) => "exact test of the counts of units that did not convert",
    }
}

fn against(exact: &ExactTest) -> String {
    format!("{} against {}", format::count(exact.treatment), format::count(exact.control))
}

/// Formats the ratio: "conversions are at most 0.021 times as frequent under `b` as under `a`".
pub(super) fn ratio(exact: &ExactTest, control: &str, treatment: &str) -> String {
    let what = match (exact.method, exact.counted) {
        (ExactMethod::FisherExact, CountedUnits::Converted) => "the odds of a conversion are",
        (ExactMethod::FisherExact, CountedUnits::NotConverted) => "the odds of no conversion are",
        (_, CountedUnits::Converted) => "conversions are",
        (_, CountedUnits::NotConverted) => "units that did not convert are",
    };
    let compared = match exact.method {
        ExactMethod::FisherExact => "the odds",
        _ => "as frequent",
    };
    let lower = exact.ratio.lower.filter(|lower| *lower > 0.0).map(format::times);
    let times = match (lower, exact.ratio.upper.map(format::times)) {
        (None, None) => "any number of".to_owned(),
        (None, Some(upper)) => format!("at most {upper}"),
        (Some(lower), None) => format!("at least {lower}"),
        (Some(lower), Some(upper)) => format!("{lower} to {upper}"),
    };
    match exact.method {
        ExactMethod::FisherExact => {
            format!("{what} {times} times under `{treatment}` {compared} under `{control}`")
        }
        _ => format!("{what} {times} times {compared} under `{treatment}` as under `{control}`"),
    }
}

/// Formats the lack of the arm with fewer: "`b` has 9 conversions, 10 are needed".
pub(super) fn lacking(exact: &ExactTest, control: &str, treatment: &str) -> String {
    let (arm, have) =
        if exact.control < exact.treatment { (control, exact.control) } else { (treatment, exact.treatment) };
    let has = match exact.counted {
        CountedUnits::Converted => format::counted(have, "conversion", "conversions"),
        CountedUnits::NotConverted => {
            format::counted(have, "unit that did not convert", "units that did not convert")
        }
    };
    format!("`{arm}` has {has}, {} are needed", exact.needed)
}

/// Formats a planned look: "exact test of conversion counts: `b` has 9 of 49, at most 3 or at least 46 cross".
pub(super) fn at_a_look(
    look: &BoundaryLook,
    exact: &ExactTest,
    treatment: &str,
    alpha: f64,
    is_open: bool,
) -> String {
    let what = match exact.counted {
        CountedUnits::Converted => "conversions",
        CountedUnits::NotConverted => "units that did not convert",
    };
    if exact.method == ExactMethod::FisherExact {
        return format!(
            "Fisher's exact test of {} {what}, {}, at most {} is needed",
            against(exact),
            format::p_value(exact.p_value),
            format::level(alpha)
        );
    }
    let total = format::count(exact.control + exact.treatment);
    let has = format!("{}: `{treatment}` has {} of {total}", name(exact), format::count(exact.treatment));
    let crosses = match (exact.at_most.map(format::count), exact.at_least.map(format::count)) {
        _ if !is_open => return has,
        (None, None) if look.is_final => "no count of so few crosses".to_owned(),
        (None, None) => "no count crosses this early".to_owned(),
        (Some(most), None) => format!("at most {most} cross"),
        (None, Some(least)) => format!("at least {least} cross"),
        (Some(most), Some(least)) => format!("at most {most} or at least {least} cross"),
    };
    format!("{has}, {crosses}")
}
