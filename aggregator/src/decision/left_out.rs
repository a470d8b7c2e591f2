//! Phases that are left out: every verdict names them and the reasons, and effects that earlier looks showed
//! with them stay visible. A phase without an alarm of the sample ratio may have been left out for its result,
//! so leaving it out does not turn harm that was shown into a reason to ship.

use super::{Evidence, Ruling, lift, toward};
use crate::document::{
    AlwaysValidResult, Boundary, MetricResult, PhaseRatio, ShownBefore, ShownBy, Side, Verdict, Warning,
    WarningKind,
};

/// Returns the sentences that follow the reason of a verdict.
pub(super) fn sentences(evidence: &Evidence<'_>) -> String {
    let out: Vec<&PhaseRatio> = evidence.srm.phases.iter().filter(|of| of.left_out).collect();
    let mut text = String::new();
    if !out.is_empty() {
        let of: Vec<String> = out.iter().map(|of| format!("phase {} ({})", of.phase, reason(of))).collect();
        text.push_str(&format!(" The units of {} are left out.", of.join(" and of ")));
    }
    for (metric, shown) in harms(evidence) {
        text.push_str(&format!(" {}.", sentence(metric, shown)));
    }
    text
}

/// Replaces a verdict to ship that follows from leaving out a phase that showed harm, unless that phase had an
/// alarm.
pub(super) fn held_back(evidence: &Evidence<'_>, ruling: Ruling) -> Ruling {
    let Ruling { verdict: Verdict::Ship, treatment: Some(treatment), reason } = &ruling else {
        return ruling;
    };
    let chosen: Vec<String> = harms(evidence)
        .filter(|(_, shown)| shown.treatment == *treatment)
        .filter(|(_, shown)| shown.phases.iter().any(|phase| !has_alarm(evidence, *phase)))
        .map(|(metric, shown)| sentence(metric, shown))
        .collect();
    if chosen.is_empty() {
        return ruling;
    }
    let out: Vec<String> = evidence
        .srm
        .phases
        .iter()
        .filter(|of| of.left_out && !of.alarm)
        .map(|of| format!("phase {} ({})", of.phase, self::reason(of)))
        .collect();
    let reason = format!(
        "`{treatment}` does not ship by phases chosen after their result. {}. Since then {} was left out without an alarm \
         of its sample ratio; for another answer clone the experiment under another key. What remains alone would say: \
         {reason}",
        chosen.join(". "),
        out.join(" and "),
    );
    Ruling::about(treatment, Verdict::Invalid, reason)
}

/// Returns the same as warnings, for machines and for those who read a table.
pub(super) fn warnings<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = Warning> + 'a {
    shown(evidence).map(|(metric, shown)| Warning {
        kind: match shown.side {
            Side::Better => WarningKind::VerdictRestedOnPhasesLeftOut,
            Side::Worse => WarningKind::HarmShownWithPhasesLeftOut,
        },
        text: format!("{}; {}.", sentence(metric, shown), remains(metric, shown)),
        share_of_units: None,
        metric: Some(metric.key.clone()),
    })
}

fn shown<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = (&'a MetricResult, &'a ShownBefore)> + 'a {
    evidence.metrics.iter().flat_map(|metric| metric.shown_before.iter().map(move |shown| (metric, shown)))
}

fn harms<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = (&'a MetricResult, &'a ShownBefore)> + 'a {
    shown(evidence).filter(|(_, shown)| shown.side == Side::Worse)
}

fn has_alarm(evidence: &Evidence<'_>, phase: u32) -> bool {
    evidence.srm.phases.iter().any(|of| of.phase == phase && of.alarm)
}

/// Returns the owner's reason, on one line.
fn reason(of: &PhaseRatio) -> String {
    match &of.left_out_reason {
        Some(reason) => reason.split_whitespace().collect::<Vec<_>>().join(" "),
        None => "it ended in an alarm of its sample ratio".to_owned(),
    }
}

/// Formats what a look showed: "At look 1, with phase 1, which is left out now, `b` did harm: the boundary was
/// crossed on the worse side (-2.00 percentage points)".
fn sentence(metric: &MetricResult, shown: &ShownBefore) -> String {
    let phases: Vec<String> = shown.phases.iter().map(u32::to_string).collect();
    let (phases, are) = match phases.as_slice() {
        [one] => (format!("phase {one}"), "is"),
        several => (format!("phases {}", several.join(" and ")), "are"),
    };
    let treatment = &shown.treatment;
    let found = match (shown.by, shown.side) {
        (ShownBy::Guardrail, _) => format!("the guardrail `{}` got worse under `{treatment}`", metric.key),
        (ShownBy::Boundary, Side::Worse) => {
            format!("`{treatment}` did harm: the boundary was crossed on the worse side")
        }
        (ShownBy::Boundary, Side::Better) => {
            format!("`{treatment}` was better: the boundary was crossed on the better side")
        }
        (ShownBy::AlwaysValid, Side::Worse) => {
            format!("`{treatment}` did harm: the always-valid test showed the worse side")
        }
        (ShownBy::AlwaysValid, Side::Better) => {
            format!("`{treatment}` was better: the always-valid test showed the better side")
        }
    };
    let unit = if metric.is_rate() { " percentage points" } else { " per unit" };
    let by = shown.lift_absolute.map_or(String::new(), |by| format!(" ({}{unit})", lift(metric, by)));
    format!("At look {}, with {phases}, which {are} left out now, {found}{by}", shown.look)
}

/// Describes what the remaining phases show for the same comparison.
fn remains(metric: &MetricResult, shown: &ShownBefore) -> String {
    let side = |lift: f64| if toward(metric.direction, lift) > 0.0 { Side::Better } else { Side::Worse };
    let now = match shown.by {
        ShownBy::Boundary => {
            let boundary = metric.boundaries.iter().find(|of| of.treatment == shown.treatment);
            let crossed = |of: &Boundary| of.looks.iter().find(|look| look.crossed).copied();
            boundary.and_then(crossed).map(|look| side(look.lift_absolute))
        }
        ShownBy::AlwaysValid => look_of(metric, shown)
            .filter(|look| look.includes_zero == Some(false))
            .and_then(|look| look.lift_absolute)
            .map(side),
        ShownBy::Guardrail => look_of(metric, shown)
            .filter(|look| look.harm_p_value.is_some_and(|p| p <= look.alpha))
            .map(|_| Side::Worse),
    };
    match (now, shown.side) {
        (None, _) => "the phases that remain do not show it".to_owned(),
        (Some(now), then) if now == then => "the phases that remain show it too".to_owned(),
        (Some(Side::Better), _) => "the phases that remain show the opposite, the better side".to_owned(),
        (Some(Side::Worse), _) => "the phases that remain show the opposite, the worse side".to_owned(),
    }
}

fn look_of<'a>(metric: &'a MetricResult, shown: &ShownBefore) -> Option<&'a AlwaysValidResult> {
    metric.always_valid.iter().find(|look| look.treatment == shown.treatment)
}
