//! The verdict of a plan with a horizon. It rests only on the looks taken, so neither a second analysis of the
//! same data nor units past the planned end lead to a new decision.

use schemas::definition::{Direction, Plan};

use super::{Ruling, bounds, exact, levels, lift, smallest_worthwhile, toward};
use crate::document::{
    Boundary, BoundaryLook, BoundaryMethod, BoundaryStage, FinalLookDue, MetricResult, Test, Verdict,
    Warning, WarningKind,
};
use lab::format;

/// The finding of one treatment's looks; the order is that of importance to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Better,
    /// Shown to be better, and more looks may show it to be worth shipping.
    NotYetWorthwhile,
    Open,
    TooEarly,
    /// Shown to be better, and at the planned end not worth shipping.
    TooSmall,
    /// A worthwhile effect can no longer be expected, though no harm is shown.
    NotWorthwhile,
    Worse,
    /// All of alpha is spent, and nothing is shown.
    NotShown,
}

/// Returns the verdict on the treatment whose finding matters most; of several, the one with the largest lift.
pub fn rule(plan: &Plan, metric: &MetricResult) -> Ruling {
    let gain = |boundary: &Boundary| {
        let last = boundary.looks.last();
        last.map_or(f64::NEG_INFINITY, |look| toward(metric.direction, look.lift_absolute))
    };
    let first = metric
        .boundaries
        .iter()
        .zip(&metric.tests)
        .map(|(boundary, test)| (finding(plan, metric, boundary), boundary, test))
        .min_by(|(a, of_a, _), (b, of_b, _)| a.cmp(b).then(gain(of_b).total_cmp(&gain(of_a))));
    let Some((finding, boundary, test)) = first else {
        unreachable!("it is asked only where there are boundaries");
    };
    let (verdict, reason) = match boundary.looks.last() {
        None if boundary.stage == BoundaryStage::AlphaSpent => alpha_spent(metric, boundary, test),
        _ if boundary.method == BoundaryMethod::GroupSequential && has_no_units(metric) => no_units(boundary),
        None => before_first_look(plan, boundary),
        Some(last) => after_a_look(finding, &Looked { plan, metric, boundary, test, last }),
    };
    let since = if boundary.stage == BoundaryStage::PastEnd {
        let is_early = boundary.looks.last().is_some_and(|look| look.is_early);
        let end = if is_early { "early" } else { "planned" };
        format!(
            " The units since the {end} end are estimates only: all of alpha is spent, and they decide nothing."
        )
    } else {
        String::new()
    };
    Ruling::about(&boundary.treatment, verdict, format!("{reason}{since}"))
}

/// More units could decide nothing, so the verdict is to stop.
fn alpha_spent(metric: &MetricResult, boundary: &Boundary, test: &Test) -> (Verdict, String) {
    let reason = format!(
        "Stop: the looks before the units were counted anew spent all of alpha, so nothing new can be decided, and \
         what was decided by them stands; {} under `{}` are estimates only.",
        levels(metric, test),
        boundary.treatment
    );
    (Verdict::Stop, reason)
}

fn finding(plan: &Plan, metric: &MetricResult, boundary: &Boundary) -> Finding {
    let direction = metric.direction;
    let Some(last) = boundary.looks.last() else {
        return Finding::TooEarly;
    };
    let crossed = boundary.looks.iter().find(|look| look.crossed);
    let shown = crossed.map(|look| toward(direction, look.lift_absolute) > 0.0);
    if shown == Some(false) {
        return Finding::Worse;
    }
    let relative = match &last.exact {
        Some(exact) => exact::relative(metric, exact),
        None => last.interval_relative_to_control,
    };
    let hoped = relative.and_then(|interval| interval.toward_better(direction).upper);
    if let (Some((smallest, _)), Some(hoped)) = (smallest_worthwhile(plan), hoped)
        && hoped < smallest
    {
        return Finding::NotWorthwhile;
    }
    match (shown, boundary.has_ended()) {
        (Some(_), _) if is_worth_shipping(plan, direction, last) => Finding::Better,
        (Some(_), false) => Finding::NotYetWorthwhile,
        (Some(_), true) => Finding::TooSmall,
        (None, false) if last.exact.is_some_and(|exact| exact.is_below_the_gate()) => Finding::TooEarly,
        (None, false) => Finding::Open,
        (None, true) => Finding::NotShown,
    }
}

/// Significance alone does not ship: the effect must also be worth it, and still be there.
fn is_worth_shipping(plan: &Plan, direction: Direction, last: &BoundaryLook) -> bool {
    let is_there = toward(direction, last.lift_absolute) > 0.0;
    is_there && exact::is_worth_shipping(plan, direction, last.lift_relative, last.exact.as_ref())
}

fn has_no_units(metric: &MetricResult) -> bool {
    metric.variants.iter().all(|variant| variant.units == 0)
}

/// Also the verdict where looks were taken, and everything that they saw is left out now.
fn no_units(boundary: &Boundary) -> (Verdict, String) {
    let reason = format!(
        "Not enough data on `{}`: there is no unit yet that counts; whether `{}` has an effect is open.",
        boundary.metric, boundary.treatment
    );
    (Verdict::NotEnoughData, reason)
}

fn before_first_look(plan: &Plan, boundary: &Boundary) -> (Verdict, String) {
    let (metric, treatment) = (&boundary.metric, &boundary.treatment);
    let horizon = format::count(plan.horizon_units.unwrap_or_default());
    match (&boundary.missing, boundary.method) {
        (Some(missing), _) => {
            let reason = format!(
                "Not enough data on `{metric}`: {missing}; whether `{treatment}` has an effect is open."
            );
            (Verdict::NotEnoughData, reason)
        }
        (None, BoundaryMethod::FixedHorizon) => {
            let reason = format!(
                "Keep running: the plan is one test at {horizon} units, which are not there yet; until then \
                 whether `{treatment}` has an effect is open."
            );
            (Verdict::KeepRunning, reason)
        }
        (None, BoundaryMethod::GroupSequential) => {
            let reason = format!(
                "Not enough data on `{metric}`: {} of the planned information is too little for a first look; \
                 whether `{treatment}` has an effect is open.",
                format::percent(boundary.fraction)
            );
            (Verdict::NotEnoughData, reason)
        }
    }
}

/// A treatment with at least one look.
struct Looked<'a> {
    plan: &'a Plan,
    metric: &'a MetricResult,
    boundary: &'a Boundary,
    test: &'a Test,
    last: &'a BoundaryLook,
}

fn after_a_look(finding: Finding, of: &Looked<'_>) -> (Verdict, String) {
    let treatment = &of.boundary.treatment;
    let levels = levels(of.metric, of.test);
    let last = standing(of.boundary, of.last);
    let settled = of.boundary.settled().map_or(String::new(), |look| standing(of.boundary, look));
    let interval = match &of.last.exact {
        Some(exact) => exact::ratio(exact, &of.boundary.control, treatment),
        None => bounds(of.metric, of.last.interval_absolute),
    };
    let practical = of.plan.practical_lift_relative.unwrap_or(0.0);
    let practical = format::signed_percent(toward(of.metric.direction, practical));
    match finding {
        Finding::Better => {
            let reason = format!(
                "Ship `{treatment}`: {levels}, and the boundary was crossed on the better side at {settled}{}.",
                adjusted(of)
            );
            (Verdict::Ship, reason)
        }
        Finding::Worse => {
            let reason = format!(
                "Stop: `{treatment}` does harm: {levels}, and the boundary was crossed on the worse side at \
                 {settled}{}.",
                adjusted(of)
            );
            (Verdict::Stop, reason)
        }
        Finding::NotYetWorthwhile => {
            let reason = format!(
                "Keep running: the effect of `{treatment}` is real ({levels}; the boundary was crossed at \
                 {settled}), but at the last look not as large as the smallest one worth shipping, {practical}."
            );
            (Verdict::KeepRunning, reason)
        }
        Finding::TooSmall => {
            let end = if of.last.is_early { "the early end" } else { "the planned end" };
            let reason = format!(
                "Stop: the effect of `{treatment}` is real ({levels}; the boundary was crossed at {settled}), but \
                 at {end} not as large as the smallest one worth shipping, {practical}."
            );
            (Verdict::Stop, reason)
        }
        Finding::NotWorthwhile => {
            let (smallest, what) =
                smallest_worthwhile(of.plan).unwrap_or((0.0, "smallest effect worth finding"));
            let reason = format!(
                "Stop: even the best end of the repeated interval ({interval}) is below the {what}, {}, with \
                 {levels} (at {last}).",
                format::signed_percent(toward(of.metric.direction, smallest))
            );
            (Verdict::Stop, reason)
        }
        Finding::NotShown => {
            let end = if of.last.is_early {
                "the experiment was stopped before its planned end"
            } else {
                "the planned units are there"
            };
            let reason = format!(
                "Stop: {end}, {levels} under `{treatment}`, and the boundary was not \
                 crossed at {last}: an effect is not shown, which does not mean that there is none ({interval})."
            );
            (Verdict::Stop, reason)
        }
        Finding::TooEarly => {
            let lacking = of
                .last
                .exact
                .map_or(String::new(), |exact| exact::lacking(&exact, &of.boundary.control, treatment));
            let reason = format!(
                "Not enough data on `{}`: {lacking}, and the boundary was not crossed at {last}; whether `{treatment}` \
                 has an effect is open.",
                of.metric.key
            );
            (Verdict::NotEnoughData, reason)
        }
        Finding::Open => {
            let reason = format!(
                "Keep running: {levels} under `{treatment}`, and the boundary was not crossed at {last}, so an \
                 effect is neither shown nor ruled out."
            );
            (Verdict::KeepRunning, reason)
        }
    }
}

/// Describes for people where a treatment is in its plan.
pub fn progress(boundary: &Boundary) -> String {
    let method = match boundary.method {
        BoundaryMethod::GroupSequential => "group sequential test",
        BoundaryMethod::FixedHorizon => "one planned test",
    };
    let last = boundary.looks.last();
    let shown = last.map_or("no look taken yet".to_owned(), |look| standing(boundary, look));
    let now = format::percent(boundary.fraction);
    let stage = match boundary.stage {
        BoundaryStage::BeforeFirstLook | BoundaryStage::Interim => "",
        BoundaryStage::Final if last.is_some_and(|look| look.is_early) => {
            "; this is an early end, since the experiment was stopped"
        }
        BoundaryStage::Final => "; this is the planned end",
        BoundaryStage::PastEnd if last.is_some_and(|look| look.is_early) => {
            "; past the early end, estimates only"
        }
        BoundaryStage::PastEnd => "; past the planned end, estimates only",
        BoundaryStage::AlphaSpent => "; no look is possible, estimates only",
    };
    let before = if boundary.alpha_spent_before > 0.0 {
        format!(
            " ({} of alpha spent before the units were counted anew)",
            format::percent(boundary.alpha_spent_before)
        )
    } else {
        String::new()
    };
    let due = boundary.final_look_due.map_or(String::new(), |due| format!("; {}", due_sentence(due)));
    format!(
        "{method} of {}, {now} of the planned information now: {shown}{stage}{due}{before}",
        boundary.treatment
    )
}

/// Formats what the final look waits for: "the final look is due when the 2,400 units exposed so far have matured, at the
/// latest at 2026-03-01T00:00:00Z".
fn due_sentence(due: FinalLookDue) -> String {
    let at_latest = due.at_latest.map_or(String::new(), |at| format!(", at the latest at {at}"));
    format!(
        "the final look is due when the {} units exposed so far have matured{at_latest}",
        format::count(due.units)
    )
}

/// Returns the warnings about planned looks: one that is not taken although it might seem due, and one that came early.
pub(super) fn warnings(metric: &MetricResult) -> impl Iterator<Item = Warning> + '_ {
    let of = |kind, text| Warning { kind, text, share_of_units: None, metric: Some(metric.key.clone()) };
    metric.boundaries.iter().filter_map(move |boundary| {
        let last = boundary.looks.last()?;
        let treatment = &boundary.treatment;
        if boundary.information_fell {
            let text = format!(
                "There is less information on `{treatment}` now than at look {}, because late events took units or \
                 conversions back: no look is taken until there is more, and what the looks so far have decided stands.",
                last.look
            );
            return Some(of(WarningKind::InformationFell, text));
        }
        last.is_early.then(|| {
            let text = format!(
                "The experiment was stopped at {} of the planned information, so look {} at `{treatment}` is an early \
                 final look, which spent all of alpha that was left. That keeps alpha only if the stop did not depend on \
                 the effect seen.",
                format::percent(last.fraction),
                last.look
            );
            of(WarningKind::EarlyFinalLook, text)
        })
    })
}

/// Formats a look: "look 3 (60.00 % of the planned information; z = -0.88, 2.68 is needed)".
fn standing(boundary: &Boundary, look: &BoundaryLook) -> String {
    let found = match (&look.exact, look.critical_value) {
        (Some(exact), _) => {
            let is_open = boundary.crossed_at_look.is_none_or(|crossed| crossed >= look.look);
            exact::at_a_look(look, exact, &boundary.treatment, boundary.alpha, is_open)
        }
        (None, Some(critical)) => format!("z = {:.2}, {critical:.2} is needed", look.z),
        (None, None) => format!("z = {:.2}, no z is enough this early", look.z),
    };
    format!("look {} ({} of the planned information; {found})", look.look, format::percent(look.fraction))
}

/// Formats the estimate that is adjusted for the stopping.
fn adjusted(of: &Looked<'_>) -> String {
    of.boundary.after_stopping.map_or(String::new(), |after| {
        format!(
            "; allowing for the stopping, the lift is {} ({})",
            lift(of.metric, after.lift_absolute),
            bounds(of.metric, after.interval_absolute)
        )
    })
}
