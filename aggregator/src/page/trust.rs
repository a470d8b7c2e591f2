//! The section on trust in the numbers: the split, mismatched exposures, warnings, and units that are counted apart.

use lab::chart::escape;

use super::{prose, put};
use crate::document::{ExperimentResult, PhaseRatio, SampleRatio};
use lab::format;

/// Renders the section.
pub fn section(result: &ExperimentResult) -> String {
    let mut section = String::from("<section class=\"card\"><h2>Trust</h2>\n");
    put(&mut section, format_args!("<p>{}</p>\n", sample_ratio(&result.srm)));
    for of in &result.verification {
        let left_out = if of.left_out { " (left out)" } else { "" };
        put(
            &mut section,
            format_args!(
                "<p>{} of {} exposures of phase {} are mismatched{left_out}.</p>\n",
                format::count(of.exposures_mismatched),
                format::count(of.exposures),
                of.phase
            ),
        );
    }
    for warning in &result.warnings {
        put(&mut section, format_args!("<p><b>Warning:</b> {}</p>\n", prose(&warning.text)));
    }
    let notes = [
        (result.units_in_several_variants, "units were exposed to several variants and count in their first"),
        (result.units_forced, "units were forced into a variant and are not counted"),
        (result.units_left_out, "units were first exposed in a phase that is left out"),
        (
            result.units_of_unknown_phases,
            "units say a phase that the definition does not have and are not counted",
        ),
        (
            result.units_of_unknown_variants,
            "units saw a variant that the definition does not have and are not counted",
        ),
        (result.events_after_as_of, "events carry a time in the future and are left out for now"),
    ];
    for (number, what) in notes {
        if number > 0 {
            put(&mut section, format_args!("<p>{} {what}.</p>\n", format::count(number)));
        }
    }
    section.push_str("</section>\n");
    section
}

fn sample_ratio(srm: &SampleRatio) -> String {
    let says = match srm.alarm {
        Some(true) => "Sample ratio: <b>alarm</b>, the split is not the planned one",
        Some(false) => "Sample ratio: as planned",
        None => "Sample ratio: not known yet",
    };
    let arms: Vec<String> = srm
        .variants
        .iter()
        .map(|variant| {
            let expected = variant
                .expected
                .map_or(String::new(), |expected| format!(" of {}", format::count(expected.round() as u64)));
            format!("{} {}{expected}", escape(&variant.key), format::count(variant.units))
        })
        .collect();
    let phases: Vec<String> = srm.phases.iter().map(phase).collect();
    let reference = match (srm.p_value, &srm.missing) {
        (Some(p), _) => format!("; chi-square, for reference: {}", escape(&format::p_value(p))),
        (None, Some(missing)) => format!("; {}", escape(missing)),
        (None, None) => String::new(),
    };
    format!("{says} <span class=\"soft\">({}; {}{reference})</span>", arms.join(", "), phases.join(", "))
}

/// Formats a phase: "phase 2: p = 0.43, alarm at 0.0025".
fn phase(of: &PhaseRatio) -> String {
    let p = of.p_value.map_or("no test".to_owned(), |p| escape(&format::p_value(p)));
    let stands = match (of.left_out, of.alarm) {
        (true, true) => ", alarm, left out",
        (true, false) => ", left out",
        (false, true) => ", alarm",
        (false, false) => "",
    };
    let reason = of.left_out_reason.as_ref().map_or(String::new(), |reason| format!(" ({})", escape(reason)));
    format!("phase {}: {p}, alarm at {}{stands}{reason}", of.phase, of.level)
}
